//! The testbed of real nodes.
//!
//! A node is a container with systemd as PID 1 and a disk of its own, an ext4 image that only the node mounts. Cutting
//! its power shuts that file system down without a flush and then kills everything at once: what was not synced is lost.
//!
//! ```text
//! image ──► node ──► bed: nodes on a network of their own, with agents, stand-in kubelets ◄── tests/*.rs
//!  disk ──┘   ▲       └─► coordinator, on the network's gateway address                   ◄── bin/testbed, bin/bench-repair
//!           power
//! ```
//!
//! - [`docker`]: the docker command, with deadlines
//! - [`image`]: the root file system of a node, built once
//! - [`disk`], [`power`]: what makes a power loss a real one
//! - [`node`], [`journal`], [`ledger`]: one node
//! - [`network`], [`topology`], [`bed`]: several, as a fleet
//! - [`packages`]: what `make packages` makes, to be installed on a node
//! - [`coordinator`], [`settings`]: Blackstart itself, as it runs in a bed
//! - [`bench`](mod@bench): what benchmarks share
//! - [`fleet`]: thousands of agents that are nothing but their sessions
//! - [`masters`], [`component`]: masters as kubeadm lays them out, with a real etcd
//! - [`records`]: a log that shows whether its tail is whole
//! - [`apiserver`]: doubles of an API server that can be overwhelmed, and of the controller that evicts
//! - [`sim`]: the whole cold start in simulated time, for which no node is needed

pub mod apiserver;
pub mod bed;
pub mod bench;
pub mod component;
pub mod coordinator;
pub mod disk;
pub mod docker;
pub mod fleet;
pub mod image;
pub mod journal;
pub mod ledger;
pub mod masters;
pub mod network;
pub mod node;
pub mod packages;
pub mod power;
pub mod records;
pub mod settings;
pub mod sim;
pub mod topology;
pub mod wait;

//! The node agent: watches one node, repairs it by itself, and reports.
//!
//! ```text
//!  systemd, kubelet, disks, logs
//!        │ watch/      one file a source → Signal
//!        ▼
//!     diagnose/        Signal → Condition           (pure)
//!        ▼
//!     decide/          Condition + ledger → Remedy  (pure)
//!        ▼
//!     ledger/          intent, durable before the act
//!        ▼
//!     remedy/          the only place that changes the node; verifies; outcome → ledger
//!        ▼
//!     link/            reports to the coordinator, takes its typed commands
//! ```
//!
//! `enrol/` gets this node its certificate, and renews it. `brakes/` is what people and the coordinator hold back.
//! `report/` tells the log what happened, the journal with fields; `kubernetes/` tells the API server, if it may;
//! `local/` answers on the node itself, `metrics/` to Prometheus; `explain/` has the words for both people and documents;
//! `preflight/` tells what must hold before a kubelet may start; `privilege/` what the agent itself cannot do here, and why.
//! `etcd/` tells of the etcd member on this node, and changes it by the coordinator's word alone.
//! `gate/` holds the kubelet at boot; `set_aside/` knows which manifests are out while a cluster starts, and brings them back;
//!  `host/` is the node as the rest sees it: real or simulated.

pub mod brakes;
mod bytes;
mod causes;
pub mod cli;
pub mod condition;
pub mod config;
pub mod control_plane;
pub mod decide;
pub mod diagnose;
pub mod enrol;
pub mod etcd;
pub mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gate;
pub mod host;
pub mod kubernetes;
pub mod ledger;
pub mod link;
pub mod local;
pub mod metrics;
pub mod order;
pub mod permit;

pub mod picture;
pub mod preflight;
pub mod privilege;
pub mod reclaim;
pub mod remedy;
pub mod report;
pub mod run;
pub mod set_aside;
pub mod signal;
mod span;
mod sys;
pub mod watch;

//! The etcd member on this node: told of when the coordinator asks, and changed by its word alone.
//!
//! ```text
//!  manifest of the static pod ──► pod: URLs, certificate files, data directory
//!                                  │
//!  coordinator ──question──► look ─┼─► client ══ mTLS, deadline ══► the member on this node
//!              ──change────► act ──┘      a cause that has a name (trouble): expired, refused, silent
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`pod`] | a manifest → what it says of etcd |
//! | [`rewrite`] | the manifest with another `--initial-cluster`, or of a member on another host |
//! | [`client`] | etcd's own protocol, with the member on this node and no other |
//! | [`trouble`] | why it did not answer, by name |
//! | [`look`] | everything that is told of the member; changes nothing |
//! | [`snapshot`] | takes, keeps, lists and reads again |
//! | [`schedule`] | has one taken in its time |
//! | [`act`] | the closed list of changes, each looked at before it is made |
//! | [`rebuild`] | sets the member's data aside and has it join anew |
//! | [`newcomer`] | a node that has no member: the manifest that one would have, and what is missing for it |
//! | [`fence`] | takes etcd, or the rest of the control plane, out of the kubelet's sight, and is sure that it has ended |
//! | [`restore`] | makes a cluster of one out of what is left, with etcd's own tool |
//! | [`sources`] | out of what that could be done here: data directories, snapshots |
//! | [`tool`] | what etcd's own tool is asked and told |
//! | [`wal`] | of which cluster a data directory is |
//! | [`ways`] | where manifests and data lie meanwhile, and how they are moved |
//!
//! What is told goes out as the wire has it: nothing on the node is decided on it. It needs no API server, no name service and no
//! certificate of ours beyond those that the manifest names.

pub mod act;
pub(crate) mod client;
pub(crate) mod desk;
pub(crate) mod fence;
pub mod look;
pub(crate) mod newcomer;
pub(crate) mod pod;
pub mod rebuild;
pub(crate) mod restore;
pub(crate) mod rewrite;
pub(crate) mod schedule;
pub mod snapshot;
pub(crate) mod sources;
pub(crate) mod tool;
pub(crate) mod trouble;
pub(crate) mod wal;
pub(crate) mod ways;

use std::time::{SystemTime, UNIX_EPOCH};

pub use act::{Act, Change, NewManifest, OutOf, Restore};
pub use desk::Desk;

/// The wall clock, for people and for the names of snapshots.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

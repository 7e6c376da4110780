//! The etcd of managed clusters: what agents tell of their members, and what follows from it.
//!
//! ```text
//!  eyes ──asks the agents of the control planes──► told, node by node ──judge (pure)──► View: members, leader, quorum, findings
//!                                                                            │
//!        runbooks::etcd_* ◄── may this change be made? (pure, on numbers) ◄──┘
//! ```
//! It goes through the agents on the masters, since the API server may be down, and since each can ask its own member alone: also one that
//! has lost its quorum.

pub mod change;
pub mod eyes;
mod findings;
pub mod judge;
pub mod newcomer;
pub mod sources;
pub mod spare;
pub mod told;

pub use eyes::Eyes;

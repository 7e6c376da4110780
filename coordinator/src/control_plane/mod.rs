//! The static pods of managed control planes beside etcd: what agents tell of them, and what follows from it.
//!
//! ```text
//!  eyes ──asks the agents of the masters──► told, node by node ──judge (pure)──► of each part: well, or the cause with its evidence
//!                                                                      ▲                  │
//!                         etcd, which an API server does nothing without ┘      runbooks::control_plane
//! ```
//! It goes through the agents, since the API server may be what is down.

pub mod eyes;
pub mod judge;
pub mod told;

pub use eyes::{Eyes, Glance};

//! The static pods of a control plane beside etcd: told of when the coordinator asks, and changed by its word alone.
//!
//! ```text
//!  manifests ──► pod: health port, certificate files, flags ─┐
//!  container runtime, health port, newest log ───────────────┼─► look ──► what the coordinator decides on
//!  the node's addresses ─────────────────────────────────────┘
//!  coordinator ──change──► bounce, or a manifest with another value of one flag
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`pod`] | a manifest → its flags and the files that they name; the same manifest with another value |
//! | [`log`] | the last lines that a static pod wrote |
//! | [`look`] | everything that is told; changes nothing |
//! | [`change`] | the closed list of changes |
//! | [`desk`] | questions, a few at a time |
//!
//! Why a part does not answer is named and not guessed: a certificate that has expired is named with its file and its time, a manifest that
//! cannot be read with what is wrong in it. Neither the API server nor a name service is asked.

pub mod change;
pub(crate) mod desk;
pub(crate) mod log;
pub mod look;
pub(crate) mod pod;

pub use change::{Act, Change, Flag};
pub use desk::Desk;

//! How this node comes by its certificate, and keeps one that is valid.
//!
//! ```text
//!  join:   token, digest of the authority's key ─► key, made here and kept here ─► request ─► certificate, configuration
//!  renew:  at half of its life, or whenever it is due ─► request of the same key ─► certificate in place of the old one
//! ```
//!
//! | module | story |
//! |---|---|
//! | `key` | the node's key, and requests for certificates of it |
//! | `call` | asks coordinators, and knows them by their authority |
//! | [`join`](mod@join) | the first certificate |
//! | [`renew`] | every further one |
//! | `files` | writes them: whole or not at all, keys for their owner alone |
//!
//! A key never leaves its node. Renewing keeps the key, so that there is one file to replace, and a power loss in between leaves either
//! certificate, each of which goes with it.

mod call;
mod files;
pub mod join;
mod key;
pub mod renew;

use std::io;
use std::path::PathBuf;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A file that cannot be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} {what}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What was given cannot be.
    #[error("{0}")]
    Usage(String),
    /// No coordinator could be asked.
    #[error("no coordinator could be asked: {0}")]
    Unreachable(String),
    /// The coordinator at the other end is not of the authority that was named. Nothing was told to it.
    #[error("whoever answers at {address} is not vouched for by the authority {wanted}: {why}")]
    Stranger {
        /// Where.
        address: std::net::SocketAddr,
        /// The digest that was given.
        wanted: String,
        /// Why that is thought.
        why: String,
    },
    /// A coordinator said no.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// A coordinator does not do this.
    #[error("the coordinator issues no certificates: {0}")]
    NotServed(String),
    /// It answered with something that is no certificate of this node's key.
    #[error("the coordinator's answer cannot be used: {0}")]
    Answer(String),
}

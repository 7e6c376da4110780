//! Why a management controller's word was not had.

use std::io;
use std::path::PathBuf;

/// No more of what a machine says is shown, characters.
const SHOWN: usize = 200;

/// Why a management controller's word was not had. None of these is proof of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BmcError {
    /// Nobody answered in time.
    #[error("it does not answer ({0}): a loss of power takes it too, so this is no proof")]
    Unreachable(String),
    /// It is not who it has to be.
    #[error("{0}")]
    Certificate(String),
    /// The credentials are not good for it.
    #[error("it refuses the credentials ({0}): see `bmc.credentials` of the configuration")]
    Denied(u16),
    /// It answered something else than was asked for.
    #[error("it answered {status} to {what}{more}")]
    Status {
        /// To what.
        what: String,
        /// HTTP.
        status: u16,
        /// What more is known of it; empty, or begins with a comma.
        more: String,
    },
    /// It answered, and not as Redfish has it.
    #[error("{0}")]
    NotRedfish(String),
    /// Several machines are behind it.
    #[error(
        "several machines are behind it: write which of them it is as `bmc.system` in the inventory: {0}"
    )]
    Systems(String),
    /// Its power cannot be cut.
    #[error("its power cannot be cut: {0}")]
    NoReset(String),
    /// The credentials cannot be used.
    #[error("{0}")]
    Credentials(String),
}

/// What management controllers are spoken to with cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("read {what} {}", path.display())]
    Read {
        /// What it is.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read the credentials.
    #[error("{} has mode {mode:03o}: others than its owner can read passwords in it; chmod 600 it", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It says something that cannot be; never what, since it has passwords.
    #[error("{0}")]
    Invalid(String),
    /// There is no certificate in it that can be used.
    #[error("{} has no certificate that can be used as an authority: {why}", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It cannot be known by anything.
    #[error(
        "the management controller of {0} cannot be known: give its certificate's fingerprint (`bmc.fingerprint` in the inventory), or \
         the authority that signed it (`bmc.ca` in the configuration)"
    )]
    Unknowable(String),
}

/// What a machine said, as it may be shown: short, and without what moves a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

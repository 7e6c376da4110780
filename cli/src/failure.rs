//! Why a command did not work, what to try, and the exit code.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

/// The exit codes, as `--help` and `docs/cli.md` list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything else.
    Failure = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No coordinator could be reached.
    Unreachable = 3,
    /// The coordinator refused.
    Refused = 4,
    /// No such thing.
    NotFound = 5,
    /// The run or the drill did not succeed.
    RunDidNotSucceed = 6,
    /// Ctrl-C.
    Interrupted = 130,
    /// Whoever read the output went away; what a shell shows for SIGPIPE.
    ClosedPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// One address that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub address: SocketAddr,
    /// What happened, and what to try.
    pub why: Unreached,
}

/// Why a coordinator could not be reached at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// Its certificate is not from our authority.
    UnknownAuthority,
    /// Its certificate is of our authority, and not valid now.
    CertificateNotValidNow,
    /// Its certificate is of our authority, and not a coordinator's.
    NotACoordinator,
    /// It did not take our certificate; the TLS alert that it sent.
    OurCertificateRefused(String),
    /// Something listens there that does not speak TLS.
    NotTls,
    /// It follows, and there is no leader that could be reached.
    Follows,
    /// It follows, and did not do it because it reached no leader: in its words.
    NotLed(String),
    /// The connection broke.
    Lost(String),
    /// Anything else, as the system calls it.
    Other(String),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::UnknownAuthority => f.write_str("its certificate is not from the authority in --tls-ca"),
            Self::CertificateNotValidNow => f.write_str("its certificate has expired or is not yet valid"),
            Self::NotACoordinator => f.write_str("its certificate is not a coordinator's"),
            Self::OurCertificateRefused(alert) => write!(f, "it refused our certificate (TLS alert {alert})"),
            Self::NotTls => f.write_str("what listens there does not speak TLS"),
            Self::Follows => {
                f.write_str("it follows another coordinator, and none that leads could be reached")
            }
            Self::NotLed(said) => f.write_str(said),
            Self::Lost(what) => write!(f, "the connection broke: {what}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Unreached {
    /// What to try.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Refused => {
                "is blackstart-coordinator running there? (systemctl status blackstart-coordinator)"
            }
            Self::TimedOut => "is the machine up, the address right, the port open? --timeout waits longer",
            Self::UnknownAuthority => {
                "give the ca.crt that this coordinator's certificate was issued from (blackstart pki show)"
            }
            Self::CertificateNotValidNow => {
                "compare the clocks of both machines first (after a power loss they lie); then issue it anew: blackstart pki issue coordinator"
            }
            Self::NotACoordinator => {
                "is it the address of a coordinator? issue its certificate with: blackstart pki issue coordinator"
            }
            Self::OurCertificateRefused(_) => {
                "is yours from the coordinator's authority, and not expired? blackstart pki show; blackstart pki issue operator NAME"
            }
            Self::NotTls => "is the port right? a coordinator listens on 7443 unless told otherwise",
            Self::Follows | Self::NotLed(_) => {
                "blackstart get coordinators; without a majority of etcd's members nobody can lead: etcdctl endpoint status"
            }
            Self::Lost(_) => {
                "try again; if it stays: is your certificate an operator's, from the coordinator's authority? (blackstart pki show); then journalctl -u blackstart-coordinator"
            }
            Self::Other(_) => "is the address right, and the network up?",
        }
    }
}

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong usage or configuration.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What would be right.
        advice: Option<String>,
    },
    /// Every address was tried in vain.
    #[error("no coordinator could be reached")]
    Unreachable(Vec<Attempt>),
    /// The coordinator answered, and refused.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator answered that we have no right.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// No such thing.
    #[error("{what} {name:?} not found")]
    NotFound {
        /// Node, run, ...
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What to look at, or what was meant.
        advice: Option<String>,
    },
    /// What was asked for without a name is not there.
    #[error("{what}")]
    Absent {
        /// What is not there.
        what: String,
        /// What to look at.
        advice: String,
    },
    /// The run or the drill ended otherwise.
    #[error("{0}")]
    RunDidNotSucceed(String),
    /// Ctrl-C; what was to say has been said.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output went away.
    #[error("the output was closed")]
    ClosedPipe,
    /// Anything else.
    #[error("{what}")]
    Other {
        /// What was being done to what, and why it failed.
        what: String,
        /// What to try.
        advice: Option<String>,
    },
}

impl Failure {
    /// Wrong usage, without advice.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            advice: None,
        }
    }

    /// Anything else, without advice.
    pub fn other(what: impl Into<String>) -> Self {
        Self::Other {
            what: what.into(),
            advice: None,
        }
    }

    /// Its exit code.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Refused(_) | Self::PermissionDenied(_) => Exit::Refused,
            Self::NotFound { .. } | Self::Absent { .. } => Exit::NotFound,
            Self::RunDidNotSucceed(_) => Exit::RunDidNotSucceed,
            Self::Interrupted => Exit::Interrupted,
            Self::ClosedPipe => Exit::ClosedPipe,
            Self::Other { .. } => Exit::Failure,
        }
    }

    /// What to tell below the error: details, then what to try.
    pub fn details(&self) -> Vec<String> {
        match self {
            Self::Unreachable(attempts) => attempts
                .iter()
                .flat_map(|Attempt { address, why }| {
                    [format!("{address}: {why}"), format!("  try: {}", why.advice())]
                })
                .collect(),
            Self::PermissionDenied(_) => {
                vec!["try: use an operator's certificate; one is issued with: blackstart pki issue operator NAME".to_owned()]
            }
            Self::Usage { advice, .. } | Self::NotFound { advice, .. } | Self::Other { advice, .. } => {
                advice.iter().map(|advice| format!("try: {advice}")).collect()
            }
            Self::Absent { advice, .. } => vec![format!("try: {advice}")],
            Self::Refused(_) | Self::RunDidNotSucceed(_) | Self::Interrupted | Self::ClosedPipe => Vec::new(),
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::other(format!("write the output: {error}"))
        }
    }
}

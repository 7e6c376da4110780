//! The closed list of what is done to a static pod of the control plane. Only by the coordinator's word, which gives one at a time.

use blackstart_proto::part::Part;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The run that asked.
    pub run_id: String,
    /// Of what.
    pub part: Part,
    /// What.
    pub act: Act,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Its manifest is moved out until it has ended, and back.
    Bounce,
    /// The same, and it comes back with another value of one flag; where it is not well with it, with the old one.
    SetFlag {
        /// Which.
        flag: Flag,
        /// What it is, or nothing is done.
        from: String,
        /// What it is to be.
        to: String,
    },
}

/// The flags that may be set. A closed list: none of them gives anybody a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Where the API server finds etcd.
    EtcdServers,
}

impl Flag {
    /// As it is written, without its dashes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EtcdServers => "etcd-servers",
        }
    }

    /// Whose it is.
    pub const fn part(self) -> Part {
        match self {
            Self::EtcdServers => Part::ApiServer,
        }
    }
}

impl Act {
    /// Its name in ledger and terminal.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bounce => "control-plane-bounce",
            Self::SetFlag { .. } => "control-plane-set-flag",
        }
    }
}

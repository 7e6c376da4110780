//! Deliberate breaks, one or more for each law: a simulation that finds none of them proves nothing.
//!
//! Each is a wrapper around what the real code is given or gives: the picture that the executor decides on, the inventory it plans
//! from, the orders it sends, the disk it writes to, the rules an agent asks. The real code itself is never changed.

use std::fmt;

use super::laws::Law;

/// A deliberate break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The executor takes every master for ready.
    WorkerGateSkipped,
    /// The executor takes one master more for ready than there is.
    QuorumOffByOne,
    /// Plans are made as if no cluster depended on another.
    TierGateSkipped,
    /// Any word of a node counts, however old.
    FreshnessIgnored,
    /// The executor lets all workers of a cluster start at once.
    WindowIgnored,
    /// Agents do not keep the epoch that they have obeyed, and so obey any.
    EpochForgotten,
    /// Agents do not look into their ledger for a command.
    LedgerForgotten,
    /// The disk says that a write is durable before it is, and so a command goes out before its intent.
    DispatchBeforeJournal,
    /// A coordinator that comes back gives commands new names.
    NewNamesAfterCrash,
    /// Gates never open by themselves.
    DeadManDisabled,
    /// The dead-man times of masters and workers are exchanged.
    MastersLast,
    /// The coordinator tells every held node to go on waiting, for ever.
    HeldForEver,
    /// A run tells nothing of what it waits for.
    BlockerEmpty,
    /// Plans set no controllers aside.
    SetAsideSkipped,
    /// One kubelet is enough for controllers to be put back.
    ShareIgnored,
    /// Agents say that a manifest is out, and leave it where it is.
    NothingMoved,
    /// Agents put back what is set aside a second later, and nobody asked.
    PutBackUnasked,
    /// Agents never put back what is set aside by themselves.
    AsideForEver,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::WorkerGateSkipped,
        Self::QuorumOffByOne,
        Self::TierGateSkipped,
        Self::FreshnessIgnored,
        Self::WindowIgnored,
        Self::EpochForgotten,
        Self::LedgerForgotten,
        Self::DispatchBeforeJournal,
        Self::NewNamesAfterCrash,
        Self::DeadManDisabled,
        Self::MastersLast,
        Self::HeldForEver,
        Self::BlockerEmpty,
        Self::SetAsideSkipped,
        Self::ShareIgnored,
        Self::NothingMoved,
        Self::PutBackUnasked,
        Self::AsideForEver,
    ];

    /// The laws one of which has to find it.
    pub const fn breaks(self) -> &'static [Law] {
        match self {
            Self::WorkerGateSkipped => &[Law::WorkerOrder],
            Self::QuorumOffByOne | Self::FreshnessIgnored => &[Law::WorkerOrder, Law::SetAside],
            Self::TierGateSkipped => &[Law::TierOrder],
            Self::WindowIgnored => &[Law::Budget],
            Self::EpochForgotten => &[Law::OneHand],
            Self::LedgerForgotten => &[Law::NothingTwice],
            Self::DispatchBeforeJournal | Self::NewNamesAfterCrash => &[Law::IntentFirst],
            Self::DeadManDisabled | Self::AsideForEver => &[Law::FailTowardsRunning],
            Self::SetAsideSkipped | Self::ShareIgnored | Self::NothingMoved | Self::PutBackUnasked => {
                &[Law::SetAside]
            }
            Self::MastersLast => &[Law::MastersFirst],
            Self::HeldForEver => &[Law::Ends],
            Self::BlockerEmpty => &[Law::SayWhy],
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mutation| mutation.to_string() == name)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkerGateSkipped => "worker-gate-skipped",
            Self::QuorumOffByOne => "quorum-off-by-one",
            Self::TierGateSkipped => "tier-gate-skipped",
            Self::FreshnessIgnored => "freshness-ignored",
            Self::WindowIgnored => "window-ignored",
            Self::EpochForgotten => "epoch-forgotten",
            Self::LedgerForgotten => "ledger-forgotten",
            Self::DispatchBeforeJournal => "dispatch-before-journal",
            Self::NewNamesAfterCrash => "new-names-after-crash",
            Self::DeadManDisabled => "dead-man-disabled",
            Self::MastersLast => "masters-last",
            Self::HeldForEver => "held-for-ever",
            Self::BlockerEmpty => "blocker-empty",
            Self::SetAsideSkipped => "set-aside-skipped",
            Self::ShareIgnored => "share-ignored",
            Self::NothingMoved => "nothing-moved",
            Self::PutBackUnasked => "put-back-unasked",
            Self::AsideForEver => "aside-for-ever",
        })
    }
}

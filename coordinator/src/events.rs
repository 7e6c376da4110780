//! What happened in the fleet, for people: the newest kept in memory, each told to whoever follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::inventory::{ClusterName, NodeName};

/// So many are kept.
const KEEP: usize = 4096;
/// A follower that is farther behind than this loses the oldest.
const FOLLOW: usize = 1024;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt if it stays.
    Warning,
    /// Hurts now.
    Critical,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An agent connected.
    SessionUp,
    /// A session was lost without a goodbye.
    SessionLost,
    /// An agent said goodbye.
    Goodbye,
    /// A node came back in a boot that was not known.
    NewBoot,
    /// A power event was declared.
    PowerEvent,
    /// A run began.
    RunStarted,
    /// A run's state changed.
    RunState,
    /// A step was dispatched.
    StepStarted,
    /// A step was verified.
    StepDone,
    /// A step was given up and its node is residue.
    StepResidue,
    /// A step failed.
    StepFailed,
    /// An agent raised a condition.
    ConditionRaised,
    /// A condition is gone.
    ConditionCleared,
    /// An agent did a remedy by itself.
    Remedy,
    /// A peer was refused.
    Refused,
    /// An operator holds remedies.
    HoldSet,
    /// An operator lifted a hold.
    HoldLifted,
    /// Many nodes of a cluster have one condition at once: its remedies are frozen.
    StormBegan,
    /// A storm is over.
    StormEnded,
    /// A node may do something disruptive now.
    PermitGranted,
    /// A permit is over: given back, expired, or taken back by an operator.
    PermitEnded,
    /// A permit stands for longer than its term.
    PermitOverdue,
    /// Another coordinator leads.
    Leadership,
    /// An operator's command came by way of a coordinator that follows.
    Forwarded,
    /// A node was given a certificate, or may be.
    Enrolled,
    /// Certificates were revoked.
    Revoked,
    /// Something is wrong with the audit.
    Audit,
}

impl EventKind {
    /// Its name on the wire and in the terminal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionUp => "SessionUp",
            Self::SessionLost => "SessionLost",
            Self::Goodbye => "Goodbye",
            Self::NewBoot => "NewBoot",
            Self::PowerEvent => "PowerEvent",
            Self::RunStarted => "RunStarted",
            Self::RunState => "RunState",
            Self::StepStarted => "StepStarted",
            Self::StepDone => "StepDone",
            Self::StepResidue => "StepResidue",
            Self::StepFailed => "StepFailed",
            Self::ConditionRaised => "ConditionRaised",
            Self::ConditionCleared => "ConditionCleared",
            Self::Remedy => "Remedy",
            Self::Refused => "Refused",
            Self::HoldSet => "HoldSet",
            Self::HoldLifted => "HoldLifted",
            Self::StormBegan => "StormBegan",
            Self::StormEnded => "StormEnded",
            Self::PermitGranted => "PermitGranted",
            Self::PermitEnded => "PermitEnded",
            Self::PermitOverdue => "PermitOverdue",
            Self::Leadership => "Leadership",
            Self::Forwarded => "Forwarded",
            Self::Enrolled => "Enrolled",
            Self::Revoked => "Revoked",
            Self::Audit => "Audit",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Rising within one coordinator process.
    pub sequence: u64,
    /// Wall clock, milliseconds since the Unix epoch; for people only.
    pub at_unix_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What kind.
    pub kind: EventKind,
    /// Which cluster, if one.
    pub cluster: Option<ClusterName>,
    /// Which node, if one.
    pub node: Option<NodeName>,
    /// Which run, if one.
    pub run: Option<String>,
    /// What happened, for people.
    pub message: String,
}

/// An event before it has its number and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// How much it matters.
    pub severity: Severity,
    /// What kind.
    pub kind: EventKind,
    /// Which cluster, if one.
    pub cluster: Option<ClusterName>,
    /// Which node, if one.
    pub node: Option<NodeName>,
    /// Which run, if one.
    pub run: Option<String>,
    /// What happened, for people.
    pub message: String,
}

impl NewEvent {
    /// An event of the whole fleet.
    pub fn new(severity: Severity, kind: EventKind, message: impl Into<String>) -> Self {
        Self {
            severity,
            kind,
            cluster: None,
            node: None,
            run: None,
            message: message.into(),
        }
    }

    /// The same, of one cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: &ClusterName) -> Self {
        self.cluster = Some(cluster.clone());
        self
    }

    /// The same, of one node.
    #[must_use]
    pub fn node(mut self, node: &NodeName) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// The same, of one run.
    #[must_use]
    pub fn run(mut self, run: &str) -> Self {
        self.run = Some(run.to_owned());
        self
    }
}

/// The events of this coordinator process. Cheap to clone; all clones are one log.
#[derive(Debug, Clone)]
pub struct Events {
    kept: Arc<Mutex<Kept>>,
    follow: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    events: VecDeque<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Arc::default(),
            follow: broadcast::Sender::new(FOLLOW),
        }
    }
}

impl Events {
    /// Takes one in.
    pub fn emit(&self, event: NewEvent) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.next += 1;
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            sequence: kept.next,
            at_unix_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            severity: event.severity,
            kind: event.kind,
            cluster: event.cluster,
            node: event.node,
            run: event.run,
            message: event.message,
        };
        if kept.events.len() == KEEP {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Under the lock, so that followers see them in order. Nobody may be following.
        let _followers = self.follow.send(event);
    }

    /// Those that are kept, oldest first, and each that comes after them.
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.events.iter().cloned().collect(), self.follow.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_gets_each_event_once_and_in_order() {
        let events = Events::default();
        let say = |text: &str| events.emit(NewEvent::new(Severity::Info, EventKind::SessionUp, text));
        say("a");
        let (kept, mut follow) = events.follow();
        say("b");
        assert_eq!(kept.len(), 1);
        let next = follow.recv().await.unwrap();
        assert_eq!((next.sequence, next.message.as_str()), (2, "b"));
    }
}

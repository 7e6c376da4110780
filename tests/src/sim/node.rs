//! A node: what is on its disk, what is true of it, and its agent, which asks the real rules.
//!
//! ```text
//!  power ─► boot: how did the last end? ─► gate (real judgement) ─► kubelet ─► healthy
//!              └► agent ─► dials ─► reports; order ─► rule (real) ─ epoch durable ─ intent durable ─ gate ─ outcome durable ─► answer
//! ```
//!
//! Between any two steps the agent may die or the power may fail: each step is an event that finds its
//! [incarnation](Node::incarnation) gone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use blackstart_agent::gate::{
    self, Found, GateState, Heard, Record as GateRecord, Release, Terms, Verdict, Words,
};
use blackstart_agent::ledger::{Intent, Outcome, Record, Sequence};
use blackstart_agent::order::Order;
use blackstart_agent::set_aside::{Held, comes_back};
use blackstart_coordinator::fleet::OrderResult;
use blackstart_coordinator::inventory::{NodeName, Role};
use blackstart_proto::boot::{BootIdentity, PreviousShutdown};
use blackstart_proto::component::{Component, ManifestState, Manifests};

use super::Ms;

/// What a kubelet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kubelet {
    Stopped,
    Starting,
    Healthy,
    Ill,
}

/// What survives a power loss.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) epoch: u64,
    pub(super) records: BTreeMap<String, Record>,
    last_boot: Option<u64>,
    clean: Option<u64>,
    /// What is set aside, and the boot that its times are of.
    pub(super) aside: Vec<Held>,
    pub(super) aside_boot: u64,
}

/// The order that the agent works on.
#[derive(Debug, Clone)]
pub(super) struct Busy {
    pub(super) order: Order,
    pub(super) stage: Stage,
}

/// Where it is with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its epoch is being written.
    Epoch,
    /// Its intent is.
    Intent,
    /// The gate is being told.
    Act,
    /// Its outcome is being written.
    Outcome,
}

/// The agent's end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) acknowledged_at: Ms,
    pub(super) sequence: u64,
}

/// An answer, until a report behind it is acknowledged.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) answer: OrderResult,
    pub(super) before_report: Option<u64>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) cluster: usize,
    pub(super) role: Role,
    pub(super) durable: Durable,

    pub(super) power: bool,
    pub(super) boot: u64,
    pub(super) booted_at: Ms,
    pub(super) previous: PreviousShutdown,
    pub(super) words: Words,
    pub(super) kubelet: Kubelet,
    /// Counts its changes, so that what was to happen to an earlier kubelet does not happen to a later one.
    pub(super) kubelet_turn: u64,
    pub(super) dead_man: Duration,

    pub(super) agent: bool,
    pub(super) incarnation: u64,
    pub(super) busy: Option<Busy>,
    pub(super) queue: VecDeque<Order>,
    pub(super) answers: VecDeque<Kept>,
    pub(super) line: Option<Line>,
    pub(super) partitioned_until: Ms,
    /// When the next report is due.
    pub(super) report_at: Ms,

    /// The last moments when a master served, and when a kubelet was healthy: truth, for the laws.
    pub(super) served_at: Option<Ms>,
    pub(super) healthy_at: Option<Ms>,
    /// The highest epoch that anything was done for on this node.
    pub(super) acted_epoch: u64,
    /// How often each command was begun.
    pub(super) begun: BTreeMap<String, u32>,
    /// Since when a coordinator has answered and claims nothing here, by this boot's clock.
    pub(super) unclaimed: Option<Duration>,
    /// When each component was last set aside: truth.
    pub(super) aside_at: BTreeMap<Component, Ms>,
    /// Its controllers may act in this boot, and why; judged by the law.
    pub(super) license: Option<String>,
    /// They do.
    pub(super) in_office: bool,
}

/// Nothing was said to or by the gate of this boot.
const fn silence() -> Words {
    Words {
        record: Found::Nothing,
        release: Found::Nothing,
        heard: Found::Nothing,
    }
}

impl Node {
    /// A node in its first boot, up and well.
    pub(super) fn new(name: NodeName, cluster: usize, role: Role, dead_man: Duration) -> Self {
        let mut node = Self {
            name,
            cluster,
            role,
            durable: Durable::default(),
            power: false,
            boot: 0,
            booted_at: 0,
            previous: PreviousShutdown::FirstBoot,
            words: silence(),
            kubelet: Kubelet::Stopped,
            kubelet_turn: 0,
            dead_man,
            agent: false,
            incarnation: 0,
            busy: None,
            queue: VecDeque::new(),
            answers: VecDeque::new(),
            line: None,
            partitioned_until: 0,
            report_at: 0,
            served_at: None,
            healthy_at: None,
            acted_epoch: 0,
            begun: BTreeMap::new(),
            unclaimed: None,
            aside_at: BTreeMap::new(),
            license: None,
            in_office: false,
        };
        node.power_on(0);
        node
    }

    /// Which boot this is, as it tells others.
    pub(super) fn identity(&self) -> BootIdentity {
        BootIdentity {
            boot_id: format!("{}-boot-{}", self.name, self.boot),
            nonce: self.boot.to_string(),
            previous_shutdown: self.previous,
        }
    }

    /// The power comes: a new boot that judges how the last one ended, as `blackstart_proto::boot::establish` does.
    pub(super) fn power_on(&mut self, now: Ms) {
        self.power = true;
        self.boot += 1;
        self.booted_at = now;
        self.previous = match (self.durable.last_boot, self.durable.clean) {
            (None, _) => PreviousShutdown::FirstBoot,
            (Some(last), Some(clean)) if last == clean => PreviousShutdown::Clean,
            (Some(_), _) => PreviousShutdown::Unclean,
        };
        self.durable.last_boot = Some(self.boot);
        self.durable.clean = None;
        self.words = silence();
        self.license = None;
    }

    /// The power fails: whatever is not on disk is gone.
    pub(super) fn power_off(&mut self) {
        self.power = false;
        self.kubelet = Kubelet::Stopped;
        self.kubelet_turn += 1;
        self.words = silence();
        self.agent_dies();
    }

    /// It is shut down in order. A gate that still holds leaves no marker.
    pub(super) fn mark_clean(&mut self) {
        if self.gate() != GateState::Held {
            self.durable.clean = Some(self.boot);
        }
    }

    /// The agent dies, with what it knew.
    pub(super) fn agent_dies(&mut self) {
        self.agent = false;
        self.incarnation += 1;
        self.busy = None;
        self.queue.clear();
        self.answers.clear();
        self.line = None;
        self.unclaimed = None;
    }

    /// This component's manifest is out.
    pub(super) fn is_aside(&self, component: Component) -> bool {
        self.durable.aside.iter().any(|held| held.component == component)
    }

    /// Where its manifests are. Only masters have any.
    pub(super) fn manifests(&self) -> Manifests {
        let state = |component| match self.role {
            Role::ControlPlane if self.is_aside(component) => ManifestState::SetAside,
            Role::ControlPlane => ManifestState::InPlace,
            Role::Worker | Role::Etcd => ManifestState::Absent,
        };
        let all = Component::ALL.into_iter();
        all.map(|component| (component, state(component))).collect()
    }

    /// When its agent puts back what is set aside, by the truth's clock.
    pub(super) fn aside_until(&self, dead_man: Duration, now: Ms) -> Option<Ms> {
        let heard = self.words.heard.get().map(|heard| heard.at);
        let uptime = self.uptime(now);
        let at = comes_back(&self.durable.aside, heard, self.unclaimed, dead_man, uptime)?;
        Some(self.booted_at.saturating_add(millis(at)))
    }

    /// Milliseconds since its boot, as `CLOCK_BOOTTIME` tells them.
    pub(super) fn uptime(&self, now: Ms) -> Duration {
        Duration::from_millis(now.saturating_sub(self.booted_at))
    }

    /// What the gate is doing.
    pub(super) fn gate(&self) -> GateState {
        self.words
            .record
            .get()
            .map_or(GateState::Absent, |record| record.state)
    }

    /// Since when the gate waits, or when it was last spoken to, by the truth's clock.
    pub(super) fn spoken_to_at(&self) -> Option<Ms> {
        let record = self
            .words
            .record
            .get()
            .filter(|record| record.state == GateState::Held)?;
        let heard = self.words.heard.get().map_or(Duration::ZERO, |heard| heard.at);
        Some(self.booted_at + millis(record.since.max(heard)))
    }

    /// The gate looks at its files. `Ok`: it is open (and was not before, if that is so). `Err`: when it has to look again.
    pub(super) fn judge(&mut self, now: Ms) -> Result<Option<GateState>, Ms> {
        let terms = Terms {
            previous_shutdown: self.previous,
            dead_man: self.dead_man,
            dry_run: false,
            // Nothing stands in the way of a simulated kubelet.
            preflight_hold: Duration::ZERO,
        };
        let before = self.gate();
        let uptime = self.uptime(now);
        let (state, since, why, opens_at) = match gate::judge(&self.words, terms, uptime) {
            Verdict::Open { state, why } => (state, uptime, why, None),
            Verdict::Hold { since, opens_at } => (GateState::Held, since, String::new(), Some(opens_at)),
        };
        self.words.record = Found::Is(GateRecord {
            state,
            since,
            dead_man: self.dead_man,
            why,
            preflight_hold: Duration::ZERO,
            blockers: None,
        });
        match opens_at {
            Some(uptime) => Err(self.booted_at.saturating_add(millis(uptime))),
            None => Ok((before != state).then_some(state)),
        }
    }

    /// The coordinator's word that it is at work.
    pub(super) fn heard(&mut self, now: Ms, waiting_on: String) {
        self.words.heard = Found::Is(Heard {
            at: self.uptime(now),
            waiting_on,
        });
    }

    /// The coordinator's release.
    pub(super) fn release(&mut self, now: Ms, run_id: String) {
        let at = self.uptime(now);
        self.words.release = Found::Is(Release { run_id, at });
    }

    /// An intent, on disk.
    pub(super) fn write_intent(&mut self, order: &Order) {
        let sequence = Sequence(self.durable.records.len() as u64 + 1);
        let record = Record {
            sequence,
            intent: Intent {
                remedy: order.remedy.name().to_owned(),
                subject: order.remedy.subject(),
                reason: order.reason.clone(),
                command_id: Some(order.command_id.clone()),
                dry_run: false,
            },
            outcome: None,
            boot: self.boot.to_string(),
            epoch: order.epoch,
            at_unix_ms: 0,
            took_ms: 0,
            boottime_ms: 0,
        };
        self.durable.records.insert(order.command_id.clone(), record);
    }

    /// An outcome, on disk.
    pub(super) fn write_outcome(&mut self, command_id: &str, outcome: Outcome) {
        if let Some(record) = self.durable.records.get_mut(command_id) {
            record.outcome = Some(outcome);
        }
    }
}

fn millis(duration: Duration) -> Ms {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

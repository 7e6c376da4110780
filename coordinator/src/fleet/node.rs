//! One node: what it said last, and what changed with it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::message::{
    Condition, DiskStatus, Hello, NodeHold, RemedyOutcome, RemedyRecord, Report, UnitStatus,
};
use super::view::{GateState, NodeView, Phase};
use crate::events::{EventKind, NewEvent, Severity};

/// So many remedies of each node are kept.
const REMEDIES: usize = 64;
/// More kinds of conditions than any agent has.
const KINDS: usize = 128;

/// One connection of one agent. Numbers rise, so that the word of a connection that was replaced is known for stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Nothing heard for so long: silent.
    pub(super) patience: Duration,
}

/// What is known of one node.
#[derive(Debug)]
pub struct NodeState {
    pub(super) view: NodeView,
    pub(super) session: Option<Session>,
    pub(super) attended: bool,
    agent_version: String,
    last_heard: Option<Instant>,
    conditions: Vec<Condition>,
    units: Vec<UnitStatus>,
    disks: Vec<DiskStatus>,
    remedies: VecDeque<RemedyRecord>,
    holds: Vec<NodeHold>,
    silenced: bool,
    /// When a condition of each kind was last raised.
    raised: BTreeMap<String, Instant>,
}

impl NodeState {
    pub(super) fn new(view: NodeView, attended: bool) -> Self {
        Self {
            view,
            session: None,
            attended,
            agent_version: String::new(),
            last_heard: None,
            conditions: Vec::new(),
            units: Vec::new(),
            disks: Vec::new(),
            remedies: VecDeque::new(),
            holds: Vec::new(),
            silenced: false,
            raised: BTreeMap::new(),
        }
    }

    /// What decisions are made on.
    pub fn view(&self) -> &NodeView {
        &self.view
    }

    /// A run has had it in charge in its present boot.
    pub fn attended(&self) -> bool {
        self.attended
    }

    /// The agent's version; empty if it was never heard by this process.
    pub fn agent_version(&self) -> &str {
        &self.agent_version
    }

    /// When it was last heard by this process.
    pub fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// What stood at its last report: a lost session clears nothing.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Its watched units at its last report.
    pub fn units(&self) -> &[UnitStatus] {
        &self.units
    }

    /// Its watched file systems at its last report.
    pub fn disks(&self) -> &[DiskStatus] {
        &self.disks
    }

    /// Its newest remedies, oldest first.
    pub fn remedies(&self) -> impl ExactSizeIterator<Item = &RemedyRecord> {
        self.remedies.iter()
    }

    /// What was held on the node itself, at its last report.
    pub fn holds(&self) -> &[NodeHold] {
        &self.holds
    }

    /// It said at its last report that it is silenced.
    pub fn is_silenced(&self) -> bool {
        self.silenced
    }

    /// When a condition of each kind was last raised, standing or not.
    pub fn raised(&self) -> impl Iterator<Item = (&String, &Instant)> {
        self.raised.iter()
    }

    /// When it will be silent if nothing more is heard; `None` without a session.
    pub(super) fn silent_at(&self) -> Option<Instant> {
        Some(self.last_heard? + self.session.as_ref()?.patience)
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
    }

    pub(super) fn set_phase(&mut self, phase: Phase, now: Instant) {
        if self.view.phase != phase {
            self.view.phase = phase;
            self.view.phase_since = now;
        }
    }

    /// Takes in the first word of a session; tells whether its boot is new.
    pub(super) fn hello(&mut self, hello: Hello, session: Session, now: Instant) -> bool {
        self.heard(now);
        self.session = Some(session);
        self.agent_version = hello.agent_version;
        let view = &mut self.view;
        view.in_session = true;
        view.lost_at = None;
        view.attestation = None;
        view.highest_epoch = hello.highest_epoch;
        let known = view.boot.as_ref().is_some_and(|boot| boot.same_boot(&hello.boot));
        if !known {
            view.previous_boot = view.boot.replace(hello.boot);
            view.new_boot_at = Some(now);
            self.attended = false;
        }
        self.set_phase(Phase::NotReady, now);
        !known
    }

    /// Ends the session, if there is one.
    pub(super) fn leave(&mut self, phase: Phase, lost_at: Option<Instant>, now: Instant) {
        self.session = None;
        self.view.in_session = false;
        self.view.attestation = None;
        self.view.lost_at = lost_at;
        self.set_phase(phase, now);
    }

    /// Takes in a report; tells what changed, without the node's name, and whether it changes what is decided on.
    pub(super) fn report(&mut self, report: Report, now: Instant) -> (Vec<NewEvent>, bool) {
        self.heard(now);
        let mut events = changes(&self.conditions, &report.conditions);
        let mut news = !events.is_empty() || self.silenced != report.silenced;
        news |= self.note_raised(&report.conditions);
        self.conditions = report.conditions;
        self.holds = report.holds;
        self.silenced = report.silenced;
        self.units = report.units;
        self.disks = report.disks;
        for record in report.remedies {
            events.extend(self.remedy(record));
        }
        let attestation = report.attestation;
        news |= self
            .view
            .attestation
            .as_ref()
            .is_none_or(|before| !before.says_the_same(&attestation));
        let before = self.view.phase;
        self.set_phase(
            if attestation.gate == GateState::Held {
                Phase::Held
            } else if attestation.kubelet_healthy {
                Phase::Ready
            } else {
                Phase::NotReady
            },
            now,
        );
        self.view.attestation = Some(attestation);
        news |= self.view.phase != before;
        (events, news)
    }

    /// A kind that did not stand at the last report is raised anew. An agent that restarts tells what stood before as raised now, and that
    /// is no storm. Tells whether one was.
    fn note_raised(&mut self, conditions: &[Condition]) -> bool {
        let mut any = false;
        for condition in conditions {
            let stood = self.conditions.iter().any(|known| known.kind == condition.kind);
            let known = self.raised.contains_key(&condition.kind);
            if stood && known {
                continue;
            }
            if !known && self.raised.len() >= KINDS {
                continue;
            }
            self.raised.insert(condition.kind.clone(), condition.since);
            any = true;
        }
        any
    }

    /// Records are sent again until they are acknowledged, and again with their outcome.
    fn remedy(&mut self, record: RemedyRecord) -> Option<NewEvent> {
        let known = self
            .remedies
            .iter_mut()
            .find(|known| known.sequence == record.sequence);
        let event = told(&record);
        match known {
            Some(known) if *known == record => return None,
            Some(known) => *known = record,
            None => {
                if self.remedies.len() == REMEDIES {
                    self.remedies.pop_front();
                }
                self.remedies.push_back(record);
            }
        }
        event
    }
}

/// What is worth telling of a remedy: that it ended, if the agent did it by itself.
fn told(record: &RemedyRecord) -> Option<NewEvent> {
    let (severity, ended) = match record.outcome {
        RemedyOutcome::Started => return None,
        RemedyOutcome::Succeeded => (Severity::Info, "succeeded"),
        RemedyOutcome::Failed => (Severity::Warning, "failed"),
    };
    if !record.command_id.is_empty() {
        return None;
    }
    let RemedyRecord {
        remedy,
        subject,
        reason,
        detail,
        ..
    } = record;
    let rehearsed = if record.dry_run { " (dry run)" } else { "" };
    let detail = if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    };
    Some(NewEvent::new(
        severity,
        EventKind::Remedy,
        format!("{remedy} {subject} {ended}{rehearsed} ({reason}){detail}"),
    ))
}

/// What came and went between two reports.
fn changes(before: &[Condition], after: &[Condition]) -> Vec<NewEvent> {
    let same = |one: &Condition, other: &Condition| one.kind == other.kind && one.subject == other.subject;
    let mut events = Vec::new();
    for condition in after {
        let known = before.iter().find(|known| same(known, condition));
        let Condition {
            kind,
            subject,
            evidence,
            ..
        } = condition;
        match known {
            None => events.push(NewEvent::new(
                condition.severity,
                EventKind::ConditionRaised,
                format!("{kind} {subject}: {evidence}"),
            )),
            Some(known) if condition.escalated && !known.escalated => events.push(NewEvent::new(
                Severity::Critical,
                EventKind::ConditionRaised,
                format!("{kind} {subject}: the node's own remedies are spent; {evidence}"),
            )),
            Some(_) => {}
        }
    }
    for gone in before
        .iter()
        .filter(|known| !after.iter().any(|now| same(known, now)))
    {
        events.push(NewEvent::new(
            Severity::Info,
            EventKind::ConditionCleared,
            format!("{} {}", gone.kind, gone.subject),
        ));
    }
    events
}

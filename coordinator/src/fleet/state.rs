//! The live picture as a plain value: messages in, view and events out, with *now* as an argument.
//!
//! ```text
//!            hello                       report: gate held          kubelet healthy
//!  Unknown ────────► NotReady ─────────────────► Held ─────────────────► Ready
//!  Silent  ────────►    ▲  └──────────────────────────────────────────────┘ (either way, by each report)
//!  Stopped ────────►    │
//!                       └ any of these: goodbye ► Stopped; stream ended or nothing heard ► Silent
//! ```
//!
//! A node has at most one session: a newer one replaces the older, whose later words and whose end then mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blackstart_proto::boot::PreviousShutdown;
use tokio::time::Instant;

use super::boots::KnownBoot;
use super::message::{Hello, Leave, Report};
use super::node::{NodeState, Session, SessionId};
use super::view::{FleetView, NodeView, Phase};
use crate::events::{EventKind, NewEvent, Severity};
use crate::inventory::{ClusterName, Inventory, NodeName};

/// However seldom an agent means to report, after this it is silent.
const LONGEST_SILENCE: Duration = Duration::from_mins(5);

/// The fleet as it stands.
#[derive(Debug)]
pub struct State {
    nodes: BTreeMap<NodeName, NodeState>,
    clusters: BTreeMap<NodeName, ClusterName>,
    silent_after: Duration,
    own_unclean_boot: bool,
    began_at: Instant,
    next_session: u64,
    unsaved: BTreeSet<NodeName>,
}

impl State {
    /// The declared nodes with what is remembered of them; none is in session.
    pub fn new(
        inventory: &Inventory,
        remembered: &BTreeMap<NodeName, KnownBoot>,
        silent_after: Duration,
        own_unclean_boot: bool,
        now: Instant,
    ) -> Self {
        let node = |name: &NodeName| {
            let mut view = NodeView::unknown(now);
            let known = remembered.get(name);
            if let Some(known) = known {
                view.phase = Phase::Silent;
                view.boot = Some(known.boot.clone());
                view.previous_boot.clone_from(&known.previous);
            }
            (
                name.clone(),
                NodeState::new(view, known.is_some_and(|known| known.attended)),
            )
        };
        Self {
            nodes: inventory.nodes.keys().map(node).collect(),
            clusters: inventory
                .nodes
                .values()
                .map(|spec| (spec.name.clone(), spec.cluster.clone()))
                .collect(),
            silent_after,
            own_unclean_boot,
            began_at: now,
            next_session: 1,
            unsaved: BTreeSet::new(),
        }
    }

    /// Nobody listens here, so whether a node is silent is not known.
    pub(super) fn unheard(&mut self) {
        for node in self.nodes.values_mut() {
            node.view.phase = Phase::Unknown;
        }
    }

    /// Every declared node.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &NodeState)> {
        self.nodes.iter()
    }

    /// One declared node.
    pub fn node(&self, name: &NodeName) -> Option<&NodeState> {
        self.nodes.get(name)
    }

    /// The snapshot that is decided on.
    pub fn view(&self, now: Instant) -> FleetView {
        FleetView {
            at: now,
            nodes: self
                .nodes
                .iter()
                .map(|(name, node)| (name.clone(), node.view().clone()))
                .collect(),
            own_unclean_boot: self.own_unclean_boot,
            began_at: self.began_at,
        }
    }

    /// A session begins, and replaces the node's older one. `None`: the node is not declared.
    pub fn hello(
        &mut self,
        name: &NodeName,
        hello: Hello,
        now: Instant,
    ) -> Option<(SessionId, Vec<NewEvent>)> {
        let node = self.nodes.get_mut(name)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let patience =
            (hello.report_interval * 3).clamp(self.silent_after, LONGEST_SILENCE.max(self.silent_after));
        let version = hello.agent_version.clone();
        let replaces = node.session.is_some();
        let mut events = vec![NewEvent::new(
            Severity::Info,
            EventKind::SessionUp,
            if replaces {
                format!("agent {version} connected anew; its older session is dropped")
            } else {
                format!("agent {version} connected")
            },
        )];
        if node.hello(hello, Session { id, patience }, now) {
            self.unsaved.insert(name.clone());
            events.push(new_boot(node.view()));
        }
        Some((id, self.placed(name, events)))
    }

    /// A report of a session: what is worth telling, and whether it changes what is decided on. `None` if the session is no longer the
    /// node's.
    pub fn report(
        &mut self,
        name: &NodeName,
        session: SessionId,
        report: Report,
        now: Instant,
    ) -> Option<(Vec<NewEvent>, bool)> {
        let (events, news) = self.current(name, session)?.report(report, now);
        Some((self.placed(name, events), news))
    }

    /// Something else was heard of a session; `None` if the session is no longer the node's.
    pub fn heard(&mut self, name: &NodeName, session: SessionId, now: Instant) -> Option<()> {
        self.current(name, session)?.heard(now);
        Some(())
    }

    /// The agent leaves on purpose.
    pub fn goodbye(
        &mut self,
        name: &NodeName,
        session: SessionId,
        leave: Leave,
        now: Instant,
    ) -> Vec<NewEvent> {
        let Some(node) = self.current(name, session) else {
            return Vec::new();
        };
        node.heard(now);
        node.leave(Phase::Stopped, None, now);
        let why = match leave {
            Leave::AgentStop => "the agent stops",
            Leave::Shutdown => "the machine shuts down in order",
        };
        self.placed(name, vec![NewEvent::new(Severity::Info, EventKind::Goodbye, why)])
    }

    /// The stream of a session ended. After a goodbye, or once a newer session has come, that means nothing.
    pub fn ended(&mut self, name: &NodeName, session: SessionId, now: Instant) -> Vec<NewEvent> {
        let Some(node) = self.current(name, session) else {
            return Vec::new();
        };
        node.leave(Phase::Silent, Some(now), now);
        let event = NewEvent::new(
            Severity::Warning,
            EventKind::SessionLost,
            "the connection ended without a goodbye",
        );
        self.placed(name, vec![event])
    }

    /// Lets time pass: sessions that were not heard of for too long are lost. Tells whose, and what is worth telling.
    pub fn tick(&mut self, now: Instant) -> (Vec<NodeName>, Vec<NewEvent>) {
        let silent: Vec<NodeName> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.silent_at().is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        let mut events = Vec::new();
        for name in &silent {
            let Some(node) = self.nodes.get_mut(name) else {
                continue;
            };
            let silence = node.last_heard().map_or(Duration::ZERO, |at| now - at);
            node.leave(Phase::Silent, Some(now), now);
            let event = NewEvent::new(
                Severity::Warning,
                EventKind::SessionLost,
                format!("nothing was heard for {:.1} s", silence.as_secs_f64()),
            );
            events.extend(self.placed(name, vec![event]));
        }
        (silent, events)
    }

    /// A run has these nodes in charge, each in its present boot. Those that have not yet said how they stand are passed over:
    /// their run may end without having seen them.
    pub fn attend<'a>(&mut self, names: impl IntoIterator<Item = &'a NodeName>) {
        for name in names {
            if let Some(node) = self.nodes.get_mut(name)
                && node.view.attestation.is_some()
                && !node.attended
            {
                node.attended = true;
                self.unsaved.insert(name.clone());
            }
        }
    }

    /// When the next session will be lost to silence, if nothing more is heard.
    pub fn next_silence(&self) -> Option<Instant> {
        self.nodes.values().filter_map(NodeState::silent_at).min()
    }

    /// The boots that changed since this was last asked.
    pub fn take_unsaved(&mut self) -> Vec<(NodeName, KnownBoot)> {
        std::mem::take(&mut self.unsaved)
            .into_iter()
            .filter_map(|name| {
                let node = self.nodes.get(&name)?;
                let known = KnownBoot {
                    boot: node.view.boot.clone()?,
                    previous: node.view.previous_boot.clone(),
                    attended: node.attended,
                };
                Some((name, known))
            })
            .collect()
    }

    /// They could not be saved: they will be offered again.
    pub fn still_unsaved(&mut self, names: impl IntoIterator<Item = NodeName>) {
        self.unsaved.extend(names);
    }

    fn current(&mut self, name: &NodeName, session: SessionId) -> Option<&mut NodeState> {
        self.nodes
            .get_mut(name)
            .filter(|node| node.session.as_ref().is_some_and(|known| known.id == session))
    }

    fn placed(&self, name: &NodeName, events: Vec<NewEvent>) -> Vec<NewEvent> {
        let cluster = self.clusters.get(name);
        events
            .into_iter()
            .map(|event| match cluster {
                Some(cluster) => event.node(name).cluster(cluster),
                None => event.node(name),
            })
            .collect()
    }
}

fn new_boot(view: &NodeView) -> NewEvent {
    let ended = view.boot.as_ref().map(|boot| boot.previous_shutdown);
    let (severity, ended) = match ended {
        Some(PreviousShutdown::Unclean) => (Severity::Warning, "the one before it ended without a shutdown"),
        Some(PreviousShutdown::Clean) => (Severity::Info, "the one before it was shut down in order"),
        Some(PreviousShutdown::FirstBoot) | None => (Severity::Info, "none is known before it"),
    };
    let id = view.boot.as_ref().map_or("", |boot| boot.boot_id.as_str());
    NewEvent::new(severity, EventKind::NewBoot, format!("new boot {id}: {ended}"))
}

#[cfg(test)]
mod tests;

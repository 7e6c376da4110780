//! Connections between agents and coordinators: ordered, slow, cut, and sometimes saying a thing twice.

use blackstart_agent::gate::GateState;
use blackstart_coordinator::fleet::message::{Hello, Report};
use blackstart_coordinator::fleet::view::{Attestation, GateState as Gate};
use blackstart_coordinator::fleet::{Order, OrderResult};
use blackstart_coordinator::inventory::Role;
use blackstart_proto::component::{Component, ManifestState, Manifests};
use std::time::Duration;
use tokio::time::Instant;

use super::Ms;
use super::mutations::Mutation;
use super::node::Kubelet;
use super::script::LONGEST_DELAY;
use super::world::{Happening, World};

/// One connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) node: usize,
    pub(super) boot: u64,
    pub(super) process: u64,
    /// When the last message arrives, either way: those behind it come later.
    up_at: Ms,
    down_at: Ms,
    /// Nothing goes through any more, and nobody was told.
    broken: bool,
}

/// To the coordinator.
#[derive(Debug)]
pub(super) enum Up {
    Hello {
        highest_epoch: u64,
    },
    Report {
        word: Word,
        sequence: u64,
        probed_at: Ms,
    },
    Answer(OrderResult),
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    gate: Gate,
    active: bool,
    healthy: bool,
    serves: bool,
    manifests: Manifests,
}

/// To the agent.
#[derive(Debug)]
pub(super) enum Down {
    Welcome,
    Acknowledgement { sequence: u64, hold: Option<String> },
    Order(Order),
}

impl World {
    /// A new connection.
    pub(super) fn open_line(&mut self, node: usize, process: u64) -> u64 {
        let id = self.next_line;
        self.next_line += 1;
        let line = Line {
            node,
            boot: self.nodes[node].boot,
            process,
            up_at: self.now,
            down_at: self.now,
            broken: false,
        };
        self.lines.insert(id, line);
        id
    }

    /// When a message that is sent now arrives; `None`: never.
    fn arrives(&mut self, id: u64, up: bool) -> Option<Ms> {
        let slow = self.script.slow_messages;
        let delay = if self.percent(slow) {
            self.between(200, LONGEST_DELAY / 2)
        } else {
            self.between(1, 40)
        };
        let line = self.lines.get_mut(&id).filter(|line| !line.broken)?;
        let sent = self.now.max(self.nodes[line.node].partitioned_until);
        let last = if up { &mut line.up_at } else { &mut line.down_at };
        let at = (sent + delay).max(*last);
        if at > self.now + LONGEST_DELAY {
            line.broken = true;
            return None;
        }
        *last = at;
        Some(at)
    }

    pub(super) fn send_up(&mut self, line: u64, up: Up) {
        if let Some(at) = self.arrives(line, true) {
            self.at(at, Happening::Up { line, up });
        }
    }

    pub(super) fn send_down(&mut self, line: u64, down: Down) {
        let Some(at) = self.arrives(line, false) else {
            return;
        };
        let doubled = self.script.doubled_orders;
        if let Down::Order(order) = &down
            && self.percent(doubled)
        {
            let (again, later) = (Down::Order(order.clone()), self.between(1, LONGEST_DELAY));
            self.at(at + later, Happening::Down { line, down: again });
        }
        self.at(at, Happening::Down { line, down });
    }

    /// One end is gone without a word.
    pub(super) fn break_line(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.broken = true;
        }
    }

    /// One end is gone, and its machine says so.
    pub(super) fn end_line(&mut self, id: u64) {
        if let Some(at) = self.arrives(id, true) {
            self.at(at, Happening::LineEnds { line: id });
        }
        self.break_line(id);
    }

    /// A node's connection, if it has one, ends from its side.
    pub(super) fn hang_up(&mut self, node: usize) {
        if let Some(line) = self.nodes[node].line.take() {
            self.nodes[node].unclaimed = None;
            self.end_line(line.id);
        }
    }

    /// The end of a connection is heard at the side that still lives.
    pub(super) fn line_ends(&mut self, id: u64) {
        let Some(line) = self.lines.remove(&id) else {
            return;
        };
        self.agent_lost(line.node, id);
        let name = self.nodes[line.node].name.clone();
        let Some(process) = self
            .processes
            .get_mut(&line.process)
            .filter(|process| !process.frozen)
        else {
            return;
        };
        if let Some((known, session)) = process.sessions.get(&line.node).copied()
            && known == id
        {
            process.sessions.remove(&line.node);
            process.state.ended(&name, session, Instant::now());
            self.look_soon(line.process);
        }
    }

    /// What an agent says of its node.
    pub(super) fn word(&self, at: usize) -> Word {
        let node = &self.nodes[at];
        Word {
            gate: match node.gate() {
                GateState::Absent => Gate::Absent,
                GateState::Held => Gate::Held,
                GateState::Released => Gate::Released,
                GateState::Passed => Gate::Passed,
                GateState::DeadMan => Gate::DeadMan,
            },
            active: node.kubelet != Kubelet::Stopped,
            healthy: node.kubelet == Kubelet::Healthy,
            serves: self.serves(at),
            manifests: if self.mutation == Some(Mutation::NothingMoved) {
                self.claimed_manifests(at)
            } else {
                node.manifests()
            },
        }
    }

    /// What an agent says that leaves manifests where they are: those that it was told to move out are out.
    fn claimed_manifests(&self, at: usize) -> Manifests {
        let node = &self.nodes[at];
        let told = |component: Component| {
            let records = node.durable.records.values();
            let mut done = records.filter(|record| record.intent.subject == component.pod());
            done.any(|record| record.intent.remedy == "hold-manifest")
        };
        let mut manifests = node.manifests();
        for (component, state) in &mut manifests {
            if node.role == Role::ControlPlane && told(*component) {
                *state = ManifestState::SetAside;
            }
        }
        manifests
    }

    /// A message of an agent arrives.
    pub(super) fn comes_up(&mut self, id: u64, up: Up) {
        let now = Instant::now();
        let Some((node, of)) = self.lines.get(&id).map(|line| (line.node, line.process)) else {
            return;
        };
        let name = self.nodes[node].name.clone();
        let identity = self.nodes[node].identity();
        let boot = self.lines.get(&id).map_or(0, |line| line.boot);
        let Some(process) = self.processes.get_mut(&of) else {
            return;
        };
        if process.frozen {
            return self.break_line(id);
        }
        let session = process
            .sessions
            .get(&node)
            .filter(|(known, _)| *known == id)
            .map(|(_, session)| *session);
        match (up, session) {
            (Up::Hello { highest_epoch }, None) => {
                if self.nodes[node].boot != boot {
                    return;
                }
                let hello = Hello {
                    agent_version: String::new(),
                    boot: identity,
                    highest_epoch,
                    report_interval: Duration::from_millis(super::script::REPORT),
                };
                if let Some((session, _)) = process.state.hello(&name, hello, now) {
                    process.sessions.insert(node, (id, session));
                    self.send_down(id, Down::Welcome);
                    self.look_soon(of);
                }
            }
            (
                Up::Report {
                    word,
                    sequence,
                    probed_at,
                },
                Some(session),
            ) => {
                let attestation = Attestation {
                    gate: word.gate,
                    kubelet_active: word.active,
                    kubelet_healthy: word.healthy,
                    apiserver_ready: word.serves,
                    apiserver: None,
                    observed_at: now,
                    waiting_on: String::new(),
                    manifests: word.manifests.clone(),
                };
                self.trace.note(&[self.now, node as u64, sequence, probed_at]);
                let before = process
                    .state
                    .node(&name)
                    .and_then(|node| node.view().attestation.clone());
                let changed = before.is_none_or(|before| {
                    (before.gate, before.kubelet_healthy, before.apiserver_ready)
                        != (word.gate, word.healthy, word.serves)
                        || before.manifests != word.manifests
                });
                let report = Report {
                    attestation,
                    conditions: Vec::new(),
                    units: Vec::new(),
                    disks: Vec::new(),
                    holds: Vec::new(),
                    silenced: false,
                    remedies: Vec::new(),
                    sequence,
                };
                process.state.report(&name, session, report, now);
                let for_ever = self.mutation == Some(Mutation::HeldForEver) && word.gate == Gate::Held;
                let hold = process.holds.borrow().get(&name).cloned();
                let hold = hold.or_else(|| for_ever.then(|| "nothing".to_owned()));
                self.send_down(id, Down::Acknowledgement { sequence, hold });
                if changed {
                    self.look_soon(of);
                }
            }
            (Up::Answer(answer), Some(session)) => {
                if process.state.heard(&name, session, now).is_some() {
                    process.answer(answer);
                }
            }
            // The session was replaced, or lost to silence: the stream is ended.
            (Up::Report { .. } | Up::Answer(_), None) => self.end_line(id),
            (Up::Hello { .. }, Some(_)) => {}
        }
    }

    /// A message of a coordinator arrives.
    pub(super) fn comes_down(&mut self, id: u64, down: Down) {
        let Some(line) = self.lines.get(&id) else {
            return;
        };
        let (node, boot) = (line.node, line.boot);
        let this = &self.nodes[node];
        // A double may come over a connection that the agent has left, not over one of another boot.
        if !this.agent || this.boot != boot {
            return;
        }
        match down {
            Down::Order(order) => self.takes_order(node, order),
            Down::Welcome => self.is_welcome(node, id),
            Down::Acknowledgement { sequence, hold } => self.is_acknowledged(node, id, sequence, hold),
        }
    }
}

//! What a node's agent does: dials, reports, and obeys by the real rules, one durable step after the other.

use blackstart_agent::gate::GateState;
use blackstart_agent::ledger::Outcome;
use blackstart_agent::order::{self, OrderStatus, Rule};
use blackstart_agent::remedy::Remedy;
use blackstart_agent::set_aside::Held;
use blackstart_coordinator::fleet::{Action, Answer, Order, OrderResult};
use blackstart_coordinator::inventory::Role;
use rand::seq::IndexedRandom;
use std::time::Duration;
use tokio::time::Instant;

use super::Ms;
use super::lines::Up;
use super::mutations::Mutation;
use super::node::{Busy, Kept, Line, Stage};
use super::script::{PATIENCE, REPORT};
use super::world::{Happening, World};

/// A report follows another by no less.
const REPORT_GAP: Ms = 250;
/// What is set aside is looked at so often.
const ASIDE_LOOK: Ms = 1_000;
/// An agent that cannot dial waits for at least, and at most, so long.
const BACK_OFF: (Ms, Ms) = (500, 6_000);

impl World {
    pub(super) fn agent_starts(&mut self, node: usize, boot: u64) {
        let this = &mut self.nodes[node];
        if !this.power || this.boot != boot || this.agent {
            return;
        }
        this.agent = true;
        this.incarnation += 1;
        let incarnation = this.incarnation;
        let (boot, uptime) = (this.boot, this.uptime(self.now));
        let durable = &mut this.durable;
        if durable.aside_boot != boot {
            durable.aside_boot = boot;
            for held in &mut durable.aside {
                held.since = uptime;
            }
        }
        self.after(20, Happening::Dial { node, incarnation });
        self.looks_at_aside(node, incarnation);
    }

    /// The agent looks whether what is set aside has to come back by itself.
    pub(super) fn looks_at_aside(&mut self, node: usize, incarnation: u64) {
        let this = &self.nodes[node];
        if !this.agent || this.incarnation != incarnation {
            return;
        }
        let dead_man = self.aside_dead_man(node);
        let Some(until) = self.nodes[node].aside_until(dead_man, self.now) else {
            return;
        };
        if self.mutation == Some(Mutation::PutBackUnasked) {
            return self.nodes[node].durable.aside.clear();
        }
        if until > self.now || self.mutation == Some(Mutation::AsideForEver) {
            return self.after(ASIDE_LOOK, Happening::Aside { node, incarnation });
        }
        let this = &mut self.nodes[node];
        this.durable.aside.clear();
        this.license = Some("its agent put them back by itself".to_owned());
        self.trace.say(
            self.now,
            format_args!("{} puts back by itself what is set aside", self.nodes[node].name),
        );
        self.report_soon(node);
    }

    /// So long what is set aside on this node stays out without a word.
    pub(super) fn aside_dead_man(&self, node: usize) -> Duration {
        let gate = self.script.gates.get(&Role::ControlPlane);
        gate.map_or(Duration::ZERO, |gate| gate.set_aside(&self.nodes[node].name.0))
    }

    pub(super) fn dials(&mut self, node: usize, incarnation: u64) {
        let this = &self.nodes[node];
        if !this.agent || this.incarnation != incarnation || this.line.is_some() {
            return;
        }
        let reachable = this.partitioned_until <= self.now;
        // Two that both serve are both found: an address that moves is not moved everywhere at once.
        let known: Vec<_> = self.processes.keys().copied().collect();
        let chosen = match known.as_slice() {
            [] => None,
            [.., newest] if self.percent(60) => Some(*newest),
            some => some.choose(&mut self.rng).copied(),
        };
        let Some(process) = chosen.filter(|_| reachable) else {
            let ms = self.between(BACK_OFF.0, BACK_OFF.1);
            return self.after(ms, Happening::Dial { node, incarnation });
        };
        let id = self.open_line(node, process);
        self.nodes[node].line = Some(Line {
            id,
            acknowledged_at: self.now,
            sequence: 0,
        });
        for kept in &mut self.nodes[node].answers {
            kept.before_report = None;
        }
        let highest_epoch = self.nodes[node].durable.epoch;
        self.send_up(id, Up::Hello { highest_epoch });
        self.after(PATIENCE, Happening::Impatience { node, line: id });
    }

    pub(super) fn is_welcome(&mut self, node: usize, line: u64) {
        if self.nodes[node].line.is_some_and(|known| known.id == line) {
            self.reports(node, line);
            self.gives_answers(node);
        }
    }

    pub(super) fn reports(&mut self, node: usize, line: u64) {
        let Some(known) = self.nodes[node].line.as_mut().filter(|known| known.id == line) else {
            return;
        };
        known.sequence += 1;
        let sequence = known.sequence;
        let word = self.word(node);
        let probed_at = self.now;
        self.send_up(
            line,
            Up::Report {
                word,
                sequence,
                probed_at,
            },
        );
        // The next regular one; what changes meanwhile is told by one of its own.
        if sequence == 1 || self.nodes[node].line.is_some() {
            self.next_report(node, line, REPORT);
        }
    }

    fn next_report(&mut self, node: usize, line: u64, ms: Ms) {
        let at = self.now + ms;
        let this = &mut self.nodes[node];
        // One is planned at any time: a sooner one takes the place of a later.
        if this.report_at > self.now && this.report_at <= at {
            return;
        }
        this.report_at = at;
        self.at(at, Happening::Report { node, line });
    }

    /// Something changed that is worth a report.
    pub(super) fn report_soon(&mut self, node: usize) {
        if let Some(line) = self.nodes[node].line {
            self.next_report(node, line.id, REPORT_GAP);
        }
    }

    pub(super) fn is_acknowledged(&mut self, node: usize, line: u64, sequence: u64, hold: Option<String>) {
        let now = self.now;
        let this = &mut self.nodes[node];
        let Some(known) = this.line.as_mut().filter(|known| known.id == line) else {
            return;
        };
        known.acknowledged_at = now;
        this.answers
            .retain(|kept| kept.before_report.is_none_or(|before| before > sequence));
        if let Some(waiting_on) = hold {
            this.heard(now, waiting_on);
            this.unclaimed = None;
        } else {
            let uptime = this.uptime(now);
            this.unclaimed.get_or_insert(uptime);
        }
    }

    pub(super) fn is_impatient(&mut self, node: usize, line: u64) {
        let Some(known) = self.nodes[node].line.filter(|known| known.id == line) else {
            return;
        };
        let due = known.acknowledged_at + PATIENCE;
        if due > self.now {
            return self.at(due, Happening::Impatience { node, line });
        }
        self.hang_up(node);
        self.dials_again(node);
    }

    pub(super) fn agent_lost(&mut self, node: usize, line: u64) {
        if self.nodes[node].line.is_some_and(|known| known.id == line) {
            self.nodes[node].line = None;
            self.nodes[node].unclaimed = None;
            self.dials_again(node);
        }
    }

    fn dials_again(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let ms = self.between(BACK_OFF.0, BACK_OFF.1);
        self.after(ms, Happening::Dial { node, incarnation });
    }

    /// An order comes. One that waits or runs already is answered once, when it has ended.
    pub(super) fn takes_order(&mut self, node: usize, order: Order) {
        let (remedy, reason) = match order.action {
            Action::ReleaseKubelet { run, reason } => (Remedy::ReleaseKubelet { run_id: run }, reason),
            Action::HoldManifest {
                component,
                run,
                reason,
            } => {
                let remedy = Remedy::HoldManifest {
                    component,
                    run_id: run,
                    reason: reason.clone(),
                };
                (remedy, reason)
            }
            Action::ReleaseManifest {
                component, reason, ..
            } => (Remedy::ReleaseManifest { component }, reason),
            Action::RestartUnit { unit, reason } => (Remedy::RestartUnit { unit }, reason),
            Action::StopKubelet { run, reason } => (Remedy::StopKubelet { run_id: run }, reason),
            Action::StartKubelet { run, reason } => (Remedy::StartKubelet { run_id: run }, reason),
            // No cold start asks for it, and no simulated node has one.
            Action::Etcd { .. } | Action::ControlPlane { .. } => return,
        };
        let this = &mut self.nodes[node];
        let known = |known: &order::Order| known.command_id == order.command_id;
        if this.busy.as_ref().is_some_and(|busy| known(&busy.order)) || this.queue.iter().any(known) {
            return;
        }
        this.queue.push_back(order::Order {
            command_id: order.command_id,
            epoch: order.epoch,
            expires_at: Instant::now() + order.expires_in,
            remedy,
            reason,
        });
        self.next_order_of(node);
    }

    fn next_order_of(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if this.busy.is_some() {
            return;
        }
        let Some(order) = this.queue.pop_front() else {
            return;
        };
        let record = this.durable.records.get(&order.command_id);
        let record = record.filter(|_| self.mutation != Some(Mutation::LedgerForgotten));
        if order::rule(&order, this.durable.epoch, record, Instant::now()) == Rule::RefuseEpoch {
            return self.answers(node, &order, OrderStatus::RefusedEpoch);
        }
        this.busy = Some(Busy {
            order,
            stage: Stage::Epoch,
        });
        self.stage_after(node);
    }

    /// The next stage, when its disk has done its part.
    fn stage_after(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let ms = self.between(1, 120);
        self.after(ms, Happening::Stage { node, incarnation });
    }

    /// What the agent is at is done.
    pub(super) fn stage(&mut self, node: usize, incarnation: u64) {
        if !self.nodes[node].agent || self.nodes[node].incarnation != incarnation {
            return;
        }
        let Some(Busy { order, stage }) = self.nodes[node].busy.clone() else {
            return;
        };
        let bad = self.script.bad_ledgers;
        let writes = match stage {
            Stage::Epoch | Stage::Intent => true,
            Stage::Act | Stage::Outcome => false,
        };
        if writes && self.percent(bad) {
            // Not begun, since the ledger cannot be written.
            return self.answers(node, &order, OrderStatus::Failed);
        }
        let next = match stage {
            Stage::Epoch => {
                let this = &mut self.nodes[node];
                let record = this.durable.records.get(&order.command_id);
                let record = record.filter(|_| self.mutation != Some(Mutation::LedgerForgotten));
                let rule = order::rule(&order, 0, record, Instant::now());
                if self.mutation != Some(Mutation::EpochForgotten) {
                    this.durable.epoch = this.durable.epoch.max(order.epoch);
                }
                match rule {
                    Rule::Told(Outcome::Succeeded { .. }) => {
                        return self.answers(node, &order, OrderStatus::Done);
                    }
                    Rule::Told(Outcome::Failed { .. }) => {
                        return self.answers(node, &order, OrderStatus::Failed);
                    }
                    Rule::Expired => return self.answers(node, &order, OrderStatus::Refused),
                    Rule::RefuseEpoch => return self.answers(node, &order, OrderStatus::RefusedEpoch),
                    Rule::LookAfter(_) => Stage::Act,
                    Rule::Begin => Stage::Intent,
                }
            }
            Stage::Intent => {
                self.nodes[node].write_intent(&order);
                let command_id = order.command_id.clone();
                self.judge_begun(node, &command_id);
                Stage::Act
            }
            Stage::Act => {
                self.acts(node, &order);
                Stage::Outcome
            }
            Stage::Outcome => {
                let detail = "the boot gate is open".to_owned();
                self.nodes[node].write_outcome(&order.command_id, Outcome::Succeeded { detail });
                return self.answers(node, &order, OrderStatus::Done);
            }
        };
        self.nodes[node].busy = Some(Busy { order, stage: next });
        self.stage_after(node);
    }

    /// Opens the gate, or moves a manifest. What is so already is left as it is.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other remedy is asked of a simulated agent"
    )]
    fn acts(&mut self, node: usize, order: &order::Order) {
        self.judge_act(node, &order.command_id, order.epoch);
        let now = self.now;
        match &order.remedy {
            Remedy::ReleaseKubelet { run_id } => match self.nodes[node].gate() {
                GateState::Released | GateState::Passed | GateState::DeadMan => {}
                held @ (GateState::Held | GateState::Absent) => {
                    self.nodes[node].release(now, run_id.clone());
                    // One that has not run yet finds the word when it does.
                    if held == GateState::Held {
                        self.gate_looks(node);
                    }
                }
            },
            Remedy::HoldManifest {
                component,
                run_id,
                reason,
            } if self.mutation != Some(Mutation::NothingMoved) => {
                let this = &mut self.nodes[node];
                if !this.is_aside(*component) {
                    let held = Held {
                        component: *component,
                        run_id: run_id.clone(),
                        reason: reason.clone(),
                        since: this.uptime(now),
                    };
                    this.durable.aside_boot = this.boot;
                    this.durable.aside.push(held);
                    let incarnation = this.incarnation;
                    self.after(ASIDE_LOOK, Happening::Aside { node, incarnation });
                }
            }
            Remedy::ReleaseManifest { component } => {
                let this = &mut self.nodes[node];
                this.durable.aside.retain(|held| held.component != *component);
                this.license = Some(format!("{} put them back", order.command_id));
            }
            _ => {}
        }
        self.report_soon(node);
    }

    fn answers(&mut self, node: usize, order: &order::Order, status: OrderStatus) {
        let name = self.nodes[node].name.clone();
        self.trace.say(
            self.now,
            format_args!(
                "{name} answers {} (epoch {}): {status:?}",
                order.command_id, order.epoch
            ),
        );
        let answer = OrderResult {
            node: name,
            command_id: order.command_id.clone(),
            answer: match status {
                OrderStatus::Done => Answer::Done,
                OrderStatus::Failed => Answer::Failed,
                OrderStatus::RefusedEpoch => Answer::RefusedEpoch,
                OrderStatus::Refused => Answer::Refused,
            },
            detail: String::new(),
        };
        self.nodes[node].busy = None;
        self.nodes[node].answers.push_back(Kept {
            answer,
            before_report: None,
        });
        self.gives_answers(node);
        self.next_order_of(node);
    }

    /// Answers go out, and again over the next connection, until a report behind them is acknowledged.
    fn gives_answers(&mut self, node: usize) {
        let Some(line) = self.nodes[node].line.filter(|line| line.sequence > 0) else {
            return;
        };
        let mut out = Vec::new();
        for kept in self.nodes[node]
            .answers
            .iter_mut()
            .filter(|kept| kept.before_report.is_none())
        {
            kept.before_report = Some(line.sequence + 1);
            out.push(kept.answer.clone());
        }
        if out.is_empty() {
            return;
        }
        for answer in out {
            self.send_up(line.id, Up::Answer(answer));
        }
        self.report_soon(node);
    }
}

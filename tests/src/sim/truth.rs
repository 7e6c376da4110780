//! What happens to nodes, and what is true of them: the laws are held against this.

use blackstart_agent::gate::GateState;
use blackstart_coordinator::inventory::Role;

use super::Ms;
use super::node::Kubelet;
use super::world::{Happening, World};

/// A control plane needs so long to form once it has its quorum.
const FORMS: Ms = 3_000;

impl World {
    /// The first steps of a boot.
    pub(super) fn boots(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        let ms = self.between(500, 4_000);
        self.after(ms, Happening::Gate { node, boot });
        let ms = self.between(500, 8_000);
        self.after(ms, Happening::AgentStart { node, boot });
    }

    /// The gate looks at its files: when it first runs, when it is told something, and when its dead-man time may be over.
    pub(super) fn gate_looks(&mut self, at: usize) {
        let base = self.nodes[at].spoken_to_at();
        let boot = self.nodes[at].boot;
        match self.nodes[at].judge(self.now) {
            Err(opens_at) => self.at(opens_at.max(self.now + 1), Happening::Gate { node: at, boot }),
            Ok(None) => {}
            Ok(Some(state)) => {
                let name = &self.nodes[at].name;
                self.trace
                    .say(self.now, format_args!("the gate of {name} opens: {state:?}"));
                if state == GateState::DeadMan {
                    self.judge_dead_man(at, base.unwrap_or(self.now));
                }
                self.kubelet(at, Kubelet::Starting);
                self.report_soon(at);
                let turn = self.nodes[at].kubelet_turn;
                let bad = self.script.bad_kubelets;
                let (ms, to) = if self.percent(bad) {
                    (self.between(40_000, 200_000), Kubelet::Healthy)
                } else {
                    (self.between(1_000, 15_000), Kubelet::Healthy)
                };
                self.after(ms, Happening::Kubelet { node: at, turn, to });
            }
        }
    }

    pub(super) fn kubelet(&mut self, at: usize, to: Kubelet) {
        self.truth_changes(at);
        self.nodes[at].kubelet = to;
        self.nodes[at].kubelet_turn += 1;
        self.truth_changed(at);
        let name = &self.nodes[at].name;
        self.trace
            .say(self.now, format_args!("the kubelet of {name} is {to:?}"));
        self.report_soon(at);
    }

    /// Before a change: what was true until now is kept.
    pub(super) fn truth_changes(&mut self, at: usize) {
        let cluster = self.nodes[at].cluster;
        for other in 0..self.nodes.len() {
            if self.nodes[other].cluster == cluster {
                self.nodes[other].served_at = self.served_at(other);
                self.nodes[other].healthy_at = self.healthy_at(other);
            }
        }
    }

    pub(super) fn truth_changed(&mut self, at: usize) {
        let cluster = self.nodes[at].cluster;
        let masters = || {
            self.nodes
                .iter()
                .filter(|node| node.cluster == cluster && node.role == Role::ControlPlane)
        };
        let healthy = masters().filter(|node| node.kubelet == Kubelet::Healthy).count();
        let quorum = masters().count() / 2 + 1;
        self.quorum_since[cluster] = match self.quorum_since[cluster] {
            Some(since) if healthy >= quorum => Some(since),
            None if healthy >= quorum => Some(self.now),
            Some(_) | None => None,
        };
    }

    /// Does this master serve now?
    pub(super) fn serves(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.role == Role::ControlPlane
            && node.kubelet == Kubelet::Healthy
            && self.quorum_since[node.cluster].is_some_and(|since| self.now >= since + FORMS)
    }

    /// When this master served last.
    pub(super) fn served_at(&self, at: usize) -> Option<Ms> {
        if self.serves(at) {
            Some(self.now)
        } else {
            self.nodes[at].served_at
        }
    }

    /// When this node's kubelet was healthy last.
    pub(super) fn healthy_at(&self, at: usize) -> Option<Ms> {
        if self.nodes[at].kubelet == Kubelet::Healthy {
            Some(self.now)
        } else {
            self.nodes[at].healthy_at
        }
    }
}

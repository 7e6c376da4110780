//! Controller managers and schedulers: set aside before the kubelet of their master is released, put back when the kubelets of their
//! cluster run.
//!
//! ```text
//!  hold      Open ── in place, and too few kubelets run ──► Dispatch ── attested out ──► Done
//!              └ ── none there, its API server serves, or enough kubelets run ──► Done
//!            Done ── back and held with it in place, and too few kubelets run ──► Reopen
//!
//!  put back  Open ── out, behind its gate ──► Dispatch ── attested in place ──► Done          not out ──► Done
//! ```
//!
//! Whatever cannot be done is given up and holds nobody. What stays out then comes back by its agent, which is no longer told to wait.

use blackstart_proto::component::{Component, ManifestState};

use super::super::record::Heard;
use super::super::state::Phase;
use super::super::status::RunState;
use super::super::waiting::{Stand, WaitingOn};
use super::{ATTEMPTS, Pass, RESEND_AFTER, SLACK, Todo};
use crate::fleet::Answer;
use crate::fleet::view::Attestation;
use crate::inventory::NodeName;

/// Where a manifest is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Out,
    Back,
}

impl Want {
    /// It is there; `None` of a state: the agent tells of no such thing, and there is nothing to move.
    fn is_met(self, state: Option<ManifestState>) -> bool {
        match (self, state) {
            (_, None | Some(ManifestState::Absent))
            | (Self::Out, Some(ManifestState::SetAside))
            | (Self::Back, Some(ManifestState::InPlace | ManifestState::Unknown)) => true,
            (Self::Out, Some(ManifestState::InPlace | ManifestState::Unknown))
            | (Self::Back, Some(ManifestState::SetAside)) => false,
        }
    }
}

impl Pass<'_> {
    pub(super) fn hold_open(&mut self, at: usize, node: &NodeName, component: Component) {
        let stand = self.stand(node);
        if stand.is_away() {
            return self.away(at, node, stand);
        }
        self.out.clocks[at].away_since = None;
        let state = self.manifest(node, component);
        if let Stand::ApiServerReady(_) = stand {
            let why = format!("the API server of {node} serves: its {component} stays where it is");
            self.todo(at, Todo::Done(why));
        } else if Want::Out.is_met(state) {
            self.todo(at, Todo::Done(attested(node, component, state)));
        } else if self.may_act(node) {
            let why = format!("the kubelets of its cluster run: {component} stays where it is");
            self.todo(at, Todo::Done(why));
        } else {
            self.dispatch_if_it_may(at);
        }
    }

    pub(super) fn put_back_open(&mut self, at: usize, node: &NodeName, component: Component) {
        let stand = self.stand(node);
        if stand.is_away() {
            return self.away(at, node, stand);
        }
        self.out.clocks[at].away_since = None;
        let state = self.manifest(node, component);
        if Want::Back.is_met(state) {
            self.todo(at, Todo::Done(attested(node, component, state)));
        } else if let Some(release) = self.reopened(node) {
            self.wait(at, WaitingOn::Step(self.run.plan.steps[release].id.clone()));
        } else {
            self.dispatch_if_it_may(at);
        }
    }

    /// A release in the cluster of `node` that this very look opens again: its kubelet is one that the gate did not count, and will.
    fn reopened(&self, node: &NodeName) -> Option<usize> {
        let gate = self.run.kubelets_gate(node)?;
        let mut todo = self.out.todo.iter();
        let reopened = todo.find(|(place, todo)| {
            let released = self.run.plan.steps[*place].kind.releases();
            matches!(todo, Todo::Reopen(_))
                && released.is_some_and(|other| self.run.kubelets_gate(other) == Some(gate))
        });
        reopened.map(|(place, _)| *place)
    }

    /// A move that was begun.
    pub(super) fn move_started(&mut self, at: usize, node: &NodeName, component: Component, want: Want) {
        let stand = self.stand(node);
        let step = &self.run.steps[at];
        let clock = &mut self.out.clocks[at];
        let dispatched = *clock.dispatched.get_or_insert(self.c.now);
        clock.seen_away |= stand.is_away();
        let deadline = self.c.policy.release_deadline;
        if stand.is_away() {
            if self.reached(dispatched + deadline) {
                return self.give_up(at, format!("{node} left before it was done: {stand}"));
            }
            let node = node.clone();
            return self.wait(at, WaitingOn::NodeNotBack { node, stand });
        }
        let state = self.manifest(node, component);
        let answered = step
            .heard
            .as_ref()
            .is_some_and(|heard| heard.answer == Answer::Done);
        // An agent that has not looked yet and has answered knows better than its last report.
        if want.is_met(state) || (answered && state == Some(ManifestState::Unknown)) {
            return self.todo(at, Todo::Done(attested(node, component, state)));
        }
        if let Some(why) = step
            .heard
            .as_ref()
            .and_then(|heard| self.moved_in_vain(node, heard))
        {
            if step.attempts - step.forgiven >= ATTEMPTS {
                self.give_up(at, format!("{ATTEMPTS} attempts failed, the last: {why}"));
            } else {
                self.todo(at, Todo::Retry(why));
            }
            return;
        }
        if step.heard.is_none() && self.is_shut_before(at) {
            self.out.clocks[at].dispatched = Some(self.c.now);
            return;
        }
        if want == Want::Back
            && step.heard.is_none()
            && let Some(release) = self.reopened(node)
        {
            let release = self.run.plan.steps[release].id.clone();
            return self.wait(at, WaitingOn::Step(release));
        }
        if self.reached(dispatched + deadline) {
            let why = format!("{component} of {node} was not moved within {deadline:?}");
            return self.give_up(at, why);
        }
        let due = step.clock.sent.map(|sent| sent + RESEND_AFTER);
        if step.heard.is_none() && due.is_none_or(|due| self.reached(due)) {
            self.out.todo.push((at, Todo::Resend));
        }
        let command_id = step.command_id.clone().unwrap_or_default();
        let node = node.clone();
        self.wait(at, WaitingOn::Answer { node, command_id });
    }

    /// A component that was set aside, or did not have to be: is that still so?
    pub(super) fn hold_settled(&mut self, at: usize, node: &NodeName, component: Component) {
        let stand = self.stand(node);
        if stand.is_away() {
            self.out.clocks[at].seen_away = true;
            return;
        }
        if self.run.state != RunState::Paused && self.is_undone(at, node, component) {
            let why = format!("{node} is back and held, with its {component} in place");
            self.todo(at, Todo::Reopen(why));
        }
    }

    /// A step that set something aside, or was given up, and has to be done again: its node is held, with that in place. Once its
    /// kubelet may run, a component is in office, or was put back.
    fn is_undone(&mut self, hold: usize, node: &NodeName, component: Component) -> bool {
        let step = &self.run.steps[hold];
        let again = match step.phase {
            // An agent that has moved it, and has not looked since, says nothing against that.
            Phase::Done => {
                step.clock.seen_away || self.manifest(node, component) != Some(ManifestState::Unknown)
            }
            // Given up in this same boot, it was tried often enough.
            Phase::Residue => step.clock.seen_away,
            Phase::Open | Phase::Started | Phase::Failed | Phase::Cancelled => false,
        };
        again
            && self.stand(node) == Stand::Held
            && !Want::Out.is_met(self.manifest(node, component))
            && !self.may_act(node)
    }

    /// A component that was put back, or given up: is it out again, or still?
    pub(super) fn put_back_settled(&mut self, at: usize, node: &NodeName, component: Component) {
        let stand = self.stand(node);
        if stand.is_away() {
            self.out.clocks[at].seen_away = true;
            return;
        }
        let residue = self.run.steps[at].phase == Phase::Residue;
        let met = Want::Back.is_met(self.manifest(node, component));
        if residue && met {
            let why = format!("late: {component} of {node} is where the kubelet looks");
            self.todo(at, Todo::Done(why));
        } else if !met
            && self.run.state != RunState::Paused
            && (!residue || self.run.steps[at].clock.seen_away)
        {
            self.todo(at, Todo::Reopen(format!("{component} of {node} is set aside")));
        }
    }

    /// A gate that was given up lets through, and counts again once it has its evidence.
    pub(super) fn kubelets_given_up(&mut self, at: usize) {
        if self.kubelets_missing(at).is_none() {
            let evidence = self
                .tallies
                .get(&at)
                .map(super::Tally::evidence)
                .unwrap_or_default();
            self.todo(at, Todo::Done(format!("late: {evidence}")));
        }
    }

    /// What keeps the release of a master shut behind a step that was to set a component of it aside.
    pub(super) fn in_place(
        &mut self,
        hold: usize,
        node: &NodeName,
        component: Component,
    ) -> Option<WaitingOn> {
        let undone = self.is_undone(hold, node, component);
        undone.then(|| WaitingOn::InPlace {
            node: node.clone(),
            component,
        })
    }

    /// The controllers of a node's cluster may act: enough kubelets run, or that was waited for long enough.
    fn may_act(&mut self, node: &NodeName) -> bool {
        let gate = self.run.kubelets_gate(node);
        gate.is_none_or(|gate| self.missing(gate).is_none())
    }

    fn manifest(&self, node: &NodeName, component: Component) -> Option<ManifestState> {
        self.word(node)?.manifests.get(&component).copied()
    }

    fn word(&self, node: &NodeName) -> Option<&Attestation> {
        let node = self.c.view.nodes.get(node).filter(|node| node.in_session)?;
        node.attestation.as_ref()
    }

    /// Why an answered move has to be followed by another; `None`: it need not, so far.
    fn moved_in_vain(&self, node: &NodeName, heard: &Heard) -> Option<String> {
        match heard.answer {
            Answer::Failed => Some(format!("{node} answered failed: {}", heard.detail)),
            Answer::Refused => Some(format!("{node} refused: {}", heard.detail)),
            Answer::RefusedEpoch => Some(format!("{node} refused the epoch: {}", heard.detail)),
            Answer::Done => {
                let seen = self.word(node)?.observed_at;
                (seen > heard.at + SLACK)
                    .then(|| format!("{node} answered done and attests otherwise: {}", heard.detail))
            }
        }
    }
}

fn attested(node: &NodeName, component: Component, state: Option<ManifestState>) -> String {
    match state {
        None => format!("the agent of {node} tells of no static pods"),
        Some(ManifestState::Absent) => format!("{node} has no manifest of {component}"),
        Some(ManifestState::Unknown) => format!("{node} holds no manifest of {component} back"),
        Some(ManifestState::InPlace) => {
            format!("{node} attests that the manifest of {component} is where the kubelet looks")
        }
        Some(ManifestState::SetAside) => format!("{node} attests that {component} is set aside"),
    }
}

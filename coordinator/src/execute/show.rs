//! What others see of the executor: its runs, the nodes it holds, and what happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use blackstart_proto::component::ManifestState;
use tokio::time::Instant;

use super::advance::{is_stuck, root_cause};
use super::driver::{Driver, Tracked};
use super::journal::Event;
use super::record::Run;
use super::state::Phase;
use super::status::{RunState, status};
use super::waiting::WaitingOn;
use crate::events::{EventKind, NewEvent, Severity};
use crate::fleet::view::{FleetView, GateState};
use crate::inventory::NodeName;
use crate::plan::StepKind;

impl Driver {
    /// Shows what changed of the runs, and which held nodes are waited with.
    pub(super) fn publish(&mut self, now: Instant) {
        let hindrance = match (&self.superseded, &self.trouble) {
            (Some(why), _) => Some(WaitingOn::Superseded(why.clone())),
            (None, Some(trouble)) => Some(WaitingOn::Journal(trouble.why.clone())),
            (None, None) => None,
        };
        let mut changed = self.publish.borrow().len() != self.runs.len();
        let hindered_anew = self.shown != hindrance;
        self.shown.clone_from(&hindrance);
        for tracked in &mut self.runs {
            // With thousands of steps a status is dear, and most passes change nothing.
            if !std::mem::take(&mut tracked.changed) && !hindered_anew {
                continue;
            }
            let before = &tracked.status;
            if !before.state.is_active() && before.state == tracked.run.state {
                continue;
            }
            let mut new = status(&tracked.run, &tracked.advance, hindrance.as_ref(), now);
            // Time alone is no change.
            let (at, elapsed) = (new.at, new.elapsed_ms);
            (new.at, new.elapsed_ms) = (before.at, before.elapsed_ms);
            if new != **before {
                (new.at, new.elapsed_ms) = (at, elapsed);
                tracked.status = Arc::new(new);
                changed = true;
            }
        }
        if changed {
            let runs = self
                .runs
                .iter()
                .map(|tracked| Arc::clone(&tracked.status))
                .collect();
            self.publish.send_replace(Arc::new(runs));
        }
        let holds = if hindrance.is_some() {
            BTreeMap::new()
        } else {
            self.holds()
        };
        self.ports.holds.send_if_modified(|before| {
            let changed = *before != holds;
            *before = holds;
            changed
        });
    }

    /// The held nodes whose release is ahead, and those of which something is to be put back, each with what it waits for.
    fn holds(&self) -> BTreeMap<NodeName, String> {
        let view = self.ports.view.borrow();
        let mut holds = BTreeMap::new();
        for Tracked { run, advance, .. } in self.runs.iter().filter(|tracked| tracked.run.state.is_active()) {
            for (at, step) in run.steps.iter().enumerate() {
                if matches!(step.phase, Phase::Open | Phase::Started)
                    && let Some(node) = held(&view, &run.plan.steps[at].kind)
                    && !is_stuck(run, advance, at)
                {
                    let why = root_cause(run, advance, at).unwrap_or_else(|| "its turn".to_owned());
                    // The release of its kubelet comes before what is put back.
                    holds
                        .entry(node.clone())
                        .or_insert_with(|| format!("{}: {why}", run.id));
                }
            }
        }
        holds
    }

    pub(super) fn tell(&self, at: usize, event: &Event, before: RunState) {
        let run = &self.runs[at].run;
        let (kind, severity, text) = match event {
            Event::StepStarted { attempt, .. } if *attempt > 1 => (
                EventKind::StepStarted,
                Severity::Info,
                format!("dispatched, attempt {attempt}"),
            ),
            Event::StepStarted { .. } => (EventKind::StepStarted, Severity::Info, "dispatched".to_owned()),
            Event::AttemptFailed { attempt, why, .. } => (
                EventKind::StepFailed,
                Severity::Warning,
                format!("attempt {attempt} failed: {why}"),
            ),
            Event::StepDone { evidence, .. } => (EventKind::StepDone, Severity::Info, evidence.clone()),
            Event::StepResidue { why, .. } => (EventKind::StepResidue, Severity::Warning, why.clone()),
            Event::StepFailed { why, .. } => (EventKind::StepFailed, Severity::Critical, why.clone()),
            Event::StepReopened { why, .. } => (
                EventKind::StepFailed,
                Severity::Warning,
                format!("opened again: {why}"),
            ),
            Event::Paused => (EventKind::RunState, Severity::Info, "paused".to_owned()),
            Event::Unpaused => (EventKind::RunState, Severity::Info, "goes on".to_owned()),
            Event::Aborted { why } => (EventKind::RunState, Severity::Warning, format!("aborted: {why}")),
            Event::RunEnded => (EventKind::RunState, Severity::Info, summary(run)),
            Event::RunStarted { .. } | Event::Resumed { .. } => return,
        };
        let Some(step) = event.step().and_then(|step| run.place(step)) else {
            return self.emit(run, kind, severity, text);
        };
        let step = &run.plan.steps[step];
        let mut told = NewEvent::new(severity, kind, format!("{}: {text}", step.id)).run(&run.id);
        let node = step.kind.node();
        let cluster = node
            .and_then(|node| self.inventory.node(node))
            .map(|node| &node.cluster);
        if let Some(cluster) = step.kind.cluster().or(cluster) {
            told = told.cluster(cluster);
        }
        if let Some(node) = node {
            told = told.node(node);
        }
        self.ports.events.emit(told);
        if before != run.state && run.state == RunState::Halted {
            let text = format!("halted at {}: resume tries again, abort ends the run", step.id);
            self.emit(run, EventKind::RunState, Severity::Critical, text);
        }
    }

    pub(super) fn emit(&self, run: &Run, kind: EventKind, severity: Severity, text: String) {
        self.ports
            .events
            .emit(NewEvent::new(severity, kind, text).run(&run.id));
    }
}

fn summary(run: &Run) -> String {
    let residue = run.residue().count();
    let seconds = run.elapsed(Instant::now()).as_secs();
    match residue {
        0 => format!("succeeded after {seconds} s"),
        count => format!("succeeded after {seconds} s; residue: {count} nodes"),
    }
}

/// The node that a step still holds, or that holds something back for it, by its own word.
fn held<'a>(view: &FleetView, kind: &'a StepKind) -> Option<&'a NodeName> {
    let node = kind.node()?;
    let seen = view.nodes.get(node).filter(|seen| seen.in_session)?;
    let word = seen.attestation.as_ref()?;
    let held = match kind {
        StepKind::ReleaseKubelet { .. } => word.gate == GateState::Held,
        StepKind::ReleaseManifest { component, .. } => {
            word.manifests.get(component) == Some(&ManifestState::SetAside)
        }
        StepKind::HoldManifest { .. }
        | StepKind::ControlPlaneGate { .. }
        | StepKind::ServingGate { .. }
        | StepKind::KubeletsGate { .. }
        | StepKind::VerifyCluster { .. } => false,
    };
    held.then_some(node)
}

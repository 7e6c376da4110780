//! An unhealthy container that may be restarted: so many times within a window, with pauses. Pure.
//!
//! docker itself never restarts what fails its health check. Only containers that the configuration names are restarted, and never
//! one of a pod: the kubelet looks after those. `None`: it is told, no more.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::{Input, Look, Proposal, WaitingOn, ladder};
use crate::condition::Condition;
use crate::remedy::Remedy;
use crate::remedy::restart_container::permitted;

/// That a container is healthy again may take so long to be told.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) fn look(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Option<Look> {
    let (runtime, now) = (&input.settings.runtime, input.now);
    let name = &condition.key.subject;
    if !permitted(&runtime.may_restart_containers, name) {
        return None;
    }
    if taken.contains(name) {
        return Some(Look::Wait(WaitingOn::Running));
    }
    let counted: Vec<&Attempt> = input
        .history
        .of(name)
        .filter(|attempt| {
            attempt.rung == Rung::RestartContainer
                && now.saturating_duration_since(attempt.begun) < runtime.container_restart_window
        })
        .collect();
    if let Some(last) = counted.last().filter(|last| last.helped()) {
        let until = last.last_seen() + SETTLE;
        if until > now {
            return Some(Look::Wait(WaitingOn::Settling { until }));
        }
    }
    let budget = usize::try_from(runtime.container_restarts).unwrap_or(usize::MAX);
    if counted.len() >= budget {
        return Some(spent(input, condition, &counted));
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Some(Look::Wait(WaitingOn::Ledger { until }));
    }
    if let Some(last) = counted.last() {
        let until = last.last_seen() + ladder::back_off(&input.settings.restart, counted.len());
        if until > now {
            return Some(Look::Wait(WaitingOn::BackOff { until }));
        }
    }
    Some(Look::Begin(Proposal {
        remedy: Remedy::RestartContainer { name: name.clone() },
        reason: format!(
            "{}: {}; attempt {} of {budget}",
            condition.key.kind,
            condition.evidence,
            counted.len() + 1
        ),
    }))
}

fn spent(input: &Input<'_>, condition: &Condition, counted: &[&Attempt]) -> Look {
    let window = input.settings.runtime.container_restart_window;
    let ended = counted
        .last()
        .and_then(|last| last.end.as_ref())
        .map_or("its end is not known", |end| end.detail.as_str());
    Look::Spent {
        since: counted.last().map_or(condition.since, |last| last.last_seen()),
        evidence: format!(
            "{}: {}; restarted {} times within {window:?}, which is its budget; the last: {ended}",
            condition.key.kind,
            condition.evidence,
            counted.len()
        ),
        again: counted.first().map(|oldest| oldest.begun + window),
    }
}

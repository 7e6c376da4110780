//! A disk's remedies once its logs have given what they can: the journal's archives, then what docker does not need. Pure.
//!
//! Logs come first and have conditions of their own. What stands for [`LOGS_FIRST`] they have not ended. Each of the two is done once within
//! [`AGAIN`]: both free all they may in one go, so a second time soon after would free nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::{Input, Look, Proposal, WaitingOn};
use crate::condition::Condition;
use crate::remedy::Remedy;

/// So long a disk's pressure has to stand.
pub(super) const LOGS_FIRST: Duration = Duration::from_secs(30);
/// The same remedy of the same disk comes again after this at the earliest.
pub(crate) const AGAIN: Duration = Duration::from_mins(30);

pub(super) fn look(
    input: &Input<'_>,
    condition: &Condition,
    taken: &BTreeSet<String>,
    reclaims: usize,
) -> Look {
    let now = input.now;
    let disk = &condition.key.subject;
    if taken.contains(disk) {
        return Look::Wait(WaitingOn::Running);
    }
    let until = condition.since + LOGS_FIRST;
    if until > now {
        return Look::Wait(WaitingOn::Logs { until });
    }
    if reclaims > 0 {
        return Look::Wait(WaitingOn::Turn);
    }
    let lately = |rung: Rung| {
        let mut attempts = input.history.of(disk).rev();
        attempts.find(|attempt| attempt.rung == rung && now.saturating_duration_since(attempt.begun) < AGAIN)
    };
    let mount_point = || PathBuf::from(disk);
    let remedy = match (lately(Rung::Vacuum), lately(Rung::Prune)) {
        (None, _) => Remedy::VacuumJournal {
            mount_point: mount_point(),
        },
        (Some(_), None) => Remedy::Prune {
            mount_point: mount_point(),
        },
        (Some(vacuum), Some(prune)) => return spent(condition, vacuum, prune),
    };
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Look::Wait(WaitingOn::Ledger { until });
    }
    let reason = format!("{}: {}", condition.key.kind, condition.evidence);
    Look::Begin(Proposal { remedy, reason })
}

/// Journals and logs are few files: what frees inodes is what docker has.
pub(super) fn free_inodes(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Look {
    let (now, disk) = (input.now, &condition.key.subject);
    if taken.contains(disk) {
        return Look::Wait(WaitingOn::Running);
    }
    let mut attempts = input.history.of(disk).rev();
    let lately = attempts
        .find(|attempt| attempt.rung == Rung::Prune && now.saturating_duration_since(attempt.begun) < AGAIN);
    if let Some(prune) = lately {
        let said = prune
            .end
            .as_ref()
            .map_or("its end is not known", |end| &end.detail);
        return Look::Spent {
            since: prune.last_seen(),
            evidence: format!(
                "{}: {}; containers and images gave what they may: {said}",
                condition.key.kind, condition.evidence
            ),
            again: Some(prune.begun + AGAIN),
        };
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Look::Wait(WaitingOn::Ledger { until });
    }
    Look::Begin(Proposal {
        remedy: Remedy::Prune {
            mount_point: PathBuf::from(disk),
        },
        reason: format!("{}: {}", condition.key.kind, condition.evidence),
    })
}

fn spent(condition: &Condition, vacuum: &Attempt, prune: &Attempt) -> Look {
    let said = |attempt: &Attempt| match &attempt.end {
        Some(end) => end.detail.clone(),
        None => "its end is not known".to_owned(),
    };
    Look::Spent {
        since: prune.last_seen().max(vacuum.last_seen()),
        evidence: format!(
            "{}: {}; logs, journal and images gave what they may: {}; {}",
            condition.key.kind,
            condition.evidence,
            said(vacuum),
            said(prune)
        ),
        again: Some(vacuum.begun.min(prune.begun) + AGAIN),
    }
}

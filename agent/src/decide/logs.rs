//! A log's remedy: give back its head, within its budget. Pure.
//!
//! A reclaim that succeeds ends its condition until the log has grown again, and is repeated as often as that happens. One
//! that did not help (refused, or only rehearsed) would be repeated at every look, so those are spaced.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::{Input, Look, Proposal, WaitingOn};
use crate::condition::Condition;
use crate::remedy::Remedy;
use crate::signal::LogId;

/// So many at a time: they share a disk, and the largest come first.
const AT_ONCE: usize = 4;
/// The pause after the first attempt that did not help; doubled for each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_mins(1);

pub(super) fn look(
    input: &Input<'_>,
    condition: &Condition,
    log: &LogId,
    taken: &BTreeSet<String>,
    running: usize,
) -> Look {
    let (policy, now) = (&input.settings.reclaim, input.now);
    let remedy = Remedy::ReclaimLog { log: log.clone() };
    let subject = remedy.subject();
    if taken.contains(&subject) {
        return Look::Wait(WaitingOn::Running);
    }
    let counted: Vec<&Attempt> = input
        .history
        .of(&subject)
        .filter(|attempt| {
            attempt.rung == Rung::Reclaim && now.saturating_duration_since(attempt.begun) < policy.window
        })
        .collect();
    if counted.len() >= usize::try_from(policy.budget).unwrap_or(usize::MAX) {
        let ended = counted
            .last()
            .and_then(|last| last.end.as_ref())
            .map_or("its end is not known", |end| end.detail.as_str());
        return Look::Spent {
            since: counted.last().map_or(condition.since, |last| last.last_seen()),
            evidence: format!(
                "{}: {}; reclaimed {} times within {:?}, which is its budget; the last: {ended}",
                condition.key.kind,
                condition.evidence,
                counted.len(),
                policy.window
            ),
            again: counted.first().map(|oldest| oldest.begun + policy.window),
        };
    }
    if let Some(last) = counted.last() {
        let until = last.last_seen() + pause(&counted);
        if until > now {
            return Look::Wait(WaitingOn::BackOff { until });
        }
    }
    if running >= AT_ONCE {
        return Look::Wait(WaitingOn::Turn);
    }
    let reason = format!("{}: {}", condition.key.kind, condition.evidence);
    Look::Begin(Proposal { remedy, reason })
}

/// Grows with the attempts, up to the last, that did not help.
fn pause(counted: &[&Attempt]) -> Duration {
    let vain = counted
        .iter()
        .rev()
        .take_while(|attempt| !attempt.helped())
        .count();
    match u32::try_from(vain) {
        Ok(0) => Duration::ZERO,
        Ok(vain) => RETRY_FIRST
            .saturating_mul(2_u32.checked_pow(vain - 1).unwrap_or(u32::MAX))
            .min(RETRY_MAX),
        Err(_) => RETRY_MAX,
    }
}

//! What is started after what: a unit's ladder waits for those that it needs. Pure.
//!
//! ```text
//!  kubelet ill ──► docker ill too? ──no──► containerd ill too? ──no──► its ladder goes on
//!                      │yes                      │yes
//!                      └──────────┬──────────────┘
//!                                 ▼
//!         wait: until it is well, its budget is spent, or `order_wait` has passed
//! ```
//! A kubelet that is restarted while docker is down spends its budget on docker's failure, and is left alone once docker is back.
//! But nothing waits for ever: afterwards the unit has its own attempts, with a word about what it does without.

use std::time::Duration;

use tokio::time::Instant;

use super::{Input, Treatment, ladder};
use crate::condition::{Condition, ConditionKind};
use crate::span::Span;

/// A unit in a crash loop is active for a moment in each round; one that has been well for so long is out of it.
const STEADY: Duration = Duration::from_secs(10);

/// May the ladder of a unit go on?
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// What it needs is well.
    Now,
    /// Not before this one is well.
    Wait { unit: String, until: Instant },
    /// It has waited for this one long enough.
    Without { unit: String, why: String },
}

/// `due` is when the ladder would have begun.
pub(super) fn turn(input: &Input<'_>, unit: &str, due: Instant) -> Turn {
    let policy = &input.settings.restart;
    let Some(place) = policy.order.iter().position(|at| at == unit) else {
        return Turn::Now;
    };
    let bound = due + policy.order_wait;
    let mut without = Turn::Now;
    for needed in &policy.order[..place] {
        let Some(again) = ill(input, needed, bound) else {
            continue;
        };
        let why = if spent(input, needed) {
            "its remedies are spent".to_owned()
        } else if bound <= input.now {
            format!("it was waited for {}", Span(policy.order_wait))
        } else {
            return Turn::Wait {
                unit: needed.clone(),
                until: again.min(bound),
            };
        };
        without = Turn::Without {
            unit: needed.clone(),
            why,
        };
    }
    without
}

/// When to look at it again, if something is wrong with `unit` or being done to it.
fn ill(input: &Input<'_>, unit: &str, bound: Instant) -> Option<Instant> {
    if !input.settings.units.iter().any(|watched| watched == unit) {
        return None;
    }
    let stands = input.in_flight.contains_key(unit) || conditions(input, unit).next().is_some();
    if stands {
        return Some(bound);
    }
    let loops = input.conditions.iter().any(|condition| {
        condition.key.kind == ConditionKind::UnitFlapping
            && condition.escalated
            && condition.key.subject == unit
    });
    if !loops {
        return None;
    }
    match input.health.since(unit) {
        Some(since) => Some(since + STEADY).filter(|steady| *steady > input.now),
        None => Some(bound),
    }
}

/// What its own ladder is for.
fn conditions<'a>(input: &'a Input<'_>, unit: &'a str) -> impl Iterator<Item = &'a Condition> {
    let is_kubelet = unit == input.settings.kubelet_unit;
    input
        .conditions
        .iter()
        .filter(move |condition| match Treatment::of(condition.key.kind) {
            Treatment::Ladder | Treatment::RestartRuntime | Treatment::KillUnit => {
                condition.key.subject == unit
            }
            Treatment::KillKubelet | Treatment::RestartKubelet => is_kubelet,
            Treatment::Reclaim
            | Treatment::FreeDisk
            | Treatment::FreeInodes
            | Treatment::RestartContainer
            | Treatment::Bounce
            | Treatment::RelieveMemory
            | Treatment::Protect
            | Treatment::RestartTimeService
            | Treatment::RestartCni
            | Treatment::Tell => false,
        })
}

/// Nothing more will be done about any of what stands of it.
fn spent(input: &Input<'_>, unit: &str) -> bool {
    if input.in_flight.contains_key(unit) {
        return false;
    }
    let mut standing = conditions(input, unit).peekable();
    standing.peek().is_some()
        && standing.all(|condition| {
            ladder::of(Treatment::of(condition.key.kind))
                .is_none_or(|ladder| ladder.next(input, unit).is_none())
        })
}

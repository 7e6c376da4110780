//! Holds and silence, made and lifted on the node itself: the only things that whoever asks can change.

use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use tokio::time::Instant;

use super::answer::{Answer, FrozenHere, HeldHere};
use crate::brakes::{Freeze, Held, Hold, Scope, SharedBrakes};
use crate::causes::causes;

/// A reason, and a name, are kept up to so many characters.
const WORDS: usize = 256;

/// Holds, and answers with what is held.
pub(super) fn hold(
    brakes: &SharedBrakes,
    what: Result<Held, String>,
    by: &str,
    reason: &str,
    for_ms: Option<u64>,
) -> Answer {
    let what = match what {
        Ok(what) => what,
        Err(why) => return Answer::Refusal { why },
    };
    let words = |text: &str| text.trim().chars().take(WORDS).collect::<String>();
    if words(reason).is_empty() {
        let why = "a hold needs a reason: whoever finds it has to know what for".to_owned();
        return Answer::Refusal { why };
    }
    let now = Instant::now();
    let until = match for_ms.map(|millis| now.checked_add(Duration::from_millis(millis))) {
        None => None,
        Some(Some(until)) => Some(until),
        Some(None) => {
            let why = "so long a hold cannot be counted; leave --for away".to_owned();
            return Answer::Refusal { why };
        }
    };
    let hold = Hold {
        scope: Scope::Local,
        what,
        by: words(by),
        reason: words(reason),
        until,
    };
    match brakes.hold(&hold) {
        Ok(()) => Answer::Held(held_here(&hold, now)),
        Err(error) => Answer::Refusal { why: causes(&error) },
    }
}

/// Lifts, and answers with what was held.
pub(super) fn lift(brakes: &SharedBrakes, what: Result<Held, String>) -> Answer {
    let what = match what {
        Ok(what) => what,
        Err(why) => return Answer::Refusal { why },
    };
    let now = Instant::now();
    match brakes.lift(what) {
        Ok(Some(hold)) => Answer::Lifted(held_here(&hold, now)),
        Ok(None) => Answer::Refusal {
            why: match brakes.standing(now).holds.iter().find(|hold| hold.what == what) {
                Some(hold) => format!(
                    "the coordinator holds {what} here ({}, by {}); lift it with the command `blackstart`",
                    hold.scope.as_str(),
                    hold.by
                ),
                None => format!("nothing was held here: {what}"),
            },
        },
        Err(error) => Answer::Refusal { why: causes(&error) },
    }
}

/// What is asked for by name.
pub(super) fn what(remedy: Option<&str>, silence: bool) -> Result<Held, String> {
    match (silence, remedy) {
        (true, _) => Ok(Held::Silence),
        (false, None) => Ok(Held::Every),
        (false, Some(name)) => RemedyKind::named(name)
            .map(Held::Remedy)
            .ok_or_else(|| format!("there is no remedy \"{name}\"; known: {}", RemedyKind::names())),
    }
}

pub(super) fn held_here(hold: &Hold, now: Instant) -> HeldHere {
    HeldHere {
        scope: hold.scope,
        remedy: match hold.what {
            Held::Remedy(kind) => Some(kind.as_str().to_owned()),
            Held::Every | Held::Silence => None,
        },
        silence: hold.what == Held::Silence,
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        ends_in_ms: hold.until.map(|until| left(until, now)),
    }
}

pub(super) fn frozen_here(freeze: &Freeze, now: Instant) -> FrozenHere {
    FrozenHere {
        condition: freeze.kind.as_str().to_owned(),
        why: freeze.why.clone(),
        ends_in_ms: left(freeze.until, now),
    }
}

fn left(until: Instant, now: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
}

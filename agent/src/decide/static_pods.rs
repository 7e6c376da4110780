//! A component of the control plane that is down: a bounce, within its budget, then stop and say so. Pure.
//!
//! Never two of a node at once, and in the order in which they need each other: what needs another that is down as well waits for it,
//! since a bounce of its own would not bring it up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::{Input, Look, Proposal, WaitingOn};
use crate::condition::{Condition, ConditionKey, ConditionKind};
use crate::config::Settings;
use crate::remedy::Remedy;

/// What a bounce that succeeded changed may take so many looks to be seen.
const SETTLE_LOOKS: u32 = 3;

/// What comes earlier is needed by what comes later.
fn rank(pod: &str) -> u8 {
    match pod {
        "etcd" => 0,
        "kube-apiserver" => 1,
        _ => 2,
    }
}

pub(super) fn look(
    input: &Input<'_>,
    condition: &Condition,
    taken: &BTreeSet<String>,
    bouncing: bool,
) -> Look {
    let (settings, now) = (input.settings, input.now);
    let pod = &condition.key.subject;
    if settings.static_pods.component(pod).is_none() {
        return Look::Wait(WaitingOn::NotAComponent);
    }
    if taken.contains(pod) {
        return Look::Wait(WaitingOn::Running);
    }
    if input.brakes.gate_held {
        return Look::Wait(WaitingOn::BootGate);
    }
    let last = input.history.of(pod).next_back();
    if let Some(last) = last.filter(|last| last.helped()) {
        let until = last.last_seen() + settle(settings);
        if until > now {
            return Look::Wait(WaitingOn::Settling { until });
        }
    }
    let made = input.history.count(pod, Rung::Bounce);
    if made >= settings.static_pods.bounces {
        return spent(condition, made, last);
    }
    if let Some(first) = first(input, pod) {
        return Look::Wait(WaitingOn::First { subject: first });
    }
    if bouncing {
        return Look::Wait(WaitingOn::OtherBounce);
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Look::Wait(WaitingOn::Ledger { until });
    }
    let reason = format!(
        "{}: {}; bounce {} of {}",
        condition.key.kind,
        condition.evidence,
        made + 1,
        settings.static_pods.bounces
    );
    let remedy = Remedy::BounceStaticPod { pod: pod.clone() };
    Look::Begin(Proposal { remedy, reason })
}

/// What has to be mended before `pod`: a hung runtime, without which no container ends or starts, or what the pod needs.
fn first(input: &Input<'_>, pod: &str) -> Option<String> {
    let needs = |other: &ConditionKey| {
        let lower = rank(&other.subject) < rank(pod);
        let absent = other.kind == ConditionKind::ControlPlaneComponentDown
            || other.kind == ConditionKind::StaticPodManifestMissing;
        other.kind == ConditionKind::RuntimeHung || (absent && lower)
    };
    let mut standing = input.conditions.iter().map(|condition| &condition.key);
    standing
        .find(|other| needs(other))
        .map(|other| other.subject.clone())
}

fn settle(settings: &Settings) -> Duration {
    settings.static_pods.while_failing().saturating_mul(SETTLE_LOOKS)
}

fn spent(condition: &Condition, made: u32, last: Option<&Attempt>) -> Look {
    let ended = last
        .and_then(|last| last.end.as_ref())
        .map_or("its end is not known", |end| end.detail.as_str());
    let evidence = format!(
        "{}: {}; {made} bounces did not mend it; the last: {ended}",
        condition.key.kind, condition.evidence
    );
    Look::Spent {
        since: last.map_or(condition.since, Attempt::last_seen),
        evidence,
        again: None,
    }
}

#[cfg(test)]
mod tests;

//! Under overload the kubelet and the runtimes are given more weight; the load itself is somebody else's to move. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::Rung;
use super::{Input, Look, Proposal, WaitingOn};
use crate::condition::Condition;
use crate::remedy::Remedy;

/// It is done again after this while the overload stands: units may have come up since, and after a reboot nothing of it is left.
pub(crate) const AGAIN: Duration = Duration::from_mins(10);

/// `None`: nothing is to be done, or nothing more.
pub(super) fn look(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Option<Look> {
    let now = input.now;
    if !input.settings.load.protect {
        return None;
    }
    let remedy = Remedy::ProtectUnits;
    let subject = remedy.subject();
    if taken.contains(&subject) {
        return Some(Look::Wait(WaitingOn::Running));
    }
    let lately = input
        .history
        .of(&subject)
        .any(|attempt| attempt.rung == Rung::Protect && now.saturating_duration_since(attempt.begun) < AGAIN);
    if lately {
        return None;
    }
    if input.brakes.systemd_away {
        return Some(Look::Wait(WaitingOn::Systemd));
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Some(Look::Wait(WaitingOn::Ledger { until }));
    }
    let reason = format!("{}: {}", condition.key.kind, condition.evidence);
    Some(Look::Begin(Proposal { remedy, reason }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::Instant;

    use super::super::health::Health;
    use super::super::history::History;
    use super::super::{Brakes, decide};
    use super::*;
    use crate::condition::{ConditionKey, ConditionKind, Severity};
    use crate::config::Settings;

    #[test]
    fn it_protects_at_once_then_now_and_then_and_not_at_all_when_told_so() {
        let (start, mut settings) = (Instant::now(), Settings::for_node("n"));
        let mut history = History::default();
        let condition = Condition {
            key: ConditionKey {
                kind: ConditionKind::Overload,
                subject: "load".into(),
            },
            severity: Severity::Warning,
            since: start,
            evidence: "load 99".into(),
            escalated: true,
            log: None,
            heaviest: Vec::new(),
        };
        let begins = |history: &History, settings: &Settings, now: Instant| {
            let decision = decide(&Input {
                conditions: std::slice::from_ref(&condition),
                history,
                health: &Health::new("kubelet.service"),
                settings,
                brakes: &Brakes::default(),
                in_flight: &BTreeMap::new(),
                stress: None,
                now,
            });
            assert!(decision.conditions[0].escalated, "the load itself is told");
            decision.begin.len()
        };
        assert_eq!(begins(&history, &settings, start), 1);
        history.begun(&Remedy::ProtectUnits, start);
        assert_eq!(begins(&history, &settings, start + AGAIN / 2), 0);
        assert_eq!(begins(&history, &settings, start + AGAIN), 1);
        settings.load.protect = false;
        assert_eq!(begins(&history, &settings, start + AGAIN), 0);
    }
}

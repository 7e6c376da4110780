//! What needs the coordinator's permit waits for it. Pure.
//!
//! | coordinator | permit | what is done |
//! |---|---|---|
//! | none is configured | | begun, within the local budget |
//! | | `static_pods.without_permit`, and it is a static pod | begun, within the local budget |
//! | in session | given, and still good | begun |
//! | in session | none | waits, with the coordinator's reason |
//! | no session for less than `coordinator.permit_wait` | none | waits |
//! | no session for longer | none | a runtime: begun, within the local budget; a static pod: waits |

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{Input, Look, Proposal, WaitingOn};
use crate::permit::{PermitKind, Wish, needed};
use crate::remedy::Remedy;

/// What the coordinator has permitted, and whether it can be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits {
    /// There has been no session since then; `None`: there is one.
    pub away_since: Option<Instant>,
    /// What may be begun, and until when.
    pub granted: BTreeMap<(PermitKind, String), Instant>,
    /// What the coordinator said of what may not.
    pub told: BTreeMap<(PermitKind, String), String>,
}

/// A proposal that needs a permit and has none waits for it, and is wished for.
pub(super) fn permitted(look: Look, input: &Input<'_>, wishes: &mut Vec<Wish>) -> Look {
    let Look::Begin(Proposal { remedy, reason }) = &look else {
        return look;
    };
    let (settings, permits, now) = (input.settings, &input.brakes.permits, input.now);
    let (Some(kind), Some(coordinator)) = (needed(remedy, settings), &settings.coordinator) else {
        return look;
    };
    let bounce = matches!(remedy, Remedy::BounceStaticPod { .. });
    if bounce && settings.static_pods.without_permit {
        return look;
    }
    let key = (kind, remedy.subject());
    if permits.granted.get(&key).is_some_and(|until| *until > now) {
        return look;
    }
    let until = match permits.away_since {
        Some(since) if !bounce => Some(since + coordinator.permit_wait),
        Some(_) | None => None,
    };
    if until.is_some_and(|until| until <= now) {
        return look;
    }
    let on = if permits.away_since.is_some() {
        Some("there is no session with it".to_owned())
    } else {
        permits.told.get(&key).map(|told| format!("it waits for {told}"))
    };
    wishes.push(Wish {
        kind,
        subject: key.1,
        reason: reason.clone(),
    });
    Look::Wait(WaitingOn::Permit { on, until })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use blackstart_proto::tls::TlsFiles;

    use super::*;
    use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
    use crate::config::{CoordinatorSettings, GateRole, PERMIT_WAIT, Settings};
    use crate::decide::health::Health;
    use crate::decide::history::History;
    use crate::decide::{Brakes, Decision, decide};

    const DOCKER: &str = "docker.service";

    /// What is decided of a hung dockerd, when there has been no session for so long.
    fn decided(settings: &Settings, away: Option<Duration>) -> Decision {
        let now = Instant::now() + Duration::from_hours(1);
        let condition = Condition {
            key: ConditionKey {
                kind: ConditionKind::RuntimeHung,
                subject: DOCKER.to_owned(),
            },
            severity: Severity::Critical,
            since: now,
            evidence: "seen".to_owned(),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        };
        let permits = Permits {
            away_since: away.map(|away| now - away),
            ..Permits::default()
        };
        decide(&Input {
            conditions: &[condition],
            history: &History::default(),
            health: &Health::new("kubelet.service"),
            settings,
            brakes: &Brakes {
                permits,
                ..Brakes::default()
            },
            in_flight: &BTreeMap::new(),
            stress: None,
            now,
        })
    }

    fn master() -> Settings {
        let mut settings = Settings::for_node("m");
        settings.units.push(DOCKER.to_owned());
        settings.gate.role = GateRole::ControlPlane;
        settings.coordinator = Some(CoordinatorSettings {
            addresses: Vec::new(),
            tls: TlsFiles::in_dir(std::path::Path::new("/pki"), "m"),
            report_interval: Duration::from_secs(2),
            permit_wait: PERMIT_WAIT,
        });
        settings
    }

    #[test]
    fn the_runtime_of_a_master_waits_for_a_permit_until_the_coordinator_has_been_gone_for_long() {
        let settings = master();
        let short = PERMIT_WAIT / 2;
        for away in [None, Some(short)] {
            let decision = decided(&settings, away);
            assert_eq!((decision.begin.len(), decision.wishes.len()), (0, 1), "{away:?}");
            assert_eq!(decision.wishes[0].kind, PermitKind::RuntimeRestart);
            // It is looked at again when the wait is over, whatever happens until then.
            assert_eq!(decision.next_look.is_some(), away.is_some());
        }
        let decision = decided(&settings, Some(PERMIT_WAIT));
        assert_eq!((decision.begin.len(), decision.wishes.len()), (1, 0));
    }

    #[test]
    fn workers_and_nodes_without_a_coordinator_ask_nobody() {
        let mut worker = master();
        worker.gate.role = GateRole::Worker;
        let alone = Settings {
            coordinator: None,
            ..master()
        };
        for settings in [worker, alone] {
            assert_eq!(decided(&settings, None).begin.len(), 1);
        }
    }
}

//! What stands on the node → a few node conditions with names that stay.
//!
//! One for each area, as the node problem detector has them: whoever drains or alerts by them needs a short list, not each of
//! our kinds. A container that is ill is no problem of the node, and only an event.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::condition::{Condition, ConditionKind, Severity};
use crate::report::{cut, one_line};

/// No longer, bytes.
const LONGEST: usize = 1024;
/// Between two patches, whatever happens.
const SHORTEST: Duration = Duration::from_secs(1);
/// Figures that change are told at most so often.
const WORDS: Duration = Duration::from_mins(1);

/// A part of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Area {
    Disk,
    Resource,
    Kernel,
    Service,
    Runtime,
    Network,
    Clock,
    ControlPlane,
    Agent,
}

impl Area {
    pub(super) const ALL: [Self; 9] = [
        Self::Disk,
        Self::Resource,
        Self::Kernel,
        Self::Service,
        Self::Runtime,
        Self::Network,
        Self::Clock,
        Self::ControlPlane,
        Self::Agent,
    ];

    /// The node condition's `type`. It never changes.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "BlackstartDiskProblem",
            Self::Resource => "BlackstartResourceProblem",
            Self::Kernel => "BlackstartKernelProblem",
            Self::Service => "BlackstartServiceProblem",
            Self::Runtime => "BlackstartRuntimeProblem",
            Self::Network => "BlackstartNetworkProblem",
            Self::Clock => "BlackstartClockProblem",
            Self::ControlPlane => "BlackstartControlPlaneProblem",
            Self::Agent => "BlackstartAgentProblem",
        }
    }

    /// Where a kind belongs; `None`: it is no problem of the node.
    const fn of(kind: ConditionKind) -> Option<Self> {
        use ConditionKind as Kind;
        Some(match kind {
            Kind::DiskPressure
            | Kind::InodePressure
            | Kind::DiskFilling
            | Kind::LogRunaway
            | Kind::FilesystemReadOnly
            | Kind::FilesystemCorrupt
            | Kind::DiskFailing => Self::Disk,
            Kind::MemoryPressure | Kind::OomStorm | Kind::MemoryLeak | Kind::Overload => Self::Resource,
            Kind::KernelHang | Kind::HardwareFault => Self::Kernel,
            Kind::UnitFailed
            | Kind::UnitInactive
            | Kind::UnitFlapping
            | Kind::UnitMasked
            | Kind::UnitJobHung
            | Kind::KubeletUnhealthy => Self::Service,
            Kind::RuntimeHung | Kind::KubeletPlegUnhealthy => Self::Runtime,
            Kind::NicFailing
            | Kind::ConntrackFull
            | Kind::NetworkIsolated
            | Kind::CniMissing
            | Kind::DnsFailing => Self::Network,
            Kind::ClockBehind | Kind::ClockUnsynchronised | Kind::ClockJumped | Kind::RtcBehind => {
                Self::Clock
            }
            Kind::ControlPlaneComponentDown
            | Kind::StaticPodManifestMissing
            | Kind::StaticPodManifestInvalid
            | Kind::CertificateExpiring
            | Kind::CertificateExpired => Self::ControlPlane,
            Kind::RemedyExhausted | Kind::LedgerUnwritable => Self::Agent,
            Kind::ContainerFlapping
            | Kind::ContainerOomKilled
            | Kind::ContainerDied
            | Kind::ContainerUnhealthy => return None,
        })
    }
}

/// How it stands with an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    holds: &'static str,
    reason: String,
    message: String,
}

/// Of every area, by what stands. The worst gives the reason.
pub(super) fn statuses(conditions: &[Condition]) -> BTreeMap<Area, Status> {
    Area::ALL
        .into_iter()
        .map(|area| {
            let mut standing: Vec<_> = conditions
                .iter()
                .filter(|condition| {
                    Area::of(condition.key.kind) == Some(area) && condition.severity > Severity::Info
                })
                .collect();
            standing.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.key.cmp(&b.key)));
            (area, status(&standing))
        })
        .collect()
}

fn status(standing: &[&Condition]) -> Status {
    let Some((worst, rest)) = standing.split_first() else {
        return Status {
            holds: "False",
            reason: "NoProblem".to_owned(),
            message: "Blackstart sees nothing wrong".to_owned(),
        };
    };
    let mut message = format!("{}: {}", worst.key.subject, worst.evidence);
    for other in rest {
        // Writing to a string cannot fail.
        let _ = write!(message, "; also {} {}", other.key.kind, other.key.subject);
    }
    Status {
        holds: "True",
        reason: worst.key.kind.as_str().to_owned(),
        message: cut(&one_line(&message), LONGEST).to_owned(),
    }
}

/// Of every area, once nobody looks any more.
pub(super) fn unknown() -> BTreeMap<Area, Status> {
    let status = Status {
        holds: "Unknown",
        reason: "AgentStopped".to_owned(),
        message: "blackstart-agent has stopped on this node".to_owned(),
    };
    Area::ALL.into_iter().map(|area| (area, status.clone())).collect()
}

/// What of a node is read: its conditions.
#[derive(Debug, Deserialize)]
struct Node {
    status: NodeStatus,
}

#[derive(Debug, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeCondition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

/// What the API server was told last.
#[derive(Debug, Default)]
pub(super) struct Book {
    told: Option<(BTreeMap<Area, Status>, Instant)>,
    /// Status of each, and since when.
    since: BTreeMap<Area, (String, String)>,
    adopted: bool,
}

impl Book {
    /// Nothing is known of what an agent before this one has told.
    pub(super) fn is_new(&self) -> bool {
        !self.adopted
    }

    /// Takes over from the node's object what an agent before this one has told, so that a restart is no transition.
    pub(super) fn adopt(&mut self, node: &[u8]) -> Result<(), serde_json::Error> {
        let node: Node = serde_json::from_slice(node)?;
        for condition in node.status.conditions {
            let area = Area::ALL
                .into_iter()
                .find(|area| area.as_str() == condition.r#type);
            if let (Some(area), Some(since)) = (area, condition.last_transition_time) {
                self.since.insert(area, (condition.status, since));
            }
        }
        self.adopted = true;
        Ok(())
    }

    /// When `statuses` are to be told.
    pub(super) fn due(
        &self,
        statuses: &BTreeMap<Area, Status>,
        heartbeat: Duration,
        now: Instant,
    ) -> Instant {
        let Some((told, at)) = &self.told else { return now };
        let matters = |status: &Status| (status.holds, status.reason.clone());
        if !told.values().map(matters).eq(statuses.values().map(matters)) {
            return *at + SHORTEST;
        }
        let again = *at + heartbeat;
        if told == statuses {
            again
        } else {
            again.min(*at + WORDS)
        }
    }

    /// The patch of a node's status that tells them, and what is to be remembered once it is through.
    pub(super) fn patch(
        &self,
        statuses: &BTreeMap<Area, Status>,
        wall: Timestamp,
    ) -> (Value, BTreeMap<Area, (String, String)>) {
        let heartbeat = time(wall);
        let mut since = BTreeMap::new();
        let conditions: Vec<_> = statuses
            .iter()
            .map(|(area, status)| {
                let transition = match self.since.get(area) {
                    Some((before, at)) if before == status.holds => at.clone(),
                    Some(_) | None => heartbeat.clone(),
                };
                since.insert(*area, (status.holds.to_owned(), transition.clone()));
                json!({
                    "type": area.as_str(),
                    "status": status.holds,
                    "reason": status.reason,
                    "message": status.message,
                    "lastHeartbeatTime": heartbeat,
                    "lastTransitionTime": transition,
                })
            })
            .collect();
        (json!({"status": {"conditions": conditions}}), since)
    }

    /// The patch is through.
    pub(super) fn told(
        &mut self,
        statuses: BTreeMap<Area, Status>,
        since: BTreeMap<Area, (String, String)>,
        now: Instant,
    ) {
        self.told = Some((statuses, now));
        self.since = since;
    }
}

/// As the API server writes and reads times: whole seconds, UTC.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::ConditionKey;

    fn condition(kind: ConditionKind, severity: Severity, subject: &str) -> Condition {
        Condition {
            key: ConditionKey {
                kind,
                subject: subject.to_owned(),
            },
            severity,
            since: Instant::now(),
            evidence: "seen\nso".to_owned(),
            escalated: false,
            log: None,
            heaviest: Vec::new(),
        }
    }

    #[test]
    fn the_worst_gives_the_reason_and_a_container_is_no_problem_of_the_node() {
        let standing = [
            condition(ConditionKind::DiskPressure, Severity::Warning, "/"),
            condition(ConditionKind::DiskFailing, Severity::Critical, "sda"),
            condition(ConditionKind::ContainerFlapping, Severity::Critical, "web"),
            condition(ConditionKind::Overload, Severity::Info, "load"),
        ];
        let statuses = statuses(&standing);
        assert_eq!(
            statuses[&Area::Disk],
            Status {
                holds: "True",
                reason: "DiskFailing".to_owned(),
                message: "sda: seen\\nso; also DiskPressure /".to_owned(),
            }
        );
        let raised = statuses.values().filter(|status| status.holds == "True");
        assert_eq!(raised.count(), 1, "{statuses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_no_transition_and_figures_wait_for_their_minute() {
        let mut book = Book::default();
        let node = json!({"status": {"images": [], "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "BlackstartDiskProblem", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "BlackstartClockProblem", "status": "Unknown", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]}});
        book.adopt(node.to_string().as_bytes()).unwrap();
        let (now, heartbeat) = (Instant::now(), Duration::from_mins(5));
        let well = statuses(&[]);
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let (patch, since) = book.patch(&well, at);
        let of = |area: Area| {
            let list = patch["status"]["conditions"].as_array().unwrap();
            list.iter()
                .find(|entry| entry["type"] == area.as_str())
                .unwrap()
                .clone()
        };
        assert_eq!(of(Area::Disk)["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert_eq!(of(Area::Disk)["lastHeartbeatTime"], "2023-11-14T22:13:20Z");
        assert_eq!(of(Area::Clock)["lastTransitionTime"], "2023-11-14T22:13:20Z");
        assert_eq!(book.due(&well, heartbeat, now), now);
        let mut ill = condition(ConditionKind::DiskPressure, Severity::Warning, "/");
        let first = statuses(std::slice::from_ref(&ill));
        book.told(well.clone(), since, now);
        assert_eq!(book.due(&well, heartbeat, now), now + heartbeat);
        assert_eq!(book.due(&first, heartbeat, now), now + SHORTEST);
        book.told(first, BTreeMap::new(), now);
        ill.evidence = "91% used".to_owned();
        let other = statuses(&[ill]);
        assert_eq!(book.due(&other, heartbeat, now), now + WORDS);
    }
}

//! Why pods do not run as they should: (objects) → diagnoses. Pure. The chapter Pod 故障恢复.
//!
//! ```text
//!  pod ─► state: Pending, ContainerCreating, ImagePullBackOff, CrashLoopBackOff, Error, Terminating, Unknown, Restarting, NotReady
//!            └─► findings: cause (closed list) + evidence (status, events, node, claims) ─► what to do
//!  workload that lacks pods ─► FailedCreate events ─► the same
//! ```
//!
//! Messages of Kubernetes are words for people and change between versions: what is not recognised is told as it stands, under a cause
//! that promises nothing.

mod cause;
mod containers;
mod scheduling;

use jiff::{SignedDuration, Timestamp};

pub use self::cause::Cause;
use super::case::Case;
use crate::kubernetes::detail::{ContainerState, Event, PodDetail, Workload};
use crate::kubernetes::objects::{Key, PodKind, PodPhase};

/// A container that was started again so often, the last time lately, is told.
const RESTARTS: u64 = 3;
/// Lately.
const LATELY: SignedDuration = SignedDuration::from_mins(10);
/// A pod that has just been made is not asked why it does not run yet.
const YOUNG: SignedDuration = SignedDuration::from_secs(60);
/// A pod whose grace period is over by so much should be gone; clocks differ.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);
/// So many events are quoted.
const QUOTED: usize = 3;

/// What is wrong with a pod, as `kubectl get pods` would show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It waits for a node.
    Pending,
    /// It has a node, and its containers are not made.
    ContainerCreating,
    /// An image cannot be had.
    ImagePull,
    /// A container ends over and over.
    CrashLoop,
    /// It could not be started, or has failed for good.
    Error,
    /// It is to go, and does not.
    Terminating,
    /// Nobody hears of its node.
    Unknown,
    /// It runs, and was started again often.
    Restarting,
    /// It runs, and is not ready.
    NotReady,
    /// Of a workload: pods of it cannot be made.
    NotMade,
}

impl State {
    /// Its name on the wire and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::ContainerCreating => "ContainerCreating",
            Self::ImagePull => "ImagePullBackOff",
            Self::CrashLoop => "CrashLoopBackOff",
            Self::Error => "Error",
            Self::Terminating => "Terminating",
            Self::Unknown => "Unknown",
            Self::Restarting => "Restarting",
            Self::NotReady => "NotReady",
            Self::NotMade => "NotMade",
        }
    }
}

/// One cause, with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub cause: Cause,
    /// Of which container, if of one.
    pub container: Option<String>,
    /// What it rests on, in the words of the API.
    pub evidence: Vec<String>,
}

/// What is wrong with one pod or workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// `Pod`, or the kind of a workload.
    pub kind: String,
    /// Which.
    pub key: Key,
    /// This one.
    pub uid: String,
    /// Where; empty while it has no node.
    pub node: String,
    /// Who makes it again.
    pub controller: Option<String>,
    /// How it looks.
    pub state: State,
    /// Restarts of all its containers.
    pub restarts: u64,
    /// Why, the most telling first.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// One of its causes is like this.
    pub fn has(&self, like: impl Fn(&Cause) -> bool) -> bool {
        self.findings.iter().any(|finding| like(&finding.cause))
    }

    /// The first cause, for a sentence.
    pub fn words(&self) -> String {
        let why = self.findings.first().map_or_else(
            || "nothing tells why".to_owned(),
            |finding| match finding.evidence.first() {
                Some(evidence) => format!("{}: {evidence}", finding.cause.as_str()),
                None => finding.cause.as_str().to_owned(),
            },
        );
        format!("{} {} is {} ({why})", self.kind, self.key, self.state.as_str())
    }
}

/// Everything that is wrong, by name.
pub fn all(case: &Case, now: Timestamp) -> Vec<Diagnosis> {
    let pods = case.pods.iter().filter_map(|pod| pod_of(pod, case, now));
    let workloads = case
        .workloads
        .iter()
        .filter_map(|workload| not_made(workload, case));
    pods.chain(workloads).collect()
}

/// What is wrong with a pod; `None`: nothing.
pub fn pod_of(pod: &PodDetail, case: &Case, now: Timestamp) -> Option<Diagnosis> {
    let (state, mut findings) = look(pod, case, now)?;
    if pod.kind == PodKind::Mirror {
        findings.push(finding(
            Cause::StaticPod {
                node: pod.node.clone(),
            },
            None,
            ["it is the shadow of a static pod: its manifest lies on its node".to_owned()],
        ));
    }
    Some(Diagnosis {
        kind: "Pod".to_owned(),
        key: pod.key.clone(),
        uid: pod.uid.clone(),
        node: pod.node.clone(),
        controller: pod.controller_words(),
        state,
        restarts: pod.restarts(),
        findings,
    })
}

fn look(pod: &PodDetail, case: &Case, now: Timestamp) -> Option<(State, Vec<Finding>)> {
    let events = events_of(pod, case);
    let young = pod.created.is_some_and(|made| now.duration_since(made) < YOUNG);
    if let Some(deleted) = pod.deleted {
        return terminating(pod, case, deleted, now).map(|findings| (State::Terminating, findings));
    }
    if pod.phase == PodPhase::Unknown || pod.reason == "NodeLost" {
        let lost = finding(
            Cause::NodeLost {
                node: pod.node.clone(),
            },
            None,
            [said(&pod.reason, &pod.message)],
        );
        return Some((State::Unknown, vec![lost]));
    }
    if pod.phase == PodPhase::Failed {
        return Some((State::Error, failed(pod)));
    }
    if pod.phase == PodPhase::Succeeded {
        return None;
    }
    if pod.node.is_empty() {
        let findings = scheduling::findings(pod, case, &events);
        let is_told = findings.iter().any(|one| one.cause != Cause::NotScheduled);
        return (is_told || !young).then_some((State::Pending, findings));
    }
    if let Some(found) = containers::look(pod, case, &events, now) {
        return Some(found);
    }
    if pod.phase == PodPhase::Pending {
        let mut findings = containers::creating(&events);
        findings.extend(node_not_ready(pod, case));
        return (!(findings.is_empty() && young)).then_some((State::ContainerCreating, findings));
    }
    if !pod.is_ready {
        let mut findings = containers::probes(&events);
        findings.extend(node_not_ready(pod, case));
        return (!(findings.is_empty() && young)).then_some((State::NotReady, findings));
    }
    None
}

/// A pod that should be gone; `None`: it may take the time that it takes.
fn terminating(pod: &PodDetail, case: &Case, deleted: Timestamp, now: Timestamp) -> Option<Vec<Finding>> {
    let is_silent = case
        .rooms
        .iter()
        .find(|room| room.node == pod.node)
        .is_some_and(|room| !room.is_ready);
    let asked = format!("it was to be gone by {deleted}");
    if is_silent {
        let words = match case.down.get(&pod.node) {
            Some(Ok(down)) => down.clone(),
            Some(Err(super::node_down::NotDead::Lives(told) | super::node_down::NotDead::NotKnown(told))) => {
                told.clone()
            }
            None => format!("node {} is not Ready", pod.node),
        };
        let why = Cause::NodeSilent {
            node: pod.node.clone(),
        };
        return Some(vec![finding(why, None, [words, asked])]);
    }
    if now.duration_since(deleted) < OVERDUE {
        return None;
    }
    let mut findings = Vec::new();
    if !pod.finalizers.is_empty() {
        findings.push(finding(
            Cause::Finalizers {
                names: pod.finalizers.clone(),
            },
            None,
            [asked.clone()],
        ));
    }
    if !pod.node.is_empty() && pod.finalizers.is_empty() {
        let why = Cause::KubeletHolds {
            node: pod.node.clone(),
        };
        findings.push(finding(why, None, [asked, format!("node {} is Ready", pod.node)]));
    }
    Some(findings)
}

/// A pod that has failed for good.
fn failed(pod: &PodDetail) -> Vec<Finding> {
    let words = said(&pod.reason, &pod.message);
    let cause = match pod.reason.as_str() {
        "Evicted" => Cause::Evicted {
            node: pod.node.clone(),
        },
        "NodeShutdown" | "Terminated" | "NodeAffinity" | "Shutdown" => Cause::NodeWentDown {
            node: pod.node.clone(),
        },
        "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" => Cause::NodeRefused {
            node: pod.node.clone(),
        },
        "DeadlineExceeded" => Cause::DeadlineExceeded,
        _ => {
            let ended = pod
                .containers
                .iter()
                .filter_map(|container| match &container.state {
                    ContainerState::Terminated(ended) if ended.code != 0 => Some((container, ended)),
                    ContainerState::Terminated(_)
                    | ContainerState::Waiting { .. }
                    | ContainerState::Running => None,
                });
            let found: Vec<_> = ended
                .map(|(container, ended)| containers::ended(container, ended, &[]))
                .collect();
            if !found.is_empty() {
                return found;
            }
            Cause::Unexplained
        }
    };
    vec![finding(cause, None, [words])]
}

/// Nothing starts on a node that is not ready.
fn node_not_ready(pod: &PodDetail, case: &Case) -> Option<Finding> {
    let room = case.rooms.iter().find(|room| room.node == pod.node)?;
    if !room.is_ready {
        let why = Cause::NodeSilent {
            node: pod.node.clone(),
        };
        return Some(finding(why, None, [format!("node {} is not Ready", pod.node)]));
    }
    let pressure = room.pressures.first()?;
    let why = Cause::NodeUnderPressure {
        node: pod.node.clone(),
        pressure: pressure.clone(),
    };
    Some(finding(why, None, [format!("node {} has {pressure}", pod.node)]))
}

/// A workload whose pods the API refuses to make.
fn not_made(workload: &Workload, case: &Case) -> Option<Diagnosis> {
    if workload.replicas >= workload.desired || workload.desired == 0 {
        return None;
    }
    let kind = workload.name.kind.as_str();
    let events = case.events.iter().filter(|event| {
        event.is_warning && event.reason == "FailedCreate" && event.kind == kind && event.uid == workload.uid
    });
    let mut findings: Vec<Finding> = Vec::new();
    for event in events.take(QUOTED) {
        let why = refused_creation(&event.message);
        if findings.iter().all(|one| one.cause != why) {
            findings.push(finding(why, None, [event.message.clone()]));
        }
    }
    (!findings.is_empty()).then(|| Diagnosis {
        kind: kind.to_owned(),
        key: workload.name.key.clone(),
        uid: workload.uid.clone(),
        node: String::new(),
        controller: workload
            .owner
            .as_ref()
            .map(|(kind, name)| format!("{kind} {name}")),
        state: State::NotMade,
        restarts: 0,
        findings,
    })
}

/// Why a pod was not let in, by the words of the admission that refused it.
fn refused_creation(message: &str) -> Cause {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if let Some((_, rest)) = message.split_once("exceeded quota: ") {
        let quota = rest.split([',', ' ']).next().unwrap_or_default();
        return Cause::QuotaExceeded {
            quota: quota.to_owned(),
        };
    }
    if has(&["failed quota: "]) {
        let (_, rest) = message.split_once("failed quota: ").unwrap_or_default();
        let quota = rest.split([':', ' ']).next().unwrap_or_default();
        return Cause::QuotaExceeded {
            quota: quota.to_owned(),
        };
    }
    if has(&["usage per Container", "usage per Pod", "limit to request ratio"]) {
        return Cause::LimitRangeExceeded;
    }
    if has(&["PodSecurityPolicy", "pod security policy", "violates PodSecurity"]) {
        return Cause::PolicyViolated;
    }
    if has(&["error looking up service account", "serviceaccount \""]) {
        return Cause::ServiceAccountMissing;
    }
    if has(&["failed calling webhook", "failed calling admission webhook"]) {
        return Cause::WebhookDown;
    }
    if has(&["forbidden"]) {
        return Cause::Forbidden;
    }
    Cause::Unexplained
}

/// What was said of a pod, latest first.
fn events_of<'a>(pod: &PodDetail, case: &'a Case) -> Vec<&'a Event> {
    let of_it = |event: &&Event| {
        event.kind == "Pod"
            && if event.uid.is_empty() {
                event.name == pod.key.name
            } else {
                event.uid == pod.uid
            }
    };
    case.events.iter().filter(of_it).collect()
}

fn finding(cause: Cause, container: Option<&str>, evidence: impl IntoIterator<Item = String>) -> Finding {
    Finding {
        cause,
        container: container.map(str::to_owned),
        evidence: evidence.into_iter().filter(|words| !words.is_empty()).collect(),
    }
}

fn said(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn quoted(event: &Event) -> String {
    if event.count > 1 {
        format!("{}: {} (×{})", event.reason, event.message, event.count)
    } else {
        format!("{}: {}", event.reason, event.message)
    }
}

#[cfg(test)]
mod tests;

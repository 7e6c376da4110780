//! Pods that wait for a node, by the scheduler's words (`FitError`, pkg/scheduler/framework/types.go, from 1.13 to 1.36).

use super::{Cause, Finding, finding, quoted};
use crate::kubernetes::detail::{Event, PodDetail};
use crate::runbooks::case::Case;

/// Why no node takes it.
pub(super) fn findings(pod: &PodDetail, case: &Case, events: &[&Event]) -> Vec<Finding> {
    let said = pod
        .condition("PodScheduled")
        .filter(|condition| condition.status == "False")
        .map(|condition| (condition.message.clone(), condition.message.clone()));
    let told = events
        .iter()
        .find(|event| event.reason == "FailedScheduling")
        .map(|event| (event.message.clone(), quoted(event)));
    let mut findings = claims(pod, case);
    let Some((message, evidence)) = said.filter(|(message, _)| !message.is_empty()).or(told) else {
        if findings.is_empty() {
            findings.push(finding(
                Cause::NotScheduled,
                None,
                ["no scheduler has said anything of it".to_owned()],
            ));
        }
        return findings;
    };
    for reason in reasons(&message) {
        for cause in causes(&reason, pod) {
            let known = findings.iter().any(|one: &Finding| {
                one.cause == cause || matches!((&one.cause, &cause),
                    (Cause::ClaimMissing { .. } | Cause::ClaimUnbound { .. }, Cause::ClaimUnbound { claim }) if claim.is_empty())
            });
            if known {
                continue;
            }
            let mut words = vec![reason.clone(), evidence.clone()];
            if let Cause::HostPortTaken { .. } = cause {
                words.extend(holders(pod, case));
            }
            findings.push(finding(cause, None, words));
        }
    }
    if findings.is_empty() {
        findings.push(finding(Cause::Unexplained, None, [evidence]));
    }
    findings
}

/// The reasons in a scheduler's message, each with its number of nodes.
pub(super) fn reasons(message: &str) -> Vec<String> {
    // What preemption would do is no reason.
    let message = message.split("preemption:").next().unwrap_or_default();
    let list = message
        .split_once(" available: ")
        .map_or(message, |(_, list)| list);
    let list = list.trim().trim_end_matches('.');
    if list == message.trim().trim_end_matches('.') {
        return vec![list.to_owned()];
    }
    let mut reasons: Vec<String> = Vec::new();
    for part in list.split(", ") {
        // 1.18 to 1.23 write "had taint {key: value}, that the pod didn't tolerate".
        if part.starts_with(|c: char| c.is_ascii_digit()) || reasons.is_empty() {
            reasons.push(part.to_owned());
        }
    }
    reasons
}

fn causes(reason: &str, pod: &PodDetail) -> Vec<Cause> {
    let has = |word: &str| reason.contains(word);
    if let Some((_, resource)) = reason.split_once("Insufficient ") {
        return vec![Cause::Insufficient {
            resource: resource.trim_end_matches('.').to_owned(),
        }];
    }
    if has("were unschedulable") || has("node.kubernetes.io/unschedulable") {
        return vec![Cause::Cordoned];
    }
    if has("free ports") {
        let ports = pod
            .host_ports
            .iter()
            .map(|(protocol, port)| Cause::HostPortTaken {
                port: format!("{protocol} {port}"),
            });
        let ports: Vec<_> = ports.collect();
        return if ports.is_empty() {
            vec![Cause::HostPortTaken { port: String::new() }]
        } else {
            ports
        };
    }
    if let Some((_, rest)) = reason.split_once("persistentvolumeclaim \"") {
        let claim = rest.split('"').next().unwrap_or_default().to_owned();
        return vec![Cause::ClaimMissing { claim }];
    }
    if has("unbound immediate PersistentVolumeClaims") || has("didn't find available persistent volumes") {
        return vec![Cause::ClaimUnbound { claim: String::new() }];
    }
    if has("volume node affinity conflict") || has("no available volume zone") {
        return vec![Cause::VolumeElsewhere];
    }
    if has("taint") {
        let taint = reason
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("a taint of the nodes", |(taint, _)| {
                taint.trim().trim_end_matches(':')
            });
        return vec![Cause::Taint {
            taint: taint.to_owned(),
        }];
    }
    if has("node selector") || has("affinity") || has("topology spread") {
        return vec![Cause::Affinity];
    }
    if has("Too many pods") {
        return vec![Cause::TooManyPods];
    }
    Vec::new()
}

/// Claims that are not there or have no volume.
fn claims(pod: &PodDetail, case: &Case) -> Vec<Finding> {
    // Without a list of claims nothing is said of them.
    if case
        .lacks
        .iter()
        .any(|lack| lack.starts_with("persistent volume claims"))
    {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for name in &pod.claims {
        match case.claims.iter().find(|claim| claim.name == *name) {
            None => findings.push(finding(
                Cause::ClaimMissing { claim: name.clone() },
                None,
                [format!(
                    "there is no persistentvolumeclaim {name} in {}",
                    pod.key.namespace
                )],
            )),
            Some(claim) if claim.phase != "Bound" && !claim.phase.is_empty() => findings.push(finding(
                Cause::ClaimUnbound { claim: name.clone() },
                None,
                [format!(
                    "claim {name} is {} (storage class {:?})",
                    claim.phase, claim.class
                )],
            )),
            Some(_) => {}
        }
    }
    findings
}

/// Who has the ports.
fn holders(pod: &PodDetail, case: &Case) -> Vec<String> {
    let holds = |other: &&PodDetail| {
        other.uid != pod.uid && other.host_ports.iter().any(|port| pod.host_ports.contains(port))
    };
    let pods = case.holders.iter().chain(&case.pods);
    let mut found: Vec<_> = pods
        .filter(holds)
        .filter(|other| !other.node.is_empty() && !other.is_over())
        .map(|other| format!("pod {} has it on {}", other.key, other.node))
        .collect();
    found.sort();
    found.dedup();
    found.truncate(super::QUOTED);
    found
}

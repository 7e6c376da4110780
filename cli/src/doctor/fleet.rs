//! What coordinators and agents tell, and whether it is as it should be.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;

use super::{Check, Finding};
use crate::output::words::count;
use crate::view::{Coordinator, GateState, NodeCertificate, NodeDetail, NodePhase, Severity};

/// What was told.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    /// Who told it.
    pub(crate) address: SocketAddr,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) nodes: Vec<NodeDetail>,
    /// What nodes were given; those that were made by hand are not among them.
    pub(crate) certificates: Vec<NodeCertificate>,
}

pub(super) fn examine(fleet: &Fleet, own: &str, now: Timestamp) -> Vec<Finding> {
    [
        leader(&fleet.coordinators),
        versions(own, &fleet.coordinators, &fleet.nodes),
        certificates(&fleet.certificates, now),
        presence(&fleet.nodes),
        gates(&fleet.nodes),
        conditions(&fleet.nodes),
    ]
    .concat()
}

fn leader(coordinators: &[Coordinator]) -> Vec<Finding> {
    let leaders: Vec<_> = coordinators
        .iter()
        .filter(|coordinator| coordinator.leads)
        .map(|coordinator| coordinator.name.as_str())
        .collect();
    vec![match leaders[..] {
        [leader] => Finding::ok(
            Check::Leader,
            format!("{leader} leads, of {}", count(coordinators.len(), "coordinator")),
        ),
        [] => Finding::wrong(
            Check::Leader,
            "",
            "no coordinator leads",
            "systemctl status blackstart-coordinator on each; with several: etcdctl endpoint status",
        ),
        [..] => Finding::wrong(
            Check::Leader,
            "",
            format!("several say that they lead: {}", leaders.join(", ")),
            "ask again in a few seconds; if it stays so, stop all but one",
        ),
    }]
}

/// By numbers, not by letters; what is no number counts as 0.
fn compare(one: &str, other: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        version
            .split(['.', '-', '+'])
            .map(|part| part.parse().unwrap_or_default())
            .collect()
    };
    numbers(one).cmp(&numbers(other))
}

fn versions(own: &str, coordinators: &[Coordinator], nodes: &[NodeDetail]) -> Vec<Finding> {
    let Some(leading) = coordinators.iter().find(|coordinator| coordinator.leads) else {
        return Vec::new();
    };
    let version = leading.version.as_str();
    let mut findings = Vec::new();
    for other in coordinators {
        if compare(&other.version, version) != Ordering::Equal {
            findings.push(Finding::warning(
                Check::Versions,
                &other.name,
                format!("it runs {}, and the one that leads {version}", other.version),
                "give all coordinators the same package",
            ));
        }
    }
    if compare(own, version) != Ordering::Equal {
        findings.push(Finding::warning(
            Check::Versions,
            "blackstart",
            format!("this command is {own}, the coordinator {version}"),
            "give this machine the same package",
        ));
    }
    let mut agents: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let Some(agent) = node.node.agent_version.as_deref() else {
            continue;
        };
        match compare(agent, version) {
            Ordering::Equal => {}
            order @ (Ordering::Less | Ordering::Greater) => agents
                .entry((order == Ordering::Greater, agent))
                .or_default()
                .push(&node.node.name),
        }
    }
    for ((newer, agent), names) in agents {
        let what = format!(
            "{} with agent {agent}, the coordinator is {version}",
            count(names.len(), "node")
        );
        let fix = if newer {
            "update the coordinator: it goes before its agents"
        } else {
            "update blackstart-agent there; no kubelet is touched by it"
        };
        findings.push(Finding::warning(Check::Versions, &few(&names), what, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Check::Versions, format!("all are {version}")));
    }
    findings
}

/// The first few of many names.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn certificates(given: &[NodeCertificate], now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for certificate in given.iter().filter(|certificate| certificate.revoked.is_none()) {
        let (Some(issued), Some(ends)) = (certificate.issued_at, certificate.ends_at) else {
            continue;
        };
        let life = ends.as_second() - issued.as_second();
        let left = ends.as_second() - now.as_second();
        let day = ends.strftime("%Y-%m-%d");
        if left < 0 {
            findings.push(Finding::wrong(
                Check::Certificates,
                &certificate.node,
                format!("its certificate has ended on {day}"),
                "its agent renews it when it comes back in time; after that: blackstart node allow-renewal NAME --reason TEXT",
            ));
        } else if left < life / 4 {
            // Renewal begins at half of it.
            findings.push(Finding::warning(
                Check::Certificates,
                &certificate.node,
                format!("its certificate ends on {day} and is not renewed"),
                "on the node: journalctl -u blackstart-agent says why",
            ));
        }
    }
    if findings.is_empty() && !given.is_empty() {
        let what = format!("those of {} are valid", count(given.len(), "node"));
        findings.push(Finding::ok(Check::Certificates, what));
    }
    findings
}

fn presence(nodes: &[NodeDetail]) -> Vec<Finding> {
    if nodes.is_empty() {
        return vec![Finding::wrong(
            Check::Nodes,
            "",
            "the inventory declares no node",
            "write the fleet into the coordinator's inventory.yaml, and restart it",
        )];
    }
    let mut findings = Vec::new();
    for node in nodes {
        let name = node.node.name.as_str();
        let found = match node.node.phase {
            NodePhase::Ready => continue,
            NodePhase::Unknown => Finding::wrong(
                Check::Nodes,
                name,
                "it has never been heard of",
                format!(
                    "blackstart token create --node {name}, and type what it tells on the node; if it has joined: systemctl status \
                     blackstart-agent there"
                ),
            ),
            NodePhase::Silent => Finding::wrong(
                Check::Nodes,
                name,
                "nothing is heard of it any more",
                "is the machine up, and does it reach the coordinator's port? On it: systemctl status blackstart-agent",
            ),
            NodePhase::Stopped => Finding::warning(
                Check::Nodes,
                name,
                "its agent was stopped",
                "on the node: systemctl start blackstart-agent",
            ),
            NodePhase::Held => Finding::warning(
                Check::Nodes,
                name,
                format!(
                    "its kubelet waits at the gate: {}",
                    node.node.waiting_on.as_deref().unwrap_or("for its turn")
                ),
                "blackstart coldstart watch",
            ),
            NodePhase::NotReady => Finding::warning(
                Check::Nodes,
                name,
                "its kubelet is not healthy",
                format!("blackstart describe node {name}"),
            ),
        };
        findings.push(found);
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Nodes,
            format!("{} ready", count(nodes.len(), "node")),
        ));
    }
    findings
}

fn gates(nodes: &[NodeDetail]) -> Vec<Finding> {
    let in_session = nodes
        .iter()
        .filter_map(|node| Some((node, node.attestation.as_ref()?)));
    let mut findings = Vec::new();
    let mut good = 0;
    for (node, attestation) in in_session {
        let name = node.node.name.as_str();
        match attestation.gate {
            GateState::Held | GateState::Released | GateState::Passed => good += 1,
            GateState::Unknown => {}
            GateState::Absent => findings.push(Finding::wrong(
                Check::Gates,
                name,
                "no gate has run since it was started: after a power loss its kubelet would not wait for its turn",
                "on the node: systemctl enable --now blackstart-gate; and systemctl show kubelet -p Wants has to name it",
            )),
            GateState::DeadMan => findings.push(Finding::warning(
                Check::Gates,
                name,
                "after the last power loss its gate opened by itself: nobody spoke to it in time",
                "was the coordinator up and reachable by then? It has to come up without the clusters",
            )),
        }
    }
    if findings.is_empty() && good > 0 {
        findings.push(Finding::ok(
            Check::Gates,
            format!("in place on {}", count(good, "node")),
        ));
    }
    findings
}

fn conditions(nodes: &[NodeDetail]) -> Vec<Finding> {
    let standing = nodes.iter().flat_map(|node| &node.standing_conditions);
    let findings: Vec<_> = standing
        .filter_map(|condition| {
            let what = format!("{} {}: {}", condition.kind, condition.subject, condition.evidence);
            let fix = format!(
                "on the node: blackstart-agent explain {} says what it means and what you do",
                condition.kind
            );
            match condition.severity {
                Severity::Critical => Some(Finding::wrong(Check::Conditions, &condition.node, what, fix)),
                Severity::Warning => Some(Finding::warning(Check::Conditions, &condition.node, what, fix)),
                Severity::Info | Severity::Unknown => None,
            }
        })
        .collect();
    if findings.is_empty() && nodes.iter().any(|node| node.attestation.is_some()) {
        return vec![Finding::ok(
            Check::Conditions,
            "agents find nothing wrong with disks, clocks, certificates and units",
        )];
    }
    findings
}

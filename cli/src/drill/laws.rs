//! Did the laws hold? Judged from the [`History`]: the machines' own records and the agents' ledgers; the coordinator's word
//! counts only for what it said of residue and of waits. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{ClusterHistory, History, NodeHistory};
use super::topology::Role;

/// What a drill checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Law {
    OrderWorkers,
    OrderTiers,
    Once,
    Epochs,
    Running,
    Residue,
    NamedWaits,
}

impl Law {
    pub(crate) const ALL: [Self; 7] = [
        Self::OrderWorkers,
        Self::OrderTiers,
        Self::Once,
        Self::Epochs,
        Self::Running,
        Self::Residue,
        Self::NamedWaits,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OrderWorkers => "order-workers",
            Self::OrderTiers => "order-tiers",
            Self::Once => "once",
            Self::Epochs => "epochs",
            Self::Running => "running",
            Self::Residue => "residue",
            Self::NamedWaits => "named-waits",
        }
    }

    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::OrderWorkers => {
                "no worker's kubelet started before a quorum of its cluster's masters was healthy"
            }
            Self::OrderTiers => "no cluster was begun before each one that it depends on served",
            Self::Once => "no release was done twice on a node in one boot",
            Self::Epochs => "no agent obeyed a lower epoch after a higher one",
            Self::Running => "every machine that came back runs a healthy kubelet",
            Self::Residue => "exactly the machines that never came back are residue, and they held nobody",
            Self::NamedWaits => "every step that waited said what for",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One law, and how it was broken: not at all, if there are no violations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) law: Law,
    pub(crate) violations: Vec<String>,
}

/// Judges every law.
pub(crate) fn judge(history: &History) -> Vec<Verdict> {
    Law::ALL
        .into_iter()
        .map(|law| Verdict {
            law,
            violations: match law {
                Law::OrderWorkers => order_workers(history),
                Law::OrderTiers => order_tiers(history),
                Law::Once => once(history),
                Law::Epochs => epochs(history),
                Law::Running => running(history),
                Law::Residue => residue(history),
                Law::NamedWaits => named_waits(history),
            },
        })
        .collect()
}

impl History {
    pub(crate) fn cluster(&self, name: &str) -> Option<&ClusterHistory> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }

    pub(crate) fn nodes_of(&self, cluster: &str, role: Role) -> impl Iterator<Item = &NodeHistory> {
        self.nodes
            .iter()
            .filter(move |node| node.cluster == cluster && node.role == role)
    }

    fn healthy(&self, cluster: &str, role: Role, at_ms: u64) -> usize {
        self.nodes_of(cluster, role)
            .filter(|node| node.healthy_at(at_ms))
            .count()
    }

    /// When a quorum of the cluster's API servers was ready.
    pub(crate) fn control_plane_ms(&self, cluster: &ClusterHistory) -> Option<u64> {
        let ready = self.nodes_of(&cluster.name, Role::Master);
        nth(
            ready.filter_map(|node| node.api_ready_ms).collect(),
            cluster.quorum,
        )
    }

    /// When the cluster could be depended on.
    pub(crate) fn serving_ms(&self, cluster: &ClusterHistory) -> Option<u64> {
        let ready = self.nodes_of(&cluster.name, Role::Worker);
        let workers = nth(ready.filter_map(NodeHistory::ready_ms).collect(), cluster.serving)?;
        Some(workers.max(self.control_plane_ms(cluster)?))
    }
}

/// The `count`th of the times, in order; nothing has to be waited for if none is needed.
pub(crate) fn nth(mut times: Vec<u64>, count: usize) -> Option<u64> {
    times.sort_unstable();
    match count.checked_sub(1) {
        Some(index) => times.get(index).copied(),
        None => Some(0),
    }
}

fn order_workers(history: &History) -> Vec<String> {
    let workers = history.nodes.iter().filter(|node| node.role == Role::Worker);
    let mut violations = Vec::new();
    for worker in workers {
        let (Some(cluster), Some(at)) = (history.cluster(&worker.cluster), worker.started_ms()) else {
            continue;
        };
        let have = history.healthy(&worker.cluster, Role::Master, at);
        if have < cluster.quorum {
            violations.push(format!(
                "{}'s kubelet started at {at} ms ({}), when {have} of the {} masters of {} that it takes were healthy",
                worker.name,
                gate(worker),
                cluster.quorum,
                cluster.name
            ));
        }
    }
    violations
}

fn gate(node: &NodeHistory) -> String {
    match &node.gate {
        Some((_, why)) => format!("gate: {why}"),
        None => "its gate held".to_owned(),
    }
}

fn order_tiers(history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    for node in &history.nodes {
        let (Some(cluster), Some(at)) = (history.cluster(&node.cluster), node.started_ms()) else {
            continue;
        };
        for before in cluster.after.iter().filter_map(|name| history.cluster(name)) {
            let masters = history
                .nodes_of(&before.name, Role::Master)
                .filter(|master| master.api_ready_at(at))
                .count();
            let workers = history.healthy(&before.name, Role::Worker, at);
            if masters < before.quorum || workers < before.serving {
                violations.push(format!(
                    "{}'s kubelet started at {at} ms ({}), when {} had {masters} of {} API servers and {workers} of {} workers that it takes",
                    node.name,
                    gate(node),
                    before.name,
                    before.quorum,
                    before.serving
                ));
            }
        }
    }
    violations
}

const RELEASE: &str = "release-kubelet";

fn once(history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    for node in &history.nodes {
        let mut releases: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for entry in &node.ledger {
            if entry.remedy == RELEASE && entry.succeeded {
                releases.entry(&entry.boot).or_default().push(entry.sequence);
            }
        }
        let twice = releases.into_iter().filter(|(_, sequences)| sequences.len() > 1);
        violations.extend(twice.map(|(boot, sequences)| {
            let sequences: Vec<_> = sequences.iter().map(ToString::to_string).collect();
            format!(
                "{} was released {} times in boot {boot} (ledger numbers {})",
                node.name,
                sequences.len(),
                sequences.join(", ")
            )
        }));
    }
    violations
}

fn epochs(history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    for node in &history.nodes {
        for pair in node.ledger.windows(2) {
            let [before, after] = pair else { continue };
            if after.epoch < before.epoch {
                violations.push(format!(
                    "{} wrote number {} under epoch {} after number {} under epoch {}",
                    node.name, after.sequence, after.epoch, before.sequence, before.epoch
                ));
            }
        }
    }
    violations
}

fn running(history: &History) -> Vec<String> {
    let back = history.nodes.iter().filter(|node| node.powered_ms.is_some());
    let mut violations = Vec::new();
    for node in back {
        if let Some(why) = &node.agent_failed {
            violations.push(format!("{}'s agent ended by itself: {why}", node.name));
        }
        if !node.healthy_at_end {
            let what = match (&node.gate, node.kubelets.last()) {
                (None, None) => "its gate still holds it".to_owned(),
                (Some((at, why)), None) => {
                    format!("its gate opened at {at} ms ({why}) and no kubelet started")
                }
                (_, Some(kubelet)) => match (kubelet.healthy_ms, kubelet.stopped_ms) {
                    (_, Some(at)) => format!("its kubelet stopped at {at} ms"),
                    (None, None) => "its kubelet never became healthy".to_owned(),
                    (Some(_), None) => "its kubelet does not answer any more".to_owned(),
                },
            };
            violations.push(format!(
                "{} came back and runs no healthy kubelet: {what}",
                node.name
            ));
        }
    }
    violations
}

/// A look at a run comes a little later than what it shows.
const LOOK_MS: u64 = 300;

fn residue(history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    let is_residue = |name: &str| {
        history
            .runs
            .iter()
            .any(|run| run.residue.iter().any(|r| r == name))
    };
    for node in &history.nodes {
        match (node.powered_ms, is_residue(&node.name)) {
            (None, false) => violations.push(format!("{} never came back and is not residue", node.name)),
            (Some(at), true) => violations.push(format!("{} came back at {at} ms and is residue", node.name)),
            (None, true) | (Some(_), false) => {}
        }
    }
    let given_up = history.runs.iter().flat_map(|run| &run.steps);
    for step in given_up.filter(|step| step.is_residue) {
        let (Some(lost), Some(at)) = (&step.node, step.ended_ms) else {
            continue;
        };
        let held = history
            .nodes
            .iter()
            .filter(|node| was_held_until(history, node, at));
        violations.extend(held.map(|node| {
            format!(
                "{} could have been started and waited until {lost} was given up at {at} ms",
                node.name
            )
        }));
    }
    violations
}

/// The node started once something was given up, and before that its cluster had been idle for most of the time that it took
/// to give it up, although the node was at hand.
fn was_held_until(history: &History, node: &NodeHistory, given_up_ms: u64) -> bool {
    let (Some(started), Some(could)) = (node.started_ms(), could_start_ms(history, node)) else {
        return false;
    };
    let busy_until = history
        .nodes
        .iter()
        .filter(|other| other.cluster == node.cluster)
        .flat_map(|other| other.kubelets.iter())
        .flat_map(|kubelet| [Some(kubelet.started_ms), kubelet.healthy_ms])
        .flatten()
        .filter(|&at| at + LOOK_MS < given_up_ms)
        .max()
        .unwrap_or(0);
    let down_until = history.crash_ms.map_or(0, |(_, back)| back);
    let idle_since = could.max(busy_until).max(down_until);
    started + LOOK_MS >= given_up_ms && given_up_ms.saturating_sub(idle_since) >= history.patience_ms / 2
}

/// From when on the order of things allowed this node's kubelet.
pub(crate) fn could_start_ms(history: &History, node: &NodeHistory) -> Option<u64> {
    let cluster = history.cluster(&node.cluster)?;
    let booted_ms = node.booted_ms.or(node.powered_ms)?;
    let mut from = booted_ms.max(history.coordinator_on_ms);
    for before in cluster.after.iter().filter_map(|name| history.cluster(name)) {
        from = from.max(history.serving_ms(before)?);
    }
    if node.role == Role::Worker {
        from = from.max(history.control_plane_ms(cluster)?);
    }
    Some(match history.crash_ms {
        Some((at, back)) if (at..back).contains(&from) => back,
        Some(_) | None => from,
    })
}

fn named_waits(history: &History) -> Vec<String> {
    let unnamed = history
        .runs
        .iter()
        .flat_map(|run| run.unnamed.iter().map(move |wait| (run, wait)));
    unnamed
        .map(|(run, wait)| {
            format!(
                "{} of {} waited at {} ms without saying what for",
                wait.step, run.id, wait.at_ms
            )
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;

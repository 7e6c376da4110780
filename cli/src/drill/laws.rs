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
pub(crate) mod tests {
    use super::super::history::{Entry, Kubelet, RunHistory, StepHistory, UnnamedWait};
    use super::*;

    fn node(name: &str, cluster: &str, role: Role, from: u64) -> NodeHistory {
        let api_ready_ms = (role == Role::Master).then_some(from + 1_000);
        NodeHistory {
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            role,
            powered_ms: Some(500),
            booted_ms: Some(500),
            gate: Some((from, "released".to_owned())),
            kubelets: vec![Kubelet {
                started_ms: from,
                healthy_ms: Some(from + 500),
                stopped_ms: None,
            }],
            api_ready_ms,
            healthy_at_end: true,
            ledger: vec![
                entry(1, "restart-unit", "boot-0", 1),
                entry(2, RELEASE, "boot-1", 2),
            ],
            agent_failed: None,
        }
    }

    fn entry(sequence: u64, remedy: &str, boot: &str, epoch: u64) -> Entry {
        Entry {
            sequence,
            remedy: remedy.to_owned(),
            command: None,
            boot: boot.to_owned(),
            epoch,
            succeeded: true,
        }
    }

    /// Two clusters of three masters and two workers each; the last worker of the second never comes back.
    pub(crate) fn lawful() -> History {
        let cluster = |name: &str, after: &[&str]| ClusterHistory {
            name: name.to_owned(),
            after: after.iter().map(|&name| name.to_owned()).collect(),
            quorum: 2,
            serving: 1,
        };
        let mut nodes = Vec::new();
        for (cluster, from) in [("a", 1_000), ("b", 4_000)] {
            for index in 1..=5 {
                let (role, from) = if index <= 3 {
                    (Role::Master, from)
                } else {
                    (Role::Worker, from + 1_200)
                };
                nodes.push(node(&format!("{cluster}-{index}"), cluster, role, from));
            }
        }
        let lost = nodes.last_mut().unwrap();
        lost.powered_ms = None;
        lost.booted_ms = None;
        lost.gate = None;
        lost.kubelets.clear();
        lost.healthy_at_end = false;
        let given_up = StepHistory {
            id: "release/b-5".to_owned(),
            node: Some("b-5".to_owned()),
            state: "Residue".to_owned(),
            said: "never came back".to_owned(),
            is_residue: true,
            ended_ms: Some(12_000),
        };
        History {
            clusters: vec![cluster("a", &[]), cluster("b", &["a"])],
            nodes,
            runs: vec![RunHistory {
                id: "cold-start-1".to_owned(),
                succeeded: true,
                aborted: false,
                state: "Succeeded".to_owned(),
                started_ms: 900,
                took_ms: 11_200,
                residue: vec!["b-5".to_owned()],
                steps: vec![given_up],
                waiting_on: Vec::new(),
                unnamed: Vec::new(),
            }],
            coordinator_on_ms: 800,
            crash_ms: None,
            patience_ms: 8_000,
            ended_ms: 12_500,
        }
    }

    fn broken(history: &History) -> Vec<(Law, Vec<String>)> {
        let verdicts = judge(history).into_iter();
        verdicts
            .filter(|verdict| !verdict.violations.is_empty())
            .map(|verdict| (verdict.law, verdict.violations))
            .collect()
    }

    fn change(name: &str, change: impl FnOnce(&mut NodeHistory)) -> History {
        let mut history = lawful();
        change(history.nodes.iter_mut().find(|node| node.name == name).unwrap());
        history
    }

    /// Exactly this law is broken, once, and the violation says each of `words`.
    fn only(history: &History, law: Law, words: &[&str]) {
        let found = broken(history);
        let [(broken, violations)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((*broken, violations.len()), (law, 1), "{violations:?}");
        for word in words {
            assert!(violations[0].contains(word), "{word}: {}", violations[0]);
        }
    }

    fn start_at(node: &mut NodeHistory, at: u64) {
        node.kubelets[0].started_ms = at;
    }

    #[test]
    fn a_lawful_history_breaks_nothing() {
        assert_eq!(broken(&lawful()), []);
    }

    #[test]
    fn a_worker_before_its_masters_is_found() {
        let history = change("a-4", |node| start_at(node, 1_400));
        only(&history, Law::OrderWorkers, &["a-4", "1400 ms", "0 of the 2"]);
    }

    #[test]
    fn masters_that_had_stopped_again_do_not_count() {
        let mut history = lawful();
        for name in ["b-1", "b-2"] {
            let node = history.nodes.iter_mut().find(|node| node.name == name).unwrap();
            node.kubelets[0].stopped_ms = Some(5_000);
            let again = Kubelet {
                started_ms: 8_000,
                healthy_ms: Some(8_500),
                stopped_ms: None,
            };
            node.kubelets.push(again);
        }
        only(&history, Law::OrderWorkers, &["b-4", "1 of the 2"]);
    }

    #[test]
    fn a_cluster_before_the_one_it_depends_on_is_found() {
        let history = change("b-2", |node| start_at(node, 2_100));
        only(
            &history,
            Law::OrderTiers,
            &["b-2", "a had 3 of 2", "0 of 1 workers"],
        );
    }

    #[test]
    fn a_release_done_twice_in_one_boot_is_found() {
        let history = change("b-3", |node| node.ledger.push(entry(3, RELEASE, "boot-1", 2)));
        only(&history, Law::Once, &["b-3", "2 times", "boot-1", "2, 3"]);
        // In another boot it is another release, and one that failed is none.
        let history = change("b-3", |node| {
            node.ledger.push(entry(3, RELEASE, "boot-2", 2));
            node.ledger.push(Entry {
                succeeded: false,
                ..entry(4, RELEASE, "boot-2", 2)
            });
        });
        assert_eq!(broken(&history), []);
    }

    #[test]
    fn a_lower_epoch_after_a_higher_one_is_found() {
        let history = change("a-1", |node| {
            node.ledger.push(entry(3, "restart-unit", "boot-1", 1));
        });
        only(
            &history,
            Law::Epochs,
            &["a-1", "epoch 1 after number 2 under epoch 2"],
        );
    }

    #[test]
    fn a_machine_that_came_back_and_does_not_run_is_found() {
        let history = change("a-5", |node| {
            node.kubelets[0].stopped_ms = Some(9_000);
            node.healthy_at_end = false;
        });
        only(&history, Law::Running, &["a-5", "stopped at 9000 ms"]);
        let history = change("a-5", |node| {
            node.agent_failed = Some("ledger damaged".to_owned());
        });
        only(&history, Law::Running, &["a-5", "ledger damaged"]);
    }

    #[test]
    fn a_lost_machine_that_is_not_residue_is_found() {
        let mut history = lawful();
        history.runs[0].residue.clear();
        only(&history, Law::Residue, &["b-5", "is not residue"]);
    }

    #[test]
    fn a_machine_that_is_back_and_residue_is_found() {
        let mut history = lawful();
        history.runs[0].residue.push("a-2".to_owned());
        only(&history, Law::Residue, &["a-2", "came back at 500 ms"]);
    }

    #[test]
    fn residue_that_held_somebody_is_found() {
        let history = change("b-4", |node| {
            node.kubelets[0].started_ms = 12_010;
            node.kubelets[0].healthy_ms = Some(12_300);
        });
        only(
            &history,
            Law::Residue,
            &["b-4", "until b-5 was given up at 12000 ms"],
        );
    }

    #[test]
    fn a_wave_that_happens_to_start_when_residue_is_given_up_was_not_held() {
        let mut history = change("b-4", |node| {
            node.kubelets[0].started_ms = 12_010;
            node.kubelets[0].healthy_ms = Some(12_300);
        });
        // The wave before it had just become healthy.
        let other = history.nodes.iter_mut().find(|node| node.name == "b-3").unwrap();
        other.kubelets[0].healthy_ms = Some(11_500);
        assert_eq!(broken(&history), []);
    }

    #[test]
    fn a_wait_without_a_name_is_found() {
        let mut history = lawful();
        history.runs[0].unnamed.push(UnnamedWait {
            step: "gate/a/control-plane".to_owned(),
            at_ms: 1_700,
        });
        only(&history, Law::NamedWaits, &["gate/a/control-plane", "1700 ms"]);
    }
}

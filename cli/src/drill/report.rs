//! What a drill came to: as JSON (`--report`, `-o json`; stable, documented in docs/cli.md) and as lines for people.
//!
//! Times are milliseconds after the cut.

use std::path::PathBuf;

use serde::Serialize;

use super::history::{ClusterHistory, History, NodeHistory};
use super::laws::{Law, Verdict, could_start_ms, judge, nth};
use super::topology::Role;
use crate::output::table::{Cell, Line, Table, Tint};
use crate::output::words::{count, took};

/// So many of the slowest nodes are told.
const SLOWEST: usize = 3;

/// A drill's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Which drill.
    pub(crate) drill: &'static str,
    /// On which ground.
    pub(crate) on: &'static str,
    /// Repeats the scenario.
    pub(crate) seed: u64,
    /// Every law held, and every run succeeded.
    pub(crate) passed: bool,
    pub(crate) laws: Vec<LawReport>,
    pub(crate) runs: Vec<RunReport>,
    pub(crate) clusters: Vec<ClusterReport>,
    pub(crate) nodes: Vec<NodeReport>,
    /// From the first machine's power to the last kubelet's health; `null`: a machine that came back is not healthy.
    pub(crate) makespan_ms: Option<u64>,
    /// What machines alone take in the lawful order, if nobody had lost a moment over them: no order of releases that
    /// keeps the laws is faster.
    pub(crate) critical_path_ms: Option<u64>,
    pub(crate) timeline: Vec<Moment>,
    /// Where everything that the drill wrote was left, if that was asked for.
    pub(crate) kept: Option<PathBuf>,
    /// Options that repeat the drill.
    #[serde(skip)]
    pub(crate) again: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LawReport {
    pub(crate) law: &'static str,
    pub(crate) says: &'static str,
    pub(crate) violations: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RunReport {
    pub(crate) id: String,
    pub(crate) state: String,
    /// It was ended for a wider one that came after it.
    pub(crate) overtaken: bool,
    pub(crate) started_ms: u64,
    pub(crate) took_ms: u64,
    pub(crate) residue: Vec<String>,
    pub(crate) waiting_on: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ClusterReport {
    pub(crate) cluster: String,
    pub(crate) nodes: usize,
    pub(crate) residue: usize,
    /// A quorum of its API servers was ready.
    pub(crate) control_plane_ms: Option<u64>,
    /// It could be depended on.
    pub(crate) serving_ms: Option<u64>,
    /// The last of its machines that came back was ready.
    pub(crate) ready_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeReport {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) role: &'static str,
    pub(crate) powered_ms: Option<u64>,
    /// Its boot gate let the kubelet go.
    pub(crate) released_ms: Option<u64>,
    /// Its kubelet was healthy.
    pub(crate) ready_ms: Option<u64>,
    pub(crate) residue: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Moment {
    pub(crate) at_ms: u64,
    pub(crate) node: Option<String>,
    pub(crate) what: String,
}

impl Report {
    /// Judges what happened.
    pub(crate) fn of(drill: &'static str, on: &'static str, seed: u64, history: &History) -> Self {
        let verdicts = judge(history);
        let lawful = verdicts.iter().all(|verdict| verdict.violations.is_empty());
        let succeeded = history.runs.last().is_some_and(|run| run.succeeded)
            && history
                .runs
                .iter()
                .all(|run| run.succeeded || overtaken(history, &run.id));
        let is_residue = |node: &NodeHistory| history.runs.iter().any(|run| run.residue.contains(&node.name));
        let node = |node: &NodeHistory| NodeReport {
            node: node.name.clone(),
            cluster: node.cluster.clone(),
            role: node.role.word(),
            powered_ms: node.powered_ms,
            released_ms: node.gate.as_ref().map(|(at, _)| *at),
            ready_ms: node.ready_ms(),
            residue: is_residue(node),
        };
        let run = |run: &super::history::RunHistory| RunReport {
            id: run.id.clone(),
            state: run.state.clone(),
            overtaken: overtaken(history, &run.id),
            started_ms: run.started_ms,
            took_ms: run.took_ms,
            residue: run.residue.clone(),
            waiting_on: run.waiting_on.clone(),
        };
        let nodes: Vec<_> = history.nodes.iter().map(node).collect();
        Self {
            drill,
            on,
            seed,
            passed: lawful && succeeded,
            laws: verdicts.into_iter().map(law).collect(),
            runs: history.runs.iter().map(run).collect(),
            clusters: history
                .clusters
                .iter()
                .map(|cluster| summary(history, cluster, &nodes))
                .collect(),
            makespan_ms: makespan(history),
            critical_path_ms: critical_path(history),
            timeline: timeline(history),
            nodes,
            kept: None,
            again: format!("--seed {seed}"),
        }
    }

    /// Why it did not pass, in a line; `None` if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.passed {
            return None;
        }
        let broken = self.laws.iter().filter(|law| !law.violations.is_empty());
        let broken: Vec<_> = broken.map(|law| law.law).collect();
        let mut why = Vec::new();
        if !broken.is_empty() {
            why.push(format!("broken: {}", broken.join(", ")));
        }
        if self.runs.is_empty() {
            why.push("no cold start was begun".to_owned());
        }
        let unfinished = self
            .runs
            .iter()
            .filter(|run| run.state != "Succeeded" && !run.overtaken);
        why.extend(unfinished.map(|run| {
            let waits = if run.waiting_on.is_empty() {
                String::new()
            } else {
                format!(", waiting for {}", run.waiting_on.join("; "))
            };
            format!("{} is {}{waits}", run.id, run.state)
        }));
        Some(format!("the drill did not pass: {}", why.join("; ")))
    }

    /// For people; `marks`: ✓ and ✗ instead of words.
    pub(crate) fn lines(&self, marks: bool) -> Vec<Line> {
        let mut lines = self.cluster_table().lines();
        lines.push(Line::default());
        lines.extend(self.slowest());
        for run in &self.runs {
            let text = format!("{} {} after {}", run.id, run.state, took(run.took_ms));
            lines.push(Line::new(text));
        }
        if let (Some(makespan), Some(least)) = (self.makespan_ms, self.critical_path_ms) {
            lines.push(Line::new(format!(
                "all back {} after the first machine had power; the machines alone take {}",
                took(makespan),
                took(least)
            )));
        }
        lines.push(Line::default());
        lines.extend(law_lines(&self.laws, marks));
        lines.push(Line::default());
        let again = format!("blackstart drill {} {}", self.drill, self.again);
        lines.push(verdict_line(self.passed, self.seed, &again));
        if let Some(kept) = &self.kept {
            lines.push(Line::new(format!("kept in {}", kept.display())));
        }
        lines
    }

    fn cluster_table(&self) -> Table {
        let mut table = Table::new(["CLUSTER", "NODES", "RESIDUE", "API READY", "SERVING", "ALL READY"]);
        let at = |ms: Option<u64>| ms.map_or_else(|| Cell::new("-"), |ms| Cell::new(took(ms)));
        for cluster in &self.clusters {
            let residue = match cluster.residue {
                0 => Cell::new("-"),
                some => Cell::tinted(some.to_string(), Tint::Warning),
            };
            table.row(vec![
                cluster.cluster.as_str().into(),
                cluster.nodes.to_string().into(),
                residue,
                at(cluster.control_plane_ms),
                at(cluster.serving_ms),
                at(cluster.ready_ms),
            ]);
        }
        table
    }

    fn slowest(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut ready: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| Some((node.ready_ms?, node.powered_ms?, node.released_ms?, node)))
            .collect();
        ready.sort_by_key(|(ready, ..)| std::cmp::Reverse(*ready));
        if !ready.is_empty() {
            let slowest = ready
                .iter()
                .take(SLOWEST)
                .map(|(ready, powered, released, node)| {
                    format!(
                        "{} {} (power {}, released {})",
                        node.node,
                        took(*ready),
                        took(*powered),
                        took(*released)
                    )
                });
            let slowest: Vec<_> = slowest.collect();
            lines.push(Line::new(format!("last: {}", slowest.join(", "))));
        }
        let residue = self.nodes.iter().filter(|node| node.residue);
        let residue: Vec<_> = residue.map(|node| node.node.as_str()).collect();
        if !residue.is_empty() {
            lines.push(Line::tinted(
                format!(
                    "{} never came back: {}",
                    count(residue.len(), "machine"),
                    residue.join(", ")
                ),
                Tint::Warning,
            ));
        }
        lines
    }
}

/// A line a law, with how it was broken; `marks`: ✓ and ✗ instead of words.
pub(crate) fn law_lines(laws: &[LawReport], marks: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let width = laws.iter().map(|law| law.law.len()).max().unwrap_or_default() + 2;
    for law in laws {
        let (mark, tint) = match (law.violations.is_empty(), marks) {
            (true, true) => ("✓", Tint::Good),
            (true, false) => ("held  ", Tint::Good),
            (false, true) => ("✗", Tint::Bad),
            (false, false) => ("BROKEN", Tint::Bad),
        };
        lines.push(
            Line::default()
                .and(mark, tint)
                .and(format!(" {:<width$}", law.law), Tint::Bold)
                .and(law.says, Tint::Plain),
        );
        let told = law.violations.iter();
        lines.extend(told.map(|violation| Line::tinted(violation, Tint::Bad).indented(4)));
    }
    lines
}

/// Whether it passed, and how it is held again.
pub(crate) fn verdict_line(passed: bool, seed: u64, again: &str) -> Line {
    let (word, tint) = if passed {
        ("passed", Tint::Good)
    } else {
        ("FAILED", Tint::Bad)
    };
    Line::tinted(word, tint).and(format!(" (seed {seed}; again: {again})"), Tint::Plain)
}

fn overtaken(history: &History, run: &str) -> bool {
    let is_last = history.runs.last().is_some_and(|last| last.id == run);
    let mut runs = history.runs.iter();
    !is_last && runs.any(|known| known.id == run && known.aborted)
}

fn law(verdict: Verdict) -> LawReport {
    let Verdict { law, violations } = verdict;
    LawReport {
        law: Law::name(law),
        says: Law::sentence(law),
        violations,
    }
}

fn summary(history: &History, cluster: &ClusterHistory, nodes: &[NodeReport]) -> ClusterReport {
    let own = || nodes.iter().filter(|node| node.cluster == cluster.name);
    ClusterReport {
        cluster: cluster.name.clone(),
        nodes: own().count(),
        residue: own().filter(|node| node.residue).count(),
        control_plane_ms: history.control_plane_ms(cluster),
        serving_ms: history.serving_ms(cluster),
        ready_ms: own().filter_map(|node| node.ready_ms).max(),
    }
}

fn first_power(history: &History) -> Option<u64> {
    history.nodes.iter().filter_map(|node| node.powered_ms).min()
}

fn makespan(history: &History) -> Option<u64> {
    let back = history.nodes.iter().filter(|node| node.powered_ms.is_some());
    let ready: Option<Vec<_>> = back.map(NodeHistory::ready_ms).collect();
    Some(ready?.into_iter().max()?.saturating_sub(first_power(history)?))
}

/// The earliest that everything could have been healthy: each kubelet started the moment that power, coordinator and order
/// allowed it, with the durations that the machines themselves had.
fn critical_path(history: &History) -> Option<u64> {
    let mut best = history.clone();
    // Each cluster comes after those it depends on: what comes before is already at its best.
    for cluster in &history.clusters {
        for role in [Role::Master, Role::Worker] {
            let own: Vec<_> = (0..best.nodes.len())
                .filter(|&index| best.nodes[index].cluster == cluster.name && best.nodes[index].role == role)
                .collect();
            for &index in &own {
                let could = could_start_ms(&best, &best.nodes[index]);
                let node = &mut best.nodes[index];
                let Some(kubelet) = node.kubelets.first_mut() else {
                    continue;
                };
                let takes = kubelet.healthy_ms?.saturating_sub(kubelet.started_ms);
                kubelet.started_ms = could?;
                kubelet.healthy_ms = Some(could? + takes);
            }
            if role == Role::Master {
                let quorum = |nodes: &[NodeHistory]| {
                    nth(
                        own.iter().filter_map(|&index| nodes[index].ready_ms()).collect(),
                        cluster.quorum,
                    )
                };
                let (was, is) = (quorum(&history.nodes)?, quorum(&best.nodes)?);
                for &index in &own {
                    let Some(healthy) = history.nodes[index].ready_ms() else {
                        continue;
                    };
                    let Some(api) = history.nodes[index].api_ready_ms else {
                        continue;
                    };
                    let takes = api.saturating_sub(healthy.max(was));
                    let from = best.nodes[index].ready_ms()?.max(is);
                    best.nodes[index].api_ready_ms = Some(from + takes);
                }
            }
        }
    }
    makespan(&best)
}

fn timeline(history: &History) -> Vec<Moment> {
    let mut moments = vec![
        Moment {
            at_ms: 0,
            node: None,
            what: "power cut".to_owned(),
        },
        Moment {
            at_ms: history.coordinator_on_ms,
            node: None,
            what: "coordinator started".to_owned(),
        },
    ];
    for (at_ms, what) in history
        .crash_ms
        .iter()
        .flat_map(|&(at, back)| [(at, "coordinator killed"), (back, "coordinator started again")])
    {
        moments.push(Moment {
            at_ms,
            node: None,
            what: what.to_owned(),
        });
    }
    for node in &history.nodes {
        let mut say = |at_ms: Option<u64>, what: String| {
            moments.extend(at_ms.map(|at_ms| Moment {
                at_ms,
                node: Some(node.name.clone()),
                what,
            }));
        };
        say(node.powered_ms, "power back".to_owned());
        if let Some((at, why)) = &node.gate {
            say(Some(*at), format!("gate opened: {why}"));
        }
        for kubelet in &node.kubelets {
            say(Some(kubelet.started_ms), "kubelet started".to_owned());
            say(kubelet.healthy_ms, "kubelet healthy".to_owned());
            say(kubelet.stopped_ms, "kubelet stopped".to_owned());
        }
        say(node.api_ready_ms, "API server ready".to_owned());
    }
    for run in &history.runs {
        let mut say = |at_ms, node: &Option<String>, what: String| {
            moments.push(Moment {
                at_ms,
                node: node.clone(),
                what,
            });
        };
        say(run.started_ms, &None, format!("{} began", run.id));
        for step in &run.steps {
            if let Some(at) = step.ended_ms {
                let said = if step.said.is_empty() {
                    String::new()
                } else {
                    format!(": {}", step.said)
                };
                say(at, &step.node, format!("{} {}{said}", step.id, step.state));
            }
        }
        if run.succeeded {
            let at = run.started_ms + run.took_ms;
            say(at, &None, format!("{} {}", run.id, run.state));
        }
    }
    moments.sort_by_key(|moment| moment.at_ms);
    moments
}

#[cfg(test)]
mod tests;

//! A plan as a tree: clusters in order, and in each its steps in order.

use std::collections::{BTreeSet, HashMap};

use super::table::{Line, Tint};
use super::words::{count, limit, took};
use crate::view::{Plan, PlanStep};

/// Steps that are done side by side and differ only in their node.
struct Group<'a> {
    steps: Vec<&'a PlanStep>,
}

impl<'a> Group<'a> {
    fn first(&self) -> &'a PlanStep {
        self.steps[0]
    }

    fn takes(&self, step: &PlanStep) -> bool {
        let first = self.first();
        step.node.is_some()
            && first.node.is_some()
            && step.kind == first.kind
            && step.component == first.component
            && others(step).eq(others(first))
            && step.deadline_ms == first.deadline_ms
    }
}

/// What a step comes after, but for what is done to its own node before.
fn others(step: &PlanStep) -> impl Iterator<Item = &String> {
    let own = |id: &str| {
        let of = id.strip_prefix("hold/").and_then(|rest| rest.split_once('/'));
        of.is_some_and(|(node, _)| Some(node) == step.node.as_deref())
    };
    step.after.iter().filter(move |id| !own(id))
}

/// The tree for people. `each` shows every step on its own line instead of nodes side by side.
pub(crate) fn lines(plan: &Plan, each: bool) -> Vec<Line> {
    let clusters = by_cluster(plan);
    let nodes: BTreeSet<_> = plan.steps.iter().filter_map(|step| step.node.as_ref()).collect();
    let title = format!(
        "{}: {} in {}, {}",
        plan.runbook,
        count(nodes.len(), "node"),
        count(clusters.len(), "cluster"),
        count(plan.steps.len(), "step"),
    );
    let mut lines = vec![Line::tinted(title, Tint::Bold)];
    for (cluster, steps) in &clusters {
        lines.push(Line::default());
        lines.push(Line::tinted(cluster, Tint::Bold));
        let groups = groups(steps, each);
        for (index, group) in groups.iter().enumerate() {
            let last = index + 1 == groups.len();
            lines.extend(group_lines(group, last, each));
        }
    }
    if let Some(estimated) = plan.estimated_ms {
        lines.push(Line::default());
        lines.push(Line::tinted("Estimate", Tint::Bold).and(
            format!("  {} if nothing goes wrong; what makes it so:", took(estimated)),
            Tint::Plain,
        ));
        lines.extend(
            critical_path(plan)
                .into_iter()
                .map(|link| Line::new(format!("- {link}"))),
        );
    }
    if !plan.notes.is_empty() {
        lines.push(Line::default());
        lines.push(Line::tinted("Notes", Tint::Bold));
        lines.extend(plan.notes.iter().map(|note| Line::new(format!("- {note}"))));
    }
    lines
}

/// The steps of the critical path; nodes of one cluster that wait for each other by their number.
fn critical_path(plan: &Plan) -> Vec<String> {
    let steps: HashMap<&str, &PlanStep> = plan.steps.iter().map(|step| (step.id.as_str(), step)).collect();
    // What changes a node is one link with its neighbours of the same cluster.
    let kind = |id: &str| {
        let step = steps.get(id).filter(|step| step.node.is_some())?;
        Some((step.kind.as_str(), step.cluster.as_deref()))
    };
    let same = |one: &String, other: &String| kind(one).is_some() && kind(one) == kind(other);
    plan.critical_path
        .chunk_by(same)
        .map(|link| match link {
            [first, _, .., last] => format!("{first} … {last}: {} one after another", link.len()),
            few => few.join(", then "),
        })
        .collect()
}

/// Clusters in the order in which the plan first names them.
fn by_cluster(plan: &Plan) -> Vec<(&str, Vec<&PlanStep>)> {
    let mut clusters: Vec<(&str, Vec<&PlanStep>)> = Vec::new();
    for step in &plan.steps {
        let name = step.cluster.as_deref().unwrap_or("fleet");
        match clusters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, steps)) => steps.push(step),
            None => clusters.push((name, vec![step])),
        }
    }
    clusters
}

fn groups<'a>(steps: &[&'a PlanStep], each: bool) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for step in steps {
        match groups.last_mut() {
            Some(group) if !each && group.takes(step) => group.steps.push(step),
            _ => groups.push(Group { steps: vec![step] }),
        }
    }
    groups
}

fn group_lines(group: &Group<'_>, last: bool, each: bool) -> Vec<Line> {
    let (branch, beside) = if last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    };
    let first = group.first();
    let what = match &group.steps[..] {
        [one] if one.node.is_none() => one.description.clone(),
        steps => steps
            .iter()
            .filter_map(|step| step.node.as_deref())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let what = match first.component {
        _ if what.is_empty() => first.id.clone(),
        Some(component) => format!("{component} of {what}"),
        None => what,
    };
    let mut line = Line::tinted(branch, Tint::Dim)
        .and(" ", Tint::Plain)
        .and(format!("{:<18}", first.kind), Tint::Plain)
        .and(format!("  {what}"), Tint::Plain);
    if let Some(deadline) = first.deadline_ms {
        line = line.and(format!("  within {}", limit(deadline)), Tint::Dim);
    }
    let mut lines = vec![line];
    let own_first = !each
        && group
            .steps
            .iter()
            .any(|step| others(step).count() < step.after.len());
    let mut after: Vec<&str> = if each {
        first.after.iter().map(String::as_str).collect()
    } else {
        others(first).map(String::as_str).collect()
    };
    if own_first {
        after.push("what is set aside of it");
    }
    if !after.is_empty() {
        let after = match &after[..] {
            // A cluster is verified after all its releases: nobody reads sixty names.
            [some @ .., _, _] if !each && some.len() > 2 => {
                format!("{} and {} more", some[0], after.len() - 1)
            }
            few => few.join(", "),
        };
        lines.push(Line::tinted(
            format!("{beside}{:<18}  after {after}", ""),
            Tint::Dim,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::table::plain;
    use super::*;

    fn step(id: &str, kind: &str, cluster: &str, node: Option<&str>, after: &[&str]) -> PlanStep {
        PlanStep {
            id: id.into(),
            kind: kind.into(),
            cluster: Some(cluster.into()),
            node: node.map(str::to_owned),
            component: None,
            after: after.iter().map(|&id| id.to_owned()).collect(),
            description: format!("the {kind} of {cluster}"),
            deadline_ms: (kind != "verify-cluster").then_some(600_000),
        }
    }

    fn plan() -> Plan {
        let mgmt_gate = ["gate/management/control-plane"];
        Plan {
            runbook: "cold-start".into(),
            steps: vec![
                step("release/m-1", "release-kubelet", "management", Some("m-1"), &[]),
                step("release/m-2", "release-kubelet", "management", Some("m-2"), &[]),
                step(
                    "gate/management/control-plane",
                    "control-plane-gate",
                    "management",
                    None,
                    &[],
                ),
                step(
                    "release/w-1",
                    "release-kubelet",
                    "management",
                    Some("w-1"),
                    &mgmt_gate,
                ),
                step(
                    "release/w-1b",
                    "release-kubelet",
                    "management",
                    Some("w-1b"),
                    &mgmt_gate,
                ),
                step(
                    "release/w-1c",
                    "release-kubelet",
                    "management",
                    Some("w-1c"),
                    &mgmt_gate,
                ),
                step(
                    "gate/management/serving",
                    "serving-gate",
                    "management",
                    None,
                    &mgmt_gate,
                ),
                step(
                    "release/b-1",
                    "release-kubelet",
                    "business",
                    Some("b-1"),
                    &["gate/management/serving"],
                ),
                step(
                    "verify/business",
                    "verify-cluster",
                    "business",
                    None,
                    &["release/b-1"],
                ),
            ],
            notes: vec!["b-1 is the only control plane of business".into()],
            estimated_ms: Some(222_000),
            critical_path: [
                "release/m-1",
                "gate/management/control-plane",
                "release/w-1",
                "release/w-1b",
                "release/w-1c",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }

    #[test]
    fn the_tree_shows_order_gates_deadlines_and_notes() {
        assert_eq!(
            plain(&lines(&plan(), false)),
            "\
cold-start: 6 nodes in 2 clusters, 9 steps

management
├─ release-kubelet     m-1, m-2  within 10m
├─ control-plane-gate  the control-plane-gate of management  within 10m
├─ release-kubelet     w-1, w-1b, w-1c  within 10m
│                      after gate/management/control-plane
└─ serving-gate        the serving-gate of management  within 10m
                       after gate/management/control-plane

business
├─ release-kubelet     b-1  within 10m
│                      after gate/management/serving
└─ verify-cluster      the verify-cluster of business
                       after release/b-1

Estimate  3m42s if nothing goes wrong; what makes it so:
- release/m-1
- gate/management/control-plane
- release/w-1 … release/w-1c: 3 one after another

Notes
- b-1 is the only control plane of business
"
        );
    }

    #[test]
    fn wide_shows_every_step() {
        let text = plain(&lines(&plan(), true));
        assert!(
            text.contains("release-kubelet     m-1  within 10m\n├─ release-kubelet     m-2  within"),
            "{text}"
        );
    }
}

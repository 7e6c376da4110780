//! `workloads`: those of the platform that are to be whole, and how each may be mended.

use blackstart_proto::yaml::{Item, Table};

use crate::inventory::ClusterName;
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::runbooks::declared::Declared;
use crate::runbooks::workload_heal::STEP;

/// Those whose pods are made by numbers or by replica sets; daemon sets belong to nodes.
const KINDS: [(&str, WorkloadKind); 2] = [
    ("deployment", WorkloadKind::Deployment),
    ("statefulset", WorkloadKind::StatefulSet),
];

pub(super) fn read(top: &mut Table, to: &mut Vec<Declared>) {
    for item in top.list("workloads").unwrap_or_default() {
        let Some(mut table) = item.table() else { continue };
        let name = table.required("name");
        let cluster = table.required("cluster").and_then(|item| item.string());
        let namespace = table.required("namespace").and_then(|item| item.string());
        let kind = table.required("kind").and_then(|item| item.choice(&KINDS));
        let object = table.string("object");
        let mut needs = Vec::new();
        for need in table.list("needs").unwrap_or_default() {
            let Some(text) = need.string() else { continue };
            match text.split_once('/') {
                Some((namespace, service)) if !namespace.is_empty() && !service.is_empty() => {
                    needs.push((namespace.to_owned(), service.to_owned()));
                }
                Some(_) | None => need.problem("expected a service, NAMESPACE/NAME"),
            }
        }
        let add_memory = table.size("add_memory").unwrap_or(STEP);
        let changes_by_itself = table
            .item("changes")
            .and_then(|item| item.choice(&[("ask", false), ("auto", true)]));
        let line = name.as_ref().and_then(|item: &Item| {
            let name = item.string()?;
            let is_twice = to.iter().any(|known| known.name == name);
            if is_twice {
                item.problem(format!("workload {name} stands here twice"));
            }
            (!is_twice).then_some(name)
        });
        if let (Some(name), Some(cluster), Some(namespace), Some(kind)) = (line, cluster, namespace, kind) {
            to.push(Declared {
                object: object.unwrap_or_else(|| name.clone()),
                name,
                cluster: ClusterName(cluster),
                namespace,
                kind,
                needs,
                add_memory,
                changes_by_itself: changes_by_itself.unwrap_or_default(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/coordinator.yaml");

    #[test]
    fn the_shipped_example_is_a_valid_one() {
        let start = SHIPPED.find("# workloads:").unwrap();
        let block: Vec<_> = SHIPPED[start..]
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .collect();
        let workloads = parse("f", &block.join("\n")).unwrap().workloads;
        assert_eq!(workloads.len(), 11);
        let gateway = &workloads[0];
        assert_eq!(
            gateway.needs,
            [("skiff-nsf".to_owned(), "nsf-registry".to_owned())]
        );
        // What it shows is what others have by default.
        let server = &workloads[1];
        assert_eq!(
            (server.add_memory, server.changes_by_itself),
            (gateway.add_memory, gateway.changes_by_itself)
        );
        assert_eq!(server.object, "nsf-server");
        assert_eq!(
            workloads
                .iter()
                .filter(|one| one.kind == WorkloadKind::StatefulSet)
                .count(),
            6
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let text = "\
workloads:
  - {name: a, cluster: c, namespace: n, kind: daemonset}
  - {name: b, cluster: c, namespace: n, kind: deployment, needs: [db]}
  - {name: b, cluster: c, namespace: n, kind: deployment, changes: never}
  - {name: c, namespace: n, kind: deployment}
";
        let problems = parse("f", text).unwrap_err();
        let lines: Vec<_> = problems.list.iter().map(|problem| problem.line).collect();
        for line in 2..=5 {
            assert!(lines.contains(&line), "{problems}");
        }
    }
}

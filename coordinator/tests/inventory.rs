//! What the linter says of whole files: of the one that is shipped, of a drill plan, and of every defect there is.

#![allow(clippy::unwrap_used, reason = "a test")]

use blackstart_coordinator::inventory::{ClusterName, NodeSpec, load, parse};

const SHIPPED: &str = include_str!("../../deploy/inventory.yaml");
const AS_WRITTEN: &str = include_str!("data/drill-plan-as-written.yaml");

fn problems(text: &str) -> Vec<String> {
    let problems = parse("f", text).unwrap_err();
    problems
        .list
        .iter()
        .map(|problem| format!("{} {}: {}", problem.line, problem.field, problem.message))
        .collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = parse("f", text).unwrap();
    loaded
        .warnings
        .iter()
        .map(|problem| format!("{} {}: {}", problem.line, problem.field, problem.message))
        .collect()
}

fn names<'a>(nodes: impl Iterator<Item = &'a NodeSpec>) -> Vec<String> {
    nodes.map(|node| node.name.to_string()).collect()
}

#[test]
fn the_shipped_fleet_is_that_of_the_drill_plan_without_a_finding() {
    let loaded = parse("deploy/inventory.yaml", SHIPPED).unwrap();
    assert_eq!(loaded.warnings, []);
    let fleet = loaded.inventory;
    assert_eq!(fleet.nodes.len(), 18);
    let clusters = ["management", "business", "paas"].map(|name| ClusterName(name.to_owned()));
    for (cluster, nodes) in clusters.iter().zip([5, 7, 6]) {
        assert_eq!(fleet.members(cluster).count(), nodes, "{cluster}");
        assert_eq!(fleet.masters(cluster).count(), 3, "{cluster}");
    }
    assert!(fleet.depends_on(&clusters[1], &clusters[0]) && fleet.depends_on(&clusters[2], &clusters[0]));
    assert_eq!(names(fleet.masters(&clusters[1])), ["biz-1", "biz-2", "biz-3"]);
}

#[test]
fn each_defect_of_the_drill_plan_is_named_with_its_line() {
    assert_eq!(
        problems(AS_WRITTEN),
        [
            "29 clusters[2].nodes[3].address: 10.128.38.4 is also in line 9, in cluster management: one machine cannot be two nodes",
            "35 power_loss_order: forgets cluster management",
            "36 power_loss_order[1]: names cluster business a second time (first in line 35)",
        ]
    );
}

#[test]
fn every_error_is_told_at_once() {
    let text = "\
clusters:
  - name: alpha
    after: [beta, betta, alpha]
    nodes:
      - {address: 10.0.0.1, role: control-plane}
      - {address: 10.0.0.1}
      - {name: 10.0.0.1, address: 10.0.0.2}
      - {address: node.lan}
      - {address: 0.0.0.0}
      - {address: \"fe80::1\"}
      - {address: 10.0.0.3, role: master}
  - name: beta
    after: [gamma, gamma]
    nodes: []
  - name: gamma
    after: [alpha]
    nodes:
      - {address: 10.0.0.4}
  - name: alpha
    nodes: [{address: 10.0.0.5, role: control-plane}]
power_loss_order: [beta, alpha, delta]
";
    let expected = [
        (
            3,
            "clusters[0].after[1]",
            "there is no cluster betta; did you mean beta?",
        ),
        (3, "clusters[0].after[2]", "cannot come after itself"),
        (
            6,
            "clusters[0].nodes[1].address",
            "also in line 5, in cluster alpha",
        ),
        (7, "clusters[0].nodes[2].name", "also in line 5, in cluster alpha"),
        (8, "clusters[0].nodes[3].address", "DNS may be down"),
        (9, "clusters[0].nodes[4].address", "no machine's address"),
        (10, "clusters[0].nodes[5].name", "the address cannot stand for it"),
        (
            11,
            "clusters[0].nodes[6].role",
            "\"control-plane\", \"worker\", \"etcd\", found \"master\"",
        ),
        (12, "clusters[1].name", "cluster beta has no node"),
        (13, "clusters[1].after[1]", "stands here twice"),
        (15, "clusters[2].name", "cluster gamma has no control plane"),
        (
            16,
            "clusters[2].after[0]",
            "wait for each other for ever: alpha after beta after gamma after alpha",
        ),
        (19, "clusters[3].name", "cluster alpha is also in line 2"),
        (21, "power_loss_order", "forgets cluster gamma"),
        (21, "power_loss_order[2]", "there is no cluster delta"),
    ];
    let problems = parse("f", text).unwrap_err().list;
    for (line, field, message) in expected {
        let found = problems.iter().any(|problem| {
            problem.line == line && problem.field == field && problem.message.contains(message)
        });
        assert!(found, "{line} {field} {message} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn an_order_that_contradicts_the_dependencies_is_an_error() {
    let text = SHIPPED.replace(
        "power_loss_order: [management, business, paas]",
        "power_loss_order: [business, management, paas]",
    );
    let told = problems(&text);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].ends_with(
            "power_loss_order[0]: cluster business stands before management, which it comes after"
        ),
        "{told:?}"
    );
}

#[test]
fn what_is_suspicious_is_a_warning() {
    let text = "\
clusters:
  - name: even
    nodes:
      - {address: 10.0.0.1, role: control-plane, rack: r1}
      - {address: 10.0.0.2, role: control-plane, rack: r1}
  - name: external
    nodes:
      - {address: 10.0.1.1, role: control-plane, rack: r1}
      - {address: 10.0.1.2, role: control-plane}
      - {address: 10.0.1.3, role: etcd}
      - {address: 10.0.1.4, role: etcd}
      - {address: 10.0.1.5, role: etcd}
  - name: last
    after: [external]
    nodes: [{address: 10.0.2.1, role: control-plane, rack: r1}]
";
    let told = warnings(text);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told.iter()
            .all(|warning| warning.starts_with("2 clusters[0].name: ")),
        "{told:#?}"
    );
    for part in ["has 2 control planes", "stand in rack r1", "nobody orders it"] {
        assert!(
            told.iter().any(|warning| warning.contains(part)),
            "{part} in {told:#?}"
        );
    }
}

#[test]
fn clusters_stand_after_those_they_depend_on_and_masters_first() {
    let text = "\
clusters:
  - name: last
    after: [first]
    nodes:
      - {name: w, address: 10.0.0.1}
      - {name: m, address: 10.0.0.2, role: control-plane}
      - {name: e, address: 10.0.0.3, role: etcd}
  - name: first
    nodes: [{address: 10.0.1.1, role: control-plane}]
";
    let fleet = parse("f", text).unwrap().inventory;
    let order: Vec<_> = fleet
        .clusters
        .iter()
        .map(|cluster| cluster.name.to_string())
        .collect();
    assert_eq!(order, ["first", "last"]);
    assert_eq!(
        names(fleet.members(&ClusterName("last".to_owned()))),
        ["m", "e", "w"]
    );
}

#[test]
fn a_file_that_declares_nothing_is_an_error() {
    assert_eq!(problems(""), ["1 clusters: is missing"]);
    assert_eq!(problems("clusters: []\n"), ["1 clusters: names no cluster"]);
    let error = load("/nowhere/inventory.yaml".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "read inventory /nowhere/inventory.yaml");
}

/// Whoever writes it would have the coordinator hang, run out of memory, or say what it did not read.
#[test]
fn a_hostile_inventory_is_refused_at_once_and_forges_no_line_of_what_is_said() {
    let bomb: String = (1..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        text + &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    });
    let node = |name: &str| {
        format!(
            "clusters:\n- name: biz\n  nodes:\n  - {{name: \"{name}\", address: 10.0.0.1, role: control-plane}}\n"
        )
    };
    let mut hostile = vec![
        bomb + "clusters: *a39\n",
        format!("clusters: {}", "[".repeat(200_000)),
        format!("clusters: {}", "{a: ".repeat(200_000)),
        "x".repeat(5 << 20),
        format!("clusters: &a [{}*a]", "*a, ".repeat(10_000)),
    ];
    hostile.extend(
        [
            "../../etc",
            "a\\nf:1:1: error: forged",
            "a\\e[31m",
            "a\\0b",
            "/etc/passwd",
            "",
        ]
        .map(node),
    );
    for text in hostile {
        let begun = std::time::SystemTime::now();
        let problems = parse("f", &text).unwrap_err();
        let start = &text[..text.len().min(120)];
        // It takes milliseconds; a debug build on a busy machine is another matter.
        assert!(begun.elapsed().unwrap().as_secs() < 20, "{start:?}");
        let told = problems.to_string();
        assert!(told.len() < 1 << 20, "{start:?}: {} bytes", told.len());
        assert_eq!(told.lines().count(), problems.list.len(), "{start:?}: {told}");
        assert!(
            !told.contains(|c: char| c.is_control() && c != '\n'),
            "{start:?}: {told:?}"
        );
    }
}

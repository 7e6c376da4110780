//! Whole plans as a person would read them, the linter against plans that were tampered with, and random fleets.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use tokio::time::Instant;

use super::lint::{Finding, lint};
use super::*;
use crate::fleet::view::{FleetView, NodeView, Phase};
use crate::inventory::{Cluster, Inventory, NodeSpec, Role};
use crate::policy::ColdStartPolicy;

/// (cluster, after, masters, workers, external etcd members)
type Shape<'a> = (&'a str, &'a [&'a str], usize, usize, usize);

fn fleet(shapes: &[Shape<'_>]) -> Inventory {
    let mut inventory = Inventory {
        clusters: Vec::new(),
        nodes: BTreeMap::new(),
    };
    let mut address = 0x0a00_0000_u32;
    for (name, after, masters, workers, etcd) in shapes {
        let cluster = name_of(name);
        let mut nodes = Vec::new();
        for (role, letter, count) in [
            (Role::ControlPlane, "m", *masters),
            (Role::Etcd, "e", *etcd),
            (Role::Worker, "w", *workers),
        ] {
            for index in 1..=count {
                address += 1;
                let node = NodeName(format!("{name}-{letter}{index}"));
                nodes.push(node.clone());
                inventory.nodes.insert(
                    node.clone(),
                    NodeSpec {
                        name: node,
                        cluster: cluster.clone(),
                        role,
                        address: std::net::Ipv4Addr::from(address).into(),
                        rack: None,
                        machine_id: None,
                        bmc: None,
                    },
                );
            }
        }
        inventory.clusters.push(Cluster {
            name: cluster,
            vip: None,
            after: after.iter().map(|name| name_of(name)).collect(),
            nodes,
        });
    }
    inventory
}

fn name_of(cluster: &str) -> ClusterName {
    ClusterName(cluster.to_owned())
}

fn dark(inventory: &Inventory) -> FleetView {
    let at = Instant::now();
    FleetView {
        at,
        nodes: inventory
            .nodes
            .keys()
            .map(|node| {
                let mut view = NodeView::unknown(at);
                view.phase = Phase::Held;
                (node.clone(), view)
            })
            .collect(),
        own_unclean_boot: true,
        began_at: at,
    }
}

fn cold(inventory: &Inventory, clusters: &[&str]) -> Plan {
    let clusters: Vec<_> = clusters.iter().map(|name| name_of(name)).collect();
    cold_start::plan(
        inventory,
        &dark(inventory),
        &ColdStartPolicy::default(),
        &clusters,
    )
}

fn drawn(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let after: Vec<_> = step.after.iter().map(ToString::to_string).collect();
        let what = match &step.kind {
            StepKind::ControlPlaneGate { quorum, masters, .. } => format!(" {quorum}/{}", masters.len()),
            StepKind::ServingGate { quorum, workers, .. } => format!(" {quorum}/{}", workers.len()),
            StepKind::ReleaseKubelet { .. } => step
                .lane
                .as_ref()
                .map_or(String::new(), |lane| format!(" [{lane}]")),
            StepKind::KubeletsGate { nodes, share, .. } => format!(" {share} % of {}", nodes.len()),
            StepKind::HoldManifest { .. }
            | StepKind::ReleaseManifest { .. }
            | StepKind::VerifyCluster { .. } => String::new(),
        };
        writeln!(text, "{}{what} <- {}", step.id, after.join(" ")).unwrap();
    }
    text
}

#[test]
fn two_clusters_as_a_whole() {
    let inventory = fleet(&[("mgmt", &[], 3, 1, 0), ("biz", &["mgmt"], 1, 3, 1)]);
    assert_eq!(
        drawn(&cold(&inventory, &[])),
        "\
hold/mgmt-m1/kube-controller-manager <- \n\
hold/mgmt-m2/kube-controller-manager <- \n\
hold/mgmt-m3/kube-controller-manager <- \n\
hold/mgmt-m1/kube-scheduler <- \n\
hold/mgmt-m2/kube-scheduler <- \n\
hold/mgmt-m3/kube-scheduler <- \n\
release/mgmt-m1 <- hold/mgmt-m1/kube-controller-manager hold/mgmt-m1/kube-scheduler\n\
release/mgmt-m2 <- hold/mgmt-m2/kube-controller-manager hold/mgmt-m2/kube-scheduler\n\
release/mgmt-m3 <- hold/mgmt-m3/kube-controller-manager hold/mgmt-m3/kube-scheduler\n\
gate/mgmt/control-plane 2/3 <- \n\
release/mgmt-w1 [workers/mgmt] <- gate/mgmt/control-plane\n\
gate/mgmt/serving 1/1 <- gate/mgmt/control-plane\n\
gate/mgmt/kubelets 80 % of 4 <- gate/mgmt/control-plane\n\
put-back/mgmt-m1/kube-controller-manager <- gate/mgmt/kubelets\n\
put-back/mgmt-m2/kube-controller-manager <- gate/mgmt/kubelets\n\
put-back/mgmt-m3/kube-controller-manager <- gate/mgmt/kubelets\n\
put-back/mgmt-m1/kube-scheduler <- gate/mgmt/kubelets\n\
put-back/mgmt-m2/kube-scheduler <- gate/mgmt/kubelets\n\
put-back/mgmt-m3/kube-scheduler <- gate/mgmt/kubelets\n\
verify/mgmt <- gate/mgmt/serving release/mgmt-m1 release/mgmt-m2 release/mgmt-m3 release/mgmt-w1 put-back/mgmt-m1/kube-controller-manager put-back/mgmt-m2/kube-controller-manager put-back/mgmt-m3/kube-controller-manager put-back/mgmt-m1/kube-scheduler put-back/mgmt-m2/kube-scheduler put-back/mgmt-m3/kube-scheduler\n\
release/biz-e1 <- gate/mgmt/serving\n\
hold/biz-m1/kube-controller-manager <- gate/mgmt/serving\n\
hold/biz-m1/kube-scheduler <- gate/mgmt/serving\n\
release/biz-m1 <- gate/mgmt/serving hold/biz-m1/kube-controller-manager hold/biz-m1/kube-scheduler\n\
gate/biz/control-plane 1/1 <- gate/mgmt/serving\n\
release/biz-w1 [workers/biz] <- gate/biz/control-plane\n\
release/biz-w2 [workers/biz] <- gate/biz/control-plane\n\
release/biz-w3 [workers/biz] <- gate/biz/control-plane\n\
gate/biz/serving 2/3 <- gate/biz/control-plane\n\
gate/biz/kubelets 80 % of 4 <- gate/biz/control-plane\n\
put-back/biz-m1/kube-controller-manager <- gate/biz/kubelets\n\
put-back/biz-m1/kube-scheduler <- gate/biz/kubelets\n\
verify/biz <- gate/biz/serving release/biz-e1 release/biz-m1 release/biz-w1 release/biz-w2 release/biz-w3 put-back/biz-m1/kube-controller-manager put-back/biz-m1/kube-scheduler\n"
    );
}

#[test]
fn a_cluster_without_workers_serves_by_its_control_plane() {
    let inventory = fleet(&[("mgmt", &[], 3, 0, 0), ("biz", &["mgmt"], 1, 1, 0)]);
    let plan = cold(&inventory, &[]);
    assert!(drawn(&plan).contains("gate/mgmt/serving 0/0 <- gate/mgmt/control-plane\n"));
    assert!(
        plan.lanes
            .iter()
            .all(|lane| lane.id == LaneId::workers(&name_of("biz")))
    );
    assert_eq!(lint(&plan, &inventory), []);
}

#[test]
fn a_dependency_that_is_not_started_still_has_to_serve() {
    let inventory = fleet(&[("mgmt", &[], 1, 2, 0), ("biz", &["mgmt"], 1, 1, 0)]);
    let plan = cold(&inventory, &["biz", "no-such"]);
    assert_eq!(
        drawn(&plan),
        "\
gate/mgmt/control-plane 1/1 <- \n\
gate/mgmt/serving 1/2 <- gate/mgmt/control-plane\n\
hold/biz-m1/kube-controller-manager <- gate/mgmt/serving\n\
hold/biz-m1/kube-scheduler <- gate/mgmt/serving\n\
release/biz-m1 <- gate/mgmt/serving hold/biz-m1/kube-controller-manager hold/biz-m1/kube-scheduler\n\
gate/biz/control-plane 1/1 <- gate/mgmt/serving\n\
release/biz-w1 [workers/biz] <- gate/biz/control-plane\n\
gate/biz/serving 1/1 <- gate/biz/control-plane\n\
gate/biz/kubelets 80 % of 2 <- gate/biz/control-plane\n\
put-back/biz-m1/kube-controller-manager <- gate/biz/kubelets\n\
put-back/biz-m1/kube-scheduler <- gate/biz/kubelets\n\
verify/biz <- gate/biz/serving release/biz-m1 release/biz-w1 put-back/biz-m1/kube-controller-manager put-back/biz-m1/kube-scheduler\n"
    );
    assert_eq!(lint(&plan, &inventory), []);
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("no-such is not in the inventory"))
    );
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("biz waits until mgmt serves"))
    );
}

#[test]
fn notes_name_what_a_person_should_know() {
    let inventory = fleet(&[("mgmt", &[], 1, 12, 0)]);
    let mut view = dark(&inventory);
    for (name, node) in &mut view.nodes {
        node.phase = match name.0.as_str() {
            "mgmt-m1" => Phase::Ready,
            "mgmt-w1" => Phase::Silent,
            _ => Phase::Unknown,
        };
    }
    let plan = cold_start::plan(&inventory, &view, &ColdStartPolicy::default(), &[]);
    assert_eq!(
        plan.notes,
        [
            "order: mgmt (masters: 1, workers: 12)",
            "never heard of: residue unless they come: 11 (mgmt-w2, mgmt-w3, mgmt-w4, mgmt-w5, mgmt-w6, mgmt-w7, mgmt-w8, mgmt-w9 \
             and 3 more)",
            "down now: 1 (mgmt-w1)",
            "ready already: nothing is done to them: 1 (mgmt-m1)",
        ]
    );
}

#[test]
fn a_lone_node_waits_for_what_it_joins() {
    let inventory = fleet(&[("mgmt", &[], 3, 2, 0), ("biz", &["mgmt"], 1, 1, 1)]);
    let policy = ColdStartPolicy::default();
    let rejoin = |node: &str| rejoin::plan(&inventory, &policy, &NodeName(node.to_owned()));
    assert_eq!(
        drawn(&rejoin("biz-w1").unwrap()),
        "gate/biz/control-plane 1/1 <- \nrelease/biz-w1 [workers/biz] <- gate/biz/control-plane\n"
    );
    for node in ["biz-m1", "biz-e1"] {
        assert_eq!(
            drawn(&rejoin(node).unwrap()),
            format!(
                "gate/mgmt/control-plane 2/3 <- \ngate/mgmt/serving 1/2 <- gate/mgmt/control-plane\n\
                 release/{node} <- gate/mgmt/serving\n"
            )
        );
    }
    assert_eq!(drawn(&rejoin("mgmt-m2").unwrap()), "release/mgmt-m2 <- \n");
    assert_eq!(rejoin("stranger"), None);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn the_linter_finds_what_was_tampered_with() {
    let inventory = fleet(&[("mgmt", &[], 3, 2, 0), ("biz", &["mgmt"], 1, 2, 0)]);
    let id = |text: &str| StepId(text.to_owned());
    let tampered = |with: &dyn Fn(&mut Plan)| {
        let mut plan = cold(&inventory, &[]);
        with(&mut plan);
        lint(&plan, &inventory)
    };
    let step = |plan: &mut Plan, name: &str| plan.steps.iter().position(|step| step.id.0 == name).unwrap();
    assert_eq!(tampered(&|_| {}), []);
    assert_eq!(tampered(&|plan| plan.steps.clear()), [Finding::Empty]);
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "release/biz-w1");
            plan.steps[at].after = vec![id("gate/mgmt/serving")];
        }),
        [Finding::NotBehindControlPlane {
            step: id("release/biz-w1"),
            cluster: name_of("biz")
        }]
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "release/biz-m1");
            plan.steps[at].after = vec![id("gate/mgmt/control-plane")];
        }),
        [Finding::NotBehindDependency {
            step: id("release/biz-m1"),
            dependency: name_of("mgmt")
        }]
    );
    // The workers' way to their dependency goes through their control plane's gate.
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "gate/biz/control-plane");
            plan.steps[at].after.clear();
        })
        .len(),
        4,
        "two workers, and what is put back of the master"
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "gate/mgmt/control-plane");
            plan.steps[at].after = vec![id("gate/mgmt/serving")];
        })
        .len(),
        1,
        "a cycle is one finding"
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "release/mgmt-m1");
            plan.steps[at].after = vec![id("nowhere")];
        }),
        [Finding::UnknownStep {
            step: id("release/mgmt-m1"),
            after: id("nowhere")
        }]
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "release/mgmt-w1");
            plan.steps[at].lane = None;
        }),
        [Finding::NoLane(id("release/mgmt-w1"))]
    );
    assert_eq!(
        tampered(&|plan| plan.lanes.retain(|lane| lane.id.0 != "workers/biz")),
        ["release/biz-w1", "release/biz-w2"].map(|step| Finding::UnknownLane {
            step: id(step),
            lane: LaneId::workers(&name_of("biz"))
        })
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "gate/mgmt/control-plane");
            plan.steps[at].on_failure = OnFailure::Residue;
        }),
        [Finding::LeakyGate(id("gate/mgmt/control-plane"))]
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "gate/mgmt/control-plane");
            if let StepKind::ControlPlaneGate { quorum, .. } = &mut plan.steps[at].kind {
                *quorum = 1;
            }
        }),
        [Finding::Quorum {
            step: id("gate/mgmt/control-plane"),
            why: "1 of 3 is no majority".to_owned()
        }]
    );
    assert_eq!(
        tampered(&|plan| plan
            .steps
            .retain(|step| !step.id.0.starts_with("put-back/biz-m1/kube-sch"))),
        [
            Finding::UnknownStep {
                step: id("verify/biz"),
                after: id("put-back/biz-m1/kube-scheduler")
            },
            Finding::NeverPutBack(id("hold/biz-m1/kube-scheduler")),
        ]
    );
    assert_eq!(
        tampered(&|plan| {
            let at = step(plan, "put-back/biz-m1/kube-scheduler");
            plan.steps[at].after = vec![id("gate/biz/control-plane")];
        }),
        [Finding::NotBehindKubelets(id("put-back/biz-m1/kube-scheduler"))]
    );
    assert!(
        tampered(&|plan| {
            let at = step(plan, "release/biz-w1");
            plan.steps[at].after.push(id("gate/biz/kubelets"));
        })
        .contains(&Finding::WaitsForKubelets(id("release/biz-w1"))),
        "a worker that needs its controller manager would wait for ever"
    );
    let twice = tampered(&|plan| {
        let at = step(plan, "release/mgmt-m1");
        let mut again = plan.steps[at].clone();
        again.id = id("again");
        plan.steps.push(again);
    });
    assert_eq!(twice, [Finding::ReleasedTwice(NodeName("mgmt-m1".to_owned()))]);
    assert!(
        lint(&cold(&inventory, &[]), &fleet(&[("mgmt", &[], 3, 2, 0)])).contains(&Finding::UnknownCluster {
            step: id("verify/biz"),
            cluster: name_of("biz")
        })
    );
}

#[test]
fn a_plan_survives_its_journal() {
    let plan = cold(
        &fleet(&[("mgmt", &[], 3, 2, 0), ("biz", &["mgmt"], 1, 2, 0)]),
        &[],
    );
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn six_thousand_nodes_are_planned_and_free_of_findings() {
    let inventory = fleet(&[
        ("a", &[], 3, 1997, 0),
        ("b", &["a"], 3, 1997, 0),
        ("c", &["b"], 3, 1997, 0),
    ]);
    let plan = cold(&inventory, &[]);
    assert_eq!(plan.releases().count(), 6000);
    assert_eq!(lint(&plan, &inventory), []);
}

fn random_fleet() -> impl Strategy<Value = Inventory> {
    let cluster = (1_usize..6, 0_usize..12, 0_usize..4, any::<u16>());
    prop::collection::vec(cluster, 1..8).prop_map(|clusters| {
        let names: Vec<_> = (0..clusters.len()).map(|at| format!("c{at}")).collect();
        let after: Vec<Vec<&str>> = clusters
            .iter()
            .enumerate()
            .map(|(at, (.., bits))| {
                let before = names[..at].iter().enumerate();
                before
                    .filter(|(bit, _)| bits >> bit & 1 == 1)
                    .map(|(_, name)| name.as_str())
                    .collect()
            })
            .collect();
        let shapes: Vec<Shape<'_>> = clusters
            .iter()
            .enumerate()
            .map(|(at, (masters, workers, etcd, _))| {
                (
                    names[at].as_str(),
                    after[at].as_slice(),
                    *masters,
                    *workers,
                    *etcd,
                )
            })
            .collect();
        fleet(&shapes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_fleet_has_a_plan_without_findings(inventory in random_fleet(), chosen in any::<u16>(), percent in 0_u32..=100) {
        let policy = ColdStartPolicy { serving_percent: percent, ..ColdStartPolicy::default() };
        let clusters: Vec<_> = inventory.clusters.iter().enumerate()
            .filter(|(at, _)| chosen >> at & 1 == 1)
            .map(|(_, cluster)| cluster.name.clone())
            .collect();
        let plan = cold_start::plan(&inventory, &dark(&inventory), &policy, &clusters);
        prop_assert_eq!(lint(&plan, &inventory), []);
        let wanted = inventory.nodes.values().filter(|node| clusters.is_empty() || clusters.contains(&node.cluster)).count();
        prop_assert_eq!(plan.releases().count(), wanted);
        // The steps are listed in an order in which each comes after those it depends on.
        let mut seen = std::collections::HashSet::new();
        for step in &plan.steps {
            prop_assert!(step.after.iter().all(|before| seen.contains(before)), "{} comes too early", step.id);
            seen.insert(&step.id);
        }
        for node in inventory.nodes.keys() {
            let plan = rejoin::plan(&inventory, &policy, node).unwrap();
            prop_assert_eq!(lint(&plan, &inventory), []);
        }
    }
}

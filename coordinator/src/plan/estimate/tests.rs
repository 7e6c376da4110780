use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;
use crate::fleet::view::NodeView;
use crate::inventory::{Cluster, ClusterName, Inventory, NodeSpec, Role};
use crate::plan::cold_start;
use crate::policy::ColdStartPolicy;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// (cluster, after, masters, workers); every node stands in `phase`.
fn fleet(shapes: &[(&str, &[&str], usize, usize)], phase: Phase) -> (Inventory, FleetView) {
    let (mut clusters, mut nodes) = (Vec::new(), BTreeMap::new());
    for (name, after, masters, workers) in shapes {
        let cluster = ClusterName((*name).to_owned());
        let mut names = Vec::new();
        for (role, letter, count) in [(Role::ControlPlane, "m", *masters), (Role::Worker, "w", *workers)] {
            for index in 1..=count {
                let node = NodeName(format!("{name}-{letter}{index}"));
                let spec = NodeSpec {
                    name: node.clone(),
                    cluster: cluster.clone(),
                    role,
                    address: [10, 0, 0, 1].into(),
                    rack: None,
                    machine_id: None,
                    bmc: None,
                };
                names.push(node.clone());
                nodes.insert(node, spec);
            }
        }
        clusters.push(Cluster {
            vip: None,
            name: cluster,
            after: after.iter().map(|name| ClusterName((*name).to_owned())).collect(),
            nodes: names,
        });
    }
    let now = Instant::now();
    let of = |name: &NodeName| {
        let view = NodeView {
            phase,
            ..NodeView::unknown(now)
        };
        (name.clone(), view)
    };
    let view = FleetView {
        at: now,
        nodes: nodes.keys().map(of).collect(),
        own_unclean_boot: true,
        began_at: now,
    };
    (Inventory { clusters, nodes }, view)
}

fn policy() -> ColdStartPolicy {
    ColdStartPolicy {
        serving_percent: 50,
        wave: WavePolicy {
            initial: 2,
            max: 4,
            increase: 1,
            interval: seconds(5),
            ..WavePolicy::default()
        },
        typical: Typical {
            node_return: seconds(300),
            kubelet: seconds(30),
            control_plane: seconds(60),
        },
        ..ColdStartPolicy::default()
    }
}

fn told(shapes: &[(&str, &[&str], usize, usize)], phase: Phase) -> (u64, Vec<String>) {
    let (inventory, view) = fleet(shapes, phase);
    let policy = policy();
    let plan = cold_start::plan(&inventory, &view, &policy, &[]);
    let estimate = estimate(&plan, &view, &policy.typical, &policy.wave);
    let path = estimate.critical_path.into_iter().map(|id| id.0).collect();
    (estimate.makespan.as_secs(), path)
}

#[test]
fn a_chain_takes_the_sum_of_its_links() {
    let shapes: &[(&str, &[&str], usize, usize)] = &[("mgmt", &[], 3, 1), ("biz", &["mgmt"], 1, 1)];
    let path = [
        "hold/mgmt-m2/kube-scheduler",
        "release/mgmt-m2",
        "gate/mgmt/control-plane",
        "release/mgmt-w1",
        "gate/mgmt/serving",
        "hold/biz-m1/kube-scheduler",
        "release/biz-m1",
        "gate/biz/control-plane",
        "release/biz-w1",
        "gate/biz/kubelets",
        "put-back/biz-m1/kube-scheduler",
        "verify/biz",
    ];
    // Twice: masters, API servers, workers.
    let (took, found) = told(shapes, Phase::Held);
    assert_eq!(
        (took, found.as_slice()),
        (240, path.map(str::to_owned).as_slice())
    );
    assert_eq!(
        told(shapes, Phase::Silent).0,
        540,
        "only the first machines are waited for"
    );
    assert_eq!(told(shapes, Phase::Ready).0, 0);
}

#[test]
fn workers_wait_for_room_and_the_window_grows() {
    // From 90 s: two, one more at 95 and at 100 (then the window is full). 120: two more, 125: one, 130: one, 150: the last two.
    let (took, path) = told(&[("biz", &[], 1, 10)], Phase::Held);
    assert_eq!(took, 180);
    let releases = path.iter().filter(|id| id.starts_with("release/biz-w")).count();
    assert_eq!(releases, 3, "{path:?}");
}

#[test]
fn clusters_side_by_side_take_as_long_as_the_longer() {
    let shapes: &[(&str, &[&str], usize, usize)] = &[
        ("mgmt", &[], 1, 0),
        ("biz", &["mgmt"], 1, 12),
        ("lab", &["mgmt"], 1, 1),
    ];
    let (took, path) = told(shapes, Phase::Held);
    // Twelve workers with a window of four: three rounds, and the window is open after ten seconds.
    assert_eq!(took, 90 + 90 + 3 * 30 + 10);
    assert_eq!(path.last().unwrap(), "verify/biz");
    assert!(!path.iter().any(|id| id.contains("lab")), "{path:?}");
}

#[test]
fn who_is_dark_for_longer_than_kubernetes_bears_is_named() {
    let notes = |workers, enabled| {
        let (inventory, view) = fleet(&[("biz", &[], 3, workers)], Phase::Held);
        let mut policy = policy();
        policy.set_aside.enabled = enabled;
        let plan = cold_start::plan(&inventory, &view, &policy, &[]);
        let estimate = estimate(&plan, &view, &policy.typical, &policy.wave);
        (estimate.dark, estimate.makespan)
    };
    // Four at a time, thirty seconds each, and ten seconds until the window is open.
    let (dark, makespan) = notes(40, false);
    assert_eq!(dark, [(ClusterName("biz".to_owned()), seconds(310))]);
    assert_eq!(makespan, seconds(400));
    // Four fifths of 43 nodes are 35, of which three are masters: the 32nd worker is the last of the eighth round.
    let (dark, makespan) = notes(40, true);
    assert_eq!(dark, [(ClusterName("biz".to_owned()), seconds(60))]);
    assert_eq!(makespan, seconds(400), "it takes no longer");
    let told = |dark| Estimate {
        dark: vec![(ClusterName("biz".to_owned()), dark)],
        ..Estimate::default()
    };
    assert_eq!(told(seconds(350)).notes(), [""; 0]);
    let [note] = told(seconds(700)).notes().try_into().unwrap();
    assert!(
        note.starts_with("biz: its last worker is ready about 700 s after"),
        "{note}"
    );
}

//! What happened to the nodes of a cluster, and what it is taken for. The truth table itself is in `tests/table.rs`.

mod racks;
mod table;

use blackstart_proto::boot::BootIdentity;

use super::*;
use crate::fleet::view::Attestation;
use crate::inventory::{Cluster, Role};

/// What happened to one node, seconds after the coordinator began.
#[derive(Clone, Copy)]
enum Node {
    /// Nothing.
    Fine,
    Lost(u64),
    /// Lost, and back in the boot it was in.
    SameBoot,
    /// Back in another boot after such an end.
    Back(PreviousShutdown, u64),
    /// The same, and held at its gate.
    Held(u64),
    /// Held, its boot known from the store: the coordinator restarted meanwhile.
    HeldFromBefore,
    /// Heard of for the first time, in a boot after an unclean end.
    FirstContact(u64),
    Goodbye,
    /// Known from the store, and not heard of since the coordinator started.
    Unheard,
}

use Node::*;
use PreviousShutdown::{Clean, FirstBoot, Unclean};

const HOUR: u64 = 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Normal,
    Suspicion,
    Power,
}

impl Expect {
    const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Normal => Self::Normal,
            Verdict::Suspicion { .. } => Self::Suspicion,
            Verdict::PowerEvent { .. } => Self::Power,
        }
    }
}

fn boot(id: &str, previous_shutdown: PreviousShutdown) -> BootIdentity {
    BootIdentity {
        boot_id: id.to_owned(),
        nonce: id.to_owned(),
        previous_shutdown,
    }
}

fn node_view(node: Node, began: Instant) -> NodeView {
    let at = |secs| began + Duration::from_secs(secs);
    let mut view = NodeView::unknown(began);
    view.boot = Some(boot("a", Clean));
    view.phase = Phase::Ready;
    view.in_session = true;
    match node {
        Fine => {}
        SameBoot => view.previous_boot = Some(boot("before", Unclean)),
        Goodbye => {
            view.in_session = false;
            view.phase = Phase::Stopped;
        }
        Unheard => {
            view.in_session = false;
            view.phase = Phase::Silent;
        }
        Lost(secs) => {
            view.in_session = false;
            view.phase = Phase::Silent;
            view.lost_at = Some(at(secs));
        }
        Back(end, secs) => {
            view.previous_boot = view.boot.replace(boot("b", end));
            view.new_boot_at = Some(at(secs));
        }
        FirstContact(secs) => {
            view.boot = Some(boot("b", Unclean));
            view.new_boot_at = Some(at(secs));
        }
        Held(_) | HeldFromBefore => {
            view.previous_boot = view.boot.replace(boot("b", Unclean));
            view.phase = Phase::Held;
            view.attestation = Some(Attestation {
                gate: GateState::Held,
                kubelet_active: false,
                kubelet_healthy: false,
                apiserver_ready: false,
                apiserver: None,
                observed_at: began,
                waiting_on: String::new(),
                manifests: std::collections::BTreeMap::new(),
            });
            if let Held(secs) = node {
                view.new_boot_at = Some(at(secs));
            }
        }
    }
    view
}

fn cluster(name: &str, count: usize) -> Inventory {
    let cluster = ClusterName(name.to_owned());
    let nodes: Vec<_> = (1..=count)
        .map(|index| NodeSpec {
            name: NodeName(format!("{name}-{index}")),
            cluster: cluster.clone(),
            role: if index == 1 {
                Role::ControlPlane
            } else {
                Role::Worker
            },
            address: format!("10.0.0.{index}").parse().unwrap(),
            rack: Some(format!("r{}", index % 2)),
            machine_id: None,
            bmc: None,
        })
        .collect();
    Inventory {
        clusters: vec![Cluster {
            vip: None,
            name: cluster,
            after: Vec::new(),
            nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        }],
        nodes: nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
    }
}

fn judged(nodes: &[Node], own_unclean_boot: bool, now: u64) -> Verdict {
    let inventory = cluster("c", nodes.len());
    let began_at = Instant::now();
    let view = FleetView {
        at: began_at + Duration::from_secs(now),
        nodes: inventory
            .nodes
            .keys()
            .cloned()
            .zip(nodes.iter().map(|node| node_view(*node, began_at)))
            .collect(),
        own_unclean_boot,
        began_at,
    };
    let [outage] = assess(&view, &inventory, &OutagePolicy::default())
        .try_into()
        .unwrap();
    outage.verdict
}

#[test]
fn evidence_has_counts_names_and_times() {
    let Verdict::PowerEvent {
        lost,
        unclean,
        not_ready,
        evidence,
        ..
    } = judged(&[Held(55), Lost(10), Lost(12), Fine], true, 60)
    else {
        panic!("not a power event");
    };
    assert_eq!(
        evidence,
        "3 of 4 nodes; back in a new boot after an unclean end: 1 (c-1); lost without a goodbye: 2 (c-2, c-3); the \
         coordinator's own machine booted anew after an unclean end; in 2 racks; first sign 50 s ago, last 5 s ago"
    );
    let names = |nodes: &[NodeName]| {
        nodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        (names(&lost), names(&unclean)),
        ("c-2 c-3".to_owned(), "c-1".to_owned())
    );
    assert_eq!(names(&not_ready), "c-1 c-2 c-3");
}

#[test]
fn each_cluster_is_judged_by_itself_and_many_names_are_counted() {
    let mut inventory = cluster("big", 20);
    let other = cluster("other", 2);
    inventory.clusters.extend(other.clusters);
    inventory.nodes.extend(other.nodes);
    let began_at = Instant::now();
    let view = FleetView {
        at: began_at + Duration::from_mins(1),
        nodes: inventory
            .nodes
            .values()
            .map(|node| {
                let fate = if node.cluster.0 == "big" { Lost(50) } else { Fine };
                (node.name.clone(), node_view(fate, began_at))
            })
            .collect(),
        own_unclean_boot: false,
        began_at,
    };
    let [big, other] = assess(&view, &inventory, &OutagePolicy::default())
        .try_into()
        .unwrap();
    let Verdict::Suspicion { lost, evidence } = big.verdict else {
        panic!("no suspicion");
    };
    assert_eq!(lost.len(), 20);
    assert!(evidence.contains("and 12 more"), "{evidence}");
    assert_eq!(other.verdict, Verdict::Normal);
}

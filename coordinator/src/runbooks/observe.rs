//! Takes the [`World`] of a node from what the coordinator knows: caches, sessions, silences. Waits for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::case::Case;
use super::case::read::{Depth, Place, read};
use super::node_down::dead;
use super::plan::Request;
use super::subject::Subject;
use super::world::{Agent, Api, Silence, World};
use super::{Ports, Refusal, unix_ms};
use crate::brakes::{Held, Scope};
use crate::fleet::view::{GateState, NodeView, Phase};
use crate::inventory::{ClusterName, NodeName, Role};

/// `None`: the node is not declared.
pub(super) fn world(ports: &Ports, node: &NodeName) -> Option<World> {
    let spec = ports.inventory.node(node)?;
    let now = Instant::now();
    let view = std::sync::Arc::clone(&ports.view.borrow());
    let brakes = ports.brakes.of(node);
    let silence = brakes.holds.iter().find(|hold| hold.what == Held::Silence);
    let api = match ports.clusters.get(&spec.cluster) {
        Some(cluster) => cluster.view(&node.0, now),
        None => Api::Unknown {
            why: no_way(&spec.cluster),
        },
    };
    Some(World {
        timing: ports.timing,
        now,
        unix_ms: unix_ms(),
        node: node.clone(),
        cluster: spec.cluster.clone(),
        role: spec.role,
        api,
        agent: view.nodes.get(node).map_or(
            Agent::Silent {
                since: None,
                left: false,
            },
            agent,
        ),
        silence: silence.map(|hold| Silence {
            by: hold.by.clone(),
            own: hold.scope == Scope::Node(node.clone()),
        }),
        case: None,
        declared: Arc::clone(&ports.declared),
    })
}

/// The world of a request: its node's, or that of no node for what is about pods.
pub(super) fn of(ports: &Ports, request: &Request) -> Result<World, Refusal> {
    let Some(subject) = &request.subject else {
        return world(ports, &request.node).ok_or_else(|| Refusal::UnknownNode(request.node.clone()));
    };
    if ports.inventory.cluster(&subject.cluster).is_none() {
        return Err(Refusal::UnknownCluster(subject.cluster.clone()));
    }
    let now = Instant::now();
    Ok(World {
        timing: ports.timing,
        now,
        unix_ms: unix_ms(),
        node: request.node.clone(),
        cluster: subject.cluster.clone(),
        role: Role::Worker,
        api: match ports.clusters.get(&subject.cluster) {
            Some(cluster) => cluster.view("", now),
            None => Api::Unknown {
                why: no_way(&subject.cluster),
            },
        },
        agent: Agent::Silent {
            since: None,
            left: false,
        },
        silence: None,
        case: None,
        declared: Arc::clone(&ports.declared),
    })
}

fn no_way(cluster: &ClusterName) -> String {
    format!("the coordinator has no way to the API of cluster {cluster} (`clusters` in its configuration)")
}

/// Reads what a request is about. Waits for the API, for seconds.
pub(super) async fn case(ports: &Ports, request: &Request, depth: Depth) -> Result<Case, String> {
    if let Some(subject) = &request.subject {
        return case_of(ports, subject, depth).await;
    }
    let node = &request.node;
    let spec = ports.inventory.node(node);
    let cluster = spec.and_then(|spec| ports.clusters.get(&spec.cluster));
    let Some(cluster) = cluster else {
        return Err(spec.map_or_else(String::new, |spec| no_way(&spec.cluster)));
    };
    read(cluster, Place::Node(&node.0), depth, &[]).await
}

/// The same, of a subject.
pub(super) async fn case_of(ports: &Ports, subject: &Subject, depth: Depth) -> Result<Case, String> {
    let cluster = ports
        .clusters
        .get(&subject.cluster)
        .ok_or_else(|| no_way(&subject.cluster))?;
    let mut needs: Vec<_> = ports
        .declared
        .iter()
        .filter(|one| {
            depth == Depth::Reasons && one.cluster == subject.cluster && one.namespace == subject.namespace
        })
        .flat_map(|one| one.needs.iter().cloned())
        .collect();
    needs.sort();
    needs.dedup();
    let mut case = read(cluster, Place::Namespace(&subject.namespace), depth, &needs).await?;
    let ending: BTreeSet<_> = case
        .pods
        .iter()
        .filter(|pod| pod.deleted.is_some() && !pod.node.is_empty())
        .map(|pod| pod.node.clone())
        .collect();
    for node in ending {
        if let Some(world) =
            world(ports, &NodeName(node.clone())).filter(|world| world.cluster == subject.cluster)
        {
            case.down.insert(node, dead(&world));
        }
    }
    Ok(case)
}

fn agent(node: &NodeView) -> Agent {
    match &node.attestation {
        Some(said) if node.in_session => Agent::Speaks {
            kubelet_active: said.kubelet_active,
            kubelet_healthy: said.kubelet_healthy,
            held: said.gate == GateState::Held,
            observed: said.observed_at,
        },
        Some(_) | None => Agent::Silent {
            since: (node.phase != Phase::Unknown).then_some(node.phase_since),
            left: node.phase == Phase::Stopped,
        },
    }
}

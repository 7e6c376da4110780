//! Takes the [`World`] of a node from what the coordinator knows: caches, sessions, silences. Waits for nothing.

use tokio::time::Instant;

use super::world::{Agent, Api, Silence, World};
use super::{Ports, unix_ms};
use crate::brakes::{Held, Scope};
use crate::fleet::view::{GateState, NodeView, Phase};
use crate::inventory::NodeName;

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
            why: format!(
                "the coordinator has no way to the API of cluster {} (`clusters` in its configuration)",
                spec.cluster
            ),
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
    })
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

//! The runbook for one node that came back by itself and is held: a crash, or a machine that returned after its run had ended.
//!
//! A worker waits for its cluster's control plane; a master and an external etcd member, without which there is none, for what
//! their cluster depends on.

use super::{Plan, StepId, cold_start};
use crate::inventory::{Inventory, NodeName, Role};
use crate::policy::ColdStartPolicy;

/// The name of this runbook.
pub const RUNBOOK: &str = "rejoin";

/// Plans the release of `node`; `None` if it is not declared.
pub fn plan(inventory: &Inventory, policy: &ColdStartPolicy, node: &NodeName) -> Option<Plan> {
    let node = inventory.node(node)?;
    let cluster = inventory.cluster(&node.cluster)?;
    let mut plan = Plan {
        runbook: RUNBOOK.to_owned(),
        steps: Vec::new(),
        lanes: Vec::new(),
        notes: vec![format!("releases {} of {}", node.name, cluster.name)],
    };
    let after = match node.role {
        Role::Worker => {
            plan.steps.push(cold_start::control_plane_gate(
                inventory,
                policy,
                &cluster.name,
                &[],
            ));
            plan.lanes.push(cold_start::lane(policy, &cluster.name));
            vec![StepId::control_plane(&cluster.name)]
        }
        Role::ControlPlane | Role::Etcd => {
            for dependency in &cluster.after {
                plan.steps
                    .extend(cold_start::gates(inventory, policy, dependency, &[]));
            }
            cluster.after.iter().map(StepId::serving).collect()
        }
    };
    plan.steps.push(cold_start::release(policy, node, after));
    Some(plan)
}

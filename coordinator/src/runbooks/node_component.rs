//! The components of a node, the chapter 节点组件异常: its kubelet is restarted, its CNI pod made again, and both verified. Pure.
//!
//! Docker, containerd and the kubelet are mended by the node's agent by itself; this is for what it cannot, and for the CNI pod, which is
//! the API's.

use std::time::Duration;

use super::case::{Case, is_real};
use super::maintenance::{empty, refused, step};
use super::mends::{Awaited, Chosen};
use super::plan::{Action, Refusal, Request, RunbookPlan};
use super::world::{Agent, World};
use crate::kubernetes::detail::PodDetail;
use crate::kubernetes::objects::PodKind;

const KUBELET: Duration = Duration::from_mins(5);
const GOING: Duration = Duration::from_mins(5);
const STARTING: Duration = Duration::from_mins(10);

/// Daemon sets of network plugins, by the names that their projects ship them under: Calico and Canal
/// (<https://docs.tigera.io/calico/latest/getting-started/kubernetes/self-managed-onprem/onpremises>), Cilium, Flannel (`kube-flannel-ds`,
/// with the architecture behind it in old manifests), Weave Net, kube-router, Antrea, Kube-OVN, Multus.
const CNI: [&str; 10] = [
    "calico-node",
    "canal",
    "cilium",
    "kube-flannel-ds",
    "weave-net",
    "kube-router",
    "antrea-agent",
    "kube-ovn-cni",
    "ovs-ovn",
    "kube-multus-ds",
];

/// It is a pod of a network plugin.
pub fn is_cni(pod: &PodDetail) -> bool {
    let owner = pod.controller.as_ref().filter(|_| pod.kind == PodKind::Daemon);
    owner.is_some_and(|owner| {
        CNI.iter().any(|name| {
            owner.name == *name
                || owner
                    .name
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('-') && *name == "kube-flannel-ds")
        })
    })
}

/// `blackstart runbook run node-component`, `blackstart node heal-cni`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    if let Agent::Speaks { held: true, .. } = world.agent {
        return refused(
            plan,
            "mend its components",
            "its kubelet is held by the boot gate: a cold start or a rejoin lets it go (blackstart get runs)"
                .to_owned(),
        );
    }
    match &world.agent {
        Agent::Speaks {
            kubelet_healthy: false,
            ..
        } => {
            plan.steps
                .push(step(Action::RestartKubelet, world.agent_words(), KUBELET));
            plan.steps
                .push(step(Action::AwaitReady, world.lease_words(), KUBELET));
        }
        Agent::Speaks { .. } => {}
        Agent::Silent { .. } => plan.refusals.push(Refusal {
            what: "restart its kubelet or its runtime".to_owned(),
            missing: format!(
                "its agent: {}; blackstart runbook plan node-down {}",
                world.agent_words(),
                world.node
            ),
        }),
    }
    match &world.case {
        Some(Ok(case)) => network(&mut plan, case, world),
        Some(Err(why)) => plan.refusals.push(Refusal {
            what: "look at its CNI pod".to_owned(),
            missing: why.clone(),
        }),
        None => plan.refusals.push(Refusal {
            what: "look at its CNI pod".to_owned(),
            missing: "its pods were not read".to_owned(),
        }),
    }
    plan
}

fn network(plan: &mut RunbookPlan, case: &Case, world: &World) {
    let node = &world.node.0;
    let here: Vec<_> = case
        .pods
        .iter()
        .filter(|pod| pod.node == *node && is_cni(pod) && is_real(pod))
        .collect();
    if here.is_empty() {
        plan.refusals.push(Refusal {
            what: "make its CNI pod again".to_owned(),
            missing: format!(
                "a pod of a network plugin on {node}: none of the daemon sets that are known ({}) has one",
                CNI.join(", ")
            ),
        });
        return;
    }
    let sick: Vec<_> = here
        .iter()
        .filter(|pod| !pod.is_ready && pod.deleted.is_none())
        .collect();
    if sick.is_empty() {
        let names: Vec<_> = here.iter().map(|pod| pod.key.to_string()).collect();
        if plan.steps.is_empty() {
            plan.refusals.push(Refusal {
                what: "make its CNI pod again".to_owned(),
                missing: format!(
                    "something that is wrong with it: {} is ready; {}",
                    names.join(", "),
                    world.agent_words()
                ),
            });
        }
        return;
    }
    for pod in &sick {
        plan.mends.pods.push(Chosen {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            controller: pod.controller_words().unwrap_or_default(),
            why: format!(
                "pod {} is not ready, started again {} times",
                pod.key,
                pod.restarts()
            ),
        });
        if let Some(maker) = case.maker(pod) {
            plan.mends.awaited.push(Awaited {
                node: Some(node.clone()),
                ..maker
            });
        }
    }
    let why: Vec<_> = plan.mends.pods.iter().map(|pod| pod.why.clone()).collect();
    plan.steps.push(step(Action::Recreate, why.join("; "), GOING));
    plan.steps.push(step(
        Action::AwaitSteady,
        format!(
            "its successor on {node} Running and ready, and not started again for {} s",
            plan.request.mending.steady.as_secs()
        ),
        STARTING + plan.request.mending.steady,
    ));
}

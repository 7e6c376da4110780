//! Hardware maintenance, the chapter 硬件维修: pods away, kubelet off, and back again. Pure.
//!
//! ```text
//!  begin  silence ─► cordon ─► drain ─ ─ in time? ─ ─► stop kubelet          end  start kubelet ─► ready, lease renewed
//!                                └ no ─► (approval) delete what remains ─┘          ─► taint off ─► uncordon ─► unsilence
//! ```
//!
//! The agent is silenced first: it would start a kubelet that was stopped.

use std::time::Duration;

use super::plan::{Action, Refusal, Request, RunbookPlan, Step};
use super::pods;
use super::world::{Agent, ApiView, World};
use crate::inventory::Role;
use crate::kubernetes::objects::Node;

/// A call to an API server that answers is done by then, retries and all.
const SHORT: Duration = Duration::from_mins(2);
/// A kubelet stops or starts within this (`TimeoutStopSec` is 90 s by default).
const KUBELET: Duration = Duration::from_mins(5);
/// A machine that was repaired may have to boot first.
const RETURN: Duration = Duration::from_mins(30);

/// `blackstart drain`.
pub fn drain(request: Request, world: &World) -> RunbookPlan {
    away(request, world, Vec::new(), Vec::new())
}

/// `blackstart maintenance begin`.
pub fn begin(request: Request, world: &World) -> RunbookPlan {
    let mut plan = away(
        request,
        world,
        vec![step(
            Action::Silence,
            "its agent would start the kubelet again",
            SHORT,
        )],
        vec![step(Action::StopKubelet, world.agent_words(), KUBELET)],
    );
    if plan.may_run() && matches!(world.agent, Agent::Silent { .. }) {
        plan.notes.push(format!(
            "{}: unless it comes, the kubelet has to be stopped by hand (systemctl stop kubelet), or the run waits",
            world.agent_words()
        ));
    }
    if world.role == Role::ControlPlane {
        plan.notes.push(
            "it is a control plane: its static pods (etcd, API server) go on until the machine is shut down"
                .to_owned(),
        );
    }
    plan
}

/// `blackstart maintenance end`.
pub fn end(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let node = match world.api_node() {
        Ok((_, node)) => node,
        Err(missing) => return refused(plan, "take the node back", missing),
    };
    plan.steps = vec![
        step(Action::StartKubelet, world.agent_words(), RETURN),
        step(Action::AwaitReady, world.lease_words(), KUBELET),
    ];
    if node.is_out_of_service() {
        plan.steps.push(step(
            Action::RemoveTaint,
            "the cluster was told that it is off, and it is not",
            SHORT,
        ));
    }
    plan.steps.push(step(Action::Uncordon, cordon_words(node), SHORT));
    plan.steps
        .push(step(Action::Unsilence, "its agent may mend it again", SHORT));
    if node.unschedulable && node.cordoned_by.is_none() {
        plan.notes.push(
            "it was not cordoned by Blackstart, so it stays cordoned; kubectl uncordon ends that".to_owned(),
        );
    }
    plan
}

/// Cordon and drain, with what comes before and after.
fn away(request: Request, world: &World, before: Vec<Step>, after: Vec<Step>) -> RunbookPlan {
    let mut plan = empty(request, world);
    let (view, node) = match world.api_node() {
        Ok(known) => known,
        Err(missing) => return refused(plan, "drain the node", missing),
    };
    plan.refusals = pods::refusals(view, &plan.request);
    if view.can.eviction.is_none() {
        plan.refusals.push(Refusal {
            what: "evict pods".to_owned(),
            missing: format!(
                "cluster {} ({}) serves no eviction API",
                world.cluster, view.can.version
            ),
        });
    }
    if !plan.refusals.is_empty() {
        return plan;
    }
    plan.notes = pods::blocked(view, &plan.request);
    plan.steps = before;
    plan.steps.push(step(Action::Cordon, cordon_words(node), SHORT));
    plan.steps.extend(drains(&plan.request, view));
    plan.steps.extend(after);
    plan
}

fn drains(request: &Request, view: &ApiView) -> [Step; 2] {
    let eviction = view.can.eviction.as_ref().map_or_else(String::new, |version| {
        format!(", by the eviction API of {version}")
    });
    let evidence = format!("{} to evict{eviction}", pods::names(pods::going(view, request)));
    let remaining = Step {
        approval: Some("pods that their budgets do not let go are deleted past them".to_owned()),
        ..step(
            Action::DeleteRemaining,
            "only if some remain after the drain",
            KUBELET,
        )
    };
    [step(Action::Drain, evidence, request.drain_within), remaining]
}

pub(super) fn cordon_words(node: &Node) -> String {
    match (node.unschedulable, &node.cordoned_by) {
        (false, _) => "it is not cordoned".to_owned(),
        (true, Some(run)) => format!("it is cordoned by {run}"),
        (true, None) => "it is cordoned, and not by Blackstart".to_owned(),
    }
}

pub(super) fn empty(request: Request, world: &World) -> RunbookPlan {
    RunbookPlan {
        request,
        cluster: world.cluster.clone(),
        role: world.role,
        steps: Vec::new(),
        refusals: Vec::new(),
        notes: Vec::new(),
        pods: Vec::new(),
        before: Vec::new(),
        readiness: None,
        mends: super::mends::Mends::default(),
        etcd: None,
        flags: Vec::new(),
    }
}

pub(super) fn refused(mut plan: RunbookPlan, what: &str, missing: String) -> RunbookPlan {
    let what = what.to_owned();
    plan.refusals.push(Refusal { what, missing });
    plan
}

pub(super) fn step(action: Action, evidence: impl Into<String>, deadline: Duration) -> Step {
    Step {
        action,
        evidence: evidence.into(),
        deadline,
        approval: None,
        on: None,
        part: None,
    }
}

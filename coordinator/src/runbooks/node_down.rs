//! A node that does not answer, the chapter 操作系统宕机: mend its kubelet if it lives, move its pods if it is proved dead. Pure.
//!
//! | agent | kubelet's lease | proof that it is off | |
//! |---|---|---|---|
//! | speaks, kubelet healthy | renewed | | refused: it is not down |
//! | speaks, kubelet not healthy | | | cordon, restart the kubelet, await ready, uncordon |
//! | silent | renewed | | refused: it lives, only its agent is away |
//! | silent | old | none | cordon; moving its pods is refused, and what proof is missing is said |
//! | silent | old | none, and its power may be cut | cordon, (approval) cut its power and see it off, then as with proof |
//! | silent | old | given, cluster ≥ 1.26 | cordon, out-of-service taint, await that pods and volumes are gone |
//! | silent | old | given, older cluster | cordon, (approval) delete pods and volume attachments, await |
//! | | not known | | refused: nobody can tell |
//!
//! What counts as proof is in [`super::proof`]. Silence of the agent and an old lease are none: a node that is cut off from both goes on writing to its volumes.

use std::time::Duration;

use super::maintenance::{cordon_words, empty, refused, step};
use super::network_loss::neighbours;
use super::plan::{Action, Refusal, Request, RunbookPlan, Step};
use super::pods;
use super::proof::{Proved, proved};
use super::world::{Agent, Timing, World, seconds};

const SHORT: Duration = Duration::from_mins(2);
const KUBELET: Duration = Duration::from_mins(5);
/// Controllers take their time: seconds from the order to the word, a minute for some.
const POWERED_OFF: Duration = Duration::from_mins(3);
/// Pods of a node that is out of service are deleted and its volumes detached by the controller manager, in its own time.
const MOVED: Duration = Duration::from_mins(15);

/// `blackstart runbook run node-down`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let plan = empty(request, world);
    match world.agent {
        Agent::Speaks { held: true, .. } => refused(
            plan,
            "treat it as down",
            "its kubelet is held by the boot gate: a cold start or a rejoin lets it go (blackstart get runs)"
                .to_owned(),
        ),
        Agent::Speaks {
            kubelet_healthy: true,
            ..
        } => refused(
            plan,
            "treat it as down",
            format!(
                "evidence that it is: {}; {}",
                world.agent_words(),
                world.lease_words()
            ),
        ),
        Agent::Speaks { .. } => lives(plan, world),
        Agent::Silent { .. } => silent(plan, world),
    }
}

/// Its agent speaks: the kubelet is what is down.
fn lives(mut plan: RunbookPlan, world: &World) -> RunbookPlan {
    let restart = step(Action::RestartKubelet, world.agent_words(), KUBELET);
    match world.api_node() {
        Ok((_, node)) => {
            plan.steps = vec![
                step(Action::Cordon, cordon_words(node), SHORT),
                restart,
                step(Action::AwaitReady, world.lease_words(), KUBELET),
                step(Action::Uncordon, "only if this run cordoned it", SHORT),
            ];
        }
        // The kubelet can be mended without the API.
        Err(missing) => {
            plan.steps = vec![restart];
            plan.refusals.push(Refusal {
                what: "cordon it meanwhile, and await that it is ready".to_owned(),
                missing,
            });
        }
    }
    plan
}

fn silent(mut plan: RunbookPlan, world: &World) -> RunbookPlan {
    let (view, node) = match world.api_node() {
        Ok(known) => known,
        Err(missing) => return refused(plan, "treat it as down", missing),
    };
    let down = match dead(world) {
        Ok(down) => down,
        Err(NotDead::Lives(missing) | NotDead::NotKnown(missing)) => {
            return refused(plan, "treat it as down", missing);
        }
    };
    plan.steps = vec![step(
        Action::Cordon,
        format!("{down}; {}", cordon_words(node)),
        SHORT,
    )];
    plan.notes.push(format!(
        "{}: evidence, and no proof: who is cut off from all may still write to its volumes",
        neighbours(world)
    ));
    let what = format!(
        "{}, {} volumes",
        pods::names(pods::movable(view)),
        view.attachments.len()
    );
    let (proof, doubt) = match proved(world, plan.request.proof.as_ref(), plan.request.options.fence) {
        Proved::Yes(proof) => {
            let words = format!("proof that it is off: {proof}");
            plan.request.proof = Some(proof);
            (words, None)
        }
        Proved::Contradicted(proof, other) => (
            format!("proof that it is off: {proof}; but {other}"),
            Some(format!(
                "the two contradict each other ({proof}; {other}): if the machine is not off, its pods run twice and destroy what they write"
            )),
        ),
        Proved::Fence(words) => {
            plan.steps.push(Step {
                approval: Some(format!(
                    "the power of {} is cut, whatever it is doing: {words}",
                    world.node
                )),
                ..step(Action::PowerOff, words, POWERED_OFF)
            });
            (
                "proof that it is off: its BMC says so after its power was cut".to_owned(),
                None,
            )
        }
        Proved::No(missing) => {
            plan.refusals.push(Refusal {
                what: format!("move {}", pods::names(pods::movable(view))),
                missing,
            });
            return plan;
        }
    };
    if view.can.out_of_service {
        plan.steps.push(Step {
            approval: doubt,
            ..step(Action::TaintOutOfService, format!("{proof}; {what}"), SHORT)
        });
        plan.notes.push(format!(
            "the taint stays until the node is back: blackstart maintenance end {} removes it",
            world.node
        ));
    } else {
        let twice =
            "pods are deleted without their kubelet's word: if the machine is not off, they run twice";
        plan.steps.push(Step {
            approval: Some(doubt.map_or_else(|| twice.to_owned(), |doubt| format!("{twice}; {doubt}"))),
            ..step(
                Action::ForceDelete,
                format!(
                    "{proof}; {what}; version {} has no out-of-service taint",
                    view.can.version
                ),
                KUBELET,
            )
        });
    }
    plan.steps.push(step(Action::AwaitMoved, what, MOVED));
    plan
}

/// Why a node does not count as down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDead {
    /// It shows signs of life.
    Lives(String),
    /// Nobody can tell, so far.
    NotKnown(String),
}

/// The evidence that a node is down, or why it does not count as such.
pub(super) fn dead(world: &World) -> Result<String, NotDead> {
    if matches!(world.agent, Agent::Speaks { .. }) {
        return Err(NotDead::Lives(format!(
            "evidence that it is: {}",
            world.agent_words()
        )));
    }
    let view = world.api().map_err(NotDead::NotKnown)?;
    let words = format!("{}; {}", world.agent_words(), world.lease_words());
    let Timing {
        lease_old, renewal, ..
    } = world.timing;
    let quiet = view.life.quiet_for(world.now).unwrap_or_default();
    if quiet >= lease_old {
        return Ok(words);
    }
    if view.life.seen.is_some() {
        let why = format!(
            "evidence that it is: {}; only its agent is away",
            world.lease_words()
        );
        return Err(NotDead::Lives(why));
    }
    // Not watched for long enough to see it grow old; its own time tells, if it is believed after a few missed renewals.
    let old = view.life.renewed.is_none_or(|renewed| {
        let age = world
            .unix_ms
            .saturating_sub(u64::try_from(renewed.as_millisecond()).unwrap_or_default());
        Duration::from_millis(age) >= lease_old
    });
    if old && quiet >= renewal {
        return Ok(words);
    }
    Err(NotDead::NotKnown(format!(
        "{words}: ask again in {}, when it has been watched for long enough",
        seconds(if old { renewal } else { lease_old }.saturating_sub(quiet))
    )))
}

//! A node that its cluster cannot reach, the chapter 节点网络异常: told from one that is dead, and its pods let go sooner. Pure.
//!
//! | agent | kubelet's lease | proof that it is off | |
//! |---|---|---|---|
//! | speaks, kubelet healthy | renewed, and Ready | | refused: it is reached |
//! | speaks | old, or not Ready | | cut off from its API servers and alive: a partition |
//! | speaks, kubelet not healthy | | | refused: its kubelet is what fails; node-down restarts it |
//! | silent | renewed | | refused: the cluster reaches it, only its agent is away |
//! | silent | old | given | refused: it is off, and no partition; node-down |
//! | silent | old | none | a partition or dead: nobody can tell; what neighbours say is shown |
//! | | not known | | refused: nobody can tell |
//!
//! Pods of a node that is not reached are evicted after their tolerations, five minutes by default. For the workloads that are chosen
//! that is shortened in their templates, which makes their pods anew, and put back when the node is reached. Not in a power event:
//! there all nodes are out of reach at once, and short tolerations would tear down what is about to come back.

use std::time::Duration;

use super::maintenance::{cordon_words, empty, refused, step};
use super::node_down::{NotDead, dead};
use super::plan::{Action, Before, Refusal, Request, RunbookPlan, Step};
use super::world::{Agent, World};
use crate::kubernetes::objects::scheduling::Toleration;
use crate::kubernetes::objects::workload::{Workload, WorkloadKind, WorkloadName};
use crate::kubernetes::objects::{Node, Ready};

/// What the drill plan asks for.
const SECONDS: u32 = 3;
/// The taints whose tolerations are shortened.
pub const TAINTS: [&str; 2] = ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];
const SHORT: Duration = Duration::from_mins(2);
/// A switch is replaced within this, or an operator looks again.
const REACHED: Duration = Duration::from_hours(4);
/// So many workloads are named.
const NAMED: usize = 6;

/// `blackstart runbook run network-loss`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let (_, node) = match world.api_node() {
        Ok(known) => known,
        Err(missing) => return refused(plan, "treat it as cut off", missing),
    };
    let evidence = match partition(world, node, &plan.request) {
        Ok(evidence) => evidence,
        Err(missing) => return refused(plan, "treat it as cut off", missing),
    };
    let shorten = shorten(&mut plan, world);
    plan.steps.push(step(
        Action::Cordon,
        format!("{evidence}; {}", cordon_words(node)),
        SHORT,
    ));
    plan.steps.extend(shorten);
    plan.steps
        .push(step(Action::AwaitReachable, world.lease_words(), REACHED));
    if !plan.before.is_empty() {
        plan.steps.push(step(
            Action::RestoreTolerations,
            "as they were, from the journal",
            REACHED,
        ));
    }
    plan.steps
        .push(step(Action::Uncordon, "only if this run cordoned it", SHORT));
    if matches!(world.agent, Agent::Silent { .. }) {
        plan.notes.push(
            "if it is dead, and not cut off, it does not come back by itself: blackstart runbook run node-down, with proof that it is off"
                .to_owned(),
        );
    }
    plan
}

/// The evidence that a node is cut off and not dead, as far as can be told; or why it does not count as such.
fn partition(world: &World, node: &Node, request: &Request) -> Result<String, String> {
    let neighbours = neighbours(world);
    match (&world.agent, dead(world)) {
        (Agent::Speaks { held: true, .. }, _) => {
            Err("its kubelet is held by the boot gate: a cold start or a rejoin lets it go".to_owned())
        }
        (
            Agent::Speaks {
                kubelet_healthy: false,
                ..
            },
            _,
        ) => Err(format!(
            "evidence that it is the network: {}; blackstart runbook run node-down {} restarts the kubelet",
            world.agent_words(),
            world.node
        )),
        (Agent::Speaks { .. }, _) if world.is_quiet() || node.ready != Ready::True => Ok(format!(
            "it lives and does not reach its API servers: {}, and {}, Ready is {:?}; {neighbours}",
            world.agent_words(),
            world.lease_words(),
            node.ready
        )),
        (Agent::Speaks { .. }, _) => Err(format!(
            "evidence that it is: {}; {}",
            world.agent_words(),
            world.lease_words()
        )),
        (Agent::Silent { .. }, Err(NotDead::Lives(why) | NotDead::NotKnown(why))) => Err(why),
        (Agent::Silent { .. }, Ok(_)) if request.proof.is_some() => Err(format!(
            "nothing: it is proved to be off, which is no partition; blackstart runbook run node-down {} --proof ...",
            world.node
        )),
        (Agent::Silent { .. }, Ok(quiet)) => Ok(format!(
            "{quiet}: cut off or dead, and nobody can tell which without proof; {neighbours}"
        )),
    }
}

/// The word of the others: a rack that is silent as a whole has lost its switch, or its power.
pub(super) fn neighbours(world: &World) -> String {
    let near = world.around.neighbours;
    let rack = if near.in_rack == 0 {
        String::new()
    } else {
        let hint = if near.heard_in_rack == 0 {
            ": the rack is silent as a whole, so look at its switch and its power"
        } else {
            ""
        };
        format!(", {} of {} in its rack{hint}", near.heard_in_rack, near.in_rack)
    };
    format!(
        "of the {} other nodes of its cluster {} are in session{rack}",
        near.all, near.heard
    )
}

/// The step that shortens what is chosen, or why there is none.
fn shorten(plan: &mut RunbookPlan, world: &World) -> Option<Step> {
    let what = || "shorten how long pods stay on it while it is not reached".to_owned();
    if let Some(power) = &world.around.power_event {
        plan.refusals.push(Refusal {
            what: what(),
            missing: format!(
                "an end of the power event ({power}): in one all nodes are out of reach, and their pods come back with them"
            ),
        });
        return None;
    }
    let all = match world.around.workloads.within(world.timing.fresh, world.now) {
        Ok(all) => all,
        Err(missing) => {
            plan.refusals.push(Refusal {
                what: what(),
                missing,
            });
            return None;
        }
    };
    let chosen = plan.request.options.workloads.clone();
    if chosen.is_empty() {
        let missing = format!(
            "the workloads that you choose: --workload NAMESPACE/KIND/NAME, or `runbooks.workloads` in the coordinator's configuration; \
             on it are {}",
            on_it(world, all)
        );
        plan.refusals.push(Refusal {
            what: what(),
            missing,
        });
        return None;
    }
    let seconds = seconds_of(&plan.request);
    let mut named = Vec::new();
    for name in chosen {
        let found = all.iter().find(|workload| workload.name == name);
        match may_shorten(&name, found, world) {
            Ok(before) => {
                named.push(name.to_string());
                plan.before.push(before);
                if name.kind == WorkloadKind::StatefulSet {
                    plan.notes.push(format!(
                        "{name}: a stateful set makes no other pod while one is not known to be gone; with proof that the machine is off, \
                         node-down moves it"
                    ));
                }
            }
            Err(missing) => plan.refusals.push(Refusal {
                what: format!("shorten the tolerations of {name}"),
                missing,
            }),
        }
    }
    if named.is_empty() {
        return None;
    }
    plan.notes.push(format!(
        "a template that changes makes all pods of its workload anew, as its rollout strategy has it; twice: now, and when it is put back \
         ({})",
        named.join(", ")
    ));
    Some(step(
        Action::ShortenTolerations,
        format!("{seconds} s for {}", named.join(", ")),
        SHORT,
    ))
}

/// What a workload tolerates now, or why that is not shortened.
fn may_shorten(name: &WorkloadName, found: Option<&Workload>, world: &World) -> Result<Before, String> {
    let workload = found.ok_or_else(|| format!("cluster {} has no {name}", world.cluster))?;
    if name.kind == WorkloadKind::DaemonSet {
        return Err("a daemon set: its pods belong to their nodes, and stay whatever happens".to_owned());
    }
    if let Some(run) = &workload.tolerations_by {
        return Err(format!(
            "run {run} has shortened it already: blackstart runbook status {run}"
        ));
    }
    Ok(Before {
        workload: name.clone(),
        uid: workload.uid.clone(),
        tolerations: workload.tolerations.clone(),
    })
}

fn on_it(world: &World, all: &[Workload]) -> String {
    let Ok(view) = world.api() else {
        return "none that is known".to_owned();
    };
    let here: Vec<_> = all
        .iter()
        .filter(|workload| workload.name.kind != WorkloadKind::DaemonSet)
        .filter(|workload| view.pods.iter().any(|pod| workload.covers(pod)))
        .map(|workload| workload.name.to_string())
        .collect();
    match here.len() {
        0 => "none".to_owned(),
        many if many > NAMED => format!("{} and {} more", here[..NAMED].join(", "), many - NAMED),
        _ => here.join(", "),
    }
}

/// So long pods of the chosen workloads are to stay.
pub fn seconds_of(request: &Request) -> u32 {
    request.options.tolerate_seconds.unwrap_or(SECONDS)
}

/// What a template tolerates once it is shortened: what it tolerated, with both taints for so long.
pub fn shortened(before: Option<&[Toleration]>, seconds: u32) -> Vec<Toleration> {
    let is_short = |one: &Toleration| {
        TAINTS.contains(&one.key.as_str()) && (one.effect == "NoExecute" || one.effect.is_empty())
    };
    let mut all: Vec<_> = before
        .unwrap_or_default()
        .iter()
        .filter(|one| !is_short(one))
        .cloned()
        .collect();
    all.extend(TAINTS.map(|taint| Toleration {
        key: taint.to_owned(),
        operator: "Exists".to_owned(),
        effect: "NoExecute".to_owned(),
        toleration_seconds: Some(seconds.into()),
        ..Toleration::default()
    }));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_taints_are_shortened_and_the_rest_stays() {
        let before: Vec<Toleration> = serde_json::from_value(json!([
            {"key": "role", "value": "db", "effect": "NoSchedule"},
            {"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ]))
        .unwrap();
        let after = serde_json::to_value(shortened(Some(&before), 3)).unwrap();
        let one = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3});
        assert_eq!(
            after,
            json!([{"key": "role", "value": "db", "effect": "NoSchedule"}, one(TAINTS[0]), one(TAINTS[1])])
        );
        assert_eq!(shortened(None, 3).len(), 2);
    }
}

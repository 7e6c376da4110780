//! The static pods of a control plane that do not run, the chapter 静态 Pod 故障: what is wrong is named, and what a bounce may mend is
//! bounced, one at a time; or each is restarted, or told another etcd, one after the other. Pure.
//!
//! ```text
//!  API servers, master by master ─► controller managers ─► schedulers ─► all of them are well
//!      each: bounce ─► well? ─ no ─► stop, with what its health port, its containers and its log say
//! ```
//! The next one's turn comes when the one before is well again: of three API servers two are there at any time. What a bounce does not mend
//! (a certificate out of its time, a manifest that is gone or cannot be read, an etcd without a quorum) is refused with what would.

use std::time::Duration;

use blackstart_proto::part::Part;

use super::maintenance::{empty, refused, step};
use super::plan::{Action, FlagChange, Refusal, Request, RunbookPlan, Step};
use super::world::{Agent, World};
use crate::control_plane::judge::{Cause, State, View};
use crate::inventory::{NodeName, Role};

/// A bounce waits for the pod to end, and to be well again: 90 s and 3 min by default, both twice where a value is taken back.
const BOUNCE: Duration = Duration::from_mins(10);
/// All that were bounced are well, as they have been one by one.
const WELL: Duration = Duration::from_mins(5);
/// Nobody has looked.
const NOT_TOLD: &str = "what the agents of the masters tell: none of them was asked yet";

/// `blackstart runbook run control-plane --cluster CLUSTER`, or a master of it.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    const WHAT: &str = "mend the control plane";
    let mut plan = empty(request, world);
    let of_node = !plan.request.node.0.is_empty();
    if of_node && world.role != Role::ControlPlane {
        let missing = format!("a master: {} is none", world.node);
        return refused(plan, WHAT, missing);
    }
    plan.role = Role::ControlPlane;
    let Some(glance) = &world.control_plane else {
        return refused(plan, WHAT, NOT_TOLD.to_owned());
    };
    let view = &glance.view;
    let mut masters: Vec<_> = view
        .masters
        .keys()
        .filter(|node| !of_node || **node == world.node)
        .cloned()
        .collect();
    // Whoever has the virtual address comes last: it moves once, to a master that is done.
    let holders = view.holders();
    masters.sort_by_key(|node| holders.contains(&node));
    let etcd = world.etcd.as_ref().map(|glance| glance.view.as_ref());
    plan.notes.extend(view.vip_words(etcd));
    if let Some(to) = plan.request.options.etcd_servers.clone() {
        return set_etcd(plan, world, view, &masters, &to);
    }
    let only = plan.request.options.part;
    let mut well = Vec::new();
    for part in Part::ALL
        .into_iter()
        .filter(|part| only.is_none_or(|only| only == *part))
    {
        for node in &masters {
            judge(&mut plan, world, view, (node, part), &mut well);
        }
    }
    silent(&mut plan, view, &masters);
    finish(plan, WHAT, &well)
}

/// What is to be done with one part on one master.
fn judge(
    plan: &mut RunbookPlan,
    world: &World,
    view: &View,
    (node, part): (&NodeName, Part),
    well: &mut Vec<String>,
) {
    let etcd = world.etcd.as_ref().map(|glance| glance.view.as_ref());
    let evidence = match view.state(node, part, etcd) {
        // What is not known is told once of each master.
        State::Nowhere | State::Ill(Cause::Unseen(_)) => return,
        State::Well(words) if plan.request.options.restart => format!("a restart was asked for; {words}"),
        State::Well(words) => {
            well.push(format!("{} of {node} {words}", part.words()));
            return;
        }
        State::Ill(cause) if cause.is_mendable() => cause.words(part, node),
        State::Ill(cause) => {
            plan.refusals.push(Refusal {
                what: format!("bounce the {} of {node}", part.words()),
                missing: cause.words(part, node).replace("CLUSTER", &world.cluster.0),
            });
            return;
        }
    };
    match world.masters.get(node) {
        Some(Agent::Speaks { held: true, .. }) => plan.refusals.push(Refusal {
            what: format!("bounce the {} of {node}", part.words()),
            missing: "its kubelet, which the boot gate holds: a cold start or a rejoin lets it go".to_owned(),
        }),
        Some(Agent::Speaks {
            kubelet_healthy: false,
            ..
        }) => plan.refusals.push(Refusal {
            what: format!("bounce the {} of {node}", part.words()),
            missing: format!(
                "its kubelet, which does not answer: nobody would start it again; blackstart runbook run node-component {node}"
            ),
        }),
        Some(Agent::Speaks { .. } | Agent::Silent { .. }) | None => {
            plan.steps.push(on(Action::BouncePart, node, part, evidence));
        }
    }
}

fn on(action: Action, node: &NodeName, part: Part, evidence: String) -> Step {
    Step {
        on: Some(node.clone()),
        part: Some(part),
        ..step(action, evidence, BOUNCE)
    }
}

/// Masters of which nothing is known.
fn silent(plan: &mut RunbookPlan, view: &View, masters: &[NodeName]) {
    for node in masters {
        if let State::Ill(cause @ Cause::Unseen(_)) = view.state(node, Part::ApiServer, None) {
            plan.refusals.push(Refusal {
                what: format!("look at the control plane of {node}"),
                missing: cause.words(Part::ApiServer, node),
            });
        }
    }
}

fn finish(mut plan: RunbookPlan, what: &str, well: &[String]) -> RunbookPlan {
    if !plan.steps.is_empty() {
        let names: Vec<_> = plan.steps.iter().map(Step::id).collect();
        let evidence = format!("after {}", names.join(", "));
        plan.steps.push(step(Action::AwaitControlPlane, evidence, WELL));
        return plan;
    }
    if !plan.refusals.is_empty() {
        return plan;
    }
    let missing = if well.is_empty() {
        "a static pod of a control plane: no master has a manifest of one".to_owned()
    } else {
        format!(
            "something that is wrong with it: {}; --restart bounces them all the same",
            well.join("; ")
        )
    };
    refused(plan, what, missing)
}

/// API servers that are told another etcd.
fn set_etcd(
    mut plan: RunbookPlan,
    world: &World,
    view: &View,
    masters: &[NodeName],
    to: &str,
) -> RunbookPlan {
    const WHAT: &str = "set --etcd-servers";
    if !is_list_of_urls(to) {
        let missing = format!("a list of URLs: {to:?} is none (https://10.0.0.1:2379,https://10.0.0.2:2379)");
        return refused(plan, WHAT, missing);
    }
    let mut diffs = Vec::new();
    let mut done = Vec::new();
    for node in masters {
        let what = || format!("{WHAT} of {node}");
        match (
            view.state(node, Part::ApiServer, None),
            view.told(node, Part::ApiServer),
        ) {
            (State::Nowhere, _) | (State::Well(_), None) => {}
            (State::Well(words), Some(told)) if told.etcd_servers == to => {
                done.push(format!("API server of {node} has it, and {words}"));
            }
            // Also one that is down: the etcd that it is told of may be what is gone.
            (State::Well(_) | State::Ill(Cause::Down(_) | Cause::Etcd(_)), Some(told)) => {
                if told.etcd_servers.is_empty() {
                    let missing = format!("--etcd-servers in {}, to be changed", told.manifest);
                    plan.refusals.push(Refusal {
                        what: what(),
                        missing,
                    });
                    continue;
                }
                let diff = format!(
                    "{}: - --etcd-servers={} + --etcd-servers={to}",
                    told.manifest, told.etcd_servers
                );
                diffs.push(format!("{node} {diff}"));
                plan.flags.push(FlagChange {
                    node: node.clone(),
                    from: told.etcd_servers.clone(),
                    to: to.to_owned(),
                });
                plan.steps
                    .push(on(Action::SetEtcdServers, node, Part::ApiServer, diff));
            }
            (State::Ill(cause), _) => plan.refusals.push(Refusal {
                what: what(),
                missing: cause
                    .words(Part::ApiServer, node)
                    .replace("CLUSTER", &world.cluster.0),
            }),
        }
    }
    if let Some(first) = plan.steps.first_mut() {
        first.approval = Some(format!(
            "each API server is stopped and started with another manifest, one after the other: {}",
            diffs.join("; ")
        ));
        plan.notes.push(
            "the old manifests are kept in blackstart-edits/RUN beside the directory of manifests that are out; an API server that is not well \
             with the new one gets the old one back, and the run stops"
                .to_owned(),
        );
    }
    if plan.steps.is_empty() && plan.refusals.is_empty() {
        return refused(plan, WHAT, format!("something to change: {}", done.join("; ")));
    }
    finish(plan, WHAT, &done)
}

fn is_list_of_urls(text: &str) -> bool {
    text.split(',').all(|url| {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        rest.is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']'))
        })
    })
}

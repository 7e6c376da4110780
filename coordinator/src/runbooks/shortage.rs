//! Not enough room, the chapter 节点资源空间不足: why pods find no node, and disks that are short. Pure.
//!
//! ```text
//!  pods without a node ─► per node, the first that keeps it off: cordon, taint, selector, then what is short and by how much
//!  nodes whose disks are short ─► their agents reclaim by themselves: awaited        └─► proposals: smaller, or more nodes
//!  the pods that the plan names run ─► done
//! ```
//!
//! Nothing is changed: requests are for those who know the workload, nodes for those who have them. The scheduler's order of reasons is
//! kept (kubernetes pkg/scheduler: unschedulable, taints, affinity, resources); what is not computed here is shown in its own words.

use std::collections::BTreeMap;
use std::time::Duration;

use super::around::Pressed;
use super::maintenance::{empty, refused, step};
use super::plan::{Action, Named, Refusal, Request, RunbookPlan};
use super::world::World;
use crate::kubernetes::objects::resources::{Resources, shown};
use crate::kubernetes::objects::scheduling::Wants;
use crate::kubernetes::objects::{Node, Pod};
use crate::kubernetes::view::{Room, Waiting};

/// So long an operator is given to make room.
const MADE: Duration = Duration::from_hours(2);
/// An agent that reclaims needs minutes; its ladder has three rungs.
const RECLAIMED: Duration = Duration::from_mins(15);
/// So many pods are explained one by one.
const EXPLAINED: usize = 10;
/// So many nodes are named in a reason.
const NAMED: usize = 3;

/// `blackstart runbook plan resource-shortage`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let room = match &world.around.room {
        Ok(room) => room,
        Err(missing) => return refused(plan, "explain what is short", missing.clone()),
    };
    let waiting = chosen(&plan.request, room, &mut plan.refusals);
    let pressed = world.around.pressed.iter();
    let pressed: Vec<_> = pressed
        .filter(|one| plan.request.node.0.is_empty() || one.node == plan.request.node)
        .collect();
    reclaim(&mut plan, &pressed);
    for waiting in waiting.iter().take(EXPLAINED) {
        let why = explain(&waiting.pod, room);
        plan.notes.push(format!("{}: {}", waiting.pod.key, why.words()));
        plan.notes.extend(why.proposals(&waiting.pod));
    }
    if waiting.len() > EXPLAINED {
        plan.notes.push(format!(
            "{} more pods have no node; --pod NAMESPACE/NAME explains those that you name",
            waiting.len() - EXPLAINED
        ));
    }
    if !waiting.is_empty() {
        let evidence = format!("{} no node", having(waiting.iter().map(|one| &one.pod)));
        plan.steps.push(step(Action::AwaitRunning, evidence, MADE));
        plan.pods = waiting
            .iter()
            .map(|one| Named {
                pod: one.pod.key.clone(),
                uid: one.pod.uid.clone(),
                controller: one.pod.controller.clone(),
            })
            .collect();
    }
    if plan.steps.is_empty() && plan.refusals.is_empty() {
        return refused(
            plan,
            "treat it as short of anything",
            format!(
                "evidence that it is: no pod of cluster {} waits for a node, and no disk of its nodes is short",
                world.cluster
            ),
        );
    }
    plan
}

fn having<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let pods: Vec<_> = pods.collect();
    let verb = if pods.len() == 1 { "has" } else { "have" };
    format!("{} {verb}", super::pods::names(pods))
}

/// The pods that it is about: those that are named, or all that have no node; of one node, those that may go there.
fn chosen<'a>(request: &Request, room: &'a Room, refusals: &mut Vec<Refusal>) -> Vec<&'a Waiting> {
    let wanted = &request.options.pods;
    for pod in wanted {
        if !room.waiting.iter().any(|waiting| waiting.pod.key == *pod) {
            refusals.push(Refusal {
                what: format!("explain why pod {pod} has no node"),
                missing: "evidence that it has none: it runs, has a node, or is not there (kubectl get pod)"
                    .to_owned(),
            });
        }
    }
    let here = room.nodes.get(&request.node.0);
    let may_go = |pod: &Pod| match (here, &pod.wants) {
        (Some(here), Some(wants)) => wants.choose(&here.node.name, &here.node.labels),
        (None, _) | (_, None) => request.node.0.is_empty(),
    };
    let waiting = room.waiting.iter();
    waiting
        .filter(|one| match wanted.as_slice() {
            [] => may_go(&one.pod),
            wanted => wanted.contains(&one.pod.key),
        })
        .collect()
}

/// What agents do by themselves is awaited where they can.
fn reclaim(plan: &mut RunbookPlan, pressed: &[&Pressed]) {
    let mut able = Vec::new();
    for one in pressed {
        match (&one.silenced_by, one.speaks) {
            (Some(by), _) => plan.refusals.push(Refusal {
                what: format!("have space given back on {} ({})", one.node, one.words),
                missing: format!(
                    "its agent is silenced by {by} and mends nothing: blackstart unsilence {}",
                    one.node
                ),
            }),
            (None, false) => plan.refusals.push(Refusal {
                what: format!("have space given back on {} ({})", one.node, one.words),
                missing: "its agent, which is not in session; by hand: docker system prune, journalctl --vacuum-size, and the logs"
                    .to_owned(),
            }),
            (None, true) => able.push(format!("{}: {}", one.node, one.words)),
        }
    }
    if !able.is_empty() {
        plan.steps.push(step(
            Action::AwaitReclaim,
            format!(
                "{}; each agent gives back by itself: heads of logs, archived journals, stopped containers, unused images",
                able.join("; ")
            ),
            RECLAIMED,
        ));
    }
    for one in pressed {
        plan.notes.push(format!(
            "{}: to last, move its logs to a volume of their own, or give it a larger disk (blackstart describe node {})",
            one.node, one.node
        ));
    }
}

/// What keeps a pod off the nodes of its cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Why {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// By the first reason of each node, with the nodes' names.
    pub off: BTreeMap<Off, Vec<String>>,
    /// By resource: on so many nodes it is short, and on which one by the least.
    pub short: BTreeMap<String, Short>,
    /// Nodes that take no more pods.
    pub full: Vec<String>,
    /// Nodes on which it fits, as far as is computed here.
    pub fits: Vec<String>,
    /// The scheduler's own words.
    pub said: String,
    /// What the pod wants.
    pub wants: Resources,
}

/// What keeps a pod off a node before its resources are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Off {
    /// It is cordoned.
    Cordoned,
    /// A taint that it does not tolerate.
    Taint {
        /// The taint: `key=value:effect`.
        taint: String,
    },
    /// Selector or affinity choose others.
    NotChosen,
}

/// A resource that is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// On so many nodes.
    pub nodes: usize,
    /// By so much at least.
    pub least: i64,
    /// There.
    pub on: String,
    /// What that node has in all.
    pub has: i64,
}

/// Why a pod finds no node: the scheduler's arithmetic over again.
pub fn explain(pod: &Pod, room: &Room) -> Why {
    let none = Wants::default();
    let wants = pod.wants.as_deref().unwrap_or(&none);
    let mut why = Why {
        nodes: room.nodes.len(),
        said: wants.said.clone(),
        wants: pod.requests.clone(),
        ..Why::default()
    };
    for here in room.nodes.values() {
        let name = here.node.name.clone();
        if let Some(off) = off(wants, &here.node) {
            why.off.entry(off).or_default().push(name);
            continue;
        }
        let short = here.node.allocatable.short(&here.taken, &pod.requests);
        let is_full = here.count >= here.node.pods;
        if is_full {
            why.full.push(name.clone());
        }
        if short.is_empty() && !is_full {
            why.fits.push(name);
            continue;
        }
        for (resource, by) in short {
            let has = amount(&here.node.allocatable, &resource);
            let one = why.short.entry(resource).or_insert_with(|| Short {
                nodes: 0,
                least: i64::MAX,
                on: String::new(),
                has,
            });
            one.nodes += 1;
            if by < one.least {
                (one.least, one.on, one.has) = (by, here.node.name.clone(), has);
            }
        }
    }
    why
}

fn off(wants: &Wants, node: &Node) -> Option<Off> {
    let cordon = "node.kubernetes.io/unschedulable";
    let taints: Vec<_> = node
        .taints
        .iter()
        .filter(|taint| taint.key != cordon)
        .cloned()
        .collect();
    if node.unschedulable {
        return Some(Off::Cordoned);
    }
    if let Some(taint) = wants.untolerated(&taints) {
        let value = if taint.value.is_empty() {
            String::new()
        } else {
            format!("={}", taint.value)
        };
        return Some(Off::Taint {
            taint: format!("{}{value}:{}", taint.key, taint.effect),
        });
    }
    (!wants.choose(&node.name, &node.labels)).then_some(Off::NotChosen)
}

fn amount(of: &Resources, resource: &str) -> i64 {
    match resource {
        "cpu" => of.cpu,
        "memory" => of.memory,
        "ephemeral-storage" => of.storage,
        other => of.other.get(other).copied().unwrap_or_default(),
    }
}

fn names(nodes: &[String]) -> String {
    let mut text = nodes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if nodes.len() > NAMED {
        text = format!("{text} and {} more", nodes.len() - NAMED);
    }
    text
}

impl Why {
    /// In a sentence.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        for (resource, short) in &self.short {
            parts.push(format!(
                "{resource} short on {}, by {} at least (on {})",
                short.nodes,
                shown(resource, short.least),
                short.on
            ));
        }
        if !self.full.is_empty() {
            parts.push(format!(
                "{} take no more pods ({})",
                self.full.len(),
                names(&self.full)
            ));
        }
        for (off, nodes) in &self.off {
            let (count, names) = (nodes.len(), names(nodes));
            parts.push(match off {
                Off::Cordoned => format!("{count} cordoned ({names})"),
                Off::Taint { taint } => {
                    format!("{count} have a taint that it does not tolerate, {taint} ({names})")
                }
                Off::NotChosen => format!("its selector or affinity leaves {count} out"),
            });
        }
        if !self.fits.is_empty() {
            parts.push(format!(
                "by its requests it fits on {}: something else keeps it off (volumes, ports, affinity between pods), or it is about to \
                 be scheduled",
                names(&self.fits)
            ));
        }
        let said = if self.said.is_empty() {
            String::new()
        } else {
            format!("; the scheduler says: {}", self.said)
        };
        format!(
            "it wants {}; of {} nodes {}{said}",
            self.wants,
            self.nodes,
            parts.join("; ")
        )
    }

    /// What would make it fit, for people.
    pub fn proposals(&self, pod: &Pod) -> Vec<String> {
        let mut proposals = Vec::new();
        if !self.fits.is_empty() {
            return proposals;
        }
        let smaller: Vec<_> = self
            .short
            .iter()
            .map(|(resource, short)| {
                let wants = amount(&self.wants, resource);
                (resource, short, wants - short.least)
            })
            .collect();
        if let [(resource, short, room)] = smaller.as_slice()
            && *room > 0
        {
            proposals.push(format!(
                "{}: proposal: request {resource} {} instead of {} ({}), and it fits on {}",
                pod.key,
                shown(resource, *room),
                shown(resource, room + short.least),
                pod.controller.as_deref().unwrap_or("its own manifest"),
                short.on
            ));
        }
        if !self.short.is_empty() || !self.full.is_empty() {
            let too_large = smaller
                .iter()
                .any(|(resource, short, _)| amount(&self.wants, resource) > short.has);
            proposals.push(format!(
                "{}: proposal: one more node with {} to spare{}",
                pod.key,
                self.wants,
                if too_large {
                    ", larger than those that there are: no node of this size could ever take it"
                } else {
                    ""
                }
            ));
        }
        if self.short.is_empty() && self.full.is_empty() && !self.off.is_empty() {
            proposals.push(format!(
                "{}: proposal: it is not room that it lacks; tolerate a taint, change its selector, or uncordon a node",
                pod.key
            ));
        }
        proposals
    }
}

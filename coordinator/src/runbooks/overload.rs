//! A node that has too much to do, the chapter 节点负载过高: its heaviest movable pods go elsewhere, one after the other. Pure.
//!
//! ```text
//!  cordon ─► relieve ─► uncordon
//!              │ over? heaviest movable pod: noted, then evicted (its budgets decide)
//!              │ awaited: as many pods of its controller are ready as before
//!              └ under the threshold for the hold time ─► done
//! ```
//!
//! | usage by `metrics.k8s.io` | its agent's `Overload` | |
//! |---|---|---|
//! | over the threshold | | over |
//! | under | stands | over: disks, or tasks that wait |
//! | under for the hold time | does not stand | done |
//! | not known | stands | over; the pods that its agent names are the heaviest, then those that ask for most |
//! | not known | in session, does not stand | done |
//! | not known | not in session | nobody can tell: waits, or is refused |
//!
//! Pods of a `DaemonSet`, mirrors of static pods and what the system cannot do without are never moved.

use std::time::Duration;

use tokio::time::Instant;

use super::around::Finding;
use super::maintenance::{cordon_words, empty, refused, step};
use super::plan::{Action, Refusal, Request, RunbookPlan};
use super::pods::{Fate, fate, names};
use super::world::{Agent, ApiView, World, seconds};
use crate::kubernetes::asked::Used;
use crate::kubernetes::objects::resources::shown;
use crate::kubernetes::objects::{Pod, Priority};

/// The condition by which agents tell it.
pub const CONDITION: &str = "Overload";
/// Percent of what the node has for pods, unless something else is asked for: kubelets have a fifth left for what comes at once.
const THRESHOLD: u32 = 80;
/// The load has to be lower for so long: twice the minute over which agents and kernels average it.
const HOLD: Duration = Duration::from_mins(2);
/// No more pods than this are moved by a run: whoever would move more looks first.
const AT_MOST: usize = 5;
/// So long it may take in all.
const RELIEVED: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_mins(2);

/// `blackstart runbook run overload`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let (view, node) = match world.api_node() {
        Ok(known) => known,
        Err(missing) => return refused(plan, "move pods away", missing),
    };
    let load = match load(world, &plan.request) {
        Load::Over(load) => load,
        Load::Under { words, .. } => {
            return refused(
                plan,
                "treat it as overloaded",
                format!("evidence that it is: {words}"),
            );
        }
        Load::NotKnown(missing) => return refused(plan, "treat it as overloaded", missing),
    };
    if view.can.eviction.is_none() {
        let missing = format!(
            "cluster {} ({}) serves no eviction API",
            world.cluster, view.can.version
        );
        return refused(plan, "evict pods", missing);
    }
    let heaviest = heaviest(world, view, &plan.request, load.presses);
    plan.refusals = left_out(view, &plan.request);
    if heaviest.is_empty() {
        return refused(
            plan,
            "move pods away",
            "a pod that may be moved: all that it has belong to the node, to the system, or are refused above".to_owned(),
        );
    }
    let most = at_most(&plan.request);
    let first: Vec<_> = heaviest
        .iter()
        .take(most)
        .map(|one| format!("{} ({})", one.pod.key, one.words))
        .collect();
    plan.steps = vec![
        step(Action::Cordon, cordon_words(node), SHORT),
        step(
            Action::Relieve,
            format!(
                "{}; heaviest first, {most} at most: {}",
                load.words,
                first.join(", ")
            ),
            RELIEVED,
        ),
        step(Action::Uncordon, "only if this run cordoned it", SHORT),
    ];
    plan.notes = super::pods::blocked(view, &plan.request);
    plan
}

/// What weighs most on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presses {
    /// Its processors.
    Cpu,
    /// Its memory.
    Memory,
}

/// The load of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// Too much.
    Over(Over),
    /// Not too much.
    Under {
        /// Since when, as far as was looked; `None`: its agent vouches for it.
        since: Option<Instant>,
        /// For people.
        words: String,
    },
    /// Nobody can tell.
    NotKnown(String),
}

/// Too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// What weighs most.
    pub presses: Presses,
    /// For people.
    pub words: String,
}

/// Percent of what the node has for pods.
pub fn threshold(request: &Request) -> u32 {
    request.options.threshold_percent.unwrap_or(THRESHOLD)
}

/// The load has to be lower for so long.
pub fn hold(request: &Request) -> Duration {
    let asked = request.options.hold_seconds;
    asked.map_or(HOLD, |hold| Duration::from_secs(hold.into()))
}

/// No more pods than this are moved.
pub fn at_most(request: &Request) -> usize {
    let asked = request
        .options
        .at_most
        .and_then(|most| usize::try_from(most).ok());
    asked.unwrap_or(AT_MOST)
}

/// How much there is to do for a node: the table of the module.
pub fn load(world: &World, request: &Request) -> Load {
    let limit = threshold(request);
    let told = world.around.conditions.get(CONDITION);
    let by_agent = told.map(|finding| format!("its agent says: {}", finding.evidence));
    match (metered(world, limit), by_agent) {
        (Ok(Load::Over(over)), _) => Load::Over(over),
        (Ok(Load::Under { words, .. }), Some(agent)) => Load::Over(Over {
            presses: Presses::Cpu,
            words: format!("{words}; {agent}"),
        }),
        (Ok(other), None) => other,
        (Ok(Load::NotKnown(why)) | Err(why), Some(agent)) => Load::Over(Over {
            presses: Presses::Cpu,
            words: format!("{agent}; usage is not known: {why}"),
        }),
        (Err(why), None) if matches!(world.agent, Agent::Speaks { .. }) => Load::Under {
            since: None,
            words: format!("its agent finds no overload; usage is not known: {why}"),
        },
        (Err(why), None) => Load::NotKnown(format!(
            "its usage ({why}), or its agent's word ({})",
            world.agent_words()
        )),
    }
}

/// By `metrics.k8s.io`, or why not.
fn metered(world: &World, limit: u32) -> Result<Load, String> {
    let (_, node) = world.api_node()?;
    let usage = world.around.usage.within(world.timing.usage * 4, world.now)?;
    let used = usage
        .nodes
        .get(&node.name)
        .ok_or_else(|| format!("metrics.k8s.io does not know {}", node.name))?;
    let percent = |used: i64, has: i64| {
        if has > 0 {
            used.saturating_mul(100) / has
        } else {
            0
        }
    };
    let shares = |used: &Used| {
        (
            percent(used.cpu, node.allocatable.cpu),
            percent(used.memory, node.allocatable.memory),
        )
    };
    let (cpu, memory) = shares(used);
    let words = format!(
        "cpu {cpu}% ({} of {}), memory {memory}% ({} of {}) of what it has for pods; the threshold is {limit}%",
        shown("cpu", used.cpu),
        shown("cpu", node.allocatable.cpu),
        shown("memory", used.memory),
        shown("memory", node.allocatable.memory),
    );
    let is_over = |(cpu, memory): (i64, i64)| cpu.max(memory) >= i64::from(limit);
    if is_over((cpu, memory)) {
        let presses = if cpu >= memory {
            Presses::Cpu
        } else {
            Presses::Memory
        };
        return Ok(Load::Over(Over { presses, words }));
    }
    let calm = world.around.samples.iter().rev();
    let since = calm.take_while(|sample| !is_over(shares(&sample.used))).last();
    Ok(Load::Under {
        since: since.map(|sample| sample.at),
        words,
    })
}

/// A pod that may be moved.
#[derive(Debug, Clone)]
pub struct Heavy<'a> {
    /// Which.
    pub pod: &'a Pod,
    weight: i64,
    /// How heavy it is, for people.
    pub words: String,
}

/// Whether a pod may be moved to relieve its node.
fn is_movable(pod: &Pod, request: &Request) -> bool {
    pod.priority == Priority::Usual
        && !pod.is_over()
        && !pod.is_deleting
        && pod.controller.is_some()
        && fate(pod, request) == Fate::Goes
}

/// The pods that may be moved, the heaviest first.
pub fn heaviest<'a>(world: &World, view: &'a ApiView, request: &Request, presses: Presses) -> Vec<Heavy<'a>> {
    let usage = world.around.usage.within(world.timing.usage * 4, world.now).ok();
    let told = world.around.conditions.get(CONDITION);
    let told = told.map(ByAgent::of).unwrap_or_default();
    let movable = view.pods.iter().filter(|pod| is_movable(pod, request));
    let mut pods: Vec<_> = movable
        .map(|pod| {
            let used = usage.and_then(|usage| usage.pods.get(&pod.key));
            let by_agent = told.of_pod(pod);
            let (known, weight, words) = match (used, by_agent, presses) {
                (Some(used), _, Presses::Cpu) => (2, used.cpu, format!("uses {used}")),
                (Some(used), _, Presses::Memory) => (2, used.memory, format!("uses {used}")),
                (None, Some(used), Presses::Memory) if used.memory > 0 => {
                    (1, used.memory, format!("uses {used} by its agent's word"))
                }
                (None, Some(used), _) => (1, used.cpu, format!("uses {used} by its agent's word")),
                (None, None, Presses::Cpu) => (0, pod.requests.cpu, format!("asks for {}", pod.requests)),
                (None, None, Presses::Memory) => {
                    (0, pod.requests.memory, format!("asks for {}", pod.requests))
                }
            };
            (known, Heavy { pod, weight, words })
        })
        .collect();
    pods.sort_by(|(known, one), (other_known, other)| {
        (other_known, other.weight, &one.pod.key).cmp(&(known, one.weight, &other.pod.key))
    });
    pods.into_iter().map(|(_, heavy)| heavy).collect()
}

/// What an agent says of the pods of its node.
#[derive(Debug, Default)]
struct ByAgent(Vec<(Told, Used)>);

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Uid(String),
    Name(String),
}

impl ByAgent {
    /// By its figures; of an agent of an earlier version, by its evidence.
    fn of(finding: &Finding) -> Self {
        if finding.heaviest.is_empty() {
            let named = named_in(&finding.evidence).into_iter();
            return Self(named.map(|(name, used)| (Told::Name(name), used)).collect());
        }
        let figure = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
        let pods = finding.heaviest.iter().map(|pod| {
            let used = Used {
                cpu: figure(pod.cpu_millis),
                memory: figure(pod.memory_bytes),
            };
            let told = if pod.uid.is_empty() {
                Told::Name(format!("{}/{}", pod.namespace, pod.name))
            } else {
                Told::Uid(pod.uid.clone())
            };
            (told, used)
        });
        Self(pods.collect())
    }

    fn of_pod(&self, pod: &Pod) -> Option<Used> {
        let is = |told: &Told| match told {
            Told::Uid(uid) => *uid == pod.uid,
            Told::Name(name) => *name == pod.key.to_string(),
        };
        self.0.iter().find(|(told, _)| is(told)).map(|(_, used)| *used)
    }
}

/// The pods that an agent without figures of its own names as the heaviest in the evidence of its `Overload` ("pod NAMESPACE/NAME 180%"),
/// with percent of one processor.
fn named_in(evidence: &str) -> Vec<(String, Used)> {
    let Some((_, listed)) = evidence.split_once("heaviest: ") else {
        return Vec::new();
    };
    let listed = listed.split(';').next().unwrap_or_default();
    listed
        .split(", ")
        .filter_map(|one| {
            let (name, percent) = one.trim().strip_prefix("pod ")?.rsplit_once(' ')?;
            let percent: i64 = percent.strip_suffix('%')?.parse().ok()?;
            let used = Used {
                cpu: percent.saturating_mul(10),
                memory: 0,
            };
            Some((name.to_owned(), used))
        })
        .collect()
}

/// Why others are not moved, one for each reason.
fn left_out(view: &ApiView, request: &Request) -> Vec<Refusal> {
    let mut refusals = super::pods::refusals(view, request);
    let critical: Vec<_> = view
        .pods
        .iter()
        .filter(|pod| pod.priority == Priority::System)
        .collect();
    if !critical.is_empty() {
        refusals.push(Refusal {
            what: format!("move {}", names(critical)),
            missing:
                "nothing gives that right: their priority class says that the system cannot do without them"
                    .to_owned(),
        });
    }
    refusals
}

/// `for 90 s of 120 s`.
pub fn held_words(since: Instant, hold: Duration, now: Instant) -> String {
    format!(
        "for {} of {}",
        seconds(now.saturating_duration_since(since)),
        seconds(hold)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_that_an_agent_names_are_read_from_its_evidence() {
        let evidence = "load 40.0 over a minute, 38.0 over five, on 4 processors; within a minute some task waited for a processor 90% \
                        of the time, some for a disk 0%, all for a disk 0%; heaviest: pod biz/web-1 210%, kubelet.service 40%, pod \
                        biz/db-0 12%; 3 tasks are blocked on disks";
        let named: Vec<_> = named_in(evidence)
            .into_iter()
            .map(|(name, used)| (name, used.cpu))
            .collect();
        assert_eq!(
            named,
            [("biz/web-1".to_owned(), 2100), ("biz/db-0".to_owned(), 120)]
        );
        assert!(named_in("load 40.0").is_empty());
    }
}

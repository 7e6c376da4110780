//! (conditions, history, policy, now) → remedies or escalations. Pure.
//!
//! ```text
//!  what stands ─┐
//!  History ─────┤            begin:      what to do now, at most one a subject
//!  Health ──────┼─► decide ─► refill:     units whose health has lasted
//!  Brakes ──────┤            conditions: what stands, with RemedyExhausted for what is spent
//!  in flight ───┘            waiting:    why nothing is done about the rest; next_look
//! ```
//!
//! | module | story |
//! |---|---|
//! | `treatment` | what the agent itself does about each condition |
//! | `waiting` | why nothing is done at present |
//! | [`budgets`] | what is left of each |
//! | [`history`] | what was tried, from the ledger |
//! | [`health`] | what refills a budget |
//! | `held` | what holds a remedy back whatever stands: the protect list, silence, holds, freezes |
//! | `ladder` | a unit: restart, then kill and restart, then stop |
//! | `order` | a unit waits for those that it needs |
//! | `logs` | a log: reclaim, within its budget |
//! | `disks` | a disk: the journal, then what docker does not need |
//! | `containers` | an unhealthy container: restart, within its budget |
//! | `static_pods` | a component of the control plane: bounce it, one at a time |
//! | [`permits`] | what the rest of the cluster feels waits for the coordinator's permit |
//! | `memory` | memory that is critically short: the largest unit that may be restarted |
//! | `load` | overload: more weight for the kubelet and the runtimes |
//! | `served` | a unit that is restarted for what it serves: the clock, the CNI configuration |

pub mod budgets;
mod containers;
mod disks;
pub mod health;
pub(crate) mod held;
pub mod history;
mod ladder;
mod load;
mod logs;
mod memory;
mod order;
pub mod permits;
mod served;
mod static_pods;
mod treatment;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::brakes::Standing;
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::Settings;
use crate::diagnose::memory::Stress;
use crate::permit::Wish;
use crate::privilege::{self, Lack};
use crate::remedy::Remedy;

use health::Health;
use history::History;
use permits::Permits;

pub(crate) use treatment::Treatment;
pub use waiting::{Waiting, WaitingOn};

/// What holds remedies back, whatever stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brakes {
    /// The boot gate holds the kubelet: starting it is the coordinator's to say, or the dead-man's.
    pub gate_held: bool,
    /// systemd cannot be asked: an attempt would be spent without reaching the unit.
    pub systemd_away: bool,
    /// The ledger could not be written a moment ago; tried again then. Logs are reclaimed nevertheless, since a full
    /// disk may be why.
    pub ledger_until: Option<Instant>,
    /// Remedies that would be in vain, for lack of a privilege.
    pub lacks: Option<Arc<[Lack]>>,
    /// What people and the coordinator hold back.
    pub standing: Standing,
    /// What the coordinator has permitted.
    pub permits: Permits,
}

/// Everything a decision looks at.
#[derive(Debug)]
pub struct Input<'a> {
    /// What diagnosis says stands.
    pub conditions: &'a [Condition],
    /// What was tried.
    pub history: &'a History,
    /// How long units have been healthy.
    pub health: &'a Health,
    /// Ladders, budgets, and the units that may be touched.
    pub settings: &'a Settings,
    /// What holds remedies back.
    pub brakes: &'a Brakes,
    /// Remedies that run now, by subject.
    pub in_flight: &'a BTreeMap<String, Remedy>,
    /// Memory that is critically short, and who holds it.
    pub stress: Option<Stress<'a>>,
    /// Now.
    pub now: Instant,
}

/// A remedy to begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What.
    pub remedy: Remedy,
    /// Why: the evidence, and which attempt it is.
    pub reason: String,
}

/// What to do, and what to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// To be begun now.
    pub begin: Vec<Proposal>,
    /// Units whose health has lasted: to be written to the ledger as [`history::REFILL`].
    pub refill: Vec<String>,
    /// What stands: diagnosis' conditions, with `escalated` where the remedies are spent, and a
    /// [`ConditionKind::RemedyExhausted`] for each subject of those.
    pub conditions: Vec<Condition>,
    /// Why nothing is done about the others.
    pub waiting: Vec<Waiting>,
    /// What the coordinator's permit is waited for.
    pub wishes: Vec<Wish>,
    /// When to decide again though nothing has changed; always later than now.
    pub next_look: Option<Instant>,
}

pub(crate) use disks::AGAIN as DISK_AGAIN;
pub(crate) use load::AGAIN as LOAD_AGAIN;

/// What comes of a look at one condition.
#[derive(Debug)]
enum Look {
    Begin(Proposal),
    Wait(WaitingOn),
    Spent {
        /// The last attempt's end.
        since: Instant,
        evidence: String,
        /// When the budget has room again by itself.
        again: Option<Instant>,
    },
}

/// Decides. The same input gives the same decision.
pub fn decide(input: &Input<'_>) -> Decision {
    let mut decision = Decision::default();
    let mut taken: BTreeSet<String> = input.in_flight.keys().cloned().collect();
    let mut reclaims = input
        .in_flight
        .values()
        .filter(|remedy| matches!(remedy, Remedy::ReclaimLog { .. }))
        .count();
    let is_bounce = |remedy: &Remedy| matches!(remedy, Remedy::BounceStaticPod { .. });
    let mut bouncing = input.in_flight.values().any(is_bounce);
    for condition in input.conditions {
        let treatment = Treatment::of(condition.key.kind);
        let look = treat(input, condition, &taken, reclaims, bouncing);
        let look = look.map(|look| possible(look, input.brakes));
        let look = look.map(|look| held_back(input, condition, look));
        let look = look.map(|look| permits::permitted(look, input, &mut decision.wishes));
        // More weight for some mends no overload: that stays somebody's to see to.
        let mends = treatment != Treatment::Protect;
        let mut standing = condition.clone();
        let subject = condition.key.subject.clone();
        match look {
            None => {}
            Some(Look::Begin(proposal)) => {
                taken.insert(proposal.remedy.subject());
                standing.escalated &= !mends;
                reclaims += usize::from(matches!(proposal.remedy, Remedy::ReclaimLog { .. }));
                bouncing |= is_bounce(&proposal.remedy);
                decision.begin.push(proposal);
            }
            Some(Look::Wait(on)) => {
                if let Some(until) = on.ends() {
                    decision.look_at(until);
                }
                // Somebody has to see to it, and the agent looks now and then whether they did.
                let lacks = matches!(
                    on,
                    WaitingOn::Privilege(_) | WaitingOn::Permit { on: Some(_), .. }
                );
                standing.escalated = lacks || standing.escalated && !mends;
                decision.waiting.push(Waiting {
                    kind: condition.key.kind,
                    subject,
                    on,
                });
            }
            Some(Look::Spent {
                since,
                evidence,
                again,
            }) => {
                standing.escalated = true;
                if let Some(again) = again {
                    decision.look_at(again);
                }
                decision
                    .conditions
                    .push(exhausted(subject, since.max(condition.since), evidence));
            }
        }
        decision.conditions.push(standing);
    }
    // Two conditions of one subject are one exhaustion.
    let mut told = BTreeSet::new();
    decision.conditions.retain(|condition| {
        condition.key.kind != ConditionKind::RemedyExhausted || told.insert(condition.key.subject.clone())
    });
    refill(input, &mut decision);
    decision
}

/// What would be in vain is not attempted again and again.
fn possible(look: Look, brakes: &Brakes) -> Look {
    let Look::Begin(proposal) = look else {
        return look;
    };
    let lacks = brakes.lacks.as_deref().unwrap_or_default();
    match privilege::disabled(lacks, &proposal.remedy) {
        Some(lack) => Look::Wait(WaitingOn::Privilege(lack.clone())),
        None => Look::Begin(proposal),
    }
}

/// What its treatment makes of one condition, when subjects of `taken` are being treated, so many logs are being reclaimed, and a static
/// pod is being bounced; `None` where there is nothing to do but to tell.
fn treat(
    input: &Input<'_>,
    condition: &Condition,
    taken: &BTreeSet<String>,
    reclaims: usize,
    bouncing: bool,
) -> Option<Look> {
    let treatment = Treatment::of(condition.key.kind);
    match (treatment, &condition.log) {
        (Treatment::Ladder, _) => Some(ladder::look(
            input,
            condition,
            &condition.key.subject,
            ladder::FULL,
            taken,
        )),
        (Treatment::KillKubelet, _) => Some(ladder::look(
            input,
            condition,
            &input.settings.kubelet_unit,
            ladder::KILL,
            taken,
        )),
        (Treatment::RestartRuntime, _) => Some(ladder::look(
            input,
            condition,
            &condition.key.subject,
            ladder::RUNTIME,
            taken,
        )),
        (Treatment::KillUnit, _) => Some(ladder::look(
            input,
            condition,
            &condition.key.subject,
            ladder::HUNG_JOB,
            taken,
        )),
        (Treatment::RestartKubelet, _) => Some(ladder::look(
            input,
            condition,
            &input.settings.kubelet_unit,
            ladder::PLEG,
            taken,
        )),
        (Treatment::RestartTimeService, _) => Some(served::clock(input, condition, taken)),
        (Treatment::RestartCni, _) => served::cni(input, condition, taken),
        (Treatment::FreeDisk, _) => Some(disks::look(input, condition, taken, reclaims)),
        (Treatment::FreeInodes, _) => Some(disks::free_inodes(input, condition, taken)),
        (Treatment::RestartContainer, _) => containers::look(input, condition, taken),
        (Treatment::Reclaim, Some(log)) => Some(logs::look(input, condition, log, taken, reclaims)),
        (Treatment::Bounce, _) => Some(static_pods::look(input, condition, taken, bouncing)),
        (Treatment::RelieveMemory, _) => memory::look(input, condition, taken),
        (Treatment::Protect, _) => load::look(input, condition, taken),
        (Treatment::Reclaim, None) | (Treatment::Tell, _) => None,
    }
}

/// What comes of a look when somebody holds back what it would begin. Who waits for something else anyway is told of the hold first:
/// it is what lasts. A remedy that runs, and one that is spent, is told as it is.
fn held_back(input: &Input<'_>, condition: &Condition, look: Look) -> Look {
    let by = match &look {
        Look::Wait(WaitingOn::Running) | Look::Spent { .. } => None,
        Look::Wait(_) => held::of_condition(input, condition),
        Look::Begin(Proposal { remedy, .. }) => {
            held::of_condition(input, condition).or_else(|| held::of_remedy(input, remedy))
        }
    };
    by.map_or(look, Look::Wait)
}

impl Decision {
    fn look_at(&mut self, at: Instant) {
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }
}

fn exhausted(subject: String, since: Instant, evidence: String) -> Condition {
    Condition {
        key: ConditionKey {
            kind: ConditionKind::RemedyExhausted,
            subject,
        },
        severity: Severity::Critical,
        since,
        evidence,
        escalated: true,
        log: None,
        heaviest: Vec::new(),
    }
}

/// Units and static pods with attempts on their account whose health has lasted for the window.
fn refill(input: &Input<'_>, decision: &mut Decision) {
    let settings = input.settings;
    let components = settings
        .static_pods
        .components
        .iter()
        .map(|component| &component.name);
    let subjects: BTreeSet<_> = settings
        .units
        .iter()
        .chain(settings.helpers())
        .chain(components)
        .collect();
    for unit in subjects {
        if input.in_flight.contains_key(unit) || input.history.of(unit).next().is_none() {
            continue;
        }
        let Some(since) = input.health.since(unit) else {
            continue;
        };
        let Some(since) = input.health.served().well_since(unit, since, input.settings) else {
            continue;
        };
        let due = since + input.settings.restart.window;
        if due > input.now {
            decision.look_at(due);
        } else if let Some(until) = input.brakes.ledger_until.filter(|until| *until > input.now) {
            decision.look_at(until);
        } else {
            decision.refill.push(unit.clone());
        }
    }
}

#[cfg(test)]
mod tests;

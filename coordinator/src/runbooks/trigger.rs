//! Which runbooks the coordinator begins, proposes or withdraws by itself. Pure: (what calls for one, runs, policy, now) → [`Decision`]s.
//!
//! | trigger | a run about the same is open | somebody is at work on the node | a run failed lately | → |
//! |---|---|---|---|---|
//! | off | | | | nothing |
//! | | yes | | | nothing |
//! | | no | yes | | nothing |
//! | | no | no | yes | nothing, for `back_off`, twice that after the next failure, and so on |
//! | propose | no | no | no | a run that waits for an operator's word |
//! | auto | no | no | no | a run at work |
//!
//! What is proposed is withdrawn when nothing calls for it any more. Where the cluster is in a storm or a power event nothing is begun.

use std::time::Duration;

use super::plan::{Request, Runbook};
use super::policy::RunbookPolicy;
use super::record::RunState;
use super::status::RunbookStatus;
use crate::inventory::{ClusterName, NodeName};
use crate::policy::Trigger;

/// Who asks for what the coordinator begins by itself.
pub const BY: &str = "blackstart";
/// Failures double the pause no more often than this.
const DOUBLED: u32 = 6;

/// Something that calls for a runbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Which.
    pub runbook: Runbook,
    /// About this node; `None`: about the whole cluster.
    pub node: Option<NodeName>,
    /// The cluster.
    pub cluster: ClusterName,
    /// What was seen.
    pub evidence: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Begin a run, or propose it.
    Begin {
        /// For this.
        sign: Sign,
        /// It waits for an operator.
        propose: bool,
    },
    /// End a proposal.
    Withdraw {
        /// Its id.
        run: String,
    },
}

impl Sign {
    fn is_about(&self, request: &Request) -> bool {
        match &self.node {
            Some(node) => request.node == *node,
            None => request.node.0.is_empty() && request.options.cluster.as_ref() == Some(&self.cluster),
        }
    }

    pub(super) fn asks_for(&self, run: &RunbookStatus) -> bool {
        run.plan.request.runbook == self.runbook && self.is_about(&run.plan.request)
    }
}

/// Decides.
pub fn decide(
    signs: &[Sign],
    runs: &[&RunbookStatus],
    policy: &RunbookPolicy,
    now_unix_ms: u64,
) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for run in runs.iter().filter(|run| run.is_proposal) {
        if !signs.iter().any(|sign| sign.asks_for(run)) {
            decisions.push(Decision::Withdraw { run: run.id.clone() });
        }
    }
    for sign in signs {
        let propose = match policy.triggers.of(sign.runbook) {
            Trigger::Off => continue,
            Trigger::Propose => true,
            Trigger::Auto => false,
        };
        let active = || runs.iter().filter(|run| run.state.is_active());
        let is_open = active().any(|run| sign.asks_for(run));
        let is_in_hand =
            sign.node.is_some() && active().any(|run| !run.is_proposal && sign.is_about(&run.plan.request));
        if is_open || is_in_hand || rests(sign, runs, policy, now_unix_ms) {
            continue;
        }
        decisions.push(Decision::Begin {
            sign: sign.clone(),
            propose,
        });
    }
    decisions
}

/// An earlier run for the same is too near. A run that succeeded rests once, since what called for it is still there.
fn rests(sign: &Sign, runs: &[&RunbookStatus], policy: &RunbookPolicy, now_unix_ms: u64) -> bool {
    let mut ended: Vec<_> = runs
        .iter()
        .filter(|run| !run.state.is_active() && sign.asks_for(run))
        // Its coordinator ended it: nothing called for it, which is no failure.
        .filter(|run| run.aborted_by.as_deref() != Some(BY))
        .collect();
    ended.sort_by_key(|run| run.changed_unix_ms);
    let Some(last) = ended.last() else { return false };
    let failed = ended
        .iter()
        .rev()
        .take_while(|run| run.state != RunState::Succeeded)
        .count();
    let doubled = u32::try_from(failed.saturating_sub(1))
        .unwrap_or(DOUBLED)
        .min(DOUBLED);
    let pause = policy.back_off.saturating_mul(1 << doubled);
    let since = Duration::from_millis(now_unix_ms.saturating_sub(last.changed_unix_ms));
    since < pause
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Entry, Event};
    use super::super::maintenance::step;
    use super::super::mends::Mends;
    use super::super::options::Options;
    use super::super::plan::{Action, RunbookPlan};
    use super::super::record::Record;
    use super::super::subject::Mending;
    use super::*;
    use crate::inventory::Role;

    fn sign() -> Sign {
        Sign {
            runbook: Runbook::Overload,
            node: Some(NodeName("w1".into())),
            cluster: ClusterName("biz".into()),
            evidence: "load".into(),
        }
    }

    fn run(runbook: Runbook, proposed: bool, ended: Option<(u64, &str)>) -> RunbookStatus {
        let entry = |at_unix_ms, event| Entry { at_unix_ms, event };
        let plan = RunbookPlan {
            request: Request {
                runbook,
                node: NodeName("w1".into()),
                by: BY.into(),
                reason: String::new(),
                drain_within: Duration::ZERO,
                delete_local_data: false,
                delete_unmanaged: false,
                proof: None,
                options: Options {
                    proposed: proposed.then(|| "load".to_owned()),
                    ..Options::default()
                },
                subject: None,
                mending: Mending::default(),
            },
            cluster: ClusterName("biz".into()),
            role: Role::Worker,
            steps: vec![step(Action::Cordon, "", Duration::from_secs(1))],
            refusals: Vec::new(),
            notes: Vec::new(),
            pods: Vec::new(),
            before: Vec::new(),
            readiness: None,
            mends: Mends::default(),
            etcd: None,
            flags: Vec::new(),
        };
        let plan = Box::new(plan);
        let mut record = Record::begin(
            format!("{runbook}-1"),
            entry(0, Event::RunbookStarted { plan, epoch: 1 }),
        )
        .unwrap();
        if let Some((at, by)) = ended {
            record
                .apply(&entry(at, Event::Aborted { by: by.to_owned() }))
                .unwrap();
            record.apply(&entry(at, Event::Ended)).unwrap();
        }
        RunbookStatus::new(&record, None)
    }

    fn policy(overload: Trigger) -> RunbookPolicy {
        let mut policy = RunbookPolicy::default();
        policy.triggers.overload = overload;
        policy
    }

    fn begins(runs: &[&RunbookStatus], trigger: Trigger, now: u64) -> Option<bool> {
        let decisions = decide(&[sign()], runs, &policy(trigger), now);
        decisions.into_iter().find_map(|decision| match decision {
            Decision::Begin { propose, .. } => Some(propose),
            Decision::Withdraw { .. } => None,
        })
    }

    #[test]
    fn a_sign_begins_what_its_trigger_says_once() {
        assert_eq!(begins(&[], Trigger::Off, 0), None);
        assert_eq!(begins(&[], Trigger::Propose, 0), Some(true));
        assert_eq!(begins(&[], Trigger::Auto, 0), Some(false));
        let open = run(Runbook::Overload, true, None);
        assert_eq!(begins(&[&open], Trigger::Auto, 0), None);
        let drain = run(Runbook::Drain, false, None);
        assert_eq!(
            begins(&[&drain], Trigger::Auto, 0),
            None,
            "somebody is at work on it"
        );
        let other = run(Runbook::NodeDown, true, None);
        assert_eq!(
            begins(&[&other], Trigger::Auto, 0),
            Some(false),
            "a proposal is no work"
        );
    }

    #[test]
    fn failures_are_rested_after_twice_as_long_each_time_and_a_withdrawal_is_none() {
        const MINUTE: u64 = 60_000;
        let first = run(Runbook::Overload, false, Some((0, "ann")));
        assert_eq!(begins(&[&first], Trigger::Auto, 29 * MINUTE), None);
        assert_eq!(begins(&[&first], Trigger::Auto, 30 * MINUTE), Some(false));
        let second = run(Runbook::Overload, false, Some((30 * MINUTE, "ann")));
        assert_eq!(begins(&[&first, &second], Trigger::Auto, 89 * MINUTE), None);
        assert_eq!(
            begins(&[&first, &second], Trigger::Auto, 90 * MINUTE),
            Some(false)
        );
        let withdrawn = run(Runbook::Overload, true, Some((0, BY)));
        assert_eq!(begins(&[&withdrawn], Trigger::Auto, MINUTE), Some(false));
    }

    #[test]
    fn what_nothing_calls_for_any_more_is_withdrawn() {
        let proposal = run(Runbook::Overload, true, None);
        let at_work = run(Runbook::Overload, false, None);
        let decisions = decide(&[], &[&proposal, &at_work], &policy(Trigger::Propose), 0);
        assert_eq!(
            decisions,
            [Decision::Withdraw {
                run: "overload-1".into()
            }]
        );
        assert_eq!(decide(&[sign()], &[&proposal], &policy(Trigger::Propose), 0), []);
    }
}

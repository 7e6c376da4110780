//! What a step does next. Pure: a function of (step, how far it is, world).
//!
//! Each look begins with the world, never with what was done before: so a step that a crash cut short is taken up by the same
//! look, a call that was done already is not repeated, and one that may be sent twice carries what it rests on (uid,
//! resource version).

mod control_plane;
mod etcd;
mod heal;
mod pods;
mod power;
mod relief;
mod running;
mod tolerations;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::call::{Call, KubeletOrder};
use super::journal::Memo;
use super::mends::Mends;
use super::plan::{Action, Request, Runbook, RunbookPlan, Step};
use super::waiting::WaitingOn;
use super::world::{Agent, ApiView, World, seconds};
use crate::fleet::{Answer, EtcdAct};
use crate::kubernetes::calls::{ApiCall, Precondition, Target};
use crate::kubernetes::objects::{CORDONED_BY, Node, TAINTED_BY};

/// A command is tried so often before its step fails.
const ATTEMPTS: u32 = 3;
/// A command without an answer is sent again, under its own id, after this.
const RESEND_AFTER: Duration = Duration::from_secs(5);

/// How far a step is, as its run's journal and this process know.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Its intent is durable.
    pub begun: bool,
    /// The operator who approved of it.
    pub approved: Option<String>,
    /// Since when it is looked at by this process; deadlines start anew after a crash.
    pub turn: Option<Instant>,
    /// It puts back a change of which nobody knows whether it was made, or is still to be.
    pub unsure: bool,
    /// Commands to its agent that were durable before they were sent.
    pub attempts: u32,
    /// So many of them are not held against it.
    pub forgiven: u32,
    /// When the last was sent by this process.
    pub sent: Option<Instant>,
    /// The answer to the last, if this process heard one.
    pub heard: Option<(Answer, String, Instant)>,
    /// Calls that were refused, each not to be sent again before a time, with the reason.
    pub refused: BTreeMap<Target, (Instant, String)>,
    /// What was done for it, one after the other.
    pub notes: Vec<Memo>,
    /// When this process last changed something for it.
    pub acted: Option<Instant>,
    /// Its management controller refused to cut the power; not to be asked again before this, and why.
    pub refused_power: Option<(Instant, String)>,
    /// Since when the pods that it waits for are well, and the same, as this process saw it.
    pub steady: Option<Instant>,
}

/// In [`Progress::refused`]: it was done, and its cache has not heard of it.
pub const NOT_SEEN: &str = "done, and not seen yet";

/// What a step does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// It is as it should be.
    Done(String),
    /// Something is to be done, and this waits for what comes of it.
    Do(Vec<Call>, WaitingOn),
    /// Nothing can be done but wait.
    Wait(WaitingOn),
    /// It cannot be done.
    Failed(String),
}

/// A change that was sent is made within this or never: twice what its request tells the API server (`timeout`).
const SETTLED: Duration = Duration::from_secs(10);

/// Which run looks, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Its id.
    pub run: &'a str,
    /// What was asked for.
    pub request: &'a Request,
    /// What it carries out.
    pub plan: &'a RunbookPlan,
    /// It puts back what it changed: only what is its own is touched.
    pub undoing: bool,
    /// The pods and templates that its plan is about.
    pub mends: &'a Mends,
}

impl Context<'_> {
    const fn rollback(&self) -> bool {
        self.request.mending.rollback
    }
}

/// Says what a step does next.
pub fn look(step: &Step, progress: &Progress, context: Context<'_>, world: &World) -> Look {
    let at = At {
        step,
        progress,
        context,
        world,
        turn: progress.turn.unwrap_or(world.now),
    };
    let look = at.look(step.action);
    let late = world.now.saturating_duration_since(at.turn) >= step.deadline;
    match look {
        // A drain that is late is over; what remains is for an operator to say.
        Look::Do(_, waiting) | Look::Wait(waiting) if late && step.action == Action::Drain => Look::Done(
            format!("not drained within {}: {waiting}", seconds(step.deadline)),
        ),
        // Pods may find room all the same.
        Look::Wait(waiting) if late && step.action == Action::AwaitReclaim => Look::Done(format!(
            "not given back within {}: {waiting}",
            seconds(step.deadline)
        )),
        // It is replaced then.
        Look::Do(_, waiting) | Look::Wait(waiting) if late && step.action == Action::BounceEtcd => {
            Look::Done(format!(
                "not back in place within {}: {waiting}",
                seconds(step.deadline)
            ))
        }
        Look::Do(_, waiting) | Look::Wait(waiting) if late => Look::Failed(format!(
            "not done within {}: it waits for {waiting}",
            seconds(step.deadline)
        )),
        other @ (Look::Done(_) | Look::Do(..) | Look::Wait(_) | Look::Failed(_)) => other,
    }
}

struct At<'a> {
    step: &'a Step,
    progress: &'a Progress,
    context: Context<'a>,
    world: &'a World,
    turn: Instant,
}

impl At<'_> {
    fn look(&self, action: Action) -> Look {
        match action {
            Action::Silence => match &self.world.silence {
                Some(silence) => Look::Done(format!("silenced by {}", silence.by)),
                None => Look::Do(vec![Call::Silence], WaitingOn::Change("the silence")),
            },
            Action::Unsilence => self.unsilence(),
            Action::Cordon => self.of_node(Self::cordon),
            Action::Uncordon => self.of_node(Self::uncordon),
            Action::Drain => self.of_api(Self::drain),
            Action::DeleteRemaining => self.of_api(Self::delete_remaining),
            Action::StopKubelet => self.kubelet(KubeletOrder::Stop),
            Action::StartKubelet => self.kubelet(KubeletOrder::Start),
            Action::RestartKubelet => self.kubelet(KubeletOrder::Restart),
            Action::AwaitReady => self.await_ready(),
            Action::TaintOutOfService => self.of_node(Self::taint),
            Action::RemoveTaint => self.of_node(Self::remove_taint),
            Action::AwaitMoved => self.of_api(|_, view| pods::await_moved(view)),
            Action::ForceDelete => self.of_api(Self::force_delete),
            Action::PowerOff => self.of_node(Self::power_off),
            Action::Relieve => self.of_api(Self::relieve),
            Action::AwaitReclaim => self.await_reclaim(),
            Action::AwaitRunning => self.await_running(),
            Action::ShortenTolerations => self.shorten_tolerations(),
            Action::AwaitReachable => self.await_reachable(),
            Action::RestoreTolerations => self.restore_tolerations(),
            Action::AwaitWorkloads => self.await_workloads(),
            Action::Recreate => self.of_case(Self::recreate),
            Action::FinishTermination => self.of_case(Self::finish_termination),
            Action::RaiseMemory => {
                self.of_case(|at, case| at.templates(case, |mend| !mend.memory.is_empty()))
            }
            Action::AddTolerations => {
                self.of_case(|at, case| at.templates(case, |mend| mend.tolerations.is_some()))
            }
            Action::RestoreTemplates => self.of_case(Self::restore),
            Action::RolloutRestart => self.of_case(Self::rollout_restart),
            Action::AwaitRollout => self.of_case(Self::await_rollout),
            Action::AwaitSteady => self.of_case(Self::await_steady),
            Action::SnapshotEtcd => self.of_etcd(Self::snapshot),
            Action::BounceEtcd => self.of_etcd(Self::bounce),
            Action::RemoveEtcdMember => self.of_member(Self::remove_member),
            Action::AddEtcdMember => self.of_successor(Self::add_member),
            Action::RebuildEtcdMember => self.of_successor(Self::rebuild_member),
            Action::AwaitEtcdSync => self.of_successor(|_, view, replaced| Self::await_sync(view, replaced)),
            Action::PromoteEtcdMember => self.of_successor(Self::promote_member),
            Action::AwaitEtcdHealthy => self.of_etcd(Self::await_etcd),
            Action::SetInitialCluster => self.of_member(Self::set_initial_cluster),
            Action::FenceEtcd if self.context.request.runbook == Runbook::EtcdMember => {
                self.of_successor(Self::fence_removed)
            }
            Action::FenceEtcd => self.without_quorum(EtcdAct::Fence, "fence etcd"),
            Action::StopControlPlane => {
                self.without_quorum(EtcdAct::StopControlPlane, "stop the control plane")
            }
            Action::RestoreEtcd => self.restore_etcd(),
            Action::StartControlPlane => self.start_control_plane(),
            Action::BouncePart => self.bounce_part(),
            Action::SetEtcdServers => self.set_etcd_servers(),
            Action::AwaitControlPlane => self.await_control_plane(),
        }
    }

    fn of_api(&self, look: impl FnOnce(&Self, &ApiView) -> Look) -> Look {
        match self.world.api() {
            Ok(view) => look(self, view),
            Err(why) => Look::Wait(WaitingOn::Api(why)),
        }
    }

    fn of_node(&self, look: impl FnOnce(&Self, &Node) -> Look) -> Look {
        match self.world.api_node() {
            Ok((_, node)) => look(self, node),
            Err(why) => Look::Wait(WaitingOn::Api(why)),
        }
    }

    /// A mark of a run: of this one while it puts back, of any of ours otherwise.
    fn is_ours(&self, mark: Option<&String>) -> bool {
        mark.is_some_and(|mark| {
            if self.context.undoing || self.context.request.runbook == Runbook::NodeDown {
                mark == self.context.run
            } else {
                Runbook::of_run(mark).is_some()
            }
        })
    }

    fn unsilence(&self) -> Look {
        match &self.world.silence {
            None => Look::Done("it is not silenced".to_owned()),
            Some(silence) if silence.own && self.is_ours(Some(&silence.by)) => Look::Do(
                vec![Call::LiftSilence],
                WaitingOn::Change("the end of the silence"),
            ),
            Some(silence) => Look::Done(format!("it stays silenced, by {}", silence.by)),
        }
    }

    /// It is as it should be, unless a change that was sent and never answered is yet to come.
    fn settled(&self, words: &str) -> Look {
        if self.progress.unsure && self.world.now.saturating_duration_since(self.turn) < SETTLED {
            Look::Wait(WaitingOn::Change("a change that was not answered"))
        } else {
            Look::Done(words.to_owned())
        }
    }

    fn one(&self, call: ApiCall, what: &'static str) -> Look {
        let target = call.target();
        match self.progress.refused.get(&target) {
            Some((until, why)) if *until > self.world.now => Look::Wait(WaitingOn::Api(why.clone())),
            Some(_) | None => Look::Do(vec![Call::Api(call)], WaitingOn::Change(what)),
        }
    }

    fn cordon(&self, node: &Node) -> Look {
        match (node.unschedulable, &node.cordoned_by) {
            (true, Some(run)) if run == self.context.run => Look::Done("cordoned".to_owned()),
            (true, Some(run)) => Look::Done(format!("it was cordoned already, by {run}")),
            (true, None) => {
                Look::Done("it was cordoned already, and not by Blackstart: it stays so".to_owned())
            }
            (false, _) => self.one(
                ApiCall::Schedulable {
                    node: precondition(node),
                    unschedulable: true,
                    mark: (CORDONED_BY, Some(self.context.run.to_owned())),
                },
                "the cordon",
            ),
        }
    }

    fn uncordon(&self, node: &Node) -> Look {
        if !node.unschedulable && node.cordoned_by.is_none() {
            return self.settled("it is not cordoned");
        }
        if node.unschedulable && !self.is_ours(node.cordoned_by.as_ref()) {
            let by = node.cordoned_by.as_deref().unwrap_or("somebody else");
            return Look::Done(format!("it stays cordoned: that was {by}, before this run"));
        }
        self.one(
            ApiCall::Schedulable {
                node: precondition(node),
                unschedulable: false,
                mark: (CORDONED_BY, None),
            },
            "the end of the cordon",
        )
    }

    fn kubelet(&self, order: KubeletOrder) -> Look {
        let Agent::Speaks {
            kubelet_active,
            kubelet_healthy,
            held,
            observed,
        } = self.world.agent
        else {
            return Look::Wait(WaitingOn::Agent(self.world.agent_words()));
        };
        // A restart is seen by its answer as well: before it, health is perhaps the old one.
        let answered = |at: Instant| observed > at;
        let done = match (order, &self.progress.heard) {
            // The unit's end is heard of at once, and its health only with the next probe: until then the old answer stands.
            (KubeletOrder::Stop, heard) => {
                let is_fresh = heard.as_ref().is_none_or(|(_, _, at)| answered(*at));
                !kubelet_active && !kubelet_healthy && is_fresh
            }
            (KubeletOrder::Start, _) if !self.context.undoing => kubelet_healthy && answered(self.turn),
            // A stop may still be on its way when a run is aborted: only an answer that comes after it tells.
            (KubeletOrder::Start | KubeletOrder::Restart, Some((Answer::Done, _, at))) => {
                kubelet_healthy && answered(*at)
            }
            (KubeletOrder::Start, _) => false,
            (KubeletOrder::Restart, _) => kubelet_healthy && !self.progress.begun,
        };
        if done {
            return Look::Done(self.world.agent_words());
        }
        // A kubelet that was stopped a moment ago was healthy when it was last asked.
        if order == KubeletOrder::Start && !self.context.undoing && kubelet_healthy {
            return Look::Wait(WaitingOn::Kubelet(format!(
                "an answer of the kubelet that is newer than this step: {}",
                self.world.agent_words()
            )));
        }
        if held && order != KubeletOrder::Stop {
            return Look::Wait(WaitingOn::Kubelet(
                "the boot gate holds the kubelet: a cold start or a rejoin lets it go".to_owned(),
            ));
        }
        self.order(order)
    }

    /// Sends a command: anew when the last has failed, again when nothing was heard of it.
    fn order(&self, order: KubeletOrder) -> Look {
        let name = order.as_str();
        self.command(
            name,
            |attempt| Call::Order { attempt, order },
            |detail| {
                WaitingOn::Kubelet(format!(
                    "the kubelet: {name} was answered done ({detail}), and {}",
                    self.world.agent_words()
                ))
            },
        )
    }

    /// The same of any command; `after`: what is waited for once it was answered as done.
    fn command(
        &self,
        name: &'static str,
        call: impl Fn(u32) -> Call,
        after: impl FnOnce(&str) -> WaitingOn,
    ) -> Look {
        let Progress {
            attempts,
            forgiven,
            sent,
            heard,
            ..
        } = self.progress;
        let waiting = WaitingOn::Answer(name);
        let next = |attempt| Look::Do(vec![call(attempt)], waiting.clone());
        match heard {
            Some((Answer::Done, detail, _)) => Look::Wait(after(detail)),
            Some((Answer::RefusedEpoch, detail, _)) => {
                Look::Failed(format!("another coordinator is at work: {detail}"))
            }
            Some((Answer::Failed | Answer::Refused, detail, _)) if attempts - forgiven >= ATTEMPTS => {
                Look::Failed(format!("{name} failed {ATTEMPTS} times, the last: {detail}"))
            }
            Some((Answer::Failed | Answer::Refused, _, at)) => {
                // Not at once: what made it fail may pass.
                if self.world.now.saturating_duration_since(*at) < RESEND_AFTER {
                    Look::Wait(waiting)
                } else {
                    next(attempts + 1)
                }
            }
            None if attempts == forgiven => next(attempts + 1),
            None => match sent {
                Some(sent) if self.world.now.saturating_duration_since(*sent) < RESEND_AFTER => {
                    Look::Wait(waiting)
                }
                Some(_) | None => next(*attempts),
            },
        }
    }

    fn await_ready(&self) -> Look {
        use crate::kubernetes::objects::Ready;
        let Agent::Speaks { kubelet_healthy, .. } = self.world.agent else {
            return Look::Wait(WaitingOn::Agent(self.world.agent_words()));
        };
        if !kubelet_healthy {
            return Look::Wait(WaitingOn::Kubelet(self.world.agent_words()));
        }
        self.of_node(|at, node| {
            if !at.world.renewed_after(at.turn) {
                return Look::Wait(WaitingOn::Ready(format!(
                    "a lease that is renewed: {}",
                    at.world.lease_words()
                )));
            }
            match node.ready {
                Ready::True => Look::Done(format!(
                    "Ready, {}; {}",
                    at.world.lease_words(),
                    at.world.agent_words()
                )),
                Ready::False | Ready::Unknown => Look::Wait(WaitingOn::Ready(format!(
                    "Ready, which is {:?} so far",
                    node.ready
                ))),
            }
        })
    }

    fn taint(&self, node: &Node) -> Look {
        if node.is_out_of_service() {
            return Look::Done("it has the out-of-service taint".to_owned());
        }
        if let Some(look) = self.unless_dead_and_off("it is not tainted") {
            return look;
        }
        self.one(
            ApiCall::OutOfService {
                node: precondition(node),
                taints: node.taints.clone(),
                mark: (TAINTED_BY, Some(self.context.run.to_owned())),
            },
            "the taint",
        )
    }

    fn remove_taint(&self, node: &Node) -> Look {
        if !node.is_out_of_service() {
            return self.settled("it has no out-of-service taint");
        }
        if !self.is_ours(node.tainted_by.as_ref()) {
            return Look::Done("its out-of-service taint is not of Blackstart, and stays".to_owned());
        }
        self.one(
            ApiCall::OutOfService {
                node: precondition(node),
                taints: node.taints.clone(),
                mark: (TAINTED_BY, None),
            },
            "the end of the taint",
        )
    }
}

fn precondition(node: &Node) -> Precondition {
    Precondition {
        name: node.name.clone(),
        uid: node.uid.clone(),
        resource_version: node.resource_version.clone(),
    }
}

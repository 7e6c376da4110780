//! What a run does to the world, call by call; and what agents answer.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::part::Part;
use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::super::call::KubeletOrder;
use super::super::look::NOT_SEEN;
use super::super::plan::Action as Step;
use super::super::proof::rests_on_bmc;
use super::super::waiting::WaitingOn;
use super::{Driver, JOURNAL_RETRY, PACE};
use crate::brakes::{Held, Scope};
use crate::fleet::{Action, EtcdAct, Order, OrderResult, PartAct};
use crate::inventory::NodeName;
use crate::kubernetes::calls::ApiCall;
use crate::kubernetes::connection::CallError;

/// A call that failed is not sent again before this, unless the server names a time.
const CALL_RETRY: Duration = Duration::from_secs(2);
/// The longest that a server is obeyed in leaving it alone.
const LONGEST_AFTER: Duration = Duration::from_mins(1);
/// A command is not to be begun later than this after it arrived.
const ORDER_EXPIRES: Duration = Duration::from_mins(1);
/// A controller that is cutting the power is asked this often whether it has.
const POWER_SOON: Duration = Duration::from_secs(2);
/// The kubelet's unit, in a restart by the agent's allow-list.
const KUBELET_UNIT: &str = "kubelet.service";

impl Driver {
    /// `true`: something was done, so the world may look otherwise at once.
    pub(super) async fn ask(&mut self, calls: &[ApiCall]) -> bool {
        let cluster = self
            .shared
            .ports
            .clusters
            .get(&self.run.plan.cluster)
            .map(Arc::clone);
        let Some(cluster) = cluster else { return false };
        let answers = join_all(calls.iter().map(|call| cluster.perform(call))).await;
        let mut changed = false;
        for (call, answer) in calls.iter().zip(answers) {
            changed |= self.take(call, answer);
        }
        changed
    }

    /// What was answered; `true`: it was done.
    fn take(&mut self, call: &ApiCall, answer: Result<(), CallError>) -> bool {
        let run = self.run.id.as_str();
        let (after, why) = match answer {
            Ok(()) => {
                tracing::info!(run, %call, "asked of the API, and done");
                self.memory.acted = Some(Instant::now());
                // The cache hears of it in its own time; meanwhile it is not sent again.
                self.memory
                    .refused
                    .insert(call.target(), (Instant::now() + CALL_RETRY, NOT_SEEN.to_owned()));
                return true;
            }
            // It is gone already, which was wanted.
            Err(CallError::Gone) => return true,
            Err(CallError::Conflict(why)) => (PACE, why),
            Err(CallError::Throttled { after, why }) => (after.min(LONGEST_AFTER), why),
            Err(
                error @ (CallError::Forbidden(_) | CallError::Refused { .. } | CallError::Unreachable(_)),
            ) => (CALL_RETRY, error.to_string()),
        };
        tracing::info!(run, %call, why, "asked of the API, and not done");
        self.memory
            .refused
            .insert(call.target(), (Instant::now() + after, why));
        false
    }

    pub(super) async fn silence(&mut self, on: bool) -> bool {
        let request = &self.run.plan.request;
        let scope = Scope::Node(request.node.clone());
        let (brakes, run) = (self.shared.ports.brakes.clone(), self.run.id.clone());
        let reason = format!("operator {}: {}", request.by, request.reason);
        let done = spawn_blocking(move || {
            if on {
                brakes.set(scope, Held::Silence, run, reason, None).map(drop)
            } else {
                brakes.lift(&scope, Held::Silence).map(drop)
            }
        })
        .await;
        match done {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                self.wait(Some(WaitingOn::Journal(error.to_string())));
                sleep(JOURNAL_RETRY).await;
                false
            }
            Err(_) => false,
        }
    }

    /// Whether its machine has power, where the step needs it.
    pub(super) async fn ask_power(&self, at: usize) {
        let step = &self.run.steps[at];
        let ports = &self.shared.ports;
        let node = &self.run.plan.request.node;
        if step.step.action == Step::PowerOff {
            ports.bmcs.ask(node, POWER_SOON).await;
        } else if matches!(step.step.action, Step::TaintOutOfService | Step::ForceDelete)
            && rests_on_bmc(&self.run.plan)
        {
            ports.bmcs.ask(node, ports.timing.power / 3).await;
        }
    }

    pub(super) async fn power_off(&mut self, uuid: &str) {
        let run = self.run.id.as_str();
        let node = &self.run.plan.request.node;
        // Before it is sent: what is asked of its power from now on tells what came of it.
        let now = Instant::now();
        match self.shared.ports.bmcs.force_off(node, uuid).await {
            Ok(()) => {
                tracing::info!(run, %node, "its management controller was asked to cut its power");
                self.memory.acted = Some(now);
            }
            Err(error) => {
                tracing::warn!(run, %node, %error, "its management controller did not cut its power");
                self.memory.refused_power = Some((now + CALL_RETRY, error.to_string()));
            }
        }
    }

    /// A command that finds no room is sent again in its time.
    pub(super) fn send(&mut self, at: usize, action: Action) {
        let Some(command) = &self.run.steps[at].command else {
            return;
        };
        let order = Order {
            node: self.acts_on(at).clone(),
            command_id: command.id.clone(),
            epoch: self.shared.ports.epoch,
            expires_in: ORDER_EXPIRES,
            action,
        };
        if self.shared.ports.orders.try_send(order).is_ok() {
            self.memory.sent = Some(Instant::now());
        }
    }

    /// Whose agent does a step.
    fn acts_on(&self, at: usize) -> &NodeName {
        let on = self.run.steps[at].step.on.as_ref();
        on.unwrap_or(&self.run.plan.request.node)
    }

    /// In whose name a command is given: the run, and why.
    fn in_name_of(&self) -> (String, String) {
        let request = &self.run.plan.request;
        let reason = format!("operator {}: {}", request.by, request.reason);
        (self.run.id.clone(), reason)
    }

    pub(super) fn of_kubelet(&self, order: KubeletOrder) -> Action {
        let (run, reason) = self.in_name_of();
        match order {
            KubeletOrder::Stop => Action::StopKubelet { run, reason },
            KubeletOrder::Start => Action::StartKubelet { run, reason },
            KubeletOrder::Restart => Action::RestartUnit {
                unit: KUBELET_UNIT.to_owned(),
                reason,
            },
        }
    }

    pub(super) fn of_etcd(&self, act: EtcdAct) -> Action {
        let (run, reason) = self.in_name_of();
        Action::Etcd {
            run,
            reason,
            cluster_id: self.run.plan.etcd.as_ref().map_or(0, |etcd| etcd.cluster_id),
            act,
        }
    }

    pub(super) fn of_control_plane(&self, part: Part, act: PartAct) -> Action {
        let (run, reason) = self.in_name_of();
        Action::ControlPlane {
            run,
            reason,
            part,
            act,
        }
    }

    pub(super) fn hear(&mut self, result: OrderResult) {
        let Some(at) = self.run.current() else { return };
        let command = self.run.steps[at].command.as_ref();
        // An answer to an attempt that is over says nothing about this one.
        if command.is_some_and(|command| command.id == result.command_id) && result.node == *self.acts_on(at)
        {
            self.memory.heard = Some((result.answer, result.detail, Instant::now()));
        }
    }
}

//! The coordinator's commands: which are begun, and which are answered without.
//!
//! | a command … | is answered |
//! |---|---|
//! | of a lower epoch than one obeyed | `RefusedEpoch` |
//! | that was done here | from the ledger |
//! | that was begun here and has no outcome | after a look at what became of it |
//! | that has expired, that this agent does not allow, or that is held or protected here | `Refused` |
//! | else | after it was done |
//!
//! One whose subject is busy with another remedy waits for it, until it expires.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::brakes::Standing;
use crate::config::Settings;
use crate::decide::held::refuses;
use crate::gate::{self, GateState};
use crate::ledger::{Intent, Ledger, LedgerError, Outcome, Sequence};
use crate::order::{self, Order, OrderAnswer, OrderStatus, Rule};
use crate::remedy::Remedy;

/// So many wait or run at a time; the coordinator sends few, each for itself.
const MAX: usize = 64;

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Not begun; this is the answer.
    Answered { status: OrderStatus, detail: String },
    /// Its intent is durable: to be done.
    Begun(Sequence),
    /// It was begun before, and nobody knows how it ended.
    Unfinished(Sequence),
}

/// Looks a command over, and writes its intent if it is to be done.
pub(super) fn admit(
    ledger: &mut Ledger,
    order: &Order,
    intent: Intent,
    settings: &Settings,
    standing: &Standing,
) -> Result<Admitted, LedgerError> {
    let answered = |status, detail| Ok(Admitted::Answered { status, detail });
    let obeyed = ledger.highest_epoch();
    let record = ledger.by_command(&order.command_id);
    let rule = order::rule(order, obeyed, record, Instant::now());
    if rule == Rule::RefuseEpoch {
        let detail = format!(
            "epoch {} is lower than {obeyed}, which this node has obeyed",
            order.epoch
        );
        return answered(OrderStatus::RefusedEpoch, detail);
    }
    ledger.obey_epoch(order.epoch)?;
    match rule {
        Rule::Told(outcome) => {
            let (status, detail) = told(outcome);
            return answered(status, detail);
        }
        Rule::LookAfter(sequence) => return Ok(Admitted::Unfinished(sequence)),
        Rule::Expired => {
            let detail = format!("it expired before {} could be begun", order.remedy);
            return answered(OrderStatus::Refused, detail);
        }
        Rule::Begin | Rule::RefuseEpoch => {}
    }
    if let Err(why) = allowed(&order.remedy, settings, standing) {
        return answered(OrderStatus::Refused, why);
    }
    Ok(Admitted::Begun(ledger.intent(intent)?))
}

/// What the coordinator may ask for here and now.
fn allowed(remedy: &Remedy, settings: &Settings, standing: &Standing) -> Result<(), String> {
    if let Some(why) = refuses(remedy, settings, standing, Instant::now()) {
        return Err(why);
    }
    if settings.dry_run {
        return Err(format!(
            "this agent runs dry (`dry_run` in its configuration): it would {remedy}"
        ));
    }
    match remedy {
        Remedy::RestartUnit { unit } if !settings.units.contains(unit) => Err(format!(
            "{unit} is not on the list of units that may be restarted"
        )),
        Remedy::RestartUnit { unit }
            if *unit == settings.kubelet_unit
                && gate::status(&settings.runtime_dir).state == GateState::Held =>
        {
            Err(format!("the boot gate holds {unit}: release it instead"))
        }
        Remedy::StartKubelet { .. } if gate::status(&settings.runtime_dir).state == GateState::Held => {
            Err("the boot gate holds the kubelet: release it instead".to_owned())
        }
        Remedy::ReleaseKubelet { .. }
        | Remedy::HoldManifest { .. }
        | Remedy::ReleaseManifest { .. }
        | Remedy::StopKubelet { .. }
        | Remedy::StartKubelet { .. }
        | Remedy::Etcd(_)
        | Remedy::ControlPlane(_)
        | Remedy::RestartUnit { .. } => Ok(()),
        Remedy::KillRestartUnit { .. }
        | Remedy::ReclaimLog { .. }
        | Remedy::RestartRuntime { .. }
        | Remedy::Prune { .. }
        | Remedy::RestartContainer { .. }
        | Remedy::VacuumJournal { .. }
        | Remedy::BounceStaticPod { .. }
        | Remedy::RelieveMemory { .. }
        | Remedy::ProtectUnits => Err(format!("{} is the agent's own to decide", remedy.name())),
    }
}

/// An outcome as an answer.
pub(super) fn told(outcome: Outcome) -> (OrderStatus, String) {
    match outcome {
        Outcome::Succeeded { detail } => (OrderStatus::Done, detail),
        Outcome::Failed { detail } => (OrderStatus::Failed, detail),
    }
}

/// Why a command is looked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Its subject is free, and its own from now on.
    Free,
    /// Whatever its subject is busy with: it is answered, not begun.
    Expired,
}

/// Commands that wait or run, and answers on their way to the link.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: VecDeque<Order>,
    known: BTreeSet<String>,
    answers: VecDeque<OrderAnswer>,
}

impl Orders {
    /// Takes a command in. One that waits or runs already is answered once, when it has ended.
    pub(super) fn take(&mut self, order: Order) {
        if self.known.contains(&order.command_id) {
            return;
        }
        if self.known.len() >= MAX {
            let answer = OrderAnswer {
                command_id: order.command_id,
                status: OrderStatus::Failed,
                detail: format!("not begun: {MAX} other commands wait or run"),
            };
            return self.answers.push_back(answer);
        }
        self.known.insert(order.command_id.clone());
        self.waiting.push_back(order);
    }

    /// Commands to look over now: those whose subject is free, at most one each, and those that have expired, which are
    /// only to be answered.
    pub(super) fn due(&mut self, in_flight: &BTreeMap<String, Remedy>, now: Instant) -> Vec<(Order, Due)> {
        let mut due = Vec::new();
        let mut later = VecDeque::new();
        let mut taken = BTreeSet::new();
        for order in self.waiting.drain(..) {
            let subject = order.remedy.subject();
            if order.expires_at <= now {
                due.push((order, Due::Expired));
            } else if in_flight.contains_key(&subject) || taken.contains(&subject) {
                later.push_back(order);
            } else {
                taken.insert(subject);
                due.push((order, Due::Free));
            }
        }
        self.waiting = later;
        due
    }

    /// When the first of those that wait expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.waiting.iter().map(|order| order.expires_at).min()
    }

    /// A command has ended.
    pub(super) fn answered(&mut self, answer: OrderAnswer) {
        self.known.remove(&answer.command_id);
        self.answers.push_back(answer);
    }

    /// Room for another command: the link takes its answers.
    pub(super) fn has_room(&self) -> bool {
        self.answers.len() < MAX
    }

    /// The link has not taken every answer yet.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Gives the link as many answers as it takes without waiting, oldest first.
    pub(super) fn give_out(&mut self, to: &mpsc::Sender<OrderAnswer>) {
        while let Ok(room) = to.try_reserve() {
            match self.answers.pop_front() {
                Some(answer) => room.send(answer),
                None => return,
            }
        }
    }
}

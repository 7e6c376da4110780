//! What happens to one remedy: intent, durable → act, verified → outcome, durable.
//!
//! Each runs as a task of its own, so that neither a slow disk nor a slow unit holds up the loop. A crash in between leaves
//! an intent without outcome; the next agent looks into those first ([`Crew::settle`]).

use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::orders::{self, Admitted, Due};
use crate::brakes::SharedBrakes;
use crate::causes::causes;
use crate::config::Settings;
use crate::decide::Proposal;
use crate::decide::history::REFILL;
use crate::host::Host;
use crate::ledger::{Intent, Ledger, LedgerError, Outcome, Sequence, SharedLedger};
use crate::metrics::Meters;
use crate::order::{Order, OrderAnswer, OrderStatus};
use crate::remedy::Remedy;
use crate::remedy::perform::Hands;
use crate::report::{Happening, Reports};

/// What a flight brings back.
#[derive(Debug)]
pub(super) struct Landed {
    /// What it was for.
    pub(super) cargo: Cargo,
    /// The last write to the ledger; `None` when none was needed.
    pub(super) ledger: Option<Result<(), String>>,
}

#[derive(Debug)]
pub(super) enum Cargo {
    /// A decision of the agent's own was carried out.
    Done { remedy: Remedy, outcome: Outcome },
    /// Its intent could not be written, so it was not.
    NotBegun { remedy: Remedy },
    /// A command of the coordinator, with its answer, and the subject that was its own.
    Order {
        subject: Option<String>,
        answer: OrderAnswer,
    },
    /// Only the ledger was written.
    Books,
}

/// What flights are made with.
#[derive(Debug)]
pub(super) struct Crew<H> {
    pub(super) settings: Arc<Settings>,
    pub(super) ledger: SharedLedger,
    pub(super) hands: Hands<H>,
    pub(super) meters: Meters,
    pub(super) reports: Reports,
    pub(super) brakes: SharedBrakes,
}

impl<H: Host> Crew<H> {
    /// A decision of the agent's own; `permit` is the epoch of the coordinator's permit for it. A permit of an older epoch than was obeyed
    /// is none: another coordinator leads, and may have permitted something else.
    pub(super) async fn carry_out(self: Arc<Self>, proposal: Proposal, permit: Option<u64>) -> Landed {
        let Proposal { remedy, reason } = proposal;
        let intent = self.intent(&remedy, reason.clone(), None);
        let planned = intent.clone();
        let begin = move |ledger: &mut Ledger| {
            if let Some(epoch) = permit {
                if epoch < ledger.highest_epoch() {
                    return Ok(None);
                }
                ledger.obey_epoch(epoch)?;
            }
            ledger.intent(intent).map(Some)
        };
        let admitted = match self.write(begin).await {
            Ok(Some(sequence)) => Ok(sequence),
            Ok(None) => {
                warn!(%remedy, epoch = permit, "its permit is of an older epoch; not begun");
                return Landed {
                    cargo: Cargo::NotBegun { remedy },
                    ledger: None,
                };
            }
            Err(why) => Err(why),
        };
        let (outcome, sequence, ledger) = match admitted {
            Ok(sequence) => {
                self.tell_begun(&remedy, reason, Some(sequence));
                let outcome = self.hands.perform(&remedy).await;
                let ended = outcome.clone();
                let written = self.write(move |ledger| ledger.outcome(sequence, ended)).await;
                (outcome, Some(sequence), written)
            }
            // The log may be why the ledger cannot be written, and reclaiming it needs no space.
            Err(_) if matches!(remedy, Remedy::ReclaimLog { .. }) => {
                self.tell_begun(&remedy, reason, None);
                let outcome = self.hands.perform(&remedy).await;
                let ended = outcome.clone();
                let written = self
                    .write(move |ledger| {
                        let sequence = ledger.intent(planned)?;
                        ledger.outcome(sequence, ended)
                    })
                    .await;
                (outcome, None, written)
            }
            Err(why) => {
                return Landed {
                    cargo: Cargo::NotBegun { remedy },
                    ledger: Some(Err(why)),
                };
            }
        };
        self.meters.ended(&remedy, &outcome);
        self.tell_ended(&remedy, &outcome, sequence);
        Landed {
            cargo: Cargo::Done { remedy, outcome },
            ledger: Some(ledger),
        }
    }

    /// A command of the coordinator.
    pub(super) async fn obey(self: Arc<Self>, order: Order, due: Due) -> Landed {
        let subject = order.remedy.subject();
        let intent = self.intent(
            &order.remedy,
            order.reason.clone(),
            Some(order.command_id.clone()),
        );
        let (asked, settings, brakes) = (order.clone(), Arc::clone(&self.settings), self.brakes.clone());
        let admitted = self
            .write(move |ledger| {
                orders::admit(
                    ledger,
                    &asked,
                    intent,
                    &settings,
                    &brakes.standing(Instant::now()),
                )
            })
            .await;
        let (status, detail, ledger) = match admitted {
            Ok(Admitted::Answered { status, detail }) => (status, detail, None),
            Ok(Admitted::Begun(sequence)) => {
                self.tell_begun(&order.remedy, order.reason.clone(), Some(sequence));
                let outcome = self.hands.perform(&order.remedy).await;
                self.conclude(&order.remedy, sequence, outcome).await
            }
            // Begun before a crash: verified, and done again only where that does no harm.
            Ok(Admitted::Unfinished(sequence)) => {
                match (self.hands.verify(order.remedy.name(), &subject).await, due) {
                    (Some(outcome), _) => self.conclude(&order.remedy, sequence, outcome).await,
                    (None, Due::Free) => {
                        let outcome = self.hands.perform(&order.remedy).await;
                        self.conclude(&order.remedy, sequence, outcome).await
                    }
                    (None, Due::Expired) => (
                        OrderStatus::Refused,
                        "begun before a crash, not done, and expired since".to_owned(),
                        None,
                    ),
                }
            }
            Err(why) => (
                OrderStatus::Failed,
                format!("not begun, since the ledger cannot be written: {why}"),
                Some(Err(why)),
            ),
        };
        let answer = OrderAnswer {
            command_id: order.command_id,
            status,
            detail,
        };
        let subject = (due == Due::Free).then_some(subject);
        Landed {
            cargo: Cargo::Order { subject, answer },
            ledger,
        }
    }

    async fn conclude(
        &self,
        remedy: &Remedy,
        sequence: Sequence,
        outcome: Outcome,
    ) -> (OrderStatus, String, Option<Result<(), String>>) {
        self.meters.ended(remedy, &outcome);
        self.tell_ended(remedy, &outcome, Some(sequence));
        let ended = outcome.clone();
        let written = self.write(move |ledger| ledger.outcome(sequence, ended)).await;
        let (status, detail) = orders::told(outcome);
        (status, detail, Some(written))
    }

    /// Writes down that health refilled the budget of `unit`.
    pub(super) async fn refill(self: Arc<Self>, unit: String) -> Landed {
        let detail = format!("healthy for {:?}", self.settings.restart.window);
        let intent = Intent {
            remedy: REFILL.to_owned(),
            subject: unit,
            reason: detail.clone(),
            command_id: None,
            dry_run: self.settings.dry_run,
        };
        let written = self
            .write(move |ledger| {
                let sequence = ledger.intent(intent)?;
                ledger.outcome(sequence, Outcome::Succeeded { detail })
            })
            .await;
        Landed {
            cargo: Cargo::Books,
            ledger: Some(written),
        }
    }

    /// Looks into what was begun before a crash and has no outcome. Changes nothing but the ledger, and a manifest that was left
    /// out, which is moved back.
    pub(super) async fn settle(self: Arc<Self>) -> Landed {
        let unfinished: Vec<_> = self
            .ledger
            .lock()
            .records()
            .filter(|record| record.outcome.is_none())
            .map(|record| (record.sequence, record.intent.clone()))
            .collect();
        let mut ledger = None;
        for (sequence, intent) in unfinished {
            let Some(outcome) = self.hands.verify(&intent.remedy, &intent.subject).await else {
                continue;
            };
            warn!(
                sequence = sequence.0,
                remedy = intent.remedy,
                subject = intent.subject,
                ?outcome,
                "found a remedy without outcome"
            );
            let written = self
                .write(move |ledger| {
                    // Answered meanwhile, by the same command said again.
                    let open = ledger
                        .record(sequence)
                        .is_some_and(|record| record.outcome.is_none());
                    if open {
                        ledger.outcome(sequence, outcome)
                    } else {
                        Ok(())
                    }
                })
                .await;
            ledger = Some(written);
        }
        Landed {
            cargo: Cargo::Books,
            ledger,
        }
    }

    fn intent(&self, remedy: &Remedy, reason: String, command_id: Option<String>) -> Intent {
        Intent {
            remedy: remedy.name().to_owned(),
            subject: remedy.subject(),
            reason,
            command_id,
            dry_run: self.settings.dry_run,
        }
    }

    fn tell_begun(&self, remedy: &Remedy, reason: String, sequence: Option<Sequence>) {
        self.reports.tell(Happening::Begun {
            remedy: remedy.name(),
            subject: remedy.subject(),
            reason,
            sequence: sequence.map(|sequence| sequence.0),
            dry_run: self.settings.dry_run,
        });
    }

    fn tell_ended(&self, remedy: &Remedy, outcome: &Outcome, sequence: Option<Sequence>) {
        self.reports.tell(Happening::Ended {
            remedy: remedy.name(),
            subject: remedy.subject(),
            outcome: outcome.clone(),
            sequence: sequence.map(|sequence| sequence.0),
            dry_run: self.settings.dry_run,
        });
    }

    /// Durable writes take as long as the disk takes: on a thread that may block.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, String> {
        let ledger = self.ledger.clone();
        match tokio::task::spawn_blocking(move || write(&mut ledger.lock())).await {
            Ok(written) => written.map_err(|error| causes(&error)),
            Err(_) => Err("the write was broken off".to_owned()),
        }
    }
}

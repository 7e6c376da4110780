//! Orders on their way to the agent's loop, and its answers on their way to the coordinator. They wait here over sessions.

use std::collections::VecDeque;
use std::future::{Future, pending};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::order::{Order, OrderAnswer};

/// More commands than this are not read from the session before the loop has taken some.
const ORDERS: usize = 64;
/// More answers than this are not kept; the oldest goes. The ledger still has it: a command that is sent again is answered.
const ANSWERS: usize = 256;

#[derive(Debug)]
pub(super) struct Desk {
    orders: mpsc::Sender<Order>,
    /// `None` when the agent's loop has ended.
    answers: Option<mpsc::Receiver<OrderAnswer>>,
    to_loop: VecDeque<Order>,
    to_coordinator: VecDeque<Kept>,
}

/// An answer that the coordinator is not known to have.
#[derive(Debug)]
struct Kept {
    answer: OrderAnswer,
    /// It was sent in this session, before the report of this number: an acknowledgement of that one is one of the answer.
    before_report: Option<u64>,
}

impl Desk {
    pub(super) fn new(orders: mpsc::Sender<Order>, answers: mpsc::Receiver<OrderAnswer>) -> Self {
        Self {
            orders,
            answers: Some(answers),
            to_loop: VecDeque::new(),
            to_coordinator: VecDeque::new(),
        }
    }

    /// Waits for `work`, and sees meanwhile to it that the agent's loop never waits for the link. `None` on `stop`.
    pub(super) async fn tend<T>(
        &mut self,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                done = &mut work => return Some(done),
                () = self.turn() => {}
            }
        }
    }

    /// Takes one answer in, or gives one order out. Nothing is lost when it is dropped.
    pub(super) async fn turn(&mut self) {
        let Self {
            orders,
            answers,
            to_loop,
            to_coordinator,
        } = self;
        let answer = async {
            match answers.as_mut() {
                Some(answers) => answers.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            answer = answer => match answer {
                Some(answer) => keep(to_coordinator, answer),
                None => *answers = None,
            },
            room = orders.reserve(), if !to_loop.is_empty() => match room {
                Ok(room) => {
                    if let Some(order) = to_loop.pop_front() {
                        room.send(order);
                    }
                }
                // The loop has ended, and the agent with it.
                Err(_) => to_loop.clear(),
            },
        }
    }

    /// There is room for another order.
    pub(super) fn takes_orders(&self) -> bool {
        self.to_loop.len() < ORDERS
    }

    pub(super) fn order(&mut self, order: Order) {
        self.to_loop.push_back(order);
    }

    pub(super) fn answer(&mut self, answer: OrderAnswer) {
        keep(&mut self.to_coordinator, answer);
    }

    /// The oldest answer that was not sent in this session.
    pub(super) fn unsent(&self) -> Option<&OrderAnswer> {
        self.to_coordinator
            .iter()
            .find(|kept| kept.before_report.is_none())
            .map(|kept| &kept.answer)
    }

    /// [`Self::unsent`] was sent, before the report of this number.
    pub(super) fn sent(&mut self, before_report: u64) {
        if let Some(kept) = self
            .to_coordinator
            .iter_mut()
            .find(|kept| kept.before_report.is_none())
        {
            kept.before_report = Some(before_report);
        }
    }

    /// The coordinator has taken in report `number`, and everything that was sent before it.
    pub(super) fn acknowledged(&mut self, number: u64) {
        self.to_coordinator
            .retain(|kept| kept.before_report.is_none_or(|before| before > number));
    }

    /// What was sent in the last session and not acknowledged is sent again.
    pub(super) fn new_session(&mut self) {
        for kept in &mut self.to_coordinator {
            kept.before_report = None;
        }
    }
}

fn keep(answers: &mut VecDeque<Kept>, answer: OrderAnswer) {
    if answers.len() == ANSWERS
        && let Some(oldest) = answers.pop_front()
    {
        let command = oldest.answer.command_id;
        warn!(
            command,
            "too many answers wait for the coordinator; the oldest is dropped"
        );
    }
    answers.push_back(Kept {
        answer,
        before_report: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::OrderStatus;

    fn answer(command_id: &str) -> OrderAnswer {
        OrderAnswer {
            command_id: command_id.into(),
            status: OrderStatus::Done,
            detail: String::new(),
        }
    }

    fn desk() -> Desk {
        Desk::new(mpsc::channel(1).0, mpsc::channel(1).1)
    }

    fn unsent(desk: &Desk) -> Option<&str> {
        desk.unsent().map(|answer| answer.command_id.as_str())
    }

    #[test]
    fn an_answer_is_sent_again_until_a_report_after_it_is_acknowledged() {
        let mut desk = desk();
        desk.answer(answer("a"));
        desk.sent(5);
        assert_eq!(unsent(&desk), None);
        // An acknowledgement that was on its way when the answer was sent.
        desk.acknowledged(4);
        desk.new_session();
        assert_eq!(unsent(&desk), Some("a"));
        desk.sent(6);
        desk.answer(answer("b"));
        desk.acknowledged(6);
        desk.new_session();
        assert_eq!(unsent(&desk), Some("b"));
    }

    #[test]
    fn answers_are_bounded_and_the_newest_are_kept() {
        let mut desk = desk();
        for number in 0..ANSWERS + 10 {
            desk.answer(answer(&number.to_string()));
        }
        assert_eq!(desk.to_coordinator.len(), ANSWERS);
        assert_eq!(unsent(&desk), Some("10"));
    }
}

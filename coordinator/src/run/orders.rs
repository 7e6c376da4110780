//! Orders on their way to the nodes, and answers on their way back. The audit keeps both.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::audit::chain::What;
use crate::fleet::{Delivery, Fleet, Order, OrderResult};
use crate::runbooks::plan::Runbook;

/// From the executor to the sessions. An order for a node that is not in session is dropped: it is sent again.
pub(super) async fn deliver(
    fleet: Fleet,
    mut orders: mpsc::Receiver<Order>,
    kept: crate::audit::Audit,
    stop: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            () = stop.cancelled() => return,
            order = orders.recv() => order,
        };
        // The executor is gone, and says so itself.
        let Some(order) = order else {
            return stop.cancelled().await;
        };
        let (node, command) = (order.node.clone(), order.command_id.clone());
        let ordered = What {
            who: format!("run {}", command.split('/').next().unwrap_or_default()),
            what: "order".to_owned(),
            matter: command.clone(),
            asked: format!("node {node}: {:?}, epoch {}", order.action, order.epoch),
            outcome: "asked".to_owned(),
            ..What::default()
        };
        match fleet.deliver(order) {
            Delivery::Queued => kept.note(ordered),
            not_sent @ (Delivery::NotInSession | Delivery::Full) => {
                tracing::debug!(%node, command, ?not_sent, "an order was dropped; it is sent again");
            }
        }
    }
}

/// From the sessions to whoever sent the command.
pub(super) async fn route(
    mut from_nodes: mpsc::Receiver<OrderResult>,
    (to_executor, to_runbooks): (mpsc::Sender<OrderResult>, mpsc::Sender<OrderResult>),
    kept: crate::audit::Audit,
    stop: CancellationToken,
) {
    loop {
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = from_nodes.recv() => answer,
        };
        let Some(answer) = answer else {
            return stop.cancelled().await;
        };
        kept.note(answered(&answer));
        let run = answer.command_id.split('/').next().unwrap_or_default();
        let to = if Runbook::of_run(run).is_some() {
            &to_runbooks
        } else {
            &to_executor
        };
        // Who is gone says so itself.
        let _gone = to.send(answer).await;
    }
}

/// What the audit says of an agent's answer.
fn answered(answer: &OrderResult) -> What {
    What {
        who: format!("node {}", answer.node),
        what: "answer".to_owned(),
        matter: answer.command_id.clone(),
        outcome: format!("{:?}", answer.answer).to_lowercase(),
        evidence: answer.detail.clone(),
        ..What::default()
    }
}

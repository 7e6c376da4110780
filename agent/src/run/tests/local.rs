//! What an agent that runs tells on its own node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::machine::{KUBELET, Machine, node};
use crate::local::answer::{Answer, NodeStatus};
use crate::local::{Question, ask};
use crate::run::{Notify, run};
use crate::signal::ActiveState;

const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_agent_without_coordinator_tells_what_it_sees_and_did() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(
        settings.clone(),
        Arc::clone(&machine),
        Notify::none(),
        stop.clone(),
    ));
    let status = async |like: fn(&NodeStatus) -> bool| {
        timeout(SOON, async {
            loop {
                if let Ok(Answer::NodeStatus(status)) = ask(&settings.socket(), &Question::Status).await
                    && like(&status)
                {
                    return status;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap()
    };
    status(|status| status.kubelet_healthy && status.units.len() == 2).await;
    machine.set(KUBELET, ActiveState::Failed);
    let left = |status: &NodeStatus| {
        let of = |budget: &&crate::local::answer::Budget| {
            budget.subject == KUBELET && budget.remedy == "restart-unit"
        };
        status.budgets.iter().find(of).map(|budget| budget.left) == Some(2)
    };
    status(left).await;
    let question = Question::Remedies { last: 1 };
    let Answer::RemedyList { items, .. } = ask(&settings.socket(), &question).await.unwrap() else {
        panic!()
    };
    assert!(items[0].reason.starts_with("UnitFailed"), "{items:?}");
    stop.cancel();
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
}

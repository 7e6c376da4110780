//! The boot gate on a real node whose machine goes down in order.

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;

/// Far shorter than the gate's dead-man time.
const SOON: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_machine_that_went_down_in_order_holds_no_kubelet() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = Bed::raise(&docker, "gate-clean", &Wish::single(Runs::Agents))
        .await
        .unwrap();
    bed.kubelets_answer(bed.nodes(), SOON).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    for _ in 0..2 {
        node.shut_down().await.unwrap();
        node.power_on().await.unwrap();
        let answered = bed.kubelets_answer(bed.nodes(), SOON).await;
        let told: Vec<_> = node.journal("blackstart-gate.service").await.unwrap();
        answered.unwrap_or_else(|error| panic!("{error:#}: {told:?}"));
        let status = node.exec(&["blackstart-agent", "status"]).await.unwrap();
        let gate = status.lines().find(|line| line.starts_with("gate"));
        assert!(gate.is_some_and(|gate| gate.contains("passed")), "{status}");
    }
    bed.take_down().await.unwrap();
}

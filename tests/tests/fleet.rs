//! A fleet of sessions against a real coordinator process: whoever was cut off is back, and operators are answered meanwhile.

use std::time::Duration;

use blackstart_proto::v1::{ListNodesRequest, NodePhase};
use blackstart_tests::fleet::Order;
use blackstart_tests::fleet::generator::Generator;
use blackstart_tests::fleet::stage::Stage;
use blackstart_tests::wait;

const NODES: usize = 200;
const DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_fleet_that_was_cut_off_is_registered_again_and_operators_are_answered_meanwhile() {
    let stage = Stage::set(NODES).await.unwrap();
    let interval = Duration::from_secs(2);
    let address = stage.coordinator().address();
    let mut crowd = Generator::start(&stage.pki(), address, NODES, interval)
        .await
        .unwrap();
    crowd.all_registered(DEADLINE).await.unwrap();
    let mut operator = stage.operator().await.unwrap();
    let mut ready = async || -> anyhow::Result<usize> {
        let listed = operator.list_nodes(ListNodesRequest::default()).await?;
        let nodes = listed.into_inner().nodes;
        anyhow::ensure!(nodes.len() == NODES, "{} nodes are listed", nodes.len());
        Ok(nodes
            .iter()
            .filter(|node| node.phase() == NodePhase::Ready)
            .count())
    };

    let before = crowd.order(Order::Cut).await.unwrap();
    wait::until("all to be registered again", DEADLINE, async || {
        // Not one query is left without its answer.
        ready().await.unwrap();
        let standing = crowd.order(Order::Look).await?;
        Ok((standing.registered == NODES).then_some(()))
    })
    .await
    .unwrap();
    let after = crowd.order(Order::Look).await.unwrap();
    assert!(
        after.dials >= before.dials + NODES,
        "each connected anew: {before:?}, {after:?}"
    );
    wait::until("all to be ready in the API", DEADLINE, async || {
        Ok((ready().await? == NODES).then_some(()))
    })
    .await
    .unwrap();

    stage.coordinator().kill().await.unwrap();
    crowd.order(Order::Cut).await.unwrap();
    stage.coordinator().start().await.unwrap();
    crowd.all_registered(DEADLINE).await.unwrap();
    drop(crowd);
    stage.coordinator().stop().await.unwrap();
}

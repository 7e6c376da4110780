//! A node whose clock shows that its certificate is good, and a coordinator that knows better.

use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::host::sim::SimCluster;
use blackstart_proto::v1::ListClustersRequest;
use tokio::time::sleep;

use crate::enrolment::{DAY, enrols, signed, write_floor};
use crate::masters::master;
use crate::support::{World, within};

/// The node's clock stands at the day on which the power went, a hundred days ago: its certificate ended in between, and it cannot know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_know_that_its_certificate_has_ended_is_told_and_renews_it() {
    let mut world = World::with(|settings| {
        enrols(settings);
        write_floor(&settings.clock_floor(), 100);
    })
    .await;
    let files = world.files("biz-1");
    let before = std::fs::read(&files.certificate).unwrap();
    signed(
        &world.path(""),
        &files,
        "blackstart://node/biz-1",
        -DAY,
        50 * DAY,
    );
    let mut node = master(
        &world,
        "biz-1",
        &Arc::new(SimCluster::new(1, Duration::from_millis(100))),
    );
    node.power_on().unwrap();
    let mut operator = world.operator().await;
    within("the node to be let in", async {
        loop {
            let listed = operator.list_clusters(ListClustersRequest {}).await;
            if listed.unwrap().into_inner().clusters[0].control_planes_ready == 1 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_ne!(std::fs::read(&files.certificate).unwrap(), before);
    node.cut_power();
    world.stop().await;
}

//! A node whose clock shows that its certificate is good, and a coordinator that knows better.

use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::host::sim::SimCluster;
use blackstart_proto::v1::ListClustersRequest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::sleep;

use crate::enrolment::{DAY, enrols, signed, write_floor};
use crate::masters::master;
use crate::support::{Way, World, within};

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
    signed(&world.path(""), &files, "blackstart://node/biz-1", -DAY, 50 * DAY);
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

/// A coordinator's own certificate is past half of its life: it gets another by itself, which is no certificate of the future to anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_renews_its_own_certificate_and_shows_it_without_a_restart() {
    let mut before = Vec::new();
    let mut world = World::with(|settings| {
        enrols(settings);
        let world = settings.inventory.parent().unwrap();
        let uri = "blackstart://coordinator/coordinator";
        signed(world, &settings.tls, uri, -200 * DAY, 100 * DAY);
        before = std::fs::read(&settings.tls.certificate).unwrap();
    })
    .await;
    let files = world.files("coordinator");
    let shown = async || {
        let line = world.line(&world.files("biz-1")).await.unwrap();
        let Way::Line(stream) = line else { unreachable!() };
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let old = blackstart_coordinator::pki::Seen::read(&files.certificate).unwrap();
    within("another certificate", async {
        loop {
            let now = std::fs::read(&files.certificate).unwrap();
            let pem = CertificateDer::from_pem_slice(&now).unwrap();
            if now != before && shown().await == pem.to_vec() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let new = blackstart_coordinator::pki::Seen::read(&files.certificate).unwrap();
    assert!(new.begins <= old.begins && new.ends > old.ends, "{old:?} {new:?}");
    world.agent("biz-1", "a").await;
    world.stop().await;
}

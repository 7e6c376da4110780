//! What each of several coordinators tells of itself and of the fleet's certificates, whoever leads.

use std::process::{Command, Output};

use nix::sys::signal::Signal;
use tokio::task::block_in_place;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::etcd::{Line, is_here};
use crate::world::{MASTER, WORKERS, World, until};

async fn serves(world: &World, index: usize, service: &str) -> Option<bool> {
    let channel = world.channel("ann", world.coordinators[index].listens).await?;
    let service = service.to_owned();
    let told = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await;
    Some(told.ok()?.into_inner().status() == ServingStatus::Serving)
}

async fn becomes(world: &World, index: usize, service: &str, serving: bool) {
    let what = format!("{service:?} of coordinator-{} to serve: {serving}", index + 1);
    until(&what, async || {
        (serves(world, index, service).await? == serving).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tells_truly_whether_it_serves() {
    if !is_here("the health of several coordinators") {
        return;
    }
    let world = World::new("5s").await;
    let leader = world.leader_but(&[]).await;
    let follower = world.follower_but(&[leader]).await;
    for (index, service, serving) in [
        (leader, "", true),
        (leader, "blackstart.v1.AgentService", true),
        (leader, "blackstart.v1.TrustService", true),
        // It passes operators on, and sends agents away.
        (follower, "", true),
        (follower, "blackstart.v1.RunbookService", true),
        (follower, "blackstart.v1.AgentService", false),
        (follower, "blackstart.v1.TrustService", false),
    ] {
        becomes(&world, index, service, serving).await;
    }
    // It knows of no leader any more, and says so; of itself it can still tell.
    world.coordinators[follower].cut_from_etcd(Line::Cut);
    becomes(&world, follower, "", false).await;
    becomes(&world, follower, "blackstart.v1.AuditService", true).await;
    // One that led and has lost its store does not lead any more.
    world.coordinators[leader].cut_from_etcd(Line::Cut);
    becomes(&world, leader, "blackstart.v1.AgentService", false).await;
    becomes(&world, leader, "", false).await;
    world.coordinators[leader].cut_from_etcd(Line::Whole);
    becomes(&world, leader, "", true).await;
}

/// `blackstart-coordinator ca …` on the machine of one of them.
fn ca(world: &World, index: usize, words: &[&str]) -> Output {
    let config = world.coordinators[index].dir.join("coordinator.yaml");
    block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"))
            .arg("ca")
            .args(words)
            .arg("--config")
            .arg(config)
            .output()
            .unwrap()
    })
}

/// So many authorities are trusted, and these nodes are behind, by what one of them is told.
fn stand(world: &World, index: usize) -> (usize, Vec<String>) {
    let output = ca(world, index, &["status", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["nodes"], 5, "{told}");
    (
        told["trusted"].as_array().unwrap().len(),
        serde_json::from_value(told["behind"].clone()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_the_fleet_is_with_another_authority_is_told_wherever_it_is_asked() {
    if !is_here("another authority with several coordinators") {
        return;
    }
    let mut world = World::with("5s", |dir| {
        format!("enrolment: {{authority: {}}}\n", dir.join("pki").display())
    })
    .await;
    let first = world.leader_but(&[]).await;
    assert_eq!(stand(&world, first), (1, Vec::new()));
    // Here they have one directory of the authority; elsewhere it is copied from the first to the others.
    let rotated = ca(&world, first, &["rotate"]);
    assert!(
        rotated.status.success() && rotated.stderr.is_empty(),
        "{rotated:?}"
    );
    for index in 0..3 {
        world.coordinators[index].signal(Signal::SIGTERM);
        assert!(world.coordinators[index].ended().await);
        world.start(index);
    }
    let others = &WORKERS[..3];
    world.power_on(&[MASTER]);
    world.power_on(others);
    world.ready(&[MASTER]).await;
    let leader = world.leader_but(&[]).await;
    let follower = world.follower_but(&[leader]).await;
    // By the leader they were renewed; whoever follows knows it as well.
    for index in [follower, leader] {
        until("all but the dark one to have renewed", async || {
            (stand(&world, index) == (2, vec![WORKERS[3].to_owned()])).then_some(())
        })
        .await;
    }
    let refused = ca(&world, follower, &["finish"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains(WORKERS[3]),
        "{refused:?}"
    );
    world.power_on(&WORKERS[3..]);
    until("the last one to have renewed", async || {
        stand(&world, follower).1.is_empty().then_some(())
    })
    .await;
    let finished = ca(&world, follower, &["finish"]);
    assert!(
        finished.status.success() && finished.stderr.is_empty(),
        "{finished:?}"
    );
    assert_eq!(stand(&world, leader).0, 1);
    world.cut_power();
}

//! Three real coordinators over a real etcd of three members: whatever becomes of the one that leads, another goes on, and never
//! two act at once. That is judged from the agents' own ledgers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod copy;
#[path = "../etcd/mod.rs"]
mod etcd;
mod followers;
mod rolling;
mod secure;
#[path = "../api/support.rs"]
#[allow(dead_code, reason = "only its agent is used here")]
mod support;
mod trust;
mod world;

use std::time::Duration;

use blackstart_agent::host::sim::SimStage;
use blackstart_proto::leader::leader_at;
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::{GateState, RunState};
use nix::sys::signal::Signal;
use tokio::time::Instant;
use tonic::Code;

use crate::etcd::{Line, is_here};
use crate::support::{Agent, hello};
use crate::world::{MASTER, WORKERS, World, until};

const LEASE: Duration = Duration::from_secs(5);
const LEASE_TEXT: &str = "5s";

/// The fleet lost its power, and its master is back and let go by the first leader, which is now looked away from.
async fn half_way() -> (World, usize) {
    let mut world = World::new(LEASE_TEXT).await;
    world.power_loss().await;
    world.power_on(&[MASTER]);
    world.stage(&[MASTER], SimStage::Healthy).await;
    let first = world.leader_but(&[]).await;
    (world, first)
}

/// The workers come back as well, and the run ends well under whoever leads now.
async fn to_its_end(world: &mut World) {
    world.power_on(&WORKERS);
    world.stage(&WORKERS, SimStage::Healthy).await;
    let runs = until("the run to succeed", async || {
        let leader = world.leader_but(&[]).await;
        let runs = world.runs(leader).await?;
        let done = runs.iter().all(|run| run.state() == RunState::Succeeded);
        (done && !runs.is_empty()).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), 1, "one power loss, one run: {runs:?}");
    assert_eq!(runs[0].residue, [""; 0], "nobody was given up");
}

/// Waits for another leader, and says how long that took.
async fn taken_over(world: &World, what: &str, since: Instant, but: usize) -> usize {
    let next = world.leader_but(&[but]).await;
    let took = since.elapsed();
    println!(
        "{what}: coordinator-{} led {took:?} after, {:?} after the lease at the latest had ended",
        next + 1,
        took.saturating_sub(LEASE)
    );
    assert!(took < LEASE + Duration::from_secs(20), "{took:?}");
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_followed_by_another_that_goes_on_with_its_run() {
    if !is_here("a leader that is killed") {
        return;
    }
    let (mut world, first) = half_way().await;
    let killed = Instant::now();
    world.coordinators[first].kill().await;
    let next = taken_over(&world, "killed", killed, first).await;
    to_its_end(&mut world).await;
    assert!(world.one_hand() >= 2);

    // It comes back, follows, and sends agents on.
    world.start(first);
    until("the first to follow", async || {
        let answer = world.asked(first).await?;
        (!answer.leads && answer.coordinators.len() == 3).then_some(())
    })
    .await;
    let channel = world.channel(WORKERS[0], world.coordinators[first].to_agents.address);
    let refused = Agent::open(channel.await.unwrap(), hello(WORKERS[0], "b")).await;
    let refused = refused.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        leader_at(&refused),
        [world.coordinators[next].to_agents.address],
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_for_longer_than_its_lease_does_nothing_when_it_goes_on() {
    if !is_here("a leader that is stopped") {
        return;
    }
    let (mut world, first) = half_way().await;
    // One worker speaks with it throughout, and is back at its gate while it is stopped: it would be let go.
    let channel = world
        .channel(WORKERS[0], world.coordinators[first].to_agents.address)
        .await;
    let mut witness = Agent::open(channel.unwrap(), hello(WORKERS[0], "b"))
        .await
        .unwrap();
    assert!(matches!(witness.told().await.unwrap(), Told::Welcome(_)));
    let stopped = Instant::now();
    world.coordinators[first].freeze().await;
    let report = witness.report_of(GateState::Held, false);
    witness.say(Body::Report(report)).await;
    taken_over(&world, "stopped", stopped, first).await;

    world.coordinators[first].signal(Signal::SIGCONT);
    // Neither an order nor a word that prolongs a hold: the session ends.
    let told = witness.told().await;
    assert!(
        matches!(
            told.as_ref().unwrap_err().code(),
            Code::Unavailable | Code::Aborted
        ),
        "{told:?}"
    );
    until("the first to follow", async || {
        let answer = world.asked(first).await?;
        (!answer.leads).then_some(())
    })
    .await;
    assert!(world.coordinators[first].log().contains("does not lead any more"));
    to_its_end(&mut world).await;
    assert!(world.one_hand() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_from_etcd_steps_down_before_another_leads() {
    if !is_here("a leader that is cut off from etcd") {
        return;
    }
    let (mut world, first) = half_way().await;
    world.coordinators[first].cut_from_etcd(Line::Cut);
    let cut = Instant::now();
    let next = taken_over(&world, "cut off from etcd", cut, first).await;
    let ended = world.coordinators[first].when("coordinator ends").unwrap();
    let began = world.coordinators[next].when("coordinator begins").unwrap();
    assert!(ended < began, "{ended} is not before {began}");
    to_its_end(&mut world).await;
    assert!(world.one_hand() >= 2);

    world.coordinators[first].cut_from_etcd(Line::Whole);
    until("the first to know the leader", async || {
        let answer = world.asked(first).await?;
        let leader = answer.coordinators.iter().find(|coordinator| coordinator.leads)?;
        (leader.name == format!("coordinator-{}", next + 1) && !answer.leads).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_agents_cannot_reach_for_a_while_goes_on_with_its_run() {
    if !is_here("a leader that is cut off from agents") {
        return;
    }
    let (mut world, first) = half_way().await;
    world.coordinators[first].to_agents.set(Line::Cut);
    world.power_on(&WORKERS);
    world.stage(&WORKERS, SimStage::Held).await;
    world.silent(5).await;
    world.coordinators[first].to_agents.set(Line::Whole);
    to_its_end(&mut world).await;
    world.one_hand();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_that_dies_holds_nobody_up() {
    if !is_here("a member of etcd that dies") {
        return;
    }
    let (mut world, _) = half_way().await;
    for member in [0, 1] {
        // Each in turn, whichever of them leads etcd.
        world.etcd.kill_member(member);
        until("an answer of a leader", async || {
            let leads = world.leader_but(&[]).await;
            world.runs(leads).await
        })
        .await;
        if member == 0 {
            world.etcd.start_member(member);
        }
    }
    to_its_end(&mut world).await;
    world.one_hand();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_in_order_hands_over_at_once() {
    if !is_here("a leader that ends in order") {
        return;
    }
    // Longer than this test would wait.
    let mut world = World::new("10m").await;
    let first = world.leader_but(&[]).await;
    let told = Instant::now();
    world.coordinators[first].signal(Signal::SIGTERM);
    assert!(world.coordinators[first].ended().await);
    let next = world.leader_but(&[first]).await;
    println!("handed over within {:?}", told.elapsed());
    assert_ne!(first, next);
}

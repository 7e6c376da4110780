//! All three are replaced, one after the other, as an upgrade does it: those that follow first, the leader last, each by a signal to end.

use blackstart_agent::host::sim::SimStage;
use nix::sys::signal::Signal;

use crate::etcd::is_here;
use crate::world::{MASTER, WORKERS, World, until};
use crate::{half_way, to_its_end};

/// Ends one in order, starts it anew, and waits until it has its place among the others.
async fn replaced(world: &mut World, index: usize) {
    world.coordinators[index].signal(Signal::SIGTERM);
    assert!(world.coordinators[index].ended().await, "it ends in order");
    world.start(index);
    until("it to know who leads", async || {
        let answer = world.asked(index).await?;
        let all = answer.coordinators.len() == 3;
        (all && answer.coordinators.iter().any(|coordinator| coordinator.leads)).then_some(())
    })
    .await;
}

async fn all_replaced(world: &mut World) {
    let leader = world.leader_but(&[]).await;
    let followers = (0..3).filter(|index| *index != leader);
    for index in followers.chain([leader]) {
        replaced(world, index).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_loses_no_run_and_holds_no_kubelet() {
    if !is_here("a rolling upgrade") {
        return;
    }
    // Amid a run: its workers' turn has not come.
    let (mut world, _) = half_way().await;
    all_replaced(&mut world).await;
    to_its_end(&mut world).await;
    assert!(world.one_hand() >= 2, "another epoch went on with it");

    // And in peace: nobody is held or started anew, and nothing is begun.
    let all: Vec<_> = [MASTER].into_iter().chain(WORKERS).collect();
    let obeyed = world.obeyed();
    all_replaced(&mut world).await;
    world.ready(&all).await;
    world.stage(&all, SimStage::Healthy).await;
    let leader = world.leader_but(&[]).await;
    let runs = until("its runs", async || world.runs(leader).await).await;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(world.obeyed(), obeyed, "no order was given");
}

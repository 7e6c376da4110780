//! What operators do to runs, and what is refused.

use super::world::{TEN, World};
use super::*;
use crate::execute::Refusal;
use crate::inventory::NodeName;
use crate::plan::rejoin;
use tokio::time::Instant;

const RUN: &str = "cold-start-1";

async fn begin(world: &mut World) -> Executor {
    let executor = world.coordinator().unwrap();
    executor.start(world.plan(), "test".to_owned()).await.unwrap();
    executor
}

async fn succeeds(world: &mut World, executor: &Executor) {
    world
        .until("success", 15 * MINUTE, |_| {
            executor.run(RUN).unwrap().state == RunState::Succeeded
        })
        .await;
    assert_eq!(world.breaches, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_begins_nothing_and_goes_on_when_resumed() {
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    world
        .until("first command", MINUTE, |world| !world.commands.is_empty())
        .await;
    let paused = executor.pause(RUN).await.unwrap();
    assert_eq!(paused.state, RunState::Paused);
    assert_eq!(
        executor.pause(RUN).await.unwrap().state,
        RunState::Paused,
        "twice is once"
    );
    world.pass(10 * MINUTE).await;
    let released: Vec<_> = world.commands.iter().map(|(node, _)| node.to_string()).collect();
    assert_eq!(released, ["mgmt-m1", "mgmt-m2", "mgmt-m3"]);
    assert_eq!(
        step(&executor, "release/mgmt-m1").0,
        StepState::Done,
        "what was dispatched is followed"
    );
    assert_eq!(
        only(&executor).waiting_on,
        ["the run is paused; resume or abort it"]
    );
    assert_eq!(
        world.holds().len(),
        7,
        "somebody is there who wants nothing to start"
    );
    // Also over a restart of the coordinator.
    let executor = world.coordinator().unwrap();
    world.pass(MINUTE).await;
    assert_eq!(state(&executor), RunState::Paused);
    assert_eq!(world.commands.len(), 3);
    assert_eq!(executor.resume(RUN).await.unwrap().state, RunState::Running);
    succeeds(&mut world, &executor).await;
    assert_eq!(only(&executor).residue, []);
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_with_nothing_left_to_do_says_that_it_is_paused() {
    let mut world = World::new(&[("c", &[], 1, 0)]);
    let plan = rejoin::plan(&world.inventory, &world.policy, &NodeName("c-m1".to_owned()));
    let executor = world.coordinator().unwrap();
    let run = executor.start(plan.unwrap(), "test".to_owned()).await.unwrap();
    world
        .until("its command", MINUTE, |world| !world.commands.is_empty())
        .await;
    executor.pause(&run.id).await.unwrap();
    world
        .until("done", MINUTE, |_| {
            step(&executor, "release/c-m1").0 == StepState::Done
        })
        .await;
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(state(&executor), RunState::Paused);
    assert_eq!(
        only(&executor).waiting_on,
        ["the run is paused; resume or abort it"]
    );
    executor.resume(&run.id).await.unwrap();
    world
        .until("success", MINUTE, |_| state(&executor) == RunState::Succeeded)
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_aborted_run_begins_nothing_and_holds_nobody() {
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    world
        .until("first command", MINUTE, |world| !world.commands.is_empty())
        .await;
    let aborted = executor.abort(RUN).await.unwrap();
    assert_eq!(aborted.state, RunState::Aborted);
    assert_eq!(
        aborted
            .steps
            .iter()
            .filter(|step| step.state == StepState::Cancelled)
            .count(),
        // Of 42; nothing was to be set aside, and three masters are on their way.
        42 - 6 - 3
    );
    assert_eq!(world.holds().len(), 0);
    world.pass(5 * MINUTE).await;
    assert_eq!(world.commands.len(), 3);
    let ended = Refusal::Ended {
        run: RUN.to_owned(),
        state: RunState::Aborted,
    };
    assert_eq!(executor.resume(RUN).await.unwrap_err(), ended);
    // Another may begin, and finds the masters healthy.
    let second = executor.start(world.plan(), "again".to_owned()).await.unwrap();
    assert_eq!(second.id, "cold-start-2");
    world
        .until("success", 15 * MINUTE, |_| {
            executor.run("cold-start-2").unwrap().state == RunState::Succeeded
        })
        .await;
    assert!(world.machines.values().all(|machine| machine.starts == 1));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_does_not_come_halts_what_is_behind_it_and_nothing_else() {
    let mut world = World::new(TEN);
    world.machine("biz-m1").back_at = None;
    let executor = begin(&mut world).await;
    world
        .until("halt", 10 * MINUTE, |_| state(&executor) == RunState::Halted)
        .await;
    world
        .until("lab is up all the same", MINUTE, |world| {
            world.machine("lab-w1").starts == 1
        })
        .await;
    world.pass(Duration::from_secs(2)).await;
    let run = only(&executor);
    let line = &run.waiting_on[0];
    assert!(line.starts_with("gate/biz/control-plane: not passed within 90s: control plane of biz: 0 ready, 1 needed; biz-m1: not back"), "{line}");
    assert!(
        line.ends_with("an operator: resume tries again, abort ends the run"),
        "{line}"
    );
    assert_eq!(
        world.holds().len(),
        0,
        "perhaps nobody is there: their dead-man time may run out"
    );
    assert_eq!(world.machine("biz-w1").starts, 0);
    world.machine("biz-m1").back_at = Some(Instant::now());
    world.pass(MINUTE).await;
    assert_eq!(
        world.machine("biz-w1").starts,
        0,
        "it was asked, and nobody has answered"
    );
    assert_eq!(
        world.machine("biz-m1").starts,
        1,
        "a late master is taken up at once"
    );
    executor.resume(RUN).await.unwrap();
    succeeds(&mut world, &executor).await;
    assert_eq!(only(&executor).residue, []);
    assert_eq!(
        executor.abort(RUN).await.unwrap_err(),
        Refusal::Ended {
            run: RUN.to_owned(),
            state: RunState::Succeeded
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_higher_epoch_elsewhere_halts_everything() {
    let mut world = World::new(TEN);
    for machine in world.machines.values_mut() {
        machine.highest_epoch = 9;
    }
    let executor = begin(&mut world).await;
    world
        .until("halt", MINUTE, |_| state(&executor) == RunState::Halted)
        .await;
    world.pass(MINUTE).await;
    assert!(world.machines.values().all(|machine| machine.starts == 0));
    assert_eq!(world.holds().len(), 0);
    let why = &only(&executor).waiting_on[0];
    assert!(
        why.contains("refused epoch 1, it has obeyed a higher one"),
        "{why}"
    );
    assert!(matches!(
        executor.resume(RUN).await.unwrap_err(),
        Refusal::Superseded(_)
    ));
    assert!(matches!(
        executor.start(world.plan(), String::new()).await.unwrap_err(),
        Refusal::Superseded(_)
    ));
    // Nothing was written of it: the journal belongs to whoever is at work now.
    assert!(!world.store.journal_text(RUN).contains("step-failed"));
}

/// One that holds without sending anything learns of it, too.
#[tokio::test(start_paused = true)]
async fn an_agent_that_says_it_has_obeyed_a_higher_epoch_ends_the_holding_of_a_paused_run() {
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    executor.pause(RUN).await.unwrap();
    world
        .until("holds", MINUTE, |world| world.holds().len() == 10)
        .await;
    world.machine("biz-w1").said_epoch = 2;
    world
        .until("halt", MINUTE, |_| state(&executor) == RunState::Halted)
        .await;
    assert_eq!(world.holds().len(), 0);
    let why = &only(&executor).waiting_on[0];
    assert!(
        why.contains("biz-w1 has obeyed epoch 2, and this is epoch 1"),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_somebody_else_writes_is_left_to_them() {
    use crate::store::Store;
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    let entries = world.store.journal(RUN).unwrap();
    world
        .store
        .append(
            RUN,
            entries.len() as u64,
            br#"{"at_unix_ms":0,"elapsed_ms":0,"event":{"type":"resumed","epoch":2}}"#,
        )
        .unwrap();
    world
        .until("halt", MINUTE, |_| state(&executor) == RunState::Halted)
        .await;
    world.pass(MINUTE).await;
    assert_eq!((world.commands.len(), world.holds().len()), (0, 0));
    let why = &only(&executor).waiting_on[0];
    assert!(why.contains("somebody else writes this run"), "{why}");
    assert!(matches!(
        executor.abort(RUN).await.unwrap_err(),
        Refusal::Superseded(_)
    ));
    // Whoever comes next goes on with it.
    let executor = world.coordinator().unwrap();
    succeeds(&mut world, &executor).await;
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_over_the_same_nodes() {
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    let second = executor
        .start(world.plan(), "again".to_owned())
        .await
        .unwrap_err();
    assert_eq!(
        second.to_string(),
        "run cold-start-1 is at work on mgmt-m1; abort it first, or wait for its end"
    );
    let rejoin = rejoin::plan(&world.inventory, &world.policy, &NodeName("biz-w1".to_owned())).unwrap();
    assert!(matches!(
        executor.start(rejoin, "back".to_owned()).await.unwrap_err(),
        Refusal::Overlap { .. }
    ));
    assert_eq!(
        executor.pause("cold-start-7").await.unwrap_err(),
        Refusal::Unknown("cold-start-7".to_owned())
    );
    let mut lawless = world.plan();
    lawless.lanes.clear();
    assert!(matches!(
        executor.start(lawless, String::new()).await.unwrap_err(),
        Refusal::Findings(_)
    ));
    assert_eq!(executor.runs().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_rejoins_and_yields_to_a_cold_start() {
    let mut world = World::new(TEN);
    let executor = world.coordinator().unwrap();
    let rejoin = |world: &World| {
        rejoin::plan(&world.inventory, &world.policy, &NodeName("biz-w1".to_owned())).unwrap()
    };
    let first = executor.start(rejoin(&world), "back".to_owned()).await.unwrap();
    assert_eq!(first.id, "rejoin-1");
    world.pass(Duration::from_secs(10)).await;
    assert!(world.commands.is_empty(), "its control plane is dark");
    assert!(world.holds()["biz-w1"].starts_with("rejoin-1: gate/biz/control-plane: "));
    executor
        .start(world.plan(), "power event".to_owned())
        .await
        .unwrap();
    assert_eq!(executor.run("rejoin-1").unwrap().state, RunState::Aborted);
    world
        .until("success", 15 * MINUTE, |_| {
            executor.run("cold-start-2").unwrap().state == RunState::Succeeded
        })
        .await;
    // It crashes by itself, later.
    world.lose_power("biz-w1", Some(Instant::now() + Duration::from_secs(5)));
    world.pass(Duration::from_secs(5)).await;
    executor.start(rejoin(&world), "back".to_owned()).await.unwrap();
    world
        .until("success", MINUTE, |_| {
            executor.run("rejoin-3").unwrap().state == RunState::Succeeded
        })
        .await;
    assert_eq!(world.machine("biz-w1").starts, 1);
    assert_eq!(world.breaches, [""; 0]);
}

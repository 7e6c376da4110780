//! Cold starts of fleets that do not all come back as they should.

use std::sync::Arc;

use super::world::{TEN, World};
use super::*;
use crate::execute::stall::Stall;
use crate::inventory::ClusterName;
use tokio::time::Instant;

async fn begin(world: &mut World) -> Executor {
    let executor = world.coordinator().unwrap();
    executor
        .start(world.plan(), "power event".to_owned())
        .await
        .unwrap();
    executor
}

async fn succeeds(world: &mut World, executor: &Executor) -> RunStatus {
    world
        .until("success", 15 * MINUTE, |_| state(executor) == RunState::Succeeded)
        .await;
    assert_eq!(world.breaches, [""; 0]);
    assert_eq!(world.holds().len(), 0);
    only(executor)
}

fn residue(run: &RunStatus) -> Vec<String> {
    run.residue.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn clusters_in_order_and_every_step_says_why() {
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    world
        .until("first command", MINUTE, |world| !world.commands.is_empty())
        .await;
    assert_eq!(
        step(&executor, "release/biz-w1"),
        (StepState::Pending, "gate/biz/control-plane".to_owned())
    );
    world
        .until("holds", MINUTE, |world| world.holds().contains_key("biz-w1"))
        .await;
    let why = &world.holds()["biz-w1"];
    assert!(
        why.starts_with(
            "cold-start-1: gate/mgmt/control-plane: control plane of mgmt: 0 ready, 2 needed; mgmt-m1: "
        ),
        "{why}"
    );
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(
        (run.id.as_str(), run.reason.as_str()),
        ("cold-start-1", "power event")
    );
    assert!(
        run.steps
            .iter()
            .all(|step| step.state == StepState::Done && !step.evidence.is_empty())
    );
    let gate = run
        .steps
        .iter()
        .find(|step| step.id.0 == "gate/mgmt/serving")
        .unwrap();
    assert_eq!(
        gate.evidence,
        "1 of 1 workers attest a healthy kubelet (1 needed): mgmt-w1"
    );
    let first: Vec<_> = world
        .commands
        .iter()
        .take(4)
        .map(|(node, _)| node.to_string())
        .collect();
    assert_eq!(first, ["mgmt-m1", "mgmt-m2", "mgmt-m3", "mgmt-w1"]);
    let (events, _) = world.events.follow();
    assert!(
        events
            .iter()
            .any(|event| event.message.starts_with("succeeded after "))
    );
}

#[tokio::test(start_paused = true)]
async fn workers_are_released_in_growing_waves() {
    let mut world = World::new(&[("c", &[], 1, 40)]);
    world.policy.wave.max = 8;
    let executor = begin(&mut world).await;
    world
        .until("first worker", MINUTE, |world| {
            world.commands.iter().any(|(node, _)| node.0.contains("-w"))
        })
        .await;
    assert_eq!(world.crowd, 2, "the first wave");
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(world.crowd, 8, "the largest wave");
    assert_eq!(residue(&run).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_never_returns_holds_nobody() {
    let mut world = World::new(TEN);
    world.machine("mgmt-m2").back_at = None;
    world.machine("biz-w3").back_at = None;
    let executor = begin(&mut world).await;
    // Everything else is up long before the residue is given up.
    world
        .until("the others", MINUTE, |world| {
            world
                .machines
                .values()
                .filter(|machine| machine.starts > 0)
                .count()
                == 8
        })
        .await;
    let held_up = only(&executor).waiting_on;
    let run = succeeds(&mut world, &executor).await;
    assert!(
        held_up
            .iter()
            .any(|line| line.contains("mgmt-m2") && line.contains("not back")),
        "{held_up:?}"
    );
    assert_eq!(residue(&run), ["mgmt-m2", "biz-w3"]);
    let verify = run.steps.iter().find(|step| step.id.0 == "verify/biz").unwrap();
    assert_eq!(
        verify.evidence,
        "3 of 4 nodes attest a healthy kubelet; residue: biz-w3"
    );
}

#[tokio::test(start_paused = true)]
async fn residue_that_returns_in_time_is_taken_up_again() {
    let mut world = World::new(TEN);
    world.machine("mgmt-m2").back_at = None;
    // These keep the run at work meanwhile.
    world.machine("biz-w3").back_at = None;
    world.machine("biz-m1").back_at = Some(Instant::now() + Duration::from_secs(50));
    let executor = begin(&mut world).await;
    world
        .until("residue", 2 * MINUTE, |_| {
            residue(&only(&executor)) == ["mgmt-m2"]
        })
        .await;
    world.machine("mgmt-m2").back_at = Some(Instant::now());
    world
        .until("its command", MINUTE, |world| {
            world.commands.iter().any(|(node, _)| node.0 == "mgmt-m2")
        })
        .await;
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(residue(&run), ["biz-w3"]);
    assert_eq!(world.machine("mgmt-m2").starts, 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_run_already_are_left_alone() {
    let mut world = World::new(TEN);
    for machine in world.machines.values_mut() {
        machine.gate = crate::fleet::view::GateState::Passed;
        machine.back_at = Some(Instant::now());
        machine.opened_at = machine.back_at;
    }
    let executor = begin(&mut world).await;
    let run = succeeds(&mut world, &executor).await;
    assert!(world.commands.is_empty());
    let done = run
        .steps
        .iter()
        .find(|step| step.id.0 == "release/biz-w1")
        .unwrap();
    assert_eq!(
        done.evidence,
        "biz-w1 attests a healthy kubelet; its gate is passed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_command_is_sent_again_under_its_own_name() {
    let mut world = World::new(TEN);
    world.machine("mgmt-m1").lose = 2;
    let executor = begin(&mut world).await;
    succeeds(&mut world, &executor).await;
    let sent: Vec<_> = world
        .commands
        .iter()
        .filter(|(node, _)| node.0 == "mgmt-m1")
        .map(|(_, id)| id.as_str())
        .collect();
    assert_eq!(sent, ["cold-start-1/release/mgmt-m1/1@1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_command_is_tried_three_times_and_its_node_given_up() {
    let mut world = World::new(TEN);
    world.machine("biz-w1").fail = u32::MAX;
    let executor = begin(&mut world).await;
    let run = succeeds(&mut world, &executor).await;
    let sent: Vec<_> = world
        .commands
        .iter()
        .filter(|(node, _)| node.0 == "biz-w1")
        .map(|(_, id)| id.as_str())
        .collect();
    assert_eq!(
        sent,
        [1, 2, 3].map(|attempt| format!("cold-start-1/release/biz-w1/{attempt}@1"))
    );
    assert_eq!(residue(&run), ["biz-w1"]);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_become_healthy_is_residue() {
    let mut world = World::new(TEN);
    world.machine("mgmt-m3").sick = true;
    let executor = begin(&mut world).await;
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(residue(&run), ["mgmt-m3"]);
    assert_eq!(world.machine("mgmt-m3").starts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_old_word_is_no_evidence() {
    let mut world = World::new(TEN);
    for node in ["mgmt-m1", "mgmt-m2"] {
        world.machine(node).opened_at = Some(Instant::now());
        world.machine(node).gate = crate::fleet::view::GateState::Passed;
        world.machine(node).stale = true;
    }
    let executor = begin(&mut world).await;
    world.pass(Duration::from_secs(30)).await;
    let (state, why) = step(&executor, "gate/mgmt/control-plane");
    assert_eq!(state, StepState::Waiting);
    assert!(why.contains("mgmt-m1: its last word is too old"), "{why}");
    for node in ["mgmt-m1", "mgmt-m2"] {
        world.machine(node).stale = false;
    }
    succeeds(&mut world, &executor).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_power_loss_is_not_met_with_old_evidence() {
    let mut world = World::new(&[("c", &[], 3, 12)]);
    let executor = begin(&mut world).await;
    let up = |world: &mut World| {
        world
            .machines
            .values()
            .filter(|machine| machine.starts > 0)
            .count()
    };
    world.until("some workers", MINUTE, |world| up(world) == 5).await;
    let masters = ["c-m1", "c-m2", "c-m3"];
    let dark: Vec<_> = world.machines.keys().map(ToString::to_string).collect();
    for node in &dark {
        // Workers are back first, and find themselves held.
        let wait = if masters.contains(&node.as_str()) { 40 } else { 1 };
        world.lose_power(node, Some(Instant::now() + Duration::from_secs(wait)));
    }
    world
        .until("the gate is shut again", MINUTE, |_| {
            step(&executor, "gate/c/control-plane").0 == StepState::Waiting
        })
        .await;
    assert!(world.holds()["c-w9"].contains("gate/c/control-plane: control plane of c: 0 ready, 2 needed"));
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(residue(&run).len(), 0);
    assert_eq!(up(&mut world), 15);
}

/// A coordinator that dies with a command on its way finds, when it is back, that the masters fell meanwhile.
#[tokio::test(start_paused = true)]
async fn a_command_of_before_a_second_power_loss_is_not_sent_again_without_its_gate() {
    let mut world = World::new(&[("c", &[], 1, 1)]);
    world.machine("c-w1").lose = u32::MAX;
    let executor = begin(&mut world).await;
    let sent = |world: &World| world.commands.iter().filter(|(node, _)| node.0 == "c-w1").count();
    world.until("its command", MINUTE, |world| sent(world) > 0).await;
    drop(executor);
    world.kill();
    world.machine("c-w1").lose = 0;
    world.lose_power("c-w1", Some(Instant::now()));
    world.lose_power("c-m1", Some(Instant::now() + Duration::from_secs(50)));
    let before = sent(&world);
    let executor = world.coordinator().unwrap();
    world.pass(Duration::from_secs(40)).await;
    assert_eq!(sent(&world), before);
    assert_eq!(
        step(&executor, "gate/c/control-plane").0,
        StepState::Waiting,
        "the gate is shut again"
    );
    assert!(world.holds()["c-w1"].contains("control plane of c: 0 ready, 1 needed"));
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(residue(&run), [""; 0]);
}

/// Behind a gate that halted its run nobody is held, also not one whose command was on its way.
#[tokio::test(start_paused = true)]
async fn a_begun_step_behind_a_halted_gate_holds_nobody() {
    let mut world = World::new(&[("c", &[], 1, 1)]);
    world.machine("c-w1").lose = u32::MAX;
    let executor = begin(&mut world).await;
    world
        .until("its command", MINUTE, |world| {
            world.commands.iter().any(|(node, _)| node.0 == "c-w1")
        })
        .await;
    world.lose_power("c-w1", Some(Instant::now()));
    world.lose_power("c-m1", None);
    world
        .until("halt", 5 * MINUTE, |_| state(&executor) == RunState::Halted)
        .await;
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.holds().len(), 0);
    let held_up = only(&executor).waiting_on;
    assert!(
        held_up
            .iter()
            .any(|line| line.starts_with("gate/c/control-plane: ")),
        "{held_up:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_stops_everything_and_holds_nobody_until_it_can_be_written() {
    use std::sync::atomic::Ordering;
    let mut world = World::new(TEN);
    let executor = begin(&mut world).await;
    world.store.full.store(true, Ordering::SeqCst);
    world.pass(Duration::from_secs(20)).await;
    assert!(world.commands.is_empty());
    assert_eq!(world.holds().len(), 0);
    assert!(only(&executor).waiting_on[0].contains("no space left"));
    world.store.full.store(false, Ordering::SeqCst);
    succeeds(&mut world, &executor).await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_can_be_read_by_people() {
    let mut world = World::new(&[("c", &[], 1, 0)]);
    let executor = begin(&mut world).await;
    succeeds(&mut world, &executor).await;
    let text = world.store.journal_text("cold-start-1");
    for part in [
        "\"type\":\"step-started\",\"step\":\"release/c-m1\",\"command_id\":\"cold-start-1/release/c-m1/1@1\",\"attempt\":1",
        "\"type\":\"step-done\",\"step\":\"gate/c/serving\",\"evidence\":\"has no workers; its control plane serves\"",
        "\"type\":\"run-ended\"",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_says_why_its_etcd_does_not_come_and_is_not_late_while_somebody_is_asked() {
    let mut world = World::new(TEN);
    for node in ["mgmt-m2", "mgmt-m3"] {
        world.machine(node).back_at = None;
    }
    let executor = begin(&mut world).await;
    world.pass(MINUTE / 2).await;
    let stall = |words: &str, run: Option<&str>| {
        let stall = Stall {
            words: words.to_owned(),
            run: run.map(str::to_owned),
        };
        Arc::new([(ClusterName("mgmt".into()), stall)].into())
    };
    world
        .stalls
        .send_replace(stall("etcd has no quorum", Some("etcd-quorum-1")));
    world.pass(MINUTE * 10).await;
    let (stands, waiting) = step(&executor, "gate/mgmt/control-plane");
    assert_eq!(stands, StepState::Waiting);
    assert!(waiting.ends_with("etcd has no quorum"), "{waiting}");
    assert!(
        only(&executor)
            .waiting_on
            .iter()
            .any(|line| line.contains("etcd has no quorum")),
        "{:?}",
        only(&executor).waiting_on
    );
    // Nobody is asked any more: from now on it may be late.
    world.stalls.send_replace(stall("etcd has no quorum", None));
    world.pass(MINUTE).await;
    assert_eq!(step(&executor, "gate/mgmt/control-plane").0, StepState::Waiting);
    world
        .until("its end", MINUTE * 2, |_| state(&executor) == RunState::Halted)
        .await;
}

//! Controllers that are set aside: out before their master's kubelet is released, back by evidence, and never waited for.

use blackstart_proto::component::{Component, ManifestState};
use tokio::time::Instant;

use super::world::{TEN, World};
use super::*;

async fn begin(world: &mut World) -> Executor {
    let executor = world.coordinator().unwrap();
    executor.start(world.plan(), "test".to_owned()).await.unwrap();
    executor
}

async fn succeeds(world: &mut World, executor: &Executor) -> RunStatus {
    world
        .until("success", 40 * MINUTE, |_| state(executor) == RunState::Succeeded)
        .await;
    assert_eq!(world.breaches, [""; 0]);
    only(executor)
}

fn all_are(world: &mut World, node: &str, state: ManifestState) -> bool {
    world.machine(node).manifests.values().all(|is| *is == state)
}

/// The names of the commands that a node was sent, without those of the run.
fn commands(world: &World, node: &str) -> Vec<String> {
    let own = world.commands.iter().filter(|(of, _)| of.0 == node);
    own.map(|(_, id)| {
        id.split_once('/')
            .unwrap()
            .1
            .split_once('@')
            .unwrap()
            .0
            .to_owned()
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn controllers_go_before_the_kubelet_and_come_back_when_enough_kubelets_run() {
    let mut world = World::new(TEN).with_controllers();
    world.machine("mgmt-w1").back_at = Some(Instant::now() + Duration::from_secs(40));
    let executor = begin(&mut world).await;
    world
        .until("masters that serve", MINUTE, |_| {
            step(&executor, "gate/mgmt/control-plane").0 == StepState::Done
        })
        .await;
    world.pass(Duration::from_secs(10)).await;
    for node in ["mgmt-m1", "mgmt-m2", "mgmt-m3"] {
        assert!(all_are(&mut world, node, ManifestState::SetAside));
        assert!(
            world.holds()[node].contains("gate/mgmt/kubelets"),
            "{:?}",
            world.holds()
        );
    }
    let (_, waits) = step(&executor, "gate/mgmt/kubelets");
    assert_eq!(
        waits,
        "kubelets of mgmt: 3 healthy, 4 needed; mgmt-w1: not back: silent"
    );
    let run = succeeds(&mut world, &executor).await;
    assert!(run.steps.iter().all(|step| step.state == StepState::Done));
    assert!(all_are(&mut world, "mgmt-m1", ManifestState::InPlace));
    let mut sent = commands(&world, "mgmt-m1");
    sent[..2].sort_unstable();
    sent[3..].sort_unstable();
    assert_eq!(
        sent,
        [
            "hold/mgmt-m1/kube-controller-manager/1",
            "hold/mgmt-m1/kube-scheduler/1",
            "release/mgmt-m1/1",
            "put-back/mgmt-m1/kube-controller-manager/1",
            "put-back/mgmt-m1/kube-scheduler/1",
        ]
    );
    assert!(world.holds().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_moved_a_manifest_and_not_looked_since_is_not_told_again() {
    let mut world = World::new(&[("c", &[], 1, 1)]).with_controllers();
    let looks_at = Some(Instant::now() + Duration::from_secs(3));
    world.machine("c-m1").looks_at = looks_at;
    let executor = begin(&mut world).await;
    succeeds(&mut world, &executor).await;
    let sent = commands(&world, "c-m1");
    let holds = sent.iter().filter(|id| id.starts_with("hold/"));
    assert_eq!(holds.count(), 2, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn too_few_kubelets_keep_controllers_away_no_longer_than_they_may() {
    let mut world = World::new(&[("c", &[], 1, 2)]).with_controllers();
    world.policy.set_aside.max_hold = Duration::from_secs(30);
    world.policy.release_deadline = 20 * MINUTE;
    // A worker that needs its controller manager to become healthy.
    world.machine("c-w1").sick = true;
    world.machine("c-w2").sick = true;
    world.late_is_right = true;
    let executor = begin(&mut world).await;
    world
        .until("controllers that are back", 2 * MINUTE, |world| {
            commands(world, "c-m1").len() == 5 && all_are(world, "c-m1", ManifestState::InPlace)
        })
        .await;
    assert_eq!(step(&executor, "gate/c/kubelets").0, StepState::Residue);
    world.machine("c-w1").sick = false;
    world.machine("c-w2").sick = false;
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(run.residue, []);
    let gate = run
        .steps
        .iter()
        .find(|step| step.id.0 == "gate/c/kubelets")
        .unwrap();
    assert!(
        gate.evidence.starts_with("late: 3 of 3 nodes"),
        "{}",
        gate.evidence
    );
}

#[tokio::test(start_paused = true)]
async fn a_master_that_returns_late_runs_before_its_controllers_are_put_back() {
    let mut world = World::new(&[("c", &[], 3, 1), ("d", &["c"], 1, 1)]).with_controllers();
    // It keeps the run at work: it is given up a while after the master.
    world.machine("d-w1").sick = true;
    let executor = begin(&mut world).await;
    world
        .until("a master without controllers", MINUTE, |world| {
            commands(world, "c-m3").len() == 3
        })
        .await;
    world.lose_power("c-m3", None);
    world
        .until("the others' controllers", 100 * MINUTE, |world| {
            all_are(world, "c-m1", ManifestState::InPlace) && commands(world, "c-m1").len() == 5
        })
        .await;
    assert_eq!(step(&executor, "release/c-m3").0, StepState::Residue);
    world.machine("c-m3").back_at = Some(Instant::now() + Duration::from_secs(1));
    world
        .until("its controllers", 2 * MINUTE, |world| {
            all_are(world, "c-m3", ManifestState::InPlace)
        })
        .await;
    let sent = commands(&world, "c-m3");
    let at = |what: &str| sent.iter().rposition(|id| id.starts_with(what)).unwrap();
    assert!(at("release/c-m3/2") < at("put-back/"), "{sent:?}");
    world.machine("d-w1").sick = false;
    succeeds(&mut world, &executor).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_power_loss_sets_controllers_aside_again() {
    let mut world = World::new(&[("c", &[], 3, 4)]).with_controllers();
    // It keeps the run at work.
    world.machine("c-w4").back_at = Some(Instant::now() + Duration::from_secs(55));
    world.policy.set_aside.release_share = 60;
    let executor = begin(&mut world).await;
    world
        .until("controllers that are back", MINUTE, |world| {
            commands(world, "c-m1").len() == 5 && all_are(world, "c-m1", ManifestState::InPlace)
        })
        .await;
    let back = Instant::now() + Duration::from_secs(5);
    for node in ["c-m1", "c-m2", "c-m3", "c-w1", "c-w2", "c-w3"] {
        world.lose_power(node, Some(back));
    }
    succeeds(&mut world, &executor).await;
    for node in ["c-m1", "c-m2", "c-m3"] {
        let holds = commands(&world, node)
            .into_iter()
            .filter(|id| id.starts_with("hold/"));
        assert_eq!(holds.count(), 4, "{:?}", world.commands);
        assert!(all_are(&mut world, node, ManifestState::InPlace));
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_that_cannot_set_aside_is_released_all_the_same() {
    let mut world = World::new(&[("c", &[], 1, 1)]).with_controllers();
    world.machine("c-m1").fail = 6;
    world.late_is_right = true;
    let executor = begin(&mut world).await;
    let run = succeeds(&mut world, &executor).await;
    assert_eq!(run.residue, []);
    for component in Component::ALL {
        let id = format!("hold/c-m1/{component}");
        let hold = run.steps.iter().find(|step| step.id.0 == id).unwrap();
        assert_eq!((hold.state, hold.attempts), (StepState::Residue, 3), "{hold:?}");
    }
    assert_eq!(world.machine("c-m1").starts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_run_claims_no_controllers() {
    let mut world = World::new(TEN).with_controllers();
    world.machine("mgmt-w1").back_at = None;
    let executor = begin(&mut world).await;
    world
        .until("controllers that are out", MINUTE, |world| {
            world
                .holds()
                .get("mgmt-m1")
                .is_some_and(|why| why.contains("gate/mgmt/kubelets"))
        })
        .await;
    executor.abort("cold-start-1").await.unwrap();
    assert!(world.holds().is_empty(), "{:?}", world.holds());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_serves_keeps_its_controllers() {
    let mut world = World::new(TEN).with_controllers();
    for machine in world.machines.values_mut() {
        machine.gate = crate::fleet::view::GateState::Passed;
        machine.back_at = Some(Instant::now());
        machine.opened_at = machine.back_at;
    }
    // Its API servers serve by then.
    world.policy.fresh = MINUTE;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let executor = begin(&mut world).await;
    succeeds(&mut world, &executor).await;
    assert!(world.commands.is_empty(), "{:?}", world.commands);
}

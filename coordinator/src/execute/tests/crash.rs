//! A crash or a failure at any write, of the epoch or of the journal, comes to the same end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::memory::{Fault, MemoryStore, Wrong};
use super::world::{THIRTY, World};
use super::*;
use crate::inventory::NodeName;
use crate::plan::StepId;

/// What a cold start comes to, whatever happened on the way.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: RunState,
    steps: Vec<(StepId, StepState)>,
    residue: Vec<NodeName>,
    /// How often each node's agent started its kubelet.
    starts: BTreeMap<NodeName, u32>,
    /// Every attempt has one name, however often it was sent.
    commands: Vec<String>,
    breaches: Vec<String>,
}

/// A coordinator that is started again until it stays, the first of them over `world.store`, those after it over what a dead one
/// leaves and with the next of `faults`.
fn start(world: &mut World, faults: &mut impl Iterator<Item = Fault>) -> Executor {
    loop {
        if let Ok(executor) = world.coordinator() {
            return executor;
        }
        if world.store.is_dead() {
            world.store = Arc::new(world.store.left_behind(faults.next()));
        }
    }
}

/// A cold start of thirty nodes, whose coordinators meet these faults in turn.
async fn cold_start(faults: &[Fault]) -> (End, Arc<MemoryStore>) {
    let mut left = faults.iter().copied();
    let mut world = World::new(THIRTY).with_controllers();
    world.store = Arc::new(MemoryStore::with(left.next()));
    // Some trouble on the way, so that its entries are crashed at, too.
    world.machine("biz-w2").fail = 1;
    world.machine("lab-m1").lose = 1;
    let mut executor = start(&mut world, &mut left);
    let mut begun = false;
    loop {
        if executor.runs().is_empty() {
            assert!(!begun, "{faults:?}: a run that was begun is lost");
            // What asks for a cold start asks again until it is begun.
            while !begun && !world.store.is_dead() {
                begun = executor.start(world.plan(), "test".to_owned()).await.is_ok();
            }
        }
        let store = Arc::clone(&world.store);
        let ended = |executor: &Executor| executor.runs().iter().any(|run| !run.state.is_active());
        world
            .until(&format!("{faults:?}: end or crash"), 10 * MINUTE, |_| {
                store.is_dead() || ended(&executor)
            })
            .await;
        if !store.is_dead() {
            break;
        }
        world.kill();
        world.store = Arc::new(store.left_behind(left.next()));
        executor = start(&mut world, &mut left);
    }
    let run = only(&executor);
    let mut commands: Vec<_> = world.commands.iter().map(|(_, id)| id.clone()).collect();
    commands.sort_unstable();
    commands.dedup();
    // The epoch in a name is that of the coordinator which began the run, and may be a later one.
    for command in &mut commands {
        command.truncate(command.find('@').unwrap());
    }
    let end = End {
        state: run.state,
        steps: run
            .steps
            .iter()
            .map(|step| (step.id.clone(), step.state))
            .collect(),
        residue: run.residue.clone(),
        starts: world
            .machines
            .iter()
            .map(|(node, machine)| (node.clone(), machine.starts))
            .collect(),
        commands,
        breaches: world.breaches.clone(),
    };
    (end, Arc::clone(&world.store))
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_at_whichever_write_the_end_is_the_same() {
    let (calm, store) = cold_start(&[]).await;
    assert_eq!(calm.state, RunState::Succeeded);
    assert!(calm.steps.iter().all(|(_, state)| *state == StepState::Done));
    assert!(calm.starts.len() == 30 && calm.starts.values().all(|starts| *starts == 1));
    // Seven masters have two components set aside and put back. Only biz-w2 needed a second attempt.
    assert_eq!(calm.commands.len(), 30 + 7 * 4 + 1, "{:?}", calm.commands);
    assert_eq!((&calm.residue[..], &calm.breaches[..]), (&[][..], &[][..]));
    assert!(store.largest() > 3, "nothing was written together");

    let writes = store.writes();
    assert!(writes > 20, "{writes}");
    let mut tried = 0;
    for at in 0..writes {
        for wrong in Wrong::ALL {
            let (end, _) = cold_start(&[(at, wrong)]).await;
            assert_eq!(end, calm, "write {at} {wrong:?}");
            tried += 1;
        }
        // And the one that takes over dies while it does: after its epoch, before and after it wrote that it did, at its first step.
        for second in [
            (0, Wrong::DiesAfter),
            (1, Wrong::DiesBefore),
            (1, Wrong::DiesAfter),
            (2, Wrong::DiesAfter),
        ] {
            let faults = [(at, Wrong::DiesAfter), second, (1, Wrong::Refused)];
            let (end, _) = cold_start(&faults).await;
            assert_eq!(end, calm, "{faults:?}");
            tried += 1;
        }
    }
    println!("{writes} writes, {tried} cold starts of 30 nodes that something went wrong in");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_makes_no_sense_is_left_alone() {
    use crate::store::Store;
    let mut world = World::new(THIRTY);
    world
        .store
        .append("cold-start-1", 0, b"{\"type\":\"riddle\"}")
        .unwrap();
    let error = world.coordinator().err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("entry 0 of the journal of run cold-start-1"),
        "{text}"
    );
    assert_eq!(
        world.store.journal("cold-start-1").unwrap(),
        [b"{\"type\":\"riddle\"}"]
    );
}

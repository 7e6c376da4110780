//! Cold starts with trouble of every kind at once, and a coordinator that dies now and then. A seed repeats one.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::memory::{MemoryStore, Wrong};
use super::world::{TEN, World};
use super::*;

async fn cold_start(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new(TEN);
    for machine in world.machines.values_mut() {
        let back = Duration::from_secs(random.random_range(1..55));
        machine.back_at = random.random_bool(0.9).then_some(Instant::now() + back);
        machine.lose = random.random_range(0..3);
        machine.fail = if random.random_bool(0.2) {
            random.random_range(1..3)
        } else {
            0
        };
        machine.sick = random.random_bool(0.05);
    }
    let die = |random: &mut SmallRng| {
        random
            .random_bool(0.7)
            .then(|| (random.random_range(2..40), Wrong::DiesAfter))
    };
    world.store = Arc::new(MemoryStore::with(die(&mut random)));
    let mut executor = world.coordinator().unwrap();
    executor
        .start(world.plan(), format!("seed {seed}"))
        .await
        .unwrap();
    loop {
        let store = Arc::clone(&world.store);
        world
            .until(&format!("seed {seed}"), 30 * MINUTE, |_| {
                store.is_dead() || matches!(state(&executor), RunState::Succeeded | RunState::Halted)
            })
            .await;
        if store.is_dead() {
            world.kill();
            world.store = Arc::new(store.left_behind(die(&mut random)));
            match world.coordinator() {
                Ok(next) => executor = next,
                // It died again while it was taking its run up.
                Err(error) => assert!(world.store.is_dead(), "seed {seed}: {error}"),
            }
        } else if state(&executor) == RunState::Halted {
            // Somebody went there and mended the machines.
            for machine in world.machines.values_mut() {
                machine.sick = false;
                machine.back_at.get_or_insert(Instant::now());
            }
            // A crash in this very moment is the next round's business.
            let _dead_or_resumed = executor.resume("cold-start-1").await;
        } else {
            break;
        }
    }
    assert_eq!(world.breaches, [""; 0], "seed {seed}");
    for (node, machine) in &world.machines {
        let residue = only(&executor).residue.contains(node);
        assert!(
            machine.starts <= 1,
            "seed {seed}: {node} was started {} times",
            machine.starts
        );
        let well = machine.back_at.is_some() && !machine.sick;
        assert!(
            !well || machine.starts == 1,
            "seed {seed}: {node} is well and was left behind"
        );
        assert_eq!(residue, !well, "seed {seed}: {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_of_every_kind_ends_in_order() {
    for seed in 0..24 {
        cold_start(seed).await;
    }
}

//! Waves that go by how the API server answers.

use tokio::time::Instant;

use super::world::World;
use super::*;
use crate::execute::status::LaneStatus;
use crate::fleet::view::{ApiServerAnswer, ApiServerError};

const fn quick() -> ApiServerAnswer {
    ApiServerAnswer::Ready(Duration::from_millis(182))
}

/// One cluster of forty workers, the first of which have been released.
async fn under_way(answer: ApiServerAnswer) -> (World, Executor) {
    let mut world = World::new(&[("c", &[], 3, 40)]);
    world.policy.wave.max = 12;
    world.policy.wave.interval = Duration::from_secs(1);
    world.api_server = Some(answer);
    let executor = world.coordinator().unwrap();
    executor
        .start(world.plan(), "power event".to_owned())
        .await
        .unwrap();
    world
        .until("first worker", MINUTE, |world| {
            world.commands.iter().any(|(node, _)| node.0.contains("-w"))
        })
        .await;
    (world, executor)
}

fn lane(executor: &Executor) -> LaneStatus {
    only(executor).lanes[0].clone()
}

async fn ends_well(world: &mut World, executor: &Executor) {
    world
        .until("success", 15 * MINUTE, |_| state(executor) == RunState::Succeeded)
        .await;
    assert_eq!(world.breaches, [""; 0]);
    assert_eq!(only(executor).lanes, []);
}

#[tokio::test(start_paused = true)]
async fn a_quick_api_server_opens_the_window_and_everybody_sees_why() {
    let (mut world, executor) = under_way(quick()).await;
    world
        .until("the largest window", MINUTE, |_| lane(&executor).window == 12)
        .await;
    let text = lane(&executor).to_string();
    assert!(
        text.starts_with("lane workers/c: window 12, ") && text.ends_with(" under way, API server 190 ms"),
        "{text}"
    );
    world
        .until("it waits for room", MINUTE, |_| {
            only(&executor)
                .waiting_on
                .iter()
                .any(|line| *line == lane(&executor).to_string())
        })
        .await;
    ends_well(&mut world, &executor).await;
    assert_eq!(world.crowd, 12);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_keeps_it_small_and_one_that_is_overloaded_closes_it() {
    let slow = ApiServerAnswer::Ready(Duration::from_millis(900));
    let (mut world, executor) = under_way(slow).await;
    ends_well(&mut world, &executor).await;
    assert_eq!(world.crowd, 2);

    let (mut world, executor) = under_way(quick()).await;
    world
        .until("a large window", MINUTE, |_| lane(&executor).window == 12)
        .await;
    world.api_server = Some(ApiServerAnswer::Failed(ApiServerError::Overloaded));
    world
        .until("the smallest window", MINUTE, |_| lane(&executor).window == 1)
        .await;
    ends_well(&mut world, &executor).await;
}

#[tokio::test(start_paused = true)]
async fn a_window_begins_anew_with_the_process_and_with_the_control_plane() {
    let (mut world, executor) = under_way(quick()).await;
    world
        .until("a large window", MINUTE, |_| lane(&executor).window == 12)
        .await;
    world.api_server = Some(ApiServerAnswer::Ready(Duration::from_millis(900)));
    let executor = {
        drop(executor);
        world.coordinator().unwrap()
    };
    world.pass(Duration::from_secs(3)).await;
    assert_eq!(lane(&executor).window, 2);

    world.api_server = Some(quick());
    world
        .until("a larger window", MINUTE, |_| lane(&executor).window > 2)
        .await;
    for master in ["c-m1", "c-m2"] {
        world.lose_power(master, Some(Instant::now() + 2 * world.policy.fresh));
    }
    // Whatever the third says, the gate is looked at before each wave.
    world
        .until("the gate to open again", MINUTE, |_| {
            step(&executor, "gate/c/control-plane").0 != StepState::Done
        })
        .await;
    assert_eq!(lane(&executor).window, 2);
    ends_well(&mut world, &executor).await;
}

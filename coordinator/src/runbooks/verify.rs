//! What runs again after a power event, step 3 of the chapter 机房断电恢复: as many pods of each workload as in better days. Pure.
//!
//! Nothing is changed. What did not start is named, with why its pods have no node where that is so; moving them is for an operator.

use std::time::Duration;

use super::maintenance::{empty, refused, step};
use super::plan::{Action, Request, RunbookPlan};
use super::shortage::explain;
use super::world::World;

/// Images are there and volumes attach; applications that start slowly take minutes.
const STARTED: Duration = Duration::from_mins(30);
/// So many pods without a node are explained.
const EXPLAINED: usize = 5;

/// `blackstart runbook run cold-start-verify --cluster NAME`.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    let mut plan = empty(request, world);
    let Some(before) = &world.around.before else {
        return refused(
            plan,
            "tell what did not start",
            format!(
                "how ready cluster {} was in better days: it is looked at now and then while the cluster is well, and was not so far",
                world.cluster
            ),
        );
    };
    let now = match world.around.workloads.within(world.timing.fresh, world.now) {
        Ok(now) => now,
        Err(missing) => return refused(plan, "tell what did not start", missing),
    };
    let compared = before.compare(now);
    let mut evidence = format!("{} then; now {}", before.words(), compared.spaces());
    if !compared.missing.is_empty() {
        evidence = format!("{evidence}; not yet: {}", compared.words());
    }
    for gone in &compared.gone {
        plan.notes
            .push(format!("{gone} is not there any more, and is not expected"));
    }
    if let Ok(room) = &world.around.room {
        for waiting in room.waiting.iter().take(EXPLAINED) {
            let why = explain(&waiting.pod, room);
            plan.notes.push(format!("{}: {}", waiting.pod.key, why.words()));
        }
    }
    plan.steps = vec![step(Action::AwaitWorkloads, evidence, STARTED)];
    plan.readiness = Some(before.clone());
    plan
}

//! The executor over a small simulated fleet, in paused time.

mod crash;
pub(crate) mod memory;
mod operators;
mod pace;
mod random;
mod recovery;
mod scale;
mod set_aside;
mod world;

use std::time::Duration;

use super::Executor;
use super::status::{RunState, RunStatus, StepState};

const MINUTE: Duration = Duration::from_mins(1);

/// How the only run stands.
fn only(executor: &Executor) -> RunStatus {
    let [run] = executor.runs().try_into().unwrap();
    RunStatus::clone(&run)
}

fn state(executor: &Executor) -> RunState {
    only(executor).state
}

fn step(executor: &Executor, id: &str) -> (StepState, String) {
    let run = only(executor);
    let step = run.steps.iter().find(|step| step.id.0 == id).unwrap();
    (step.state, step.waiting_on.clone())
}

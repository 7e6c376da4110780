//! What a look at six thousand nodes costs. Figures are told, not judged: machines differ, and this is a build for tests. What is judged is how
//! they grow.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::SystemTime;

use tokio::time::Instant;

use super::super::advance::{Circumstances, advance};
use super::super::journal::{Entry, Event};
use super::super::record::Run;
use super::super::status::status;
use super::world::{Shape, World};
use super::*;
use crate::fleet::view::GateState;
use crate::plan::StepKind;
use crate::plan::estimate::estimate;
use crate::plan::lint::lint;

/// The best of a few: a loaded machine only ever adds.
fn best(mut what: impl FnMut()) -> Duration {
    let once = |_| {
        let begun = SystemTime::now();
        what();
        begun.elapsed().unwrap_or_default()
    };
    (0..5).map(once).min().unwrap_or_default()
}

/// What was measured, and how long it took at best.
type Figures = Vec<(&'static str, Duration)>;

/// What each look costs with three clusters of so many workers.
async fn figures(workers: usize) -> Figures {
    let shapes: [Shape<'_>; 3] = [
        ("mgmt", &[], 3, workers),
        ("biz", &["mgmt"], 3, workers),
        ("lab", &["mgmt"], 3, workers),
    ];
    let mut world = World::new(&shapes);
    let now = Instant::now();
    for (node, machine) in &mut world.machines {
        machine.back_at = Some(now);
        if node.0.contains("-m") {
            machine.gate = GateState::Released;
            machine.opened_at = Some(now);
        }
    }
    tokio::time::advance(Duration::from_mins(1)).await;
    let (view, policy) = (world.view(), &world.policy);
    let plan = world.plan();
    let entry = |event| Entry {
        at_unix_ms: 0,
        elapsed_ms: 0,
        event,
    };
    let begun = Event::RunStarted {
        plan: plan.clone(),
        reason: String::new(),
        epoch: 1,
        request: None,
    };
    let now = Instant::now();
    let mut run = Run::begin("cold-start-1".to_owned(), entry(begun), now).unwrap();
    // The dearest moment: every control plane is there, and every worker waits for room.
    for step in plan.steps.iter().filter(|step| step.lane.is_none()) {
        if matches!(step.kind, StepKind::VerifyCluster { .. }) {
            continue;
        }
        let evidence = String::new();
        let step = step.id.clone();
        if matches!(
            plan.steps[run.place(&step).unwrap()].kind,
            StepKind::ReleaseKubelet { .. }
        ) {
            let command_id = String::new();
            let attempt = 1;
            let started = Event::StepStarted {
                step: step.clone(),
                command_id,
                attempt,
            };
            run.apply(&entry(started), now).unwrap();
        }
        run.apply(&entry(Event::StepDone { step, evidence }), now)
            .unwrap();
    }
    let (in_flight, feedback, stalls) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let look = || {
        let circumstances = Circumstances {
            view: &view,
            policy,
            now,
            in_flight: &in_flight,
            feedback: &feedback,
            stalls: &stalls,
        };
        advance(&run, circumstances)
    };
    let looked = look();
    vec![
        ("plan", best(|| drop(black_box(world.plan())))),
        ("lint", best(|| drop(black_box(lint(&plan, &world.inventory))))),
        (
            "estimate",
            best(|| drop(black_box(estimate(&plan, &view, &policy.typical, &policy.wave)))),
        ),
        ("advance", best(|| drop(black_box(look())))),
        (
            "status",
            best(|| drop(black_box(status(&run, &looked, None, now)))),
        ),
    ]
}

/// Looks again so often: what else the machine does only ever adds to a figure.
const LOOKS: usize = 20;

#[tokio::test(start_paused = true)]
async fn a_look_at_a_large_fleet_costs_as_much_as_the_fleet_is_large() {
    let (mut small, mut large) = (figures(500).await, figures(2000).await);
    // Four times the nodes; a square would be sixteen times the cost.
    let grows = |small: &Figures, large: &Figures| {
        small
            .iter()
            .zip(large)
            .find(|(small, large)| large.1 > small.1 * 12)
            .map(|(it, _)| it.0)
    };
    for _ in 0..LOOKS {
        if grows(&small, &large).is_none() {
            break;
        }
        keep_best(&mut small, figures(500).await);
        keep_best(&mut large, figures(2000).await);
    }
    for ((what, small), (_, large)) in small.iter().zip(&large) {
        eprintln!("{what}: {small:?} for 1,500 nodes, {large:?} for 6,000");
    }
    assert_eq!(grows(&small, &large), None);
}

fn keep_best(kept: &mut Figures, anew: Figures) {
    for ((_, kept), (_, anew)) in kept.iter_mut().zip(anew) {
        *kept = anew.min(*kept);
    }
}

//! Cold starts of large fleets in simulated time, with an API server that can be overwhelmed and a controller that evicts.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::time::Duration;

use blackstart_coordinator::execute::status::RunState;
use blackstart_coordinator::policy::{ColdStartPolicy, Typical, WavePolicy};
use blackstart_tests::apiserver::Limits;
use blackstart_tests::sim::scale::{Fleet, Outcome, cold_start};

const SECOND: Duration = Duration::from_secs(1);
const KUBELET: Duration = Duration::from_secs(20);
const API_SERVER: Duration = Duration::from_secs(30);

/// Three clusters of so many nodes each, two of which depend on the first.
fn three(nodes: usize) -> Fleet {
    let workers = nodes - 3;
    Fleet {
        clusters: vec![
            ("mgmt", &[], 3, workers),
            ("biz", &["mgmt"], 3, workers),
            ("lab", &["mgmt"], 3, workers),
        ],
        policy: ColdStartPolicy {
            wave: WavePolicy {
                initial: 10,
                max: 200,
                increase: 16,
                ..WavePolicy::default()
            },
            typical: Typical {
                kubelet: KUBELET,
                control_plane: API_SERVER,
                ..Typical::default()
            },
            ..ColdStartPolicy::default()
        },
        limits: Limits::default(),
        kubelet: KUBELET,
        api_server: API_SERVER,
        told: true,
        limit: Duration::from_hours(2),
    }
}

fn tell(what: &str, outcome: &Outcome) {
    eprintln!(
        "{what}: {:?} after {:?}, estimated {:?}; {:?}; learned {:?}",
        outcome.state, outcome.makespan, outcome.estimate.makespan, outcome.cost, outcome.learned
    );
    for cluster in &outcome.clusters {
        eprintln!("  {cluster:?}");
    }
}

fn unharmed(outcome: &Outcome) {
    assert_eq!(outcome.state, RunState::Succeeded, "{outcome:#?}");
    for cluster in &outcome.clusters {
        assert_eq!((cluster.crashes, cluster.evicted), (0, 0), "{cluster:?}");
    }
}

#[test]
fn six_thousand_nodes_take_no_longer_than_the_critical_path_and_harm_nobody() {
    // A small fleet first: how long steps really take is learned from it.
    let small = cold_start(&three(60)).unwrap();
    tell("3 x 60", &small);
    unharmed(&small);

    let mut fleet = three(2000);
    fleet.policy.typical = small.learned;
    let large = cold_start(&fleet).unwrap();
    tell("3 x 2000", &large);
    unharmed(&large);
    let limit = large.estimate.makespan.mul_f64(1.05);
    assert!(
        large.makespan <= limit,
        "{:?} is more than the critical path and 5 % ({limit:?}): {:?}",
        large.makespan,
        large.estimate.critical_path
    );
}

/// Eight hundred workers on an API server that serves four kubelets a second, and a window that may be as large as the cluster.
fn weak(told: bool, initial: usize) -> Fleet {
    let mut fleet = three(3);
    fleet.clusters = vec![("biz", &[], 3, 800)];
    fleet.limits.kubelets_per_second = 4.0;
    fleet.policy.wave = WavePolicy {
        initial,
        max: 800,
        increase: 2,
        ..WavePolicy::default()
    };
    fleet.told = told;
    fleet
}

#[test]
fn a_weak_api_server_sets_the_pace_and_is_never_overwhelmed() {
    let outcome = cold_start(&weak(true, 2)).unwrap();
    tell("weak, heard", &outcome);
    assert_eq!(outcome.state, RunState::Succeeded, "{outcome:#?}");
    let [cluster] = outcome.clusters.as_slice() else {
        panic!("{outcome:#?}")
    };
    assert_eq!((cluster.crashes, cluster.refusals), (0, 0), "{cluster:?}");
    // What it can serve takes 200 s; finding out how much that is costs something.
    assert!(outcome.makespan < 600 * SECOND, "{:?}", outcome.makespan);
}

/// The double has teeth: released all at once, the same fleet brings it down.
#[test]
fn the_same_fleet_released_at_once_brings_it_down() {
    let mut fleet = weak(false, 800);
    fleet.limit = Duration::from_mins(10);
    let outcome = cold_start(&fleet).unwrap();
    tell("weak, at once", &outcome);
    assert!(outcome.clusters[0].crashes > 0, "{outcome:#?}");
}

/// And the controller: who is held too long loses its pods, which is why controller manager and scheduler should be set aside.
#[test]
fn a_fleet_that_is_held_too_long_is_evicted() {
    let mut fleet = three(3);
    fleet.clusters = vec![("biz", &[], 3, 200)];
    fleet.policy.wave = WavePolicy {
        initial: 4,
        max: 4,
        ..WavePolicy::default()
    };
    let outcome = cold_start(&fleet).unwrap();
    tell("slow", &outcome);
    assert_eq!(outcome.state, RunState::Succeeded, "{outcome:#?}");
    assert!(outcome.clusters[0].evicted > 0, "{outcome:#?}");
}

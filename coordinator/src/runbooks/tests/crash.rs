//! A crash at any write of the journal comes to the same end, and nothing is done twice.

use std::sync::Arc;

use blackstart_apiserver::Release;

use super::super::plan::{Proof, Request, Runbook};
use super::super::record::RunState;
use super::bed::{Bed, NODE, request, within};
use crate::execute::tests::memory::{Fault, MemoryStore, Wrong};
use crate::kubernetes::objects::OUT_OF_SERVICE;

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: RunState,
    cordoned: bool,
    tainted: bool,
    pods: Vec<String>,
    /// What agents did.
    done: Vec<String>,
}

/// One run whose coordinator meets this fault, and is started again until it is at its end.
async fn carried_out(mut bed: Bed, request: Request, fault: Option<Fault>, abort: bool) -> (End, usize) {
    bed.store = Arc::new(MemoryStore::with(fault));
    let mut writes = 0;
    let mut aborted = !abort;
    loop {
        let started = bed.start().await;
        if started && bed.runbooks().runs().is_empty() {
            // Whoever asks asks again until it is begun.
            let begun = within("the beginning", async {
                loop {
                    match bed.runbooks().start(request.clone()).await {
                        Ok(_) => break true,
                        Err(_) if bed.store.is_dead() => break false,
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                    }
                }
            });
            begun.await;
        }
        let id = format!("{}-1", request.runbook);
        let end = within("its end, or a crash", async {
            while started && !bed.store.is_dead() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                let Ok(run) = bed.runbooks().run(&id) else {
                    continue;
                };
                if !run.state.is_active() {
                    return Some(run.state);
                }
                if !aborted && run.steps.iter().any(|step| step.id() == "drain" && step.begun) {
                    aborted = bed.runbooks().abort(&id, "bob".into()).await.is_ok();
                }
            }
            None
        })
        .await;
        writes += bed.store.writes();
        if let Some(state) = end {
            let node = bed.node().await;
            let mut pods = bed.pods().await;
            pods.sort();
            let end = End {
                state,
                cordoned: node["spec"]["unschedulable"] == true,
                tainted: node["spec"].to_string().contains(OUT_OF_SERVICE),
                pods,
                done: bed.agents.lock().unwrap().done.clone(),
            };
            return (end, writes);
        }
        bed.kill().await;
        bed.store = Arc::new(bed.store.left_behind(None));
    }
}

/// Each write of the run without faults is crashed at, before and after it is durable, and refused; some at a time.
async fn at_every_write(bed: impl AsyncFn() -> Bed, request: Request, abort: bool, expected: End) {
    let (end, writes) = carried_out(bed().await, request.clone(), None, abort).await;
    assert_eq!(end, expected);
    let faults = (0..writes)
        .flat_map(|at| [Wrong::DiesBefore, Wrong::DiesAfter, Wrong::Refused].map(|wrong| (at, wrong)));
    let faults: Vec<Fault> = faults.collect();
    for some in faults.chunks(6) {
        let mut at_once = Vec::new();
        for fault in some {
            at_once.push(carried_out(bed().await, request.clone(), Some(*fault), abort));
        }
        let ends = futures_util::future::join_all(at_once).await;
        for (fault, (end, _)) in some.iter().zip(ends) {
            assert_eq!(end, expected, "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_resumes_rightly_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = Bed::cold(Release::CURRENT).await;
        bed.deploy("web", 2).await;
        bed
    };
    let expected = End {
        state: RunState::Succeeded,
        cordoned: true,
        tainted: false,
        pods: Vec::new(),
        done: vec!["stop".into()],
    };
    at_every_write(bed, request(Runbook::MaintenanceBegin), false, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leaves_nothing_cordoned_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = Bed::cold(Release::CURRENT).await;
        // A pod that nothing lets go: the drain is where the abort finds the run.
        bed.deploy("web", 2).await;
        bed.protect("web").await;
        bed
    };
    let (end, writes) = carried_out(bed().await, request(Runbook::Drain), None, true).await;
    assert!(!end.cordoned && end.state == RunState::Aborted, "{end:?}");
    let faults: Vec<Fault> = (0..writes)
        .flat_map(|at| [Wrong::DiesBefore, Wrong::DiesAfter].map(|wrong| (at, wrong)))
        .collect();
    for some in faults.chunks(6) {
        let mut at_once = Vec::new();
        for fault in some {
            at_once.push(carried_out(
                bed().await,
                request(Runbook::Drain),
                Some(*fault),
                true,
            ));
        }
        for (fault, (end, _)) in some.iter().zip(futures_util::future::join_all(at_once).await) {
            assert!(
                !end.cordoned && end.state == RunState::Aborted,
                "{fault:?}: {end:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_given_up_rightly_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = Bed::cold(Release::CURRENT).await;
        bed.deploy("web", 2).await;
        let double = bed.double.lock().await;
        double.with(|world| world.power_off(NODE));
        drop(double);
        bed.agents.lock().unwrap().silent.insert(NODE.into());
        bed
    };
    let request = Request {
        proof: Some(Proof::Operator {
            by: "ann".into(),
            what: "power cable pulled".into(),
        }),
        ..request(Runbook::NodeDown)
    };
    let expected = End {
        state: RunState::Succeeded,
        cordoned: true,
        tainted: true,
        pods: Vec::new(),
        done: Vec::new(),
    };
    at_every_write(bed, request, false, expected).await;
}

//! A crash at any write of the journal comes to the same end, and nothing is done twice.

use std::sync::Arc;

use blackstart_apiserver::Release;
use blackstart_proto::part::Part;
use serde_json::json;

use super::super::options::Options;
use super::super::plan::{Proof, Request, Runbook};
use super::super::record::{RunState, StepRecord};
use super::bed::{Bed, NODE, request, within};
use super::control_plane::asked;
use crate::execute::tests::memory::{Fault, MemoryStore, Wrong};
use crate::kubernetes::objects::workload::{TOLERATIONS_BEFORE, TOLERATIONS_BY, WorkloadName};
use crate::kubernetes::objects::{CORDONED_BY, OUT_OF_SERVICE, TAINTED_BY};

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: RunState,
    /// What is not as it was: `cordoned`, `tainted`, `marked`, `silenced`, `stopped`.
    left: Vec<&'static str>,
    pods: Vec<String>,
    /// What the pods of the deployment tolerate.
    tolerations: String,
    /// What agents did.
    done: Vec<String>,
}

/// One run whose coordinator meets this fault, and is started again until it is at its end.
///
/// `abort`: the step that it is aborted at, once it may have changed something.
async fn carried_out(
    mut bed: Bed,
    request: Request,
    fault: Option<Fault>,
    abort: Option<&str>,
) -> (End, usize) {
    bed.store = Arc::new(MemoryStore::with(fault));
    let mut writes = 0;
    let mut aborted = abort.is_none();
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
                let is_there = |step: &StepRecord| abort == Some(step.id().as_str()) && step.begun;
                if !aborted && run.steps.iter().any(is_there) {
                    aborted = bed.runbooks().abort(&id, "bob".into()).await.is_ok();
                }
            }
            None
        })
        .await;
        writes += bed.store.writes();
        if let Some(state) = end {
            let node = bed.node().await;
            let web = bed.deployment("web").await;
            let mut pods = bed.pods().await;
            pods.sort();
            let marks = [CORDONED_BY, TAINTED_BY, TOLERATIONS_BY, TOLERATIONS_BEFORE];
            let is_marked = |object: &serde_json::Value| {
                let annotations = &object["metadata"]["annotations"];
                marks.iter().any(|mark| !annotations[*mark].is_null())
            };
            let (silenced, agents) = (
                bed.runbooks().shared.ports.brakes.silenced(),
                bed.agents.lock().unwrap(),
            );
            let left = [
                ("cordoned", node["spec"]["unschedulable"] == true),
                ("tainted", node["spec"].to_string().contains(OUT_OF_SERVICE)),
                ("marked", is_marked(&node) || is_marked(&web)),
                ("silenced", silenced.contains(&request.node)),
                ("stopped", agents.stopped.contains(NODE)),
            ];
            let end = End {
                state,
                left: left
                    .into_iter()
                    .filter_map(|(what, is_so)| is_so.then_some(what))
                    .collect(),
                pods,
                tolerations: web["spec"]["template"]["spec"]["tolerations"].to_string(),
                done: agents.done.clone(),
            };
            return (end, writes);
        }
        bed.kill().await;
        bed.store = Arc::new(bed.store.left_behind(None));
    }
}

/// Each write of the run without faults is crashed at, before and after it is durable, and refused; some at a time.
async fn at_every_write(
    bed: impl AsyncFn() -> Bed,
    request: Request,
    abort: Option<&str>,
    expected: impl Fn(&End) -> bool,
) {
    let (end, writes) = carried_out(bed().await, request.clone(), None, abort).await;
    assert!(expected(&end), "{end:?}");
    let mut wrongs = vec![Wrong::DiesBefore, Wrong::DiesAfter];
    // A write that is refused and tried again is looked at in runs that go to their end.
    if abort.is_none() {
        wrongs.push(Wrong::Refused);
    }
    let faults = (0..writes).flat_map(|at| wrongs.iter().map(move |wrong| (at, *wrong)));
    let faults: Vec<Fault> = faults.collect();
    for some in faults.chunks(6) {
        let mut at_once = Vec::new();
        for fault in some {
            at_once.push(carried_out(bed().await, request.clone(), Some(*fault), abort));
        }
        let ends = futures_util::future::join_all(at_once).await;
        for (fault, (end, _)) in some.iter().zip(ends) {
            assert!(expected(&end), "{fault:?}: {end:?}");
        }
    }
}

/// Nothing is left of a run that was aborted.
fn is_put_back(end: &End) -> bool {
    end.state == RunState::Aborted && end.left.is_empty()
}

/// With a deployment that no budget protects.
async fn with_web() -> Bed {
    let bed = Bed::cold(Release::CURRENT).await;
    bed.deploy("web", 2).await;
    bed
}

/// With a node that has lost its power.
async fn with_dead_node() -> Bed {
    let bed = with_web().await;
    bed.world(|world| world.power_off(NODE)).await;
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    bed
}

fn proved() -> Request {
    Request {
        proof: Some(Proof::Operator {
            by: "ann".into(),
            what: "power cable pulled".into(),
        }),
        ..request(Runbook::NodeDown)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_resumes_rightly_after_a_crash_at_any_write() {
    at_every_write(with_web, request(Runbook::MaintenanceBegin), None, |end| {
        *end == End {
            state: RunState::Succeeded,
            left: vec!["cordoned", "marked", "silenced", "stopped"],
            pods: Vec::new(),
            tolerations: "null".into(),
            done: vec!["stop".into()],
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_the_drain_leaves_nothing_cordoned_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = with_web().await;
        // A pod that nothing lets go: the drain is where the abort finds the run.
        bed.protect("web").await;
        bed
    };
    at_every_write(bed, request(Runbook::Drain), Some("drain"), is_put_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_the_kubelet_has_it_run_again_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = with_web().await;
        // An old answer keeps the step open, so that the abort finds the run at it.
        bed.agents.lock().unwrap().unprobed.insert(NODE.into());
        bed
    };
    let request = request(Runbook::MaintenanceBegin);
    at_every_write(bed, request, Some("stop-kubelet"), is_put_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_of_a_node_that_is_given_up_takes_taint_and_cordon_back_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = with_dead_node().await;
        // One whose end somebody else has to finish keeps the run open, so that the abort finds it.
        bed.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "held", "namespace": "default", "finalizers": ["example.com/held"]},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "registry.lan/web:1"}]},
        }))
        .await;
        bed
    };
    at_every_write(bed, proved(), Some("taint-out-of-service"), is_put_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_puts_tolerations_back_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = with_web().await;
        bed.world(|world| {
            world.change("deployments", "default", "web", |web| {
                web["spec"]["template"]["spec"]["tolerations"] =
                    json!([{"key": "role", "operator": "Exists"}]);
            });
            world.stop_kubelet(NODE);
        })
        .await;
        bed
    };
    let request = Request {
        options: Options {
            workloads: vec![WorkloadName::parse("default/deployment/web").unwrap()],
            ..Options::default()
        },
        ..request(Runbook::NetworkLoss)
    };
    at_every_write(bed, request, Some("shorten-tolerations"), |end| {
        is_put_back(end) && end.tolerations == r#"[{"key":"role","operator":"Exists"}]"#
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pods_are_bounced_once_each_after_a_crash_at_any_write() {
    let bed = async || {
        let bed = with_web().await;
        for (node, part) in [("master-1", Part::ApiServer), ("master-2", Part::Scheduler)] {
            bed.agents.lock().unwrap().ill.insert((node.to_owned(), part));
        }
        bed
    };
    at_every_write(bed, asked(Options::default()), None, |end| {
        end.state == RunState::Succeeded
            && end.done
                == [
                    "bounce kube-apiserver of master-1",
                    "bounce kube-scheduler of master-2",
                ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_given_up_rightly_after_a_crash_at_any_write() {
    at_every_write(with_dead_node, proved(), None, |end| {
        *end == End {
            state: RunState::Succeeded,
            left: vec!["cordoned", "tainted", "marked"],
            pods: Vec::new(),
            tolerations: "null".into(),
            done: Vec::new(),
        }
    })
    .await;
}

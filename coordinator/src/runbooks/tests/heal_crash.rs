//! A crash of the coordinator at any write of a run that raises memory comes to the same end, and raises it once.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::Release;
use serde_json::json;

use super::super::plan::Runbook;
use super::super::record::RunState;
use super::super::subject::Of;
use super::bed::{Bed, within};
use super::heal::{apply, asked, limited, object, planned, workload};
use crate::execute::tests::memory::{Fault, MemoryStore, Wrong};

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
struct End {
    state: RunState,
    limit: String,
    ready: u64,
    /// So many templates there were: one before, one after.
    generations: u64,
}

/// One run whose coordinator meets this fault, and is started again until it is at its end. Somebody approves as often as it asks.
async fn carried_out(fault: Option<Fault>) -> (End, usize) {
    let mut bed = Bed::cold(Release::CURRENT).await;
    let annotations = json!({"apiserver-double/outcome": "oom-below=140Mi"});
    apply(
        &bed,
        &[workload("Deployment", "web", 1, annotations, limited("100Mi"))],
    )
    .await;
    let heal = asked(Runbook::PodsHeal, Of::AllPods);
    bed.store = Arc::new(MemoryStore::with(fault));
    let mut writes = 0;
    loop {
        let started = bed.start().await;
        if started && bed.runbooks().runs().is_empty() {
            planned(&bed, &heal, |plan| !plan.steps.is_empty()).await;
            within("the beginning", async {
                while bed.runbooks().start(heal.clone()).await.is_err() && !bed.store.is_dead() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
        }
        let end = within("its end, or a crash", async {
            while started && !bed.store.is_dead() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let Ok(run) = bed.runbooks().run("pods-heal-1") else {
                    continue;
                };
                if !run.state.is_active() {
                    return Some(run.state);
                }
                if run.wants_approval() {
                    // What the journal did not take is asked for again.
                    let _asked_again = bed.runbooks().approve("pods-heal-1", None, "bob".into()).await;
                }
            }
            None
        })
        .await;
        writes += bed.store.writes();
        if let Some(state) = end {
            let object = object(&bed, "deployments", "web").await;
            let limit = &object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
            let end = End {
                state,
                limit: limit.as_str().unwrap_or_default().to_owned(),
                ready: object["status"]["readyReplicas"].as_u64().unwrap_or_default(),
                generations: object["metadata"]["generation"].as_u64().unwrap_or_default(),
            };
            return (end, writes);
        }
        bed.kill().await;
        bed.store = Arc::new(bed.store.left_behind(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_raised_once_after_a_crash_at_any_write() {
    let expected = End {
        state: RunState::Succeeded,
        limit: "150Mi".into(),
        ready: 1,
        generations: 2,
    };
    let (end, writes) = carried_out(None).await;
    assert_eq!(end, expected);
    let faults: Vec<Fault> = (0..writes)
        .flat_map(|at| [Wrong::DiesBefore, Wrong::DiesAfter, Wrong::Refused].map(|wrong| (at, wrong)))
        .collect();
    for some in faults.chunks(6) {
        let ends = futures_util::future::join_all(some.iter().map(|fault| carried_out(Some(*fault)))).await;
        for (fault, (end, _)) in some.iter().zip(ends) {
            assert_eq!(end, expected, "{fault:?}");
        }
    }
}

//! What runs again after a power event.

use std::time::Duration;

use blackstart_apiserver::Release;

use super::super::options::Options;
use super::super::plan::{Request, Runbook};
use super::super::policy::RunbookPolicy;
use super::super::record::RunState;
use super::bed::{Bed, NODE, request, within};
use crate::inventory::{ClusterName, NodeName};
use crate::store::Store;

fn asked() -> Request {
    Request {
        node: NodeName(String::new()),
        options: Options {
            cluster: Some(ClusterName("biz".into())),
            ..Options::default()
        },
        ..request(Runbook::ColdStartVerify)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_start_is_named_beside_what_was_ready_in_better_days() {
    let mut bed = Bed::cold(Release::CURRENT).await;
    bed.deploy("web", 4).await;
    bed.policy = RunbookPolicy {
        readiness_every: Duration::from_millis(100),
        ..bed.policy.clone()
    };
    bed.start().await;
    within("better days", async {
        while bed.store.get("readiness/biz").unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // It loses a worker, and comes back without it; what was kept is not replaced by what is worse.
    bed.kill().await;
    bed.world(|world| world.power_off(NODE)).await;
    bed.cordon("worker-2", true).await;
    within("fewer pods", async {
        while bed.deployment("web").await["status"]["readyReplicas"] == 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    bed.start().await;
    let run = bed.runbooks().start(asked()).await.unwrap();
    let evidence = &run.plan.steps[0].evidence;
    assert!(
        evidence.starts_with("4 of 4 pods of 1 workloads in 1 namespaces then"),
        "{evidence}"
    );
    bed.until(&run.id, "waiting", |run| {
        run.waiting.as_ref().is_some_and(|waiting| {
            let words = waiting.to_string();
            words.contains("what did not start: default/deployment/web") && words.contains("/4 ready")
        })
    })
    .await;
    bed.world(|world| world.power_on(NODE)).await;
    bed.cordon("worker-2", false).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(
        run.steps[0].evidence.contains("default 4/4"),
        "{}",
        run.steps[0].evidence
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_declared_is_none() {
    let bed = Bed::new(Release::CURRENT).await;
    let mut other = asked();
    other.options.cluster = Some(ClusterName("none".into()));
    let refused = bed.runbooks().start(other).await.unwrap_err();
    assert!(refused.to_string().contains("cluster \"none\""), "{refused}");
}

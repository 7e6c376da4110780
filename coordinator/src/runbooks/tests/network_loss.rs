//! A node that its cluster cannot reach.

use blackstart_apiserver::Release;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

use super::super::network_loss::TAINTS;
use super::super::options::Options;
use super::super::plan::{Proof, Request, Runbook};
use super::super::record::{Phase, RunState};
use super::bed::{Bed, NODE, phase, request, within};
use crate::kubernetes::objects::workload::{TOLERATIONS_BEFORE, TOLERATIONS_BY, WorkloadName};

fn chosen(workloads: &[&str]) -> Request {
    Request {
        options: Options {
            workloads: workloads
                .iter()
                .map(|text| WorkloadName::parse(text).unwrap())
                .collect(),
            ..Options::default()
        },
        ..request(Runbook::NetworkLoss)
    }
}

/// Its kubelet is cut off; its agent speaks.
async fn cut_off(bed: &Bed) {
    bed.world(|world| world.stop_kubelet(NODE)).await;
    within("the partition to be seen", async {
        loop {
            let asked = chosen(&["default/deployment/web"]);
            bed.runbooks().ask(&asked).await;
            let plan = bed.runbooks().plan(asked).await.unwrap();
            if plan.steps.len() == 5 {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn with_web() -> Bed {
    let bed = Bed::new(Release::CURRENT).await;
    let mut web = super::bed::heavy("web", 4, "10m", "10m");
    web["spec"]["template"]["spec"]["tolerations"] =
        json!([{"key": "role", "operator": "Exists", "effect": "NoSchedule"}]);
    bed.put(web).await;
    bed.ready("web", 4).await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn tolerations_are_shortened_while_a_node_is_cut_off_and_put_back_when_it_is_reached() {
    let bed = with_web().await;
    let before = bed.deployment("web").await["spec"]["template"]["spec"]["tolerations"].clone();
    let refused = bed
        .runbooks()
        .start(chosen(&["default/deployment/web"]))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("evidence that it is"), "{refused}");
    cut_off(&bed).await;
    let run = bed
        .runbooks()
        .start(chosen(&["default/deployment/web"]))
        .await
        .unwrap();
    let evidence = &run.plan.steps[0].evidence;
    assert!(
        evidence.contains("it lives and does not reach its API servers"),
        "{evidence}"
    );
    assert!(
        evidence.contains("of the 3 other nodes of its cluster 3 are in session"),
        "{evidence}"
    );
    bed.until(&run.id, "awaiting it", |run| {
        phase(run, "shorten-tolerations") == Some(Phase::Done)
    })
    .await;
    let web = bed.deployment("web").await;
    let tolerations = &web["spec"]["template"]["spec"]["tolerations"];
    for (at, taint) in TAINTS.into_iter().enumerate() {
        let expected =
            json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3});
        assert_eq!(tolerations[at + 1], expected);
    }
    assert_eq!(web["metadata"]["annotations"][TOLERATIONS_BY], run.id.as_str());
    let kept = web["metadata"]["annotations"][TOLERATIONS_BEFORE]
        .as_str()
        .unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(kept).unwrap(), before);
    assert!(bed.is_cordoned().await);
    bed.world(|world| world.start_kubelet(NODE)).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let web = bed.deployment("web").await;
    assert_eq!(web["spec"]["template"]["spec"]["tolerations"], before);
    assert!(
        web["metadata"]["annotations"][TOLERATIONS_BY].is_null(),
        "{web:#}"
    );
    assert!(web["metadata"]["annotations"][TOLERATIONS_BEFORE].is_null());
    assert!(!bed.is_cordoned().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_after_a_crash_puts_tolerations_back_and_leaves_what_others_changed() {
    let mut bed = with_web().await;
    bed.deploy("api", 2).await;
    cut_off(&bed).await;
    let both = [
        "default/deployment/web",
        "default/deployment/api",
        "default/deployment/none",
    ];
    let run = bed.runbooks().start(chosen(&both)).await.unwrap();
    assert!(
        run.plan
            .refusals
            .iter()
            .any(|one| one.missing.contains("has no default/deployment/none")),
        "{:?}",
        run.plan.refusals
    );
    bed.until(&run.id, "awaiting it", |run| {
        phase(run, "shorten-tolerations") == Some(Phase::Done)
    })
    .await;
    bed.kill().await;
    let theirs = json!([{"key": "theirs", "operator": "Exists"}]);
    bed.world(|world| {
        world.change("deployments", "default", "web", |web| {
            web["spec"]["template"]["spec"]["tolerations"] = theirs.clone();
        });
    })
    .await;
    assert!(bed.start().await);
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Aborted, "{run:#?}");
    assert_eq!(
        phase(&run, "undo-shorten-tolerations"),
        Some(Phase::Done),
        "{run:#?}"
    );
    let web = bed.deployment("web").await;
    assert_eq!(web["spec"]["template"]["spec"]["tolerations"], theirs);
    assert!(
        web["metadata"]["annotations"][TOLERATIONS_BY].is_null(),
        "{web:#}"
    );
    // It said nothing of tolerations before.
    let api = bed.deployment("api").await;
    assert!(
        api["spec"]["template"]["spec"]["tolerations"].is_null(),
        "{api:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_partition_is_refused_by_what_it_is() {
    let bed = with_web().await;
    // Only its agent is away.
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    bed.plans(&chosen(&[]), |plan| {
        plan.refusals
            .iter()
            .any(|one| one.missing.contains("only its agent is away"))
    })
    .await;
    // Both are silent: nobody can tell, and nothing is chosen.
    bed.world(|world| world.power_off(NODE)).await;
    bed.plans(&chosen(&[]), |plan| {
        plan.may_run() && plan.steps[0].evidence.contains("cut off or dead")
    })
    .await;
    bed.runbooks().ask(&chosen(&[])).await;
    let plan = bed.runbooks().plan(chosen(&[])).await.unwrap();
    assert!(
        plan.refusals
            .iter()
            .any(|one| one.missing.contains("--workload") && one.missing.contains("default/deployment/web")),
        "{:?}",
        plan.refusals
    );
    // It is proved to be dead.
    let proved = Request {
        proof: Some(Proof::Operator {
            by: "ann".into(),
            what: "cable pulled".into(),
        }),
        ..chosen(&[])
    };
    let refused = bed.runbooks().start(proved).await.unwrap_err();
    assert!(refused.to_string().contains("node-down"), "{refused}");
}

//! Declared workloads of the platform: restarted, given more memory or tolerations, and put back.

use std::sync::Arc;

use blackstart_apiserver::{Outcome, Release};
use serde_json::json;
use tokio::time::sleep;

use super::super::Refusal;
use super::super::declared::Declared;
use super::super::plan::{Request, Runbook};
use super::super::record::{Phase, RunState};
use super::super::subject::Of;
use super::bed::{Bed, phase, wants, within};
use super::heal::{apply, asked, fare, ids, limited, object, planned, workload};
use crate::inventory::ClusterName;
use crate::kubernetes::detail::RESTARTED_AT;
use crate::kubernetes::objects::workload::WorkloadKind;

fn declared(kind: WorkloadKind, name: &str, changes_by_itself: bool) -> Declared {
    Declared {
        name: name.into(),
        cluster: ClusterName("biz".into()),
        namespace: "default".into(),
        kind,
        object: name.into(),
        needs: Vec::new(),
        add_memory: 500 << 20,
        changes_by_itself,
    }
}

fn heal(kind: WorkloadKind, name: &str) -> Request {
    asked(
        Runbook::WorkloadHeal,
        Of::Workload {
            kind,
            name: name.into(),
        },
    )
}

async fn bed(declared: Declared, release: Release) -> Bed {
    let mut bed = Bed::cold(release).await;
    bed.declared = Arc::new(vec![declared]);
    bed.start().await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_serve_is_restarted_by_the_standard_annotation_and_followed() {
    let bed = bed(
        declared(WorkloadKind::Deployment, "gateway-proxy", false),
        Release::CURRENT,
    )
    .await;
    fare(&bed, Some(("web", Outcome::NeverReady))).await;
    apply(
        &bed,
        &[workload("Deployment", "gateway-proxy", 2, json!({}), json!({}))],
    )
    .await;
    let request = heal(WorkloadKind::Deployment, "gateway-proxy");
    let plan = planned(&bed, &request, |plan| {
        plan.mends.restarts.len() == 1 && plan.steps[0].evidence.contains("readiness-failed")
    })
    .await;
    assert_eq!(ids(&plan), ["rollout-restart", "await-rollout", "await-steady"]);
    let run = bed.runbooks().start(request.clone()).await.unwrap();
    bed.until(&run.id, "restarted", |run| {
        phase(run, "rollout-restart") == Some(Phase::Done)
    })
    .await;
    let restarted = object(&bed, "deployments", "gateway-proxy").await;
    let at = &restarted["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT];
    assert!(at.as_str().is_some_and(|at| at.ends_with('Z')), "{restarted:#}");
    fare(&bed, None).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let end = &run.steps[2].evidence;
    assert!(end.contains("2 pods Running and ready"), "{end}");
    // What is whole is left alone.
    let refused = bed.runbooks().start(request).await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("2 of 2 available")),
        "{refused:?}"
    );
    let known = bed.runbooks().workloads().await;
    let (one, state) = &known[0];
    let (state, _) = state.as_ref().unwrap();
    assert!(one.name == "gateway-proxy" && state.is_whole(), "{known:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_killed_for_its_memory_gets_the_declared_step_without_being_asked_if_declared_so()
{
    let bed = bed(
        declared(WorkloadKind::StatefulSet, "nsf-redis", true),
        Release::V1_13,
    )
    .await;
    let annotations = json!({"apiserver-double/outcome": "oom-below=550Mi"});
    apply(
        &bed,
        &[workload(
            "StatefulSet",
            "nsf-redis",
            2,
            annotations,
            limited("100Mi"),
        )],
    )
    .await;
    let request = heal(WorkloadKind::StatefulSet, "nsf-redis");
    let plan = planned(&bed, &request, |plan| !plan.mends.templates.is_empty()).await;
    assert_eq!(
        ids(&plan),
        ["raise-memory", "recreate", "await-rollout", "await-steady"]
    );
    assert_eq!(plan.steps[0].approval, None);
    let run = bed.runbooks().start(request.clone()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let changed = object(&bed, "statefulsets", "nsf-redis").await;
    let resources = &changed["spec"]["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"]["memory"], "600Mi");
    assert_eq!(resources["requests"]["memory"], "550Mi");
    let mut back = request;
    back.mending.rollback = true;
    let run = bed.runbooks().start(back).await.unwrap();
    bed.until(&run.id, "put back", |run| {
        phase(run, "restore-templates") == Some(Phase::Done)
    })
    .await;
    let restored = object(&bed, "statefulsets", "nsf-redis").await;
    assert_eq!(
        restored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"],
        "100Mi"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_no_node_takes_for_a_taint_is_proposed_its_toleration_and_an_abort_takes_it_back() {
    let bed = bed(
        declared(WorkloadKind::Deployment, "nsf-server", false),
        Release::CURRENT,
    )
    .await;
    let double = bed.double.lock().await;
    double.with(|world| {
        for node in ["worker-1", "worker-2"] {
            world.change("nodes", "", node, |node| {
                node["spec"]["taints"] =
                    json!([{"key": "dedicated", "value": "nsf", "effect": "NoSchedule"}]);
            });
        }
    });
    drop(double);
    apply(
        &bed,
        &[workload("Deployment", "nsf-server", 2, json!({}), json!({}))],
    )
    .await;
    let request = heal(WorkloadKind::Deployment, "nsf-server");
    let plan = planned(&bed, &request, |plan| {
        !plan.steps.is_empty() && plan.mends.restarts.is_empty()
    })
    .await;
    assert_eq!(ids(&plan), ["add-tolerations", "await-rollout", "await-steady"]);
    assert!(
        plan.steps[0]
            .evidence
            .contains("tolerates dedicated=nsf:NoSchedule as well"),
        "{plan:#?}"
    );
    let run = bed.runbooks().start(request.clone()).await.unwrap();
    bed.until(&run.id, "asking", wants).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let tolerations = async || {
        let object = object(&bed, "deployments", "nsf-server").await;
        object["spec"]["template"]["spec"]["tolerations"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert_eq!(tolerations().await, 1);
    let mut back = request;
    back.mending.rollback = true;
    let run = bed.runbooks().start(back).await.unwrap();
    within("the old tolerations", async {
        while tolerations().await != 0 {
            sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    bed.ends(&run.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_does_not_cure_is_refused_with_what_does() {
    let bed = bed(
        declared(WorkloadKind::Deployment, "gateway-proxy", false),
        Release::CURRENT,
    )
    .await;
    fare(&bed, Some(("web", Outcome::ImagePullBackOff))).await;
    apply(
        &bed,
        &[workload("Deployment", "gateway-proxy", 1, json!({}), json!({}))],
    )
    .await;
    let request = heal(WorkloadKind::Deployment, "gateway-proxy");
    let plan = planned(&bed, &request, |plan| plan.steps.is_empty()).await;
    assert!(
        plan.refusals[0]
            .missing
            .contains("put right the name or tag of registry.lan/web:1"),
        "{plan:#?}"
    );
    let none = bed
        .runbooks()
        .plan(heal(WorkloadKind::Deployment, "nobody"))
        .await
        .unwrap();
    assert!(
        none.refusals[0]
            .missing
            .contains("has no default/deployment/nobody"),
        "{none:#?}"
    );
}

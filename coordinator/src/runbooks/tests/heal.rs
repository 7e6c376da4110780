//! Pods that do not run, one scenario a state: what is said of them, what is mended, and what is refused with what is missing.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::{DeleteOptions, Outcome, Release};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::Refusal;
use super::super::diagnosis::{Cause, Diagnosis, State};
use super::super::mends::{BEFORE, CHANGED_BY};
use super::super::plan::{Proof, Request, Runbook, RunbookPlan};
use super::super::record::{Phase, RunState};
use super::super::status::RunbookStatus;
use super::super::subject::{Mending, Of, Subject};
use super::bed::{Bed, phase, request, wants, within};
use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::kubernetes::rights::{Resource, Right, Verb};

const NAMESPACE: &str = "default";

pub(super) fn subject(of: Of) -> Subject {
    Subject {
        cluster: ClusterName("biz".into()),
        namespace: NAMESPACE.into(),
        of,
    }
}

/// A request about something of the namespace, whose pods have to be well for a second.
pub(super) fn asked(runbook: Runbook, of: Of) -> Request {
    Request {
        node: NodeName(String::new()),
        subject: Some(subject(of)),
        mending: Mending {
            steady: Duration::from_secs(1),
            ..Mending::default()
        },
        ..request(runbook)
    }
}

/// A deployment or stateful set, with parts of its pods' template.
pub(super) fn workload(kind: &str, name: &str, replicas: u32, annotations: Value, spec: Value) -> Value {
    let labels = json!({ "app": name });
    let mut template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "registry.lan/web:1"}],
        },
    });
    template["metadata"]["annotations"] = annotations;
    if let Value::Object(fields) = spec {
        for (field, value) in fields {
            template["spec"][field] = value;
        }
    }
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels}, "template": template},
    })
}

pub(super) fn limited(memory: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "registry.lan/web:1", "resources": {
        "requests": {"memory": "50Mi"}, "limits": {"memory": memory},
    }}]})
}

pub(super) async fn apply(bed: &Bed, objects: &[Value]) {
    let double = bed.double.lock().await;
    double.with(|world| world.apply_manifests(objects).unwrap());
}

pub(super) async fn fare(bed: &Bed, outcome: Option<(&str, Outcome)>) {
    let double = bed.double.lock().await;
    double.with(|world| {
        world.outcomes.clear();
        world
            .outcomes
            .extend(outcome.map(|(image, outcome)| (image.to_owned(), outcome)));
    });
}

pub(super) async fn object(bed: &Bed, resource: &'static str, name: &str) -> Value {
    let double = bed.double.lock().await;
    double.with(|world| {
        world
            .get(resource, NAMESPACE, name)
            .map_or(Value::Null, |found| Value::clone(&found))
    })
}

/// The pods of a workload of the namespace.
pub(super) async fn pods(bed: &Bed, app: &str) -> Vec<Value> {
    let double = bed.double.lock().await;
    double.with(|world| {
        let all = world.store.all("pods");
        let here = all.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app);
        here.map(|pod| Value::clone(pod)).collect()
    })
}

/// Until something of the namespace is found to be so.
async fn diagnosed(bed: &Bed, state: State, like: impl Fn(&Cause) -> bool) -> Diagnosis {
    within("a diagnosis", async {
        loop {
            let (found, _) = bed
                .runbooks()
                .diagnose(&subject(Of::AllPods))
                .await
                .unwrap_or_default();
            if let Some(one) = found.into_iter().find(|one| one.state == state && one.has(&like)) {
                return one;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Until its plan is so.
pub(super) async fn planned(
    bed: &Bed,
    request: &Request,
    like: impl Fn(&RunbookPlan) -> bool,
) -> RunbookPlan {
    within("a plan", async {
        loop {
            let plan = bed.runbooks().plan(request.clone()).await.unwrap();
            if like(&plan) {
                return plan;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Begins it; pods that happen to run between two ends are looked at again.
pub(super) async fn started(bed: &Bed, request: &Request) -> Arc<RunbookStatus> {
    within("its beginning", async {
        loop {
            match bed.runbooks().start(request.clone()).await {
                Ok(run) => return run,
                Err(Refusal::Plan(_)) => sleep(Duration::from_millis(50)).await,
                Err(refusal) => panic!("{refusal}"),
            }
        }
    })
    .await
}

pub(super) fn ids(plan: &RunbookPlan) -> Vec<&'static str> {
    plan.steps.iter().map(|step| step.action.as_str()).collect()
}

fn refusals(plan: &RunbookPlan) -> String {
    let told: Vec<_> = plan
        .refusals
        .iter()
        .map(|one| format!("{}: {}", one.what, one.missing))
        .collect();
    told.join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_wait_for_a_node_are_told_why_and_refused_with_what_to_do() {
    let bed = Bed::new(Release::CURRENT).await;
    let memory =
        json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": "900Gi"}}}]});
    let port = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
    let claim = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    apply(
        &bed,
        &[
            workload("Deployment", "large", 1, json!({}), memory),
            workload("Deployment", "ports", 5, json!({}), port),
            workload("Deployment", "claims", 1, json!({}), claim),
            workload(
                "Deployment",
                "picky",
                1,
                json!({}),
                json!({"nodeSelector": {"disk": "ssd"}}),
            ),
        ],
    )
    .await;
    let large = diagnosed(
        &bed,
        State::Pending,
        |cause| matches!(cause, Cause::Insufficient { resource } if resource == "memory"),
    )
    .await;
    assert!(large.key.name.starts_with("large"), "{large:?}");
    let ports = diagnosed(&bed, State::Pending, |cause| {
        *cause
            == Cause::HostPortTaken {
                port: "TCP 8080".into(),
            }
    })
    .await;
    let holder = ports
        .findings
        .iter()
        .flat_map(|finding| &finding.evidence)
        .find(|words| words.contains("has it on worker-"));
    assert!(holder.is_some(), "{ports:#?}");
    diagnosed(&bed, State::Pending, |cause| {
        *cause == Cause::ClaimMissing { claim: "data".into() }
    })
    .await;
    diagnosed(&bed, State::Pending, |cause| *cause == Cause::Affinity).await;
    let plan = bed
        .runbooks()
        .plan(asked(Runbook::PodsHeal, Of::Pod(large.key.name)))
        .await
        .unwrap();
    assert!(plan.steps.is_empty());
    assert!(
        refusals(&plan).contains("ask for less memory"),
        "{}",
        refusals(&plan)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_lacks_is_told_without_a_right_to_read_secrets() {
    let bed = Bed::new(Release::CURRENT).await;
    let environment =
        json!({"containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "app"}}]}]});
    let mounted = json!({"volumes": [{"name": "v", "secret": {"secretName": "tls"}}]});
    apply(
        &bed,
        &[
            workload("Deployment", "env", 1, json!({}), environment),
            workload("Deployment", "mount", 1, json!({}), mounted),
        ],
    )
    .await;
    diagnosed(&bed, State::Error, |cause| {
        *cause == Cause::ConfigMapMissing { name: "app".into() }
    })
    .await;
    diagnosed(&bed, State::ContainerCreating, |cause| {
        *cause == Cause::SecretMissing { name: "tls".into() }
    })
    .await;
    let double = bed.double.lock().await;
    let secrets = double
        .requests()
        .into_iter()
        .filter(|request| request.resource == "secrets")
        .count();
    assert_eq!(secrets, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_told_and_its_back_off_is_skipped_once_somebody_says_so() {
    let bed = Bed::new(Release::V1_13).await;
    fare(&bed, Some(("web", Outcome::ImagePullBackOff))).await;
    apply(&bed, &[workload("Deployment", "web", 1, json!({}), json!({}))]).await;
    let found = diagnosed(&bed, State::ImagePull, |cause| {
        matches!(cause, Cause::ImageNotFound { .. })
    })
    .await;
    let heal = asked(Runbook::PodsHeal, Of::Pod(found.key.name.clone()));
    let refused = bed.runbooks().start(heal.clone()).await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("--skip-back-off")),
        "{refused:?}"
    );
    fare(&bed, None).await;
    let mut skip = heal;
    skip.mending.skip_back_off = true;
    // Its kubelet may have tried again by itself meanwhile.
    let started = bed.runbooks().start(skip).await;
    if let Ok(run) = started {
        let run = bed.ends(&run.id).await;
        assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    }
    within("its pod", async {
        while object(&bed, "deployments", "web").await["status"]["readyReplicas"] != 1 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_cut_short_only_once_what_it_needs_is_back() {
    let mut bed = Bed::cold(Release::CURRENT).await;
    bed.declared = Arc::new(vec![super::super::declared::Declared {
        name: "web".into(),
        cluster: ClusterName("biz".into()),
        namespace: NAMESPACE.into(),
        kind: WorkloadKind::Deployment,
        object: "web".into(),
        needs: vec![(NAMESPACE.into(), "db".into())],
        add_memory: 0,
        changes_by_itself: false,
    }]);
    bed.start().await;
    fare(&bed, Some(("web", Outcome::CrashLoopBackOff))).await;
    apply(&bed, &[workload("Deployment", "web", 2, json!({}), json!({}))]).await;
    diagnosed(&bed, State::CrashLoop, |cause| {
        *cause == Cause::ExitCode { code: 1 }
    })
    .await;
    let heal = asked(Runbook::PodsHeal, Of::AllPods);
    let plan = planned(&bed, &heal, |plan| !plan.refusals.is_empty()).await;
    assert!(plan.steps.is_empty(), "{plan:#?}");
    assert!(
        refusals(&plan).contains("service default/db has no ready address"),
        "{}",
        refusals(&plan)
    );
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": NAMESPACE},
        "subsets": [{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 5432}]}]});
    apply(&bed, &[endpoints]).await;
    let plan = planned(&bed, &heal, |plan| plan.mends.pods.len() == 2).await;
    assert_eq!(ids(&plan), ["recreate", "await-steady"]);
    assert!(
        plan.steps[0]
            .evidence
            .contains("what it needs is there: default/db"),
        "{}",
        plan.steps[0].evidence
    );
    let before: Vec<_> = pods(&bed, "web")
        .await
        .iter()
        .map(|pod| pod["metadata"]["uid"].clone())
        .collect();
    let run = started(&bed, &heal).await;
    fare(&bed, None).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let after = pods(&bed, "web").await;
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().any(|pod| !before.contains(&pod["metadata"]["uid"])),
        "{run:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_for_good_is_made_again_and_a_bare_pod_never_deleted() {
    let bed = Bed::new(Release::CURRENT).await;
    fare(&bed, Some(("web", Outcome::Fails))).await;
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "c", "image": "registry.lan/web:1"}]}});
    apply(&bed, &[bare]).await;
    let found = diagnosed(&bed, State::Error, |cause| *cause == Cause::ExitCode { code: 1 }).await;
    assert_eq!(found.controller, None);
    let refused = bed
        .runbooks()
        .start(asked(Runbook::PodsHeal, Of::Pod("bare".into())))
        .await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("a controller that makes it again")),
        "{refused:?}"
    );
    assert!(!object(&bed, "pods", "bare").await.is_null());
    // One that is not there is refused by name.
    let refused = bed
        .runbooks()
        .start(asked(Runbook::PodsHeal, Of::Pod("nobody".into())))
        .await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("there is none")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_end_is_deleted_by_force_only_with_proof_that_its_node_is_off() {
    let bed = Bed::new(Release::CURRENT).await;
    apply(&bed, &[workload("Deployment", "web", 2, json!({}), json!({}))]).await;
    within("its pods", async {
        while object(&bed, "deployments", "web").await["status"]["readyReplicas"] != 2 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let pod = pods(&bed, "web").await.remove(0);
    let (name, node) = (
        pod["metadata"]["name"].as_str().unwrap().to_owned(),
        pod["spec"]["nodeName"].as_str().unwrap().to_owned(),
    );
    let double = bed.double.lock().await;
    double.with(|world| {
        // Its successor is not to go there.
        world.change("nodes", "", &node, |node| {
            node["spec"]["unschedulable"] = true.into();
        });
        world.power_off(&node);
        let pods = blackstart_apiserver::resources::named("pods");
        world
            .delete(pods, NAMESPACE, &name, &DeleteOptions::default())
            .unwrap();
    });
    drop(double);
    let mut heal = asked(Runbook::PodsHeal, Of::Pod(name.clone()));
    heal.proof = Some(Proof::Operator {
        by: "ann".into(),
        what: "power cable pulled".into(),
    });
    // Its agent still speaks: whatever somebody says, it lives.
    let plan = planned(&bed, &heal, |plan| {
        refusals(plan).contains("without its kubelet's word")
    })
    .await;
    assert!(plan.steps.is_empty(), "{plan:#?}");
    bed.agents.lock().unwrap().silent.insert(node.clone());
    let silent = Request {
        proof: None,
        ..heal.clone()
    };
    let plan = planned(&bed, &silent, |plan| refusals(plan).contains("proof that")).await;
    assert!(plan.steps.is_empty(), "{plan:#?}");
    let plan = planned(&bed, &heal, |plan| !plan.steps.is_empty()).await;
    assert_eq!(ids(&plan), ["finish-termination", "await-steady"]);
    let run = started(&bed, &heal).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(object(&bed, "pods", &name).await.is_null());
}

/// A deployment of two whose pods are killed for their memory below 140 MiB, and have 100.
async fn hungry(bed: &Bed, kind: &str) {
    let annotations = json!({"apiserver-double/outcome": "oom-below=140Mi"});
    apply(bed, &[workload(kind, "web", 2, annotations, limited("100Mi"))]).await;
}

fn memory(workload: &Value) -> (&str, &str) {
    let resources = &workload["spec"]["template"]["spec"]["containers"][0]["resources"];
    (
        resources["requests"]["memory"].as_str().unwrap_or_default(),
        resources["limits"]["memory"].as_str().unwrap_or_default(),
    )
}

async fn oom(kind: &'static str, resource: &'static str, release: Release, steps: &[&str]) {
    let bed = Bed::new(release).await;
    hungry(&bed, kind).await;
    diagnosed(&bed, State::CrashLoop, |cause| *cause == Cause::OomKilled).await;
    let heal = asked(Runbook::PodsHeal, Of::AllPods);
    let plan = planned(&bed, &heal, |plan| !plan.steps.is_empty()).await;
    assert_eq!(ids(&plan), steps);
    assert!(
        plan.steps[0]
            .evidence
            .contains("limit 100Mi → request 50Mi, limit 150Mi"),
        "{}",
        plan.steps[0].evidence
    );
    let run = started(&bed, &heal).await;
    bed.until(&run.id, "asking", wants).await;
    assert_eq!(
        memory(&object(&bed, resource, "web").await),
        ("50Mi", "100Mi"),
        "nothing without approval"
    );
    // Another run in the same namespace would meet it.
    let busy = bed.runbooks().start(heal.clone()).await;
    assert!(matches!(&busy, Err(Refusal::Lane(_))), "{busy:?}");
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let changed = object(&bed, resource, "web").await;
    assert_eq!(memory(&changed), ("50Mi", "150Mi"));
    assert_eq!(changed["metadata"]["annotations"][CHANGED_BY], run.id.as_str());
    assert!(
        changed["metadata"]["annotations"][BEFORE]
            .as_str()
            .unwrap()
            .contains("104857600")
    );
    assert_eq!(changed["status"]["readyReplicas"], 2);

    let mut back = heal;
    back.mending.rollback = true;
    let run = bed.runbooks().start(back.clone()).await.unwrap();
    bed.until(&run.id, "past its first step", |run| {
        phase(run, "restore-templates") == Some(Phase::Done)
    })
    .await;
    let restored = object(&bed, resource, "web").await;
    assert_eq!(memory(&restored), ("50Mi", "100Mi"));
    assert!(
        restored["metadata"]["annotations"][BEFORE].is_null(),
        "{restored:#}"
    );
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    bed.ends(&run.id).await;
    let refused = bed.runbooks().start(back).await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("template-before")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_raised_by_half_after_approval_and_put_back_by_a_rollback() {
    oom(
        "Deployment",
        "deployments",
        Release::CURRENT,
        &["raise-memory", "await-rollout", "await-steady"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_of_an_old_cluster_gets_its_memory_though_its_first_pod_never_became_ready() {
    oom(
        "StatefulSet",
        "statefulsets",
        Release::V1_13,
        &["raise-memory", "recreate", "await-rollout", "await-steady"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_puts_memory_back_and_a_limit_range_or_quota_refuses_it_by_name() {
    let bed = Bed::new(Release::CURRENT).await;
    // It stays too small, so the run is found at its rollout.
    let annotations = json!({"apiserver-double/outcome": "oom-below=900Mi"});
    apply(
        &bed,
        &[workload("Deployment", "web", 2, annotations, limited("100Mi"))],
    )
    .await;
    let heal = asked(Runbook::PodsHeal, Of::AllPods);
    planned(&bed, &heal, |plan| !plan.steps.is_empty()).await;
    let run = started(&bed, &heal).await;
    bed.until(&run.id, "asking", wants).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    bed.until(&run.id, "at its rollout", |run| {
        phase(run, "raise-memory") == Some(Phase::Done)
    })
    .await;
    assert_eq!(memory(&object(&bed, "deployments", "web").await).1, "150Mi");
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Aborted);
    assert_eq!(phase(&run, "undo-raise-memory"), Some(Phase::Done), "{run:#?}");
    let back = object(&bed, "deployments", "web").await;
    assert_eq!(memory(&back), ("50Mi", "100Mi"));
    assert!(
        back["metadata"]["annotations"][BEFORE].is_null()
            && back["metadata"]["annotations"][CHANGED_BY].is_null()
    );
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small", "namespace": NAMESPACE},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]}});
    apply(&bed, &[range]).await;
    let plan = planned(&bed, &heal, |plan| refusals(plan).contains("LimitRange small")).await;
    assert!(plan.steps.is_empty(), "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_quota_or_a_limit_range_does_not_let_in_are_told_of_their_replica_set() {
    let bed = Bed::new(Release::CURRENT).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team", "namespace": NAMESPACE},
        "spec": {"hard": {"limits.memory": "150Mi"}}});
    apply(
        &bed,
        &[
            quota,
            workload("Deployment", "web", 2, json!({}), limited("100Mi")),
        ],
    )
    .await;
    let found = diagnosed(&bed, State::NotMade, |cause| {
        *cause == Cause::QuotaExceeded { quota: "team".into() }
    })
    .await;
    assert_eq!(found.controller.as_deref(), Some("Deployment web"));
    let heal = asked(
        Runbook::WorkloadHeal,
        Of::Workload {
            kind: WorkloadKind::Deployment,
            name: "web".into(),
        },
    );
    let plan = planned(&bed, &heal, |plan| {
        refusals(plan).contains("raise the quota team")
    })
    .await;
    assert!(plan.steps.is_empty(), "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_fail_are_told_apart_from_other_ends() {
    let bed = Bed::new(Release::CURRENT).await;
    let outcome = |outcome: &str| json!({ "apiserver-double/outcome": outcome });
    apply(
        &bed,
        &[
            workload("Deployment", "dies", 1, outcome("liveness-fails"), json!({})),
            workload("Deployment", "waits", 1, outcome("never-ready"), json!({})),
        ],
    )
    .await;
    diagnosed(&bed, State::CrashLoop, |cause| *cause == Cause::LivenessFailed).await;
    diagnosed(&bed, State::NotReady, |cause| *cause == Cause::ReadinessFailed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_told_and_where_it_is_given() {
    let bed = Bed::new(Release::CURRENT).await;
    super::rights::take_away(&bed, Right::to(Verb::List, Resource::Pods)).await;
    let plan = bed
        .runbooks()
        .plan(asked(Runbook::PodsHeal, Of::AllPods))
        .await
        .unwrap();
    assert!(plan.steps.is_empty());
    let told = refusals(&plan);
    assert!(
        told.contains("list pods in cluster biz: the coordinator may not list pods in namespace")
            && told.contains("coordinator-rbac.yaml"),
        "{told}"
    );
    let refused = bed.runbooks().diagnose(&subject(Of::AllPods)).await;
    assert!(
        matches!(&refused, Err(Refusal::Read(why)) if why.contains("cannot list resource")),
        "{refused:?}"
    );
}

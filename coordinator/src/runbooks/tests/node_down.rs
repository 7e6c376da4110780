//! A node that does not answer: each row of the table in [`super::super::node_down`].

use blackstart_apiserver::Release;

use super::super::Refusal;
use super::super::plan::{Proof, Request, Runbook};
use super::super::record::{Phase, RunState};
use super::bed::{Bed, NODE, phase, request, wants};
use crate::kubernetes::objects::OUT_OF_SERVICE;

fn proved() -> Request {
    Request {
        proof: Some(Proof::Operator {
            by: "ann".into(),
            what: "power cable pulled".into(),
        }),
        ..request(Runbook::NodeDown)
    }
}

/// Its power is cut, and the coordinator has seen that its lease is old.
async fn dead(release: Release) -> Bed {
    let bed = Bed::new(release).await;
    bed.deploy("web", 4).await;
    power_off(&bed).await;
    bed.plans(&request(Runbook::NodeDown), |plan| !plan.steps.is_empty())
        .await;
    bed
}

async fn power_off(bed: &Bed) {
    let double = bed.double.lock().await;
    double.with(|world| world.power_off(NODE));
    drop(double);
    bed.agents.lock().unwrap().silent.insert(NODE.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lives_is_not_treated_as_down() {
    let bed = Bed::new(Release::CURRENT).await;
    let refused = bed.runbooks().start(proved()).await.unwrap_err();
    assert!(
        matches!(&refused, Refusal::Plan(why) if why[0].contains("healthy")),
        "{refused}"
    );
    // Only its agent is away: the lease is renewed, whatever proof somebody gives.
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    bed.plans(&proved(), |plan| {
        assert!(plan.steps.is_empty(), "{plan:#?}");
        plan.refusals[0].missing.contains("only its agent is away")
    })
    .await;
    assert!(!bed.is_cordoned().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_hangs_is_restarted_by_its_agent_and_the_node_is_uncordoned_again() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.agents.lock().unwrap().hung.insert(NODE.into());
    bed.plans(&request(Runbook::NodeDown), |plan| !plan.steps.is_empty())
        .await;
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.agents.lock().unwrap().done, ["start"]);
    assert!(!bed.is_cordoned().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proof_a_dead_node_is_cordoned_and_the_missing_proof_is_named() {
    let bed = dead(Release::CURRENT).await;
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(run.steps.len(), 1);
    assert!(
        run.plan.refusals[0]
            .missing
            .contains("proof that the machine is off"),
        "{:?}",
        run.plan.refusals
    );
    let node = bed.node().await;
    assert_eq!(node["spec"]["unschedulable"], true);
    assert!(!node["spec"].to_string().contains(OUT_OF_SERVICE), "{node:#}");
    assert!(!bed.pods().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_proof_the_cluster_is_told_that_it_is_out_of_service_until_it_is_back() {
    let bed = dead(Release::CURRENT).await;
    let run = bed.runbooks().start(proved()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(
        bed.node().await["spec"]["taints"]
            .to_string()
            .contains(OUT_OF_SERVICE)
    );
    assert_eq!(bed.pods().await, Vec::<String>::new());
    // Repaired and switched on again.
    let double = bed.double.lock().await;
    double.with(|world| world.power_on(NODE));
    drop(double);
    bed.agents.lock().unwrap().silent.clear();
    let run = bed.begin(Runbook::MaintenanceEnd).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let node = bed.node().await;
    assert!(!node["spec"].to_string().contains(OUT_OF_SERVICE), "{node:#}");
    assert!(!bed.is_cordoned().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_cluster_has_its_pods_deleted_by_force_once_an_operator_approves() {
    let bed = dead(Release::V1_13).await;
    let before = bed.pods().await;
    let run = bed.runbooks().start(proved()).await.unwrap();
    bed.until(&run.id, "waiting for approval", wants).await;
    assert_eq!(bed.pods().await, before);
    bed.runbooks().approve(&run.id, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(phase(&run, "force-delete"), Some(Phase::Done));
    assert_eq!(bed.pods().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_while_approval_is_waited_for_loses_nothing() {
    let bed = dead(Release::V1_13).await;
    let run = bed.runbooks().start(proved()).await.unwrap();
    bed.until(&run.id, "waiting for approval", wants).await;
    bed.agents.lock().unwrap().silent.clear();
    let run = bed
        .until(&run.id, "halted by the sign of life", |run| {
            run.state == RunState::Halted
        })
        .await;
    let failed = run.steps.iter().find(|step| step.phase == Phase::Failed).unwrap();
    assert!(
        failed.evidence.contains("nothing is deleted by force"),
        "{}",
        failed.evidence
    );
    assert!(!bed.pods().await.is_empty());
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Aborted);
    assert!(!bed.is_cordoned().await);
}

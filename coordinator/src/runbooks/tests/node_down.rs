//! A node that does not answer: each row of the table in [`super::super::node_down`].

use std::time::Duration;

use blackstart_apiserver::Release;
use blackstart_apiserver::bmc::{Bmc, Mood};

use super::super::Refusal;
use super::super::plan::{Action, Proof, Request, Runbook, RunbookPlan};
use super::super::policy::Fence;
use super::super::record::{Phase, RunState};
use super::bed::{Bed, NODE, phase, request, wants};
use crate::inventory::NodeName;
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
    let approved = bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    // Whoever looks at the answer is not told that it still waits, and who asks again because the answer was lost is not refused.
    assert!(!approved.wants_approval(), "{approved:#?}");
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let refused = bed
        .runbooks()
        .approve(&run.id, None, "eve".into())
        .await
        .unwrap_err();
    assert!(matches!(refused, Refusal::State(_)), "{refused}");
    let run = bed.ends(&run.id).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
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

/// The node hangs, and has power; its machine has a management controller.
async fn hung(release: Release, fence: Fence) -> (Bed, Bmc) {
    let mut bed = Bed::cold(release).await;
    bed.policy.fence = fence;
    let bmc = bed.manage().await;
    bed.start().await;
    bed.deploy("web", 4).await;
    bed.world(|world| world.stop_kubelet(NODE)).await;
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    bed.plans(&request(Runbook::NodeDown), |plan| !plan.steps.is_empty())
        .await;
    (bed, bmc)
}

/// Has its controller asked anew, however short ago it was.
async fn ask(bed: &Bed) {
    bed.bmcs.ask(&NodeName(NODE.into()), Duration::ZERO).await;
}

/// A plan that rests on what its controller says now.
async fn planned(bed: &Bed) -> RunbookPlan {
    bed.runbooks().ask(&request(Runbook::NodeDown)).await;
    bed.runbooks().plan(request(Runbook::NodeDown)).await.unwrap()
}

fn actions(plan: &RunbookPlan) -> Vec<Action> {
    plan.steps.iter().map(|step| step.action).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_off_of_its_management_controller_is_proof() {
    let (bed, bmc) = hung(Release::CURRENT, Fence::Off).await;
    // On is none, and what to do is said.
    let plan = planned(&bed).await;
    assert_eq!(actions(&plan), [Action::Cordon]);
    let missing = &plan.refusals[0].missing;
    assert!(
        missing.contains("PowerState On") && missing.contains("power it off"),
        "{missing}"
    );
    bed.world(|world| world.power_off(NODE)).await;
    ask(&bed).await;
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    let taint = &run.plan.steps[1];
    assert!(
        taint.evidence.contains("its BMC: PowerState Off")
            && taint.evidence.contains("its UUID is the node's"),
        "{}",
        taint.evidence
    );
    assert_eq!(taint.approval, None);
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.pods().await, Vec::<String>::new());
    assert_eq!(bmc.resets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_management_controller_does_not_say_is_no_proof() {
    let (bed, bmc) = hung(Release::CURRENT, Fence::Propose).await;
    bed.world(|world| world.power_off(NODE)).await;
    for (mood, words) in [
        (Mood::AnotherMachine, "is of another machine"),
        (Mood::Denies, "refuses the credentials"),
        (Mood::Garbage, "not as Redfish has it"),
        (Mood::Says("Standby"), "no power state that is known"),
    ] {
        bmc.set_mood(mood);
        bed.bmcs
            .ask(
                &crate::inventory::NodeName(NODE.into()),
                std::time::Duration::ZERO,
            )
            .await;
        let plan = planned(&bed).await;
        assert_eq!(actions(&plan), [Action::Cordon], "{mood:?}");
        assert!(
            plan.refusals[0].missing.contains(words),
            "{mood:?}: {:?}",
            plan.refusals
        );
        assert!(
            plan.refusals[0].missing.contains("--proof"),
            "{:?}",
            plan.refusals
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_hangs_has_its_power_cut_once_an_operator_approves_and_then_its_pods_move() {
    let (bed, bmc) = hung(Release::CURRENT, Fence::Propose).await;
    let plan = planned(&bed).await;
    assert_eq!(
        actions(&plan),
        [
            Action::Cordon,
            Action::PowerOff,
            Action::TaintOutOfService,
            Action::AwaitMoved
        ]
    );
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    bed.until(&run.id, "waiting for approval", wants).await;
    assert_eq!(bmc.resets(), Vec::<String>::new());
    assert!(!bed.pods().await.is_empty());
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bmc.resets(), [NODE]);
    assert!(
        run.steps[1].evidence.contains("PowerState Off"),
        "{}",
        run.steps[1].evidence
    );
    assert_eq!(bed.pods().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_its_power_is_asked_for_and_not_cut_again() {
    let (mut bed, bmc) = hung(Release::CURRENT, Fence::Propose).await;
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    bed.until(&run.id, "waiting for approval", wants).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    bed.until(&run.id, "cutting its power", |_| !bmc.resets().is_empty())
        .await;
    bed.kill().await;
    assert!(bed.start().await);
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bmc.resets(), [NODE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_speaks_again_keeps_its_power() {
    let (bed, bmc) = hung(Release::CURRENT, Fence::Propose).await;
    let run = bed.begin(Runbook::NodeDown).await.unwrap();
    bed.until(&run.id, "waiting for approval", wants).await;
    bed.agents.lock().unwrap().silent.clear();
    let run = bed
        .until(&run.id, "halted by the sign of life", |run| {
            run.state == RunState::Halted
        })
        .await;
    let failed = run.steps.iter().find(|step| step.phase == Phase::Failed).unwrap();
    assert!(
        failed.evidence.contains("its power is not cut"),
        "{}",
        failed.evidence
    );
    assert_eq!(bmc.resets(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_word_that_the_controller_contradicts_wants_a_second_one() {
    let (bed, bmc) = hung(Release::CURRENT, Fence::Propose).await;
    let run = bed.runbooks().start(proved()).await.unwrap();
    let taint = &run.plan.steps[1];
    assert_eq!(taint.action, Action::TaintOutOfService);
    assert!(
        taint
            .approval
            .as_ref()
            .is_some_and(|why| why.contains("contradict")),
        "{taint:?}"
    );
    bed.until(&run.id, "waiting for approval", wants).await;
    assert!(!bed.pods().await.is_empty());
    assert_eq!(bmc.resets(), Vec::<String>::new());
}

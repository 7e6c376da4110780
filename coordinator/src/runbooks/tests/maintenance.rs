//! Maintenance and drain, on a new cluster and on an old one.

use std::time::Duration;

use blackstart_apiserver::{Fault, Release, Rule};

use super::super::Refusal;
use super::super::plan::{Request, Runbook};
use super::super::record::{Phase, RunState};
use super::bed::{Bed, NODE, halted, phase, request, wants};
use crate::kubernetes::objects::CORDONED_BY;

/// Begin and end, and what is to be seen meanwhile.
async fn there_and_back(release: Release, eviction: &str) {
    let bed = Bed::new(release).await;
    bed.deploy("web", 6).await;
    assert!(!bed.pods().await.is_empty(), "the scheduler spreads them");
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(
        run.plan.steps[2].evidence.contains(eviction),
        "{}",
        run.plan.steps[2].evidence
    );
    let node = bed.node().await;
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(node["metadata"]["annotations"][CORDONED_BY], run.id.as_str());
    assert_eq!(bed.pods().await, Vec::<String>::new());
    assert_eq!(bed.agents.lock().unwrap().done, ["stop"]);
    // Nobody had to approve of anything, since nothing remained.
    assert_eq!(phase(&run, "delete-remaining"), Some(Phase::Done));

    let run = bed.begin(Runbook::MaintenanceEnd).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let node = bed.node().await;
    assert!(node["spec"]["unschedulable"].is_null(), "{node:#}");
    assert!(node["metadata"]["annotations"][CORDONED_BY].is_null());
    assert_eq!(bed.agents.lock().unwrap().done, ["stop", "start"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_into_maintenance_and_comes_back() {
    there_and_back(Release::CURRENT, "policy/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_without_leases_and_newer_evictions_does_as_well() {
    there_and_back(Release::V1_13, "policy/v1beta1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_budget_holds_are_deleted_only_once_an_operator_approves() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.deploy("web", 4).await;
    bed.protect("web").await;
    let request = Request {
        drain_within: Duration::from_secs(3),
        ..request(Runbook::Drain)
    };
    let run = bed.runbooks().start(request).await.unwrap();
    let waits = bed.until(&run.id, "waiting for approval", wants).await;
    let drain = &waits.steps[1].evidence;
    assert!(drain.contains("not drained within 3 s"), "{drain}");
    assert!(drain.contains("budget web needs 4 healthy pods"), "{drain}");
    let held = bed.pods().await;
    assert!(!held.is_empty(), "nothing was deleted without approval");
    // What was shown is what is approved of: somebody who saw another step gives no word on this one.
    let asks = waits.asks.as_ref().map(ToString::to_string);
    assert_eq!(asks.as_deref(), Some("delete-remaining"));
    let of_another = bed.runbooks().approve(&run.id, Some("drain"), "bob".into()).await;
    let refusal = of_another.unwrap_err().to_string();
    assert!(refusal.contains("is delete-remaining, not drain"), "{refusal}");
    assert_eq!(bed.pods().await, held);
    bed.runbooks()
        .approve(&run.id, asks.as_deref(), "bob".into())
        .await
        .unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(run.steps[2].approved.as_deref(), Some("bob"));
    assert_eq!(bed.pods().await, Vec::<String>::new());
    // Said again, it is answered as it stands; what is over cannot be approved of by anybody else.
    bed.runbooks()
        .approve(&run.id, asks.as_deref(), "bob".into())
        .await
        .unwrap();
    let again = bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    assert_eq!(again.state, RunState::Succeeded);
    let refused = bed.runbooks().approve(&run.id, None, "cid".into()).await;
    assert!(matches!(refused, Err(Refusal::State(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_puts_back_what_the_run_changed_and_says_what_it_leaves() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.deploy("web", 4).await;
    bed.protect("web").await;
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    bed.until(&run.id, "at its drain", |run| {
        phase(run, "drain") == Some(Phase::Begun)
    })
    .await;
    assert!(bed.is_cordoned().await);
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Aborted);
    assert_eq!(run.aborted_by.as_deref(), Some("bob"));
    assert!(!bed.is_cordoned().await);
    for back in ["undo-cordon", "undo-silence"] {
        assert_eq!(phase(&run, back), Some(Phase::Done), "{run:#?}");
    }
    assert!(
        run.leaves.iter().any(|left| left.contains("evicted")),
        "{:?}",
        run.leaves
    );
    assert_eq!(
        bed.agents.lock().unwrap().done,
        Vec::<String>::new(),
        "its kubelet was not touched"
    );
    // Said again, it is answered as it stands.
    let again = bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    assert_eq!(again.state, RunState::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordon_of_somebody_else_survives_an_abort_and_the_end_of_a_maintenance() {
    let bed = Bed::new(Release::CURRENT).await;
    let double = bed.double.lock().await;
    double.with(|world| {
        world.change("nodes", "", NODE, |node| {
            node["spec"]["unschedulable"] = true.into();
        });
    });
    drop(double);
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    bed.plans(&request(Runbook::MaintenanceBegin), |plan| {
        plan.notes.iter().any(|note| note.contains("by hand"))
            && plan.steps[1].evidence.contains("not by Blackstart")
    })
    .await;
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    // Its agent says nothing, so the kubelet cannot be stopped.
    bed.until(&run.id, "at the kubelet", |run| {
        run.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.to_string().contains("agent"))
    })
    .await;
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Aborted);
    assert!(bed.is_cordoned().await);
    bed.agents.lock().unwrap().silent.clear();
    let run = bed.begin(Runbook::MaintenanceEnd).await.unwrap();
    assert!(
        run.plan
            .notes
            .iter()
            .any(|note| note.contains("not cordoned by Blackstart"))
    );
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(bed.is_cordoned().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_does_not_stop_halts_the_run_until_an_operator_has_it_tried_again() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.agents.lock().unwrap().fail = 3;
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    let stands = bed.until(&run.id, "halted", halted).await;
    let failed = stands
        .steps
        .iter()
        .find(|step| step.phase == Phase::Failed)
        .unwrap();
    assert!(failed.evidence.contains("failed 3 times"), "{}", failed.evidence);
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    // Each attempt had a name of its own: an agent answers a known one from its ledger.
    assert_eq!(run.steps.last().unwrap().command.as_ref().unwrap().attempt, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_was_well_before_it_was_stopped_is_started_all_the_same() {
    let bed = Bed::new(Release::CURRENT).await;
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Succeeded);
    // Its agent has not asked it since.
    bed.agents.lock().unwrap().stale.insert(NODE.into());
    let run = bed.begin(Runbook::MaintenanceEnd).await.unwrap();
    bed.until(&run.id, "waiting for a newer answer", |run| {
        run.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.to_string().contains("newer than this step"))
    })
    .await;
    bed.agents.lock().unwrap().stale.clear();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.agents.lock().unwrap().done, ["stop", "start"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_planes_go_one_at_a_time() {
    let bed = Bed::new(Release::CURRENT).await;
    let of = |node: &str| Request {
        node: crate::inventory::NodeName(node.into()),
        ..request(Runbook::MaintenanceBegin)
    };
    let run = bed.runbooks().start(of("master-1")).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Succeeded);
    // The run is over, and the master is still out.
    let refused = bed.runbooks().start(of("master-2")).await.unwrap_err();
    assert!(refused.to_string().contains("master-1"), "{refused}");
    assert!(bed.runbooks().start(of("worker-2")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_throttles_and_goes_away_holds_a_drain_up_and_does_not_break_it() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.deploy("web", 6).await;
    let double = bed.double.lock().await;
    double.set_faults(|faults| {
        faults.rules = vec![
            Rule::all(Fault::Status(429)).on("patch", "nodes").times(2),
            Rule::all(Fault::Reset).on("create", "pods/eviction").times(2),
            Rule::all(Fault::Status(503))
                .on("create", "pods/eviction")
                .times(2),
        ];
    });
    drop(double);
    let run = bed.begin(Runbook::Drain).await.unwrap();
    bed.until(&run.id, "cordoned", |run| {
        phase(run, "cordon") == Some(Phase::Done)
    })
    .await;
    let mut double = bed.double.lock().await;
    double.go_down().await;
    double.come_back().await.unwrap();
    drop(double);
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.pods().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_stopped_once_its_health_is_probed_anew_and_not_by_an_old_answer() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.agents.lock().unwrap().unprobed.insert(NODE.into());
    let run = bed.begin(Runbook::MaintenanceBegin).await.unwrap();
    bed.until(&run.id, "waiting for a fresh probe", |run| {
        let waiting = run.waiting.as_ref().map(ToString::to_string);
        waiting.is_some_and(|waiting| {
            waiting.contains("stop kubelet was answered done") && waiting.contains("when it was last asked")
        })
    })
    .await;
    bed.agents.lock().unwrap().unprobed.clear();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let stopped = &run.steps.last().unwrap().evidence;
    assert!(
        stopped.contains("the kubelet does not run") && !stopped.contains("health"),
        "{stopped}"
    );
    assert_eq!(bed.agents.lock().unwrap().done, ["stop"]);
}

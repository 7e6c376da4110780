//! Too much of a cluster is not well at once; and permits of agents on the same lane.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::Release;
use serde_json::json;
use tokio::time::Instant;

use super::super::Refusal;
use super::super::options::Options;
use super::super::plan::{Request, Runbook, RunbookPlan};
use super::super::policy::RunbookPolicy;
use super::super::record::RunState;
use super::super::subject::Of;
use super::super::waiting::WaitingOn;
use super::bed::{Bed, request};
use super::heal::{apply, asked, limited, planned, workload};
use crate::inventory::NodeName;
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::permit::{Asker, Book, Line, PermitId, PermitKind, Standing, Wish};

async fn bed() -> Bed {
    let mut bed = Bed::cold(Release::CURRENT).await;
    bed.policy = RunbookPolicy {
        storm_nodes: 2,
        ..bed.policy.clone()
    };
    bed.start().await;
    bed
}

fn despite() -> Request {
    Request {
        options: Options {
            despite_storm: true,
            ..Options::default()
        },
        ..request(Runbook::Drain)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_in_a_storm_unless_an_operator_knows_why() {
    let bed = bed().await;
    bed.agents
        .lock()
        .unwrap()
        .hung
        .extend(["master-2".to_owned(), "worker-2".to_owned()]);
    super::bed::within("the storm", async {
        loop {
            let weather = bed.runbooks().shared.weather();
            if weather
                .over(&crate::inventory::ClusterName("biz".into()))
                .storm
                .is_some()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let refused = bed.begin(Runbook::Drain).await.unwrap_err();
    assert!(matches!(refused, Refusal::Storm { .. }), "{refused}");
    let why = refused.to_string();
    assert!(
        why.contains("2 of its 4 nodes are not well at once (master-2, worker-2)"),
        "{why}"
    );
    assert!(!bed.is_cordoned().await);
    let run = bed.runbooks().start(despite()).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Succeeded);
    // What gives back does not mind.
    let run = bed.begin(Runbook::MaintenanceEnd).await.unwrap();
    assert_eq!(bed.ends(&run.id).await.state, RunState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_at_work_changes_nothing_in_a_storm_until_it_is_over_or_overridden() {
    let bed = bed().await;
    bed.deploy("web", 4).await;
    bed.protect("web").await;
    let run = bed.begin(Runbook::Drain).await.unwrap();
    bed.until(&run.id, "at its drain", |run| run.steps[1].begun).await;
    bed.agents
        .lock()
        .unwrap()
        .hung
        .extend(["master-2".to_owned(), "worker-2".to_owned()]);
    let in_storm =
        |run: &super::super::status::RunbookStatus| matches!(run.waiting, Some(WaitingOn::Storm(_)));
    let held = bed.until(&run.id, "held by the storm", in_storm).await;
    assert!(held.wants_approval());
    // It passes by itself.
    bed.agents.lock().unwrap().hung.clear();
    bed.until(&run.id, "at work again", |run| !in_storm(run)).await;
    bed.agents
        .lock()
        .unwrap()
        .hung
        .extend(["master-2".to_owned(), "worker-2".to_owned()]);
    bed.until(&run.id, "held again", in_storm).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    assert!(
        bed.store
            .journal_text(&run.id)
            .contains(r#""type":"overrode","by":"bob""#)
    );
    bed.world(|world| {
        world.store.remove(&blackstart_apiserver::store::Key::new(
            "poddisruptionbudgets",
            "default",
            "web",
        ));
    })
    .await;
    assert_eq!(bed.ends(&run.id).await.state, RunState::Succeeded);
}

/// Until the storm is seen.
async fn storm(bed: &Bed) {
    bed.agents
        .lock()
        .unwrap()
        .hung
        .extend(["master-2".to_owned(), "worker-2".to_owned()]);
    let biz = crate::inventory::ClusterName("biz".into());
    super::bed::within("the storm", async {
        while bed.runbooks().shared.weather().over(&biz).storm.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_workloads_and_node_components_are_not_mended_in_a_storm_either() {
    let bed = bed().await;
    apply(
        &bed,
        &[workload(
            "Deployment",
            "web",
            1,
            json!({"apiserver-double/outcome": "oom-below=140Mi"}),
            limited("100Mi"),
        )],
    )
    .await;
    let pods = asked(Runbook::PodsHeal, Of::AllPods);
    let web = asked(
        Runbook::WorkloadHeal,
        Of::Workload {
            kind: WorkloadKind::Deployment,
            name: "web".into(),
        },
    );
    planned(&bed, &pods, RunbookPlan::may_run).await;
    planned(&bed, &web, RunbookPlan::may_run).await;
    storm(&bed).await;
    bed.agents.lock().unwrap().hung.insert(super::bed::NODE.into());
    let component = request(Runbook::NodeComponent);
    planned(&bed, &component, RunbookPlan::may_run).await;
    for asked in [&pods, &web, &component] {
        let refused = bed.runbooks().start(asked.clone()).await.unwrap_err();
        assert!(
            matches!(refused, Refusal::Storm { .. }),
            "{}: {refused}",
            asked.runbook
        );
        let why = refused.to_string();
        assert!(
            why.contains("are not well at once") && why.contains("--despite-storm"),
            "{why}"
        );
    }
    // By an operator's word it is begun, and changes what it is to change.
    let despite = Request {
        options: Options {
            despite_storm: true,
            ..Options::default()
        },
        ..pods
    };
    let run = bed.runbooks().start(despite).await.unwrap();
    bed.until(&run.id, "asking for approval of the memory", |run| {
        matches!(run.waiting, Some(WaitingOn::Approval(_)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_of_an_agent_counts_on_the_lane_of_runs() {
    let bed = Bed::new(Release::CURRENT).await;
    let line = Line {
        wish: Wish {
            id: PermitId {
                node: NodeName("master-2".into()),
                request: "r-1".into(),
            },
            kind: PermitKind::ControlPlaneRepair,
            asker: Asker::Agent,
            subject: "etcd".into(),
            reason: String::new(),
        },
        since: Instant::now(),
        standing: Standing::Granted {
            epoch: 1,
            until: Instant::now(),
        },
        asked: 1,
    };
    bed.permits.send_replace(Arc::new(Book { lines: vec![line] }));
    let master = || Request {
        node: NodeName("master-1".into()),
        ..request(Runbook::Drain)
    };
    let refused = bed.runbooks().start(master()).await.unwrap_err();
    assert!(
        refused.to_string().contains("master-2") && refused.to_string().contains("permit"),
        "{refused}"
    );
    // A worker is on another lane.
    assert!(bed.begin(Runbook::Drain).await.is_ok());
    bed.permits.send_replace(Arc::default());
    assert!(bed.runbooks().start(master()).await.is_ok());
}

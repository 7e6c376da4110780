//! Static pods of a control plane: bounced one at a time, by what agents tell.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::Release;
use blackstart_proto::part::Part;

use super::super::options::Options;
use super::super::plan::{Request, Runbook, RunbookPlan, Step};
use super::super::record::RunState;
use super::super::status::RunbookStatus;
use super::bed::{Bed, request, within};
use crate::inventory::{ClusterName, NodeName};

pub(super) fn asked(options: Options) -> Request {
    Request {
        node: NodeName(String::new()),
        options: Options {
            cluster: Some(ClusterName("biz".into())),
            ..options
        },
        ..request(Runbook::ControlPlane)
    }
}

fn steps(plan: &RunbookPlan) -> Vec<String> {
    plan.steps.iter().map(Step::id).collect()
}

fn missing(plan: &RunbookPlan) -> String {
    let missing: Vec<_> = plan.refusals.iter().map(|one| one.missing.as_str()).collect();
    missing.join("\n")
}

fn ill(bed: &Bed, node: &str, part: Part) {
    bed.agents.lock().unwrap().ill.insert((node.to_owned(), part));
}

async fn plan(bed: &Bed, request: Request) -> RunbookPlan {
    bed.runbooks().ask(&request).await;
    bed.runbooks().plan(request).await.unwrap()
}

async fn ended(bed: &Bed, id: &str) -> Arc<RunbookStatus> {
    within("its end", async {
        loop {
            let run = bed.runbooks().run(id).unwrap();
            if !run.state.is_active() || run.state == RunState::Halted {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ill_is_bounced_in_order_and_what_is_well_is_left_alone() {
    let bed = Bed::new(Release::CURRENT).await;
    let whole = asked(Options::default());
    let nothing = plan(&bed, whole.clone()).await;
    assert!(
        missing(&nothing).contains("--restart bounces them all"),
        "{nothing:?}"
    );
    ill(&bed, "master-2", Part::ApiServer);
    ill(&bed, "master-1", Part::Scheduler);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let planned = plan(&bed, whole.clone()).await;
    assert_eq!(
        steps(&planned),
        [
            "bounce-apiserver:master-2",
            "bounce-scheduler:master-1",
            "await-control-plane"
        ]
    );
    assert!(
        planned.steps[0].evidence.contains("its log ends: panic"),
        "{planned:?}"
    );
    let run = bed.runbooks().start(whole).await.unwrap();
    let run = ended(&bed, &run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    assert_eq!(
        bed.agents.lock().unwrap().done,
        [
            "bounce kube-apiserver of master-2",
            "bounce kube-scheduler of master-1"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_waits_for_another_of_its_kind_to_be_well() {
    let bed = Bed::new(Release::CURRENT).await;
    ill(&bed, "master-2", Part::ApiServer);
    let request = asked(Options {
        part: Some(Part::ApiServer),
        restart: true,
        ..Options::default()
    });
    let run = bed.runbooks().start(request).await.unwrap();
    within("the wait", async {
        loop {
            let run = bed.runbooks().run(&run.id).unwrap();
            let waits = run.waiting.as_ref().map(ToString::to_string).unwrap_or_default();
            if waits.contains("API server of master-2 to be well first") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(bed.agents.lock().unwrap().done.is_empty());
    bed.agents.lock().unwrap().ill.clear();
    let run = ended(&bed, &run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    assert_eq!(
        bed.agents.lock().unwrap().done,
        [
            "bounce kube-apiserver of master-1",
            "bounce kube-apiserver of master-2"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_that_does_not_help_stops_the_run_with_what_is_known() {
    let bed = Bed::new(Release::CURRENT).await;
    for node in ["master-1", "master-2"] {
        ill(&bed, node, Part::ApiServer);
    }
    let stuck = ("master-1".to_owned(), Part::ApiServer);
    bed.agents.lock().unwrap().stuck.insert(stuck);
    let run = bed.runbooks().start(asked(Options::default())).await.unwrap();
    let run = ended(&bed, &run.id).await;
    assert_eq!(run.state, RunState::Halted, "{run:?}");
    let why = run.waiting.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(
        why.contains("the bounce did not help") && why.contains("panic: as a test wants it"),
        "{why}"
    );
    assert_eq!(
        bed.agents.lock().unwrap().done,
        ["bounce kube-apiserver of master-1"],
        "no other is touched, and it is not bounced again and again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn api_servers_are_told_another_etcd_one_after_the_other_once_the_difference_is_approved() {
    let bed = Bed::new(Release::CURRENT).await;
    let request = asked(Options {
        etcd_servers: Some("https://10.0.0.1:2379".to_owned()),
        ..Options::default()
    });
    let planned = plan(&bed, request.clone()).await;
    assert_eq!(
        steps(&planned),
        [
            "set-etcd-servers-apiserver:master-1",
            "set-etcd-servers-apiserver:master-2",
            "await-control-plane"
        ]
    );
    let approval = planned.steps[0].approval.clone().unwrap_or_default();
    assert!(
        approval.contains("- --etcd-servers=https://127.0.0.1:2379 + --etcd-servers=https://10.0.0.1:2379"),
        "{approval}"
    );
    let id = bed.runbooks().start(request).await.unwrap().id.clone();
    within("the question", async {
        while bed.runbooks().approve(&id, None, "ben".into()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let run = ended(&bed, &id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:?}");
    assert_eq!(bed.agents.lock().unwrap().done.len(), 2);
    let other = asked(Options {
        etcd_servers: Some("10.0.0.1:2379; rm".to_owned()),
        ..Options::default()
    });
    assert!(missing(&plan(&bed, other).await).contains("a list of URLs"));
}

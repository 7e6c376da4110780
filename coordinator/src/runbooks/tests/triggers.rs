//! What the coordinator begins, proposes and withdraws by itself.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::Release;
use tokio::time::timeout;

use super::super::plan::{Request, Runbook, RunbookPlan};
use super::super::policy::{RunbookPolicy, Triggers};
use super::super::record::RunState;
use super::super::status::RunbookStatus;
use super::super::waiting::WaitingOn;
use super::bed::{Bed, NODE, request, within};
use crate::inventory::NodeName;
use crate::policy::Trigger;

async fn bed(triggers: impl FnOnce(&mut Triggers)) -> Bed {
    let mut bed = Bed::cold(Release::CURRENT).await;
    let mut policy = RunbookPolicy {
        overloaded_for: Duration::from_secs(1),
        pending_for: Duration::from_secs(1),
        lost_for: Duration::from_secs(7),
        ..bed.policy.clone()
    };
    triggers(&mut policy.triggers);
    bed.policy = policy;
    bed.start().await;
    bed
}

async fn begun(bed: &Bed, runbook: Runbook) -> Arc<RunbookStatus> {
    let mut runs = bed.runbooks().watch();
    within("a run", async {
        loop {
            let found = runs
                .borrow_and_update()
                .values()
                .find(|run| run.plan.request.runbook == runbook)
                .cloned();
            if let Some(found) = found {
                return found;
            }
            runs.changed().await.unwrap();
        }
    })
    .await
}

fn overload(bed: &Bed) {
    bed.agents.lock().unwrap().findings = vec![(NODE.to_owned(), "Overload", "load 40".to_owned())];
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_waits_for_a_word_holds_nobody_up_and_is_withdrawn_when_it_is_over() {
    let bed = bed(|triggers| triggers.overload = Trigger::Propose).await;
    bed.deploy("web", 4).await;
    overload(&bed);
    let run = begun(&bed, Runbook::Overload).await;
    assert!(run.is_proposal);
    assert_eq!(run.plan.request.by, "blackstart");
    let run = bed
        .until(&run.id, "proposed", |run| {
            matches!(run.waiting, Some(WaitingOn::Proposal(_)))
        })
        .await;
    assert!(run.wants_approval());
    assert!(!bed.is_cordoned().await, "nothing is done without a word");
    // An operator may be at work on the same node meanwhile, and accepting it waits for that.
    bed.protect("web").await;
    let drain = bed.begin(Runbook::Drain).await.unwrap();
    let refused = bed
        .runbooks()
        .approve(&run.id, None, "bob".into())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(&drain.id), "{refused}");
    bed.runbooks().abort(&drain.id, "bob".into()).await.unwrap();
    bed.ends(&drain.id).await;
    bed.agents.lock().unwrap().findings.clear();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Aborted);
    assert_eq!(run.aborted_by.as_deref(), Some("blackstart"));
    assert!(run.leaves.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_is_done() {
    let bed = bed(|triggers| triggers.overload = Trigger::Propose).await;
    bed.deploy("web", 4).await;
    overload(&bed);
    let run = begun(&bed, Runbook::Overload).await;
    bed.runbooks().approve(&run.id, None, "bob".into()).await.unwrap();
    let run = bed
        .until(&run.id, "at work", |run| !run.steps[1].notes.is_empty())
        .await;
    assert!(!run.is_proposal);
    bed.agents.lock().unwrap().findings.clear();
    assert!(
        bed.store
            .journal_text(&run.id)
            .contains(r#""type":"accepted","by":"bob""#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_a_node_and_a_node_that_is_lost_call_for_their_runbooks_once() {
    let bed = bed(|triggers| {
        triggers.resource_shortage = Trigger::Auto;
        triggers.node_down = Trigger::Propose;
    })
    .await;
    bed.put(super::bed::heavy("big", 1, "9", "1m")).await;
    let run = begun(&bed, Runbook::ResourceShortage).await;
    assert!(!run.is_proposal);
    assert_eq!(run.plan.pods.len(), 1);
    bed.world(|world| world.power_off(NODE)).await;
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    let down = begun(&bed, Runbook::NodeDown).await;
    assert!(
        down.is_proposal
            && down
                .plan
                .request
                .reason
                .contains("neither its agent nor its kubelet")
    );
    // Some looks later there is still one of each.
    let other = Request {
        node: NodeName("worker-2".into()),
        ..request(Runbook::Drain)
    };
    let drain = bed.runbooks().start(other).await.unwrap();
    bed.ends(&drain.id).await;
    assert_eq!(bed.runbooks().runs().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn off_is_off() {
    let bed = bed(|_| {}).await;
    bed.deploy("web", 2).await;
    overload(&bed);
    let mut runs = bed.runbooks().watch();
    let changed = timeout(Duration::from_secs(3), runs.changed()).await;
    assert!(changed.is_err(), "{:?}", bed.runbooks().runs());
    // It is there to be begun by hand.
    bed.plans(&request(Runbook::Overload), RunbookPlan::may_run).await;
}

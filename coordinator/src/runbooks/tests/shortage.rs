//! Pods that find no room, and disks that are short.

use blackstart_apiserver::{NodeSpec, Release};
use serde_json::json;

use super::super::options::Options;
use super::super::plan::{Request, Runbook, RunbookPlan};
use super::super::record::RunState;
use super::bed::{Bed, NODE, heavy, request};
use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::objects::Key;

fn asked() -> Request {
    Request {
        node: NodeName(String::new()),
        options: Options {
            cluster: Some(ClusterName("biz".into())),
            ..Options::default()
        },
        ..request(Runbook::ResourceShortage)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_find_no_room_are_explained_by_arithmetic_and_awaited() {
    let bed = Bed::new(Release::CURRENT).await;
    let refused = bed.runbooks().start(asked()).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("no pod of cluster biz waits for a node"),
        "{refused}"
    );
    // Three processors each, and two workers of four.
    bed.put(heavy("big", 3, "3", "1m")).await;
    bed.plans(&asked(), |plan| {
        plan.may_run() && plan.notes[0].contains("the scheduler says")
    })
    .await;
    let plan = bed.runbooks().plan(asked()).await.unwrap();
    let note = &plan.notes[0];
    for part in [
        "it wants cpu 3; of 4 nodes",
        "cpu short on 2, by 2 at least (on worker-",
        "2 have a taint that it does not tolerate",
        "Insufficient cpu",
    ] {
        assert!(note.contains(part), "{part} in {note}");
    }
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("proposal: request cpu 1 instead of 3")),
        "{:?}",
        plan.notes
    );
    assert!(
        plan.notes.iter().any(|note| note.contains("one more node")),
        "{:?}",
        plan.notes
    );
    let run = bed.runbooks().start(asked()).await.unwrap();
    assert_eq!(run.plan.request.about(), "cluster biz");
    bed.until(&run.id, "waiting for room", |run| {
        run.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.to_string().contains("cpu short on 2"))
    })
    .await;
    // A second of the same is refused.
    let again = bed.runbooks().start(asked()).await.unwrap_err();
    assert!(again.to_string().contains(&run.id), "{again}");
    bed.world(|world| world.add_node(&NodeSpec::worker("worker-3")))
        .await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert!(
        run.steps[0].evidence.contains("all of 1 pods run"),
        "{}",
        run.steps[0].evidence
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_made_smaller_by_its_deployment_is_gone_and_what_took_its_place_runs() {
    let bed = Bed::new(Release::CURRENT).await;
    let mut picky = heavy("picky", 1, "9", "1m");
    picky["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    bed.put(picky).await;
    bed.plans(&asked(), RunbookPlan::may_run).await;
    let plan = bed.runbooks().plan(asked()).await.unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("selector or affinity leaves 2 out")),
        "{:?}",
        plan.notes
    );
    assert!(
        plan.notes
            .iter()
            .any(|note| note.contains("it is not room that it lacks")),
        "{:?}",
        plan.notes
    );
    let named = Request {
        options: Options {
            pods: vec![Key {
                namespace: "default".into(),
                name: "nobody".into(),
            }],
            ..asked().options
        },
        ..asked()
    };
    let refused = bed.runbooks().start(named).await.unwrap_err();
    assert!(
        refused.to_string().contains("evidence that it has none"),
        "{refused}"
    );
    let run = bed.runbooks().start(asked()).await.unwrap();
    bed.world(|world| {
        world.change("deployments", "default", "picky", |picky| {
            picky["spec"]["template"]["spec"]["nodeSelector"] = serde_json::Value::Null;
            picky["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1".into();
        });
    })
    .await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_awaited_where_an_agent_gives_it_back_and_refused_where_none_can() {
    let bed = Bed::new(Release::CURRENT).await;
    let disk = |node: &str| {
        (
            node.to_owned(),
            "DiskPressure",
            "/var/lib/docker is 96% full".to_owned(),
        )
    };
    bed.agents.lock().unwrap().findings = vec![disk(NODE), disk("worker-2")];
    bed.agents.lock().unwrap().silent.insert("worker-2".into());
    bed.plans(&asked(), |plan| plan.may_run() && plan.refusals.len() == 1)
        .await;
    let plan = bed.runbooks().plan(asked()).await.unwrap();
    assert!(
        plan.refusals[0].missing.contains("not in session"),
        "{:?}",
        plan.refusals
    );
    assert!(
        plan.steps[0]
            .evidence
            .contains("worker-1: DiskPressure, /var/lib/docker is 96% full")
    );
    let run = bed.runbooks().start(asked()).await.unwrap();
    bed.until(&run.id, "waiting for space", |run| {
        run.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.to_string().contains("space to be given back"))
    })
    .await;
    bed.agents.lock().unwrap().findings.clear();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
}

//! A node that has too much to do.

use std::time::Duration;

use blackstart_apiserver::Release;
use tokio::time::sleep;

use super::super::Refusal;
use super::super::options::Options;
use super::super::plan::{Request, Runbook};
use super::super::record::{Phase, RunState};
use super::bed::{Bed, NODE, halted, phase, request};
use crate::fleet::message::HeavyPod;

fn over(percent: u32) -> Request {
    Request {
        options: Options {
            threshold_percent: Some(percent),
            hold_seconds: Some(1),
            ..Options::default()
        },
        ..request(Runbook::Overload)
    }
}

/// `hog` and two `web` on the node, which has four processors.
async fn loaded(bed: &Bed) {
    bed.cordon("worker-2", true).await;
    bed.deploy_heavy("hog", 1, "100m", "3000m").await;
    bed.deploy_heavy("web", 2, "100m", "100m").await;
    bed.cordon("worker-2", false).await;
    assert_eq!(bed.apps().await, ["hog", "web", "web"]);
}

async fn overloaded(bed: &Bed, percent: u32) {
    within_plans(bed, percent).await;
}

/// Until what is known of its usage makes a plan.
async fn within_plans(bed: &Bed, percent: u32) {
    super::bed::within("a plan", async {
        loop {
            bed.runbooks().ask(&over(percent)).await;
            if bed.runbooks().plan(over(percent)).await.unwrap().may_run() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heaviest_pod_goes_and_no_other_once_the_load_is_low() {
    let bed = Bed::new(Release::CURRENT).await;
    loaded(&bed).await;
    overloaded(&bed, 70).await;
    let plan = bed.runbooks().plan(over(70)).await.unwrap();
    let relieve = &plan.steps[1].evidence;
    assert!(
        relieve.contains("cpu 81%") && relieve.contains("the threshold is 70%"),
        "{relieve}"
    );
    let (hog, web) = (
        relieve.find("default/hog").unwrap(),
        relieve.find("default/web").unwrap(),
    );
    assert!(hog < web, "{relieve}");
    let run = bed.runbooks().start(over(70)).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.apps().await, ["web", "web"]);
    assert_eq!(run.steps[1].notes.len(), 1);
    assert!(!bed.is_cordoned().await);
    bed.ready("hog", 1).await;
    // It is not overloaded any more.
    let refused = bed.runbooks().start(over(70)).await.unwrap_err();
    assert!(refused.to_string().contains("evidence that it is"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_budget_holds_stays_and_the_next_goes_and_the_system_is_never_moved() {
    let bed = Bed::new(Release::CURRENT).await;
    loaded(&bed).await;
    bed.cordon("worker-2", true).await;
    bed.deploy_heavy("mid", 1, "100m", "500m").await;
    let mut critical = super::bed::heavy("dns", 1, "100m", "4000m");
    critical["spec"]["template"]["spec"]["priorityClassName"] = "system-cluster-critical".into();
    bed.put(critical).await;
    bed.ready("dns", 1).await;
    bed.cordon("worker-2", false).await;
    bed.protect("hog").await;
    overloaded(&bed, 70).await;
    let plan = bed.runbooks().plan(over(70)).await.unwrap();
    assert!(
        plan.refusals
            .iter()
            .any(|one| one.what.contains("default/dns") && one.missing.contains("priority")),
        "{:?}",
        plan.refusals
    );
    assert!(
        plan.notes.iter().any(|note| note.contains("budget default/hog")),
        "{:?}",
        plan.notes
    );
    let run = bed.runbooks().start(over(70)).await.unwrap();
    let run = bed
        .until(&run.id, "held by a budget", |run| {
            run.waiting
                .as_ref()
                .is_some_and(|waiting| waiting.to_string().contains("budgets of the pods"))
        })
        .await;
    let mut moved: Vec<_> = run.steps[1]
        .notes
        .iter()
        .map(|memo| memo.controller.clone())
        .collect();
    moved.sort();
    assert!(moved[0].contains("hog") && moved[1].contains("mid"), "{moved:?}");
    assert_eq!(bed.apps().await, ["dns", "hog"]);
    bed.runbooks().abort(&run.id, "bob".into()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Aborted);
    assert!(!bed.is_cordoned().await);
    assert_eq!(phase(&run, "undo-cordon"), Some(Phase::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_as_before_no_more_is_moved_until_what_was_moved_is_ready_again() {
    let mut bed = Bed::new(Release::CURRENT).await;
    loaded(&bed).await;
    overloaded(&bed, 5).await;
    // Nowhere else is room.
    bed.cordon("worker-2", true).await;
    let run = bed.runbooks().start(over(5)).await.unwrap();
    let waits = |run: &super::super::status::RunbookStatus| {
        run.waiting
            .as_ref()
            .is_some_and(|waiting| waiting.to_string().contains("to be as ready as before"))
    };
    bed.until(&run.id, "waiting for the replacement", waits).await;
    bed.kill().await;
    assert!(bed.start().await);
    let again = bed.until(&run.id, "waiting again", waits).await;
    assert_eq!(again.steps[1].notes.len(), 1, "{again:#?}");
    assert_eq!(bed.apps().await, ["web", "web"]);
    bed.cordon("worker-2", false).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_metrics_the_agent_tells_who_is_heavy_and_when_it_is_over() {
    let mut bed = Bed::metered(Release::CURRENT, false).await;
    bed.start().await;
    loaded(&bed).await;
    let refused = bed.runbooks().start(over(70)).await.unwrap_err();
    assert!(
        matches!(&refused, Refusal::Plan(why) if why[0].contains("its agent finds no overload")),
        "{refused}"
    );
    let web = bed
        .pods()
        .await
        .into_iter()
        .find(|pod| pod.starts_with("web"))
        .unwrap();
    let evidence = format!("load 40.0 over a minute; heaviest: kubelet.service 90%, pod default/{web} 80%");
    bed.agents.lock().unwrap().findings = vec![(NODE.to_owned(), "Overload", evidence)];
    overloaded(&bed, 70).await;
    let run = bed.runbooks().start(over(70)).await.unwrap();
    bed.until(&run.id, "rid of a pod", |run| !run.steps[1].notes.is_empty())
        .await;
    bed.agents.lock().unwrap().findings.clear();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(run.steps[1].notes[0].pod.name, web);
    bed.agents.lock().unwrap().silent.insert(NODE.into());
    super::bed::within("silence", async {
        loop {
            let plan = bed.runbooks().plan(over(70)).await.unwrap();
            if plan
                .refusals
                .iter()
                .any(|one| one.missing.contains("metrics.k8s.io"))
            {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_metrics_an_agents_figures_tell_who_is_heavy_whatever_its_evidence_says() {
    let mut bed = Bed::metered(Release::CURRENT, false).await;
    bed.start().await;
    loaded(&bed).await;
    let pods = bed
        .world(|world| {
            let pods = world.store.all("pods");
            let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE);
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            here.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"])))
                .collect::<Vec<_>>()
        })
        .await;
    let (web, uid) = pods.iter().find(|(name, _)| name.starts_with("web")).unwrap();
    let (hog, hog_uid) = pods.iter().find(|(name, _)| name.starts_with("hog")).unwrap();
    let heavy = |name: &str, uid: &str, cpu_millis| HeavyPod {
        namespace: if name.is_empty() {
            String::new()
        } else {
            "default".to_owned()
        },
        name: name.to_owned(),
        uid: uid.to_owned(),
        cpu_millis,
        memory_bytes: 64 << 20,
    };
    {
        let mut agents = bed.agents.lock().unwrap();
        // One whose name the agent did not find, and one that is no pod of this cluster.
        agents.heaviest = vec![
            heavy("", uid, 900),
            heavy("gone", "another", 800),
            heavy(hog, hog_uid, 700),
        ];
        let evidence = format!("load 40.0 over a minute; heaviest: pod default/{hog} 210%");
        agents.findings = vec![(NODE.to_owned(), "Overload", evidence)];
    }
    overloaded(&bed, 70).await;
    let plan = bed.runbooks().plan(over(70)).await.unwrap();
    let evidence = &plan.steps[1].evidence;
    let words = format!("default/{web} (uses cpu 900m, memory 64Mi by its agent's word)");
    assert!(evidence.contains(&words), "{evidence}");
    let (first, second) = (
        evidence.find(&words).unwrap(),
        evidence.find(&format!("{hog} (uses")).unwrap(),
    );
    assert!(first < second, "{evidence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_pods_are_moved_than_were_asked_for() {
    let bed = Bed::new(Release::CURRENT).await;
    loaded(&bed).await;
    overloaded(&bed, 1).await;
    let mut asked = over(1);
    asked.options.at_most = Some(1);
    let run = bed.runbooks().start(asked).await.unwrap();
    let run = bed.until(&run.id, "halted", halted).await;
    let why = &run.steps[1].evidence;
    assert!(why.contains("1 pods were moved, which is all"), "{why}");
    assert_eq!(bed.apps().await, ["web", "web"]);
}

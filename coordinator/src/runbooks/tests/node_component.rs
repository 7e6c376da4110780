//! The CNI pod of a node: deleted when it is not ready, and its successor on the same node verified.

use std::time::Duration;

use blackstart_apiserver::{Outcome, Release};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::Refusal;
use super::super::plan::{Request, Runbook};
use super::super::record::{Phase, RunState};
use super::super::subject::Mending;
use super::bed::{Bed, NODE, phase, request, within};
use super::heal::{apply, fare, ids};

fn calico() -> Value {
    let labels = json!({"k8s-app": "calico-node"});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "calico-node", "image": "registry.lan/calico:3"}]},
        }},
    })
}

/// The CNI pod of the node.
async fn cni(bed: &Bed) -> Option<Value> {
    let double = bed.double.lock().await;
    double.with(|world| {
        let all = world.store.all("pods");
        let here = all.iter().find(|pod| {
            pod["spec"]["nodeName"] == NODE && pod["metadata"]["labels"]["k8s-app"] == "calico-node"
        });
        here.map(|pod| Value::clone(pod))
    })
}

fn heal() -> Request {
    Request {
        mending: Mending {
            steady: Duration::from_secs(1),
            ..Mending::default()
        },
        ..request(Runbook::NodeComponent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cni_pod_that_is_not_ready_is_made_again_and_one_that_is_ready_left_alone() {
    let bed = Bed::new(Release::CURRENT).await;
    let refused = bed.runbooks().start(heal()).await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("a pod of a network plugin")),
        "{refused:?}"
    );
    fare(&bed, Some(("calico", Outcome::CrashLoopBackOff))).await;
    apply(&bed, &[calico()]).await;
    let before = within("its CNI pod in its back-off", async {
        loop {
            match cni(&bed).await {
                Some(pod) if pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1) => {
                    break pod;
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    let plan = bed.runbooks().plan(heal()).await.unwrap();
    assert_eq!(ids(&plan), ["recreate", "await-steady"], "{plan:#?}");
    let run = bed.runbooks().start(heal()).await.unwrap();
    bed.until(&run.id, "past the deletion", |run| {
        phase(run, "recreate") == Some(Phase::Done)
    })
    .await;
    fare(&bed, None).await;
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    let after = cni(&bed).await.unwrap();
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    let refused = bed.runbooks().start(heal()).await;
    assert!(
        matches!(&refused, Err(Refusal::Plan(why)) if why[0].contains("is ready")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_hangs_is_restarted_by_the_agent_and_verified() {
    let bed = Bed::new(Release::CURRENT).await;
    apply(&bed, &[calico()]).await;
    within("its CNI pod", async {
        while cni(&bed).await.is_none() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    bed.agents.lock().unwrap().hung.insert(NODE.into());
    let plan = within("a plan", async {
        loop {
            let plan = bed.runbooks().plan(heal()).await.unwrap();
            if ids(&plan).first() == Some(&"restart-kubelet") {
                return plan;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(ids(&plan)[..2], ["restart-kubelet", "await-ready"]);
    let run = bed.runbooks().start(heal()).await.unwrap();
    let run = bed.ends(&run.id).await;
    assert_eq!(run.state, RunState::Succeeded, "{run:#?}");
    assert_eq!(bed.agents.lock().unwrap().done, ["start"]);
}

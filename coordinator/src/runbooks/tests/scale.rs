//! Half of a cluster of 1,500 nodes is down at once: each is decided on, budgets of disruptions hold, and so does the budget of requests.
//!
//! `make bench-runbooks` prints how long it takes.

use std::sync::Arc;
use std::time::Duration;

use blackstart_apiserver::{Budget, Recorded, Release, World};
use serde_json::json;
use tokio::time::Instant;

use super::super::Refusal;
use super::super::options::Options;
use super::super::plan::{Action, Request, Runbook, RunbookPlan};
use super::super::record::RunState;
use super::super::status::RunbookStatus;
use super::bed::{Bed, Size, request, wants, within};
use crate::inventory::NodeName;

const MASTERS: usize = 3;
const NODES: usize = 1_500;
const DOWN: usize = 750;
/// The workers that are drained meanwhile: as many as may be at once.
const DRAINED: [usize; 3] = [1, 2, 3];
/// Pods of each of them, half of them under a budget.
const PODS: usize = 80;
/// So many under the budget may go.
const MAY_GO: usize = 30;

fn worker(number: usize) -> String {
    format!("worker-{number}")
}

fn of(runbook: Runbook, node: &str) -> Request {
    Request {
        node: NodeName(node.to_owned()),
        ..request(runbook)
    }
}

/// A cluster that is well, with pods on the workers that are going to be drained; a coordinator that may ask so much.
async fn large(requests_per_second: u32) -> Bed {
    let size = Size {
        masters: MASTERS,
        workers: NODES - MASTERS,
        speed: 1,
        // Nothing changes by itself: no lease is renewed, no pod is made again, and what is gone is what was evicted.
        controllers: &[],
    };
    let mut bed = Bed::sized(Release::CURRENT, false, size).await;
    bed.requests_per_second = requests_per_second;
    bed.timing.lease_old = Duration::from_secs(2);
    bed.world(|world| {
        let pods = DRAINED.into_iter().flat_map(|number| (0..PODS).map(move |pod| (number, pod)));
        let pods = pods.map(|(number, pod)| {
            let app = if pod % 2 == 0 { "free" } else { "held" };
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true});
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{app}-{number}-{pod}"), "namespace": "default", "labels": {"app": app}, "ownerReferences": [owner]},
                "spec": {"nodeName": worker(number), "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "registry.lan/web:1"}]},
            })
        });
        let pods: Vec<_> = pods.collect();
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "held", "namespace": "default"},
            "spec": {"minAvailable": DRAINED.len() * PODS / 2 - MAY_GO, "selector": {"matchLabels": {"app": "held"}}},
        });
        world.apply_manifests(&pods).unwrap();
        world.apply_manifests(&[budget]).unwrap();
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            is_ready(world, "pods", "default", name, true);
        }
    })
    .await;
    within("the pods to run", async {
        loop {
            let allowed = bed
                .world(|world| {
                    let budget = world.get("poddisruptionbudgets", "default", "held").unwrap();
                    budget["status"]["disruptionsAllowed"].as_u64()
                })
                .await;
            if allowed == Some(MAY_GO as u64) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(bed.start().await);
    bed
}

/// Says of a node or a pod what its kubelet, or after a while the controller manager, would say.
fn is_ready(world: &mut World, resource: &'static str, namespace: &str, name: &str, ready: bool) {
    world.change(resource, namespace, name, |object| {
        object["status"]["phase"] = "Running".into();
        let status = if ready { "True" } else { "Unknown" };
        object["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
    });
}

/// Half of the nodes lose their power, the workers with the highest numbers; until the coordinator knows that their leases are old.
async fn half_is_lost(bed: &Bed) -> Vec<String> {
    let first = NODES - MASTERS - DOWN + 1;
    let lost: Vec<_> = (first..=NODES - MASTERS).map(worker).collect();
    bed.agents.lock().unwrap().silent.extend(lost.iter().cloned());
    bed.world(|world| {
        for node in &lost {
            is_ready(world, "nodes", "", node, false);
        }
    })
    .await;
    for node in [&lost[0], &lost[DOWN - 1]] {
        bed.plans(&of(Runbook::NodeDown, node), RunbookPlan::may_run)
            .await;
    }
    lost
}

/// A plan for each; how long they took together.
async fn decided(bed: &Bed, lost: &[String]) -> Duration {
    let began = Instant::now();
    for node in lost {
        let plan = bed.runbooks().plan(of(Runbook::NodeDown, node)).await.unwrap();
        let cordon = plan.steps.first().filter(|step| step.action == Action::Cordon);
        assert!(cordon.is_some(), "{plan:#?}");
        let missing = plan.refusals.iter().any(|one| one.missing.contains("proof"));
        assert!(missing, "{plan:#?}");
    }
    began.elapsed()
}

/// All drains at once, whatever the storm; until what is left wants an operator's word.
async fn drained(bed: &Bed, within: Duration) -> Vec<Arc<RunbookStatus>> {
    let mut runs = Vec::new();
    for number in DRAINED {
        let drain = Request {
            drain_within: within,
            options: Options {
                despite_storm: true,
                ..Options::default()
            },
            ..of(Runbook::Drain, &worker(number))
        };
        runs.push(bed.runbooks().start(drain).await.unwrap());
    }
    let mut stand = Vec::new();
    for run in runs {
        let is_over = |run: &RunbookStatus| wants(run) || run.state == RunState::Succeeded;
        stand.push(
            bed.until(&run.id, "over, or at what the budget holds", is_over)
                .await,
        );
    }
    stand
}

/// So many pods of each kind are left.
async fn left(bed: &Bed) -> [usize; 2] {
    bed.world(|world| {
        let pods = world.store.all("pods");
        ["free", "held"].map(|app| {
            pods.iter()
                .filter(|pod| pod["metadata"]["labels"]["app"] == app)
                .count()
        })
    })
    .await
}

fn is_eviction(request: &Recorded) -> bool {
    request.subresource == "eviction"
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_large_cluster_is_decided_on_and_no_budget_is_broken() {
    const RATE: u32 = 40;
    let bed = large(RATE).await;
    let lost = half_is_lost(&bed).await;
    decided(&bed, &lost).await;
    // So many at once are no nodes' fault: nothing is begun for any of them, and the reason is told.
    for node in [&lost[0], &lost[DOWN / 2]] {
        let refused = bed
            .runbooks()
            .start(of(Runbook::NodeDown, node))
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, Refusal::Storm { why } if why.contains("750 of its 1500 nodes")),
            "{refused}"
        );
    }
    assert!(bed.runbooks().runs().is_empty());

    bed.double.lock().await.forget_requests();
    drained(&bed, Duration::from_secs(15)).await;
    assert_eq!(left(&bed).await, [0, DRAINED.len() * PODS / 2 - MAY_GO]);
    let requests = bed.double.lock().await.requests();
    assert!(!requests.iter().any(|one| one.verb == "delete"), "past a budget");
    let evicted = requests.iter().filter(|one| is_eviction(one) && one.code < 300);
    assert_eq!(evicted.count(), DRAINED.len() * PODS / 2 + MAY_GO);
    // In no while more than the burst, and what the rate allows in it; a request is on its way for a moment.
    let mut at: Vec<_> = requests
        .iter()
        .filter(|one| one.user == "blackstart-coordinator")
        .map(|one| one.at.as_millisecond())
        .collect();
    at.sort_unstable();
    assert!(at.len() > 150, "{}", at.len());
    let (rate, burst, moment) = (i64::from(RATE), 2 * i64::from(RATE), 500);
    for (from, began) in at.iter().enumerate() {
        for (to, ended) in at.iter().enumerate().skip(from) {
            let most = burst + (ended - began + moment) * rate / 1000 + 1;
            let sent = i64::try_from(to - from + 1).unwrap();
            assert!(sent <= most, "{sent} requests within {} ms", ended - began);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_evictions_a_second_go_within_what_the_server_bears() {
    // What is shipped as the default.
    const RATE: u32 = 75;
    let bed = large(RATE).await;
    let lost = half_is_lost(&bed).await;
    let took = decided(&bed, &lost).await;
    println!("{DOWN} of {NODES} nodes down: decided on all of them in {took:.2?}");
    // Priority and fairness has so much and no more for us, and says 429 to the rest.
    let bears = bed.double.lock().await;
    bears.forget_requests();
    bears.set_faults(|faults| {
        faults.budget = Some(Budget::new(RATE, 2 * RATE, 1));
        faults.fairness_headers = true;
    });
    drop(bears);
    drained(&bed, Duration::from_secs(20)).await;
    assert_eq!(left(&bed).await, [0, DRAINED.len() * PODS / 2 - MAY_GO]);
    let requests = bed.double.lock().await.requests();
    let evicted: Vec<_> = requests
        .iter()
        .filter(|one| is_eviction(one) && one.code < 300)
        .collect();
    assert_eq!(evicted.len(), DRAINED.len() * PODS / 2 + MAY_GO);
    // It asks for no more than it may: requests are on their way for a moment, so some few may come closer together than they were sent.
    let mut refused = 0;
    bed.double
        .lock()
        .await
        .set_faults(|faults| refused = faults.budget.as_ref().unwrap().refused);
    assert!(
        refused <= 5,
        "{refused} of {} requests were refused",
        requests.len()
    );
    // Those that the budget lets go only later say nothing of the rate.
    let at = |place: usize| evicted[place].at.as_millisecond();
    let count = DRAINED.len() * PODS / 2;
    let while_they_go = |one: &&Recorded| (at(0)..=at(count - 1)).contains(&one.at.as_millisecond());
    let (evictions, others): (Vec<_>, Vec<_>) = requests
        .iter()
        .filter(while_they_go)
        .partition(|one| is_eviction(one));
    // Of what it may ask, so much is evictions that fifty a second go; how fast this machine is does not matter.
    let of = |one: &[&Recorded]| f64::from(u32::try_from(one.len()).unwrap());
    let share = of(&evictions) / (of(&evictions) + of(&others));
    assert!(
        f64::from(RATE) * share >= 50.0,
        "{} evictions and {} other requests",
        evictions.len(),
        others.len()
    );
    let took = Duration::from_millis(u64::try_from(at(count - 1) - at(0)).unwrap());
    println!(
        "{} evictions, the first {count} of them in {took:.2?}: {:.0} a second, {:.0} by the budget alone; {refused} refused",
        evicted.len(),
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        f64::from(RATE) * share,
    );
}

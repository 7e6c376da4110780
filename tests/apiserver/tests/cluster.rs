//! The simulated cluster on a clock that the test moves: what happens by when.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use blackstart_apiserver::json::{condition, find, is_terminating, items, name, number, text};
use blackstart_apiserver::resources::named;
use blackstart_apiserver::{Clock, DeleteOptions, Double, NodeSpec, Options, Outcome, Release, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

async fn cluster(release: Release, workers: u32) -> Double {
    let options = Options {
        release,
        clock: Clock::manual(),
        ..Options::default()
    };
    let double = Double::start(options).await.unwrap();
    double.with(|world| {
        for number in 1..=workers {
            world.add_node(&NodeSpec::worker(&format!("w{number}")));
        }
    });
    advance(&double, 1);
    double
}

fn advance(double: &Double, seconds: u64) {
    double.advance(Duration::from_secs(seconds));
}

fn get(double: &Double, resource: &'static str, space: &str, name: &str) -> Option<Arc<Value>> {
    double.with(|world| world.get(resource, space, name))
}

fn ready(double: &Double, node: &str) -> String {
    condition(&get(double, "nodes", "", node).unwrap(), "Ready").to_owned()
}

fn taints(double: &Double, node: &str) -> Vec<String> {
    let node = get(double, "nodes", "", node).unwrap();
    let shown = |taint: &Value| format!("{}:{}", text(taint, "/key"), text(taint, "/effect"));
    items(&node, "/spec/taints").iter().map(shown).collect()
}

fn pods(double: &Double) -> Vec<Arc<Value>> {
    double.with(|world| world.store.all("pods"))
}

fn apply(double: &Double, objects: &[Value]) {
    double.with(|world| world.apply_manifests(objects)).unwrap();
}

fn workload(kind: &str, called: &str, replicas: i64, spec: &Value) -> Value {
    json!({
        "kind": kind, "metadata": {"name": called},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": called}}, "serviceName": called,
            "template": {"metadata": {"labels": {"app": called}}, "spec": spec},
        },
    })
}

fn container() -> Value {
    json!({"containers": [{"name": "main", "image": "main:1"}]})
}

/// Seconds until `happens`, looked at each second.
fn until(double: &Double, most: u64, mut happens: impl FnMut(&Double) -> bool) -> u64 {
    for second in 0..=most {
        if happens(double) {
            return second;
        }
        advance(double, 1);
    }
    panic!("it did not happen within {most} s");
}

#[tokio::test]
async fn a_node_without_heartbeats_is_unknown_after_its_grace_and_its_pods_leave_after_their_toleration() {
    for (release, grace) in [
        (Release::CURRENT, 50),
        (Release { minor: 28 }, 40),
        (Release::V1_13, 40),
    ] {
        let double = cluster(release, 3).await;
        apply(&double, &[workload("Deployment", "web", 3, &container())]);
        advance(&double, 5);
        double.with(|world| world.power_off("w1"));
        let unknown = until(&double, 100, |double| ready(double, "w1") == "Unknown");
        assert!(
            (grace - 10..=grace + 2).contains(&unknown),
            "{release:?}: unknown after {unknown} s"
        );
        assert_eq!(
            taints(&double, "w1"),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        assert_eq!(ready(&double, "w2"), "True");
        let mine = |pod: &Arc<Value>| text(pod, "/spec/nodeName") == "w1";
        assert!(
            pods(&double)
                .iter()
                .filter(|pod| mine(pod))
                .all(|pod| condition(pod, "Ready") == "False" && !is_terminating(pod))
        );
        let left = until(&double, 400, |double| {
            pods(double).iter().any(|pod| mine(pod) && is_terminating(pod))
        });
        assert!(
            (298..=302).contains(&left),
            "{release:?}: evicted after {left} s more"
        );
        advance(&double, 60);
        assert!(
            pods(&double).iter().any(mine),
            "nobody ends a pod on a node that is off"
        );
        let serving = pods(&double)
            .iter()
            .filter(|pod| condition(pod, "Ready") == "True")
            .count();
        assert_eq!(serving, 3, "the replica set has replaced it");
        // The power comes back: the kubelet ends what was to end, and the taints go.
        double.with(|world| world.power_on("w1"));
        advance(&double, 3);
        assert_eq!(ready(&double, "w1"), "True");
        assert_eq!(taints(&double, "w1"), Vec::<String>::new());
        assert!(pods(&double).iter().all(|pod| !is_terminating(pod)));
    }
}

#[tokio::test]
async fn when_everything_is_lost_nothing_is_evicted() {
    let double = cluster(Release::CURRENT, 4).await;
    let eager = json!({"containers": [{"name": "main", "image": "main:1"}], "tolerations": [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3},
    ]});
    apply(&double, &[workload("Deployment", "web", 8, &eager)]);
    advance(&double, 5);
    double.with(|world| (1..=4).for_each(|number| world.power_off(&format!("w{number}"))));
    advance(&double, 300);
    assert!((1..=4).all(|number| ready(&double, &format!("w{number}")) == "Unknown"));
    assert_eq!(
        taints(&double, "w1"),
        ["node.kubernetes.io/unreachable:NoSchedule"]
    );
    assert!(
        pods(&double).iter().all(|pod| !is_terminating(pod)),
        "master disruption mode evicts nobody"
    );
    // One returns: the others have their grace anew, and then a small zone that is mostly lost is left alone.
    double.with(|world| world.power_on("w1"));
    advance(&double, 120);
    assert_eq!(ready(&double, "w1"), "True");
    assert_eq!(
        taints(&double, "w2"),
        ["node.kubernetes.io/unreachable:NoSchedule"]
    );
    double.with(|world| world.power_on("w2"));
    // Two of four: less than 55 %. One node each ten seconds is tainted, and its pods have three.
    advance(&double, 30);
    assert!(
        pods(&double)
            .iter()
            .any(|pod| text(pod, "/spec/nodeName") == "w3" && is_terminating(pod))
    );
}

#[tokio::test]
async fn a_stateful_pod_on_a_dead_node_holds_its_place_until_the_node_is_out_of_service() {
    let double = cluster(Release::CURRENT, 2).await;
    let mut set = workload("StatefulSet", "db", 2, &container());
    set["spec"]["volumeClaimTemplates"] =
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    apply(&double, &[set]);
    until(&double, 30, |double| {
        get(double, "pods", "default", "db-1").is_some_and(|pod| condition(&pod, "Ready") == "True")
    });
    let home = get(&double, "pods", "default", "db-0").unwrap();
    let second = get(&double, "pods", "default", "db-1").unwrap();
    let ready_since = find(&home, "/status/conditions", "type", "Ready").unwrap();
    assert!(
        text(&second, "/metadata/creationTimestamp") >= text(ready_since, "/lastTransitionTime"),
        "one after another"
    );
    let node = text(&home, "/spec/nodeName").to_owned();
    assert_eq!(double.with(|world| world.store.all("volumeattachments").len()), 2);
    double.with(|world| world.power_off(&node));
    advance(&double, 500);
    let stuck = get(&double, "pods", "default", "db-0").unwrap();
    assert!(
        is_terminating(&stuck) && text(&stuck, "/spec/nodeName") == node,
        "it is not replaced"
    );
    double.with(|world| {
        world.change("nodes", "", &node, |node| {
            let taint = json!({"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"});
            node["spec"]["taints"].as_array_mut().unwrap().push(taint);
        });
    });
    until(&double, 30, |double| {
        get(double, "pods", "default", "db-0").is_some_and(|pod| condition(&pod, "Ready") == "True")
    });
    let moved = get(&double, "pods", "default", "db-0").unwrap();
    assert_ne!(text(&moved, "/spec/nodeName"), node);
    let attached: Vec<_> = double.with(|world| world.store.all("volumeattachments"));
    assert!(
        attached
            .iter()
            .all(|attachment| text(attachment, "/spec/nodeName") != node),
        "its volume went with it"
    );
}

#[tokio::test]
async fn forcing_a_pod_away_does_not_free_its_volume() {
    let double = cluster(Release::CURRENT, 2).await;
    let mut set = workload("StatefulSet", "db", 1, &container());
    set["spec"]["volumeClaimTemplates"] =
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    apply(&double, &[set]);
    until(&double, 30, |double| {
        get(double, "pods", "default", "db-0").is_some_and(|pod| condition(&pod, "Ready") == "True")
    });
    let node = text(
        &get(&double, "pods", "default", "db-0").unwrap(),
        "/spec/nodeName",
    )
    .to_owned();
    double.with(|world| world.power_off(&node));
    until(&double, 60, |double| ready(double, &node) == "Unknown");
    double
        .with(|world| world.delete(named("pods"), "default", "db-0", &DeleteOptions::now()))
        .unwrap();
    advance(&double, 60);
    let waiting = get(&double, "pods", "default", "db-0").unwrap();
    assert_eq!(
        text(&waiting, "/status/containerStatuses/0/state/waiting/reason"),
        "ContainerCreating"
    );
    assert!(events(&double, "FailedAttachVolume")[0].starts_with("Multi-Attach error for volume"));
    // After six minutes it is detached by force.
    until(&double, 400, |double| {
        get(double, "pods", "default", "db-0").is_some_and(|pod| condition(&pod, "Ready") == "True")
    });
}

fn events(double: &Double, reason: &str) -> Vec<String> {
    let all = double.with(|world| world.store.all("events"));
    all.iter()
        .filter(|event| text(event, "/reason") == reason)
        .map(|event| text(event, "/message").to_owned())
        .collect()
}

#[tokio::test]
async fn what_does_not_fit_is_told_as_the_scheduler_tells_it() {
    for (release, expected) in [
        (
            Release::CURRENT,
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {disk: full}, 1 node(s) were \
             unschedulable. preemption: 0/3 nodes are available: 2 Preemption is not helpful for scheduling, 1 No preemption \
             victims found for incoming pod.",
        ),
        (
            Release::V1_13,
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had taints that the pod didn't tolerate, 1 node(s) were \
             unschedulable.",
        ),
    ] {
        let double = cluster(release, 3).await;
        double.with(|world| {
            world.change("nodes", "", "w1", |node| {
                node["spec"]["unschedulable"] = json!(true);
            });
            world.change("nodes", "", "w2", |node| {
                node["spec"]["taints"] = json!([{"key": "disk", "value": "full", "effect": "NoSchedule"}]);
            });
        });
        let mut spec = container();
        spec["containers"][0]["resources"] = json!({"requests": {"memory": "20Gi"}});
        apply(
            &double,
            &[json!({"kind": "Pod", "metadata": {"name": "big"}, "spec": spec})],
        );
        advance(&double, 30);
        assert_eq!(events(&double, "FailedScheduling"), [expected]);
        let pod = get(&double, "pods", "default", "big").unwrap();
        let scheduled = find(&pod, "/status/conditions", "type", "PodScheduled").unwrap();
        assert_eq!(
            (text(scheduled, "/status"), text(scheduled, "/reason")),
            ("False", "Unschedulable")
        );
    }
}

#[tokio::test]
async fn pods_fail_as_they_are_told_to() {
    let double = cluster(Release::CURRENT, 1).await;
    double.with(|world| {
        world.outcomes.push(("crash".into(), Outcome::CrashLoopBackOff));
        world.outcomes.push(("hungry".into(), Outcome::OomKilled));
        world.outcomes.push(("missing".into(), Outcome::ImagePullBackOff));
    });
    for image in ["crash", "hungry", "missing"] {
        let spec = json!({"containers": [{"name": "main", "image": image}]});
        apply(
            &double,
            &[json!({"kind": "Pod", "metadata": {"name": image}, "spec": spec})],
        );
    }
    advance(&double, 100);
    let status = |double: &Double, pod: &str| {
        get(double, "pods", "default", pod).unwrap()["status"]["containerStatuses"][0].clone()
    };
    let crashed = status(&double, "crash");
    assert_eq!(text(&crashed, "/state/waiting/reason"), "CrashLoopBackOff");
    assert_eq!(number(&crashed, "/restartCount"), 3, "after 10, 20 and 40 s");
    let killed = status(&double, "hungry");
    assert_eq!(
        (
            text(&killed, "/lastState/terminated/reason"),
            number(&killed, "/lastState/terminated/exitCode")
        ),
        ("OOMKilled", 137)
    );
    assert_eq!(
        text(&status(&double, "missing"), "/state/waiting/reason"),
        "ImagePullBackOff"
    );
    assert_eq!(
        text(
            &get(&double, "pods", "default", "missing").unwrap(),
            "/status/phase"
        ),
        "Pending"
    );
    // What made it crash is mended; the back-off goes on until its end, at most five minutes.
    double.with(|world| world.outcomes.clear());
    let recovered = until(&double, 400, |double| {
        condition(&get(double, "pods", "default", "crash").unwrap(), "Ready") == "True"
    });
    assert!(recovered > 0);
}

#[tokio::test]
async fn a_boot_restarts_containers_and_a_restarted_kubelet_does_not() {
    let double = cluster(Release::CURRENT, 1).await;
    apply(
        &double,
        &[json!({"kind": "Pod", "metadata": {"name": "one"}, "spec": container()})],
    );
    advance(&double, 5);
    let restarts = |double: &Double| {
        number(
            &get(double, "pods", "default", "one").unwrap(),
            "/status/containerStatuses/0/restartCount",
        )
    };
    let boot = |double: &Double| {
        text(
            &get(double, "nodes", "", "w1").unwrap(),
            "/status/nodeInfo/bootID",
        )
        .to_owned()
    };
    let before = boot(&double);
    double.with(|world| world.stop_kubelet("w1"));
    advance(&double, 20);
    double.with(|world| world.start_kubelet("w1"));
    advance(&double, 5);
    assert_eq!((restarts(&double), boot(&double) == before), (0, true));
    double.with(|world| world.power_off("w1"));
    advance(&double, 5);
    let stale = get(&double, "pods", "default", "one").unwrap();
    assert_eq!(
        (condition(&stale, "Ready"), ready(&double, "w1").as_str()),
        ("True", "True"),
        "after a blackout the API lies"
    );
    assert!(double.with(|world| world.lease_age("w1")).unwrap() >= 5);
    double.with(|world| world.power_on("w1"));
    advance(&double, 5);
    assert_eq!((restarts(&double), boot(&double) == before), (1, false));
    assert_eq!(
        condition(&get(&double, "pods", "default", "one").unwrap(), "Ready"),
        "True"
    );
}

#[tokio::test]
async fn daemon_sets_jobs_and_namespaces_come_and_go() {
    let double = cluster(Release::CURRENT, 3).await;
    let job = json!({"kind": "Job", "metadata": {"name": "once"}, "spec": {"completions": 2, "template": {"spec": container()}}});
    let mut daemon = workload("DaemonSet", "agent", 0, &container());
    daemon["metadata"]["namespace"] = json!("extra");
    apply(
        &double,
        &[
            json!({"kind": "Namespace", "metadata": {"name": "extra"}}),
            daemon,
            job,
        ],
    );
    advance(&double, 20);
    let agents = |double: &Double| {
        pods(double)
            .iter()
            .filter(|pod| text(pod, "/metadata/namespace") == "extra")
            .count()
    };
    assert_eq!(agents(&double), 3);
    double.with(|world| {
        world.change("nodes", "", "w1", |node| {
            node["spec"]["unschedulable"] = json!(true);
        });
    });
    double.with(|world| world.add_node(&NodeSpec::worker("w4")));
    advance(&double, 5);
    assert_eq!(agents(&double), 4, "also on a node that is cordoned");
    let done = get(&double, "jobs", "default", "once").unwrap();
    assert_eq!(
        (condition(&done, "Complete"), number(&done, "/status/succeeded")),
        ("True", 2)
    );
    let options = DeleteOptions::default();
    double
        .with(|world| world.delete(named("namespaces"), "", "extra", &options))
        .unwrap();
    let refused = double.with(|world: &mut World| {
        let late = json!({"metadata": {"name": "late"}, "data": {}});
        world
            .create(named("configmaps"), "extra", late)
            .unwrap_err()
            .message
    });
    let expected = "configmaps \"late\" is forbidden: unable to create new content in namespace extra because it is being terminated";
    assert_eq!(refused, expected);
    advance(&double, 60);
    assert_eq!(agents(&double), 0);
    assert!(get(&double, "namespaces", "", "extra").is_none());
    double
        .with(|world| world.delete(named("jobs"), "default", "once", &options))
        .unwrap();
    advance(&double, 5);
    assert!(
        pods(&double).iter().all(|pod| !name(pod).starts_with("once")),
        "its pods go with it"
    );
}

#[tokio::test]
async fn disruption_budgets_count_what_they_can_spare() {
    let double = cluster(Release::CURRENT, 4).await;
    let budget = |called: &str, rule: Value| {
        let mut spec = rule;
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        json!({"kind": "PodDisruptionBudget", "metadata": {"name": called}, "spec": spec})
    };
    apply(
        &double,
        &[
            workload("Deployment", "web", 4, &container()),
            budget("half", json!({"minAvailable": "50%"})),
            budget("one", json!({"maxUnavailable": 1})),
            budget("third", json!({"maxUnavailable": "30%"})),
            budget("all", json!({"minAvailable": 4})),
        ],
    );
    advance(&double, 5);
    let allowed = |double: &Double| {
        ["half", "one", "third", "all"].map(|budget| {
            let budget = get(double, "poddisruptionbudgets", "default", budget).unwrap();
            number(&budget, "/status/disruptionsAllowed")
        })
    };
    // 30 % of four is rounded up to two.
    assert_eq!(allowed(&double), [2, 1, 2, 0]);
    double.with(|world| world.power_off("w1"));
    advance(&double, 55);
    assert_eq!(
        allowed(&double),
        [1, 0, 1, 0],
        "what is not ready is spent already"
    );
}

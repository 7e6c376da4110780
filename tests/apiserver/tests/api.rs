//! What a client may rely on of the protocol.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod client;

use blackstart_apiserver::{
    Budget, Clock, Controller, Double, Fault, NodeSpec, Options, Release, Rule, json::text,
};
use client::Client;
use serde_json::{Value, json};

/// A server whose time stands still and where nothing happens by itself.
async fn quiet(release: Release) -> (Double, Client) {
    let options = Options {
        release,
        clock: Clock::manual(),
        controllers: Vec::new(),
        ..Options::default()
    };
    let double = Double::start(options).await.unwrap();
    let client = Client::of(&double);
    (double, client)
}

fn pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "main:1"}]},
    })
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn refusals_are_worded_as_the_real_ones() {
    let (_double, client) = quiet(Release::CURRENT).await;
    client.post(PODS, pod("a", "x")).await;
    let missing = client
        .get("/apis/apps/v1/namespaces/default/deployments/gone")
        .await;
    assert_eq!(
        missing.body,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "deployments.apps \"gone\" not found",
            "details": {"name": "gone", "group": "apps", "kind": "deployments"},
        })
    );
    let mut stale = client.get(&format!("{PODS}/a")).await.body;
    client
        .patch(
            &format!("{PODS}/a"),
            json!({"metadata": {"labels": {"new": "1"}}}),
        )
        .await;
    stale["metadata"]["labels"]["new"] = json!("2");
    let foreign =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": []}});
    let changed = json!({"spec": {"hostNetwork": true}});
    for (answer, code, reason, message) in [
        (
            client.post(PODS, pod("a", "x")).await,
            409,
            "AlreadyExists",
            "pods \"a\" already exists",
        ),
        (
            client.put(&format!("{PODS}/a"), stale).await,
            409,
            "Conflict",
            "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the \
             latest version and try again",
        ),
        (
            client.post(PODS, foreign).await,
            422,
            "Invalid",
            "Pod \"b\" is invalid: spec.containers: Required value",
        ),
        (
            client.post("/api/v1/namespaces/none/pods", pod("a", "x")).await,
            404,
            "NotFound",
            "namespaces \"none\" not found",
        ),
        (
            client.get("/api/v1/pods?fieldSelector=spec.color%3Dred").await,
            400,
            "BadRequest",
            "field label not supported: spec.color",
        ),
        (
            client
                .call(
                    "PATCH",
                    &format!("{PODS}/a"),
                    "application/apply-patch+yaml",
                    Some(json!({})),
                )
                .await
                .unwrap(),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        ),
        (
            client.delete(&format!("{PODS}/a/log")).await,
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
    ] {
        assert_eq!(
            (
                answer.code,
                answer.body["reason"].as_str().unwrap(),
                answer.message()
            ),
            (code, reason, message)
        );
    }
    let refused = client.patch(&format!("{PODS}/a"), changed).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message()
            .starts_with("Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields")
    );
    let unknown = client.get("/api/v1/toasters").await;
    assert_eq!(
        (unknown.code, unknown.body.as_str()),
        (404, Some("404 page not found\n"))
    );
}

#[tokio::test]
async fn lists_are_selected_and_paged() {
    let (double, client) = quiet(Release::CURRENT).await;
    for number in 0..5 {
        client
            .post(
                PODS,
                pod(
                    &format!("p{number}"),
                    if number % 2 == 0 { "even" } else { "odd" },
                ),
            )
            .await;
    }
    let even = client.get(&format!("{PODS}?labelSelector=app%3Deven")).await.body;
    assert_eq!(even["kind"], "PodList");
    assert_eq!(even["items"].as_array().unwrap().len(), 3);
    let mut path = "/api/v1/pods?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let page = client.get(&path).await.body;
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|pod| text(pod, "/metadata/name").to_owned()),
        );
        match page["metadata"]["continue"].as_str() {
            Some(next) => path = format!("/api/v1/pods?limit=2&continue={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4"]);
    let first = client.get("/api/v1/pods?limit=2").await.body;
    client.post(PODS, pod("late", "x")).await;
    double.with(|world| world.store.compact());
    let next = text(&first, "/metadata/continue").to_owned();
    let expired = client.get(&format!("/api/v1/pods?limit=2&continue={next}")).await;
    assert_eq!((expired.code, text(&expired.body, "/reason")), (410, "Expired"));
}

#[tokio::test]
async fn a_watch_tells_changes_as_the_selector_sees_them() {
    let (double, client) = quiet(Release::CURRENT).await;
    client.post(PODS, pod("a", "x")).await;
    let revision = text(&client.get(PODS).await.body, "/metadata/resourceVersion").to_owned();
    let mut watch = client
        .watch(&format!(
            "{PODS}?watch=true&resourceVersion={revision}&labelSelector=app%3Dx"
        ))
        .await;
    client.post(PODS, pod("b", "x")).await;
    client.post(PODS, pod("c", "y")).await;
    client
        .patch(&format!("{PODS}/b"), json!({"metadata": {"labels": {"n": "1"}}}))
        .await;
    client
        .patch(
            &format!("{PODS}/a"),
            json!({"metadata": {"labels": {"app": "y"}}}),
        )
        .await;
    client
        .patch(
            &format!("{PODS}/c"),
            json!({"metadata": {"labels": {"app": "x"}}}),
        )
        .await;
    client.delete(&format!("{PODS}/b")).await;
    for expected in ["ADDED b", "MODIFIED b", "DELETED a", "ADDED c", "DELETED b"] {
        assert_eq!(watch.said().await, expected);
    }
    // From now on, with what there is first and a bookmark behind it.
    let stream =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut initial = client.watch(&format!("{PODS}?{stream}")).await;
    assert_eq!(initial.said().await, "ADDED a");
    assert_eq!(initial.said().await, "ADDED c");
    let bookmark = initial.next().await.unwrap().unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    // A revision that was compacted away is told in the stream.
    double.with(|world| world.store.compact());
    let mut late = client
        .watch(&format!("{PODS}?watch=true&resourceVersion={revision}"))
        .await;
    let event = late.next().await.unwrap().unwrap();
    assert_eq!(
        (
            &event["type"],
            &event["object"]["code"],
            &event["object"]["reason"]
        ),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(late.next().await.unwrap().is_none());
    // A timeout ends a watch well, a cut does not.
    let mut short = client
        .watch(&format!(
            "{PODS}?watch=true&timeoutSeconds=1&resourceVersion={}",
            double.with(|world| world.store.revision())
        ))
        .await;
    assert!(short.next().await.unwrap().is_none());
    double.cut_watches();
    assert!(initial.next().await.is_err());
}

#[tokio::test]
async fn a_pod_is_deleted_gracefully_and_finalizers_hold_it() {
    let (double, client) = quiet(Release::CURRENT).await;
    double.with(|world| world.add_node(&NodeSpec::worker("w")));
    let unplaced = client.post(PODS, pod("unplaced", "x")).await.body;
    assert_eq!(unplaced["spec"]["tolerations"][0]["tolerationSeconds"], 300);
    assert_eq!(client.delete(&format!("{PODS}/unplaced")).await.code, 200);
    assert_eq!(
        client.get(&format!("{PODS}/unplaced")).await.code,
        404,
        "a pod without a node has nothing to end"
    );
    let mut placed = pod("placed", "x");
    placed["spec"]["nodeName"] = json!("w");
    placed["metadata"]["finalizers"] = json!(["example.com/wait"]);
    client.post(PODS, placed).await;
    let path = format!("{PODS}/placed");
    let ending = client.delete(&path).await.body;
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let uid = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "another"}});
    assert_eq!(
        client
            .call("DELETE", &path, "application/json", Some(uid))
            .await
            .unwrap()
            .code,
        409
    );
    client.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    let held = client.get(&path).await.body;
    assert_eq!(
        held["metadata"]["deletionGracePeriodSeconds"], 0,
        "its finalizer holds it"
    );
    client
        .patch(
            &path,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/wait"]}}),
        )
        .await;
    assert_eq!(client.get(&path).await.code, 404);
    client.post(PODS, pod("dry", "x")).await;
    client.delete(&format!("{PODS}/dry?dryRun=All")).await;
    assert_eq!(
        client.get(&format!("{PODS}/dry")).await.code,
        200,
        "a dry run does nothing"
    );
}

#[tokio::test]
async fn evictions_go_by_the_disruption_budget() {
    for (release, version) in [
        (Release::CURRENT, "policy/v1"),
        (Release::V1_13, "policy/v1beta1"),
    ] {
        let options = Options {
            release,
            clock: Clock::manual(),
            controllers: vec![Controller::Kubelet],
            ..Options::default()
        };
        let double = Double::start(options).await.unwrap();
        let client = Client::of(&double);
        double.with(|world| world.add_node(&NodeSpec::worker("w")));
        let budget = json!({
            "apiVersion": version, "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        });
        assert_eq!(
            client
                .post(
                    &format!("/apis/{version}/namespaces/default/poddisruptionbudgets"),
                    budget
                )
                .await
                .code,
            201
        );
        for name in ["a", "b"] {
            let mut object = pod(name, "web");
            object["spec"]["nodeName"] = json!("w");
            client.post(PODS, object).await;
        }
        double.advance(std::time::Duration::from_secs(5));
        let evict = |name: &str| {
            let body = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}});
            let path = format!("{PODS}/{name}/eviction");
            let client = client.clone();
            async move { client.post(&path, body).await }
        };
        let first = evict("a").await;
        assert_eq!((first.code, &first.body["status"]), (201, &json!("Success")));
        let second = evict("b").await;
        assert_eq!(
            (second.code, second.message()),
            (
                429,
                "Cannot evict pod as it would violate the pod's disruption budget."
            )
        );
        assert_eq!(
            second.body["details"]["causes"],
            json!([{
                "reason": "DisruptionBudget",
                "message": "The disruption budget web needs 1 healthy pods and has 1 currently",
            }])
        );
        assert_eq!(evict("gone").await.code, 404);
    }
}

#[tokio::test]
async fn an_old_server_has_the_old_versions_only() {
    let (_double, client) = quiet(Release::V1_13).await;
    for (path, code) in [
        ("/apis/policy/v1", 404),
        ("/apis/policy/v1beta1", 200),
        ("/apis/coordination.k8s.io/v1", 404),
        ("/apis/extensions/v1beta1/deployments", 200),
        ("/openapi/v3", 404),
    ] {
        assert_eq!(client.get(path).await.code, code, "{path}");
    }
    let deployment = json!({
        "apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    client
        .post(
            "/apis/extensions/v1beta1/namespaces/default/deployments",
            deployment,
        )
        .await;
    let same = client
        .get("/apis/apps/v1/namespaces/default/deployments/d")
        .await
        .body;
    assert_eq!(same["apiVersion"], "apps/v1");
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    client.post(PODS, pod("p", "x")).await;
    let unknown = client.post(&format!("{PODS}/p/eviction"), body).await;
    assert_eq!(unknown.code, 400);
    assert!(
        unknown
            .message()
            .starts_with("no kind \"Eviction\" is registered for version \"policy/v1\"")
    );
}

#[tokio::test]
async fn events_are_the_same_in_both_of_their_groups() {
    let (double, client) = quiet(Release::CURRENT).await;
    client.post(PODS, pod("a", "x")).await;
    double.with(|world| {
        let pod = world.get("pods", "default", "a").unwrap();
        world.event(("pods", &pod), "Warning", "BackOff", "again", "kubelet");
        world.event(("pods", &pod), "Warning", "BackOff", "again", "kubelet");
    });
    let core = client
        .get("/api/v1/events?fieldSelector=involvedObject.name%3Da,reason%3DBackOff")
        .await
        .body;
    assert_eq!(
        (&core["items"][0]["count"], &core["items"][0]["message"]),
        (&json!(2), &json!("again"))
    );
    let new = client
        .get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Da")
        .await
        .body;
    assert_eq!(
        (&new["items"][0]["deprecatedCount"], &new["items"][0]["note"]),
        (&json!(2), &json!("again"))
    );
}

#[tokio::test]
async fn faults_meet_the_requests_they_are_for() {
    let (mut double, client) = quiet(Release::CURRENT).await;
    client.post(PODS, pod("a", "x")).await;
    double
        .set_faults(|faults| faults.rules = vec![Rule::all(Fault::Status(503)).on("list", "pods").times(1)]);
    assert_eq!(client.get("/api/v1/nodes").await.code, 200);
    let refused = client.get("/api/v1/pods").await;
    assert_eq!((refused.code, refused.header("retry-after")), (503, "1"));
    assert_eq!(client.get("/api/v1/pods").await.code, 200);

    double.set_faults(|faults| faults.rules = vec![Rule::all(Fault::EtcdDown)]);
    assert_eq!(
        client.get("/api/v1/pods").await.message(),
        "etcdserver: request timed out"
    );
    assert_eq!(
        client.get("/api/v1/pods?resourceVersion=0").await.code,
        200,
        "the watch cache needs no etcd"
    );
    assert_eq!(client.get("/livez").await.code, 200);
    let ready = client.get("/readyz").await;
    assert_eq!(ready.code, 500);
    assert!(ready.body.as_str().unwrap().contains("[-]etcd failed"));

    double.set_faults(|faults| faults.rules = vec![Rule::all(Fault::Hang)]);
    let hung = tokio::spawn({
        let client = client.clone();
        async move { client.call("GET", "/api/v1/pods", "", None).await }
    });
    let recorded = async {
        while double.requests().last().is_none_or(|request| request.code != 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(client::DEADLINE, recorded)
        .await
        .expect("it hangs within the deadline");
    double.set_faults(|faults| faults.rules.clear());
    assert!(hung.await.unwrap().is_err(), "what hung is cut off");

    double.set_faults(|faults| {
        faults.budget = Some(Budget::new(1, 2, 7));
        faults.fairness_headers = true;
    });
    assert_eq!(client.get("/api/v1/pods").await.code, 200);
    let fair = client.get("/api/v1/pods").await;
    assert!(!fair.header("x-kubernetes-pf-flowschema-uid").is_empty());
    let throttled = client.get("/api/v1/pods").await;
    assert_eq!((throttled.code, throttled.header("retry-after")), (429, "7"));
    assert_eq!(client.get("/readyz").await.code, 200, "probes are exempt");
    double.advance(std::time::Duration::from_secs(1));
    assert_eq!(client.get("/api/v1/pods").await.code, 200);

    let mut watch = client.clone();
    double.set_faults(|faults| faults.budget = None);
    watch.headers.clear();
    let mut stream = watch.watch(&format!("{PODS}?watch=true")).await;
    assert_eq!(stream.said().await, "ADDED a");
    double.go_down().await;
    assert!(
        stream.next().await.is_err(),
        "a server that is killed ends no stream well"
    );
    assert!(tokio::net::TcpStream::connect(double.address()).await.is_err());
    double.come_back().await.unwrap();
    assert_eq!(client.get(&format!("{PODS}/a")).await.code, 200);
}

#[tokio::test]
async fn a_pod_is_resized_in_place_where_the_release_can() {
    for (release, code) in [(Release::CURRENT, 200), (Release { minor: 30 }, 404)] {
        let (_double, client) = quiet(release).await;
        client.post(PODS, pod("a", "x")).await;
        let resources = json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "400m"}});
        let change = json!({"spec": {"containers": [{"name": "main", "resources": resources}]}});
        assert_eq!(
            client
                .patch(&format!("{PODS}/a/resize"), change.clone())
                .await
                .code,
            code
        );
        assert_eq!(
            client.patch(&format!("{PODS}/a"), change).await.code,
            if code == 200 { 200 } else { 422 }
        );
    }
}

#[tokio::test]
async fn a_restored_etcd_is_behind_what_clients_have_seen() {
    let (double, client) = quiet(Release::CURRENT).await;
    client.post(PODS, pod("a", "x")).await;
    let saved = double.with(|world| world.store.clone());
    for name in ["b", "c", "d"] {
        client.post(PODS, pod(name, "x")).await;
    }
    let seen = double.with(|world| world.store.revision());
    let mut watch = client
        .watch(&format!("{PODS}?watch=true&resourceVersion={seen}"))
        .await;
    double.with(|world| world.store = saved);
    let ahead = client.get(&format!("{PODS}?resourceVersion={seen}")).await;
    assert_eq!(
        (ahead.code, &ahead.body["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge"))
    );
    assert_eq!(client.get(PODS).await.body["items"].as_array().unwrap().len(), 1);
    // What is written below the revision that a watch has seen is never told to it: why a restore bumps the revision.
    for name in ["lost-1", "lost-2", "lost-3", "told"] {
        client.post(PODS, pod(name, "x")).await;
    }
    assert_eq!(watch.said().await, "ADDED told");
}

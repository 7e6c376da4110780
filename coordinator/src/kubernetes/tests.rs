//! Over a double of the API server that speaks the real protocol, TLS and all.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_apiserver::{Authority, Clock, Double, Fault, NodeSpec, Options, Release, Rule, User};
use data_encoding::BASE64;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::calls::{ApiCall, Precondition};
use super::connection::{Access, CallError, Connection, Identity, PodIdentity};
use super::objects::{CORDONED_BY, Key};
use super::view::{Api, ApiView};
use super::{Cluster, Clusters};
use crate::inventory::ClusterName;

const DEADLINE: Duration = Duration::from_mins(2);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("waited for {what} in vain"))
}

struct Bed {
    double: Double,
    authority: Authority,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bed {
    async fn new(release: Release) -> Self {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let authority = Authority::new().unwrap();
        let double = Double::start(Options {
            tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
            release,
            clock: Clock::running(20),
            ..Options::default()
        });
        let double = double.await.unwrap();
        double.with(|world| {
            for node in ["n1", "n2"] {
                world.add_node(&NodeSpec::worker(node));
            }
        });
        Self {
            double,
            authority,
            dir: tempfile::tempdir().unwrap(),
            stop: CancellationToken::new(),
        }
    }

    /// A kubeconfig of `server`, with a client certificate.
    fn kubeconfig(&self, server: &str, more: &str) -> PathBuf {
        let client = self.authority.client("blackstart", "system:masters").unwrap();
        let encoded = |pem: &str| BASE64.encode(pem.as_bytes());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {}\n{more}contexts:\n- name: c\n  context: {{cluster: c, user: u}}\nusers:\n- name: u\n  user:\n    \
             client-certificate-data: {}\n    client-key-data: {}\n",
            encoded(&self.authority.certificate),
            encoded(&client.certificate),
            encoded(&client.key),
        );
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn access(&self, server: &str, more: &str, addresses: Vec<SocketAddr>) -> Access {
        Access {
            identity: Identity::Kubeconfig(self.kubeconfig(server, more)),
            addresses,
            masters: Vec::new(),
            requests_per_second: 200,
        }
    }

    fn clusters(&self, access: Access) -> Clusters {
        let clusters = Clusters::new([(ClusterName("c".into()), access)]);
        tokio::spawn(clusters.clone().run(self.stop.clone()));
        clusters
    }

    fn direct(&self) -> Clusters {
        self.clusters(self.access(&self.double.url(), "", Vec::new()))
    }

    fn label(&self, node: &str, value: &str) {
        self.double.with(|world| {
            world.change("nodes", "", node, |node| {
                node["metadata"]["annotations"][CORDONED_BY] = value.into();
            });
        });
    }
}

fn cluster(clusters: &Clusters) -> &Cluster {
    clusters.get(&ClusterName("c".into())).unwrap()
}

/// Until it is known of `n1` what is wanted.
async fn until(clusters: &Clusters, what: &str, like: impl Fn(&ApiView) -> bool) -> ApiView {
    let cluster = cluster(clusters);
    let mut changes = cluster.changes();
    within(what, async {
        loop {
            changes.borrow_and_update();
            if let Api::Known(view) = cluster.view("n1", Instant::now())
                && like(&view)
            {
                return *view;
            }
            let _tick = timeout(Duration::from_millis(200), changes.changed()).await;
        }
    })
    .await
}

fn is_marked(value: &str) -> impl Fn(&ApiView) -> bool {
    move |view| {
        view.node
            .as_ref()
            .is_some_and(|node| node.cordoned_by.as_deref() == Some(value))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_is_too_old_or_meets_a_server_that_restarts_goes_on() {
    let mut bed = Bed::new(Release::CURRENT).await;
    let clusters = bed.direct();
    let view = until(&clusters, "the first list", |view| view.life.seen.is_some()).await;
    assert!(view.can.leases.is_some() && view.can.out_of_service);
    bed.double.cut_watches();
    bed.label("n1", "cut");
    until(&clusters, "what came after the cut", is_marked("cut")).await;
    // What it had seen last is forgotten by the server: 410.
    bed.double.go_down().await;
    bed.label("n1", "gone");
    bed.double.with(|world| world.store.compact());
    let trouble = within("trouble", async {
        loop {
            if let Some(trouble) = cluster(&clusters).trouble() {
                return trouble;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(trouble.await.contains("127.0.0.1"));
    bed.double.come_back().await.unwrap();
    until(&clusters, "what came after the restart", is_marked("gone")).await;
    // One that is not there any more is not there.
    bed.double.with(|world| {
        let key = blackstart_apiserver::store::Key::new("nodes", "", "n1");
        world.machines.remove("n1");
        world.store.remove(&key);
    });
    until(&clusters, "the node's end", |view| view.node.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_makes_what_is_known_old_and_says_so() {
    let bed = Bed::new(Release::CURRENT).await;
    let clusters = bed.direct();
    until(&clusters, "the first list", |_| true).await;
    bed.double
        .set_faults(|faults| faults.rules = vec![Rule::all(Fault::Hang)]);
    // The watches were cut with the change of the faults, and nothing answers since.
    // A quiet watch is begun anew every 20 s; what was not heard of for longer is not quiet.
    until(&clusters, "age", |view| view.age > Duration::from_secs(25)).await;
    bed.double.set_faults(|faults| faults.rules.clear());
    until(&clusters, "fresh news", |view| view.age < Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_cluster_is_watched_by_heartbeats() {
    let bed = Bed::new(Release::V1_13).await;
    let clusters = bed.direct();
    let view = until(&clusters, "a heartbeat", |view| view.life.seen.is_some()).await;
    assert!(view.can.leases.is_none() && !view.can.out_of_service);
    assert_eq!(view.can.eviction.unwrap().0, "policy/v1beta1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_when_the_first_is_dead_or_its_name_cannot_be_resolved() {
    let bed = Bed::new(Release::CURRENT).await;
    let addresses = vec!["127.0.0.1:1".parse().unwrap(), bed.double.address()];
    // Nobody listens there.
    let clusters = bed.clusters(bed.access("https://127.0.0.1:1", "", addresses.clone()));
    until(&clusters, "a list by the second address", |_| true).await;
    // The certificate has to be of the name that the kubeconfig has, whatever the address.
    let clusters = bed.clusters(bed.access("https://kubernetes:6443", "", addresses.clone()));
    until(&clusters, "a list without DNS", |_| true).await;
    let wrong = "    tls-server-name: elsewhere.lan\n";
    let clusters = bed.clusters(bed.access("https://127.0.0.1:1", wrong, addresses));
    let trouble = within("trouble", async {
        loop {
            match cluster(&clusters).trouble() {
                Some(trouble) if trouble.contains("ertificate") => return trouble,
                Some(_) | None => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let trouble = trouble.await;
    assert!(
        trouble.contains("elsewhere.lan") || trouble.contains("not valid for name"),
        "{trouble}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_for_tokens_and_unverified_servers_are_refused_by_name() {
    let bed = Bed::new(Release::CURRENT).await;
    let access = bed.access(&bed.double.url(), "", Vec::new());
    let Identity::Kubeconfig(path) = access.identity.clone() else {
        panic!("a kubeconfig");
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let ran = bed.dir.path().join("ran");
    let exec = text.replace(
        "    client-certificate-data",
        &format!(
            "    exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: [-c, \"echo it ran >{}\"], interactiveMode: Never}}\n    \
             client-certificate-data",
            ran.display()
        ),
    );
    let unverified = text.replace(
        "certificate-authority-data",
        "insecure-skip-tls-verify: true\n    x",
    );
    let plain = text.replace("server: https://", "server: http://").replace(
        "    client-certificate-data",
        "    token: secret\n    client-certificate-data",
    );
    for (text, why) in [
        (plain, "its server is not https"),
        (exec, "names a program"),
        (unverified, "insecure-skip-tls-verify"),
        ("clusters: 7".to_owned(), "is none"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Connection::new(access.clone()).client().await.err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!ran.exists(), "a program that a kubeconfig names was run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_the_pod_is_its_token_and_authority_and_a_token_that_is_replaced_is_read_anew() {
    let bed = Bed::new(Release::CURRENT).await;
    let only = |token: &'static str| {
        bed.double.set_access(|access| {
            access.rbac = true;
            let user = User::new(
                "system:serviceaccount:blackstart:coordinator",
                &["system:masters"],
            );
            access.tokens = [(token.to_owned(), user)].into();
        });
    };
    let directory = bed.dir.path().join("serviceaccount");
    std::fs::create_dir(&directory).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    let access = Access {
        identity: Identity::Pod(PodIdentity {
            directory: directory.clone(),
            server: Some(bed.double.address()),
        }),
        addresses: Vec::new(),
        masters: Vec::new(),
        requests_per_second: 200,
    };
    // What is missing is named.
    let error = Connection::new(access.clone()).client().await.err().unwrap();
    assert!(error.to_string().contains("serviceaccount/ca.crt"), "{error}");
    only("first");
    write("ca.crt", &bed.authority.certificate);
    write("token", "first");
    let clusters = bed.clusters(access.clone());
    until(&clusters, "the first list", |view| view.node.is_some()).await;
    // The kubelet replaces the token, and the old one counts no more.
    only("second");
    bed.double.cut_watches();
    within("the old token to be refused", async {
        let refused =
            |requests: Vec<blackstart_apiserver::Recorded>| requests.iter().any(|one| one.code == 401);
        while !refused(bed.double.requests()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    write("token", "second");
    bed.label("n1", "seen with the second");
    until(&clusters, "what came after", |view| {
        view.node
            .as_ref()
            .is_some_and(|node| node.cordoned_by.as_deref() == Some("seen with the second"))
    })
    .await;
    // Who shows a certificate of another authority is not believed, whatever its address.
    write("ca.crt", &Authority::new().unwrap().certificate);
    let distrustful = bed.clusters(access);
    let trouble = within("the refusal of its certificate", async {
        loop {
            match cluster(&distrustful).trouble() {
                Some(why) if why.contains("certificate") => return why,
                Some(_) | None => sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(cluster(&distrustful).capabilities().is_none(), "{trouble}");
}

fn cordon(node: Precondition) -> ApiCall {
    ApiCall::Schedulable {
        node,
        unschedulable: true,
        mark: (CORDONED_BY, Some("drain-1".into())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_rests_on_what_was_seen_and_says_why_it_was_not_made() {
    let bed = Bed::new(Release::CURRENT).await;
    let clusters = bed.direct();
    let view = until(&clusters, "the first list", |_| true).await;
    let node = view.node.unwrap();
    let seen = Precondition {
        name: node.name.clone(),
        uid: node.uid.clone(),
        resource_version: "1".into(),
    };
    let answer = cluster(&clusters).perform(&cordon(seen.clone())).await;
    assert!(matches!(answer, Err(CallError::Conflict(_))), "{answer:?}");
    // What was seen may be old by now: seen anew, it is made.
    within("a cordon", async {
        loop {
            let node = until(&clusters, "the node", |view| view.node.is_some())
                .await
                .node
                .unwrap();
            let now = Precondition {
                resource_version: node.resource_version,
                ..seen.clone()
            };
            match cluster(&clusters).perform(&cordon(now)).await {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, CallError::Conflict(_)), "{error}"),
            }
        }
    })
    .await;
    until(&clusters, "the cordon", is_marked("drain-1")).await;
    let gone = ApiCall::DeletePod {
        pod: Key {
            namespace: "default".into(),
            name: "nobody".into(),
        },
        uid: "u".into(),
        force: false,
    };
    assert_eq!(cluster(&clusters).perform(&gone).await, Err(CallError::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_429_is_left_alone_for_as_long_as_it_wants() {
    let bed = Bed::new(Release::CURRENT).await;
    let connection = Connection::new(bed.access(&bed.double.url(), "", Vec::new()));
    bed.double
        .set_faults(|faults| faults.rules = vec![Rule::all(Fault::Status(429)).times(1)]);
    let node = Precondition {
        name: "n1".into(),
        uid: "u".into(),
        resource_version: "1".into(),
    };
    let before = Instant::now();
    let answer = connection.perform(&cordon(node.clone()), None).await;
    let Err(CallError::Throttled { after, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(after, Duration::from_secs(1));
    assert!(connection.left_alone(before).is_some());
    // The next request of whoever waits until then.
    let answer = connection.perform(&cordon(node), None).await;
    assert!(matches!(answer, Err(CallError::Conflict(_))), "{answer:?}");
    assert!(before.elapsed() >= Duration::from_secs(1));
    let asked = bed.double.requests();
    let changes = asked.iter().filter(|asked| asked.verb == "patch").count();
    assert_eq!(changes, 2, "nothing was repeated behind its back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_the_server_has_no_time_for_is_about_us_as_well() {
    let bed = Bed::new(Release::CURRENT).await;
    let connection = Connection::new(bed.access(&bed.double.url(), "", Vec::new()));
    let rule = Rule::all(Fault::Status(429)).on("create", "pods/eviction");
    bed.double.set_faults(|faults| faults.rules = vec![rule.times(1)]);
    let evict = ApiCall::Evict {
        pod: Key {
            namespace: "default".into(),
            name: "web".into(),
        },
        uid: "u".into(),
        version: super::capabilities::GroupVersion("policy/v1".into()),
    };
    let answer = connection.perform(&evict, None).await;
    assert!(matches!(answer, Err(CallError::Throttled { .. })), "{answer:?}");
    assert!(connection.left_alone(Instant::now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_a_budget_does_not_allow_is_about_its_pod_alone() {
    let bed = Bed::new(Release::CURRENT).await;
    bed.double.with(|world| {
        let labels = json!({"app": "web"});
        world
            .apply_manifests(&[
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
                    "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}}),
                json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
                    "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}}),
            ])
            .unwrap();
    });
    let clusters = bed.direct();
    let cluster = cluster(&clusters);
    let pod = within("a ready pod", async {
        loop {
            let of = |node| match cluster.view(node, Instant::now()) {
                Api::Known(view) => view.pods.into_iter().find(|pod| pod.is_ready),
                Api::Unknown { .. } => None,
            };
            if let Some(pod) = of("n1").or_else(|| of("n2")) {
                return pod;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let call = ApiCall::Evict {
        pod: pod.key.clone(),
        uid: pod.uid.clone(),
        version: cluster.capabilities().unwrap().eviction.unwrap(),
    };
    let answer = cluster.perform(&call).await;
    let Err(CallError::Throttled { why, .. }) = answer else {
        panic!("{answer:?}");
    };
    assert!(why.contains("disruption budget web"), "{why}");
    // Of another pod of its name, it is not made at all.
    let other = ApiCall::Evict {
        pod: pod.key,
        uid: "another".into(),
        version: cluster.capabilities().unwrap().eviction.unwrap(),
    };
    let answer = cluster.perform(&other).await;
    assert!(answer.is_err(), "{answer:?}");
}

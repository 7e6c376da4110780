//! Static pods in a real dockerd: their containers are known by the labels that a kubelet gives them.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use blackstart_agent::config::{ComponentSettings, Settings};
use blackstart_agent::remedy::bounce_static_pod::{BounceRules, bounce};
use blackstart_agent::signal::{PodContainers, Signal, StaticPod};
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::static_pods::watch;
use support::docker::{Dockerd, skipped};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_mins(1);
const MANIFEST: &str =
    "kind: Pod\nmetadata: {name: etcd, namespace: kube-system}\nspec: {containers: [{name: etcd}]}\n";

/// Starts what a kubelet would for `etcd` on a node called `n`.
fn start(dockerd: &Dockerd) {
    let labels = [
        "io.kubernetes.pod.name=etcd-n",
        "io.kubernetes.pod.namespace=kube-system",
        "io.kubernetes.pod.uid=0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "io.kubernetes.container.name=etcd",
    ];
    let mut args = vec!["run", "--detach", "--network", "none", "--name", "k8s_etcd"];
    for label in labels {
        args.extend(["--label", label]);
    }
    args.extend(["pod:1", "sleep", "1000"]);
    dockerd.docker(&args);
}

fn stop(dockerd: &Dockerd) {
    dockerd.docker(&["rm", "--force", "k8s_etcd"]);
}

/// Waits until the watcher tells this of the pod.
async fn until(signals: &mut mpsc::Receiver<Signal>, expected: &PodContainers) -> StaticPod {
    let seen = async {
        loop {
            let Some(Signal::StaticPods(seen)) = signals.recv().await else {
                panic!("the watcher has ended");
            };
            let found = seen.pods.into_iter().find(|pod| pod.containers == *expected);
            if let Some(pod) = found {
                return pod;
            }
        }
    };
    timeout(DEADLINE, seen).await.expect("told in time")
}

/// Does with the container what a kubelet does by the manifest, until it has been gone and is back.
async fn obey(dockerd: &Dockerd, manifest: &Path) {
    let wait = async |there: bool| {
        while manifest.exists() != there {
            sleep(Duration::from_millis(20)).await;
        }
    };
    wait(false).await;
    stop(dockerd);
    wait(true).await;
    start(dockerd);
}

#[tokio::test]
async fn a_pods_containers_are_seen_to_run_to_end_and_to_come_back_by_a_bounce() {
    // Paths of sockets are short: not in the target directory.
    let dir = tempfile::tempdir().expect("a directory");
    let dockerd = match Dockerd::start(dir.path()).await {
        Ok(dockerd) => dockerd,
        Err(why) => return skipped(&why),
    };
    dockerd.image(Some("pod:1"), 1);
    let mut settings = Settings::for_node("n");
    settings.runtime.docker.socket = dockerd.socket();
    let pods = &mut settings.static_pods;
    pods.manifests = dir.path().join("manifests");
    pods.held = dir.path().join("held");
    pods.interval = Duration::from_millis(200);
    pods.deadline = Duration::from_secs(20);
    pods.out_at_least = Duration::from_millis(100);
    // No port: docker alone tells.
    let mut etcd = ComponentSettings::new("etcd", 1, "/");
    etcd.port = None;
    pods.components = vec![etcd];
    fs::create_dir(&pods.manifests).expect("a directory");
    let manifest = pods.manifests.join("etcd.yaml");
    fs::write(&manifest, MANIFEST).expect("a file");

    let (told, mut signals) = mpsc::channel(16);
    let end = CancellationToken::new();
    let watching = tokio::spawn(watch(
        settings.static_pods.clone(),
        dockerd.socket(),
        dir.path().to_owned(),
        told,
        Beat::begin(),
        end.clone(),
    ));
    let missing = PodContainers::NotRunning(vec!["etcd".to_owned()]);
    until(&mut signals, &missing).await;
    start(&dockerd);
    let pod = until(&mut signals, &PodContainers::Running).await;
    assert_eq!((pod.name.as_str(), pod.health), ("etcd", None));
    dockerd.docker(&["kill", "k8s_etcd"]);
    until(&mut signals, &missing).await;
    end.cancel();
    timeout(DEADLINE, watching)
        .await
        .expect("ends in time")
        .expect("without a panic");

    stop(&dockerd);
    start(&dockerd);
    let before = dockerd.docker(&["ps", "--quiet"]);
    let rules = BounceRules::new(&settings);
    let (bounced, ()) = tokio::join!(bounce("etcd", &rules), obey(&dockerd, &manifest));
    let bounced = bounced.expect("bounced");
    assert_eq!((bounced.file.as_str(), bounced.answers), ("etcd.yaml", None));
    assert!(manifest.exists());
    let after = dockerd.docker(&["ps", "--quiet"]);
    assert!(!after.is_empty() && after != before, "{before} {after}");
    stop(&dockerd);
}

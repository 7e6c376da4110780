use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::ComponentSettings;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers while the manifest is there, as a pod that its kubelet runs.
struct Kubelet {
    rules: BounceRules,
    _dir: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pod(manifest: std::path::PathBuf, address: SocketAddr, stops: bool) {
    loop {
        while !manifest.exists() {
            sleep(Duration::from_millis(10)).await;
        }
        let listener = TcpListener::bind(address).await.unwrap();
        while manifest.exists() || !stops {
            let accepted = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
            if let Ok(Ok((mut stream, _))) = accepted {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _gone = stream.write_all(answer).await;
            }
        }
    }
}

async fn kubelet(stops: bool) -> Kubelet {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut settings = Settings::for_node("n");
    settings.runtime.docker.socket = dir.path().join("none.sock");
    let pods = &mut settings.static_pods;
    pods.manifests = dir.path().join("manifests");
    pods.held = dir.path().join("held");
    pods.components = vec![ComponentSettings::new("etcd", address.port(), "/health")];
    pods.out_at_least = Duration::from_millis(100);
    pods.gone_deadline = if stops { DEADLINE } else { Duration::from_secs(1) };
    pods.ready_deadline = DEADLINE;
    fs::create_dir(&pods.manifests).unwrap();
    let manifest = pods.manifests.join("etcd.yaml");
    fs::write(
        &manifest,
        "kind: Pod\nmetadata: {name: etcd}\nspec: {hostNetwork: true, containers: [{name: c}]}\n",
    )
    .unwrap();
    Kubelet {
        rules: BounceRules::new(&settings, SetAside::none(dir.path(), "")),
        _dir: dir,
        task: tokio::spawn(pod(manifest, address, stops)),
    }
}

fn is_there(rules: &BounceRules) -> bool {
    rules.places.manifests.join("etcd.yaml").exists() && rules.places.out().unwrap().is_empty()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.unwrap();
}

#[tokio::test]
async fn a_pod_is_stopped_and_started_anew() {
    let kubelet = kubelet(true).await;
    let bounced = bounce("etcd", &kubelet.rules).await.unwrap();
    assert_eq!(bounced.file, "etcd.yaml");
    assert!(
        bounced.to_string().contains("/health answers"),
        "{}",
        bounced.to_string()
    );
    assert!(is_there(&kubelet.rules));
}

#[tokio::test]
async fn a_pod_that_does_not_end_keeps_its_manifest() {
    let kubelet = kubelet(false).await;
    let error = bounce("etcd", &kubelet.rules).await.unwrap_err();
    assert!(matches!(error, BounceError::NotGone { .. }), "{error}");
    assert!(is_there(&kubelet.rules));
}

#[tokio::test]
async fn broken_off_in_the_middle_it_puts_the_manifest_back() {
    let kubelet = kubelet(false).await;
    let mut rules = kubelet.rules.clone();
    rules.settings.gone_deadline = DEADLINE;
    let out = rules.places.held.join("etcd/etcd.yaml");
    tokio::select! {
        ended = bounce("etcd", &rules) => panic!("it has ended: {ended:?}"),
        () = until(|| out.exists()) => {}
    }
    assert!(is_there(&rules));
}

#[tokio::test]
async fn what_a_crash_left_out_is_recovered_and_keeps_another_from_being_moved_out() {
    let kubelet = kubelet(true).await;
    let rules = &kubelet.rules;
    rules.places.move_out("etcd", "etcd.yaml").unwrap();
    let error = bounce("etcd", rules).await.unwrap_err();
    assert!(matches!(error, BounceError::OtherOut { .. }), "{error}");
    assert!(recover("etcd", rules).await.unwrap().contains("moved back"));
    assert!(is_there(rules));
    assert!(recover("etcd", rules).await.unwrap().contains("not out"));
}

#[tokio::test]
async fn nothing_is_touched_that_is_no_component_has_no_manifest_or_cannot_be_seen_to_end() {
    let kubelet = kubelet(true).await;
    let mut rules = kubelet.rules.clone();
    let error = bounce("keepalived", &rules).await.unwrap_err();
    assert!(matches!(error, BounceError::NotAComponent(_)), "{error}");
    rules.settings.components[0].port = None;
    let error = bounce("etcd", &rules).await.unwrap_err();
    assert!(matches!(error, BounceError::Blind(_)), "{error}");
    fs::remove_file(Path::new(&rules.places.manifests).join("etcd.yaml")).unwrap();
    let error = bounce("etcd", &rules).await.unwrap_err();
    assert!(matches!(error, BounceError::NoManifest { .. }), "{error}");
    assert!(matches!(
        bounce_static_pod("etcd", &rules, true).await,
        Outcome::Succeeded { detail } if detail.contains("nothing was changed")
    ));
}

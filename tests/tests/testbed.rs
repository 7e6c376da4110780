//! The testbed itself: is its power loss one?
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use blackstart_tests::bed::{self, Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node::{DISK, Node};
use blackstart_tests::topology::{Role, Topology};
use blackstart_tests::wait;

const KUBELET: &str = "http://127.0.0.1:10248/healthz";

#[tokio::test]
async fn a_power_loss_takes_what_was_not_synced_and_nothing_else() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = Bed::raise(&docker, "power", &Wish::single(Runs::Nothing))
        .await
        .unwrap();
    let node = bed.node("worker-1").unwrap();
    let before = node.boot_id().unwrap();
    for what in ["--flush", "--sync"] {
        node.exec(&["journalctl", what]).await.unwrap();
    }
    let on_disk = |name: &str| node.path(&format!("{DISK}/{name}")).unwrap();
    let file = |name: &str| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(on_disk(name))
            .unwrap()
    };
    let mut synced = file("synced");
    synced.write_all(b"synced").unwrap();
    synced.sync_all().unwrap();
    fs::File::open(on_disk("")).unwrap().sync_all().unwrap();
    synced.write_all(b" and not").unwrap();
    file("unsynced").write_all(b"unsynced").unwrap();
    // An open file would be held beyond the cut.
    drop(synced);
    node.write("/run/volatile", "gone with the boot").unwrap();
    node.exec(&["touch", "/etc/installed"]).await.unwrap();

    node.power_off().await.unwrap();
    assert!(!node.is_on());
    node.power_on().await.unwrap();

    assert_eq!(fs::read_to_string(on_disk("synced")).unwrap(), "synced");
    let unsynced = fs::read_to_string(on_disk("unsynced")).unwrap_or_default();
    assert_eq!(unsynced, "", "it was never written");
    assert!(node.read("/run/volatile").is_err());
    assert!(node.path("/etc/installed").unwrap().exists());
    assert_ne!(node.boot_id().unwrap(), before);
    let kernels = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(node.boot_id().unwrap(), kernels.trim(), "a boot of its own");
    assert!(!ended_in_order(node).await, "nobody was told of the cut");

    node.shut_down().await.unwrap();
    node.power_on().await.unwrap();
    assert!(ended_in_order(node).await, "a clean stop is told from a cut");
    bed.take_down().await.unwrap();
    assert!(!bed::left(&docker).await.unwrap().contains(&"power".to_owned()));
}

/// Does the journal of the boot before this one say how it ended?
async fn ended_in_order(node: &Node) -> bool {
    let args = [
        "journalctl",
        "--boot=-1",
        "--output=cat",
        "--no-pager",
        "--lines=5",
    ];
    node.exec(&args).await.unwrap().contains("Journal stopped")
}

#[tokio::test]
async fn stand_ins_do_wrong_as_they_are_told() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        topology: Topology {
            masters: 3,
            workers: 0,
        },
        runs: Runs::Kubelets,
        ..Wish::fleet(3, 0)
    };
    let bed = Bed::raise(&docker, "stand-ins", &wish).await.unwrap();
    bed.kubelets_answer(bed.of_role(Role::Master), Duration::from_mins(3))
        .await
        .unwrap();
    let node = bed.node("master-1").unwrap();
    let status = async |url: String| status(node, &url).await;
    let readyz = |host: usize| format!("http://{}:6443/readyz", bed.declared()[host].address);
    until("a quorum", async || status(readyz(2)).await == "200").await;

    // One of three is enough to lose, two are not.
    bed.node("master-3").unwrap().power_off().await.unwrap();
    until("two of three to stay ready", async || {
        status(readyz(1)).await == "200"
    })
    .await;
    bed.node("master-2").unwrap().power_off().await.unwrap();
    until("one of three not to be ready", async || {
        status(readyz(0)).await == "503"
    })
    .await;
    assert_eq!(status(KUBELET.into()).await, "200");

    node.write("/run/stand-in-kubelet", "fail").unwrap();
    until("a kubelet that fails", async || {
        status(KUBELET.into()).await == "500"
    })
    .await;
    node.write("/run/stand-in-kubelet", "hang").unwrap();
    until("a kubelet that hangs", async || {
        status(KUBELET.into()).await == "000"
    })
    .await;
    let hung = node.main_pid("kubelet.service").await.unwrap();
    node.exec(&["systemctl", "kill", "--signal=TERM", "kubelet.service"])
        .await
        .unwrap();
    assert_eq!(status(KUBELET.into()).await, "000");
    assert_eq!(
        node.main_pid("kubelet.service").await.unwrap(),
        hung,
        "what hangs ignores a polite stop"
    );

    let active = async || node.property("kubelet.service", "ActiveState").await.unwrap();
    node.write("/run/stand-in-kubelet", "crash").unwrap();
    until("a kubelet that crashed", async || active().await == "failed").await;
    node.exec(&["systemctl", "start", "kubelet.service"])
        .await
        .unwrap();
    until("one that is well again", async || {
        status(KUBELET.into()).await == "200"
    })
    .await;
    node.write("/run/stand-in-kubelet", "refuse").unwrap();
    node.exec(&["systemctl", "restart", "kubelet.service"])
        .await
        .unwrap();
    until("one that refuses to start", async || active().await == "failed").await;
    bed.take_down().await.unwrap();
}

/// The status that an endpoint answers a node with; 000 if it does not.
async fn status(node: &Node, url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/{} && printf 'GET /{path} HTTP/1.0\\r\\n\\r\\n' >&3 && read -t 1 -u 3 -r _ code _ && echo $code || echo 000",
        address.replace(':', "/")
    );
    node.exec(&["bash", "-c", &script])
        .await
        .unwrap_or_else(|_| "000".to_owned())
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looked = wait::until(what, Duration::from_mins(3), async || {
        Ok(look().await.then_some(()))
    })
    .await;
    looked.unwrap();
}

//! The packages on a real node: what they bring, that an upgrade leaves the kubelet alone, and that a purge leaves nothing.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node::Node;
use blackstart_tests::packages::{Packages, forget};
use blackstart_tests::wait;

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const GATE: &str = "blackstart-gate.service";
const LONG: Duration = Duration::from_mins(2);
const CONFIG: &str = "/etc/blackstart/agent.yaml";
/// A node that repairs itself and reports to nobody. Times are the testbed's.
const YAML: &str = "node: worker-1\nboot_id_file: /run/boot_id\nunits: [kubelet.service]\ndisks: [{mount_point: /var/lib/node-disk}]\n\
    preflight: {container_runtimes: [], etcd_data: []}\ngate: {role: worker, dead_man_worker: 30m, jitter: 0s}\n";

/// Copies packages in and installs them, as `dpkg -i` does: with what they depend on there already.
async fn install(node: &Node, files: &[&Path]) -> String {
    let mut command = vec!["dpkg".to_owned(), "--install".to_owned()];
    for file in files {
        let inside = format!("/root/{}", file.file_name().unwrap().to_str().unwrap());
        // Not by the engine, which would mount the node's root file system a second time.
        std::fs::copy(file, node.path(&inside).unwrap()).unwrap();
        command.push(inside);
    }
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    let said = node.exec_within(LONG, &words).await.unwrap();
    for inside in &command[2..] {
        node.exec(&["rm", inside]).await.unwrap();
    }
    said
}

/// Every file and directory that packages may touch, with owner, mode and, where it is configuration, content; and every unit.
async fn inventory(node: &Node) -> BTreeSet<String> {
    // Not what the system writes by itself, the accounts, of which a purge leaves one, and two things of the testbed: a directory that is a mount
    // point, and a file that the image has as well, which comes back on overlayfs when it was removed, made, renamed over and removed again.
    let script = r"
        find /etc /usr /opt /root /srv /home /var/lib /var/cache /var/spool -xdev \
            \( -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/lib/node-disk -o -path /var/cache/ldconfig \
               -o -path '/etc/*shadow*' -o -path '/etc/*passwd*' -o -path '/etc/*group*' -o -path /etc/.pwd.lock \
               -o -path '/etc/sub?id*' \) -prune \
            -o -path /var/lib/blackstart -o -path /usr/lib/sysusers.d/blackstart.conf -o -type f -path '/etc/*' -printf '%M %u %g %p ' -exec sha256sum '{}' ';' \
            -o -type d -printf '%M %u %g %p\n' -o -printf '%M %u %g %p %l\n'
        systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
        systemctl show kubelet.service --property=Wants,After,DropInPaths";
    let said = node.exec_within(LONG, &["sh", "-c", script]).await.unwrap();
    let sorted = |line: &str| match line.split_once('=') {
        // systemd lists units in no order.
        Some((name @ ("Wants" | "After"), units)) => {
            let units: BTreeSet<_> = units.split_whitespace().collect();
            format!("{name}={units:?}")
        }
        _ => line.to_owned(),
    };
    said.lines().map(sorted).collect()
}

fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    let new = after.difference(before).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

async fn property(node: &Node, unit: &str, property: &str) -> String {
    node.property(unit, property).await.unwrap()
}

async fn raise(docker: &Docker, name: &str) -> Bed {
    let bed = Bed::raise(docker, name, &Wish::single(Runs::Kubelets))
        .await
        .unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    forget(bed.node("worker-1").unwrap()).await.unwrap();
    bed
}

async fn active(node: &Node, unit: &str) {
    wait::until(&format!("{unit} to be active"), LONG, async || {
        Ok((node.property(unit, "ActiveState").await? == "active").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_agent_comes_changes_and_goes_and_the_kubelet_does_not_notice() {
    let (Some(docker), Some(packages)) = (Docker::or_skip().await, Packages::or_skip()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let shipped = packages.file("blackstart-agent").unwrap();
    let newer = packages
        .with_version("blackstart-agent", "9.0.0-1", dir.path())
        .await
        .unwrap();
    let bed = raise(&docker, "packages-agent").await;
    let node = bed.node("worker-1").unwrap();
    let kubelet = property(node, KUBELET, "MainPID").await;
    let before = inventory(node).await;

    // Nothing runs, and nothing is held, before the node has joined.
    install(node, &[&shipped]).await;
    node.exec(&["systemctl", "start", AGENT, GATE]).await.unwrap();
    assert_eq!(property(node, AGENT, "ActiveState").await, "inactive");
    assert_eq!(property(node, GATE, "ActiveState").await, "inactive");
    let wants = property(node, KUBELET, "Wants").await;
    assert!(wants.contains(GATE), "the kubelet wants {wants}");
    let example = "/etc/blackstart/agent.example.yaml";
    node.exec(&["blackstart-agent", "config", "check", example])
        .await
        .unwrap();

    node.write(CONFIG, YAML).unwrap();
    node.exec(&["systemctl", "enable", "--now", AGENT, GATE])
        .await
        .unwrap();
    active(node, AGENT).await;
    let owner = node
        .exec(&["stat", "--format=%U %a", "/var/lib/blackstart"])
        .await
        .unwrap();
    assert_eq!(owner, "blackstart 700");
    let gate = property(node, GATE, "InvocationID").await;

    for (file, what) in [(&newer, "upgrade"), (&shipped, "downgrade"), (&newer, "upgrade")] {
        let agent = property(node, AGENT, "MainPID").await;
        install(node, &[file]).await;
        active(node, AGENT).await;
        assert_ne!(
            property(node, AGENT, "MainPID").await,
            agent,
            "{what}: the new program"
        );
        assert_eq!(property(node, KUBELET, "MainPID").await, kubelet, "{what}");
        assert_eq!(property(node, GATE, "InvocationID").await, gate, "{what}");
    }

    // A removal keeps who the node is.
    node.exec(&["dpkg", "--remove", "blackstart-agent"])
        .await
        .unwrap();
    assert_eq!(property(node, KUBELET, "MainPID").await, kubelet);
    assert_eq!(node.read(CONFIG).unwrap(), YAML);
    node.exec(&["test", "-s", "/var/lib/blackstart/ledger"])
        .await
        .unwrap();
    let wants = property(node, KUBELET, "Wants").await;
    assert!(!wants.contains(GATE), "the kubelet wants {wants}");

    node.exec(&["dpkg", "--purge", "blackstart-agent"]).await.unwrap();
    let left = difference(&before, &inventory(node).await);
    assert!(left.is_empty(), "left behind: {left:#?}");
    let files = ["find", "/var/lib/blackstart", "/run/blackstart", "-mindepth", "1"];
    let state = node
        .exec(&["sh", "-c", &format!("{} 2>/dev/null || true", files.join(" "))])
        .await
        .unwrap();
    assert_eq!(state, "");
    assert_eq!(property(node, KUBELET, "MainPID").await, kubelet);
    bed.take_down().await.unwrap();
}

/// By the same files and scripts of its own, on a node that has `rpm`: Debian's, which knows of no other packages.
#[tokio::test]
async fn an_rpm_comes_changes_and_goes_and_the_kubelet_does_not_notice() {
    let (Some(docker), Some(packages)) = (Docker::or_skip().await, Packages::or_skip()) else {
        return;
    };
    let Some(shipped) = packages.rpm_or_skip("blackstart-agent") else {
        return;
    };
    let wish = Wish {
        packages: vec!["rpm"],
        ..Wish::single(Runs::Kubelets)
    };
    let bed = Bed::raise(&docker, "packages-rpm", &wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    forget(node).await.unwrap();
    let kubelet = property(node, KUBELET, "MainPID").await;
    let before = inventory(node).await;
    let inside = "/root/agent.rpm";
    std::fs::copy(&shipped, node.path(inside).unwrap()).unwrap();
    let rpm = async |arguments: &[&str]| {
        let command = [&["rpm", "--force-debian", "--nodeps"], arguments].concat();
        node.exec_within(LONG, &command).await.unwrap()
    };

    rpm(&["--install", inside]).await;
    node.exec(&["systemctl", "start", AGENT, GATE]).await.unwrap();
    assert_eq!(
        property(node, AGENT, "ActiveState").await,
        "inactive",
        "it has not joined"
    );
    node.write(CONFIG, YAML).unwrap();
    node.exec(&["systemctl", "enable", "--now", AGENT, GATE])
        .await
        .unwrap();
    active(node, AGENT).await;
    let gate = property(node, GATE, "InvocationID").await;
    let agent = property(node, AGENT, "MainPID").await;

    // An upgrade to what is there already runs the same scripts as one to something newer.
    rpm(&[
        "--upgrade",
        "--replacepkgs",
        "--replacefiles",
        "--oldpackage",
        inside,
    ])
    .await;
    active(node, AGENT).await;
    assert_ne!(property(node, AGENT, "MainPID").await, agent, "the new program");
    assert_eq!(property(node, KUBELET, "MainPID").await, kubelet);
    assert_eq!(property(node, GATE, "InvocationID").await, gate);

    rpm(&["--erase", "blackstart-agent"]).await;
    assert_eq!(property(node, KUBELET, "MainPID").await, kubelet);
    let wants = property(node, KUBELET, "Wants").await;
    assert!(!wants.contains(GATE), "the kubelet wants {wants}");
    // Who the node is stays, and is removed by hand; so is what `rpm` itself keeps.
    for path in [
        "/etc/blackstart",
        "/var/lib/blackstart/*",
        "/root/agent.rpm",
        "/var/lib/rpm",
    ] {
        node.exec(&["sh", "-c", &format!("rm -rf {path}")]).await.unwrap();
    }
    let mine = |line: &String| line.contains("blackstart") && !line.contains("/var/lib/blackstart");
    let left: Vec<_> = difference(&before, &inventory(node).await)
        .into_iter()
        .filter(|line| mine(line))
        .collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_gate_that_holds_goes_on_holding_through_an_upgrade_and_a_removal_ends_it() {
    let (Some(docker), Some(packages)) = (Docker::or_skip().await, Packages::or_skip()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let newer = packages
        .with_version("blackstart-agent", "9.0.0-1", dir.path())
        .await
        .unwrap();
    let bed = raise(&docker, "packages-gate").await;
    let node = bed.node("worker-1").unwrap();
    install(node, &[&packages.file("blackstart-agent").unwrap()]).await;
    node.write(CONFIG, YAML).unwrap();
    node.exec(&["systemctl", "enable", "--now", AGENT, GATE])
        .await
        .unwrap();
    active(node, AGENT).await;

    // A controller manager whose manifest is out, as a cold start leaves it.
    let held = "/etc/kubernetes/blackstart-held/kube-scheduler/kube-scheduler.yaml";
    node.exec(&["install", "-d", "-o", "blackstart", "/etc/kubernetes/manifests"])
        .await
        .unwrap();
    bed.power_loss().await.unwrap();
    bed.power_on().await.unwrap();
    let holding = async || {
        wait::until("the gate to hold", LONG, async || {
            Ok((node.property(GATE, "SubState").await? == "start").then_some(()))
        })
        .await
        .unwrap();
        (
            property(node, GATE, "MainPID").await,
            property(node, GATE, "InvocationID").await,
            property(node, KUBELET, "ActiveState").await,
        )
    };
    let before = holding().await;
    assert_eq!(before.2, "inactive");
    install(node, &[&newer]).await;
    active(node, AGENT).await;
    assert_eq!(holding().await, before, "amid a hold");

    node.exec(&["systemctl", "stop", AGENT]).await.unwrap();
    node.write(held, "a manifest").unwrap();
    node.exec(&["dpkg", "--purge", "blackstart-agent"]).await.unwrap();
    active(node, KUBELET).await;
    assert_eq!(
        node.read("/etc/kubernetes/manifests/kube-scheduler.yaml")
            .unwrap(),
        "a manifest"
    );
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_and_the_command_leave_nothing_but_the_authority() {
    let (Some(docker), Some(packages)) = (Docker::or_skip().await, Packages::or_skip()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let bed = raise(&docker, "packages-coordinator").await;
    let node = bed.node("worker-1").unwrap();
    let before = inventory(node).await;
    let shipped = ["blackstart-coordinator", "blackstart"].map(|package| packages.file(package).unwrap());
    install(node, &[&shipped[0], &shipped[1]]).await;
    node.exec(&["blackstart-coordinator", "init", "--operator", "ann"])
        .await
        .unwrap();
    let inventory_yaml = "/etc/blackstart/inventory.yaml";
    node.exec(&["cp", "/etc/blackstart/inventory.example.yaml", inventory_yaml])
        .await
        .unwrap();
    let unit = "blackstart-coordinator.service";
    node.exec(&["systemctl", "enable", "--now", unit]).await.unwrap();
    active(node, unit).await;
    let pid = property(node, unit, "MainPID").await;
    let newer = packages
        .with_version("blackstart-coordinator", "9.0.0-1", dir.path())
        .await
        .unwrap();
    install(node, &[&newer]).await;
    active(node, unit).await;
    assert_ne!(property(node, unit, "MainPID").await, pid, "the new program");
    for program in ["blackstart", "blackstart-coordinator"] {
        node.exec(&[program, "--version"]).await.unwrap();
    }

    let purge = ["dpkg", "--purge", "blackstart-coordinator", "blackstart"];
    node.exec(&purge).await.unwrap();
    node.exec(&["test", "-s", "/etc/blackstart/pki/ca.key"])
        .await
        .unwrap();
    node.exec(&["rm", "-r", "/etc/blackstart"]).await.unwrap();
    let left = difference(&before, &inventory(node).await);
    assert!(left.is_empty(), "left behind: {left:#?}");
    bed.take_down().await.unwrap();
}

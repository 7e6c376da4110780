//! Memory that runs short, and processors that are busy, on a real node: real units, systemd's own answers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

const AGENT: &str = "blackstart-agent.service";
const HOG: &str = "hog.service";
/// It takes a quarter of a gigabyte when it is started for the first time, or when `/run/hog` was removed: a leak that a restart ends.
const HOG_UNIT: &str = "[Service]\nExecStart=/bin/sh -c 'if mkdir /run/hog; then dd if=/dev/zero bs=256M | sleep infinity; else exec sleep infinity; fi'\n";
const MEMINFO: &str = "/run/node-memory/meminfo";
/// What a node of half a gigabyte has available by its own control group, as lxcfs has it: in a container `/proc/meminfo` is the machine's.
const NODE_MEMORY: &str = r"
mkdir -p /run/node-memory
stat=/sys/fs/cgroup/memory/memory.stat
[ -e $stat ] || stat=/sys/fs/cgroup/memory.stat
while :; do
    while read -r key bytes; do
        case $key in total_rss|anon) used=$((bytes / 1024)) ;; esac
    done < $stat
    printf 'MemTotal: %12d kB\nMemAvailable: %12d kB\n' 524288 $((524288 - used)) 1<> /run/node-memory/meminfo
    sleep 0.2
done
";
const SEES_IT: &str = "[Service]\nBindReadOnlyPaths=/run/node-memory/meminfo:/proc/meminfo\n";
/// No task of the node waits for memory, whatever the machine's do.
const NO_PRESSURE: &str =
    "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
const PRESSURE: &str = "/proc/pressure/memory";

/// For what takes as long as it takes.
const LONG: Duration = Duration::from_mins(3);

/// Waits for a deed of this name that has ended.
async fn deed(node: &Node, remedy: &str) -> Deed {
    let what = format!("{remedy} in the ledger");
    wait::until(&what, LONG, async || {
        let deeds = node.ledger().await?;
        Ok(deeds
            .into_iter()
            .find(|deed| deed.remedy == remedy && deed.succeeded.is_some()))
    })
    .await
    .unwrap()
}

async fn raise(docker: &Docker, name: &str, wish: &Wish) -> Bed {
    let bed = Bed::raise(docker, name, wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    bed
}

#[tokio::test]
async fn under_overload_the_kubelet_and_its_slice_get_more_weight() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let busy = "[Service]\nExecStart=/bin/sh -c 'for n in 1 2 3 4; do (while :; do :; done) & done; wait'\n";
    let wish = Wish {
        agent: |_| {
            Yaml::default().with(
                "load",
                "{raise_per_processor: 1, raise_cpu_some_percent: 1, hold: 1s, cpu_weight: 500, io_weight: 200}",
            )
        },
        units: vec![("busy.service", busy.to_owned())],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "memory-busy", &wish).await;
    let node = bed.node("worker-1").unwrap();
    let deed = deed(node, "protect-units").await;
    assert_eq!(deed.succeeded, Some(true), "{deed:?}");
    // Where both versions of control groups are mounted, the one that has the controllers counts.
    for unit in ["kubelet.service", "system.slice"] {
        let weight = node.property(unit, "CPUWeight").await.unwrap();
        let shares = node.property(unit, "CPUShares").await.unwrap();
        assert!(weight == "500" || shares == "5120", "{unit}: {weight} {shares}");
    }
    // What the kernel has of it, where the controller is the node's.
    for (file, value) in [
        ("/sys/fs/cgroup/system.slice/kubelet.service/cpu.weight", "500"),
        (
            "/sys/fs/cgroup/cpu/system.slice/kubelet.service/cpu.shares",
            "5120",
        ),
    ] {
        if node.path(file).unwrap().exists() {
            assert_eq!(node.read(file).unwrap().trim(), value, "{file}");
        }
    }
    bed.take_down().await.unwrap();
}

/// What stands of this kind.
async fn evidence(node: &Node, kind: &str) -> anyhow::Result<Option<String>> {
    let text = node
        .exec(&["blackstart-agent", "conditions", "--output=json"])
        .await?;
    let told: serde_json::Value = serde_json::from_str(&text)?;
    let items = told["items"].as_array().cloned().unwrap_or_default();
    let found = items.into_iter().find(|item| item["condition"] == kind);
    Ok(found.map(|item| item["evidence"].as_str().unwrap_or_default().to_owned()))
}

async fn stands(node: &Node, kind: &str) -> String {
    wait::until(&format!("{kind} to stand"), LONG, async || {
        evidence(node, kind).await
    })
    .await
    .unwrap()
}

async fn clears(node: &Node, kind: &str) {
    wait::until(&format!("{kind} to be cleared"), LONG, async || {
        Ok(evidence(node, kind).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

/// The node's memory is its own from now on, for the agent too.
async fn own_memory(node: &Node) {
    node.write("/usr/local/bin/node-memory", NODE_MEMORY).unwrap();
    node.exec(&[
        "systemd-run",
        "--unit=node-memory",
        "/bin/sh",
        "/usr/local/bin/node-memory",
    ])
    .await
    .unwrap();
    wait::until("the node's own memory", LONG, async || {
        Ok(node
            .read(MEMINFO)
            .ok()
            .filter(|text| text.contains("MemAvailable")))
    })
    .await
    .unwrap();
    let mut drop_in = SEES_IT.to_owned();
    // Kernels without it are judged by what is available alone.
    if node.path(PRESSURE).unwrap().exists() {
        node.write("/run/node-memory/pressure", NO_PRESSURE).unwrap();
        drop_in = format!("{drop_in}BindReadOnlyPaths=/run/node-memory/pressure:{PRESSURE}\n");
    }
    node.write(
        "/etc/systemd/system/blackstart-agent.service.d/60-memory.conf",
        &drop_in,
    )
    .unwrap();
    node.exec(&["systemctl", "daemon-reload"]).await.unwrap();
    node.exec(&["systemctl", "restart", AGENT]).await.unwrap();
}

#[tokio::test]
async fn the_largest_unit_that_may_be_is_restarted_when_memory_is_short_and_then_somebody_is_told() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            // Long before a node is as short as most would have it.
            Yaml::default().with(
                "memory",
                format!(
                    "{{raise_available_percent: 75, critical_available_percent: 70, clear_available_percent: 85, \
                     may_restart: [{HOG}], restart_hold: 1s, restarts: 1}}"
                ),
            )
        },
        units: vec![(HOG, HOG_UNIT.to_owned())],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "memory-short", &wish).await;
    let node = bed.node("worker-1").unwrap();
    let hog = wait::until("the hog", LONG, async || node.main_pid(HOG).await)
        .await
        .unwrap();
    let kubelet = node.main_pid("kubelet.service").await.unwrap();
    own_memory(node).await;
    let deed = deed(node, "relieve-memory").await;
    assert_eq!(
        (deed.subject.as_str(), deed.succeeded),
        (HOG, Some(true)),
        "{deed:?}"
    );
    assert_ne!(node.main_pid(HOG).await.unwrap(), Some(hog));
    assert_eq!(node.main_pid("kubelet.service").await.unwrap(), kubelet);
    clears(node, "MemoryPressure").await;

    // It takes it again, and may not be restarted again.
    node.exec(&["rmdir", "/run/hog"]).await.unwrap();
    node.exec(&["systemctl", "restart", HOG]).await.unwrap();
    let again = node.main_pid(HOG).await.unwrap();
    let told = stands(node, "RemedyExhausted").await;
    assert!(
        told.starts_with("MemoryPressure") && told.contains("was restarted as often as it may be"),
        "{told}"
    );
    assert_eq!(node.main_pid(HOG).await.unwrap(), again);
    node.exec(&["systemctl", "stop", HOG]).await.unwrap();
    clears(node, "RemedyExhausted").await;
    clears(node, "MemoryPressure").await;
    bed.take_down().await.unwrap();
}

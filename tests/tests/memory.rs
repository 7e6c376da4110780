//! Processors that are busy on a real node: real units, systemd's own answers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

/// For what takes as long as it takes.
const LONG: Duration = Duration::from_mins(2);

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

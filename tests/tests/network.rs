//! The network and the clock of a real node: what is cut is told and restarts nothing; what serves the node is restarted when it does not.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

const LONG: Duration = Duration::from_mins(1);
const CNI: &str = "stand-in-cni.service";

/// Writes the configuration at its start, as flanneld and its kind do.
const CNI_UNIT: &str = r#"[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "mkdir -p /etc/cni/net.d && echo '{\"name\": \"stand-in\", \"type\": \"bridge\"}' > /etc/cni/net.d/10-stand-in.conf"
"#;

fn network() -> Yaml {
    let cni = format!("{{hold: 2s, unit: {CNI}}}");
    Yaml::default().with("network", format!("{{hold: 1s, interval: 500ms, cni: {cni}}}"))
}

async fn raise(docker: &Docker, name: &str, wish: Wish) -> Bed {
    let bed = Bed::raise(docker, name, &wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    bed
}

/// The evidence of what stands of this kind.
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

/// Waits for a restart of `unit` that has ended.
async fn restarted(node: &Node, unit: &str) -> Deed {
    wait::until(&format!("a restart of {unit}"), LONG, async || {
        let deeds = node.ledger().await?;
        Ok(deeds
            .into_iter()
            .find(|deed| deed.subject == unit && deed.succeeded.is_some()))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_node_that_is_cut_off_says_so_and_restarts_nothing_and_a_missing_cni_configuration_comes_back() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |_| network(),
        units: vec![(CNI, CNI_UNIT.to_owned())],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "network", wish).await;
    let node = bed.node("worker-1").unwrap();
    // An internal network of the engine may have one or not.
    node.exec(&["ip", "route", "replace", "default", "dev", "eth0"])
        .await
        .unwrap();
    wait::until("the agent to see the default route", LONG, async || {
        Ok(node.read("/run/blackstart/default-route").ok())
    })
    .await
    .unwrap();

    node.exec(&["ip", "link", "set", "eth0", "down"]).await.unwrap();
    let told = stands(node, "NetworkIsolated").await;
    assert_eq!(
        told,
        "no default route; the last one was by eth0, which is set down"
    );
    node.exec(&["ip", "link", "set", "eth0", "up"]).await.unwrap();
    node.exec(&["ip", "route", "replace", "default", "dev", "eth0"])
        .await
        .unwrap();
    clears(node, "NetworkIsolated").await;
    let deeds = node.ledger().await.unwrap();
    assert!(deeds.is_empty(), "nothing is restarted because of it: {deeds:?}");

    // What a power loss leaves of a file that was not synced.
    node.exec(&["truncate", "--size=0", "/etc/cni/net.d/10-stand-in.conf"])
        .await
        .unwrap();
    let deed = restarted(node, CNI).await;
    assert_eq!(
        (deed.remedy.as_str(), deed.succeeded),
        ("restart-unit", Some(true))
    );
    clears(node, "CniMissing").await;
    assert!(!node.read("/etc/cni/net.d/10-stand-in.conf").unwrap().is_empty());
    bed.take_down().await.unwrap();
}

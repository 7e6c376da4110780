//! The network and the clock of a real node: what is cut is told and restarts nothing; what serves the node is restarted when it does not.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;

const LONG: Duration = Duration::from_mins(3);
const CNI: &str = "stand-in-cni.service";

/// Writes the configuration at its start, as flanneld and its kind do.
const CNI_UNIT: &str = r#"[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "mkdir -p /etc/cni/net.d && echo '{\"name\": \"stand-in\", \"type\": \"bridge\"}' > /etc/cni/net.d/10-stand-in.conf"
"#;

const TIME: &str = "stand-in-time.service";

/// Keeps the clock once it is started and its server answers, as a chronyd that lost its servers for good does.
const TIME_UNIT: &str = r#"[Service]
ExecStart=/bin/sh -c "if [ -e /etc/time-server-answers ]; then echo yes > /run/clock-kept; fi; exec sleep infinity"
"#;
const KEPT: &str = "/run/clock-kept";
const ANSWERS: &str = "/etc/time-server-answers";
const AGENT: &str = "blackstart-agent.service";
const PRELOADED: &str = "/usr/local/lib/clock.so";

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

/// Makes the library that says whether the clock is kept. Nothing, after saying why, where there is no C compiler.
fn clock_library(dir: &Path) -> Option<std::path::PathBuf> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, include_str!("clock.c")).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl");
    let why = match cc.output() {
        Ok(output) if output.status.success() => return Some(library),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(
        !std::env::var("CI").is_ok_and(|ci| ci == "true"),
        "no clock for a node: cc: {why}"
    );
    say(&format!("SKIPPED: no clock for a node: cc: {why}"));
    None
}

/// From the next start on, the agent sees the node's own clock, and has done nothing yet.
async fn begins_anew(node: &Node, library: &Path) {
    node.copy_in(library, PRELOADED).await.unwrap();
    let drop_in = format!("[Service]\nEnvironment=LD_PRELOAD={PRELOADED}\n");
    node.write(
        "/etc/systemd/system/blackstart-agent.service.d/60-clock.conf",
        &drop_in,
    )
    .unwrap();
    node.exec(&["systemctl", "stop", AGENT]).await.unwrap();
    node.exec(&["rm", "-rf", "/var/lib/blackstart/ledger"])
        .await
        .unwrap();
    node.exec(&["systemctl", "daemon-reload"]).await.unwrap();
    node.exec(&["systemctl", "start", AGENT]).await.unwrap();
}

/// What is left of the budget of restarts of `unit`, and what the agent lacks.
async fn budget_and_lacks(node: &Node, unit: &str) -> anyhow::Result<(Option<u64>, usize)> {
    let text = node
        .exec(&["blackstart-agent", "status", "--output=json"])
        .await?;
    let told: serde_json::Value = serde_json::from_str(&text)?;
    let budgets = told["budgets"].as_array().cloned().unwrap_or_default();
    let budget = budgets
        .iter()
        .find(|budget| budget["subject"] == unit && budget["remedy"] == "restart-unit");
    let lacks = told["lacks"].as_array().map_or(0, Vec::len);
    Ok((budget.and_then(|budget| budget["left"].as_u64()), lacks))
}

async fn has_left(node: &Node, unit: &str, expected: u64) {
    let what = format!("{expected} restarts of {unit} to be left");
    wait::until(&what, LONG, async || {
        let (left, lacks) = budget_and_lacks(node, unit).await?;
        Ok((left == Some(expected) && lacks == 0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_time_service_is_restarted_once_when_nobody_keeps_the_clock_and_then_somebody_is_told() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = clock_library(dir.path()) else {
        return;
    };
    let wish = Wish {
        agent: |_| {
            Yaml::default()
                .with(
                    "clock",
                    format!("{{unsynchronised_hold: 2s, services: [chronyd.service, {TIME}]}}"),
                )
                .with("restart", "{window: 3s, backoff_first: 100ms}")
        },
        units: vec![(TIME, TIME_UNIT.to_owned())],
        ..Wish::single(Runs::Agents)
    };
    let bed = raise(&docker, "time-service", wish).await;
    let node = bed.node("worker-1").unwrap();

    // It runs, and a restart is all that it needs.
    node.exec(&["rm", "-f", KEPT]).await.unwrap();
    node.write(ANSWERS, "").unwrap();
    begins_anew(node, &library).await;
    let deed = restarted(node, TIME).await;
    assert_eq!(
        (deed.remedy.as_str(), deed.succeeded),
        ("restart-unit", Some(true)),
        "{deed:?}"
    );
    assert!(deed.reason.starts_with("ClockUnsynchronised"), "{deed:?}");
    clears(node, "ClockUnsynchronised").await;
    has_left(node, TIME, 1).await;

    // Its servers are gone: it is restarted once more, and then left alone.
    node.exec(&["rm", ANSWERS]).await.unwrap();
    node.write(KEPT, "no\n").unwrap();
    let told = stands(node, "RemedyExhausted").await;
    assert!(
        told.starts_with("ClockUnsynchronised")
            && told.contains("1 restarts and 0 kill-restarts did not mend it"),
        "{told}"
    );
    has_left(node, TIME, 0).await;
    let deeds = node.ledger().await.unwrap();
    let restarts = deeds.iter().filter(|deed| deed.remedy == "restart-unit");
    assert_eq!(restarts.count(), 2, "{deeds:?}");

    // Somebody mends it.
    node.write(KEPT, "yes\n").unwrap();
    clears(node, "RemedyExhausted").await;
    clears(node, "ClockUnsynchronised").await;
    bed.take_down().await.unwrap();
}

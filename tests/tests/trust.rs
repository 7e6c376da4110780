//! Who may say what: certificates of the wrong role, of the wrong node and of the wrong authority, against real processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::time::Duration;

use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::TlsFiles;
use blackstart_tests::bed::{Bed, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node;
use blackstart_tests::wait;

const DEADLINE: Duration = Duration::from_mins(3);
const NODES: &[&str] = &["get", "nodes"];

/// A field of a node, as the coordinator knows it.
async fn known(bed: &Bed, node: &str, field: &str) -> anyhow::Result<String> {
    let list = bed.coordinator()?.ask(NODES).await?;
    let nodes = list["items"].as_array().cloned().unwrap_or_default();
    let found = nodes.iter().find(|item| item["name"] == node);
    Ok(found
        .and_then(|item| item[field].as_str())
        .unwrap_or_default()
        .to_owned())
}

async fn becomes(bed: &Bed, node: &str, phase: &str) {
    wait::until(&format!("{node} to be {phase}"), DEADLINE, async || {
        Ok((known(bed, node, "phase").await? == phase).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_speaks_for_its_holder_alone() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = Bed::raise(&docker, "trust", &Wish::fleet(1, 1)).await.unwrap();
    becomes(&bed, "master-1", "ready").await;
    becomes(&bed, "worker-1", "ready").await;
    let coordinator = bed.coordinator().unwrap();
    let pki = bed.dir().join("pki");

    let refused = async |tls: &TlsFiles| coordinator.ask_as(tls, NODES).await.unwrap_err().to_string();
    let as_node = refused(&TlsFiles::in_dir(&pki, "worker-1")).await;
    assert!(
        as_node.contains("permission denied"),
        "a node is no operator: {as_node}"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::create(&elsewhere.path().join("pki"))
        .unwrap()
        .issue_operator("operator")
        .unwrap();
    let ours = pki.join("ca.crt");
    let stranger = refused(&TlsFiles {
        ca: ours,
        ..foreign.clone()
    })
    .await;
    assert!(
        stranger.contains("certificate"),
        "another authority's operator: {stranger}"
    );
    let misled = refused(&foreign).await;
    assert!(
        misled.contains("certificate"),
        "a coordinator of another authority: {misled}"
    );

    // An agent that calls itself by another node's name, with its own certificate.
    let before = known(&bed, "master-1", "boot_id").await.unwrap();
    let config = node::directory(bed.dir(), "worker-1").join("etc/agent.yaml");
    let lie = fs::read_to_string(&config)
        .unwrap()
        .replace("node: worker-1", "node: master-1");
    fs::write(&config, lie).unwrap();
    let liar = bed.node("worker-1").unwrap();
    liar.exec(&["systemctl", "restart", "blackstart-agent.service"])
        .await
        .unwrap();
    wait::until("the liar to be told", DEADLINE, async || {
        let journal = liar.journal("blackstart-agent.service").await?;
        Ok(journal
            .iter()
            .any(|entry| entry.message.contains("certificate is node worker-1"))
            .then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(known(&bed, "master-1", "phase").await.unwrap(), "ready");
    assert_eq!(known(&bed, "master-1", "boot_id").await.unwrap(), before);
    assert_ne!(known(&bed, "worker-1", "phase").await.unwrap(), "ready");
    // It repairs its node all the same.
    assert_eq!(
        liar.property("blackstart-agent.service", "ActiveState")
            .await
            .unwrap(),
        "active"
    );
    bed.take_down().await.unwrap();
}

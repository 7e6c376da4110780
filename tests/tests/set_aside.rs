//! Controller managers and schedulers after a power loss: set aside until the kubelets run. Judged by the nodes' own journals, which
//! share one monotonic clock, and by the files on their disks.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::node::Node;
use blackstart_tests::settings::{Yaml, gate};
use blackstart_tests::topology::Role;
use blackstart_tests::wait;
use serde_json::Value;

const KUBELET: &str = "kubelet.service";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const HELD: &str = "/etc/kubernetes/blackstart-held";
const DEADLINE: Duration = Duration::from_mins(3);
/// Each with its health port.
const PODS: [(&str, u16); 3] = [
    ("etcd", 2381),
    ("kube-controller-manager", 10257),
    ("kube-scheduler", 10259),
];

fn manifest(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: {name}\n    \
         command: [/usr/bin/stand-in-component, --secure-port={port}]\n    \
         livenessProbe: {{httpGet: {{host: 127.0.0.1, path: /healthz, port: {port}}}}}\n"
    )
}

/// Masters whose kubelets run an etcd, a controller manager and a scheduler.
async fn raise(docker: &Docker, name: &str, wish: Wish) -> Bed {
    let wish = Wish {
        programs: vec!["stand-in-component"],
        ..wish
    };
    let bed = Bed::raise(docker, name, &wish).await.unwrap();
    for master in bed.of_role(Role::Master) {
        for (pod, port) in PODS {
            let path = format!("{MANIFESTS}/{pod}.yaml");
            master.write(&path, &manifest(pod, port)).unwrap();
        }
    }
    for master in bed.of_role(Role::Master) {
        for (pod, _) in PODS {
            runs(master, pod).await;
        }
    }
    wait::until("all nodes to be ready", DEADLINE, async || {
        let nodes = items(&bed, &["get", "nodes"]).await?;
        let ready = nodes.iter().filter(|node| node["phase"] == "ready").count();
        Ok((ready == bed.declared().len()).then_some(()))
    })
    .await
    .unwrap();
    bed
}

async fn items(bed: &Bed, what: &[&str]) -> anyhow::Result<Vec<Value>> {
    let list = bed.coordinator()?.ask(what).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until the kubelet of this boot runs a pod.
async fn runs(node: &Node, pod: &str) {
    let kept = format!("/run/stand-in-pods/{pod}/{pod}");
    wait::until(
        &format!("{pod} to run on {}", node.name()),
        DEADLINE,
        async || Ok(node.read(&kept).is_ok().then_some(())),
    )
    .await
    .unwrap();
}

async fn out(node: &Node, pod: &str, expected: bool) {
    let what = format!("the manifest of {pod} on {} to be out: {expected}", node.name());
    wait::until(&what, DEADLINE, async || {
        let held = node.path(&format!("{HELD}/{pod}/{pod}.yaml"))?.exists();
        let placed = node.path(&format!("{MANIFESTS}/{pod}.yaml"))?.exists();
        Ok((held == expected && placed != expected).then_some(()))
    })
    .await
    .unwrap();
}

/// When a node's kubelet said something for the first time in this boot.
async fn said(node: &Node, words: &str) -> Option<u64> {
    let journal = node.journal(KUBELET).await.unwrap();
    let entry = journal.iter().find(|entry| entry.message.contains(words));
    entry.map(|entry| entry.monotonic_us)
}

#[tokio::test]
async fn a_controller_manager_is_set_aside_until_the_kubelets_run() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        coordinator: Yaml::default().with("cold_start", "{fresh: 5s, set_aside: {release_share: 100}}"),
        ..Wish::fleet(3, 1)
    };
    let bed = raise(&docker, "aside", wish).await;
    bed.power_loss().await.unwrap();
    bed.power_on_except(&["worker-1"]).await.unwrap();

    let masters: Vec<_> = bed.of_role(Role::Master).collect();
    bed.kubelets_answer(masters.iter().copied(), DEADLINE)
        .await
        .unwrap();
    for master in &masters {
        runs(master, "etcd").await;
        for (pod, _) in &PODS[1..] {
            out(master, pod, true).await;
        }
        let status = master
            .exec(&["blackstart-agent", "status", "--output=json"])
            .await
            .unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        let aside = status["set_aside"].as_array().unwrap();
        assert_eq!(aside.len(), 2, "{status}");
        assert_eq!(aside[0]["run"], "cold-start-1", "{status}");
    }
    wait::until("the run to wait for the worker's kubelet", DEADLINE, async || {
        let runs = items(&bed, &["get", "runs"]).await?;
        let why = runs[0]["waiting_on"].to_string();
        Ok(why.contains("/kubelets: kubelets of").then_some(()))
    })
    .await
    .unwrap();

    let worker = bed.node("worker-1").unwrap();
    worker.power_on().await.unwrap();
    for master in &masters {
        for (pod, _) in &PODS[1..] {
            runs(master, pod).await;
            out(master, pod, false).await;
        }
    }
    let answered = said(worker, "kubelet answers").await.unwrap();
    for master in &masters {
        let etcd = said(master, "pod etcd is to run").await.unwrap();
        for (pod, _) in &PODS[1..] {
            let began = said(master, &format!("pod {pod} is to run")).await.unwrap();
            assert!(
                etcd < answered && answered < began,
                "{pod} of {} ran from {began} us, the last kubelet from {answered} us",
                master.name()
            );
        }
        let deeds = master.ledger().await.unwrap();
        for (remedy, count) in [
            ("hold-manifest", 2),
            ("release-manifest", 2),
            ("bounce-static-pod", 0),
        ] {
            let done: Vec<_> = deeds.iter().filter(|deed| deed.remedy == remedy).collect();
            assert_eq!(done.len(), count, "{remedy} on {}: {done:?}", master.name());
            assert!(
                done.iter()
                    .all(|deed| deed.succeeded == Some(true) && deed.command_id.is_some())
            );
        }
    }
    wait::until("the cold start to succeed", DEADLINE, async || {
        let runs = items(&bed, &["get", "runs"]).await?;
        Ok((runs[0]["state"] == "succeeded").then_some(()))
    })
    .await
    .unwrap();
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn without_a_coordinator_what_was_set_aside_comes_back_by_itself() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let wish = Wish {
        agent: |node| Yaml::default().with("gate", gate(node, "5s", "25s")),
        coordinator: Yaml::default().with("cold_start", "{fresh: 5s, set_aside: {release_share: 100}}"),
        ..Wish::fleet(1, 1)
    };
    let bed = raise(&docker, "aside-alone", wish).await;
    bed.power_loss().await.unwrap();
    bed.power_on_except(&["worker-1"]).await.unwrap();
    let master = bed.node("master-1").unwrap();
    bed.kubelets_answer([master], DEADLINE).await.unwrap();
    for (pod, _) in &PODS[1..] {
        out(master, pod, true).await;
    }
    bed.coordinator().unwrap().kill().await.unwrap();
    // Over a further power loss.
    master.power_off().await.unwrap();
    master.power_on().await.unwrap();
    bed.kubelets_answer([master], DEADLINE).await.unwrap();
    for (pod, _) in &PODS[1..] {
        out(master, pod, false).await;
        runs(master, pod).await;
    }
    let etcd = said(master, "pod etcd is to run").await.unwrap();
    for (pod, _) in &PODS[1..] {
        let began = said(master, &format!("pod {pod} is to run")).await.unwrap();
        assert!(etcd < began, "{pod} ran from {began} us, etcd from {etcd} us");
    }
    let deeds = master.ledger().await.unwrap();
    let back: Vec<_> = deeds
        .iter()
        .filter(|deed| deed.remedy == "release-manifest")
        .collect();
    assert_eq!(back.len(), 2, "{deeds:?}");
    for deed in back {
        assert!(
            deed.command_id.is_none() && deed.succeeded == Some(true),
            "{deed:?}"
        );
        assert!(deed.reason.contains("no coordinator claims"), "{deed:?}");
    }
    bed.take_down().await.unwrap();
}

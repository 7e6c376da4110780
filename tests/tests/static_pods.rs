//! Static pods on a real node: a kubelet that runs them by their manifests, and an agent that sees and bounces them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::Docker;
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::Node;
use blackstart_tests::settings::Yaml;
use blackstart_tests::topology::Declared;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const HELD: &str = "/etc/kubernetes/blackstart-held";
/// For what takes as long as it takes.
const LONG: Duration = Duration::from_mins(3);

/// What the agents here are told of static pods, with times for people who wait.
fn settings(rest: &str) -> Yaml {
    let components = "[{name: etcd}, {name: kube-scheduler}]";
    Yaml::default().with(
        "static_pods",
        format!(
            "{{interval: 500ms, deadline: 500ms, failures_to_raise: 3, start_grace: 2s, components: {components}, {rest}}}"
        ),
    )
}

fn manifest(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: kube-system}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: {name}\n    \
         command: [/usr/bin/stand-in-component, --secure-port={port}]\n    \
         livenessProbe: {{httpGet: {{host: 127.0.0.1, path: /healthz, port: {port}}}}}\n"
    )
}

/// A node with an agent and a static pod, etcd by its name, that runs.
async fn raise(docker: &Docker, name: &str, agent: fn(&Declared) -> Yaml) -> (Bed, Pid) {
    let wish = Wish {
        agent,
        programs: vec!["stand-in-component"],
        ..Wish::single(Runs::Agents)
    };
    let bed = Bed::raise(docker, name, &wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    node.write(&format!("{MANIFESTS}/etcd.yaml"), &manifest("etcd", 2381))
        .unwrap();
    let pid = runs(node, "etcd", None).await;
    (bed, pid)
}

/// Waits for a static pod's process, another one than `old`.
async fn runs(node: &Node, pod: &str, old: Option<Pid>) -> Pid {
    let what = format!("{pod} to run");
    wait::until(&what, LONG, async || {
        let Some(inner) = process(node, pod) else {
            return Ok(None);
        };
        Ok(node.pid_outside(inner)?.filter(|pid| Some(*pid) != old))
    })
    .await
    .unwrap()
}

/// The process that the kubelet keeps for a pod, by the node's own number.
fn process(node: &Node, pod: &str) -> Option<i32> {
    let kept = node.read(&format!("/run/stand-in-pods/{pod}/{pod}")).ok()?;
    kept.split_whitespace().next()?.parse().ok()
}

/// Waits until a condition stands, or does not.
async fn stands(node: &Node, condition: &str, subject: &str, expected: bool) -> String {
    let what = format!("{condition} {subject}: {expected}");
    wait::until(&what, LONG, async || {
        let list = conditions(node).await?;
        let found = list
            .iter()
            .find(|one| one["condition"] == condition && one["subject"] == subject);
        Ok((found.is_some() == expected).then(|| {
            let evidence = found.and_then(|found| found["evidence"].as_str());
            evidence.unwrap_or_default().to_owned()
        }))
    })
    .await
    .unwrap()
}

async fn conditions(node: &Node) -> anyhow::Result<Vec<serde_json::Value>> {
    let text = node
        .exec(&["blackstart-agent", "conditions", "--output=json"])
        .await?;
    let told: serde_json::Value = serde_json::from_str(&text)?;
    Ok(told["items"].as_array().cloned().unwrap_or_default())
}

async fn bounces(node: &Node) -> anyhow::Result<Vec<Deed>> {
    let deeds = node.ledger().await?.into_iter();
    Ok(deeds.filter(|deed| deed.remedy == "bounce-static-pod").collect())
}

fn exists(node: &Node, path: &str) -> bool {
    node.path(path).unwrap().exists()
}

#[tokio::test]
async fn a_component_that_hangs_is_bounced_and_what_is_wrong_with_other_manifests_is_told() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let agent = |_: &Declared| settings("out_at_least: 3s");
    let (bed, hung) = raise(&docker, "static-hang", agent).await;
    let node = bed.node("worker-1").unwrap();
    let at = |file: &str| format!("{MANIFESTS}/{file}");
    node.write(&at("broken.yaml"), "kind: Pod\nmetadata: [").unwrap();
    node.write(&at("scheduler.yaml"), &manifest("kube-scheduler", 10259))
        .unwrap();
    let scheduler = runs(node, "kube-scheduler", None).await;
    let told = stands(node, "StaticPodManifestInvalid", &at("broken.yaml"), true).await;
    assert!(told.contains("not a pod"), "{told}");

    kill(hung, Signal::SIGSTOP).unwrap();
    let told = stands(node, "ControlPlaneComponentDown", "etcd", true).await;
    assert!(told.contains("does not answer in time"), "{told}");
    let out = format!("{HELD}/etcd/etcd.yaml");
    wait::until("the manifest to be out", LONG, async || {
        Ok(exists(node, &out).then_some(()))
    })
    .await
    .unwrap();
    let begun = bounces(node).await.unwrap();
    assert_eq!(begun.len(), 1, "the intent is there before the act");
    assert_eq!((begun[0].subject.as_str(), begun[0].succeeded), ("etcd", None));
    let ended = wait::until("the bounce to end", LONG, async || {
        let all = bounces(node).await?;
        Ok(all.into_iter().find(|deed| deed.succeeded.is_some()))
    })
    .await
    .unwrap();
    assert_eq!(ended.succeeded, Some(true), "{ended:?}");
    runs(node, "etcd", Some(hung)).await;
    assert!(exists(node, &at("etcd.yaml")) && !exists(node, &out));
    stands(node, "ControlPlaneComponentDown", "etcd", false).await;
    assert_eq!(
        runs(node, "kube-scheduler", None).await,
        scheduler,
        "the others were left alone"
    );

    node.exec(&["rm", &at("scheduler.yaml")]).await.unwrap();
    stands(node, "StaticPodManifestMissing", "kube-scheduler", true).await;
    assert_eq!(bounces(node).await.unwrap().len(), 1);
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_dies_while_a_manifest_is_out_puts_it_back_when_it_comes_again() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let agent = |_: &Declared| settings("out_at_least: 10m, gone_deadline: 20m");
    let (bed, hung) = raise(&docker, "static-crash", agent).await;
    let node = bed.node("worker-1").unwrap();
    stands(node, "ControlPlaneComponentDown", "etcd", false).await;
    kill(hung, Signal::SIGSTOP).unwrap();
    let out = format!("{HELD}/etcd/etcd.yaml");
    wait::until("the manifest to be out", LONG, async || {
        Ok(exists(node, &out).then_some(()))
    })
    .await
    .unwrap();
    let main = wait::until("the agent's process", LONG, async || node.main_pid(AGENT).await);
    kill(main.await.unwrap(), Signal::SIGKILL).unwrap();
    wait::until("the manifest to be back", LONG, async || {
        let back = exists(node, &format!("{MANIFESTS}/etcd.yaml")) && !exists(node, &out);
        Ok(back.then_some(()))
    })
    .await
    .unwrap();
    runs(node, "etcd", Some(hung)).await;
    let ended = wait::until("an outcome in the ledger", LONG, async || {
        let all = bounces(node).await?;
        Ok(all.into_iter().find(|deed| deed.succeeded.is_some()))
    })
    .await
    .unwrap();
    assert_eq!(ended.succeeded, Some(false));
    assert!(ended.detail.contains("was moved back"), "{}", ended.detail);
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn nothing_is_bounced_while_the_kubelet_is_down() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    // The kubelet is nobody's to restart here.
    let agent = |_: &Declared| {
        settings("out_at_least: 1s")
            .with("units", "[]")
            .with("metrics", "{listen: \"127.0.0.1:9469\"}")
    };
    let (bed, pod) = raise(&docker, "static-down", agent).await;
    let node = bed.node("worker-1").unwrap();
    stands(node, "ControlPlaneComponentDown", "etcd", false).await;
    let kubelet = wait::until("the kubelet's process", LONG, async || {
        node.main_pid(KUBELET).await
    });
    kill(kubelet.await.unwrap(), Signal::SIGKILL).unwrap();
    wait::until("the kubelet to be down", LONG, async || {
        let state = node.property(KUBELET, "ActiveState").await?;
        Ok((state == "failed").then_some(()))
    })
    .await
    .unwrap();
    kill(pod, Signal::SIGSTOP).unwrap();

    // Three looks are enough while the kubelet is well.
    let begun = looks(node).await.unwrap();
    wait::until("twenty looks at the pods", LONG, async || {
        Ok((looks(node).await? >= begun + 20).then_some(()))
    })
    .await
    .unwrap();
    let standing = conditions(node).await.unwrap();
    let down = |one: &serde_json::Value| one["condition"] == "ControlPlaneComponentDown";
    assert!(!standing.iter().any(down), "{standing:?}");
    assert!(bounces(node).await.unwrap().is_empty());

    // It takes over what runs, and then it is the pod that is at fault.
    node.exec(&["systemctl", "start", KUBELET]).await.unwrap();
    runs(node, "etcd", Some(pod)).await;
    assert_eq!(bounces(node).await.unwrap().len(), 1);
    bed.take_down().await.unwrap();
}

/// So many times the agent has looked at its static pods.
async fn looks(node: &Node) -> anyhow::Result<u64> {
    let script =
        "exec 3<>/dev/tcp/127.0.0.1/9469 && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3";
    let page = node.exec(&["bash", "-c", script]).await?;
    let line = page
        .lines()
        .find(|line| line.starts_with("blackstart_agent_signals_total") && line.contains("static-pods"));
    let count = line.and_then(|line| line.rsplit(' ').next());
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or_default())
}

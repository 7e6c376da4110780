//! The agent in a container beside a node, as deploy/kubernetes/agent-daemonset.yaml runs it: the node's processes, network, D-Bus socket and
//! logs under their own names, the same capabilities, a read-only root, and nothing else.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::time::Duration;

use anyhow::Context;
use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::coordinator::program;
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::node::Node;
use blackstart_tests::settings::{self, Yaml};
use blackstart_tests::{image, wait};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const NAME: &str = "daemonset";
const AGENT: &str = "blackstart-daemonset-agent";
const IMAGE: &str = "blackstart-daemonset-agent:test";
const BUS: &str = "blackstart-daemonset-bus";
const LOGS: &str = "blackstart-daemonset-logs";
const STATE: &str = "blackstart-daemonset-state";
const KUBELET: &str = "kubelet.service";
const LONG: Duration = Duration::from_mins(3);
const CAPABILITIES: [&str; 5] = ["DAC_OVERRIDE", "SYS_PTRACE", "SYSLOG", "KILL", "FOWNER"];

/// What an earlier run, or this one, left.
async fn sweep(docker: &Docker) {
    for args in [
        &["rm", "--force", AGENT][..],
        &["volume", "rm", "--force", BUS, LOGS, STATE],
        &["rmi", "--force", IMAGE],
    ] {
        if let Err(error) = docker.run(args).await {
            say(&format!("{args:?}: {error}"));
        }
    }
}

/// From the shipped Dockerfile, without a network, on the nodes' own image.
async fn build(docker: &Docker) -> anyhow::Result<()> {
    let base = image::ensure(docker).await?;
    let context = tempfile::tempdir()?;
    fs::copy(
        program("blackstart-agent")?,
        context.path().join("blackstart-agent"),
    )?;
    fs::write(
        context.path().join("Dockerfile"),
        include_str!("../../deploy/Dockerfile.agent"),
    )?;
    let (base, context) = (format!("BASE={base}"), context.path().display().to_string());
    let args = [
        "build",
        "--network=none",
        "--build-arg",
        &base,
        "-t",
        IMAGE,
        &context,
    ];
    docker
        .run_within(LONG, args, &[])
        .await
        .context("build the agent's image")?;
    Ok(())
}

/// Runs it beside the node; its configuration is in `etc`.
async fn run_agent(docker: &Docker, node: &Node, etc: &str) -> anyhow::Result<()> {
    let container = node.container();
    let mut args: Vec<String> = [
        "run",
        "--detach",
        "--name",
        AGENT,
        "--read-only",
        "--security-opt=no-new-privileges",
        "--security-opt=apparmor=unconfined",
        "--cap-drop=ALL",
        "--tmpfs=/run/blackstart",
    ]
    .map(str::to_owned)
    .into();
    args.extend(CAPABILITIES.map(|capability| format!("--cap-add={capability}")));
    args.extend([
        format!("--pid=container:{container}"),
        format!("--network=container:{container}"),
        format!("--volume={etc}:/etc/blackstart:ro"),
        format!("--volume={BUS}:/run/dbus:ro"),
        format!("--volume={LOGS}:/data/logs"),
        format!("--volume={STATE}:/var/lib/blackstart"),
        IMAGE.to_owned(),
    ]);
    docker.run(args).await?;
    Ok(())
}

async fn ask(docker: &Docker, question: &str) -> anyhow::Result<Value> {
    let args = ["exec", AGENT, "blackstart-agent", question, "-o", "json"];
    Ok(serde_json::from_str(&docker.run(args).await?)?)
}

/// Waits for a remedy of this name that succeeded.
async fn done(docker: &Docker, remedy: &str) {
    wait::until(&format!("{remedy} to succeed"), LONG, async || {
        let told = ask(docker, "remedies").await?;
        let succeeded = told["items"].as_array().is_some_and(|items| {
            items
                .iter()
                .any(|item| item["remedy"] == remedy && item["outcome"] == "succeeded")
        });
        Ok(succeeded.then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_agent_in_a_container_mends_its_node() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    sweep(&docker).await;
    let tmpfs = [
        "volume",
        "create",
        "--opt=type=tmpfs",
        "--opt=device=tmpfs",
        "--opt=o=size=512m",
        LOGS,
    ];
    docker.run(tmpfs).await.unwrap();
    let wish = Wish {
        programs: vec!["log-writer"],
        volumes: vec![
            (BUS.to_owned(), "/run/dbus".to_owned()),
            (LOGS.to_owned(), "/data/logs".to_owned()),
        ],
        ..Wish::single(Runs::Kubelets)
    };
    let bed = Bed::raise(&docker, NAME, &wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    let node = bed.node("worker-1").unwrap();
    let etc = bed.dir().join("daemonset");
    fs::create_dir_all(&etc).unwrap();
    let over = Yaml::default()
        .with("disks", "[{mount_point: /data/logs}]")
        .with("boot_id_file", "/proc/sys/kernel/random/boot_id")
        // That of the image's own is nobody's.
        .with("prune", "{journal: /data/logs/journal}")
        .with("logs", "{globs: [\"/data/logs/**\"], keep_tail: 16MiB}");
    let yaml = settings::agent(&bed.declared()[0], None).render(&over);
    fs::write(etc.join("agent.yaml"), yaml).unwrap();
    build(&docker).await.unwrap();
    run_agent(&docker, node, &etc.display().to_string())
        .await
        .unwrap();

    let told = wait::until("the agent to say what it lacks", LONG, async || {
        let status = ask(&docker, "status").await?;
        let lacks = status["lacks"].as_array().cloned().unwrap_or_default();
        let words: Vec<_> = lacks
            .iter()
            .map(|lack| {
                let word = |name: &str| lack[name].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", word("function"), word("missing"))
            })
            .collect();
        Ok((!words.is_empty()).then_some(words))
    })
    .await;
    if told.is_err() {
        say(&docker.run(["logs", AGENT]).await.unwrap_or_default());
    }
    assert_eq!(
        told.unwrap(),
        [
            "read the kernel's log: missing the device /dev/kmsg",
            "hold the kubelet at boot: runs in a container"
        ]
    );

    let old = node.main_pid(KUBELET).await.unwrap().unwrap();
    kill(old, Signal::SIGKILL).unwrap();
    wait::until("another kubelet to run", LONG, async || {
        Ok(node.main_pid(KUBELET).await?.filter(|new| *new != old))
    })
    .await
    .unwrap();
    done(&docker, "restart-unit").await;

    let write = [
        "log-writer",
        "/data/logs/app.log",
        "--seconds=20",
        "--rate=50000000",
        "--append",
    ];
    let answer = node.exec_within(LONG, &write).await.unwrap();
    say(&answer);
    let report: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&report["error"], &report["tail"]),
        (&Value::Null, &"whole".into())
    );
    done(&docker, "reclaim-log").await;

    docker.run(["rm", "--force", AGENT]).await.unwrap();
    bed.take_down().await.unwrap();
    sweep(&docker).await;
}

//! The agent as it is shipped: as user `blackstart`, in its hardened unit, with polkit's rule; and with less than that.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use blackstart_tests::bed::{Bed, POLKIT_RULE_PATH, Runs, Wish};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::ledger::Deed;
use blackstart_tests::node::{DISK, Node};
use blackstart_tests::records::MIB;
use blackstart_tests::settings::Yaml;
use blackstart_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const KUBELET: &str = "kubelet.service";
const AGENT: &str = "blackstart-agent.service";
const LONG: Duration = Duration::from_mins(3);
/// What docs/security.md promises.
const MOST_EXPOSURE: f64 = 4.0;
/// The shipped unit's, less the one that shows who has which file open.
const WITHOUT_PTRACE: &str = "[Service]\nAmbientCapabilities=\nAmbientCapabilities=CAP_DAC_OVERRIDE CAP_SYSLOG CAP_KILL CAP_FOWNER\n\
    CapabilityBoundingSet=\nCapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SYSLOG CAP_KILL CAP_FOWNER\n";
const DROP_IN: &str = "/etc/systemd/system/blackstart-agent.service.d/60-test.conf";

async fn raise(docker: &Docker, name: &str) -> Bed {
    let wish = Wish {
        disk_bytes: 512 * MIB,
        programs: vec!["log-writer"],
        agent: |_| Yaml::default().with("prune", "{journal_keep: 16MiB}"),
        ..Wish::single(Runs::Agents)
    };
    let bed = Bed::raise(docker, name, &wish).await.unwrap();
    bed.kubelets_answer(bed.nodes(), LONG).await.unwrap();
    bed
}

async fn ask(node: &Node, question: &str) -> anyhow::Result<Value> {
    let text = node.exec(&["blackstart-agent", question, "-o", "json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// What the agent says it lacks, once it says exactly this.
async fn lacks(node: &Node, expected: &[&str]) {
    let what = format!("the agent to lack {expected:?}");
    let mut last = Vec::new();
    let found = wait::until(&what, LONG, async || {
        let status = ask(node, "status").await?;
        last = status["lacks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lack| {
                let word = |name: &str| lack[name].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", word("function"), word("missing"))
            })
            .collect();
        Ok((last == expected).then_some(()))
    });
    let found = found.await;
    assert!(found.is_ok(), "it lacks {last:?}, not {expected:?}");
}

async fn kill_kubelet(node: &Node) -> Pid {
    let running = wait::until("a kubelet", LONG, async || node.main_pid(KUBELET).await);
    let old = running.await.unwrap();
    kill(old, Signal::SIGKILL).unwrap();
    old
}

async fn comes_back(node: &Node, old: Pid) {
    wait::until("another kubelet to run", LONG, async || {
        Ok(node.main_pid(KUBELET).await?.filter(|new| *new != old))
    })
    .await
    .unwrap();
}

/// Waits for a deed of this name that succeeded.
async fn done(node: &Node, remedy: &str) -> Deed {
    wait::until(&format!("{remedy} to succeed"), LONG, async || {
        let mut deeds = node.ledger().await?.into_iter();
        Ok(deeds.find(|deed| deed.remedy == remedy && deed.succeeded == Some(true)))
    })
    .await
    .unwrap()
}

/// A runaway log of somebody else's, until its writer is done; the disk never fills.
async fn log(node: &Node, how: &[&str]) {
    let file = format!("{DISK}/app/app.log");
    let mut command = how.to_vec();
    command.extend(["log-writer", file.as_str(), "--seconds=20", "--append"]);
    if how.contains(&"setpriv") {
        command.push("--delete");
    }
    let answer = node.exec_within(LONG, &command).await.unwrap();
    say(&answer);
    let report: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&report["error"], &report["tail"]),
        (&Value::Null, &"whole".into())
    );
}

#[tokio::test]
async fn the_shipped_unit_does_all_of_it_as_an_unprivileged_user() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = raise(&docker, "privileges-shipped").await;
    let node = bed.node("worker-1").unwrap();
    let pid = node.property(AGENT, "MainPID").await.unwrap();
    let user = node.exec(&["ps", "-o", "user=", "-p", &pid]).await.unwrap();
    assert!(
        "blackstart".starts_with(user.trim_end_matches('+')),
        "it runs as {user}"
    );
    lacks(node, &[]).await;

    let told = node.exec(&["systemd-analyze", "security", AGENT]).await.unwrap();
    let overall = told
        .lines()
        .find(|line| line.contains("Overall exposure"))
        .unwrap();
    say(overall);
    let exposure: f64 = overall
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    assert!(exposure <= MOST_EXPOSURE, "{told}");

    let old = kill_kubelet(node).await;
    comes_back(node, old).await;
    assert_eq!(done(node, "restart-unit").await.subject, KUBELET);

    // A journal with archives; they go when the disk comes under pressure for the first time.
    let much = "head -c 20M /dev/urandom | base64 -w 700 | systemd-cat -t much";
    node.exec(&["sh", "-c", much]).await.unwrap();
    node.exec(&["journalctl", "--rotate"]).await.unwrap();
    let archives = async || {
        let find = ["find", "/var/log/journal", "-name", "*@*.journal"];
        anyhow::Ok(node.exec(&find).await?.lines().count())
    };
    let before = archives().await.unwrap();

    // Of root, and then one of nobody that is deleted and held open.
    log(node, &[]).await;
    done(node, "reclaim-log").await;
    node.exec(&["rm", "-rf", &format!("{DISK}/app")]).await.unwrap();
    let app = format!("{DISK}/app");
    node.exec(&["install", "-d", "-o", "nobody", &app]).await.unwrap();
    let nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    log(node, &nobody).await;

    // On a disk that something else has filled.
    let ballast = format!("{DISK}/ballast");
    node.exec(&["fallocate", "-l", "420MiB", &ballast]).await.unwrap();
    wait::until("archived journals to go", LONG, async || {
        Ok((archives().await? < before).then_some(()))
    })
    .await
    .unwrap();
    done(node, "vacuum-journal").await;
    bed.take_down().await.unwrap();
}

#[tokio::test]
async fn what_is_missing_is_said_and_the_rest_works() {
    let Some(docker) = Docker::or_skip().await else {
        return;
    };
    let bed = raise(&docker, "privileges-less").await;
    let node = bed.node("worker-1").unwrap();
    let restart_agent = async || {
        node.exec(&["systemctl", "daemon-reload"]).await.unwrap();
        node.exec(&["systemctl", "restart", AGENT]).await.unwrap();
    };
    node.write(DROP_IN, WITHOUT_PTRACE).unwrap();
    restart_agent().await;
    lacks(node, &["see who writes a log: missing CAP_SYS_PTRACE"]).await;
    let said = node.journal(AGENT).await.unwrap();
    let at_start = said
        .iter()
        .find(|entry| entry.message.contains("not possible with these privileges"));
    let message = &at_start.unwrap().message;
    assert!(
        message.contains("CAP_SYS_PTRACE") && message.contains("systemctl edit"),
        "{message}"
    );
    let old = kill_kubelet(node).await;
    comes_back(node, old).await;
    log(node, &[]).await;
    done(node, "reclaim-log").await;

    // And without the rule of polkit.
    node.exec(&["rm", DROP_IN]).await.unwrap();
    node.exec(&["umount", POLKIT_RULE_PATH]).await.unwrap();
    node.exec(&["systemctl", "restart", "polkit.service"])
        .await
        .unwrap();
    restart_agent().await;
    lacks(node, &["restart kubelet.service: missing a polkit rule"]).await;
    let before = node.ledger().await.unwrap().len();
    let old = kill_kubelet(node).await;
    wait::until("the dead kubelet to be told", LONG, async || {
        let status = ask(node, "status").await?;
        let waits = status["waiting_on"].as_str().unwrap_or_default();
        let conditions = ask(node, "conditions").await?;
        let told = conditions["items"]
            .as_array()
            .is_some_and(|items| items.iter().any(|item| item["escalated"] == true));
        Ok((told && waits.contains("missing a polkit rule")).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(
        node.ledger().await.unwrap().len(),
        before,
        "nothing was attempted in vain"
    );

    // Somebody installs it: the agent finds out by itself.
    let rule = include_str!("../../deploy/polkit/50-blackstart.rules");
    node.write("/etc/polkit-1/rules.d/40-blackstart.rules", rule)
        .unwrap();
    node.exec(&["chmod", "644", "/etc/polkit-1/rules.d/40-blackstart.rules"])
        .await
        .unwrap();
    comes_back(node, old).await;
    lacks(node, &[]).await;
    bed.take_down().await.unwrap();
}

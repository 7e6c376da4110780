//! docs/install.md, typed on fresh machines: a coordinator's, three masters' and two workers'. What it makes comes back from a power loss, and from
//! one that lasted until every certificate had ended, with a clock that is a year behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_tests::bed::{Bed, Runs, Wish};
use blackstart_tests::docker::{Docker, say};
use blackstart_tests::node::Node;
use blackstart_tests::packages::{Packages, forget};
use blackstart_tests::topology::Topology;
use blackstart_tests::wait;
use serde_json::Value;

const GUIDE: &str = include_str!("../../docs/install.md");
/// More is no installation of ten minutes.
const MOST_COMMANDS: usize = 9;
const LONG: Duration = Duration::from_mins(3);
/// The guide's machines, in the order of its inventory, and the coordinator's.
const NODES: [(&str, &str); 5] = [
    ("master-1", "10.128.38.1"),
    ("master-2", "10.128.38.2"),
    ("master-3", "10.128.38.3"),
    ("worker-1", "10.128.38.4"),
    ("worker-2", "10.128.38.5"),
];
const COORDINATOR: (&str, &str) = ("worker-3", "10.128.38.100");

/// The commands that the guide has for a role, in their order; one with a here-document is one.
fn commands(role: &str) -> Vec<String> {
    let begin = format!("```sh {role}");
    let mut found: Vec<String> = Vec::new();
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        if line != begin {
            continue;
        }
        let mut document = false;
        for line in lines.by_ref().take_while(|line| *line != "```") {
            match found.last_mut() {
                Some(last) if document => {
                    last.push('\n');
                    last.push_str(line);
                }
                _ => found.push(line.to_owned()),
            }
            document = (document || line.contains("<<'END'")) && line != "END";
        }
    }
    found
}

/// Types a command in root's home directory; what it said, on both ways.
async fn types(node: &Node, command: &str) -> anyhow::Result<String> {
    say(&format!("{}# {command}", node.name()));
    let line = format!("cd /root && {{ {command}\n}} 2>&1");
    node.exec_within(LONG, &["sh", "-c", &line]).await
}

/// A machine with the packages that it is to have in root's home directory, and nothing else of Blackstart.
async fn fresh(node: &Node, packages: &[PathBuf]) {
    forget(node).await.unwrap();
    for package in packages {
        let name = package.file_name().unwrap().to_str().unwrap();
        std::fs::copy(package, node.path(&format!("/root/{name}")).unwrap()).unwrap();
    }
}

/// What is peculiar to the testbed: boots are told in a file, no runtime, and API servers that speak no TLS.
async fn accommodate(node: &Node, file: &str, lines: &str) {
    let script = format!(
        "sed -i 's/^api_server:.*/api_server: {{https: false, interval: 500ms, deadline: 1s}}/' {file} && printf '{lines}' >>{file}"
    );
    node.exec(&["sh", "-c", &script]).await.unwrap();
}

async fn ask(node: &Node, question: &str) -> anyhow::Result<Value> {
    let answer = node
        .exec(&["sh", "-c", &format!("blackstart {question} -o json")])
        .await?;
    Ok(serde_json::from_str(&answer)?)
}

/// Waits until every node is as expected.
async fn all(node: &Node, what: &str, expected: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let seen = wait::until(&format!("all nodes {what}"), LONG, async || {
        last = ask(node, "get nodes").await?;
        let items = last["items"].as_array().cloned().unwrap_or_default();
        Ok((items.len() == NODES.len() && items.iter().all(&expected)).then_some(()))
    })
    .await;
    assert!(seen.is_ok(), "{seen:?}: {last:#}");
}

fn findings(report: &Value, level: &str) -> Vec<String> {
    let found = report["findings"].as_array().unwrap().iter();
    found
        .filter(|finding| finding["level"] == level)
        .map(|finding| format!("{} {}: {}", finding["check"], finding["subject"], finding["what"]))
        .collect()
}

/// What the doctor says; its exit code is 1 if something is wrong, which is not the question here.
async fn doctor(node: &Node) -> Value {
    let answer = node
        .exec(&["sh", "-c", "blackstart doctor -o json 2>/dev/null || true"])
        .await
        .unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_guide_asks_for_fewer_than_ten_commands_a_role() {
    for role in ["coordinator", "node"] {
        let commands = commands(role);
        assert!(
            (3..=MOST_COMMANDS).contains(&commands.len()),
            "{role}: {commands:#?}"
        );
    }
}

/// What is typed on each node. `join` is the line that was printed for it.
async fn joins(bed: &Bed, here: &impl Fn(&str) -> String, join: &str) {
    for (name, _) in NODES {
        let node = bed.node(name).unwrap();
        let kubelet = node.main_pid("kubelet.service").await.unwrap();
        for command in commands("node") {
            if command.contains(" join ") {
                let word = |after: &str| {
                    let (_, rest) = join.split_once(after).unwrap();
                    rest.split_whitespace().next().unwrap().to_owned()
                };
                let meant = here(&command)
                    .replace("TOKEN", &word("--token "))
                    .replace("sha256:HASH", &word("--ca-hash "));
                assert_eq!(meant, join, "the guide has what `token create` prints");
                types(node, join).await.unwrap();
                let yaml = "/etc/blackstart/agent.yaml";
                let lines = "boot_id_file: /run/boot_id\\nload: {protect: false}\\npreflight: {container_runtimes: [], etcd_data: []}\\n";
                accommodate(node, yaml, lines).await;
                continue;
            }
            types(node, &command).await.unwrap();
        }
        assert_eq!(
            node.main_pid("kubelet.service").await.unwrap(),
            kubelet,
            "{name}: its kubelet goes on"
        );
        let status = node
            .exec(&["blackstart-agent", "status", "-o", "json"])
            .await
            .unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["node"], name);
    }
}

/// What it is all for. `nth` power loss of this fleet.
async fn comes_back(bed: &Bed, coordinator: &Node, nth: usize) {
    let boots = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|node| node["boot_id"].to_string()).collect()
    };
    let before = boots(&ask(coordinator, "get nodes").await.unwrap());
    bed.power_loss().await.unwrap();
    bed.power_on().await.unwrap();
    all(coordinator, "to be ready in another boot", |node| {
        node["phase"] == "ready" && !before.contains(&node["boot_id"].to_string())
    })
    .await;
    wait::until("the end of its cold start", LONG, async || {
        let runs = ask(coordinator, "get runs").await?;
        let runs = runs["items"].as_array().cloned().unwrap_or_default();
        assert!(runs.len() <= nth, "one cold start for each: {runs:#?}");
        let ended = runs.iter().filter(|run| run["state"] == "succeeded").count();
        Ok((ended == nth).then_some(()))
    })
    .await
    .unwrap();
    in_order(bed).await;
}

/// No worker's kubelet began before those of a quorum of masters had.
async fn in_order(bed: &Bed) {
    // One kernel, so one clock.
    let (mut masters, mut workers) = (Vec::new(), Vec::new());
    for (name, _) in NODES {
        let node = bed.node(name).unwrap();
        let at = node.property("kubelet.service", "ActiveEnterTimestampMonotonic");
        let at: u64 = at.await.unwrap().parse().unwrap();
        let those = if name.starts_with("master") {
            &mut masters
        } else {
            &mut workers
        };
        those.push(at);
    }
    masters.sort_unstable();
    let (quorum, first) = (masters[masters.len() / 2], workers.iter().min().unwrap());
    assert!(
        0 < masters[0] && quorum < *first,
        "kubelets of masters began at {masters:?}, of workers at {workers:?}"
    );
}

/// So long the fleet is dark: longer than a certificate of ninety days is good for, and less than the grace after its end.
const DARK_DAYS: i64 = 100;
/// The node whose battery died.
const WRONG_CLOCK: &str = "worker-2";

/// From its next start on a unit's clock is off by so many days. The machine's own is everybody's, and cannot be set.
async fn shift_clock(node: &Node, unit: &str, days: i64) {
    let preload = node
        .exec(&["sh", "-c", "echo /usr/lib/*/faketime/libfaketimeMT.so.1"])
        .await
        .unwrap();
    let drop_in = format!(
        "[Service]\nEnvironment=LD_PRELOAD={preload} FAKETIME={days:+}d FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n"
    );
    let path = format!("/etc/systemd/system/{unit}.service.d/90-clock.conf");
    node.write(&path, &drop_in).unwrap();
}

/// The certificate that the coordinator last gave each node: its number and its end.
async fn certificates(coordinator: &Node) -> BTreeMap<String, (String, String)> {
    let listed = ask(coordinator, "certificate list").await.unwrap();
    let items = listed["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            (text("node"), (text("serial"), text("ends_at")))
        })
        .collect()
}

/// Dark for so long that no node's certificate is good any more; and one node's clock shows last year.
async fn comes_back_after_months(bed: &Bed, coordinator: &Node) {
    let before = certificates(coordinator).await;
    shift_clock(coordinator, "blackstart-coordinator", DARK_DAYS).await;
    for (name, _) in NODES {
        let node = bed.node(name).unwrap();
        // As an agent keeps it whose clock is kept, which the testbed's is not.
        node.exec(&["sh", "-c", "date +%s >/var/lib/blackstart/clock-floor && sync"])
            .await
            .unwrap();
        let days = if name == WRONG_CLOCK {
            DARK_DAYS - 365
        } else {
            DARK_DAYS
        };
        for unit in ["blackstart-agent", "blackstart-gate"] {
            shift_clock(node, unit, days).await;
        }
    }
    comes_back(bed, coordinator, 2).await;
    let after = certificates(coordinator).await;
    for (name, _) in NODES {
        assert!(
            before[name].0 != after[name].0 && before[name].1 < after[name].1,
            "{name} has {:?}, before the outage {:?}",
            after[name],
            before[name]
        );
    }
    // And it is named, and nobody else.
    let conditions = ask(coordinator, "get conditions").await.unwrap();
    let items = conditions["items"].as_array().unwrap().iter();
    let behind: Vec<_> = items.filter(|item| item["condition"] == "ClockBehind").collect();
    assert!(
        behind.len() == 1 && behind[0]["node"] == WRONG_CLOCK,
        "{conditions:#}"
    );
    let found = doctor(coordinator).await;
    let named = [findings(&found, "wrong"), findings(&found, "warning")].concat();
    assert!(
        named
            .iter()
            .any(|finding| finding.contains("ClockBehind") && finding.contains(WRONG_CLOCK)),
        "{named:#?}"
    );
    // Once it is set right nothing of it is left.
    let node = bed.node(WRONG_CLOCK).unwrap();
    shift_clock(node, "blackstart-agent", DARK_DAYS).await;
    node.exec(&["systemctl", "daemon-reload"]).await.unwrap();
    node.exec(&["systemctl", "restart", "blackstart-agent"])
        .await
        .unwrap();
    wait::until("its clock to be right", LONG, async || {
        let conditions = ask(coordinator, "get conditions").await?;
        let items = conditions["items"].as_array().cloned().unwrap_or_default();
        let gone = !items.iter().any(|item| item["condition"] == "ClockBehind");
        Ok(gone.then_some(()))
    })
    .await
    .unwrap();
}

/// Real faults, and the doctor finds each.
async fn faults_are_found(bed: &Bed, coordinator: &Node) {
    let worker = bed.node("worker-2").unwrap();
    worker
        .exec(&["systemctl", "stop", "blackstart-agent.service"])
        .await
        .unwrap();
    let store = "/var/lib/blackstart-coordinator/store.redb";
    let authority = "/etc/blackstart/pki/ca.key";
    for file in [authority, store] {
        coordinator
            .exec(&["mv", file, &format!("{file}.away")])
            .await
            .unwrap();
    }
    wait::until("the doctor to find what is wrong", LONG, async || {
        let report = doctor(coordinator).await;
        let all = [findings(&report, "wrong"), findings(&report, "warning")].concat();
        let told = |what: &str| all.iter().any(|finding| finding.contains(what));
        Ok((told("worker-2") && told("ca.key") && told("store.redb")).then_some(()))
    })
    .await
    .unwrap();
    let code = coordinator
        .exec(&["sh", "-c", "blackstart doctor >/dev/null 2>&1; echo $?"])
        .await
        .unwrap();
    assert_eq!(code, "1");
}

#[tokio::test]
async fn who_follows_the_guide_has_a_fleet_that_comes_back_from_a_power_loss() {
    let (Some(docker), Some(packages)) = (Docker::or_skip().await, Packages::or_skip()) else {
        return;
    };
    let wish = Wish {
        topology: Topology {
            masters: 3,
            workers: 3,
        },
        runs: Runs::Kubelets,
        packages: vec!["libfaketime"],
        ..Wish::fleet(0, 0)
    };
    let bed = Bed::raise(&docker, "install", &wish).await.unwrap();
    let coordinator = bed.node(COORDINATOR.0).unwrap();
    let package = |name: &str| packages.file(name).unwrap();
    fresh(
        coordinator,
        &[package("blackstart-coordinator"), package("blackstart")],
    )
    .await;
    for (name, _) in NODES {
        fresh(bed.node(name).unwrap(), &[package("blackstart-agent")]).await;
    }
    let address = |name: &str| {
        let declared = bed.declared().iter().find(|node| node.name == name);
        declared.unwrap().address.to_string()
    };
    // The longest first: one address begins as another does.
    let here = |command: &str| {
        let mut command = command.replace(COORDINATOR.1, &address(COORDINATOR.0));
        for (name, written) in NODES {
            command = command.replace(&format!("{written},"), &format!("{},", address(name)));
            command = command.replace(&format!("{written}}}"), &format!("{}}}", address(name)));
        }
        command
    };

    let mut join = None;
    let mut look = Vec::new();
    for command in commands("coordinator") {
        // What is looked at comes when there is something to see.
        if join.is_some() {
            look.push(command);
            continue;
        }
        let said = types(coordinator, &here(&command)).await.unwrap();
        if command.contains(" init ") {
            let yaml = "/etc/blackstart/coordinator.yaml";
            let times = "boot_id_file: /run/boot_id\\nsilent_after: 3s\\n";
            accommodate(coordinator, yaml, times).await;
        }
        if command.contains("token create") {
            let line = said.lines().find(|line| line.contains("blackstart-agent join"));
            join = Some(line.unwrap().trim().to_owned());
        }
    }
    joins(&bed, &here, &join.unwrap()).await;

    all(coordinator, "to be ready", |node| node["phase"] == "ready").await;
    let found = doctor(coordinator).await;
    assert!(findings(&found, "wrong").is_empty(), "{found:#}");
    for command in look {
        let said = types(coordinator, &command).await.unwrap();
        say(&said);
    }

    comes_back(&bed, coordinator, 1).await;
    comes_back_after_months(&bed, coordinator).await;
    faults_are_found(&bed, coordinator).await;
    bed.take_down().await.unwrap();
}

//! One authority takes the place of another: real agents over real TLS, the command as it is typed, and a coordinator that is started anew
//! between the steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::host::sim::{SimCluster, SimMachine};
use blackstart_coordinator::audit::file::{files as files_of, verify};
use blackstart_coordinator::pki::Seen;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1::ListClustersRequest;
use tokio::time::sleep;

use crate::enrolment::{enrols, session};
use crate::masters::master_with;
use crate::permits::MASTERS;
use crate::support::{NODES, World, within};

/// What each node has of its own, as it would on three machines.
fn apart(world: &World) -> BTreeMap<&'static str, TlsFiles> {
    let own = |name: &'static str| (name, copied(&world.files(name), &world.path(name).join("pki")));
    NODES.into_iter().map(own).collect()
}

fn copied(from: &TlsFiles, dir: &Path) -> TlsFiles {
    let to = TlsFiles::in_dir(dir, "node");
    std::fs::create_dir_all(dir).unwrap();
    for (from, to) in [
        (&from.ca, &to.ca),
        (&from.certificate, &to.certificate),
        (&from.key, &to.key),
    ] {
        std::fs::copy(from, to).unwrap();
    }
    to
}

/// Which authority issued it, and how many are trusted beside it.
fn marks(files: &TlsFiles) -> (String, usize) {
    let issued_by = Seen::read(&files.certificate).unwrap().authority;
    let trusted = std::fs::read_to_string(&files.ca).unwrap();
    (issued_by, trusted.matches("BEGIN CERTIFICATE").count())
}

/// `blackstart-coordinator ca …`
fn ca(world: &World, words: &[&str]) -> Output {
    let config = world.path("coordinator.yaml");
    let path = |name: &str| world.path(name).display().to_string();
    let text = format!(
        "listen: [\"127.0.0.1:0\"]\ninventory: {}\nstate_dir: {}\nruntime_dir: {}\ntls: {{ca: {}, certificate: {}, key: {}}}\n\
         enrolment: {{authority: {}}}\n",
        path("inventory.yaml"),
        path("state"),
        path("run"),
        path("pki/ca.crt"),
        path("pki/coordinator.crt"),
        path("pki/coordinator.key"),
        path("pki"),
    );
    std::fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_blackstart-coordinator");
    let mut command = Command::new(program);
    command.arg("ca").args(words).arg("--config").arg(&config);
    command.output().unwrap()
}

fn asked(world: &World, words: &'static [&'static str]) -> Output {
    // Beside the coordinator that runs here, which answers it.
    tokio::task::block_in_place(|| ca(world, words))
}

fn behind(world: &World) -> Vec<String> {
    let output = asked(world, &["status", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(told["behind"].clone()).unwrap()
}

/// These nodes, with agents that know where the coordinator is by now.
fn begin(
    world: &World,
    names: &[&'static str],
    files: &BTreeMap<&'static str, TlsFiles>,
    cluster: &Arc<SimCluster>,
) -> Vec<SimMachine> {
    let begun = names.iter().map(|name| {
        let mut machine = master_with(world, name, cluster, files[name].clone());
        machine.power_on().unwrap();
        machine
    });
    begun.collect()
}

async fn in_session(world: &World, expected: u32) {
    let mut operator = world.operator().await;
    within("the fleet to be in session", async {
        loop {
            let listed = operator.list_clusters(ListClustersRequest {}).await;
            if listed.unwrap().into_inner().clusters[0].control_planes_ready == expected {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn renewed(world: &World, expected: &[&str]) {
    within("the others to renew", async {
        while behind(world) != expected {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_follows_from_one_authority_to_the_next_and_nobody_is_left_behind() {
    let mut world = World::of(MASTERS, enrols).await;
    let files = apart(&world);
    let kept = copied(&files["biz-1"], &world.path("kept"));
    let cluster = Arc::new(SimCluster::new(2, Duration::from_millis(100)));
    let (old, _) = marks(&files["biz-1"]);
    let none = asked(&world, &["finish"]);
    assert!(!none.status.success(), "{none:?}");

    let rotated = asked(&world, &["rotate"]);
    assert!(rotated.status.success(), "{rotated:?}");
    world.stop().await;
    world.start(enrols).await;
    // One is dark, and knows of nothing.
    let mut machines = begin(&world, &NODES[..2], &files, &cluster);
    in_session(&world, 2).await;
    renewed(&world, &["biz-3"]).await;
    for name in &NODES[..2] {
        let (by, trusted) = marks(&files[name]);
        assert!(
            by != old && trusted == 2,
            "{name} is of {by} and trusts {trusted}"
        );
    }
    let early = asked(&world, &["finish"]);
    let said = String::from_utf8_lossy(&early.stderr);
    assert!(!early.status.success() && said.contains("biz-3"), "{early:?}");

    machines.extend(begin(&world, &NODES[2..], &files, &cluster));
    renewed(&world, &[]).await;
    let finished = asked(&world, &["finish"]);
    assert!(finished.status.success(), "{finished:?}");
    for machine in &mut machines {
        machine.cut_power();
    }
    world.stop().await;
    world.start(enrols).await;
    let mut machines = begin(&world, &NODES, &files, &cluster);
    in_session(&world, 3).await;
    // What the old one issued counts for nothing, whoever else is trusted by its holder.
    std::fs::copy(&files["biz-1"].ca, &kept.ca).unwrap();
    assert!(session(&world, &kept, "biz-1").await.is_err());
    for machine in &mut machines {
        machine.cut_power();
    }
    // Who typed it stands in the audit, and what came of it: beside a coordinator that runs, which has written it.
    let audit = files_of(&world.path("state/audit")).unwrap();
    let audit: String = audit
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for (what, outcome) in [
        ("ca rotate", "done"),
        ("ca finish", "refused"),
        ("ca finish", "done"),
    ] {
        let (what, outcome) = (format!("\"{what}\""), format!("\"{outcome}\""));
        let stands =
            |line: &str| line.contains("local user") && line.contains(&what) && line.contains(&outcome);
        assert!(audit.lines().any(stands), "{what} {outcome} in {audit}");
    }
    world.stop().await;
    assert_eq!(
        verify(&world.path("state/audit"), None).unwrap().problems,
        Vec::<String>::new()
    );
}

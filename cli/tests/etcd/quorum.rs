//! The runbook `etcd-quorum`: two of three members lose their data, and what is left becomes a cluster again, first of one and then of three.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, programs};
use crate::member::{damage, set_aside};
use crate::store::{Writer, fill, has};

fn runs(health: SocketAddr) -> bool {
    TcpStream::connect(health).is_ok()
}

fn state(run: &Value) -> &str {
    run["state"].as_str().unwrap_or_default()
}

/// What a manifest says of the members.
fn initial_cluster(manifest: &Path) -> String {
    let text = fs::read_to_string(manifest).unwrap();
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --initial-cluster="));
    lines.next().unwrap().to_owned()
}

#[allow(clippy::too_many_lines, reason = "one story, from the loss to three members")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_quorum_is_restored_by_two_persons_and_grows_back_to_three() {
    for program in programs("an etcd that has lost its quorum") {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        let api_servers = bed.start_api_servers();
        fill(bed.masters[0].client, &tls, 200, 1024).await;
        let writer = Writer::start(&[bed.masters[0].client], &tls);
        let well = bed.blackstart(&["runbook", "plan", "etcd-quorum", "--cluster", "biz"]);
        assert!(
            String::from_utf8_lossy(&well.stdout).contains("missing: a lost quorum"),
            "{well:?}"
        );
        for at in [1, 2] {
            bed.stop_kubelet(at);
            damage(&bed.masters[at].data());
            bed.start_kubelet(at);
        }
        bed.until_etcd("the loss of the quorum", |etcd| {
            etcd["has_quorum"] == false && etcd["leader"].is_null() && etcd["cluster_id"].is_string()
        })
        .await;
        let acknowledged = writer.stop().await;
        let member = bed.blackstart(&["runbook", "plan", "etcd-member", "biz-2"]);
        assert!(
            String::from_utf8_lossy(&member.stdout).contains("etcd-quorum --cluster biz"),
            "without a quorum no member is changed: {member:?}"
        );

        let plan = bed.blackstart(&["runbook", "plan", "etcd-quorum", "--cluster", "biz"]);
        println!("{}", String::from_utf8_lossy(&plan.stdout));
        let begun = bed.blackstart(&[
            "runbook",
            "run",
            "etcd-quorum",
            "--cluster",
            "biz",
            "--yes",
            "-o",
            "json",
        ]);
        assert!(begun.status.success(), "{begun:?}");
        let run: Value = serde_json::from_slice(&begun.stdout).unwrap();
        let run = run["id"].as_str().unwrap();
        bed.until("the question", &["runbook", "status", run], |run| {
            assert_ne!(state(run), "halted", "{run:#}");
            run["wants_approval"] == true
        })
        .await;
        assert!(
            api_servers.iter().all(|health| runs(*health)),
            "nothing is stopped yet"
        );
        let asks = ["runbook", "run", "etcd-quorum", "--cluster", "biz", "--yes"];
        let again = bed.by("ben", &asks);
        let told = String::from_utf8_lossy(&again.stderr);
        assert!(
            !again.status.success() && told.contains(run),
            "two operators at once: {again:?}"
        );
        let one = bed.blackstart(&["runbook", "approve", run]);
        assert!(
            String::from_utf8_lossy(&one.stderr).contains("wants two persons"),
            "who has begun it does not approve it: {one:?}"
        );
        let two = bed.by("ben", &["runbook", "approve", run]);
        assert!(two.status.success(), "{two:?}");
        bed.until("its end", &["runbook", "status", run], |run| {
            assert_ne!(state(run), "halted", "{run:#}");
            state(run) == "succeeded"
        })
        .await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", run]).stdout)
        );
        let etcd = bed
            .until_etcd("a cluster of one", |etcd| {
                etcd["has_quorum"] == true && etcd["voters"] == 1
            })
            .await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["etcd", "status", "biz"]).stdout)
        );
        for key in &acknowledged {
            assert!(has(bed.masters[0].client, &tls, key).await, "{key}");
        }
        println!("{} acknowledged keys are all there", acknowledged.len());
        if program.with_file_name("etcdutl").exists() {
            let first = etcd["members"].as_array().unwrap();
            let revision = first
                .iter()
                .find_map(|member| member["revision"].as_i64())
                .unwrap();
            assert!(
                revision > 1_000_000_000,
                "no watcher goes on from an old one: {revision}"
            );
        }
        assert_eq!(
            set_aside(&bed.masters[0].data()),
            [format!("member.set-aside.{run}")]
        );
        assert!(runs(api_servers[0]), "its own API server is back");
        for at in [1, 2] {
            assert!(!bed.masters[at].manifest().exists(), "fenced");
            assert!(!runs(api_servers[at]), "stopped");
        }
        // A new boot, and a new agent, bring nothing back that is fenced.
        bed.kill_agent(1).await;
        bed.start_agent(1);

        for (at, voters) in [(1, 2), (2, 3)] {
            bed.grow(at, voters).await;
            assert!(bed.masters[at].manifest().exists());
            bed.until_etcd("its control plane", |_| runs(api_servers[at]))
                .await;
        }
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["etcd", "status", "biz"]).stdout)
        );
        for key in &acknowledged {
            assert!(has(bed.masters[2].client, &tls, key).await, "{key}");
        }
        let lists: Vec<_> = bed
            .masters
            .iter()
            .map(|master| initial_cluster(&master.manifest()))
            .collect();
        assert!(
            lists
                .iter()
                .all(|list| list.split(',').count() == 3 && *list == lists[0]),
            "once three are back each says so: {lists:#?}"
        );
        let kept = fs::read_dir(bed.masters[0].dir.join("blackstart-edits")).unwrap();
        let kept = kept.map(|run| initial_cluster(&run.unwrap().path().join("etcd.yaml")));
        assert!(
            kept.into_iter().any(|list| list.split(',').count() == 1),
            "the manifest that named one is kept"
        );
        assert!(fs::metadata(bed.masters[2].manifest()).is_ok());
    }
}

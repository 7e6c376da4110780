//! The runbook `etcd-quorum` on a bad day: coordinator and agents are killed again and again, and a master that was dark comes back in the middle
//! with its member of the old cluster. After every killing a whole copy of the newest data is on the disk; there is one cluster in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::bed::{Bed, programs, tool};
use crate::member::damage;
use crate::store::{Writer, fill, has};

/// The rounds after which the dark master comes back.
const BACK_AFTER: u64 = 4;

/// Everything below a data directory that is a database, or was one.
fn databases(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| {
        let inner = [path.join("snap/db"), path.join("member/snap/db"), path];
        inner.into_iter().find(|path| path.is_file())
    };
    entries.filter_map(of).collect()
}

/// The revision of a database, by a copy of it: who runs with it goes on.
fn revision(program: &Path, database: &Path) -> Option<i64> {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("db");
    // It may have been renamed by now.
    fs::copy(database, &copy).ok()?;
    let told = Command::new(tool(program))
        .args(["snapshot", "status", "-w", "json"])
        .arg(&copy)
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&told.stdout).ok()?;
    json["revision"].as_i64()
}

/// The highest revision that a whole copy on this disk has.
fn newest(program: &Path, data: &Path) -> Option<i64> {
    // What is renamed between the list and the copy is there at the second look.
    let look = || {
        let all = databases(data);
        all.iter().filter_map(|path| revision(program, path)).max()
    };
    look().max(look())
}

#[allow(clippy::too_many_lines, reason = "one story, from the loss to one cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quorum_is_restored_through_crashes_at_every_step_and_a_master_that_comes_back_splits_nothing() {
    // What is killed is ours: of etcd one version will do, the newest.
    for program in programs("crashes while a quorum is restored")
        .into_iter()
        .rev()
        .take(1)
    {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        fill(bed.masters[0].client, &tls, 100, 1024).await;
        let writer = Writer::start(&[bed.masters[0].client], &tls);
        bed.until_etcd("a start", |etcd| etcd["has_quorum"] == true).await;
        bed.stop_kubelet(1);
        damage(&bed.masters[1].data());
        bed.start_kubelet(1);
        // This one is dark: neither its etcd nor its agent speaks.
        bed.kill_kubelet(2);
        bed.kill_agent(2).await;
        bed.until_etcd("the loss of the quorum", |etcd| {
            etcd["has_quorum"] == false && etcd["leader"].is_null() && etcd["cluster_id"].is_string()
        })
        .await;
        let acknowledged = writer.stop_with_revisions().await;
        let last = acknowledged.iter().map(|(_, revision)| *revision).max().unwrap();
        let command = [
            "runbook",
            "run",
            "etcd-quorum",
            "--cluster",
            "biz",
            "--yes",
            "-o",
            "json",
        ];
        let unproved = bed.blackstart(&command);
        assert!(
            !unproved.status.success(),
            "who is dark may come back: {unproved:?}"
        );
        let begun = bed.blackstart(&[&command[..], &["--proof", "its rack has no power"]].concat());
        assert!(begun.status.success(), "{begun:?}");
        let run: Value = serde_json::from_slice(&begun.stdout).unwrap();
        let run = run["id"].as_str().unwrap().to_owned();
        let status = ["runbook", "status", run.as_str()];
        bed.until("the question", &status, |run| {
            assert_ne!(run["state"], "halted", "{run:#}");
            run["wants_approval"] == true
        })
        .await;
        let approved = bed.by("ben", &["runbook", "approve", &run]);
        assert!(approved.status.success(), "{approved:?}");

        let mut ended = false;
        for round in 0_u64..40 {
            if ended && round > BACK_AFTER {
                break;
            }
            if round == BACK_AFTER {
                bed.start_kubelet(2);
                bed.start_agent(2);
            }
            // Another moment each time.
            sleep(Duration::from_millis(150 + 130 * (round % 7))).await;
            bed.kill_coordinator();
            let at = usize::try_from(round % 2).unwrap();
            bed.kill_agent(at).await;
            let found = newest(&program, &bed.masters[0].data());
            assert!(
                found >= Some(last),
                "round {round}: {found:?} is left of revision {last}"
            );
            bed.start_agent(at);
            bed.start_coordinator();
            let seen = bed
                .until("the run", &status, |run| run["state"].is_string())
                .await;
            assert!(
                ["running", "succeeded"].contains(&seen["state"].as_str().unwrap()),
                "{seen:#}"
            );
            ended = seen["state"] == "succeeded";
        }
        bed.until("its end", &status, |run| {
            assert_ne!(run["state"], "halted", "{run:#}");
            run["state"] == "succeeded"
        })
        .await;
        println!("{}", String::from_utf8_lossy(&bed.blackstart(&status).stdout));
        let etcd = bed
            .until_etcd("a quorum", |etcd| etcd["has_quorum"] == true)
            .await;
        if etcd["voters"] == 3 {
            // It came back before anything was restored, and nothing was.
            println!("the quorum came back by itself");
            for (key, _) in &acknowledged {
                assert!(has(bed.masters[2].client, &tls, key).await, "{key}");
            }
            bed.grow(1, 3).await;
            continue;
        }
        let etcd = bed
            .until_etcd("one cluster, and who is of another one", |etcd| {
                let members = etcd["members"].as_array();
                let back = members.and_then(|all| all.iter().find(|member| member["node"] == "biz-3"));
                etcd["has_quorum"] == true
                    && etcd["voters"] == 1
                    && back.is_some_and(|back| {
                        let why = back["why_not"].as_str();
                        why.is_some_and(|why| why.contains("of another cluster"))
                    })
            })
            .await;
        println!(
            "{}",
            String::from_utf8_lossy(&bed.blackstart(&["etcd", "status", "biz"]).stdout)
        );
        assert_eq!(etcd["voters_healthy"], 1, "{etcd:#}");
        for (key, _) in &acknowledged {
            assert!(has(bed.masters[0].client, &tls, key).await, "{key}");
        }
        println!("{} acknowledged keys are all there", acknowledged.len());
        bed.grow(2, 2).await;
    }
}

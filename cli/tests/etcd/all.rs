//! The runbook `etcd-all`: nobody is left. First from a snapshot, since every database was destroyed; and then, on the same masters, from the data of
//! the one that has most, since the power loss tore every log. What was told is lost, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::bed::{Bed, programs};
use crate::member::{damage, set_aside};
use crate::store::{Writer, fill, has};
use crate::watcher::Watcher;

fn state(run: &Value) -> &str {
    run["state"].as_str().unwrap_or_default()
}

/// As a power loss in the middle of writes: what follows the head of the log is no record.
fn tear(data: &Path) {
    let logs = fs::read_dir(data.join("member/wal")).unwrap();
    let logs = logs.map(|entry| entry.unwrap().path());
    for log in logs.filter(|path| path.extension().is_some_and(|ending| ending == "wal")) {
        let file = File::options().write(true).open(&log).unwrap();
        file.write_all_at(&[0x5a; 4096], 128).unwrap();
        file.sync_all().unwrap();
    }
}

/// As a page that came back from the disk as another one.
fn corrupt_page(data: &Path) {
    let database = data.join("member/snap/db");
    let size = fs::metadata(&database).unwrap().len();
    let file = File::options().write(true).open(&database).unwrap();
    // All but the two that say where everything is.
    for page in 2..size / 4096 {
        file.write_all_at(&[0xff; 16], page * 4096).unwrap();
    }
}

async fn lost(bed: &Bed) {
    bed.until_etcd("the loss of all", |etcd| {
        let members = etcd["members"].as_array();
        let silent = members.is_some_and(|all| all.iter().all(|one| one["revision"].is_null()));
        silent && etcd["cluster_id"].is_null()
    })
    .await;
}

fn planned(bed: &Bed) -> String {
    let plan = bed.blackstart(&["runbook", "plan", "etcd-all", "--cluster", "biz"]);
    let text = String::from_utf8(plan.stdout).unwrap();
    println!("{text}{}", String::from_utf8_lossy(&plan.stderr));
    text
}

/// The revision that the plan says it goes back to.
fn told(plan: &str) -> i64 {
    let (_, after) = plan.split_once("everything after revision ").unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

async fn restore(bed: &Bed) -> String {
    let begun = bed.blackstart(&[
        "runbook",
        "run",
        "etcd-all",
        "--cluster",
        "biz",
        "--yes",
        "-o",
        "json",
    ]);
    assert!(begun.status.success(), "{begun:?}");
    let run: Value = serde_json::from_slice(&begun.stdout).unwrap();
    let run = run["id"].as_str().unwrap().to_owned();
    let asked = bed
        .until("the question", &["runbook", "status", &run], |run| {
            assert_ne!(state(run), "halted", "{run:#}");
            run["wants_approval"] == true
        })
        .await;
    let question = asked["waiting_on"].as_str().unwrap();
    assert!(question.contains("lost for good"), "{question}");
    let one = bed.blackstart(&["runbook", "approve", &run]);
    assert!(
        String::from_utf8_lossy(&one.stderr).contains("wants two persons"),
        "who has begun it does not approve it: {one:?}"
    );
    let two = bed.by("ben", &["runbook", "approve", &run]);
    assert!(two.status.success(), "{two:?}");
    bed.until("its end", &["runbook", "status", &run], |run| {
        assert_ne!(state(run), "halted", "{run:#}");
        state(run) == "succeeded"
    })
    .await;
    println!(
        "{}",
        String::from_utf8_lossy(&bed.blackstart(&["runbook", "status", &run]).stdout)
    );
    bed.until_etcd("a cluster of one", |etcd| {
        etcd["has_quorum"] == true && etcd["voters"] == 1
    })
    .await;
    run
}

/// Which master has the cluster of one.
async fn restored_on(bed: &Bed) -> usize {
    let etcd = bed.until_etcd("it", |etcd| etcd["has_quorum"] == true).await;
    let members = etcd["members"].as_array().unwrap();
    let leads = members.iter().find(|member| member["leads"] == true).unwrap();
    let at = bed.masters.iter().position(|master| leads["node"] == master.name);
    at.unwrap()
}

#[allow(
    clippy::too_many_lines,
    reason = "one story, from three members through two losses"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_all_are_lost_what_loses_least_is_restored_and_what_was_told_is_lost() {
    for program in programs("an etcd of which nobody is left") {
        let mut bed = Bed::new(&program).await;
        let tls = bed.client_files();
        let bumps = program.with_file_name("etcdutl").exists();
        let clients: Vec<_> = bed.masters.iter().map(|master| master.client).collect();
        fill(clients[0], &tls, 100, 1024).await;
        let well = planned(&bed);
        assert!(
            well.contains("missing: a cluster of which no member answers"),
            "{well}"
        );
        let watcher = Watcher::start(clients[0], &tls);
        let writer = Writer::start(&clients, &tls);
        let taken = bed.blackstart(&["etcd", "snapshot", "take", "biz", "--yes", "--wait"]);
        assert!(taken.status.success(), "{taken:?}");
        bed.until_etcd("more", |etcd| etcd["last_snapshot_age_ms"].as_u64() > Some(1000))
            .await;

        // The power goes, and with it every database.
        for at in 0..3 {
            bed.kill_kubelet(at);
            damage(&bed.masters[at].data());
        }
        let acknowledged = writer.stop_with_revisions().await;
        for at in 0..3 {
            bed.start_kubelet(at);
        }
        lost(&bed).await;
        let quorum = bed.blackstart(&["runbook", "plan", "etcd-quorum", "--cluster", "biz"]);
        assert!(
            String::from_utf8_lossy(&quorum.stdout).contains("etcd-all --cluster biz"),
            "{quorum:?}"
        );
        let plan = planned(&bed);
        let revision = told(&plan);
        for part in [
            "bounce-etcd:biz-1",
            "/snapshots/",
            "taken",
            "all that was written after it was taken is lost",
            "revisions are lost",
            "invalid database",
        ] {
            assert!(plan.contains(part), "{part}");
        }
        restore(&bed).await;
        let first = restored_on(&bed).await;
        let mut gone = 0;
        for (key, written) in &acknowledged {
            let is_there = has(bed.masters[first].client, &tls, key).await;
            assert_eq!(
                is_there,
                *written <= revision,
                "{key} of revision {written}, told {revision}"
            );
            gone += usize::from(!is_there);
        }
        println!(
            "{} of {} acknowledged keys are there, as told",
            acknowledged.len() - gone,
            acknowledged.len()
        );
        assert!(
            gone > 0 && gone < acknowledged.len(),
            "{gone} of {}",
            acknowledged.len()
        );

        // It grows back to three, as after etcd-quorum.
        for (at, voters) in (0..3).filter(|at| *at != first).zip([2, 3]) {
            bed.grow(at, voters).await;
        }
        let writer = Writer::start_at(1_000_000, &clients, &tls);
        bed.until_etcd("more to lose", |etcd| etcd["voters_healthy"] == 3)
            .await;
        let before = bed.masters.iter().map(|master| set_aside(&master.data()).len());
        assert_eq!(before.collect::<Vec<_>>(), [1, 1, 1], "nothing was thrown away");

        // The power goes again. This time the databases are there, but for one, and no log is whole.
        for at in 0..3 {
            bed.kill_kubelet(at);
            tear(&bed.masters[at].data());
        }
        corrupt_page(&bed.masters[2].data());
        let acknowledged = writer.stop_with_revisions().await;
        for at in 0..3 {
            bed.start_kubelet(at);
        }
        lost(&bed).await;
        let plan = planned(&bed);
        let revision = told(&plan);
        for part in [
            "/etcd/member of biz-",
            "written",
            "only their logs had",
            "/etcd/member of biz-3: ",
        ] {
            assert!(plan.contains(part), "{part}");
        }
        restore(&bed).await;
        let at = restored_on(&bed).await;
        assert_ne!(at, 2, "its database is damaged");
        for (key, written) in &acknowledged {
            let is_there = has(bed.masters[at].client, &tls, key).await;
            assert_eq!(
                is_there,
                *written <= revision,
                "{key} of revision {written}, told {revision}"
            );
        }
        let seen = watcher.stop().await;
        println!("{seen:?}");
        assert!(seen.events > 0);
        if bumps {
            assert!(seen.backward.is_empty(), "{seen:?}");
        }
    }
}

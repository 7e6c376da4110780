//! Snapshots: taken by the agents of two masters, verified, kept by count, found damaged, and good enough for etcd's own tool.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::bed::{Bed, KEEP, programs, tool};
use crate::store::fill;

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}

fn take(bed: &Bed) -> Value {
    let taken = bed.blackstart(&["etcd", "snapshot", "take", "biz", "--yes", "--wait", "-o", "json"]);
    assert!(taken.status.success(), "{taken:?}");
    serde_json::from_slice(&taken.stdout).unwrap()
}

fn fetch(bed: &Bed, from: &str, to: &Path) -> Output {
    let to = to.to_str().unwrap();
    bed.blackstart(&["etcd", "snapshot", "fetch", "biz", "--from", from, "--to", to])
}

/// One that is copied here is the same, also after a break; what is another one is told.
fn fetches(bed: &Bed, kept: &Value) {
    let (node, file) = (kept["node"].as_str().unwrap(), kept["file"].as_str().unwrap());
    let master = bed.masters.iter().find(|master| master.name == node).unwrap();
    let original = fs::read(master.dir.join("snapshots").join(file)).unwrap();
    let from = format!("{node}/{file}");
    let to = master.dir.join("fetched.db");
    let fetched = fetch(bed, &from, &to);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(fs::read(&to).unwrap() == original, "byte by byte");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let again = fetch(bed, &from, &to);
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("is there already"),
        "{again:?}"
    );

    let sha256 = kept["sha256"].as_str().unwrap();
    let half = original.len() / 2;
    for (name, wrong) in [("resumed.db", false), ("mixed.db", true)] {
        let to = master.dir.join(name);
        let partial = master.dir.join(format!("{name}.{}.partial", &sha256[..12]));
        let mut left = original[..half].to_vec();
        left[100] ^= u8::from(wrong);
        fs::write(&partial, left).unwrap();
        let fetched = fetch(bed, &from, &to);
        assert_eq!(fetched.status.success(), !wrong, "{fetched:?}");
        assert_eq!(to.exists(), !wrong);
        assert!(!partial.exists(), "it has its name, or was thrown away");
    }
    assert!(
        fs::read(master.dir.join("resumed.db")).unwrap() == original,
        "byte by byte"
    );
    let nothing = fetch(bed, "nowhere", &to);
    assert_eq!(nothing.status.code(), Some(5), "{nothing:?}");
    // The newest of all, into a directory.
    let dir = bed.masters[0].dir.to_str().unwrap();
    let newest = bed.blackstart(&["etcd", "snapshot", "fetch", "biz", "--to", dir]);
    assert!(newest.status.success(), "{newest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn snapshots_are_verified_kept_on_two_masters_and_restored_by_etcds_own_tool() {
    for program in programs("snapshots of etcd") {
        let bed = Bed::new(&program).await;
        // More than one piece of the stream.
        fill(bed.masters[0].client, &bed.client_files(), 100, 4096).await;
        let plan = bed.blackstart(&["etcd", "snapshot", "take", "biz", "--dry-run"]);
        let plan = String::from_utf8(plan.stdout).unwrap();
        println!("{plan}");
        assert!(plan.contains("snapshot-etcd"), "{plan}");
        let before = bed
            .until("the list", &["etcd", "snapshot", "list", "biz"], |_| true)
            .await;
        assert!(items(&before).is_empty(), "a plan does nothing: {before:#}");

        let run = take(&bed);
        assert_eq!(run["state"], "succeeded", "{run:#}");
        let list = bed
            .until("the list", &["etcd", "snapshot", "list", "biz"], |_| true)
            .await;
        let kept = items(&list);
        assert_eq!(kept.len(), 2, "{list:#}");
        assert_ne!(kept[0]["node"], kept[1]["node"], "two disks: {list:#}");
        for one in kept {
            let (node, file) = (one["node"].as_str().unwrap(), one["file"].as_str().unwrap());
            let master = bed.masters.iter().find(|master| master.name == node).unwrap();
            let path = master.dir.join("snapshots").join(file);
            let seen = fs::metadata(&path).unwrap();
            assert_eq!(seen.permissions().mode() & 0o777, 0o600, "every Secret is in it");
            assert_eq!(Some(seen.len()), one["bytes"].as_u64());
            assert!(one["revision"].as_i64().unwrap() > 100, "{one:#}");
            let restored = master.dir.join("restored");
            // Verifies the hash at its end.
            let restore = Command::new(tool(&program))
                .args(["snapshot", "restore"])
                .arg(&path)
                .arg("--data-dir")
                .arg(&restored)
                .env("ETCDCTL_API", "3")
                .output()
                .unwrap();
            assert!(restore.status.success(), "{restore:?}");
            assert!(restored.join("member/snap/db").exists());
        }
        let etcd = bed
            .until_etcd("its age", |etcd| etcd["last_snapshot_age_ms"].is_u64())
            .await;
        assert!(
            etcd["last_snapshot_age_ms"].as_u64().unwrap() < 120_000,
            "{etcd:#}"
        );
        let whole = bed.blackstart(&["etcd", "snapshot", "verify", "biz"]);
        println!("{}", String::from_utf8_lossy(&whole.stdout));
        assert!(whole.status.success(), "{whole:?}");

        fetches(&bed, &kept[0]);

        // The oldest go, and never more than that.
        for _ in 0..KEEP {
            take(&bed);
        }
        let list = bed
            .until("the list", &["etcd", "snapshot", "list", "biz"], |_| true)
            .await;
        for node in ["biz-1", "biz-2", "biz-3"] {
            let here = items(&list).iter().filter(|one| one["node"] == node).count();
            assert!(here <= usize::try_from(KEEP).unwrap(), "{list:#}");
        }

        // One bit of one of them.
        let oldest = items(&list).last().unwrap();
        let (node, file) = (oldest["node"].as_str().unwrap(), oldest["file"].as_str().unwrap());
        let master = bed.masters.iter().find(|master| master.name == node).unwrap();
        let path = master.dir.join("snapshots").join(file);
        let damaged = fs::File::options().write(true).open(path).unwrap();
        damaged.write_at(b"!", 5000).unwrap();
        let to = bed.masters[0].dir.join("damaged.db");
        let from = format!("{node}/{file}");
        let fetched = fetch(&bed, &from, &to);
        assert_eq!(fetched.status.code(), Some(1), "{fetched:?}");
        assert!(
            String::from_utf8_lossy(&fetched.stderr).contains("is not what was taken, and was thrown away"),
            "{fetched:?}"
        );
        assert!(!to.exists());
        let found = bed.blackstart(&["etcd", "snapshot", "verify", "biz"]);
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        assert_eq!(found.status.code(), Some(1), "{found:?}");
        let lines: Vec<_> = text.lines().filter(|line| line.contains("DAMAGED")).collect();
        assert!(lines.len() == 1 && lines[0].contains(file), "{text}");
    }
}

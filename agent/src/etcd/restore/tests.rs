//! Real directories and a stand-in for the tool: the process is killed after every step, and a whole copy of the newest data is there each time.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use ring::digest::{SHA256, digest};

use super::*;
use crate::config::Settings;
use crate::etcd::{Act, Change};

const RUN: &str = "etcd-quorum-1";
/// What a stand-in's database says of itself, where a real one has its pages.
const NEWEST: i64 = 4711;

/// Databases have `revision N` in their first line. It restores to what it is given, slowly enough to be cut short in the middle.
const TOOL: &str = r#"#!/bin/sh
set -e
case "$1 $2" in
"version ") echo "etcdutl version: 3.5.16" ;;
"snapshot status") head -n1 "$3" | sed -n 's/^revision \([0-9]*\)$/{"hash":1,"revision":\1,"totalKey":1}/p' | grep . ;;
"snapshot restore")
    [ "$3" = --help ] && { echo "--bump-revision --mark-compacted"; exit 0; }
    from=$3
    while [ $# -gt 0 ]; do [ "$1" = --data-dir ] && to=$2; shift; done
    mkdir -p "$to/member/snap" "$to/member/wal"
    cp "$from" "$to/member/snap/db" ;;
esac
"#;

struct Bed {
    dir: tempfile::TempDir,
    rules: EtcdRules,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["manifests", "etcd/member/snap", "snapshots"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let text = include_str!("../testdata/etcd.yaml")
            .replace("/data/etcd", &at("etcd").display().to_string())
            .replace(
                "https://127.0.0.1:2379,https://10.0.0.11:2379",
                &format!("https://{port}"),
            );
        fs::write(at("manifests/etcd.yaml"), text).unwrap();
        fs::write(at("etcd/member/snap/db"), contents(NEWEST)).unwrap();
        fs::write(at("etcdutl"), TOOL).unwrap();
        fs::set_permissions(at("etcdutl"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = Settings::for_node("m1");
        settings.static_pods.manifests = at("manifests");
        settings.static_pods.held = at("held");
        settings.static_pods.out_at_least = Duration::ZERO;
        settings.static_pods.gone_deadline = Duration::from_secs(2);
        settings.etcd.tools = vec![at("etcdutl")];
        settings.etcd.snapshots.dir = at("snapshots");
        Self {
            rules: EtcdRules::new(&settings),
            dir,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn restore(&self, run: &str, cluster_id: u64, out_of: Option<OutOf>) -> Result<String, String> {
        let asked = Restore {
            version: "3.5.9".to_owned(),
            out_of,
        };
        restore(run, cluster_id, &asked, &self.rules).await
    }

    /// The directories that have all of the newest data.
    fn intact(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("etcd")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names
            .filter(|name| {
                let read = fs::read_to_string(database(&self.at("etcd").join(name)));
                read.is_ok_and(|text| text == contents(NEWEST))
            })
            .collect()
    }

    fn keep(&self, file: &str, cluster_id: &str, revision: i64) {
        let mut bytes = contents(revision).into_bytes();
        bytes.resize(1024, b' ');
        let hash = digest(&SHA256, &bytes);
        bytes.extend(hash.as_ref());
        fs::write(self.at("snapshots").join(file), &bytes).unwrap();
        let mut sha256 = String::new();
        for byte in hash.as_ref() {
            let _always = write!(sha256, "{byte:02x}");
        }
        let record = serde_json::json!({
            "file": file, "cluster_id": cluster_id, "member": "m1", "revision": revision, "bytes": bytes.len(),
            "taken_at_unix_ms": 1, "sha256": sha256, "version": "3.5.16",
        });
        let path = self.at("snapshots").join(file).with_extension("json");
        fs::write(path, record.to_string()).unwrap();
    }

    /// Nothing is where it was not.
    fn untouched(&self) -> bool {
        self.at("manifests/etcd.yaml").exists()
            && self.intact() == [MEMBER]
            && !self.at("etcd").join(format!("restored.{RUN}")).exists()
    }
}

fn contents(revision: i64) -> String {
    format!("revision {revision}\n{}", "x".repeat(600))
}

#[tokio::test]
async fn a_restore_that_is_killed_after_any_step_goes_on_and_never_lacks_the_newest_data() {
    let mut steps = 0;
    loop {
        let bed = Bed::new();
        bed.rules.killed_after.store(steps, Ordering::Relaxed);
        let first = bed.restore(RUN, 0, None).await;
        assert!(!bed.intact().is_empty(), "after step {steps}: {first:?}");
        let is_over = first.is_ok();
        // As the agent's next start: every other step may be its last, too.
        for more in 0..3 {
            bed.rules.killed_after.store(more, Ordering::Relaxed);
            let _killed_or_done = bed.restore(RUN, 0, None).await;
            assert!(!bed.intact().is_empty(), "after step {steps} and {more} more");
        }
        bed.rules.killed_after.store(u32::MAX, Ordering::Relaxed);
        let done = bed.restore(RUN, 0, None).await.unwrap();
        assert_eq!(bed.intact().len(), 2, "what is restored, and the old: {done}");
        let aside = database(&bed.at("etcd").join(format!("member.set-aside.{RUN}")));
        assert_eq!(fs::read_to_string(aside).unwrap(), contents(NEWEST), "{done}");
        assert_eq!(
            fs::read_to_string(bed.at("etcd/member/snap/db")).unwrap(),
            contents(NEWEST)
        );
        let text = fs::read_to_string(bed.at("manifests/etcd.yaml")).unwrap();
        assert!(text.contains("--initial-cluster-state=existing"), "{text}");
        if is_over {
            break;
        }
        steps += 1;
    }
    assert_eq!(steps, 7, "each was a killing");
}

#[tokio::test]
async fn a_second_run_keeps_what_the_first_has_set_aside() {
    let bed = Bed::new();
    bed.restore(RUN, 0, None).await.unwrap();
    bed.restore("etcd-quorum-2", 0, None).await.unwrap();
    assert_eq!(bed.intact().len(), 3);
}

#[tokio::test]
async fn damaged_data_is_not_restored_and_stays_where_it_is() {
    let bed = Bed::new();
    fs::write(bed.at("etcd/member/snap/db"), [0; 4096]).unwrap();
    let why = bed.restore(RUN, 0, None).await.unwrap_err();
    assert!(
        why.contains("is damaged") && why.contains("nothing was set aside"),
        "{why}"
    );
    assert!(bed.at("etcd/member/snap/db").exists());
}

#[tokio::test]
async fn a_snapshot_is_taken_where_there_is_no_data_and_the_rest_is_kept() {
    let bed = Bed::new();
    bed.keep("1.db", "c", 42);
    fs::remove_dir_all(bed.at("etcd/member")).unwrap();
    let snapshot = |revision| {
        Some(OutOf::Snapshot {
            file: "1.db".to_owned(),
            revision,
        })
    };
    bed.rules.killed_after.store(3, Ordering::Relaxed);
    bed.restore(RUN, 0xc, snapshot(42)).await.unwrap_err();
    bed.rules.killed_after.store(u32::MAX, Ordering::Relaxed);
    bed.restore(RUN, 0xc, snapshot(42)).await.unwrap();
    let restored = fs::read(bed.at("etcd/member/snap/db")).unwrap();
    assert!(restored.starts_with(b"revision 42\n"));
    assert!(bed.at("snapshots/1.db").exists(), "it is kept");
}

#[tokio::test]
async fn what_is_not_what_was_told_is_refused_before_anything_is_changed() {
    let bed = Bed::new();
    bed.keep("1.db", "c", 42);
    let snapshot = |file: &str, revision| {
        Some(OutOf::Snapshot {
            file: file.to_owned(),
            revision,
        })
    };
    let data = |directory: &str, revision| {
        Some(OutOf::Data {
            directory: directory.to_owned(),
            revision,
        })
    };
    for (cluster, out_of, expected) in [
        (
            0xbad,
            snapshot("1.db", 42),
            "1.db is of cluster c, and bad is meant",
        ),
        (0xc, snapshot("1.db", 41), "no snapshot 1.db of revision 41"),
        (0xc, snapshot("../1.db", 42), "no snapshot ../1.db"),
        (0xc, data("../../etc", 42), "is no member's data"),
        (0xc, data("member.set-aside.x", 42), "No such file"),
    ] {
        let why = bed.restore(RUN, cluster, out_of).await.unwrap_err();
        assert!(why.contains(expected), "{why}");
        assert!(bed.untouched(), "{expected}");
    }
    let newer = bed.restore(RUN, 0xc, data(MEMBER, NEWEST - 1)).await.unwrap_err();
    assert!(
        newer.contains("4710 was told when it was planned: plan anew"),
        "{newer}"
    );

    // One bit, and then its end.
    let bed = Bed::new();
    bed.keep("1.db", "c", 42);
    let file = bed.at("snapshots/1.db");
    let mut bytes = fs::read(&file).unwrap();
    bytes[700] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let why = bed.restore(RUN, 0xc, snapshot("1.db", 42)).await.unwrap_err();
    assert!(why.contains("damaged") && bed.untouched(), "{why}");
    bytes.truncate(800);
    fs::write(&file, &bytes).unwrap();
    let why = bed.restore(RUN, 0xc, snapshot("1.db", 42)).await.unwrap_err();
    assert!(why.contains("no snapshot 1.db") && bed.untouched(), "{why}");
}

#[tokio::test]
async fn what_etcd_runs_with_is_not_touched() {
    let bed = Bed::new();
    let open = File::options()
        .write(true)
        .open(bed.at("etcd/member/snap/db"))
        .unwrap();
    rustix::fs::flock(&open, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let why = bed.restore(RUN, 0, None).await.unwrap_err();
    assert!(why.contains("holds its database"), "{why}");
    assert_eq!(bed.intact(), [MEMBER]);
}

/// Whoever speaks as a coordinator names runs, and those become directories.
#[tokio::test]
async fn no_name_that_an_order_brings_becomes_a_path_out_of_its_place() {
    let bed = Bed::new();
    bed.keep("1.db", "c", 42);
    fs::write(bed.at("secret.db"), contents(1)).unwrap();
    let restore_of = |directory: &str| {
        Act::Restore(Restore {
            version: "3.5.9".to_owned(),
            out_of: Some(OutOf::Data {
                directory: directory.to_owned(),
                revision: NEWEST,
            }),
        })
    };
    let rebuild = || Act::Rebuild {
        manifest: None,
        initial_cluster: "m1=https://10.0.0.1:2380".to_owned(),
        needs_bytes: 0,
    };
    let name = |text: &str| text.to_owned();
    let mut orders = Vec::new();
    for run in [
        "",
        ".",
        "..",
        "../x",
        "/etc",
        "a/../../x",
        "a/b",
        "a\0b",
        "a\nb",
        "x\u{202e}",
        "A",
    ] {
        for act in [Act::Fence, Act::StopControlPlane, rebuild(), restore_of(MEMBER)] {
            orders.push((name(run), act, "is no name of a run"));
        }
    }
    for directory in [
        "",
        ".",
        "..",
        "../manifests",
        "/etc",
        "member/..",
        "member.set-aside./../..",
        "member\0",
    ] {
        orders.push((name(RUN), restore_of(directory), "is no member's data"));
    }
    let before = listing(&bed.at(""));
    for (run_id, act, expected) in orders {
        let change = Change {
            run_id,
            cluster_id: 0,
            act,
        };
        let why = super::super::act::act(&change, &bed.rules).await.unwrap_err();
        assert!(why.contains(expected), "{change:?}: {why}");
        assert_eq!(listing(&bed.at("")), before, "{change:?}");
    }
}

/// Every path beneath.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(listing(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

//! Three doubles: what they acknowledged stays, whoever goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use blackstart_proto::etcd::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, RangeRequest,
    SnapshotRequest,
};
use serde_json::Value;
use tempfile::TempDir;
use tonic::Status;

use crate::member::{Member, Place, double, put, puts, refused, until};

struct Three {
    dir: TempDir,
    program: PathBuf,
    places: [Place; 3],
}

impl Three {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            program: double(dir.path()),
            places: ["a", "b", "c"].map(Place::new),
            dir,
        }
    }

    fn start(&self, at: usize, state: &str) -> Member {
        let places = &self.places;
        Member::start(&self.program, self.dir.path(), &places[at], places, state)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap()
    }
}

/// So many of the keys that were written are there.
async fn count(member: &Member) -> Result<usize, Status> {
    let all = RangeRequest {
        key: b"key/".into(),
        range_end: b"key0".into(),
        ..RangeRequest::default()
    };
    let found = member.kv().range(all).await?;
    Ok(found.get_ref().kvs.len())
}

async fn writes(member: &Member, key: &str) -> bool {
    member.txn(puts(vec![put(key, "x")])).await.starts_with("true")
}

#[tokio::test]
async fn of_three_two_are_enough_and_one_is_not() {
    let bed = Three::new();
    let (a, b, c) = (bed.start(0, "new"), bed.start(1, "new"), bed.start(2, "new"));
    a.until_well(3).await;
    for number in 0..20 {
        assert!(writes([&a, &b, &c][number % 3], &format!("key/{number}")).await);
    }
    for member in [&a, &b, &c] {
        assert_eq!(count(member).await.unwrap(), 20);
    }
    drop(c);
    until("two to go on", async || writes(&a, "key/20").await).await;
    drop(b);
    until("the last one to know that it is alone", async || {
        a.status().await.leader == 0
    })
    .await;
    assert_eq!(a.status().await.errors, ["etcdserver: no leader"]);
    let snapshot = a.maintenance().snapshot(SnapshotRequest {}).await;
    assert!(snapshot.is_ok(), "one alone gives a snapshot");
    let (written, read) = tokio::join!(a.txn(puts(vec![put("key/20", "x")])), count(&a));
    assert_eq!(written, "Unavailable: etcdserver: request timed out");
    let read = refused(&read.unwrap_err());
    assert_eq!(
        read, "Unavailable: etcdserver: request timed out",
        "no old reads either"
    );
    let b = bed.start(1, "new");
    until("two to be enough again", async || writes(&a, "key/21").await).await;
    assert_eq!(count(&b).await.unwrap(), 22, "{}{}", bed.log("a"), bed.log("b"));
}

#[tokio::test]
async fn one_of_a_damaged_database_does_not_start_and_is_replaced() {
    let bed = Three::new();
    let (a, b, c) = (bed.start(0, "new"), bed.start(1, "new"), bed.start(2, "new"));
    a.until_well(3).await;
    assert!(writes(&c, "key/1").await);
    drop(c);
    let data = bed.dir.path().join("c");
    let database = data.join("member/snap/db");
    let size = fs::metadata(&database).unwrap().len();
    fs::write(&database, vec![0; usize::try_from(size).unwrap()]).unwrap();
    let mut c = bed.start(2, "new");
    assert!(!c.process.wait().unwrap().success());
    assert!(bed.log("c").contains("invalid database"), "{}", bed.log("c"));
    until("two to go on", async || writes(&a, "key/2").await).await;
    let listed = a
        .cluster()
        .member_list(MemberListRequest {})
        .await
        .unwrap()
        .into_inner();
    let old = listed
        .members
        .iter()
        .find(|member| member.name == "c")
        .unwrap()
        .id;
    // Whoever leads by now is known to all.
    until("its removal", async || {
        let removed = a.cluster().member_remove(MemberRemoveRequest { id: old }).await;
        removed.is_ok_and(|removed| removed.get_ref().members.len() == 2)
    })
    .await;
    let learner = MemberAddRequest {
        peer_urls: vec![bed.places[2].url()],
        is_learner: true,
    };
    let added = a.cluster().member_add(learner).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    // One without data does not take itself for one that was there.
    fs::remove_dir_all(&data).unwrap();
    let c = bed.start(2, "existing");
    until("the learner to say that it is one", async || {
        let said = c.txn(puts(vec![put("x", "x")])).await;
        said == "Unavailable: etcdserver: rpc not supported for learner"
    })
    .await;
    until("it to be promoted", async || {
        let promoted = a.cluster().member_promote(MemberPromoteRequest { id }).await;
        promoted.is_ok()
    })
    .await;
    a.until_well(3).await;
    until("it to have everything", async || {
        count(&c).await.is_ok_and(|found| found == 2)
    })
    .await;
    // Now it counts.
    drop(b);
    until("it to make a majority", async || writes(&c, "key/3").await).await;
}

fn tool(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(dir.join("etcd-double/etcdutl"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_copy_of_its_database_becomes_a_cluster_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let program = double(dir.path());
    let first = Place::new("a");
    let member = Member::start(&program, dir.path(), &first, &[first], "new");
    member.until_well(1).await;
    for number in 0..5 {
        assert!(writes(&member, &format!("key/{number}")).await);
    }
    let revision = member.status().await.header.unwrap().revision;
    member.stop();
    let copy = dir.path().join("copy.db").display().to_string();
    fs::copy(dir.path().join("a/member/snap/db"), &copy).unwrap();
    let status = tool(dir.path(), &["snapshot", "status", &copy, "-w", "json"]);
    let told: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (&told["revision"], &told["totalKey"]),
        (&revision.into(), &5.into())
    );
    let place = Place::new("d");
    let (url, restored) = (place.url(), dir.path().join("d").display().to_string());
    let cluster = format!("d={url}");
    let restore = |more: &[&str]| {
        let words = [
            "snapshot",
            "restore",
            &copy,
            "--name",
            "d",
            "--initial-cluster",
            &cluster,
        ];
        let urls = ["--initial-advertise-peer-urls", &url, "--data-dir", &restored];
        tool(dir.path(), &[&words[..], &urls, more].concat())
    };
    let refused = restore(&[]);
    assert!(
        !refused.status.success() && said(&refused).contains("missing hash"),
        "{}",
        said(&refused)
    );
    let bumped = [
        "--bump-revision",
        "1000000000",
        "--mark-compacted",
        "--skip-hash-check",
    ];
    let done = restore(&bumped);
    assert!(done.status.success(), "{}", said(&done));
    let again = restore(&bumped);
    assert!(said(&again).contains("not empty"), "{}", said(&again));
    let member = Member::start(&program, dir.path(), &place, &[place], "new");
    member.until_well(1).await;
    assert_eq!(count(&member).await.unwrap(), 5);
    let header = member.status().await.header.unwrap();
    assert_eq!(header.revision, revision + 1_000_000_000);
}

#[test]
fn it_is_nothing_to_run_beside_a_drill() {
    let dir = tempfile::tempdir().unwrap();
    let program = double(dir.path());
    let alone = Command::new(&program)
        .arg("--data-dir=/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        !alone.status.success() && said(&alone).contains("a part of `blackstart drill`"),
        "{}",
        said(&alone)
    );
    let version = Command::new(&program).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains("a double"));
}

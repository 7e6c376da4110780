//! What is asked of a cluster of one that has just begun, and what it answers: the same of every etcd.

use std::fs;
use std::path::PathBuf;

use blackstart_proto::etcd::{
    Compare, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, PutRequest,
    RangeRequest, RequestOp, SnapshotRequest, TxnRequest, compare, request_op,
};
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

use crate::member::{Member, Place, double, put, puts, refused};

/// Debian bookworm's own, 3.4; and that of trixie, where `deploy/ensure-etcd-3.5` unpacks it.
const REAL: [&str; 2] = ["/usr/bin/etcd", "/var/cache/blackstart/etcd-3.5/usr/bin/etcd"];

fn get(key: &str) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestRange(RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        })),
    }
}

fn equals(target: compare::CompareTarget, key: &str, with: compare::TargetUnion) -> Compare {
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(with),
    }
}

async fn about_keys(member: &Member) -> Vec<String> {
    use compare::CompareTarget as Target;
    use compare::TargetUnion as With;
    let mut heard = Vec::new();
    heard.push(
        member
            .range(RangeRequest {
                key: b"a".into(),
                ..RangeRequest::default()
            })
            .await,
    );
    heard.push(member.txn(puts(vec![put("a", "1")])).await);
    heard.push(
        member
            .txn(puts(vec![put("b", "1"), put("c", "1"), get("a"), get("b")]))
            .await,
    );
    heard.push(member.txn(puts(vec![put("a", "2")])).await);
    heard.push(member.txn(puts(vec![get("a"), get("nothing")])).await);
    for compares in [
        vec![equals(Target::Create, "new", With::CreateRevision(0))],
        vec![equals(Target::Create, "new", With::CreateRevision(0))],
        vec![
            equals(Target::Mod, "a", With::ModRevision(4)),
            equals(Target::Create, "a", With::CreateRevision(2)),
        ],
        vec![equals(Target::Value, "b", With::Value("1".into()))],
        vec![equals(Target::Value, "nothing", With::Value(Vec::new()))],
        vec![equals(Target::Mod, "b", With::ModRevision(2))],
    ] {
        let txn = TxnRequest {
            compare: compares,
            success: vec![put("new", "x")],
            failure: vec![get("new")],
        };
        heard.push(member.txn(txn).await);
    }
    for (key, range_end, limit) in [
        ("a", "", 0),
        ("a", "c", 0),
        ("a", "\0", 0),
        ("b", "\0", 1),
        ("\0", "\0", 2),
        ("b", "a", 0),
    ] {
        let range = RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit,
            revision: 0,
        };
        heard.push(member.range(range).await);
    }
    heard
}

/// What is wrong is refused, by the same words.
async fn about_wrong_requests(member: &Member) -> Vec<String> {
    let mut heard = Vec::new();
    heard.push(member.range(RangeRequest::default()).await);
    heard.push(
        member
            .range(RangeRequest {
                key: b"a".into(),
                revision: 1_000,
                ..RangeRequest::default()
            })
            .await,
    );
    heard.push(member.txn(puts(vec![put("", "x")])).await);
    heard.push(member.txn(puts(vec![put("d", "1"), put("d", "2")])).await);
    heard.push(member.txn(puts(vec![put("large", &"x".repeat(1_600_000))])).await);
    let leased = RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: b"l".into(),
            lease: 7,
            ..PutRequest::default()
        })),
    };
    heard.push(member.txn(puts(vec![leased])).await);
    heard.push(member.txn(puts(vec![put("last", "1")])).await);
    heard
}

async fn about_members(member: &Member) -> Vec<String> {
    let mut heard = Vec::new();
    let member_list = member
        .cluster()
        .member_list(MemberListRequest {})
        .await
        .unwrap()
        .into_inner();
    // With the same flags, ids are the same.
    heard.push(format!("{:?}", member_list.members));
    heard.push(format!(
        "{:?}",
        member_list
            .header
            .map(|header| (header.cluster_id, header.member_id, header.revision))
    ));
    let of = |asked: Result<(), tonic::Status>| {
        asked.map_or_else(|status| refused(&status), |()| "done".to_owned())
    };
    let mut cluster = member.cluster();
    let unknown = cluster.member_remove(MemberRemoveRequest { id: 5 }).await;
    heard.push(of(unknown.map(drop)));
    let unknown = cluster.member_promote(MemberPromoteRequest { id: 5 }).await;
    heard.push(of(unknown.map(drop)));
    let voter = cluster
        .member_promote(MemberPromoteRequest {
            id: member_list.members[0].id,
        })
        .await;
    heard.push(of(voter.map(drop)));
    let known = MemberAddRequest {
        peer_urls: member_list.members[0].peer_urls.clone(),
        is_learner: true,
    };
    heard.push(of(cluster.member_add(known).await.map(drop)));
    let learner = |port| MemberAddRequest {
        peer_urls: vec![format!("http://127.0.0.1:{port}")],
        is_learner: true,
    };
    let added = cluster.member_add(learner(1)).await.unwrap().into_inner();
    let id = added.member.unwrap().id;
    heard.push(format!("{} members", added.members.len()));
    heard.push(of(cluster.member_add(learner(2)).await.map(drop)));
    let early = cluster.member_promote(MemberPromoteRequest { id }).await;
    heard.push(of(early.map(drop)));
    let removed = cluster
        .member_remove(MemberRemoveRequest { id })
        .await
        .unwrap()
        .into_inner();
    heard.push(format!("{:?}", removed.members));
    heard
}

async fn about_itself(member: &Member) -> Vec<String> {
    let mut heard = Vec::new();
    let status = member.status().await;
    let header = status.header.unwrap();
    heard.push(format!(
        "revision {} leads {} learner {} errors {:?} agreed = applied {}",
        header.revision,
        status.leader == header.member_id,
        status.is_learner,
        status.errors,
        status.raft_index == status.raft_applied_index
    ));
    let mut stream = member
        .maintenance()
        .snapshot(SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut whole = Vec::new();
    let mut last = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        whole.extend(&piece.blob);
        last = piece.blob;
    }
    let (database, hash) = whole.split_at(whole.len() - 32);
    heard.push(format!(
        "a snapshot of whole sectors {}, its hash {}, in a piece of its own {}",
        database.len() % 512 == 0,
        digest(&SHA256, database).as_ref() == hash,
        last == hash
    ));
    heard
}

#[tokio::test]
async fn the_double_answers_as_real_ones_do() {
    let dir = tempfile::tempdir().unwrap();
    // One after the other at the same addresses: their ids are made of these.
    let place = Place::new("a");
    let mut all: Vec<(String, Vec<String>, Vec<u8>)> = Vec::new();
    let ours = double(dir.path());
    let real = REAL.iter().map(PathBuf::from).filter(|program| program.exists());
    for program in real.chain([ours]) {
        let at = TempDir::new_in(dir.path()).unwrap();
        let member = Member::start(&program, at.path(), &place, &[place], "new");
        member.until_well(1).await;
        let mut answers = about_keys(&member).await;
        answers.extend(about_wrong_requests(&member).await);
        answers.extend(about_members(&member).await);
        answers.extend(about_itself(&member).await);
        member.stop();
        let log = at
            .path()
            .join("a/member/wal/0000000000000000-0000000000000000.wal");
        // Checksum, and metadata with both ids.
        let begins = fs::read(log).unwrap()[..56].to_vec();
        all.push((program.display().to_string(), answers, begins));
    }
    let (_, ours, begins) = all.pop().unwrap();
    if all.is_empty() {
        let why = "the double beside a real etcd: there is none; make needs-testbed installs it";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        println!("SKIPPED {why}");
    }
    for (program, answers, its) in all {
        for (ours, its) in ours.iter().zip(&answers) {
            assert_eq!(ours, its, "{program}");
        }
        assert_eq!(ours.len(), answers.len());
        assert_eq!(begins, its, "the head of the log of {program}");
    }
}

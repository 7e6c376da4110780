//! Which source is taken, and what is told of the rest.

use super::*;
use crate::quorum::told::{Manifest, Told};

const LOST: u64 = 0xc;

fn name(node: &str) -> NodeName {
    NodeName(node.to_owned())
}

fn source(out_of: OutOf, revision: i64) -> Source {
    Source {
        path: match &out_of {
            OutOf::Data { directory, .. } => format!("/var/lib/etcd/{directory}"),
            OutOf::Snapshot { file, .. } => format!("/snapshots/{file}"),
        },
        out_of,
        cluster_id: Some(LOST),
        revision,
        bytes: 1 << 20,
        written_unix_ms: 1000,
        age_ms: 7_200_000,
        version: "3.5.16".to_owned(),
        damage: None,
    }
}

fn data(directory: &str, revision: i64) -> Source {
    source(
        OutOf::Data {
            directory: directory.to_owned(),
            revision,
        },
        revision,
    )
}

fn snapshot(revision: i64) -> Source {
    source(
        OutOf::Snapshot {
            file: format!("{revision}.db"),
            revision,
        },
        revision,
    )
}

fn damaged(source: Source) -> Source {
    Source {
        damage: Some("it is damaged".to_owned()),
        revision: 0,
        ..source
    }
}

fn found(all: &[(&str, Vec<Source>)]) -> Sources {
    all.iter()
        .map(|(node, sources)| (name(node), Ok(sources.clone())))
        .collect()
}

/// Masters whose agents speak, and whose members do not.
fn view(nodes: &[&str]) -> View {
    let seen = |node: &&str| Seen {
        node: Some(name(node)),
        id: None,
        name: (*node).to_owned(),
        peer_urls: Vec::new(),
        is_learner: false,
        health: Err("nobody listens".to_owned()),
        told: Some(Told {
            manifest: Some(Manifest::default()),
            data_bytes_available: 10 << 30,
            ..Told::default()
        }),
        revisions_behind: 0,
        indices_behind: 0,
    };
    View {
        members: nodes.iter().map(seen).collect(),
        ..View::default()
    }
}

fn last(revision: i64) -> Last {
    Last {
        members: BTreeMap::new(),
        cluster_id: LOST,
        revision,
        version: "3.5.9".to_owned(),
        at_unix_ms: 0,
    }
}

#[test]
fn the_data_that_has_most_is_taken_and_of_equals_what_a_member_wrote() {
    let view = view(&["m1", "m2", "m3"]);
    let all = found(&[
        ("m1", vec![damaged(data("member", 0)), snapshot(90)]),
        ("m2", vec![data("member", 95), snapshot(95)]),
        (
            "m3",
            vec![data("member", 93), data("member.set-aside.etcd-member-1", 40)],
        ),
    ]);
    let choice = choose(&all, &view, Some(&last(100))).unwrap();
    assert_eq!(
        (choice.node.0.as_str(), choice.source.path.as_str()),
        ("m2", "/var/lib/etcd/member")
    );
    assert_eq!(choice.version, "3.5.9", "what members said of themselves");
    let loss = choice.loss(Some(&last(100)), 60_000);
    assert!(
        loss.contains("revision 100 was seen 60 s ago, so at least 5 revisions are lost"),
        "{loss}"
    );
    assert!(
        choice
            .others
            .iter()
            .any(|other| other == "/var/lib/etcd/member of m1: it is damaged"),
        "{:?}",
        choice.others
    );
}

#[test]
fn without_data_the_newest_snapshot_that_is_whole_is_taken() {
    let view = view(&["m1", "m2"]);
    let all = found(&[
        ("m1", vec![damaged(data("member", 0)), snapshot(50)]),
        ("m2", vec![damaged(snapshot(80)), snapshot(70)]),
    ]);
    let choice = choose(&all, &view, None).unwrap();
    assert_eq!((choice.node.0.as_str(), choice.source.revision), ("m2", 70));
    assert_eq!((choice.cluster_id, choice.version.as_str()), (LOST, "3.5.16"));
    let loss = choice.loss(None, 0);
    assert!(
        loss.contains("not known") && loss.contains("after it was taken"),
        "{loss}"
    );
}

#[test]
fn what_is_of_another_cluster_is_refused_however_much_it_has() {
    let other = Source {
        cluster_id: Some(0xbad),
        ..snapshot(9000)
    };
    let all = found(&[("m1", vec![other, snapshot(10)])]);
    let choice = choose(&all, &view(&["m1"]), Some(&last(20))).unwrap();
    assert_eq!(choice.source.revision, 10);
    assert!(
        choice.others[0].contains("it is of cluster bad, and c was lost"),
        "{:?}",
        choice.others
    );
    let mut alone = all;
    alone.get_mut(&name("m1")).unwrap().as_mut().unwrap().pop();
    let none = choose(&alone, &view(&["m1"]), Some(&last(20))).unwrap_err();
    assert!(none[0].contains("cluster bad"), "{none:?}");
}

#[test]
fn what_cannot_be_restored_where_it_is_says_what_is_missing() {
    let mut view = view(&["m1", "m2", "m3"]);
    view.members[0].told.as_mut().unwrap().data_bytes_available = 1 << 20;
    view.members[1].told.as_mut().unwrap().manifest = None;
    let mut all = found(&[("m1", vec![data("member", 9)]), ("m2", vec![data("member", 8)])]);
    all.insert(name("m3"), Err("its agent is not in session".to_owned()));
    let none = choose(&all, &view, None).unwrap_err().join("\n");
    for part in [
        "1 MiB are free, and 131 MiB are needed: 130 MiB are missing",
        "no manifest of etcd",
        "m3: what is on its disks is not known",
    ] {
        assert!(none.contains(part), "{part}: {none}");
    }
}

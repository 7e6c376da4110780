use proptest::prelude::*;

use super::super::change::{in_sync, may_add, may_promote, may_remove};
use super::super::told::{Manifest, Snapshot, Trouble, TroubleKind};
use super::*;

/// The id of the cluster.
const ID: u64 = 0xc;
const NOW: i64 = 1_800_000_000;

fn name(number: u64) -> NodeName {
    NodeName(format!("m{number}"))
}

fn url(number: u64) -> String {
    format!("https://10.0.0.{number}:2380")
}

fn members(count: u64) -> Vec<Member> {
    (1..=count)
        .map(|number| Member {
            id: number,
            name: name(number).0,
            peer_urls: vec![url(number)],
            is_learner: false,
        })
        .collect()
}

/// What a member tells that is well, of a cluster that number 1 leads.
fn well(number: u64, count: u64) -> Told {
    Told {
        manifest: Some(manifest(number)),
        status: Some(Status {
            cluster_id: ID,
            member_id: number,
            version: "3.5.16".to_owned(),
            leader: 1,
            term: 4,
            raft_index: 1000,
            applied_index: 1000,
            revision: 900,
            ..Status::default()
        }),
        members: members(count),
        has_data: true,
        ..Told::default()
    }
}

fn manifest(number: u64) -> Manifest {
    Manifest {
        name: name(number).0,
        peer_urls: vec![url(number)],
        ..Manifest::default()
    }
}

/// One that does not run.
fn down(number: u64) -> Told {
    Told {
        manifest: Some(manifest(number)),
        trouble: Some(Trouble {
            kind: TroubleKind::Refused,
            detail: "nobody listens".to_owned(),
        }),
        ..Told::default()
    }
}

fn cluster_of(told: impl IntoIterator<Item = Told>) -> Answers {
    (1..)
        .zip(told)
        .map(|(number, told)| (name(number), Ok(told)))
        .collect()
}

fn changed(told: Told, change: impl FnOnce(&mut Status)) -> Told {
    let mut status = told.status.clone().unwrap();
    change(&mut status);
    Told {
        status: Some(status),
        ..told
    }
}

fn texts(view: &View) -> String {
    let texts: Vec<_> = view
        .findings
        .iter()
        .map(|finding| finding.text.as_str())
        .collect();
    texts.join("\n")
}

#[test]
fn three_that_are_well_have_a_quorum_and_one_that_is_down_is_found_by_its_manifest() {
    let view = judge(&cluster_of([well(1, 3), well(2, 3), well(3, 3)]), NOW);
    assert!(view.has_quorum());
    assert_eq!((view.voters(), view.healthy(), view.quorum()), (3, 3, 2));
    assert!(texts(&view).contains("snapshot take"), "{}", texts(&view));

    let view = judge(&cluster_of([well(1, 3), well(2, 3), down(3)]), NOW);
    assert!(view.has_quorum());
    let lost = view.on(&name(3)).unwrap();
    assert_eq!(
        (lost.id, lost.health.clone()),
        (Some(3), Err("nobody listens".to_owned()))
    );
    assert_eq!(view.healthy(), 2);
}

#[test]
fn one_of_three_has_no_quorum_whatever_it_says() {
    let left = changed(well(1, 3), |status| status.leader = 0);
    let view = judge(&cluster_of([left, down(2), down(3)]), NOW);
    assert!(!view.has_quorum());
    assert_eq!(view.leader, None);
    assert!(texts(&view).contains("writes stand still"), "{}", texts(&view));
    for refused in [may_remove(&view, 3), may_add(&view, true), may_promote(&view, 3)] {
        assert!(refused.unwrap_err().contains("no quorum"));
    }
}

#[test]
fn nobody_answers_nothing_is_known() {
    let view = judge(&cluster_of([down(1), down(2), down(3)]), NOW);
    assert_eq!((view.cluster_id, view.voters()), (None, 0));
    assert!(!view.has_quorum());
    let silent = [(name(1), Err("its agent is not in session".to_owned()))].into();
    let view = judge(&silent, NOW);
    assert_eq!(
        view.members[0].health,
        Err("its agent is not in session".to_owned())
    );
}

#[test]
fn an_agent_that_is_away_leaves_its_member_known_by_its_name() {
    let mut answers = cluster_of([well(1, 3), well(2, 3)]);
    answers.insert(name(3), Err("its agent is not in session".to_owned()));
    let view = judge(&answers, NOW);
    assert_eq!(view.on(&name(3)).unwrap().id, Some(3));
    assert_eq!((view.voters(), view.members.len()), (3, 3));
}

#[test]
fn a_member_of_another_cluster_does_not_count() {
    let other = changed(well(3, 3), |status| {
        status.cluster_id = 0xbad;
        status.revision = 9_000_000;
    });
    let view = judge(&cluster_of([well(1, 3), well(2, 3), other]), NOW);
    assert_eq!(view.cluster_id, Some(ID));
    assert_eq!(view.healthy(), 2);
    assert!(
        view.on(&name(3))
            .unwrap()
            .health
            .clone()
            .unwrap_err()
            .contains("bad")
    );
    assert!(
        texts(&view).contains("different clusters: c, bad"),
        "{}",
        texts(&view)
    );
    assert_eq!(
        view.on(&name(1)).unwrap().revisions_behind,
        0,
        "another cluster's revision is no measure"
    );
}

#[test]
fn two_leaders_are_none() {
    let torn = changed(well(3, 3), |status| status.leader = 3);
    let view = judge(&cluster_of([well(1, 3), well(2, 3), torn]), NOW);
    assert_eq!(view.leader, None);
    assert!(!view.has_quorum());
    assert!(texts(&view).contains("do not agree"), "{}", texts(&view));
}

#[test]
fn a_member_that_was_removed_and_one_of_no_node_are_told_apart() {
    let mut list = members(2);
    list.push(Member {
        id: 9,
        ..Member::default()
    });
    let with = |number| Told {
        members: list.clone(),
        ..well(number, 3)
    };
    let view = judge(&cluster_of([with(1), with(2), with(3)]), NOW);
    let removed = view.on(&name(3)).unwrap();
    assert!(removed.id.is_none() && removed.health.clone().unwrap_err().contains("was removed"));
    let nobodys = view.member(9).unwrap();
    assert_eq!((nobodys.node.clone(), nobodys.votes()), (None, true));
    assert_eq!(view.voters(), 3);
}

#[test]
fn what_a_person_should_know_is_told_with_the_worst_first() {
    let mut told = well(2, 4);
    told.certificates = vec![
        super::super::told::Certificate {
            path: "/pki/server.crt".to_owned(),
            not_after_unix: NOW - 10,
            expired: true,
            trouble: None,
        },
        super::super::told::Certificate {
            path: "/pki/peer.crt".to_owned(),
            not_after_unix: NOW + 86_400 * 3,
            expired: false,
            trouble: None,
        },
    ];
    let told = changed(told, |status| {
        status.alarms = vec![(2, "NOSPACE".to_owned())];
        status.version = "3.4.23".to_owned();
        status.revision = 0;
        status.applied_index = 1;
        status.raft_index = 1;
    });
    let far = changed(well(1, 4), |status| {
        status.revision = 5000;
        status.raft_index = 9000;
        status.applied_index = 9000;
    });
    let view = judge(&cluster_of([far, told, well(3, 4), well(4, 4)]), NOW);
    let text = texts(&view);
    for part in [
        "server.crt has expired",
        "peer.crt expires in 3 days",
        "alarm NOSPACE of m2: writes are refused",
        "different versions: 3.4.23, 3.5.16",
        "5000 revisions and 8999 entries behind",
        "4 voters bear the loss of no more than 3 would",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let levels: Vec<_> = view.findings.iter().map(|finding| finding.level).collect();
    assert!(levels.is_sorted(), "{levels:?}");
}

#[test]
fn a_snapshot_of_another_cluster_is_none() {
    let snapshot = |cluster_id, age_ms| Snapshot {
        cluster_id,
        age_ms,
        ..Snapshot::default()
    };
    let mut told = well(1, 1);
    told.snapshots = vec![snapshot(ID, 90_000), snapshot(0xbad, 5)];
    assert_eq!(newest(&judge(&cluster_of([told]), NOW)), Some(90_000));
}

#[test]
fn a_member_that_is_well_is_not_removed_nor_one_too_many() {
    let view = judge(&cluster_of([well(1, 3), well(2, 3), down(3)]), NOW);
    assert!(may_remove(&view, 1).unwrap_err().contains("is well"));
    assert!(may_remove(&view, 7).unwrap_err().contains("no member"));
    let evidence = may_remove(&view, 3).unwrap();
    assert_eq!(
        evidence,
        "2 voters are well, 2 of the 2 that are left after the removal make a quorum"
    );
    assert!(may_add(&view, true).is_ok());
    assert!(
        may_add(&view, false).is_err(),
        "2 of 4 would make none: the lost one goes first"
    );
}

#[test]
fn a_learner_is_promoted_when_it_has_nearly_all() {
    let mut list = members(3);
    list[2].is_learner = true;
    let with = |told: Told| Told {
        members: list.clone(),
        ..told
    };
    let learner = |applied| {
        changed(with(well(3, 3)), |status| {
            status.applied_index = applied;
            status.is_learner = true;
        })
    };
    let view = |applied| {
        judge(
            &cluster_of([with(well(1, 3)), with(well(2, 3)), learner(applied)]),
            NOW,
        )
    };
    assert_eq!(view(899).voters(), 2);
    assert!(
        may_promote(&view(899), 3)
            .unwrap_err()
            .contains("899 of the leader's 1000")
    );
    assert!(may_promote(&view(900), 3).is_ok());
    assert!(
        may_add(&view(900), true)
            .unwrap_err()
            .contains("one goes at a time")
    );
    let late = in_sync(&view(899), view(899).on(&name(3)).unwrap());
    assert!(late.is_err());
}

proptest! {
    /// Whatever stands and whatever is allowed, those that are well still make a quorum afterwards.
    #[test]
    fn no_allowed_change_costs_the_quorum(healthy in prop::collection::vec(any::<bool>(), 1..8), target in 0_usize..8) {
        let count = healthy.len() as u64;
        let told = (1..=count).zip(&healthy).map(|(number, well_)| {
            if *well_ { well(number, count) } else { down(number) }
        });
        let mut view = judge(&cluster_of(told), NOW);
        // Whoever leads is among those who are well.
        view.leader = healthy.iter().position(|well_| *well_).map(|at| at as u64 + 1);
        let alive = healthy.iter().filter(|well_| **well_).count();
        prop_assert_eq!(view.has_quorum(), alive >= majority(healthy.len()));
        let id = target as u64 + 1;
        if may_remove(&view, id).is_ok() {
            prop_assert!(alive >= majority(healthy.len() - 1));
            prop_assert!(!healthy[target]);
        }
        if may_add(&view, false).is_ok() {
            prop_assert!(alive >= majority(healthy.len() + 1));
        }
        if !view.has_quorum() {
            prop_assert!(may_add(&view, true).is_err());
        }
    }

    #[test]
    fn two_majorities_always_meet(voters in 1_usize..100) {
        prop_assert!(2 * majority(voters) > voters);
        prop_assert!(majority(voters) <= voters);
    }
}

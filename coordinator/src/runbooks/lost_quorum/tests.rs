use proptest::prelude::*;

use super::*;
use crate::quorum::judge::{Answers, judge as judged};
use crate::quorum::told::{Certificate, Manifest, Member, Status, Trouble};

const CHANCE: Duration = Duration::from_mins(6);

fn name(number: u64) -> NodeName {
    NodeName(format!("m{number}"))
}

fn url(number: u64) -> String {
    format!("https://10.0.0.{number}:2380")
}

fn manifest(number: u64) -> Manifest {
    Manifest {
        name: name(number).0,
        path: "/etc/kubernetes/manifests/etcd.yaml".to_owned(),
        data_dir: "/var/lib/etcd".to_owned(),
        peer_urls: vec![url(number)],
        ..Manifest::default()
    }
}

/// It answers; `leader` of 0: it knows of none.
fn answers(number: u64, leader: u64) -> Told {
    Told {
        manifest: Some(manifest(number)),
        status: Some(Status {
            cluster_id: 0xc,
            member_id: number,
            leader,
            term: 3,
            applied_index: 100,
            revision: 90,
            ..Status::default()
        }),
        members: (1..=3)
            .map(|number| Member {
                id: number,
                name: name(number).0,
                peer_urls: vec![url(number)],
                is_learner: false,
            })
            .collect(),
        has_data: true,
        data_bytes_available: 10 << 30,
        ..Told::default()
    }
}

/// Nobody listens there.
fn down(number: u64, has_data: bool) -> Told {
    Told {
        manifest: Some(manifest(number)),
        trouble: Some(Trouble {
            kind: TroubleKind::Refused,
            detail: "nobody listens".to_owned(),
        }),
        has_data,
        data_bytes_available: 10 << 30,
        ..Told::default()
    }
}

fn view(told: [Result<Told, String>; 3]) -> View {
    let answers: Answers = (1..)
        .zip(told)
        .map(|(number, told)| (name(number), told))
        .collect();
    judged(&answers, 1_800_000_000)
}

fn hosts(stands: [Stands; 3]) -> Vec<Host> {
    (1..)
        .zip(stands)
        .map(|(number, stands)| Host {
            node: name(number),
            stands,
            found: Vec::new(),
        })
        .collect()
}

const BACK: [Stands; 3] = [Stands::Back; 3];

fn decide(hosts: &[Host], view: Option<&View>, standing: Duration) -> Verdict {
    judge(&Scene {
        cluster: &ClusterName("biz".into()),
        hosts,
        view,
        last: None,
        standing,
        chance: CHANCE,
        is_proposed: false,
    })
}

fn one_of_three() -> View {
    view([Ok(answers(1, 0)), Ok(down(2, false)), Ok(down(3, true))])
}

#[test]
fn members_have_their_chance_before_a_restore_is_proposed_and_it_says_what_each_has() {
    let view = one_of_three();
    let early = CHANCE.saturating_sub(Duration::from_secs(31));
    let Verdict::Waits(words) = decide(&hosts(BACK), Some(&view), early) else {
        panic!("too early");
    };
    assert!(words.contains("40 s more"), "{words}");
    let proposal = decide(&hosts(BACK), Some(&view), CHANCE);
    let Verdict::Propose {
        runbook,
        node,
        evidence,
    } = proposal
    else {
        panic!("{proposal:?}");
    };
    assert_eq!((runbook, node), (Runbook::EtcdQuorum, None));
    for part in [
        "etcd has no quorum (0 of 3 voters are well, 2 make a quorum, nobody leads)",
        "m1 answers, with revision 90 of cluster c (term 3, index 100)",
        "m2 has no data in /var/lib/etcd: nobody listens",
        "m3 has data in /var/lib/etcd that no member comes up with",
    ] {
        assert!(evidence.contains(part), "{part} in {evidence}");
    }
}

#[test]
fn what_is_proposed_is_what_is_lost() {
    let all = view([Ok(down(1, false)), Ok(down(2, true)), Ok(down(3, true))]);
    let is = |view: &View, expected, of: Option<u64>| {
        let verdict = decide(&hosts(BACK), Some(view), CHANCE);
        assert!(
            matches!(&verdict, Verdict::Propose { runbook, node, .. } if *runbook == expected && *node == of.map(name)),
            "{expected}: {verdict:?}"
        );
    };
    is(&all, Runbook::EtcdAll, None);
    is(&one_of_three(), Runbook::EtcdQuorum, None);
    let two = view([Ok(answers(1, 1)), Ok(answers(2, 1)), Ok(down(3, false))]);
    is(&two, Runbook::EtcdMember, Some(3));
    // One that a restore has fenced joins anew.
    let mut fenced = down(3, true);
    fenced.manifest.as_mut().unwrap().set_aside_by = Some("etcd-quorum-1".to_owned());
    fenced.trouble.as_mut().unwrap().kind = TroubleKind::NoManifest;
    let two = view([Ok(answers(1, 1)), Ok(answers(2, 1)), Ok(fenced)]);
    is(&two, Runbook::EtcdMember, Some(3));
    let well = view([Ok(answers(1, 1)), Ok(answers(2, 1)), Ok(answers(3, 1))]);
    assert_eq!(decide(&hosts(BACK), Some(&well), CHANCE), Verdict::Well);
}

#[test]
fn nobody_is_judged_before_all_are_back_or_given_up() {
    let away = |given_up| hosts([Stands::Back, Stands::Back, Stands::Away { given_up }]);
    let view = view([
        Ok(answers(1, 0)),
        Ok(down(2, false)),
        Err("its agent is away".into()),
    ]);
    assert_eq!(decide(&away(false), Some(&view), CHANCE), Verdict::NotBack);
    let verdict = decide(&away(true), Some(&view), CHANCE);
    assert!(
        matches!(&verdict, Verdict::Propose { evidence, .. } if evidence.contains("m3 did not come back")),
        "{verdict:?}"
    );
    let held = hosts([
        Stands::Back,
        Stands::Back,
        Stands::KubeletDown { given_up: false },
    ]);
    assert_eq!(decide(&held, Some(&view), CHANCE), Verdict::NotBack);
    assert_eq!(decide(&hosts(BACK), None, CHANCE), Verdict::Unclear);
}

/// What may be found, on the third node, and the word by which it is named.
fn causes() -> Vec<(&'static str, Told, Option<Found>, Stands)> {
    let with = |change: &dyn Fn(&mut Told)| {
        let mut told = down(3, true);
        change(&mut told);
        told
    };
    let expired = Certificate {
        path: "/etc/kubernetes/pki/etcd/peer.crt".to_owned(),
        not_after_unix: 1,
        expired: true,
        trouble: None,
    };
    let found = |kind: &str, subject: &str| {
        Some(Found {
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            evidence: "as it was seen".to_owned(),
        })
    };
    let lost = || down(3, true);
    vec![
        (
            "peer.crt has expired",
            with(&|told| told.certificates = vec![expired.clone()]),
            None,
            Stands::Back,
        ),
        (
            "is full: 3 MiB",
            with(&|told| told.data_bytes_available = 3 << 20),
            None,
            Stands::Back,
        ),
        (
            "set aside by run etcd-all-2",
            with(&|told| told.manifest.as_mut().unwrap().set_aside_by = Some("etcd-all-2".to_owned())),
            None,
            Stands::Back,
        ),
        (
            "put it back (kubeadm",
            with(&|told| {
                told.manifest = None;
                told.trouble.as_mut().unwrap().kind = TroubleKind::NoManifest;
            }),
            None,
            Stands::Back,
        ),
        (
            "RuntimeHung docker.service",
            lost(),
            found("RuntimeHung", "docker.service"),
            Stands::Back,
        ),
        (
            "UnitFailed containerd.service",
            lost(),
            found("UnitFailed", "containerd.service"),
            Stands::Back,
        ),
        (
            "its kubelet does not run (blackstart runbook run node-component m3)",
            lost(),
            None,
            Stands::KubeletDown { given_up: true },
        ),
    ]
}

#[test]
fn another_cause_is_named_and_nothing_is_restored_for_it() {
    for (word, told, found, stands) in causes() {
        let view = view([Ok(answers(1, 0)), Ok(down(2, false)), Ok(told)]);
        let mut hosts = hosts([Stands::Back, Stands::Back, stands]);
        hosts[2].found.extend(found);
        let verdict = decide(&hosts, Some(&view), CHANCE * 9);
        assert!(
            matches!(&verdict, Verdict::Ails(words) if words.contains(word)),
            "{word}: {verdict:?}"
        );
    }
    // What does not keep etcd from running is no cause.
    let mut hosts = hosts(BACK);
    hosts[2].found.push(Found {
        kind: "UnitFailed".to_owned(),
        subject: "chronyd.service".to_owned(),
        evidence: "failed".to_owned(),
    });
    let verdict = decide(&hosts, Some(&one_of_three()), CHANCE);
    assert!(matches!(verdict, Verdict::Propose { .. }), "{verdict:?}");
}

#[test]
fn a_master_that_nobody_counts_on_is_in_nobodys_way() {
    let list = "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380";
    let named = |mut told: Told| {
        told.manifest.as_mut().unwrap().initial_cluster = list.to_owned();
        Ok(told)
    };
    let spare = Told {
        trouble: Some(Trouble {
            kind: TroubleKind::NoManifest,
            detail: "no manifest".to_owned(),
        }),
        ..Told::default()
    };
    let all = [
        named(down(1, true)),
        named(down(2, true)),
        named(down(3, true)),
        Ok(spare),
    ];
    let answers: Answers = (1..)
        .zip(all)
        .map(|(number, told)| (name(number), told))
        .collect();
    let view = judged(&answers, 1_800_000_000);
    let mut all = hosts(BACK);
    all.push(Host {
        node: name(4),
        stands: Stands::Back,
        found: Vec::new(),
    });
    let verdict = decide(&all, Some(&view), CHANCE);
    assert!(
        matches!(
            &verdict,
            Verdict::Propose { runbook: Runbook::EtcdAll, evidence, .. } if !evidence.contains("m4")
        ),
        "{verdict:?}"
    );
}

fn any_stands() -> impl Strategy<Value = Stands> {
    prop_oneof![
        4 => Just(Stands::Back),
        1 => any::<bool>().prop_map(|given_up| Stands::KubeletDown { given_up }),
        1 => any::<bool>().prop_map(|given_up| Stands::Away { given_up }),
    ]
}

fn any_told(number: u64) -> impl Strategy<Value = Result<Told, String>> {
    prop_oneof![
        2 => (0_u64..3).prop_map(move |leader| Ok(answers(number, leader))),
        2 => any::<bool>().prop_map(move |has_data| Ok(down(number, has_data))),
        1 => Just(Err("its agent is away".to_owned())),
    ]
}

proptest! {
    /// Law: no restore without its chance, while somebody is awaited, beside a quorum, or for a cause that is named.
    #[test]
    fn a_restore_is_proposed_for_nothing_else_than_a_lost_quorum(
        stands in [any_stands(), any_stands(), any_stands()],
        told in (any_told(1), any_told(2), any_told(3)),
        standing in 0_u64..900,
        cause in proptest::option::of(0_usize..7),
    ) {
        let mut stands = stands;
        let mut told = [told.0, told.1, told.2];
        let mut found = None;
        let all = causes();
        if let Some((_, ill, hinders, how)) = cause.and_then(|cause| all.get(cause)) {
            told[2] = Ok(ill.clone());
            found.clone_from(hinders);
            stands[2] = *how;
        }
        let view = view(told);
        let mut hosts = hosts(stands);
        hosts[2].found.extend(found);
        let standing = Duration::from_secs(standing);
        if let Verdict::Propose { runbook, .. } = decide(&hosts, Some(&view), standing) {
            prop_assert!(standing >= CHANCE);
            let awaited = |host: &Host| match host.stands {
                Stands::Back => false,
                Stands::KubeletDown { given_up } | Stands::Away { given_up } => !given_up,
            };
            prop_assert!(!hosts.iter().any(awaited));
            prop_assert_eq!(view.has_quorum(), runbook == Runbook::EtcdMember);
            if cause.is_some() && runbook != Runbook::EtcdMember {
                prop_assert!(view.on(&name(3)).is_some_and(|seen| seen.health.is_ok()));
            }
            if runbook == Runbook::EtcdAll {
                prop_assert!(view.cluster_id.is_none());
            }
        }
    }
}

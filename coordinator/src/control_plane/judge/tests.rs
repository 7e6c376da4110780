use super::super::told::Certificate;
use super::*;
use crate::quorum::judge::{Answers, judge};

fn name(number: u32) -> NodeName {
    NodeName(format!("m{number}"))
}

fn part(part: Part) -> PartTold {
    PartTold {
        part,
        manifest: format!("/etc/kubernetes/manifests/{part}.yaml"),
        out_by: None,
        url: "https://127.0.0.1:6443/readyz".to_owned(),
        health: Health::Healthy,
        health_words: "answers 200".to_owned(),
        not_running: Vec::new(),
        certificates: Vec::new(),
        log: Vec::new(),
        etcd_servers: "https://127.0.0.1:2379".to_owned(),
    }
}

fn well() -> Told {
    Told {
        parts: Part::ALL.map(part).into(),
        ..Told::default()
    }
}

fn with(change: impl FnOnce(&mut Told)) -> View {
    let mut told = well();
    change(&mut told);
    View {
        masters: [(name(1), Ok(told)), (name(2), Ok(well()))].into(),
        vip: Some("10.0.0.100".parse().unwrap()),
    }
}

fn api_server(view: &View) -> State {
    view.state(&name(1), Part::ApiServer, None)
}

fn words(view: &View) -> String {
    match api_server(view) {
        State::Ill(cause) => cause.words(Part::ApiServer, &name(1)),
        State::Well(words) => panic!("it is well: {words}"),
        State::Nowhere => panic!("it is nowhere"),
    }
}

#[test]
fn what_a_bounce_does_not_mend_is_named_before_what_it_may_mend() {
    let down = |told: &mut Told| {
        told.parts[0].health = Health::Not;
        told.parts[0].health_words = "refuses connections".to_owned();
    };
    let cases: [(View, &str, bool); 7] = [
        (
            with(|told| {
                down(told);
                told.parts[0].certificates = vec![Certificate {
                    path: "/pki/apiserver.crt".to_owned(),
                    expired: Some("/pki/apiserver.crt has expired, at 2024".to_owned()),
                    trouble: None,
                }];
            }),
            "/pki/apiserver.crt has expired",
            false,
        ),
        (
            with(|told| {
                down(told);
                told.parts[0].out_by = Some("etcd-quorum-1".to_owned());
            }),
            "out by etcd-quorum-1",
            false,
        ),
        (
            with(|told| {
                told.parts.remove(0);
            }),
            "kubeadm init phase control-plane apiserver",
            false,
        ),
        (
            with(|told| {
                told.parts.remove(0);
                told.bad = vec![("/m/kube-apiserver.yaml".to_owned(), "not a pod: tab".to_owned())];
            }),
            "/m/kube-apiserver.yaml: not a pod: tab",
            false,
        ),
        (
            with(|told| told.trouble = Some("read /etc: denied".to_owned())),
            "read /etc: denied",
            false,
        ),
        (
            with(|told| {
                down(told);
                told.parts[0].not_running = vec!["kube-apiserver".to_owned()];
                told.parts[0].log = ["a", "b", "panic: c"].map(str::to_owned).into();
            }),
            "refuses connections; not running: kube-apiserver; its log ends: b | panic: c",
            true,
        ),
        (
            with(down),
            "https://127.0.0.1:6443/readyz refuses connections",
            true,
        ),
    ];
    for (view, expected, mendable) in cases {
        assert!(words(&view).contains(expected), "{expected}: {}", words(&view));
        let State::Ill(cause) = api_server(&view) else {
            panic!("{expected}")
        };
        assert_eq!(cause.is_mendable(), mendable, "{expected}");
    }
    assert!(matches!(api_server(&with(|_| {})), State::Well(_)));
}

#[test]
fn an_expired_certificate_is_told_also_of_one_that_still_answers() {
    // It took the certificate into its memory when it was good, and its clients see the end of it.
    let view = with(|told| {
        told.parts[0].certificates = vec![Certificate {
            expired: Some("x has expired".to_owned()),
            ..Certificate::default()
        }];
    });
    assert!(words(&view).contains("x has expired"));
}

#[test]
fn an_api_server_without_an_etcd_is_not_to_be_bounced() {
    use crate::quorum::told::{Manifest, Told as Etcd};
    let down = with(|told| told.parts[0].health = Health::Not);
    let lost = Etcd {
        manifest: Some(Manifest::default()),
        ..Etcd::default()
    };
    let answers: Answers = [(name(1), Ok(lost.clone())), (name(2), Ok(lost))].into();
    let etcd = judge(&answers, 0);
    let State::Ill(cause) = down.state(&name(1), Part::ApiServer, Some(&etcd)) else {
        panic!("it is down")
    };
    assert!(!cause.is_mendable());
    assert!(
        cause
            .words(Part::ApiServer, &name(1))
            .contains("etcd-quorum --cluster"),
        "{cause:?}"
    );
    // Its scheduler has nothing to do with that.
    let State::Well(_) = down.state(&name(1), Part::Scheduler, Some(&etcd)) else {
        panic!("it is well")
    };
    // Of an etcd that runs elsewhere nothing is known.
    let unknown = judge(&[(name(1), Ok(Etcd::default()))].into(), 0);
    let State::Ill(Cause::Down(_)) = down.state(&name(1), Part::ApiServer, Some(&unknown)) else {
        panic!("it may be bounced")
    };
}

#[test]
fn a_part_that_no_master_has_is_nobodys_loss() {
    let mut view = with(|_| {});
    for told in view.masters.values_mut().flatten() {
        told.parts.retain(|one| one.part != Part::Scheduler);
    }
    assert_eq!(view.state(&name(1), Part::Scheduler, None), State::Nowhere);
    view.masters
        .insert(name(2), Err("its agent is not in session".to_owned()));
    let ill = view.other_ill(&name(1), Part::ApiServer, None);
    assert_eq!(
        ill.map(|(node, _)| node.clone()),
        Some(name(2)),
        "unknown is not well"
    );
}

#[test]
fn who_has_the_virtual_address_is_told_with_what_is_wrong_about_it() {
    let words = |view: &View| view.vip_words(None).unwrap();
    let have = |told: &mut Told| told.addresses = vec!["10.0.0.1".to_owned(), "10.0.0.100".to_owned()];
    assert!(words(&with(|_| {})).contains("on no master"));
    assert!(words(&with(have)).contains("on m1, whose API server is well"));
    let blind = with(|told| {
        have(told);
        told.parts[0].health = Health::Not;
    });
    assert!(words(&blind).contains("its check script"));
    let mut both = with(have);
    both.masters.values_mut().flatten().for_each(have);
    assert!(words(&both).contains("on m1, m2 at once"));
}

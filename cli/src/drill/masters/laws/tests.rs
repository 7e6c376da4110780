use super::super::chronicle::{Health, Manifest};
use super::*;

fn step(id: &str) -> StepStory {
    StepStory {
        id: id.to_owned(),
        phase: "done".to_owned(),
        ..StepStory::default()
    }
}

fn out(node: &str, gone_ms: u64, back_ms: u64) -> Out {
    Out {
        node: node.to_owned(),
        pod: "kube-apiserver".to_owned(),
        gone_ms,
        back_ms: Some(back_ms),
    }
}

fn health(node: &str, at_ms: u64, well: bool) -> Health {
    Health {
        at_ms,
        node: node.to_owned(),
        pod: "kube-apiserver".to_owned(),
        well,
    }
}

/// Two API servers are restarted, one after the other.
fn lawful() -> Chronicle {
    Chronicle {
        runs: vec![RunStory {
            id: "control-plane-1".to_owned(),
            asked_ms: 1_000,
            ended_ms: Some(9_000),
            steps: vec![step("bounce-apiserver:a"), step("bounce-apiserver:b")],
            ..RunStory::default()
        }],
        outs: vec![out("a", 2_000, 3_000), out("b", 5_000, 6_000)],
        health: vec![
            health("a", 0, true),
            health("b", 0, true),
            health("a", 2_100, false),
            health("a", 3_500, true),
            health("b", 5_100, false),
            health("b", 6_500, true),
        ],
        manifests: vec![Manifest {
            node: "a".to_owned(),
            pod: "kube-apiserver".to_owned(),
            before: "x".to_owned(),
            wanted: "x".to_owned(),
            after: Some("x".to_owned()),
            rewritten: false,
            kept: false,
        }],
        ..Chronicle::default()
    }
}

fn broken(chronicle: &Chronicle) -> Vec<Law> {
    let verdicts = judge(chronicle).into_iter();
    verdicts
        .filter(|verdict| !verdict.violations.is_empty())
        .map(|verdict| verdict.law)
        .collect()
}

#[test]
fn a_lawful_drill_breaks_none() {
    assert_eq!(broken(&lawful()), []);
}

#[test]
fn each_law_finds_who_breaks_it() {
    let with = |change: fn(&mut Chronicle)| {
        let mut chronicle = lawful();
        change(&mut chronicle);
        broken(&chronicle)
    };
    assert_eq!(
        with(|it| it.outs[0].back_ms = Some(5_500)),
        [Law::OneAtATime],
        "two are out at once"
    );
    assert_eq!(
        with(|it| it.health[3].at_ms = 5_900),
        [Law::OneAtATime],
        "the next goes out before the one before is well"
    );
    assert_eq!(
        with(|it| {
            it.runs[0].steps.pop();
        }),
        [Law::OnlyPlanned]
    );
    assert_eq!(
        with(|it| {
            it.runs[0].steps[0].wants_approval = true;
            it.runs[0].steps[0].approved_ms = Some(2_500);
        }),
        [Law::OnlyPlanned],
        "the first went out before it was approved"
    );
    assert_eq!(
        with(|it| {
            it.runs[0].steps[0].phase = "failed".to_owned();
            it.runs[0].steps[0].ended_ms = Some(4_000);
        }),
        [Law::Stops]
    );
    assert_eq!(with(|it| it.manifests[0].after = None), [Law::Manifests]);
    assert_eq!(
        with(|it| {
            it.manifests[0].rewritten = true;
            it.manifests[0].wanted = "y".to_owned();
            it.manifests[0].after = Some("y".to_owned());
        }),
        [Law::Manifests],
        "the old one is not kept"
    );
    assert_eq!(with(|it| it.wrong.push("x".to_owned())), [Law::End]);
    assert_eq!(with(|it| it.lost.push("key".to_owned())), [Law::Data]);
    assert_eq!(with(|it| it.no_copy.push("x".to_owned())), [Law::Copies]);
    assert_eq!(
        with(|it| {
            it.runs.push(RunStory {
                id: "etcd-quorum-1".to_owned(),
                asked_ms: 10_000,
                steps: vec![StepStory {
                    wants_approval: true,
                    approved_ms: Some(11_000),
                    ..step("fence-etcd:a")
                }],
                ..RunStory::default()
            });
        }),
        [Law::TwoPersons]
    );
    assert_eq!(
        with(|it| it.ledgers.push((
            "c".to_owned(),
            vec![crate::drill::history::Entry {
                sequence: 1,
                remedy: "control-plane-bounce".to_owned(),
                command: Some("control-plane-1/0/1".to_owned()),
                boot: String::new(),
                epoch: 1,
                succeeded: true,
            }]
        ))),
        [Law::Agents]
    );
}

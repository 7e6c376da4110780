//! An etcd member that is replaced on another node, or on its own that was set up anew: what is asked, what is planned, and what is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::bed::request;
use super::etcd::{NOW, actions, down, look_at, missing, name, told, two_of_three, url, well};
use super::plans::world;
use crate::fleet::EtcdAct;
use crate::inventory::Role;
use crate::quorum::eyes::Glance;
use crate::quorum::judge::{Answers, judge};
use crate::quorum::newcomer::{NewManifest, Newcomer, Prepared};
use crate::quorum::told::{Member, Told, TroubleKind};
use crate::runbooks::call::Call;
use crate::runbooks::etcd_newcomer::wanted;
use crate::runbooks::look::Look;
use crate::runbooks::plan::{Action, Runbook, RunbookPlan};
use crate::runbooks::waiting::WaitingOn;
use crate::runbooks::world::{Agent, World};

fn addresses() -> BTreeMap<crate::inventory::NodeName, IpAddr> {
    let of = |number: u64| (name(number), format!("10.0.0.{number}").parse().unwrap());
    (1..=4).map(of).collect()
}

fn none() -> Told {
    Told {
        manifest: None,
        ..down(
            4,
            TroubleKind::NoManifest,
            "no manifest in /etc/kubernetes/manifests runs etcd",
        )
    }
}

fn silent() -> Result<Told, String> {
    Err("its agent is not in session".to_owned())
}

/// Three members of which the third is as given, and a fourth master that has none.
fn with_spare(third: Result<Told, String>, fourth: Result<Told, String>) -> Answers {
    let mut answers = two_of_three("3.5.16", third);
    answers.insert(name(4), fourth);
    answers
}

/// What is known when `etcd-member m3` is planned, with what the agent of the other node tells.
fn known(answers: &Answers, on: Option<u64>, prepared: &Result<Prepared, String>) -> (RunbookPlan, World) {
    let view = judge(answers, NOW);
    let speaks = Agent::Speaks {
        kubelet_active: true,
        kubelet_healthy: true,
        held: false,
        observed: Instant::now(),
    };
    let gone = Agent::Silent {
        since: None,
        left: false,
    };
    let on = on.map(name);
    let newcomer = wanted(&view, &name(3), on.as_ref(), &addresses()).map(|wanted| Newcomer {
        wanted,
        told: prepared
            .clone()
            .map(|prepared| ("etcd.yaml".to_owned(), prepared)),
    });
    let world = World {
        node: name(3),
        role: Role::ControlPlane,
        agent: if answers[&name(3)].is_ok() { speaks } else { gone },
        etcd: Some(Glance {
            view: Arc::new(view),
            at: Instant::now(),
        }),
        addresses: addresses(),
        newcomer,
        ..world()
    };
    let mut request = request(Runbook::EtcdMember);
    request.node = name(3);
    request.options.on = on;
    (super::super::plan(request, &world), world)
}

#[allow(clippy::unnecessary_wraps, reason = "as an agent answers")]
fn ready() -> Result<Prepared, String> {
    Ok(Prepared {
        text: "the manifest".to_owned(),
        changed: vec!["- --name=m1".to_owned(), "+ --name=m4".to_owned()],
        ..Prepared::default()
    })
}

#[tokio::test]
async fn a_dead_node_gives_way_to_another_one() {
    let answers = with_spare(silent(), Ok(none()));
    let (plan, world) = known(&answers, Some(4), &ready());
    assert_eq!(
        actions(&plan),
        [
            "snapshot-etcd:m2",
            "snapshot-etcd:m1",
            "remove-etcd-member:m1",
            "add-etcd-member:m1",
            "rebuild-etcd-member:m4",
            "await-etcd-sync",
            "promote-etcd-member:m1",
            "await-etcd-healthy",
            "set-initial-cluster:m1",
            "set-initial-cluster:m2",
        ],
        "{:?}",
        plan.refusals
    );
    let replaced = plan.etcd.clone().unwrap();
    assert_eq!((replaced.member_id, replaced.peer_urls), (Some(3), vec![url(4)]));
    assert_eq!(
        replaced.initial_cluster,
        format!("m1={},m2={},m4={}", url(1), url(2), url(4))
    );
    let asked: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| step.approval.as_ref())
        .collect();
    assert_eq!(
        asked.len(),
        1,
        "who approves of the removal approves of what follows"
    );
    assert!(
        asked[0].contains("a member on m4 takes its place, with the manifest of m1"),
        "{}",
        asked[0]
    );
    assert!(plan.notes.concat().contains("+ --name=m4"), "{:?}", plan.notes);

    // It is added, and its agent is given the manifest.
    let list = |told: &mut Told| {
        told.members.retain(|member| member.id != 3);
        told.members.push(Member {
            id: 4,
            name: String::new(),
            peer_urls: vec![url(4)],
            is_learner: true,
        });
    };
    let [mut first, mut second] = [well(1, 1, "3.5.16"), well(2, 1, "3.5.16")];
    list(&mut first);
    list(&mut second);
    let mut added = told([Ok(first), Ok(second), silent()]);
    added.insert(name(4), Ok(none()));
    let world = World {
        etcd: Some(Glance {
            view: Arc::new(judge(&added, NOW)),
            at: Instant::now(),
        }),
        ..world
    };
    let step = |action| plan.steps.iter().find(|step| step.action == action).unwrap();
    let look = look_at(step(Action::RebuildEtcdMember), &plan, &world);
    let Look::Do(calls, _) = look else {
        panic!("{look:?}")
    };
    let new = NewManifest {
        file: "etcd.yaml".to_owned(),
        text: "the manifest".to_owned(),
    };
    let has_it = |call: &Call| matches!(call, Call::Etcd { act: EtcdAct::Rebuild { manifest, .. }, .. } if *manifest == Some(new.clone()));
    assert!(calls.iter().any(has_it), "{calls:?}");
}

#[tokio::test]
async fn one_that_is_well_again_before_it_is_taken_out_is_kept_and_nothing_takes_its_place() {
    let answers = with_spare(silent(), Ok(none()));
    let (plan, world) = known(&answers, Some(4), &ready());
    let back = with_spare(Ok(well(3, 1, "3.5.16")), Ok(none()));
    let world = World {
        etcd: Some(Glance {
            view: Arc::new(judge(&back, NOW)),
            at: Instant::now(),
        }),
        ..world
    };
    for step in plan
        .steps
        .iter()
        .filter(|step| !matches!(step.action, Action::SnapshotEtcd))
    {
        let look = look_at(step, &plan, &world);
        assert!(matches!(&look, Look::Done(_)), "{}: {look:?}", step.id());
    }
}

#[tokio::test]
async fn where_the_agent_of_the_old_node_speaks_its_manifest_is_taken_out() {
    let broken = Ok(down(3, TroubleKind::Refused, "nobody listens"));
    let (plan, _) = known(&with_spare(broken, Ok(none())), Some(4), &ready());
    let actions = actions(&plan);
    let at = |wanted: &str| actions.iter().position(|id| id == wanted).unwrap();
    assert!(at("remove-etcd-member:m1") < at("fence-etcd"), "{actions:?}");
    assert_eq!(
        at("fence-etcd"),
        actions.len() - 1,
        "what fails there is in nobody's way: {actions:?}"
    );
}

#[tokio::test]
async fn a_node_that_was_set_up_anew_gets_the_manifest_of_another_member() {
    let anew = Ok(Told {
        manifest: None,
        ..down(3, TroubleKind::NoManifest, "no manifest")
    });
    let (plan, _) = known(&with_spare(anew, silent()), None, &ready());
    let actions = actions(&plan);
    assert!(actions.contains(&"rebuild-etcd-member".to_owned()), "{actions:?}");
    assert!(
        !actions
            .iter()
            .any(|id| id.starts_with("bounce") || id.starts_with("fence")),
        "{actions:?}"
    );
    let replaced = plan.etcd.unwrap();
    assert_eq!((replaced.member_id, replaced.peer_urls), (Some(3), vec![url(3)]));
    assert!(replaced.newcomer.is_some());
}

#[tokio::test]
async fn a_member_whose_name_is_not_its_nodes_is_found_by_its_address() {
    let mut answers = with_spare(silent(), Ok(none()));
    for number in [1, 2] {
        let told = answers.get_mut(&name(number)).unwrap().as_mut().unwrap();
        told.members[2].name = "infra2".to_owned();
    }
    let (plan, _) = known(&answers, Some(4), &ready());
    assert_eq!(plan.etcd.unwrap().member_id, Some(3));
}

#[tokio::test]
async fn what_the_other_node_lacks_is_told_and_nothing_is_planned() {
    let lacking = Ok(Prepared {
        text: "the manifest".to_owned(),
        missing: vec![
            "the key /etc/kubernetes/pki/etcd/peer.key".to_owned(),
            "/var/lib/etcd".to_owned(),
        ],
        ..Prepared::default()
    });
    let spare = || with_spare(silent(), Ok(none()));
    let of = |answers: &Answers, on, prepared: &Result<Prepared, String>| {
        missing(&known(answers, Some(on), prepared).0)
    };
    let all = of(&spare(), 4, &lacking);
    assert!(
        all.contains("on m4: the key") && all.contains("on m4: /var/lib/etcd"),
        "{all}"
    );
    for (answers, on, prepared, why) in [
        (
            spare(),
            4,
            Err("the manifest of m1: its agent answered another question".to_owned()),
            "the manifest of m1",
        ),
        (spare(), 2, ready(), "m2 has a member of this cluster already"),
        (spare(), 7, ready(), "m7 is none of cluster biz"),
        (with_spare(silent(), silent()), 4, ready(), "the agent of m4"),
        (
            with_spare(Ok(well(3, 1, "3.5.16")), Ok(none())),
            4,
            ready(),
            "it is well",
        ),
        (
            with_spare(silent(), Ok(down(4, TroubleKind::Refused, "nobody listens"))),
            4,
            ready(),
            "etcd.yaml is there on m4",
        ),
        (
            told([Ok(well(1, 0, "3.5.16")), silent(), silent(), Ok(none())]),
            4,
            ready(),
            "etcd-quorum --cluster",
        ),
    ] {
        let missing = of(&answers, on, &prepared);
        assert!(missing.contains(why), "{why}: {missing}");
    }
}

/// The leader's list with another member in place of the third.
fn listed(number: u64, member_name: &str) -> Told {
    let mut told = well(number, 1, "3.5.16");
    told.members[2] = Member {
        id: 4,
        name: member_name.to_owned(),
        peer_urls: vec![url(4)],
        is_learner: false,
    };
    told
}

#[tokio::test]
async fn a_voter_whose_manifest_is_gone_is_no_free_place_and_its_data_is_not_set_aside() {
    // The third was replaced by the fourth before, whose manifest somebody has taken away since.
    let mut answers = told([Ok(listed(1, "m4")), Ok(listed(2, "m4")), silent()]);
    answers.insert(name(4), Ok(none()));
    let (plan, _) = known(&answers, Some(4), &ready());
    let why = missing(&plan);
    assert!(
        why.contains("m4 has a member of this cluster already") && why.contains("etcd-member m4"),
        "{why}"
    );
    // The same, seen only once a plan is carried out.
    let (plan, world) = known(&with_spare(silent(), Ok(none())), Some(4), &ready());
    let world = World {
        etcd: Some(Glance {
            view: Arc::new(judge(&answers, NOW)),
            at: Instant::now(),
        }),
        ..world
    };
    let rebuild = plan
        .steps
        .iter()
        .find(|step| step.action == Action::RebuildEtcdMember);
    let look = look_at(rebuild.unwrap(), &plan, &world);
    assert!(
        matches!(&look, Look::Failed(why) if why.contains("votes with the data")),
        "{look:?}"
    );
}

#[tokio::test]
async fn an_approval_that_comes_late_finds_the_other_node_as_it_was_or_nobody_is_taken_out() {
    let (plan, world) = known(&with_spare(silent(), Ok(none())), Some(4), &ready());
    assert!(
        plan.steps[2]
            .approval
            .as_ref()
            .unwrap()
            .contains("the agent of m3 is silent"),
        "{:?}",
        plan.steps[2]
    );
    for fourth in [silent(), Ok(down(4, TroubleKind::Refused, "nobody listens"))] {
        let world = World {
            etcd: Some(Glance {
                view: Arc::new(judge(&with_spare(silent(), fourth), NOW)),
                at: Instant::now(),
            }),
            ..world.clone()
        };
        let look = look_at(&plan.steps[2], &plan, &world);
        assert!(
            matches!(&look, Look::Wait(WaitingOn::Etcd(why)) if why.contains("m4")),
            "{look:?}"
        );
    }
}

#[tokio::test]
async fn a_learner_that_is_well_is_gone_on_with_and_replaced_by_nobody() {
    let learner = |number| {
        let mut told = well(number, 1, "3.5.16");
        told.members[2].is_learner = true;
        if number == 3 {
            told.status.as_mut().unwrap().is_learner = true;
        }
        Ok(told)
    };
    let mut answers = told([learner(1), learner(2), learner(3)]);
    answers.insert(name(4), Ok(none()));
    let why = missing(&known(&answers, Some(4), &ready()).0);
    assert!(why.contains("etcd-member m3 goes on with it"), "{why}");
}

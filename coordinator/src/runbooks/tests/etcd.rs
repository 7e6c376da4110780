//! What the runbooks of etcd plan, from what agents tell.

use std::sync::Arc;

use tokio::time::Instant;

use super::bed::request;
use super::plans::world;
use crate::inventory::{NodeName, Role};
use crate::quorum::eyes::{Findings, Glance};
use crate::quorum::judge::{Answers, judge, survivor};
use crate::quorum::sources::{OutOf, Source, Sources};
use crate::quorum::told::{Certificate, Manifest, Member, Status, Told, Trouble, TroubleKind};
use crate::runbooks::look::{Context, Look, Progress, look};
use crate::runbooks::plan::{Action, Proof, Runbook, RunbookPlan, Step};
use crate::runbooks::waiting::WaitingOn;
use crate::runbooks::world::{Agent, World};

pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn name(number: u64) -> NodeName {
    NodeName(format!("m{number}"))
}

pub(super) fn url(number: u64) -> String {
    format!("https://10.0.0.{number}:2380")
}

/// Three members; `leader` of 0: none.
pub(super) fn well(number: u64, leader: u64, version: &str) -> Told {
    Told {
        manifest: Some(manifest(number)),
        status: Some(Status {
            cluster_id: 0xc,
            member_id: number,
            version: version.to_owned(),
            leader,
            term: 3,
            raft_index: 100,
            applied_index: 100,
            revision: 90,
            db_bytes: 1 << 20,
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
        data_bytes_available: 10 << 30,
        ..Told::default()
    }
}

pub(super) fn manifest(number: u64) -> Manifest {
    Manifest {
        name: name(number).0,
        path: "/etc/kubernetes/manifests/etcd.yaml".to_owned(),
        data_dir: "/var/lib/etcd".to_owned(),
        peer_urls: vec![url(number)],
        initial_cluster: format!("{}={}", name(number), url(number)),
        initial_cluster_state: "new".to_owned(),
        ..Manifest::default()
    }
}

pub(super) fn down(number: u64, kind: TroubleKind, why: &str) -> Told {
    Told {
        manifest: Some(manifest(number)),
        trouble: Some(Trouble {
            kind,
            detail: why.to_owned(),
        }),
        data_bytes_available: 10 << 30,
        ..Told::default()
    }
}

pub(super) fn told(all: impl IntoIterator<Item = Result<Told, String>>) -> Answers {
    (1..)
        .zip(all)
        .map(|(number, told)| (name(number), told))
        .collect()
}

fn plan_of(runbook: Runbook, answers: &Answers) -> RunbookPlan {
    let world = World {
        node: name(3),
        role: Role::ControlPlane,
        agent: Agent::Speaks {
            kubelet_active: true,
            kubelet_healthy: true,
            held: false,
            observed: Instant::now(),
        },
        etcd: Some(Glance {
            view: Arc::new(judge(answers, NOW)),
            at: Instant::now(),
        }),
        ..world()
    };
    let mut request = request(runbook);
    request.node = name(3);
    super::super::plan(request, &world)
}

pub(super) fn actions(plan: &RunbookPlan) -> Vec<String> {
    plan.steps.iter().map(Step::id).collect()
}

pub(super) fn missing(plan: &RunbookPlan) -> String {
    assert!(plan.steps.is_empty(), "{:?}", actions(plan));
    plan.refusals
        .iter()
        .map(|refusal| refusal.missing.clone())
        .collect()
}

#[allow(clippy::unnecessary_wraps, reason = "as the agents of others answer")]
fn refused() -> Result<Told, String> {
    Ok(down(3, TroubleKind::Refused, "nobody listens"))
}

pub(super) fn two_of_three(version: &str, third: Result<Told, String>) -> Answers {
    told([Ok(well(1, 1, version)), Ok(well(2, 1, version)), third])
}

#[tokio::test]
async fn a_lost_member_is_brought_back_in_place_or_replaced_after_two_snapshots() {
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", refused()));
    assert_eq!(
        actions(&plan),
        [
            "snapshot-etcd:m2",
            "snapshot-etcd:m1",
            "bounce-etcd",
            "remove-etcd-member:m1",
            "add-etcd-member:m1",
            "rebuild-etcd-member",
            "await-etcd-sync",
            "promote-etcd-member:m1",
            "await-etcd-healthy",
            "set-initial-cluster:m1",
            "set-initial-cluster:m2"
        ]
    );
    let approvals: Vec<_> = plan
        .steps
        .iter()
        .filter(|step| step.approval.is_some())
        .map(|step| step.action)
        .collect();
    assert_eq!(
        approvals,
        [Action::RemoveEtcdMember],
        "before anything is given up"
    );
    let approval = plan.steps.iter().find_map(|step| step.approval.clone()).unwrap();
    let diff =
        "m1: - --initial-cluster=m1=https://10.0.0.1:2380 + --initial-cluster=m1=https://10.0.0.1:2380,m2=";
    assert!(approval.contains(diff), "{approval}");
    let replaced = plan.etcd.unwrap();
    assert_eq!(
        replaced.initial_cluster,
        "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380"
    );
}

#[tokio::test]
async fn the_manifests_of_others_are_brought_up_to_date_while_one_more_may_be_away_and_after_a_replacement_alone()
 {
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", refused()));
    let step = plan
        .steps
        .iter()
        .find(|step| step.action == Action::SetInitialCluster)
        .unwrap();
    let anew = |third: Result<Told, String>| {
        let mut all = [Ok(well(1, 1, "3.5.16")), Ok(well(2, 1, "3.5.16")), third];
        for told in all.iter_mut().flatten() {
            for member in told.members.iter_mut().filter(|member| member.id == 3) {
                member.id = 9;
            }
            if let Some(status) = told.status.as_mut().filter(|status| status.member_id == 3) {
                status.member_id = 9;
            }
        }
        told(all)
    };
    let at = |answers: &Answers| look_at(step, &plan, &world_of(answers, &Sources::new()));
    let look = at(&anew(Ok(well(3, 1, "3.5.16"))));
    assert!(matches!(look, Look::Do(..)), "{look:?}");
    let look = at(&anew(refused()));
    assert!(
        matches!(&look, Look::Wait(WaitingOn::Etcd(why)) if why.contains("so that m1 may be away")),
        "{look:?}"
    );
    // It came back in place: nobody is touched.
    let kept = told([1, 2, 3].map(|number| Ok(well(number, 1, "3.5.16"))));
    let look = at(&kept);
    assert!(
        matches!(&look, Look::Done(why) if why.contains("was kept")),
        "{look:?}"
    );
    let mut done = anew(Ok(well(3, 1, "3.5.16")));
    let list = &plan.etcd.as_ref().unwrap().initial_cluster;
    for told in done.values_mut().flatten() {
        told.manifest.as_mut().unwrap().initial_cluster.clone_from(list);
    }
    let look = at(&done);
    assert!(matches!(&look, Look::Done(_)), "{look:?}");
}

#[tokio::test]
async fn without_learners_a_voter_is_added_only_after_a_second_approval() {
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.3.27", refused()));
    let add = plan
        .steps
        .iter()
        .find(|step| step.action == Action::AddEtcdMember)
        .unwrap();
    assert!(add.approval.as_ref().unwrap().contains("3.3.27 has no learners"));
    assert!(!actions(&plan).iter().any(|id| id.starts_with("promote")));
    assert!(!plan.etcd.unwrap().learner);
}

#[tokio::test]
async fn what_a_new_member_would_not_mend_is_refused_with_what_would() {
    let expired = Ok(down(3, TroubleKind::Expired, "server.crt has expired"));
    let silent = Err("its agent is not in session".to_owned());
    let full = Ok(Told {
        data_bytes_available: 1 << 20,
        ..down(3, TroubleKind::Refused, "nobody listens")
    });
    for (third, why) in [
        (expired, "kubeadm certs renew"),
        (silent, "node-down m3"),
        (full, "258 are needed"),
        (Ok(well(3, 1, "3.5.16")), "it is well"),
    ] {
        let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", third));
        assert!(missing(&plan).contains(why), "{why}: {}", missing(&plan));
    }
    let alone = told([Ok(well(1, 0, "3.5.16")), refused(), refused()]);
    let plan = plan_of(Runbook::EtcdMember, &alone);
    assert!(
        missing(&plan).contains("etcd-quorum --cluster"),
        "{}",
        missing(&plan)
    );
}

#[tokio::test]
async fn a_member_that_its_peers_refuse_is_not_replaced_and_its_certificate_is_named() {
    // It answers its own agent by another certificate.
    let mut isolated = well(3, 0, "3.5.16");
    isolated.certificates = vec![Certificate {
        path: "/etc/kubernetes/pki/etcd/peer.crt".to_owned(),
        not_after_unix: 1_700_000_000,
        expired: true,
        trouble: None,
    }];
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", Ok(isolated)));
    let missing = missing(&plan);
    assert!(
        missing
            .contains("certificates that are good: /etc/kubernetes/pki/etcd/peer.crt of m3 (at 2023-11-14"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_leader_that_is_lost_itself_is_not_asked_to_take_itself_out() {
    // The others have not missed it yet.
    let lost = told([Ok(well(1, 3, "3.5.16")), Ok(well(2, 3, "3.5.16")), refused()]);
    let plan = plan_of(Runbook::EtcdMember, &lost);
    assert!(actions(&plan).is_empty(), "{:?}", actions(&plan));
    let missing = missing(&plan);
    assert!(missing.contains("a leader that answers"), "{missing}");
}

#[tokio::test]
async fn nothing_is_fenced_for_a_restore_that_does_not_fit() {
    let full = Told {
        data_bytes_available: 100 << 20,
        ..well(1, 0, "3.5.16")
    };
    let second = Ok(down(2, TroubleKind::Refused, "nobody listens"));
    let lost = told([Ok(full), second, refused()]);
    let plan = plan_of(Runbook::EtcdQuorum, &lost);
    assert!(actions(&plan).is_empty(), "{:?}", actions(&plan));
    let missing = missing(&plan);
    assert!(
        missing.contains(
            "room in /var/lib/etcd of m1: 100 MiB are free, and 131 MiB are needed: 31 MiB are missing"
        ),
        "{missing}"
    );
}

#[tokio::test]
async fn a_fenced_member_is_not_bounced_and_gets_its_control_plane_back() {
    let mut fenced = down(3, TroubleKind::NoManifest, "no manifest");
    fenced.manifest.as_mut().unwrap().set_aside_by = Some("etcd-quorum-1".to_owned());
    fenced.stopped = vec!["kube-apiserver".to_owned()];
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", Ok(fenced)));
    let actions = actions(&plan);
    assert!(!actions.iter().any(|id| id.starts_with("bounce")), "{actions:?}");
    let healthy = actions.iter().position(|id| id == "await-etcd-healthy").unwrap();
    assert_eq!(actions[healthy + 1], "start-control-plane");
}

#[tokio::test]
async fn who_has_seen_most_survives() {
    let with = |number, term, applied| {
        let mut told = well(number, 0, "3.5.16");
        let status = told.status.as_mut().unwrap();
        (status.term, status.applied_index) = (term, applied);
        Ok(told)
    };
    for (all, expected) in [
        ([with(1, 3, 100), with(2, 4, 90), refused()], 2),
        ([with(1, 4, 91), with(2, 4, 90), refused()], 1),
    ] {
        let view = judge(&told(all), NOW);
        assert_eq!(survivor(&view).unwrap().node, Some(name(expected)));
    }
    assert!(survivor(&judge(&told([refused()]), NOW)).is_none());
}

#[tokio::test]
async fn a_lost_quorum_fences_the_others_before_anything_is_restored() {
    let lost = told([
        Ok(well(1, 0, "3.5.16")),
        Ok(down(2, TroubleKind::Refused, "down")),
        refused(),
    ]);
    let plan = plan_of(Runbook::EtcdQuorum, &lost);
    assert_eq!(
        actions(&plan),
        [
            "bounce-etcd:m2",
            "bounce-etcd:m3",
            "snapshot-etcd:m1",
            "fence-etcd:m2",
            "fence-etcd:m3",
            "stop-control-plane:m2",
            "stop-control-plane:m3",
            "stop-control-plane:m1",
            "restore-etcd:m1",
            "await-etcd-healthy",
            "start-control-plane:m1"
        ]
    );
    assert!(
        plan.steps[3].approval.is_some() && plan.steps[..3].iter().all(|step| step.approval.is_none()),
        "what is tried in place wants nobody's word"
    );
    let well_ = two_of_three("3.5.16", refused());
    assert!(missing(&plan_of(Runbook::EtcdQuorum, &well_)).contains("a lost quorum"));
}

#[tokio::test]
async fn a_member_whose_agent_is_away_has_to_be_proved_to_stay_away() {
    let lost = told([
        Ok(well(1, 0, "3.5.16")),
        Err("its agent is not in session".to_owned()),
        refused(),
    ]);
    let refused = plan_of(Runbook::EtcdQuorum, &lost);
    assert!(
        missing(&refused).contains("proof that m2"),
        "{}",
        missing(&refused)
    );
    let mut asked = request(Runbook::EtcdQuorum);
    asked.proof = Some(Proof::Operator {
        by: "ann".to_owned(),
        what: "its power cable is in my hand".to_owned(),
    });
    let world = World {
        etcd: Some(Glance {
            view: Arc::new(judge(&lost, NOW)),
            at: Instant::now(),
        }),
        ..world()
    };
    let plan = super::super::plan(asked, &world);
    assert!(
        !actions(&plan).iter().any(|id| id.ends_with(":m2")),
        "{:?}",
        actions(&plan)
    );
    assert!(
        plan.notes.iter().any(|note| note.contains("m2 is not fenced")),
        "{:?}",
        plan.notes
    );
}

#[tokio::test]
async fn a_list_that_nobody_vouches_for_decides_nothing() {
    let plan = plan_of(Runbook::EtcdMember, &two_of_three("3.5.16", refused()));
    let away = || Err("its agent is not in session".to_owned());
    let other = |number| {
        let mut told = well(number, 1, "3.5.16");
        told.status.as_mut().unwrap().cluster_id = 0xbad;
        Ok(told)
    };
    for answers in [
        told([away(), away(), refused()]),
        told([Ok(well(1, 1, "3.5.16")), away(), refused()]),
        told([other(1), other(2), other(3)]),
    ] {
        let world = World {
            node: name(3),
            etcd: Some(Glance {
                view: Arc::new(judge(&answers, NOW)),
                at: Instant::now(),
            }),
            ..world()
        };
        for step in plan.steps.iter().filter(|step| {
            !matches!(
                step.action,
                Action::SnapshotEtcd | Action::BounceEtcd | Action::AwaitEtcdHealthy
            )
        }) {
            let look = look_at(step, &plan, &world);
            assert!(
                matches!(look, Look::Wait(WaitingOn::Etcd(_))),
                "{}: {look:?}",
                step.id()
            );
        }
    }
}

#[tokio::test]
async fn a_voters_data_is_not_set_aside_before_it_is_taken_out() {
    let answers = two_of_three("3.5.16", refused());
    let plan = plan_of(Runbook::EtcdMember, &answers);
    let world = World {
        node: name(3),
        etcd: Some(Glance {
            view: Arc::new(judge(&answers, NOW)),
            at: Instant::now(),
        }),
        ..world()
    };
    let rebuild = plan
        .steps
        .iter()
        .find(|step| step.action == Action::RebuildEtcdMember)
        .unwrap();
    let look = look_at(rebuild, &plan, &world);
    assert!(
        matches!(&look, Look::Failed(why) if why.contains("votes with the data")),
        "{look:?}"
    );
}

pub(super) fn look_at(step: &Step, plan: &RunbookPlan, world: &World) -> Look {
    let context = Context {
        run: "etcd-member-1",
        request: &plan.request,
        plan,
        undoing: false,
        mends: &plan.mends,
    };
    let progress = Progress {
        begun: true,
        ..Progress::default()
    };
    look(step, &progress, context, world)
}

fn world_of(answers: &Answers, sources: &Sources) -> World {
    World {
        etcd: Some(Glance {
            view: Arc::new(judge(answers, NOW)),
            at: Instant::now(),
        }),
        found: Some(Findings {
            sources: Arc::new(sources.clone()),
            at: Instant::now(),
        }),
        ..world()
    }
}

fn data(number: u64, revision: i64) -> (NodeName, Result<Vec<Source>, String>) {
    let source = Source {
        out_of: OutOf::Data {
            directory: "member".to_owned(),
            revision,
        },
        path: "/var/lib/etcd/member".to_owned(),
        cluster_id: Some(0xc),
        revision,
        bytes: 1 << 20,
        written_unix_ms: 0,
        age_ms: 60_000,
        version: "3.5.16".to_owned(),
        damage: None,
    };
    (name(number), Ok(vec![source]))
}

#[tokio::test]
async fn when_nobody_answers_the_data_that_has_most_is_restored_after_all_others_are_fenced() {
    let down = |number| Ok(down(number, TroubleKind::Refused, "nobody listens"));
    let lost = told([down(1), down(2), down(3)]);
    let sources: Sources = [data(1, 70), data(2, 90), data(3, 80)].into();
    let plan = super::super::plan(request(Runbook::EtcdAll), &world_of(&lost, &sources));
    assert_eq!(
        actions(&plan),
        [
            "bounce-etcd:m1",
            "bounce-etcd:m3",
            "bounce-etcd:m2",
            "fence-etcd:m1",
            "fence-etcd:m3",
            "stop-control-plane:m1",
            "stop-control-plane:m3",
            "stop-control-plane:m2",
            "restore-etcd:m2",
            "await-etcd-healthy",
            "start-control-plane:m2"
        ]
    );
    let asked = plan.steps[3].approval.as_ref().unwrap();
    assert!(
        asked.contains("everything after revision 90 is lost for good"),
        "{asked}"
    );
    assert!(plan.steps.iter().filter(|step| step.approval.is_some()).count() == 1);

    // One that comes back before that has what it had: nothing is restored over it.
    let back = told([down(1), Ok(well(2, 0, "3.5.16")), down(3)]);
    for step in plan.steps.iter().filter(|step| {
        matches!(
            step.action,
            Action::FenceEtcd | Action::StopControlPlane | Action::RestoreEtcd | Action::AwaitEtcdHealthy
        )
    }) {
        let look = look_at(step, &plan, &world_of(&back, &sources));
        assert!(
            matches!(&look, Look::Done(why) if why.contains("m2 answers again") && why.contains("etcd-quorum")),
            "{}: {look:?}",
            step.id()
        );
    }
    let refused = super::super::plan(request(Runbook::EtcdAll), &world_of(&back, &sources));
    assert!(
        missing(&refused).contains("etcd-quorum --cluster"),
        "{}",
        missing(&refused)
    );
}

#[tokio::test]
async fn expired_certificates_are_named_and_no_data_is_given_up_for_them() {
    let expired = |mut told: Told| {
        told.certificates.push(Certificate {
            path: "/etc/kubernetes/pki/etcd/peer.crt".to_owned(),
            not_after_unix: NOW - 60,
            expired: true,
            trouble: None,
        });
        Ok(told)
    };
    // Members that answer their agents, and not each other.
    let apart = told([1, 2, 3].map(|number| expired(well(number, 0, "3.5.16"))));
    let quorum = missing(&plan_of(Runbook::EtcdQuorum, &apart));
    assert!(
        quorum.contains("peer.crt of m1 (at 2027-01-15T07:59:00Z)"),
        "{quorum}"
    );
    let nobody =
        told([1, 2, 3].map(|number| expired(down(number, TroubleKind::Expired, "server.crt has expired"))));
    let sources: Sources = [data(1, 70)].into();
    let all = super::super::plan(request(Runbook::EtcdAll), &world_of(&nobody, &sources));
    assert!(
        missing(&all).contains("server.crt has expired, on m1"),
        "{}",
        missing(&all)
    );
}

#[tokio::test]
async fn a_master_whose_agent_is_away_has_to_be_proved_to_stay_away_before_anything_is_restored() {
    let away = told([
        refused(),
        Ok(down(2, TroubleKind::Refused, "nobody listens")),
        Err("its agent is not in session".to_owned()),
    ]);
    let sources: Sources = [data(1, 70), data(2, 90)].into();
    let plan = super::super::plan(request(Runbook::EtcdAll), &world_of(&away, &sources));
    assert!(missing(&plan).contains("proof that m3"), "{}", missing(&plan));
    let nothing = super::super::plan(request(Runbook::EtcdAll), &world_of(&away, &Sources::new()));
    assert!(
        missing(&nothing).contains("there is none"),
        "{}",
        missing(&nothing)
    );
}

#[tokio::test]
async fn a_quorum_that_comes_back_by_itself_ends_a_restore_though_others_were_fenced() {
    let lost = told([Ok(well(1, 0, "3.5.16")), refused(), refused()]);
    let plan = plan_of(Runbook::EtcdQuorum, &lost);
    let back = two_of_three("3.5.16", refused());
    for step in plan.steps.iter().filter(|step| {
        matches!(
            step.action,
            Action::FenceEtcd | Action::StopControlPlane | Action::RestoreEtcd | Action::AwaitEtcdHealthy
        )
    }) {
        let look = look_at(step, &plan, &world_of(&back, &Sources::new()));
        assert!(
            matches!(&look, Look::Done(why) if why.contains("the quorum is back")),
            "{}: {look:?}",
            step.id()
        );
    }
}

#[tokio::test]
async fn a_log_outside_the_data_directory_is_told_before_anything_is_fenced() {
    let outside = |mut told: Told| {
        let manifest = told.manifest.as_mut().unwrap();
        manifest.wal_dir = Some("/data/wal".to_owned());
        told
    };
    let down = |number| Ok(outside(down(number, TroubleKind::Refused, "nobody listens")));
    let left = told([Ok(outside(well(1, 0, "3.5.16"))), down(2), down(3)]);
    let why = missing(&plan_of(Runbook::EtcdQuorum, &left));
    assert!(why.contains("--wal-dir=/data/wal"), "{why}");
    let lost = told([down(1), down(2), down(3)]);
    let sources: Sources = [data(1, 70), data(2, 90), data(3, 80)].into();
    let plan = super::super::plan(request(Runbook::EtcdAll), &world_of(&lost, &sources));
    let why = missing(&plan);
    assert!(why.contains("--wal-dir=/data/wal"), "{why}");
}

#[tokio::test]
async fn a_restore_starts_the_control_plane_of_a_master_that_is_to_have_no_member() {
    let list = "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380";
    let named = |mut told: Told| {
        told.manifest.as_mut().unwrap().initial_cluster = list.to_owned();
        Ok(told)
    };
    let down = |number| named(down(number, TroubleKind::Refused, "nobody listens"));
    let spare = Told {
        manifest: None,
        ..super::etcd::down(4, TroubleKind::NoManifest, "no manifest")
    };
    let answers = told([named(well(1, 0, "3.5.16")), down(2), down(3), Ok(spare)]);
    let plan = plan_of(Runbook::EtcdQuorum, &answers);
    let actions = actions(&plan);
    for step in [
        "stop-control-plane:m4",
        "start-control-plane:m1",
        "start-control-plane:m4",
    ] {
        assert!(
            actions.iter().any(|id| id == step),
            "{step} in {actions:?} {:?}",
            plan.refusals
        );
    }
    assert!(
        !actions.iter().any(|id| id == "start-control-plane:m2"),
        "{actions:?}"
    );
    assert!(
        !plan.notes.concat().contains("etcd-member m4"),
        "{:?}",
        plan.notes
    );
}

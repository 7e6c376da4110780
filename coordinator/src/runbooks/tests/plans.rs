//! Plans as values.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::super::around::Around;
use super::super::plan::{Action, Proof, Request, Runbook, RunbookPlan};
use super::super::proof::{Proved, proved};
use super::super::world::{Agent, Api, ApiView, Life, Timing, World};
use super::bed::{NODE, request};
use crate::inventory::{ClusterName, NodeName, Role};
use crate::kubernetes::capabilities::{Capabilities, GroupVersion, Version};
use crate::kubernetes::objects::{Budget, Kept, Node, Pod};
use crate::power::{PowerState, Reading, Word};

fn can(minor: u32) -> Capabilities {
    Capabilities {
        version: Version { major: 1, minor },
        eviction: Some(GroupVersion("policy/v1".into())),
        budgets: Some(GroupVersion("policy/v1".into())),
        leases: Some(GroupVersion("coordination.k8s.io/v1".into())),
        attachments: None,
        workloads: None,
        metrics: None,
        out_of_service: minor >= 26,
    }
}

fn keep<T: Kept>(value: serde_json::Value) -> T {
    T::keep(serde_json::from_value(value).unwrap()).unwrap()
}

fn pod(value: serde_json::Value) -> Pod {
    keep(value)
}

pub(super) fn world() -> World {
    let now = Instant::now();
    World {
        etcd: None,
        found: None,
        newcomer: None,
        addresses: std::collections::BTreeMap::new(),
        last: None,
        control_plane: None,
        masters: std::collections::BTreeMap::new(),
        timing: Timing::default(),
        now,
        unix_ms: 1_800_000_000_000,
        node: NodeName(NODE.into()),
        cluster: ClusterName("biz".into()),
        role: Role::Worker,
        api: Api::Known(Box::new(ApiView {
            can: can(36),
            age: Duration::from_secs(1),
            node: Some(keep::<Node>(json!({"metadata": {"name": NODE}}))),
            life: Life {
                renewed: None,
                seen: Some(now),
                watched: Some(now),
            },
            pods: Vec::new(),
            budgets: Vec::new(),
            attachments: Vec::new(),
        })),
        agent: Agent::Speaks {
            kubelet_active: true,
            kubelet_healthy: true,
            held: false,
            observed: now,
        },
        power: Word::None,
        silence: None,
        around: Around::default(),
        case: None,
        declared: std::sync::Arc::default(),
    }
}

fn view(world: &mut World) -> &mut ApiView {
    match &mut world.api {
        Api::Known(view) => view,
        Api::Unknown { .. } => panic!("no API"),
    }
}

fn actions(plan: &RunbookPlan) -> Vec<Action> {
    plan.steps.iter().map(|step| step.action).collect()
}

fn planned(runbook: Runbook, world: &World) -> RunbookPlan {
    super::super::plan(request(runbook), world)
}

#[tokio::test(start_paused = true)]
async fn pods_that_would_be_lost_are_refused_by_name_until_somebody_says_that_they_may() {
    let mut world = world();
    let controller = json!([{"kind": "ReplicaSet", "name": "web", "controller": true}]);
    view(&mut world).pods = vec![
        pod(json!({"metadata": {"name": "bare", "namespace": "biz"}, "status": {"phase": "Running"}})),
        pod(
            json!({"metadata": {"name": "cache", "namespace": "biz", "ownerReferences": controller},
            "spec": {"volumes": [{"emptyDir": {}}]}, "status": {"phase": "Running"}}),
        ),
        pod(
            json!({"metadata": {"name": "web", "namespace": "biz", "labels": {"app": "web"}, "ownerReferences": controller},
            "status": {"phase": "Running"}}),
        ),
    ];
    view(&mut world).budgets = vec![keep::<Budget>(json!({
        "metadata": {"name": "web", "namespace": "biz"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"disruptionsAllowed": 0},
    }))];
    let plan = planned(Runbook::Drain, &world);
    assert_eq!(actions(&plan), []);
    let refusals: Vec<_> = plan
        .refusals
        .iter()
        .map(|one| format!("{}: {}", one.what, one.missing))
        .collect();
    assert!(
        refusals[0].contains("biz/cache") && refusals[0].contains("--delete-local-data"),
        "{refusals:?}"
    );
    assert!(
        refusals[1].contains("biz/bare") && refusals[1].contains("--delete-unmanaged"),
        "{refusals:?}"
    );
    let may = Request {
        delete_local_data: true,
        delete_unmanaged: true,
        ..request(Runbook::Drain)
    };
    let plan = super::super::plan(may, &world);
    assert_eq!(
        actions(&plan),
        [Action::Cordon, Action::Drain, Action::DeleteRemaining]
    );
    assert!(
        plan.notes[0].contains("budget biz/web lets none"),
        "{:?}",
        plan.notes
    );
    assert!(plan.steps[2].approval.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_or_not_known_is_not_acted_on() {
    let mut stale = world();
    view(&mut stale).age = Duration::from_secs(41);
    let mut nameless = world();
    view(&mut nameless).node = None;
    let mut away = world();
    away.api = Api::Unknown {
        why: "connection refused".into(),
    };
    for (world, why) in [
        (stale, "41 s old"),
        (nameless, "has no node"),
        (away, "connection refused"),
    ] {
        for runbook in [Runbook::Drain, Runbook::MaintenanceBegin, Runbook::MaintenanceEnd] {
            let plan = planned(runbook, &world);
            assert_eq!(actions(&plan), [], "{runbook}");
            assert!(plan.refusals[0].missing.contains(why), "{:?}", plan.refusals);
        }
        // A kubelet can be mended without the API; a silent node cannot be told dead without it.
        let mut sick = world.clone();
        sick.agent = Agent::Speaks {
            kubelet_active: false,
            kubelet_healthy: false,
            held: false,
            observed: sick.now,
        };
        assert_eq!(
            actions(&planned(Runbook::NodeDown, &sick)),
            [Action::RestartKubelet]
        );
        sick.agent = Agent::Silent {
            since: None,
            left: false,
        };
        assert_eq!(actions(&planned(Runbook::NodeDown, &sick)), []);
    }
}

#[tokio::test(start_paused = true)]
async fn whether_a_silent_node_is_down_is_told_by_its_lease_and_by_how_long_it_was_watched() {
    let start = Instant::now();
    let wall = |seconds_ago: i64| jiff::Timestamp::from_second(1_800_000_000 - seconds_ago).ok();
    // Last seen, watched since (seconds ago), its own time; is it down?
    let table = [
        (Some(3), 300, wall(3), false),
        (Some(49), 300, wall(49), false),
        (Some(50), 300, wall(50), true),
        (None, 5, wall(600), false),
        (None, 12, wall(600), true),
        // Its own time is fresh, and none came since: a clock may lie, so it is watched for longer.
        (None, 20, wall(-5), false),
        (None, 50, wall(-5), true),
        (None, 12, None, true),
    ];
    for (seen, watched, renewed, down) in table {
        let mut world = world();
        world.now = start + Duration::from_mins(10);
        let ago = |seconds: u64| world.now - Duration::from_secs(seconds);
        let life = Life {
            renewed,
            seen: seen.map(ago),
            watched: Some(ago(watched)),
        };
        view(&mut world).life = life;
        world.agent = Agent::Silent {
            since: Some(start),
            left: false,
        };
        let plan = planned(Runbook::NodeDown, &world);
        assert_eq!(
            !plan.steps.is_empty(),
            down,
            "{seen:?} {watched} {renewed:?}: {:?}",
            plan.refusals
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_given_up_in_the_way_that_its_cluster_knows() {
    let proved = || Request {
        proof: Some(Proof::Bmc {
            what: "PowerState: Off".into(),
        }),
        ..request(Runbook::NodeDown)
    };
    for (minor, expected) in [
        (
            36,
            vec![Action::Cordon, Action::TaintOutOfService, Action::AwaitMoved],
        ),
        (13, vec![Action::Cordon, Action::ForceDelete, Action::AwaitMoved]),
    ] {
        let mut world = world();
        world.now += Duration::from_mins(1);
        view(&mut world).can = can(minor);
        world.agent = Agent::Silent {
            since: None,
            left: false,
        };
        let plan = super::super::plan(proved(), &world);
        assert_eq!(actions(&plan), expected);
        let step = &plan.steps[1];
        assert!(
            step.evidence.contains("its BMC: PowerState: Off"),
            "{}",
            step.evidence
        );
        // By force only with a second word.
        assert_eq!(step.approval.is_some(), minor == 13);
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_power_event_no_toleration_is_shortened() {
    let mut world = world();
    world.now += Duration::from_mins(1);
    world.around.power_event = Some("5 of 9 nodes".to_owned());
    let plan = planned(Runbook::NetworkLoss, &world);
    assert_eq!(
        actions(&plan),
        [Action::Cordon, Action::AwaitReachable, Action::Uncordon]
    );
    let refusal = &plan.refusals[0];
    assert!(
        refusal
            .missing
            .contains("an end of the power event (5 of 9 nodes)"),
        "{refusal:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_better_days_nobody_can_tell_what_did_not_start() {
    let plan = planned(Runbook::ColdStartVerify, &world());
    assert!(!plan.may_run());
    assert!(
        plan.refusals[0].missing.contains("in better days"),
        "{:?}",
        plan.refusals
    );
}

/// What a controller says of the node's machine now.
fn told(world: &World, state: PowerState, uuid: Option<&str>) -> Word {
    Word::Told(Reading {
        state,
        uuid: uuid.map(str::to_owned),
        source: "/redfish/v1/Systems/1 at 10.1.0.1:443".to_owned(),
        asked: world.now,
    })
}

#[tokio::test(start_paused = true)]
async fn what_counts_as_proof_is_told_and_what_does_not_says_what_is_missing() {
    const OWN: &str = "4c4c4544-0042-3510-8051-b2c04f4d3732";
    const OTHER: &str = "4c4c4544-0042-3510-8051-b2c04f4d3733";
    let mut world = world();
    world.now += Duration::from_mins(1);
    view(&mut world).age = Duration::from_secs(1);
    view(&mut world).node = Some(keep::<Node>(
        json!({"metadata": {"name": NODE}, "status": {"nodeInfo": {"systemUUID": OWN}}}),
    ));
    let operator = Proof::Operator {
        by: "ann".into(),
        what: "seen off".into(),
    };
    let words = |proved: Proved| match proved {
        Proved::Yes(proof) => format!("yes: {proof}"),
        Proved::Contradicted(proof, other) => format!("contradicted: {proof}; {other}"),
        Proved::Fence(words) => format!("fence: {words}"),
        Proved::No(missing) => format!("no: {missing}"),
    };
    let none = "no: proof that the machine is off";
    for (word, given, fence, expected) in [
        (Word::None, false, true, none),
        (Word::NotAsked, false, true, none),
        (Word::None, true, true, "yes: operator ann: seen off"),
        (
            told(&world, PowerState::Off, Some(OWN)),
            false,
            false,
            "yes: its BMC: PowerState Off",
        ),
        (
            told(&world, PowerState::Off, None),
            false,
            false,
            "yes: its BMC: PowerState Off",
        ),
        (told(&world, PowerState::Off, Some(OTHER)), false, true, none),
        (told(&world, PowerState::On, Some(OTHER)), false, true, none),
        (
            told(&world, PowerState::On, Some(OWN)),
            false,
            false,
            "no: its BMC says PowerState On",
        ),
        (
            told(&world, PowerState::On, Some(OWN)),
            false,
            true,
            "fence: its BMC says PowerState On",
        ),
        (
            told(&world, PowerState::PoweringOff, None),
            false,
            false,
            "no: its BMC says PowerState PoweringOff",
        ),
        (told(&world, PowerState::NotKnown, None), false, true, none),
        (
            told(&world, PowerState::On, Some(OWN)),
            true,
            true,
            "contradicted: operator ann: seen off; its BMC says",
        ),
    ] {
        world.power = word.clone();
        let proof = given.then_some(&operator);
        let said = words(proved(&world, proof, fence));
        assert!(said.starts_with(expected), "{word:?}: {said}");
    }
    // A word of half a minute ago is none.
    world.power = told(&world, PowerState::Off, Some(OWN));
    world.now += Duration::from_secs(31);
    let said = words(proved(&world, None, true));
    assert!(said.starts_with(none) && said.contains("is 31 s old"), "{said}");
    // What may be one of a quorum keeps its power.
    world.role = Role::ControlPlane;
    world.power = told(&world, PowerState::On, Some(OWN));
    let said = words(proved(&world, None, true));
    assert!(
        said.starts_with("no: its BMC says") && said.contains("quorum"),
        "{said}"
    );
}

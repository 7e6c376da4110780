//! Units: ladders, budgets, and who waits for whom.

use super::*;

#[test]
fn a_hung_runtime_is_killed_with_its_stacks_kept_then_left_alone_and_told() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::RuntimeHung);
    world.tell(DOCKER);
    let done = follow(&mut world, true);
    assert_eq!(done, [("restart-runtime", 0), ("restart-runtime", 60_000)]);
    let told = world.pass().conditions;
    assert!(
        told.iter()
            .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted)
    );
}

#[test]
fn a_kubelet_that_is_silent_beside_a_hung_runtime_waits_for_it() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::RuntimeHung);
    world.ill.insert(KUBELET, ConditionKind::KubeletUnhealthy);
    world.tell(DOCKER);
    world.tell(KUBELET);
    let begun = |world: &mut World| -> Vec<_> {
        let decision = world.pass();
        decision
            .begin
            .iter()
            .map(|proposal| (proposal.remedy.name(), proposal.remedy.subject()))
            .collect()
    };
    assert_eq!(begun(&mut world), [("restart-runtime", DOCKER.to_owned())]);
    assert!(begun(&mut world).is_empty(), "while it is restarted");
    world.finish(DOCKER, true);
    assert!(begun(&mut world).is_empty(), "until it answers");
    // It answers, and the kubelet still does not.
    world.ill.remove(DOCKER);
    assert_eq!(begun(&mut world), [("kill-restart-unit", KUBELET.to_owned())]);
}

#[test]
fn a_failed_unit_climbs_the_ladder_once_then_is_left_alone_and_told() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    assert_eq!(
        follow(&mut world, false),
        [
            ("restart-unit", 0),
            ("restart-unit", 1_000),
            ("restart-unit", 3_000),
            ("kill-restart-unit", 7_000),
            ("kill-restart-unit", 15_000),
        ]
    );
    let told = world.decide().conditions;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|condition| condition.escalated));
    assert_eq!(told[0].key.kind, ConditionKind::RemedyExhausted);
    for part in ["3 restarts and 2 kill-restarts", "it did not", "UnitFailed: seen"] {
        assert!(told[0].evidence.contains(part), "{part}: {}", told[0].evidence);
    }
    // Neither hours nor a restart of the agent nor a reboot change that.
    world.now += Duration::from_hours(5);
    world.boot += 1;
    world.restart_agent();
    assert_eq!(follow(&mut world, false), []);
}

#[test]
fn health_that_lasts_refills_and_shorter_health_does_not() {
    let mut world = World::new();
    let fail = |world: &mut World| {
        world.ill.insert(DOCKER, ConditionKind::UnitFailed);
        world.tell(DOCKER);
    };
    fail(&mut world);
    follow(&mut world, false);
    let mut after = |well: Duration| {
        world.ill.clear();
        world.tell(DOCKER);
        world.pass();
        world.now += well;
        world.pass();
        fail(&mut world);
        follow(&mut world, false).len()
    };
    let window = settings().restart.window;
    assert_eq!(after(window.checked_sub(Duration::from_secs(1)).unwrap()), 0);
    assert_eq!(after(window), 5);
}

#[test]
fn a_hung_kubelet_is_killed_and_given_time_to_come_up() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::KubeletUnhealthy);
    assert_eq!(
        follow(&mut world, true),
        [("kill-restart-unit", 0), ("kill-restart-unit", 30_000)]
    );
    assert_eq!(world.now - world.start, Duration::from_mins(1));
}

#[test]
fn a_restart_policy_of_nothing_escalates_at_once() {
    let mut world = World::new();
    world.settings.restart = RestartPolicy {
        restarts: 0,
        kill_restarts: 0,
        ..RestartPolicy::default()
    };
    world.ill.insert(DOCKER, ConditionKind::UnitInactive);
    world.tell(DOCKER);
    assert_eq!(follow(&mut world, true), []);
    assert!(world.decide().conditions[0].escalated);
}

/// What is begun now, by subject.
fn begun(world: &mut World) -> Vec<String> {
    let decision = world.pass();
    decision
        .begin
        .iter()
        .map(|proposal| proposal.remedy.subject())
        .collect()
}

#[test]
fn a_unit_waits_for_the_one_that_it_needs_and_is_next() {
    let mut world = World::new();
    for unit in [KUBELET, DOCKER] {
        world.ill.insert(unit, ConditionKind::UnitFailed);
        world.tell(unit);
    }
    let decision = world.pass();
    assert_eq!(decision.begin.len(), 1);
    assert_eq!(decision.begin[0].remedy.subject(), DOCKER);
    let waiting = &decision.waiting[0];
    assert_eq!(waiting.subject, KUBELET);
    assert_eq!(waiting.on.to_string(), "docker.service, which it needs");
    assert_eq!(begun(&mut world), [""; 0], "while it is restarted");
    world.finish(DOCKER, false);
    assert_eq!(begun(&mut world), [""; 0], "while it has attempts left");
    world.ill.remove(DOCKER);
    world.tell(DOCKER);
    assert_eq!(begun(&mut world), [KUBELET]);
}

#[test]
fn nothing_waits_for_what_is_given_up_or_for_ever() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    follow(&mut world, false);
    world.ill.insert(KUBELET, ConditionKind::UnitFailed);
    world.tell(KUBELET);
    let decision = world.pass();
    let reason =
        "UnitFailed: seen; without docker.service, which it needs: its remedies are spent; attempt 1 of 5";
    assert_eq!(decision.begin[0].reason, reason);

    let mut world = World::new();
    for unit in [KUBELET, DOCKER] {
        world.ill.insert(unit, ConditionKind::UnitFailed);
        world.tell(unit);
    }
    assert_eq!(begun(&mut world), [DOCKER]);
    // A restart that does not end.
    let next = world.pass().next_look.unwrap();
    assert_eq!(next, world.start + world.settings.restart.order_wait);
    world.now = next;
    let decision = world.pass();
    let reason =
        "UnitFailed: seen; without docker.service, which it needs: it was waited for 5m; attempt 1 of 5";
    assert_eq!(decision.begin[0].reason, reason);
}

#[test]
fn a_unit_in_a_crash_loop_is_waited_for_until_it_stays_up() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::UnitFailed);
    world.tell(KUBELET);
    let mut conditions = world.conditions();
    conditions.push(Condition {
        key: ConditionKey {
            kind: ConditionKind::UnitFlapping,
            subject: DOCKER.into(),
        },
        escalated: true,
        ..conditions[0].clone()
    });
    let mut decide_at = |seconds: u64| {
        let now = world.start + Duration::from_secs(seconds);
        world.health.judge(&conditions, now);
        decide(&Input {
            conditions: &conditions,
            history: &world.history,
            health: &world.health,
            settings: &world.settings,
            brakes: &world.brakes,
            in_flight: &world.in_flight,
            stress: None,
            now,
        })
    };
    let decision = decide_at(0);
    assert!(decision.begin.is_empty());
    let steady = decision.next_look.unwrap() - world.start;
    assert_eq!(decide_at(steady.as_secs()).begin.len(), 1);
}

#[test]
fn a_kubelet_that_does_not_see_its_containers_is_told_first_and_restarted_later() {
    let mut world = World::new();
    world.ill.insert(KUBELET, ConditionKind::KubeletPlegUnhealthy);
    let decision = world.pass();
    assert!(decision.begin.is_empty());
    let waits_for = decision.waiting[0].on.to_string();
    assert_eq!(waits_for, "the container runtime, to come right by itself");
    assert_eq!(decision.next_look, Some(world.start + Duration::from_mins(10)));
    let done = follow(&mut world, true);
    let names: Vec<_> = done.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names[..4],
        [
            "restart-unit",
            "restart-unit",
            "restart-unit",
            "kill-restart-unit"
        ]
    );
    assert_eq!(done[0].1, 600_000);
    // Long enough for three looks at what the new kubelet says.
    assert!(done[1].1 - done[0].1 >= 180_000, "{done:?}");
}

#[test]
fn a_start_that_hangs_is_killed_at_once() {
    let mut world = World::new();
    world.ill.insert(DOCKER, ConditionKind::UnitJobHung);
    world.tell(DOCKER);
    let done = follow(&mut world, false);
    assert_eq!(done, [("kill-restart-unit", 0), ("kill-restart-unit", 1_000)]);
}

#[test]
fn what_the_agent_may_not_do_is_told_and_never_attempted() {
    let mut world = World::new();
    let lack = Lack {
        function: Function::ManageUnit(DOCKER.into()),
        missing: Missing::PolkitRule,
    };
    world.brakes.lacks = Some([lack].into());
    world.ill.insert(DOCKER, ConditionKind::UnitFailed);
    world.tell(DOCKER);
    let decision = world.decide();
    assert_eq!(decision.begin, []);
    assert!(decision.conditions[0].escalated);
    let waits = decision.waiting[0].on.to_string();
    assert_eq!(
        waits,
        "somebody, since the agent cannot restart docker.service: missing a polkit rule"
    );
    // Somebody installs the rule.
    world.brakes.lacks = None;
    assert_eq!(world.decide().begin.len(), 1);
}

//! Disks, logs and containers.

use super::*;

#[test]
fn a_container_is_restarted_only_where_it_is_named_and_so_often() {
    let mut world = World::new();
    world.ill.insert("shop", ConditionKind::ContainerUnhealthy);
    let decision = world.pass();
    assert!(decision.begin.is_empty() && decision.waiting.is_empty());
    world.settings.runtime.may_restart_containers = vec!["shop*".to_owned()];
    world
        .ill
        .insert("default/shop-0/shop", ConditionKind::ContainerUnhealthy);
    let mut done = Vec::new();
    let exhausted = loop {
        let decision = world.pass();
        for proposal in &decision.begin {
            done.push((proposal.remedy.to_string(), (world.now - world.start).as_secs()));
            world.finish(&proposal.remedy.subject(), false);
        }
        let spent = decision
            .conditions
            .iter()
            .find(|condition| condition.key.kind == ConditionKind::RemedyExhausted);
        if let Some(spent) = spent {
            break spent.key.subject.clone();
        }
        if decision.begin.is_empty() {
            world.now = decision.next_look.unwrap();
        }
    };
    let restart = |at| ("restart-container shop".to_owned(), at);
    assert_eq!(done, [restart(0), restart(1), restart(3)]);
    assert_eq!(exhausted, "shop");
    world.now += world.settings.runtime.container_restart_window;
    assert_eq!(world.pass().begin.len(), 1, "the budget has room again");
}

#[test]
fn inodes_are_freed_where_the_files_are() {
    let mut world = World::new();
    world.ill.insert("/var", ConditionKind::InodePressure);
    let decision = world.pass();
    assert_eq!(decision.begin[0].remedy.to_string(), "prune /var");
    world.finish("/var", true);
    assert!(
        world
            .pass()
            .conditions
            .iter()
            .any(|condition| condition.escalated)
    );
}

#[test]
fn a_disk_gives_back_its_logs_then_its_journal_then_its_images_and_then_it_is_told() {
    let mut world = World::new();
    world.ill.insert("/var", ConditionKind::DiskPressure);
    let steps = |world: &mut World| -> Vec<_> {
        let mut done = Vec::new();
        for _ in 0..10 {
            let decision = world.pass();
            for proposal in &decision.begin {
                done.push((proposal.remedy.name(), (world.now - world.start).as_secs()));
                world.finish(&proposal.remedy.subject(), true);
            }
            if decision.begin.is_empty() {
                let spent = decision
                    .conditions
                    .iter()
                    .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted);
                if spent {
                    world.now = decision.next_look.unwrap();
                    return done;
                }
                world.now = decision.next_look.unwrap();
            }
        }
        panic!("never told: {done:?}");
    };
    assert_eq!(steps(&mut world), [("vacuum-journal", 30), ("prune", 30)]);
    // The budget of time has passed: once more, and no more than that.
    assert_eq!(steps(&mut world), [("vacuum-journal", 1830), ("prune", 1830)]);
}

#[test]
fn a_remedy_that_does_not_help_a_log_is_spaced_and_one_that_does_is_not() {
    let mut world = World::new();
    world.ill.insert(LOG, ConditionKind::LogRunaway);
    let mut first: Vec<_> = Vec::new();
    for _ in 0..40 {
        let decision = world.pass();
        for proposal in decision.begin {
            first.push(u64::try_from((world.now - world.start).as_millis()).unwrap());
            world.finish(&proposal.remedy.subject(), first.len() > 3);
        }
        world.now += Duration::from_millis(500);
    }
    assert_eq!(first, [0, 1_000, 3_000, 7_000]);
    assert_eq!(world.history.count(LOG, Rung::Reclaim), 4);
    let decision = world.decide();
    assert!(
        decision
            .conditions
            .iter()
            .any(|condition| condition.key.kind == ConditionKind::RemedyExhausted)
    );
    // The window moves on.
    world.now = decision.next_look.unwrap();
    assert_eq!(world.pass().begin.len(), 1);
}

#[test]
fn logs_take_turns() {
    let settings = settings();
    let now = Instant::now();
    let conditions: Vec<_> = (0..9)
        .map(|ino| Condition {
            key: ConditionKey {
                kind: ConditionKind::LogRunaway,
                subject: format!("/var/log/{ino}"),
            },
            severity: Severity::Warning,
            since: now,
            evidence: String::new(),
            escalated: false,
            log: Some(LogId {
                dev: 1,
                ino,
                path: format!("/var/log/{ino}").into(),
                deleted: false,
            }),
            heaviest: Vec::new(),
        })
        .collect();
    let decision = decide(&Input {
        conditions: &conditions,
        history: &History::default(),
        health: &Health::new(KUBELET),
        settings: &settings,
        brakes: &Brakes {
            gate_held: true,
            systemd_away: true,
            ledger_until: Some(now + Duration::from_secs(1)),
            ..Brakes::default()
        },
        in_flight: &BTreeMap::new(),
        stress: None,
        now,
    });
    assert_eq!(decision.begin.len(), 4);
    assert_eq!(decision.waiting.len(), 5);
}

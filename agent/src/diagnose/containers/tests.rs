//! Tables and properties of what containers' signals come to.

use proptest::prelude::*;

use super::*;
use crate::signal::RuntimeSignal;

fn seen(restarts: u64, failures: u64, oom_kills: u64) -> Signal {
    Signal::Container(ContainerSignal {
        name: "web".into(),
        image: "shop:1".into(),
        running: true,
        unhealthy: false,
        restarts,
        failures,
        oom_kills,
        last_exit: Some(137),
    })
}

fn docker(answer: RuntimeAnswer) -> Signal {
    Signal::Runtime(RuntimeSignal {
        runtime: Runtime::Docker,
        answer,
    })
}

fn hung() -> Signal {
    docker(RuntimeAnswer::TimedOut {
        after: Duration::from_secs(3),
    })
}

fn kinds(containers: &Containers, now: Instant) -> Vec<Kind> {
    let conditions = containers.conditions(now);
    conditions.iter().map(|condition| condition.key.kind).collect()
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn five_restarts_in_ten_minutes_flap_until_there_was_none_for_ten() {
    let start = Instant::now();
    let mut containers = Containers::new(&RuntimeSettings::default());
    for n in 1..=4 {
        containers.observe(&seen(n, 0, 0), start + MINUTE * u32::try_from(n).unwrap());
        assert!(containers.conditions(start + MINUTE * 4).is_empty());
    }
    let fifth = start + MINUTE * 5;
    containers.observe(&seen(5, 0, 0), fifth);
    assert_eq!(kinds(&containers, fifth), [Kind::ContainerFlapping]);
    // Slowed down by back-off is not mended.
    let sixth = fifth + MINUTE * 9;
    containers.observe(&seen(6, 0, 0), sixth);
    let conditions = containers.conditions(sixth + MINUTE * 9);
    assert_eq!(conditions[0].since, fifth);
    assert_eq!(
        conditions[0].evidence,
        "container web (shop:1) was restarted 6 times; it ended last with status 137"
    );
    assert_eq!(containers.next_change(sixth), Some(sixth + MINUTE * 10));
    assert!(containers.conditions(sixth + MINUTE * 10).is_empty());
}

#[test]
fn slow_restarts_never_add_up() {
    let start = Instant::now();
    let mut containers = Containers::new(&RuntimeSettings::default());
    for n in 1..40 {
        let at = start + Duration::from_secs(150) * u32::try_from(n).unwrap();
        containers.observe(&seen(n, 0, 0), at);
        assert!(containers.conditions(at).is_empty(), "{n}");
    }
}

#[test]
fn a_kill_for_memory_hides_the_death_that_it_is_and_both_are_told_for_a_while() {
    let start = Instant::now();
    let mut containers = Containers::new(&RuntimeSettings::default());
    containers.observe(&seen(0, 1, 0), start);
    assert_eq!(kinds(&containers, start), [Kind::ContainerDied]);
    containers.observe(&seen(0, 1, 1), start);
    assert_eq!(kinds(&containers, start), [Kind::ContainerOomKilled]);
    // The same once more is nothing new.
    containers.observe(&seen(0, 1, 1), start + MINUTE * 9);
    assert!(containers.conditions(start + TOLD).is_empty());
}

#[test]
fn time_without_sight_of_docker_clears_nothing() {
    let start = Instant::now();
    let mut containers = Containers::new(&RuntimeSettings::default());
    containers.observe(&seen(0, 0, 1), start);
    containers.observe(&hung(), start + MINUTE);
    let hour = start + MINUTE * 60;
    assert_eq!(kinds(&containers, hour), [Kind::ContainerOomKilled]);
    assert_eq!(containers.next_change(hour), None);
    containers.observe(&docker(RuntimeAnswer::Answered), hour);
    assert_eq!(
        containers.next_change(hour),
        Some(start + TOLD + MINUTE * 59),
        "the minute before it was blind counts"
    );
    assert!(containers.conditions(start + TOLD + MINUTE * 59).is_empty());
}

#[test]
fn unhealthy_stands_as_long_as_it_is_told() {
    let now = Instant::now();
    let mut containers = Containers::new(&RuntimeSettings::default());
    let Signal::Container(healthy) = seen(0, 0, 0) else {
        unreachable!()
    };
    let ill = ContainerSignal {
        unhealthy: true,
        ..healthy.clone()
    };
    containers.observe(&Signal::Container(ill), now);
    assert_eq!(kinds(&containers, now + TOLD * 9), [Kind::ContainerUnhealthy]);
    containers.observe(&Signal::Container(healthy), now);
    assert!(containers.conditions(now).is_empty());
}

proptest! {
    #[test]
    fn a_flood_of_names_is_bounded_and_what_stands_is_kept(names in prop::collection::vec("[a-z]{1,4}", 0..400)) {
        let now = Instant::now();
        let mut containers = Containers::new(&RuntimeSettings::default());
        containers.observe(&seen(9, 0, 0), now);
        for name in names {
            let Signal::Container(signal) = seen(0, 0, 0) else { unreachable!() };
            containers.observe(&Signal::Container(ContainerSignal { name, ..signal }), now);
        }
        prop_assert!(containers.seen.len() <= MAX_SUBJECTS);
        prop_assert_eq!(kinds(&containers, now), [Kind::ContainerFlapping]);
    }

    /// Restarts, gaps and blindness in any order: flapping is raised by five restarts in ten minutes alone, and
    /// cleared only by ten minutes of sight without one.
    #[test]
    fn flapping_never_changes_but_by_its_rules(steps in prop::collection::vec((0_u64..400, 0_u8..4), 1..120)) {
        let start = Instant::now();
        let window = MINUTE * 10;
        let mut containers = Containers::new(&RuntimeSettings::default());
        let (mut at, mut restarts, mut stood) = (start, Vec::new(), false);
        let (mut blind, mut seeing) = (false, Duration::ZERO);
        for (gap, step) in steps {
            let gap = Duration::from_secs(gap);
            at += gap;
            if !blind {
                seeing += gap;
            }
            let before = !containers.conditions(at).is_empty();
            prop_assert!(!before || stood, "raised by time alone");
            if stood && !before {
                prop_assert!(seeing >= window, "cleared after {seeing:?} of sight without a restart");
            }
            match step {
                0 => { containers.observe(&hung(), at); blind = true; }
                1 => { containers.observe(&docker(RuntimeAnswer::Answered), at); blind = false; }
                _ => {
                    restarts.push(at);
                    containers.observe(&seen(restarts.len() as u64, 0, 0), at);
                    (blind, seeing) = (false, Duration::ZERO);
                }
            }
            let stands = !containers.conditions(at).is_empty();
            if stands && !before {
                let within = restarts.iter().filter(|restart| at - **restart < window).count();
                prop_assert!(step > 1 && within >= 5, "{within} restarts");
            }
            stood = stands;
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::signal::UnitDetail;

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_mins(10);
const HUNG: Duration = Duration::from_mins(5);
const HOLD: Duration = Duration::from_secs(30);
const DOCKER: &str = "docker.service";
const KUBELET: &str = "kubelet.service";

fn states() -> UnitStates {
    UnitStates::new(&Settings::for_node("n"))
}

fn unit(name: &str, active: ActiveState, phase: UnitPhase, restarts: u32) -> UnitSignal {
    UnitSignal {
        unit: name.to_owned(),
        active,
        sub: "sub".to_owned(),
        main_pid: 7,
        restarts,
        result: "exit-code".to_owned(),
        detail: UnitDetail {
            phase,
            ..UnitDetail::default()
        },
    }
}

fn running(restarts: u32) -> Signal {
    Signal::Unit(unit(DOCKER, ActiveState::Active, UnitPhase::Settled, restarts))
}

fn delayed(restarts: u32) -> Signal {
    let mut signal = unit(DOCKER, ActiveState::Activating, UnitPhase::RestartDelay, restarts);
    signal.detail.last_exit = Some(Exit::Status(3));
    Signal::Unit(signal)
}

fn starting(name: &str) -> Signal {
    Signal::Unit(unit(name, ActiveState::Activating, UnitPhase::Starting, 0))
}

fn given_up() -> Signal {
    let mut signal = unit(DOCKER, ActiveState::Failed, UnitPhase::Settled, 0);
    signal.result = "start-limit-hit".to_owned();
    Signal::Unit(signal)
}

fn masked(active: ActiveState) -> Signal {
    let mut signal = unit(DOCKER, active, UnitPhase::Settled, 0);
    signal.detail.masked = true;
    Signal::Unit(signal)
}

fn blind() -> Signal {
    Signal::UnitsUnobservable { why: String::new() }
}

fn raised(states: &UnitStates, now: Instant) -> Vec<ConditionKind> {
    let standing = states.conditions(now).into_iter();
    standing.map(|condition| condition.key.kind).collect()
}

/// Systemd restarts it so many times, a second apart; when the last one was.
fn crash(states: &mut UnitStates, from: u32, times: u32, begin: Instant) -> Instant {
    let mut now = begin;
    for restarts in from..from + times {
        now += SECOND;
        states.observe(&delayed(restarts), now);
        states.observe(&running(restarts + 1), now);
    }
    now
}

#[test]
fn a_unit_that_systemd_restarts_again_and_again_flaps_until_it_has_been_quiet_for_a_window() {
    let start = Instant::now();
    let mut states = states();
    // What it was restarted before anybody looked is no matter.
    states.observe(&running(100), start);
    let fourth = crash(&mut states, 100, 4, start);
    assert_eq!(raised(&states, fourth), []);
    let fifth = crash(&mut states, 104, 1, fourth);
    let condition = states.conditions(fifth).remove(0);
    assert_eq!(condition.key.kind, ConditionKind::UnitFlapping);
    assert_eq!(condition.since, start + SECOND);
    assert!(condition.escalated, "the agent will do nothing about it");
    assert_eq!(
        condition.evidence,
        "dies and is restarted again and again: 5 times within 10m; it ended with exit status 3 the last time; systemd restarts it by \
         itself, and the agent does not add to that"
    );
    assert_eq!(states.next_change(fifth), Some(fifth + WINDOW));
    assert_eq!(
        raised(&states, fifth + WINDOW - SECOND),
        [ConditionKind::UnitFlapping]
    );
    assert_eq!(raised(&states, fifth + WINDOW), []);
}

#[test]
fn restarts_that_are_far_apart_are_no_loop_and_a_count_that_was_reset_begins_anew() {
    let start = Instant::now();
    let mut states = states();
    states.observe(&running(0), start);
    let mut now = start;
    for restarts in 1..20 {
        now += WINDOW / 4;
        states.observe(&running(restarts), now);
        assert_eq!(raised(&states, now), []);
    }
    states.observe(&running(0), now + SECOND);
    assert_eq!(raised(&states, now + SECOND), []);
}

#[test]
fn a_systemd_that_does_not_count_restarts_is_counted_for() {
    let start = Instant::now();
    let mut states = states();
    states.observe(&running(0), start);
    for _ in 0..5 {
        states.observe(&delayed(0), start);
        states.observe(&delayed(0), start);
        states.observe(&running(0), start);
    }
    assert_eq!(raised(&states, start), [ConditionKind::UnitFlapping]);
}

#[test]
fn one_that_systemd_has_given_up_flaps_until_a_window_after_it_was_mended() {
    let start = Instant::now();
    let mut states = states();
    states.observe(&running(0), start);
    states.observe(&given_up(), start);
    let condition = states.conditions(start + WINDOW).remove(0);
    assert_eq!(condition.severity, Severity::Critical);
    assert!(!condition.escalated, "the ladder of UnitFailed mends it");
    assert_eq!(states.next_change(start), None);
    states.observe(&given_up(), start + WINDOW);
    let mended = start + 2 * WINDOW;
    states.observe(&running(0), mended);
    assert_eq!(raised(&states, mended), []);
    states.observe(&given_up(), mended);
    states.observe(&running(0), mended + SECOND);
    assert_eq!(states.conditions(mended + SECOND)[0].severity, Severity::Warning);
}

#[test]
fn one_that_failed_for_good_within_a_loop_was_given_up_whatever_its_result() {
    let start = Instant::now();
    let mut states = states();
    states.observe(&running(7), start);
    let mut failed = unit(DOCKER, ActiveState::Failed, UnitPhase::Settled, 7);
    failed.detail.restarts_itself = true;
    states.observe(&Signal::Unit(failed.clone()), start);
    assert_eq!(
        raised(&states, start),
        [],
        "it may not be restarted after every end"
    );
    states.observe(&running(7), start);
    let now = crash(&mut states, 7, 2, start);
    failed.restarts = 9;
    states.observe(&Signal::Unit(failed.clone()), now);
    let condition = states.conditions(now + 2 * WINDOW).remove(0);
    assert!(
        condition
            .evidence
            .starts_with("started too often, and given up by systemd (exit-code)")
    );
    states.observe(&Signal::Unit(failed), now + 2 * WINDOW);
    assert_eq!(raised(&states, now + 4 * WINDOW), [ConditionKind::UnitFlapping]);
}

#[test]
fn a_masked_unit_is_told_after_a_hold_time_whether_it_runs_or_not() {
    let start = Instant::now();
    for active in [ActiveState::NotFound, ActiveState::Active] {
        let mut states = states();
        states.observe(&masked(active), start);
        assert_eq!(raised(&states, start), []);
        assert_eq!(states.next_change(start), Some(start + HOLD));
        assert_eq!(raised(&states, start + HOLD), [ConditionKind::UnitMasked]);
        states.observe(&running(0), start + HOLD);
        assert_eq!(raised(&states, start + HOLD), []);
    }
}

#[test]
fn a_start_that_does_not_end_hangs_and_each_new_start_has_its_own_time() {
    let start = Instant::now();
    let mut states = states();
    states.observe(&starting(DOCKER), start);
    assert_eq!(states.next_change(start), Some(start + HUNG));
    assert_eq!(raised(&states, start + HUNG - SECOND), []);
    let condition = states.conditions(start + HUNG).remove(0);
    assert_eq!(condition.key.kind, ConditionKind::UnitJobHung);
    assert_eq!(
        condition.evidence,
        "its start has been under way for more than 5m (sub)"
    );
    states.observe(&delayed(0), start + HUNG);
    assert_eq!(raised(&states, start + 9 * HUNG), []);
    states.observe(&starting(DOCKER), start + 9 * HUNG);
    assert_eq!(raised(&states, start + 10 * HUNG - SECOND), []);
    assert_eq!(raised(&states, start + 10 * HUNG), [ConditionKind::UnitJobHung]);
}

#[test]
fn a_kubelet_at_the_gate_and_a_job_that_waits_do_not_hang() {
    let start = Instant::now();
    let mut states = states();
    states.set_gate_held(true);
    states.observe(&starting(KUBELET), start);
    let waiting = unit(DOCKER, ActiveState::Activating, UnitPhase::Waiting, 0);
    states.observe(&Signal::Unit(waiting), start);
    assert_eq!(raised(&states, start + 2 * HUNG), []);
    assert_eq!(states.next_change(start), None);
    states.set_gate_held(false);
    states.observe(&starting(KUBELET), start + HUNG);
    assert_eq!(raised(&states, start + 2 * HUNG), [ConditionKind::UnitJobHung]);
}

proptest! {
    /// Whatever came before: while nothing can be seen, what stands is what stood, and no time runs.
    #[test]
    fn blindness_neither_raises_nor_clears(
        history in prop::collection::vec((0_u32..200, 0_usize..7), 0..40),
        dark in 0_u32..10_000,
    ) {
        let mut now = Instant::now();
        let mut states = states();
        let mut last = running(0);
        let mut restarts = 0;
        for (seconds, at) in history {
            now += seconds * SECOND;
            restarts += u32::from(at < 2);
            last = match at {
                0 => running(restarts),
                1 => delayed(restarts),
                2 => starting(DOCKER),
                3 => given_up(),
                4 => masked(ActiveState::Active),
                5 => running(0),
                _ => blind(),
            };
            states.observe(&last, now);
        }
        states.observe(&blind(), now);
        let stood = raised(&states, now);
        prop_assert_eq!(states.next_change(now), None);
        now += dark * SECOND;
        prop_assert_eq!(raised(&states, now), stood.clone());
        // The same seen again changes nothing either.
        states.observe(&last, now);
        prop_assert_eq!(raised(&states, now), stood);
    }
}

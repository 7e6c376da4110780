use super::super::laws::tests::lawful;
use super::*;
use crate::output::table::plain;

#[test]
fn a_lawful_drill_passes_and_says_so() {
    let report = Report::of("power-loss", "sim", 7, &lawful());
    assert!(report.passed && report.failure().is_none());
    assert_eq!(report.makespan_ms, Some(5_700 - 500));
    let text = plain(&report.lines(false));
    assert!(
        text.contains("held   order-workers  no worker's kubelet"),
        "{text}"
    );
    assert!(text.contains("1 machine never came back: b-5"), "{text}");
    assert!(
        text.contains("again: blackstart drill power-loss --seed 7"),
        "{text}"
    );
}

#[test]
fn the_critical_path_is_what_the_machines_alone_take() {
    // Coordinator at 800; a's masters healthy at 1300, API 1800, workers 2300; b's masters 2800, API 3300, worker 3800.
    let report = Report::of("power-loss", "sim", 7, &lawful());
    assert_eq!(report.critical_path_ms, Some(3_800 - 500));
}

#[test]
fn a_broken_law_and_a_run_without_end_are_named() {
    let mut history = lawful();
    history.nodes[3].kubelets[0].started_ms = 1_400;
    history.runs[0].succeeded = false;
    history.runs[0].state = "Halted".to_owned();
    history.runs[0].waiting_on = vec!["two masters of b".to_owned()];
    let report = Report::of("power-loss", "sim", 7, &history);
    let why = report.failure().unwrap();
    assert!(
        why.contains("broken: order-workers; cold-start-1 is Halted, waiting for two masters of b"),
        "{why}"
    );
    let text = plain(&report.lines(true));
    assert!(text.contains("✗ order-workers"), "{text}");
    assert!(text.contains("    a-4's kubelet started at 1400 ms"), "{text}");
}

#[test]
fn a_drill_without_a_run_has_not_passed() {
    let mut history = lawful();
    history.runs.clear();
    let report = Report::of("power-loss", "sim", 7, &history);
    assert!(report.failure().unwrap().contains("no cold start was begun"));
}

#[test]
fn a_run_that_was_overtaken_by_a_wider_one_is_no_failure() {
    let mut history = lawful();
    let mut narrow = history.runs[0].clone();
    narrow.id = "cold-start-0".to_owned();
    narrow.succeeded = false;
    narrow.aborted = true;
    narrow.state = "Aborted".to_owned();
    history.runs.insert(0, narrow);
    assert!(Report::of("power-loss", "sim", 7, &history).passed);
    history.runs.reverse();
    assert!(!Report::of("power-loss", "sim", 7, &history).passed);
}

#[test]
fn the_timeline_is_in_order() {
    let report = Report::of("power-loss", "sim", 7, &lawful());
    assert!(
        report
            .timeline
            .windows(2)
            .all(|pair| pair[0].at_ms <= pair[1].at_ms)
    );
    assert_eq!(report.timeline[0].what, "power cut");
}

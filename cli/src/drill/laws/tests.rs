use super::super::history::{Entry, Kubelet, RunHistory, StepHistory, UnnamedWait};
use super::*;

fn node(name: &str, cluster: &str, role: Role, from: u64) -> NodeHistory {
    let api_ready_ms = (role == Role::Master).then_some(from + 1_000);
    NodeHistory {
        name: name.to_owned(),
        cluster: cluster.to_owned(),
        role,
        powered_ms: Some(500),
        booted_ms: Some(500),
        gate: Some((from, "released".to_owned())),
        kubelets: vec![Kubelet {
            started_ms: from,
            healthy_ms: Some(from + 500),
            stopped_ms: None,
        }],
        api_ready_ms,
        healthy_at_end: true,
        ledger: vec![
            entry(1, "restart-unit", "boot-0", 1),
            entry(2, RELEASE, "boot-1", 2),
        ],
        agent_failed: None,
    }
}

fn entry(sequence: u64, remedy: &str, boot: &str, epoch: u64) -> Entry {
    Entry {
        sequence,
        remedy: remedy.to_owned(),
        command: None,
        boot: boot.to_owned(),
        epoch,
        succeeded: true,
    }
}

/// Two clusters of three masters and two workers each; the last worker of the second never comes back.
pub(crate) fn lawful() -> History {
    let cluster = |name: &str, after: &[&str]| ClusterHistory {
        name: name.to_owned(),
        after: after.iter().map(|&name| name.to_owned()).collect(),
        quorum: 2,
        serving: 1,
    };
    let mut nodes = Vec::new();
    for (cluster, from) in [("a", 1_000), ("b", 4_000)] {
        for index in 1..=5 {
            let (role, from) = if index <= 3 {
                (Role::Master, from)
            } else {
                (Role::Worker, from + 1_200)
            };
            nodes.push(node(&format!("{cluster}-{index}"), cluster, role, from));
        }
    }
    let lost = nodes.last_mut().unwrap();
    lost.powered_ms = None;
    lost.booted_ms = None;
    lost.gate = None;
    lost.kubelets.clear();
    lost.healthy_at_end = false;
    let given_up = StepHistory {
        id: "release/b-5".to_owned(),
        node: Some("b-5".to_owned()),
        state: "Residue".to_owned(),
        said: "never came back".to_owned(),
        is_residue: true,
        ended_ms: Some(12_000),
    };
    History {
        clusters: vec![cluster("a", &[]), cluster("b", &["a"])],
        nodes,
        runs: vec![RunHistory {
            id: "cold-start-1".to_owned(),
            succeeded: true,
            aborted: false,
            state: "Succeeded".to_owned(),
            started_ms: 900,
            took_ms: 11_200,
            residue: vec!["b-5".to_owned()],
            steps: vec![given_up],
            waiting_on: Vec::new(),
            unnamed: Vec::new(),
        }],
        coordinator_on_ms: 800,
        crash_ms: None,
        patience_ms: 8_000,
        ended_ms: 12_500,
    }
}

fn broken(history: &History) -> Vec<(Law, Vec<String>)> {
    let verdicts = judge(history).into_iter();
    verdicts
        .filter(|verdict| !verdict.violations.is_empty())
        .map(|verdict| (verdict.law, verdict.violations))
        .collect()
}

fn change(name: &str, change: impl FnOnce(&mut NodeHistory)) -> History {
    let mut history = lawful();
    change(history.nodes.iter_mut().find(|node| node.name == name).unwrap());
    history
}

/// Exactly this law is broken, once, and the violation says each of `words`.
fn only(history: &History, law: Law, words: &[&str]) {
    let found = broken(history);
    let [(broken, violations)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((*broken, violations.len()), (law, 1), "{violations:?}");
    for word in words {
        assert!(violations[0].contains(word), "{word}: {}", violations[0]);
    }
}

fn start_at(node: &mut NodeHistory, at: u64) {
    node.kubelets[0].started_ms = at;
}

#[test]
fn a_lawful_history_breaks_nothing() {
    assert_eq!(broken(&lawful()), []);
}

#[test]
fn a_worker_before_its_masters_is_found() {
    let history = change("a-4", |node| start_at(node, 1_400));
    only(&history, Law::OrderWorkers, &["a-4", "1400 ms", "0 of the 2"]);
}

#[test]
fn masters_that_had_stopped_again_do_not_count() {
    let mut history = lawful();
    for name in ["b-1", "b-2"] {
        let node = history.nodes.iter_mut().find(|node| node.name == name).unwrap();
        node.kubelets[0].stopped_ms = Some(5_000);
        let again = Kubelet {
            started_ms: 8_000,
            healthy_ms: Some(8_500),
            stopped_ms: None,
        };
        node.kubelets.push(again);
    }
    only(&history, Law::OrderWorkers, &["b-4", "1 of the 2"]);
}

#[test]
fn a_cluster_before_the_one_it_depends_on_is_found() {
    let history = change("b-2", |node| start_at(node, 2_100));
    only(
        &history,
        Law::OrderTiers,
        &["b-2", "a had 3 of 2", "0 of 1 workers"],
    );
}

#[test]
fn a_release_done_twice_in_one_boot_is_found() {
    let history = change("b-3", |node| node.ledger.push(entry(3, RELEASE, "boot-1", 2)));
    only(&history, Law::Once, &["b-3", "2 times", "boot-1", "2, 3"]);
    // In another boot it is another release, and one that failed is none.
    let history = change("b-3", |node| {
        node.ledger.push(entry(3, RELEASE, "boot-2", 2));
        node.ledger.push(Entry {
            succeeded: false,
            ..entry(4, RELEASE, "boot-2", 2)
        });
    });
    assert_eq!(broken(&history), []);
}

#[test]
fn a_lower_epoch_after_a_higher_one_is_found() {
    let history = change("a-1", |node| {
        node.ledger.push(entry(3, "restart-unit", "boot-1", 1));
    });
    only(
        &history,
        Law::Epochs,
        &["a-1", "epoch 1 after number 2 under epoch 2"],
    );
}

#[test]
fn a_machine_that_came_back_and_does_not_run_is_found() {
    let history = change("a-5", |node| {
        node.kubelets[0].stopped_ms = Some(9_000);
        node.healthy_at_end = false;
    });
    only(&history, Law::Running, &["a-5", "stopped at 9000 ms"]);
    let history = change("a-5", |node| {
        node.agent_failed = Some("ledger damaged".to_owned());
    });
    only(&history, Law::Running, &["a-5", "ledger damaged"]);
}

#[test]
fn a_lost_machine_that_is_not_residue_is_found() {
    let mut history = lawful();
    history.runs[0].residue.clear();
    only(&history, Law::Residue, &["b-5", "is not residue"]);
}

#[test]
fn a_machine_that_is_back_and_residue_is_found() {
    let mut history = lawful();
    history.runs[0].residue.push("a-2".to_owned());
    only(&history, Law::Residue, &["a-2", "came back at 500 ms"]);
}

#[test]
fn residue_that_held_somebody_is_found() {
    let history = change("b-4", |node| {
        node.kubelets[0].started_ms = 12_010;
        node.kubelets[0].healthy_ms = Some(12_300);
    });
    only(
        &history,
        Law::Residue,
        &["b-4", "until b-5 was given up at 12000 ms"],
    );
}

#[test]
fn a_wave_that_happens_to_start_when_residue_is_given_up_was_not_held() {
    let mut history = change("b-4", |node| {
        node.kubelets[0].started_ms = 12_010;
        node.kubelets[0].healthy_ms = Some(12_300);
    });
    // The wave before it had just become healthy.
    let other = history.nodes.iter_mut().find(|node| node.name == "b-3").unwrap();
    other.kubelets[0].healthy_ms = Some(11_500);
    assert_eq!(broken(&history), []);
}

#[test]
fn a_wait_without_a_name_is_found() {
    let mut history = lawful();
    history.runs[0].unnamed.push(UnnamedWait {
        step: "gate/a/control-plane".to_owned(),
        at_ms: 1_700,
    });
    only(&history, Law::NamedWaits, &["gate/a/control-plane", "1700 ms"]);
}

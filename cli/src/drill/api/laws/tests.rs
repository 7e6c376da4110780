use blackstart_apiserver::store::{Change, Key};
use serde_json::json;

use super::super::super::history::Entry;
use super::super::chronicle::{Ending, Heard, MachineStory, Proof};
use super::super::objects::OURS;
use super::*;

fn pod(name: &str) -> Object {
    Object {
        resource: "pods",
        namespace: OURS.to_owned(),
        name: name.to_owned(),
    }
}

fn node(name: &str) -> Object {
    Object {
        resource: "nodes",
        namespace: String::new(),
        name: name.to_owned(),
    }
}

fn call(at_ms: u64, revision: u64, deed: Deed) -> Call {
    Call {
        at_ms,
        revision,
        deed,
        code: 200,
    }
}

/// Writes an object into the record, with the next revision.
fn write(chronicle: &mut Chronicle, object: &Object, after: Option<Value>) -> u64 {
    let revision = chronicle.changes.last().map_or(1, |change| change.revision) + 1;
    let before = chronicle.object_at(object, u64::MAX).cloned();
    chronicle.changes.push(Change {
        revision,
        key: Key::new(object.resource, &object.namespace, &object.name),
        before,
        after: after.map(Arc::new),
    });
    revision
}

fn running(on: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": on},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn budget(allowed: u64, disrupted: &[&str]) -> Value {
    let disrupted: serde_json::Map<_, _> = disrupted
        .iter()
        .map(|pod| ((*pod).to_owned(), json!("now")))
        .collect();
    json!({
        "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
        "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted},
    })
}

fn step(id: &str, planned: &str) -> StepStory {
    StepStory {
        id: id.to_owned(),
        planned: planned.to_owned(),
        phase: "done".to_owned(),
        ..StepStory::default()
    }
}

fn run(id: &str, node: Option<&str>, steps: Vec<StepStory>) -> RunStory {
    RunStory {
        id: id.to_owned(),
        node: node.map(str::to_owned),
        namespace: node.is_none().then(|| OURS.to_owned()),
        state: "succeeded".to_owned(),
        asked_ms: 1_000,
        ended_ms: Some(5_000),
        steps,
        ..RunStory::default()
    }
}

fn broken(chronicle: &Chronicle) -> Vec<&'static str> {
    let verdicts = judge(chronicle).into_iter();
    verdicts
        .filter(|verdict| !verdict.violations.is_empty())
        .map(|verdict| verdict.law.name())
        .collect()
}

/// A node that is off from 500 ms on, and is said to be so at 1,000; its pod is deleted by force.
fn forced() -> Chronicle {
    let mut chronicle = Chronicle::default();
    let revision = write(&mut chronicle, &pod("web-1"), Some(running("w-1", false)));
    chronicle.machines.push(MachineStory {
        name: "w-1".to_owned(),
        dark: vec![(500, Some(9_000))],
        ..MachineStory::default()
    });
    chronicle.proofs.push(Proof {
        machine: "w-1".to_owned(),
        at_ms: 1_000,
        by: "operator",
    });
    let mut force = step("force-delete", "proof that it is off");
    force.wants_approval = true;
    force.approved_ms = Some(1_500);
    chronicle
        .runs
        .push(run("node-down-1", Some("w-1"), vec![step("cordon", ""), force]));
    let deed = Deed::Delete {
        pod: pod("web-1"),
        force: true,
    };
    chronicle.calls = vec![
        call(1_100, revision, Deed::Cordon(node("w-1"))),
        call(2_000, revision, deed),
    ];
    chronicle
}

#[test]
fn force_takes_a_machine_that_is_off_an_operators_word_and_approval() {
    assert_eq!(broken(&forced()), Vec::<&str>::new());
    let mut alive = forced();
    alive.machines[0].dark = vec![(500, Some(1_900))];
    assert_eq!(broken(&alive), ["proof-of-death"]);
    let mut silent = forced();
    silent.proofs[0].at_ms = 2_500;
    assert_eq!(broken(&silent), ["proof-of-death"]);
    let mut hasty = forced();
    hasty.runs[0].steps[1].approved_ms = Some(2_500);
    assert_eq!(broken(&hasty), ["only-planned"]);
    let mut tainted = forced();
    tainted.calls[1].deed = Deed::Taint(node("w-2"));
    assert_eq!(broken(&tainted), ["proof-of-death", "only-planned"]);
}

/// A pod that its budget covers goes by a drain.
fn drained(allowed: u64, drawn: bool) -> Chronicle {
    let mut chronicle = Chronicle::default();
    let budgets = Object {
        resource: "poddisruptionbudgets",
        ..pod("web")
    };
    write(&mut chronicle, &pod("web-1"), Some(running("w-1", true)));
    let revision = write(&mut chronicle, &budgets, Some(budget(allowed, &[])));
    if drawn {
        write(&mut chronicle, &budgets, Some(budget(allowed - 1, &["web-1"])));
    }
    let mut going = running("w-1", true);
    going["metadata"]["deletionTimestamp"] = json!("now");
    write(&mut chronicle, &pod("web-1"), Some(going));
    chronicle
        .runs
        .push(run("drain-1", Some("w-1"), vec![step("drain", "")]));
    chronicle
        .calls
        .push(call(2_000, revision, Deed::Evict(pod("web-1"))));
    chronicle
}

#[test]
fn a_budget_lets_a_pod_go_or_it_stays() {
    assert_eq!(broken(&drained(1, true)), Vec::<&str>::new());
    assert_eq!(broken(&drained(0, false)), ["budgets"]);
    // It was refused, and is there.
    let mut refused = drained(0, false);
    refused.calls[0].code = 429;
    assert_eq!(broken(&refused), Vec::<&str>::new());
    // Of another node than the run's.
    let mut other = drained(1, true);
    other.runs[0].node = Some("w-2".to_owned());
    assert_eq!(broken(&other), ["only-planned"]);
}

#[test]
fn what_stays_is_what_the_chapter_says() {
    let cordoned = |by: &str| json!({"metadata": {"annotations": {"blackstart.io/cordoned-by": by}}, "spec": {"unschedulable": true}});
    let mut chronicle = Chronicle::default();
    let revision = write(&mut chronicle, &node("w-1"), Some(json!({"spec": {}})));
    write(&mut chronicle, &node("w-1"), Some(cordoned("drain-1")));
    chronicle
        .runs
        .push(run("drain-1", Some("w-1"), vec![step("cordon", "")]));
    chronicle
        .calls
        .push(call(1_100, revision, Deed::Cordon(node("w-1"))));
    assert_eq!(broken(&chronicle), ["left-as-found"]);
    // What a node's own condition taints it with is no trace of Blackstart.
    let tainted =
        json!({"spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]}});
    write(&mut chronicle, &node("w-1"), Some(tainted));
    assert_eq!(broken(&chronicle), Vec::<&str>::new());
}

/// A run that makes pods again, with such a plan; of three that do not serve.
fn recreated(planned: &str) -> Chronicle {
    let mut chronicle = Chronicle::default();
    for name in ["web-1", "web-2", "web-3"] {
        let revision = write(&mut chronicle, &pod(name), Some(running("w-1", false)));
        let deed = Deed::Delete {
            pod: pod(name),
            force: false,
        };
        chronicle.calls.push(call(2_000, revision, deed));
    }
    chronicle
        .runs
        .push(run("pods-heal-1", None, vec![step("recreate", planned)]));
    chronicle
}

#[test]
fn no_more_pods_are_made_again_than_were_planned_and_none_that_serves() {
    let few = "3 pods: Pod gateway-system/web-1 is Pending; Pod gateway-system/web-2 is Pending; and 1 more";
    assert_eq!(broken(&recreated(few)), Vec::<&str>::new());
    let fewer = few.replace("3 pods", "2 pods");
    assert_eq!(broken(&recreated(&fewer)), ["only-planned"]);
    assert_eq!(
        broken(&recreated("Pod gateway-system/web-1 is Pending")),
        ["only-planned"]
    );
    let mut serves = recreated(few);
    serves.changes[2].after = Some(Arc::new(running("w-1", true)));
    assert_eq!(broken(&serves), ["only-planned"]);
}

#[test]
fn others_are_left_alone_whatever_was_planned() {
    for namespace in [SYSTEM, THEIRS] {
        let mut chronicle = drained(1, true);
        let stranger = Object {
            namespace: namespace.to_owned(),
            ..pod("web-1")
        };
        let revision = write(&mut chronicle, &stranger, Some(running("w-1", true)));
        chronicle.calls.push(call(2_100, revision, Deed::Evict(stranger)));
        assert_eq!(broken(&chronicle), ["protected"]);
    }
    let mut chronicle = drained(1, true);
    let mut of_node = running("w-1", true);
    of_node["metadata"]["ownerReferences"] = json!([{"kind": "DaemonSet"}]);
    chronicle.changes[0].after = Some(Arc::new(of_node));
    assert_eq!(broken(&chronicle), ["protected"]);
}

#[test]
fn agents_obey_runs_on_their_node_once() {
    let entry = |sequence, command: &str, epoch| Entry {
        sequence,
        remedy: "stop-kubelet".to_owned(),
        command: Some(command.to_owned()),
        boot: "boot-1".to_owned(),
        epoch,
        succeeded: true,
    };
    let obeying = |ledger| Chronicle {
        machines: vec![MachineStory {
            name: "w-1".to_owned(),
            ledger,
            ..MachineStory::default()
        }],
        runs: vec![run("drain-1", Some("w-1"), Vec::new())],
        ..Chronicle::default()
    };
    assert_eq!(
        broken(&obeying(vec![
            entry(1, "drain-1/2/1", 3),
            entry(2, "drain-1/3/1", 3)
        ])),
        Vec::<&str>::new()
    );
    for wrong in [
        vec![entry(1, "drain-2/2/1", 3)],
        vec![entry(1, "drain-1/2/1", 3), entry(2, "drain-1/2/1", 3)],
        vec![entry(1, "drain-1/2/1", 3), entry(2, "drain-1/3/1", 2)],
    ] {
        assert_eq!(broken(&obeying(wrong)), ["agents"]);
    }
}

#[test]
fn refusals_say_what_is_missing_and_ends_are_reached() {
    let heard = |missing: &str, steps: &[&str]| Chronicle {
        heard: vec![Heard {
            asked: "node-down of w-1".to_owned(),
            expected: "proof that".to_owned(),
            refusals: vec![("move pods".to_owned(), missing.to_owned())],
            steps: steps.iter().map(|&step| step.to_owned()).collect(),
        }],
        ..Chronicle::default()
    };
    assert_eq!(
        broken(&heard("proof that the machine is off", &[])),
        Vec::<&str>::new()
    );
    assert_eq!(broken(&heard("", &[])), ["missing-evidence"]);
    assert_eq!(
        broken(&heard("proof that the machine is off", &["cordon"])),
        ["missing-evidence"]
    );
    let ended = |wrong: Option<&str>, stuck: Option<&str>| Chronicle {
        ends: vec![Ending {
            what: "node w-1 is back".to_owned(),
            wrong: wrong.map(str::to_owned),
        }],
        stuck: stuck.map(str::to_owned),
        ..Chronicle::default()
    };
    assert_eq!(broken(&ended(None, None)), Vec::<&str>::new());
    assert_eq!(broken(&ended(Some("it is cordoned"), None)), ["chapter-end"]);
    assert_eq!(broken(&ended(None, Some("the end of drain-1"))), ["chapter-end"]);
}

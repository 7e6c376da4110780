//! A gate that looks whether a kubelet could start.

use super::*;
use crate::preflight::{Finding, State};

fn finding(state: State) -> Finding {
    Finding {
        check: "certificate".to_owned(),
        subject: "/etc/kubernetes/kubelet.conf".to_owned(),
        state,
        detail: "expired".to_owned(),
        advice: String::new(),
    }
}

/// A pre-flight that finds what stands in `ill`.
fn finds(ill: &Arc<Mutex<Vec<Finding>>>) -> Look {
    let ill = Arc::clone(ill);
    Arc::new(move || ill.lock().unwrap().clone())
}

/// A gate with a pre-flight, by a clock that the test moves.
fn looking(machine: &Machine, look: Look, clock: Hand) -> Running {
    let settings = machine.settings.clone();
    let (told, statuses) = mpsc::channel(1000);
    let task = tokio::spawn(async move {
        let tell = |status: &GateStatus| told.try_send(status.clone()).unwrap();
        hold::hold_by(&settings, Some(look), CancellationToken::new(), tell, move || {
            clock.now()
        })
        .await
    });
    Running {
        task,
        stop: CancellationToken::new(),
        statuses,
    }
}

/// The coordinator's release, at a time of our choice.
fn released_at(machine: &Machine, at: Duration) {
    let word = Release {
        run_id: "run-1".to_owned(),
        at,
    };
    let boot = nonce(machine.run()).unwrap();
    files::write(machine.run(), files::RELEASE, Some(&boot), &word).unwrap();
}

#[tokio::test]
async fn a_release_waits_for_what_the_pre_flight_finds_and_goes_on_when_it_is_mended() {
    let machine = Machine::new(NEVER);
    let (clock, ill) = (
        Hand::at(1000),
        Arc::new(Mutex::new(vec![finding(State::Blocker)])),
    );
    let mut gate = looking(&machine, finds(&ill), clock.clone());
    gate.says("then the pre-flight: certificate /etc/kubernetes/kubelet.conf: expired")
        .await;
    released_at(&machine, clock.now());
    gate.says("released by run run-1, but certificate").await;
    // What the agent tells the coordinator.
    let held = status(machine.run());
    assert_eq!(held.state, GateState::Held);
    assert!(held.waiting_on.contains("kubelet.conf: expired"), "{held:?}");
    *ill.lock().unwrap() = vec![finding(State::Warning)];
    assert_eq!(gate.ends().await, GateState::Released);
}

#[tokio::test]
async fn a_release_opens_after_a_while_whatever_stands_in_the_way_and_says_what() {
    let machine = Machine::new(NEVER);
    let (clock, ill) = (
        Hand::at(1000),
        Arc::new(Mutex::new(vec![finding(State::Blocker)])),
    );
    let mut gate = looking(&machine, finds(&ill), clock.clone());
    gate.says("then the pre-flight").await;
    released_at(&machine, clock.now());
    gate.says("released by run").await;
    // The coordinator's words do not hold it for longer.
    clock.forward(Duration::from_secs(59));
    heard_at(&machine, clock.now(), "its verification");
    clock.forward(Duration::from_secs(2));
    fs::write(machine.run().join("other"), "").unwrap();
    assert_eq!(gate.ends().await, GateState::Released);
    let open = status(machine.run());
    assert!(
        open.why.contains("run-1") && open.why.contains("kubelet.conf: expired"),
        "{}",
        open.why
    );
}

#[tokio::test]
async fn the_dead_man_opens_over_blockers_and_says_which_stood() {
    let machine = Machine::new(Duration::from_mins(3));
    let (clock, ill) = (
        Hand::at(1000),
        Arc::new(Mutex::new(vec![finding(State::Blocker)])),
    );
    let mut gate = looking(&machine, finds(&ill), clock.clone());
    gate.says("then the pre-flight").await;
    clock.forward(Duration::from_secs(181));
    fs::write(machine.run().join("other"), "").unwrap();
    assert_eq!(gate.ends().await, GateState::DeadMan);
    let why = status(machine.run()).why;
    assert!(why.contains("stood in the way: certificate"), "{why}");
}

#[tokio::test]
async fn a_pre_flight_that_hangs_holds_nobody_for_long() {
    let machine = Machine::new(NEVER);
    let clock = Hand::at(1000);
    let (go_on, hangs) = std::sync::mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    released_at(&machine, clock.now());
    let look: Look = Arc::new(move || {
        let _ended = hangs.lock().unwrap().recv();
        Vec::new()
    });
    let mut gate = looking(&machine, look, clock.clone());
    gate.says("the pre-flight's answer").await;
    clock.forward(Duration::from_secs(11));
    fs::write(machine.run().join("other"), "").unwrap();
    assert_eq!(gate.ends().await, GateState::Released);
    assert!(status(machine.run()).why.contains("did not answer"));
    drop(go_on);
}

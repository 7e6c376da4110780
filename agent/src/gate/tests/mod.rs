//! Gates over real files, as the gate's process and the agent use them.

mod preflight;

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_proto::boot::{self, PreviousShutdown};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::GateRole;
use crate::host::{HostError, UnitAction};
use crate::signal::{DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitSignal};

const SOON: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_hours(1);

/// A machine whose last boot ended in a power loss, unless told otherwise.
struct Machine {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Machine {
    fn new(dead_man: Duration) -> Self {
        let machine = Self::unborn(dead_man);
        machine.power_on();
        machine.power_on();
        machine
    }

    /// It has never been on.
    fn unborn(dead_man: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_node("w-1");
        settings.state_dir = dir.path().join("state");
        settings.runtime_dir = dir.path().join("run");
        settings.gate.dead_man_control_plane = dead_man;
        settings.gate.dead_man_worker = dead_man;
        settings.gate.jitter = Duration::ZERO;
        Self { dir, settings }
    }

    fn run(&self) -> &Path {
        &self.settings.runtime_dir
    }

    fn power_on(&self) -> PreviousShutdown {
        let _ = fs::remove_dir_all(self.run());
        boot::establish(
            &self.settings.boot_id_file,
            &self.settings.state_dir,
            &self.settings.runtime_dir,
        )
        .unwrap()
        .previous_shutdown
    }

    fn gate(&self) -> Running {
        let settings = self.settings.clone();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let (told, statuses) = mpsc::channel(1000);
        let task = tokio::spawn(async move {
            hold_with(&settings, token, |status| told.try_send(status.clone()).unwrap()).await
        });
        Running { task, stop, statuses }
    }

    async fn opens_at_once(&self) -> GateStatus {
        let state = self.gate().ends().await;
        let status = status(self.run());
        assert_eq!(status.state, state);
        status
    }
}

/// A gate's process.
struct Running {
    task: JoinHandle<GateState>,
    stop: CancellationToken,
    statuses: mpsc::Receiver<GateStatus>,
}

impl Running {
    async fn holds(&mut self) -> GateStatus {
        let status = timeout(SOON, self.statuses.recv()).await.unwrap().unwrap();
        assert_eq!(status.state, GateState::Held);
        status
    }

    async fn says(&mut self, words: &str) {
        let heard = async { while !self.statuses.recv().await.unwrap().waiting_on.contains(words) {} };
        timeout(SOON, heard).await.unwrap();
    }

    async fn ends(self) -> GateState {
        timeout(SOON, self.task).await.unwrap().unwrap()
    }

    /// SIGKILL: it gets no chance to say anything.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test]
async fn a_first_boot_and_a_boot_after_a_clean_stop_pass_at_once() {
    let machine = Machine::unborn(NEVER);
    assert_eq!(machine.power_on(), PreviousShutdown::FirstBoot);
    assert_eq!(machine.opens_at_once().await.state, GateState::Passed);

    let marked = mark_clean_shutdown_if_stopping(&machine.settings, &Stopping(true)).await;
    assert!(marked.unwrap());
    assert_eq!(machine.power_on(), PreviousShutdown::Clean);
    assert_eq!(status(machine.run()).state, GateState::Absent);
    let passed = machine.opens_at_once().await;
    assert_eq!(passed.state, GateState::Passed);
    assert!(passed.why.contains("in order"), "{}", passed.why);
}

#[tokio::test]
async fn stopping_the_gate_alone_leaves_no_marker() {
    let machine = Machine::unborn(NEVER);
    machine.power_on();
    let marked = mark_clean_shutdown_if_stopping(&machine.settings, &Stopping(false)).await;
    assert!(!marked.unwrap());
    assert_eq!(machine.power_on(), PreviousShutdown::Unclean);
}

#[tokio::test]
async fn a_machine_that_is_restarted_while_it_is_held_is_held_again() {
    let machine = Machine::new(NEVER);
    let mut gate = machine.gate();
    gate.holds().await;
    let marked = mark_clean_shutdown_if_stopping(&machine.settings, &Stopping(true)).await;
    assert!(!marked.unwrap());
    gate.kill().await;
    assert_eq!(machine.power_on(), PreviousShutdown::Unclean);
}

#[tokio::test]
async fn after_a_power_loss_it_holds_until_it_is_released_and_stays_open() {
    let machine = Machine::new(NEVER);
    let mut gate = machine.gate();
    gate.holds().await;
    let held = status(machine.run());
    assert_eq!(held.state, GateState::Held);
    assert!(held.waiting_on.contains("coordinator"), "{}", held.waiting_on);
    let left = held.opens_by_itself_in.unwrap();
    assert!(left <= NEVER && left + Duration::from_mins(5) > NEVER, "{left:?}");

    release(machine.run(), "run-7").unwrap();
    assert_eq!(gate.ends().await, GateState::Released);
    let open = status(machine.run());
    assert_eq!(open.state, GateState::Released);
    assert!(open.why.contains("run-7"), "{}", open.why);
    assert_eq!(open.opens_by_itself_in, None);

    // Said again, also by another run: nothing changes. Run again: stays open.
    release(machine.run(), "run-8").unwrap();
    assert_eq!(machine.opens_at_once().await, open);
    // The next boot knows nothing of it.
    machine.power_on();
    assert_eq!(status(machine.run()).state, GateState::Absent);
    machine.gate().holds().await;
}

#[tokio::test]
async fn a_release_that_came_before_the_gate_is_obeyed() {
    let machine = Machine::new(NEVER);
    release(machine.run(), "run-1").unwrap();
    assert_eq!(machine.opens_at_once().await.state, GateState::Released);
}

#[tokio::test]
async fn a_release_of_another_boot_opens_nothing() {
    let machine = Machine::new(NEVER);
    release(machine.run(), "run-1").unwrap();
    let old = fs::read(machine.run().join(files::RELEASE)).unwrap();
    machine.power_on();
    fs::write(machine.run().join(files::RELEASE), old).unwrap();
    machine.gate().holds().await;
}

#[tokio::test]
async fn it_opens_by_itself_when_nobody_speaks_to_it() {
    let machine = Machine::new(Duration::from_millis(200));
    assert_eq!(machine.gate().ends().await, GateState::DeadMan);
    assert_eq!(status(machine.run()).state, GateState::DeadMan);
    // And stays open when systemd runs it again.
    assert_eq!(machine.opens_at_once().await.state, GateState::DeadMan);
}

/// A clock that the test moves, in place of `CLOCK_BOOTTIME`.
#[derive(Clone)]
struct Hand(Arc<Mutex<Duration>>);

impl Hand {
    fn at(seconds: u64) -> Self {
        Self(Arc::new(Mutex::new(Duration::from_secs(seconds))))
    }

    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

/// What the coordinator's word is on disk, at a time of our choice.
fn heard_at(machine: &Machine, at: Duration, waiting_on: &str) {
    let word = Heard {
        at,
        waiting_on: waiting_on.to_owned(),
    };
    let boot = nonce(machine.run()).unwrap();
    files::write(machine.run(), files::HEARD, Some(&boot), &word).unwrap();
}

#[tokio::test]
async fn each_word_of_the_coordinator_starts_the_dead_man_anew() {
    let machine = Machine::new(Duration::from_mins(3));
    let clock = Hand::at(1000);
    let (told, mut statuses) = mpsc::channel(100);
    let ticking = clock.clone();
    let mut gate = pin!(hold::hold_by(
        &machine.settings,
        None,
        CancellationToken::new(),
        |status: &GateStatus| told.try_send(status.clone()).unwrap(),
        move || ticking.now(),
    ));
    let mut held_with = async |words: &str, left: u64| {
        let seen = async {
            loop {
                tokio::select! {
                    state = &mut gate => panic!("opened: {state:?}"),
                    status = statuses.recv() => {
                        let status = status.unwrap();
                        if status.waiting_on.contains(words) {
                            break status.opens_by_itself_in.unwrap();
                        }
                    }
                }
            }
        };
        assert_eq!(timeout(SOON, seen).await.unwrap(), Duration::from_secs(left));
    };
    held_with("nothing heard", 180).await;

    clock.forward(Duration::from_secs(170));
    heard_at(&machine, clock.now(), "a quorum of masters");
    held_with("a quorum of masters", 180).await;

    clock.forward(Duration::from_secs(170));
    heard_at(&machine, clock.now(), "wave 2");
    held_with("wave 2", 180).await;

    clock.forward(Duration::from_secs(181));
    // Anything that wakes it.
    fs::write(machine.run().join("other"), "").unwrap();
    assert_eq!(timeout(SOON, gate).await.unwrap(), GateState::DeadMan);
}

#[tokio::test]
async fn a_gate_that_is_restarted_goes_on_where_it_stopped() {
    let machine = Machine::new(Duration::from_mins(3));
    let clock = Hand::at(1000);
    let start = |clock: Hand| {
        let settings = machine.settings.clone();
        let (told, statuses) = mpsc::channel(100);
        let task = tokio::spawn(async move {
            let tell = |status: &GateStatus| told.try_send(status.clone()).unwrap();
            hold::hold_by(&settings, None, CancellationToken::new(), tell, move || {
                clock.now()
            })
            .await
        });
        Running {
            task,
            stop: CancellationToken::new(),
            statuses,
        }
    };
    let mut first = start(clock.clone());
    assert_eq!(
        first.holds().await.opens_by_itself_in,
        Some(Duration::from_mins(3))
    );
    first.kill().await;
    // Nobody holds the kubelet now, and the status does not pretend otherwise.
    let gone = status(machine.run());
    assert_eq!(gone.state, GateState::Passed);
    assert!(gone.why.contains("ended without a word"), "{}", gone.why);

    clock.forward(Duration::from_secs(100));
    let mut second = start(clock.clone());
    assert_eq!(
        second.holds().await.opens_by_itself_in,
        Some(Duration::from_secs(80))
    );
    release(machine.run(), "run-1").unwrap();
    assert_eq!(second.ends().await, GateState::Released);
}

#[tokio::test]
async fn it_holds_without_an_agent_and_obeys_the_next_one() {
    // The agent is only whoever writes words: it comes, dies, and another one comes.
    let machine = Machine::new(NEVER);
    let mut gate = machine.gate();
    gate.holds().await;
    heard(machine.run(), "first agent").unwrap();
    gate.says("first agent").await;
    fs::write(machine.run().join(".gate-release.json.1.1"), b"half a wo").unwrap();
    heard(machine.run(), "second agent").unwrap();
    gate.says("second agent").await;
    assert_eq!(status(machine.run()).state, GateState::Held);
    release(machine.run(), "run-1").unwrap();
    assert_eq!(gate.ends().await, GateState::Released);
}

#[tokio::test]
async fn a_torn_word_is_ignored_and_told() {
    let machine = Machine::new(NEVER);
    let mut gate = machine.gate();
    gate.holds().await;
    fs::write(machine.run().join(files::RELEASE), b"{\"boot\":\"").unwrap();
    gate.says("gate-release.json is ignored").await;
    let held = status(machine.run());
    assert_eq!(held.state, GateState::Held);
    assert!(
        held.waiting_on.contains("gate-release.json is ignored"),
        "{held:?}"
    );
    // It does not stand in the way of a whole one.
    release(machine.run(), "run-1").unwrap();
    assert_eq!(gate.ends().await, GateState::Released);
}

#[tokio::test]
async fn a_word_of_the_future_does_not_postpone_the_dead_man() {
    let machine = Machine::new(Duration::from_millis(300));
    heard_at(&machine, boottime() + NEVER, "the end of days");
    assert_eq!(machine.gate().ends().await, GateState::DeadMan);
}

#[tokio::test]
async fn stopping_the_gate_lets_the_kubelet_go() {
    let machine = Machine::new(NEVER);
    let mut gate = machine.gate();
    gate.holds().await;
    gate.stop.cancel();
    assert_eq!(gate.ends().await, GateState::Passed);
    let status = status(machine.run());
    assert_eq!(status.state, GateState::Passed);
    assert!(status.why.contains("stopped"), "{}", status.why);
}

#[tokio::test]
async fn a_gate_that_cannot_read_its_state_opens_and_says_why() {
    let mut machine = Machine::new(NEVER);
    let file = machine.dir.path().join("file");
    fs::write(&file, "").unwrap();
    machine.settings.state_dir = file.join("state");
    let status = machine.opens_at_once().await;
    assert_eq!(status.state, GateState::Passed);
    assert!(status.why.contains("failed open"), "{}", status.why);
}

#[tokio::test]
async fn a_gate_that_cannot_write_its_runtime_directory_opens() {
    let mut machine = Machine::new(NEVER);
    let file = machine.dir.path().join("file");
    fs::write(&file, "").unwrap();
    machine.settings.runtime_dir = file.join("run");
    assert_eq!(machine.gate().ends().await, GateState::Passed);
}

#[tokio::test]
async fn a_dry_run_holds_nobody() {
    let mut machine = Machine::new(NEVER);
    machine.settings.dry_run = true;
    let status = machine.opens_at_once().await;
    assert!(status.why.contains("dry-run"), "{}", status.why);
}

#[tokio::test]
async fn nobody_can_speak_to_a_gate_of_an_unknown_boot() {
    let machine = Machine::unborn(NEVER);
    let error = release(machine.run(), "run-1").unwrap_err();
    assert!(matches!(error, GateError::UnknownBoot(_)), "{error}");
    assert_eq!(status(machine.run()).state, GateState::Absent);
}

#[test]
fn every_master_opens_before_any_worker() {
    let dead_man = |role, node: &str| {
        let mut settings = Settings::for_node(node);
        settings.gate.role = role;
        settings.gate.dead_man(node)
    };
    let last_master = (0..1000).map(|n| dead_man(GateRole::ControlPlane, &format!("m-{n}")));
    let first_worker = (0..1000).map(|n| dead_man(GateRole::Worker, &format!("w-{n}")));
    assert!(last_master.max() < first_worker.min());
}

#[tokio::test]
async fn a_master_opens_by_itself_while_a_worker_still_holds() {
    let mut master = Machine::new(Duration::from_millis(200));
    master.settings.gate.role = GateRole::ControlPlane;
    let mut worker = Machine::new(Duration::from_millis(200));
    worker.settings.gate.dead_man_worker = NEVER;
    let mut held = worker.gate();
    held.holds().await;
    assert_eq!(master.gate().ends().await, GateState::DeadMan);
    assert_eq!(status(worker.run()).state, GateState::Held);
}

/// A host that only knows whether it goes down.
struct Stopping(bool);

impl Host for Stopping {
    async fn watch_units(&self, _: Vec<String>, _: mpsc::Sender<Signal>, _: CancellationToken) {}

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        Err(HostError::Unreachable(unit.to_owned()))
    }

    async fn unit_action(&self, unit: &str, _: UnitAction) -> Result<(), HostError> {
        Err(HostError::Unreachable(unit.to_owned()))
    }

    async fn probe(&self, _: ProbeTarget, _: Duration) -> ProbeOutcome {
        ProbeOutcome::Refused
    }

    fn disk_usage(&self, _: &Path) -> io::Result<DiskSignal> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn shutting_down(&self) -> bool {
        self.0
    }
}

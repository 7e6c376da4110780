//! A machine whose units do what the test says, and an agent on it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::super::reload::take_over;
use super::super::{Notify, build};
use crate::brakes::SharedBrakes;
use crate::condition::{Condition, ConditionKind};
use crate::config::Settings;
use crate::host::{Host, HostError, UnitAction};
use crate::ledger::{Ledger, Record, SharedLedger};
use crate::link::LinkState;
use crate::order::{Order, OrderAnswer};
use crate::permit::{Answer, Said};
use crate::picture::Picture;
use crate::remedy::Remedy;
use crate::signal::{ActiveState, DiskSignal, ProbeOutcome, ProbeTarget, Signal, UnitDetail, UnitSignal};
use crate::watch::beat::Beat;

pub(super) const KUBELET: &str = "kubelet.service";
pub(super) const DOCKER: &str = "docker.service";

/// Longer than anything here takes, in paused time.
const DEADLINE: Duration = Duration::from_hours(2);

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    units: watch::Sender<BTreeMap<String, UnitSignal>>,
    /// Whether a restart helps.
    heals: Mutex<bool>,
    /// No job ends.
    hangs: Mutex<bool>,
    asked: Mutex<Vec<(String, UnitAction)>>,
    /// How full its one disk is.
    disk: Mutex<Option<DiskSignal>>,
}

impl Machine {
    pub(super) fn new() -> Arc<Self> {
        let units = [KUBELET, DOCKER].map(|unit| {
            let state = UnitSignal {
                unit: unit.to_owned(),
                active: ActiveState::Active,
                sub: "running".to_owned(),
                main_pid: 100,
                restarts: 0,
                result: "success".to_owned(),
                detail: UnitDetail::default(),
            };
            (unit.to_owned(), state)
        });
        Arc::new(Self {
            units: watch::Sender::new(units.into()),
            heals: Mutex::new(true),
            hangs: Mutex::new(false),
            asked: Mutex::new(Vec::new()),
            disk: Mutex::new(None),
        })
    }

    pub(super) fn set(&self, unit: &str, active: ActiveState) {
        self.units.send_modify(|units| {
            let state = units.get_mut(unit).unwrap();
            state.active = active;
            state.main_pid = if active == ActiveState::Active {
                state.main_pid + 1
            } else {
                0
            };
        });
    }

    pub(super) fn heals(&self, heals: bool) {
        *self.heals.lock().unwrap() = heals;
    }

    pub(super) fn hangs(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
    }

    pub(super) fn fill(&self, disk: Option<DiskSignal>) {
        *self.disk.lock().unwrap() = disk;
    }

    /// What systemd was asked to do to `unit`.
    pub(super) fn asked(&self, unit: &str) -> Vec<UnitAction> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(of, _)| of == unit)
            .map(|(_, action)| *action)
            .collect()
    }
}

impl Host for Machine {
    async fn watch_units(&self, names: Vec<String>, signals: mpsc::Sender<Signal>, stop: CancellationToken) {
        let mut units = self.units.subscribe();
        let mut told = BTreeMap::new();
        loop {
            let now = units.borrow_and_update().clone();
            for (name, state) in &now {
                if names.contains(name) && told.get(name) != Some(state) {
                    signals.send(Signal::Unit(state.clone())).await.unwrap();
                }
            }
            told = now;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = units.changed() => changed.unwrap(),
            }
        }
    }

    async fn unit_state(&self, unit: &str) -> Result<UnitSignal, HostError> {
        Ok(self.units.borrow()[unit].clone())
    }

    async fn unit_action(&self, unit: &str, action: UnitAction) -> Result<(), HostError> {
        self.asked.lock().unwrap().push((unit.to_owned(), action));
        let (heals, hangs) = (*self.heals.lock().unwrap(), *self.hangs.lock().unwrap());
        // systemd answers everything else at once.
        if hangs && action == UnitAction::Restart {
            std::future::pending::<()>().await;
        }
        match action {
            UnitAction::Restart if heals => self.set(unit, ActiveState::Active),
            UnitAction::Restart => {
                self.set(unit, ActiveState::Failed);
                return Err(HostError::Refused {
                    action: "restart",
                    unit: unit.to_owned(),
                    why: "its job ended with failed".to_owned(),
                });
            }
            UnitAction::Stop => self.set(unit, ActiveState::Inactive),
            UnitAction::Kill | UnitAction::KillMain => self.set(unit, ActiveState::Failed),
            UnitAction::ResetFailed if self.units.borrow()[unit].active == ActiveState::Failed => {
                self.set(unit, ActiveState::Inactive);
            }
            UnitAction::ResetFailed | UnitAction::Weigh(_) => {}
        }
        Ok(())
    }

    async fn probe(&self, target: ProbeTarget, _: Duration) -> ProbeOutcome {
        match target {
            ProbeTarget::Kubelet if self.units.borrow()[KUBELET].active == ActiveState::Active => {
                ProbeOutcome::Healthy
            }
            ProbeTarget::Kubelet | ProbeTarget::ApiServer => ProbeOutcome::Refused,
        }
    }

    fn disk_usage(&self, _: &Path) -> io::Result<DiskSignal> {
        self.disk
            .lock()
            .unwrap()
            .clone()
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}

/// Settings of a node whose files are all in a directory of their own, in a boot that began in order.
pub(super) fn node() -> (TempDir, Settings) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("boot_id"), "boot\n").unwrap();
    let mut settings = Settings {
        state_dir: at("state"),
        runtime_dir: at("run"),
        boot_id_file: at("boot_id"),
        units: vec![KUBELET.into(), DOCKER.into()],
        disks: Vec::new(),
        ..Settings::for_node("node-1")
    };
    settings.logs.globs = vec![format!("{}/*.log", dir.path().display())];
    (dir, settings)
}

/// An agent on a machine.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ledger: SharedLedger,
    pub(super) brakes: SharedBrakes,
    /// The link's ends: what is to be said of permits, what is said, and whether there is a session.
    pub(super) wishes: watch::Receiver<Arc<Vec<Said>>>,
    pub(super) permits: mpsc::Sender<Answer>,
    pub(super) link: watch::Sender<LinkState>,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<OrderAnswer>,
    picture: watch::Receiver<Arc<Picture>>,
    in_force: watch::Sender<Arc<Settings>>,
    stop: CancellationToken,
    mind: JoinHandle<()>,
    watchers: tokio_util::task::AbortOnDropHandle<()>,
}

impl Running {
    pub(super) async fn start(settings: &Settings, machine: &Arc<Machine>) -> Self {
        let stop = CancellationToken::new();
        let agent = build(
            settings.clone(),
            Arc::clone(machine),
            Notify::none(),
            Beat::begin(),
            &stop,
        )
        .await
        .unwrap();
        Self {
            ledger: agent.ledger,
            brakes: agent.brakes,
            wishes: agent.wishes,
            permits: agent.permits,
            link: agent.link_state,
            orders: agent.orders,
            answers: agent.answers,
            picture: agent.picture,
            in_force: agent.in_force,
            mind: tokio::spawn(agent.mind.run(stop.clone())),
            watchers: agent.watchers,
            stop,
        }
    }

    /// New settings come. Tells those that are in force then.
    pub(super) fn reload(&self, settings: &Settings) -> Arc<Settings> {
        take_over(settings.clone(), &self.in_force);
        Arc::clone(&self.in_force.borrow())
    }

    /// Waits until the picture is like that.
    pub(super) async fn sees(&mut self, like: impl FnMut(&Arc<Picture>) -> bool) -> Arc<Picture> {
        let seen = timeout(DEADLINE, self.picture.wait_for(like))
            .await
            .map(|seen| Arc::clone(&*seen.unwrap()));
        seen.unwrap_or_else(|_| panic!("never seen; at last: {:#?}", self.picture.borrow()))
    }

    /// Waits until a condition of this kind stands.
    pub(super) async fn stands(&mut self, kind: ConditionKind, subject: &str) -> Condition {
        let of = |picture: &Arc<Picture>| {
            picture
                .conditions
                .iter()
                .find(|condition| condition.key.kind == kind && condition.key.subject == subject)
                .cloned()
        };
        let seen = self.sees(|picture| of(picture).is_some()).await;
        of(&seen).unwrap()
    }

    /// Waits until the ledger has records like that.
    pub(super) async fn records(&self, mut like: impl FnMut(&[Record]) -> bool) -> Vec<Record> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let records: Vec<_> = self.ledger.lock().records().cloned().collect();
            if like(&records) {
                return records;
            }
            assert!(Instant::now() < deadline, "never there; at last: {records:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Gives a command, and waits for its answer.
    pub(super) async fn order(&mut self, order: Order) -> OrderAnswer {
        let id = order.command_id.clone();
        self.orders.send(order).await.unwrap();
        let answer = timeout(DEADLINE, self.answers.recv()).await.unwrap().unwrap();
        assert_eq!(answer.command_id, id);
        answer
    }

    /// Lets the time pass.
    pub(super) async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// An orderly end.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.mind).await.unwrap().unwrap();
        timeout(DEADLINE, self.watchers).await.unwrap().unwrap();
    }

    /// The agent dies, with whatever it was doing.
    pub(super) async fn crash(self) {
        self.mind.abort();
        assert!(self.mind.await.unwrap_err().is_cancelled());
        drop(self.watchers);
    }
}

/// What the ledger says when no agent runs.
pub(super) fn written(settings: &Settings) -> Vec<Record> {
    Ledger::read(&settings.ledger()).unwrap().records
}

/// A command that expires in a minute.
pub(super) fn order(id: &str, epoch: u64, remedy: Remedy) -> Order {
    Order {
        command_id: id.to_owned(),
        epoch,
        expires_at: Instant::now() + Duration::from_mins(1),
        remedy,
        reason: "the plan says so".to_owned(),
    }
}

pub(super) fn restart(unit: &str) -> Remedy {
    Remedy::RestartUnit {
        unit: unit.to_owned(),
    }
}

pub(super) fn release() -> Remedy {
    Remedy::ReleaseKubelet {
        run_id: "run-1".to_owned(),
    }
}

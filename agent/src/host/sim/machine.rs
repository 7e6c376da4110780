//! The power of a simulated machine.
//!
//! A machine that is on is a thread with a runtime of its own: cutting its power drops every task of its agent and boot
//! gate where it stands, as a power loss does. Nothing is said to anybody, nothing is flushed, sockets just close.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{SimEvent, SimHost};
use crate::config::Settings;

/// Where the kernel makes random names.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

/// A write to a disk that is under way when power goes is waited for this long.
const UNWIND: Duration = Duration::from_secs(1);

/// A simulated machine that can be switched on and off.
#[derive(Debug)]
pub struct SimMachine {
    settings: Settings,
    host: Arc<SimHost>,
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    cut: CancellationToken,
    thread: JoinHandle<()>,
}

impl SimMachine {
    /// A machine without power. `settings` are its agent's: state and runtime directory and the file with the boot id must
    /// be this machine's alone.
    pub fn new(settings: Settings, host: Arc<SimHost>) -> Self {
        Self {
            settings,
            host,
            on: None,
        }
    }

    /// What it is as its agent sees it.
    pub fn host(&self) -> &Arc<SimHost> {
        &self.host
    }

    /// What its agent was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Has it power?
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Power comes back: a new boot, in which the gate holds or lets go of the kubelet while the agent runs beside it.
    /// Nothing happens if it is on.
    ///
    /// # Errors
    /// Its files or its thread could not be made.
    pub fn power_on(&mut self) -> io::Result<()> {
        if self.on.is_some() {
            return Ok(());
        }
        self.begin_boot()?;
        let cut = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let life = live(self.settings.clone(), Arc::clone(&self.host), cut.clone());
        let thread = std::thread::Builder::new()
            .name(self.settings.node.clone())
            .spawn(move || {
                runtime.block_on(life);
                runtime.shutdown_timeout(UNWIND);
            })?;
        self.on = Some(On { cut, thread });
        Ok(())
    }

    /// Power goes. Once this has returned nothing of the machine runs any more. Nothing happens if it is off.
    pub fn cut_power(&mut self) {
        if let Some(On { cut, thread }) = self.on.take() {
            // Before anything can be said by those that are dropped.
            self.host.lose_power();
            cut.cancel();
            // A panic on the thread has been printed there; the machine is off either way.
            let _ = thread.join();
        }
    }

    /// What a boot leaves of the one before: the disk, and neither the runtime directory nor the boot id.
    fn begin_boot(&self) -> io::Result<()> {
        let Settings {
            state_dir,
            runtime_dir,
            boot_id_file,
            ..
        } = &self.settings;
        match fs::remove_dir_all(runtime_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(runtime_dir)?;
        fs::create_dir_all(state_dir)?;
        fs::create_dir_all(boot_id_file.parent().unwrap_or(Path::new("/")))?;
        fs::write(boot_id_file, fs::read(RANDOM_UUID)?)?;
        self.host.boot();
        Ok(())
    }
}

impl Drop for SimMachine {
    fn drop(&mut self) {
        self.cut_power();
    }
}

/// One boot, until its power is cut.
async fn live(settings: Settings, host: Arc<SimHost>, cut: CancellationToken) {
    let kubelet = boot_kubelet(&settings, &host);
    let agent = run_agent(settings.clone(), Arc::clone(&host));
    tokio::select! {
        () = cut.cancelled() => {}
        ((), ()) = async { tokio::join!(kubelet, agent) } => cut.cancelled().await,
    }
}

/// As systemd does it: the kubelet comes after the gate, and wants it only: a gate that fails holds nobody.
async fn boot_kubelet(settings: &Settings, host: &SimHost) {
    // Never cancelled: a machine that loses its power drops it.
    let opened = crate::gate::hold(settings, CancellationToken::new()).await;
    host.note(SimEvent::GateOpened(opened.map_err(|error| error.to_string())));
    host.start_kubelet();
}

async fn run_agent(settings: Settings, host: Arc<SimHost>) {
    let ended = crate::run::run(
        settings,
        Arc::clone(&host),
        crate::run::Notify::none(),
        CancellationToken::new(),
    )
    .await;
    host.note(SimEvent::AgentEnded(match ended {
        Ok(()) => "it ended".to_owned(),
        Err(error) => match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }));
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep, timeout};

    use super::super::{SimCluster, SimRecord, SimSpec, SimStage};
    use super::*;
    use crate::config::DiskSettings;
    use crate::gate::{self, GateState};

    fn machine(root: &Path) -> SimMachine {
        let spec = SimSpec {
            name: "w-1".to_owned(),
            is_master: false,
            kubelet_start: Duration::from_millis(20),
            disks: vec![("/".into(), 1 << 30)],
        };
        let cluster = Arc::new(SimCluster::new(1, Duration::ZERO));
        let mut settings = Settings::for_node("w-1");
        settings.state_dir = root.join("state");
        settings.runtime_dir = root.join("run");
        settings.boot_id_file = root.join("boot_id");
        settings.disks = vec![DiskSettings::at("/")];
        settings.logs.globs = vec![root.join("logs/**").display().to_string()];
        SimMachine::new(settings, Arc::new(SimHost::new(spec, cluster)))
    }

    async fn becomes(machine: &SimMachine, stage: SimStage) {
        let reached = timeout(Duration::from_secs(30), async {
            while machine.host().stage(Instant::now()) != stage {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            reached.await.is_ok(),
            "never {stage:?}: {:?}",
            machine.host().record()
        );
    }

    fn last_gate(machine: &SimMachine) -> Option<Result<GateState, String>> {
        let mut record = machine.host().record().into_iter().rev();
        record.find_map(|SimRecord { event, .. }| match event {
            SimEvent::GateOpened(why) => Some(why),
            SimEvent::PoweredOn
            | SimEvent::PowerCut
            | SimEvent::KubeletStarted { .. }
            | SimEvent::KubeletStopped
            | SimEvent::Fault(_)
            | SimEvent::AgentEnded(_) => None,
        })
    }

    #[tokio::test]
    async fn after_its_power_was_cut_the_gate_holds_until_released() {
        let root = tempfile::tempdir().unwrap();
        let mut machine = machine(root.path());
        machine.power_on().unwrap();
        becomes(&machine, SimStage::Healthy).await;
        assert_eq!(last_gate(&machine), Some(Ok(GateState::Passed)));

        machine.cut_power();
        assert_eq!(machine.host().stage(Instant::now()), SimStage::Dark);
        machine.power_on().unwrap();
        // The gate has written down that it holds.
        let runtime = machine.settings().runtime_dir.clone();
        let holds = timeout(Duration::from_secs(30), async {
            while gate::status(&runtime).state != GateState::Held {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(holds.await.is_ok(), "{:?}", machine.host().record());
        assert_eq!(machine.host().stage(Instant::now()), SimStage::Held);

        gate::release(&runtime, "cold-start-1").unwrap();
        becomes(&machine, SimStage::Healthy).await;
        assert_eq!(last_gate(&machine), Some(Ok(GateState::Released)));
    }
}

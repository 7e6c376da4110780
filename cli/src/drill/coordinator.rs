//! The coordinator of a drill: a process of its own, so that it can be killed as a power loss kills it.
//!
//! It is this command again, under a hidden name. It ends when its standard input does, so it cannot outlive the drill,
//! however that ends.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use blackstart_coordinator::notify::Notify;
use blackstart_coordinator::runbooks::world::Timing;
use blackstart_coordinator::{config, run};
use clap::Args;
use rand::Rng;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::topology::Topology;
use crate::failure::Failure;

/// The hidden subcommand of `blackstart drill`.
pub(super) const SUBCOMMAND: &str = "coordinator";

/// What the hidden subcommand is given.
#[derive(Debug, Args)]
pub(super) struct CoordinatorArgs {
    /// Its configuration file
    config: PathBuf,
}

/// Below the ports that systems give out by themselves: an agent that calls while nobody listens would else be given
/// the coordinator's own port now and then, and speak to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The clusters of a drill live [`SPEED`](super::api::SPEED) times as fast: their kubelets renew a lease every half second.
const SIGNS_OF_LIFE: Timing = Timing {
    fresh: Duration::from_secs(40),
    lease_old: Duration::from_secs(5),
    renewal: Duration::from_secs(1),
    usage: Duration::from_millis(300),
    settle: Duration::from_millis(600),
    power: Duration::from_secs(3),
};

/// A node is given up when it has not come back within this of its turn; well above the time in which those that return do.
pub(super) const RETURN_DEADLINE: Duration = Duration::from_secs(8);

/// The coordinator's machine.
#[derive(Debug)]
pub(super) struct Coordinator {
    dir: PathBuf,
    program: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

impl Coordinator {
    /// Writes its files below `dir`; certificates are in `pki`, and `more` is the rest of its configuration. Management controllers are at
    /// the address that stands with the machines, if some are.
    pub(super) fn new(
        dir: &Path,
        pki: &Path,
        (topology, bmc): (&Topology, Option<SocketAddr>),
        more: &str,
    ) -> io::Result<Self> {
        let address = free_port()?;
        fs::create_dir_all(dir)?;
        fs::write(dir.join("inventory.yaml"), topology.inventory(bmc))?;
        let at = dir.display();
        let pki = pki.display();
        let return_deadline = RETURN_DEADLINE.as_secs();
        let text = format!(
            "\
listen: [\"{address}\"]
tls: {{ca: {pki}/ca.crt, certificate: {pki}/coordinator.crt, key: {pki}/coordinator.key}}
state_dir: {at}/state
runtime_dir: {at}/run
boot_id_file: {at}/boot_id
inventory: {at}/inventory.yaml
silent_after: 2s
cold_start:
  fresh: 5s
  release_deadline: 20s
  return_deadline: {return_deadline}s
  control_plane_deadline: 60s
{more}"
        );
        fs::write(dir.join("coordinator.yaml"), text)?;
        Ok(Self {
            dir: dir.to_owned(),
            program: std::env::current_exe()?,
            address,
            process: None,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it writes what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("coordinator.log")
    }

    /// Its machine boots anew, and it is started.
    pub(super) fn power_on(&mut self) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.join("run")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(
            self.dir.join("boot_id"),
            fs::read("/proc/sys/kernel/random/uuid")?,
        )?;
        self.start()
    }

    /// The process alone is started, in the same boot.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let process = Command::new(&self.program)
            .args(["drill", SUBCOMMAND])
            .arg(self.dir.join("coordinator.yaml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            // Ctrl-C is for the drill, which takes it down.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It fails for a process that has ended already.
            let _ = process.kill().await;
        }
    }

    /// Why it runs no more although nobody killed it; `None` if it does.
    pub(super) fn failed(&mut self) -> Option<Failure> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        Some(Failure::Other {
            what: format!(
                "the drill's coordinator ended ({status}); its last words:\n{}",
                last.join("\n")
            ),
            advice: Some("--keep DIR keeps its whole log".to_owned()),
        })
    }
}

pub(super) fn free_port() -> io::Result<SocketAddr> {
    let mut random = rand::rng();
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..100 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(PORTS)));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The hidden subcommand: the real coordinator, until it is killed or nobody holds its standard input any more.
pub(super) async fn serve(args: CoordinatorArgs) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    let mut settings = config::load(&args.config).map_err(|error| Failure::usage(error.to_string()))?;
    settings.timing = SIGNS_OF_LIFE;
    let failed = |error: run::RunError| Failure::other(tell(&error));
    let listeners = run::bind(&settings).map_err(failed)?;
    let coordinator = run::run(settings, listeners, Notify::none(), CancellationToken::new());
    let orphaned = async {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        // Its end is all that is waited for, whatever ends it.
        pipe::Receiver::from_owned_fd(stdin)?
            .read_to_end(&mut Vec::new())
            .await
    };
    tokio::select! {
        ended = coordinator => ended.map_err(failed),
        end = orphaned => match end {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::usage(format!(
                "this is a part of `blackstart drill`, which holds a pipe to its standard input: {error}"
            ))),
        },
    }
}

/// An error with its causes, in a line.
fn tell(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

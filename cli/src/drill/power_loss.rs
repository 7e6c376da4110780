//! `blackstart drill power-loss` on simulated machines.
//!
//! ```text
//! fleet up ─► cut: SIGKILL to the coordinator, power from every machine ─► power back, one by one, as drawn
//!          ─► the coordinator back at a moment of its own, in every other drill killed once more amid its work
//!          ─► its runs followed to their end ─► history ─► laws
//! ```
//!
//! Everything but the machines is real: coordinator process, agents, boot gates, ledgers, certificates, mTLS on loopback.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use blackstart_coordinator::pki::{Authority, PkiError};
use blackstart_coordinator::policy::ColdStartPolicy;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use super::coordinator::{Coordinator, RETURN_DEADLINE};
use super::fleet::Fleet;
use super::history::{ClusterHistory, History};
use super::saboteur::Saboteur;
use super::scenario::{Lost, PowerLoss};
use super::seen::{Seen, Settling, millis, ticker};
use super::show::{Scene, Show, Stage};
use super::topology::{Role, Topology};
use super::{Sabotage, follow};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::settings::{Connection, Shows};
use crate::view::RunDetail;

/// A fleet that is not up by then never will be.
pub(super) const UP_WITHIN: Duration = Duration::from_mins(1);
/// Long after the last deadline of any step. Each node adds its share.
const OVER_WITHIN: Duration = Duration::from_mins(1);
const EACH_NODE: Duration = Duration::from_millis(200);
/// A file system that is memory, on every Linux.
const IN_MEMORY: &str = "/dev/shm";
/// More than a node's ledger and other files take, bytes.
const NODE_BYTES: u64 = 2 << 20;

/// What is to be held.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) topology: Topology,
    pub(super) seed: u64,
    pub(super) sabotage: Option<Sabotage>,
    /// Where everything is left; in a temporary directory that is removed if nowhere.
    pub(super) keep: Option<PathBuf>,
}

/// Workers of so many that have to be healthy before others depend on them, as the coordinator reckons it.
pub(super) fn serving(workers: usize) -> usize {
    let percent = usize::try_from(ColdStartPolicy::default().serving_percent).unwrap_or(100);
    (workers * percent).div_ceil(100)
}

/// What each cluster needs.
pub(super) fn clusters(topology: &Topology) -> Vec<ClusterHistory> {
    let clusters = topology.clusters.iter();
    clusters
        .map(|cluster| ClusterHistory {
            name: cluster.name.clone(),
            after: cluster.after.clone(),
            quorum: cluster.quorum(),
            serving: serving(cluster.count(Role::Worker)),
        })
        .collect()
}

/// Holds it. Ctrl-C ends it early; whichever way it ends, nothing of it goes on.
pub(super) async fn hold(order: &Order, output: &mut Output) -> Result<History, Failure> {
    let place = Place::new(order.keep.as_deref(), order.topology.machines().count())?;
    if let Place::Kept(dir) = &place {
        keep_logs(dir)?;
    }
    let mut drill = Drill::prepare(order, &place)?;
    let mut show = Show::new(output);
    let held = tokio::select! {
        held = drill.hold(order, &mut show, output) => held,
        asked = interrupted() => Err(asked),
    };
    drill.coordinator.kill().await;
    drill.fleet.cut_power();
    show.end(output)?;
    if matches!(held, Err(Failure::Interrupted)) {
        note("the drill was broken off; nothing of it goes on");
    }
    held
}

/// Somebody wants it to end.
pub(super) async fn interrupted() -> Failure {
    let asked = async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        }
    };
    match asked.await {
        Ok(()) => Failure::Interrupted,
        Err(error) => Failure::other(format!("listen to signals: {error}")),
    }
}

/// The directory of `--keep`: made if it is not there, empty.
pub(super) fn to_keep(dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::other(format!("make {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    let dir = fs::canonicalize(dir).map_err(failed)?;
    if fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(dir);
    }
    Err(Failure::usage(format!(
        "{} is not empty: --keep wants a directory for this drill alone",
        dir.display()
    )))
}

/// What the agents have to say, each under its node's name; the coordinator's is beside its store.
pub(super) fn keep_logs(dir: &Path) -> Result<(), Failure> {
    let path = dir.join("agents.log");
    let file =
        File::create(&path).map_err(|error| Failure::other(format!("make {}: {error}", path.display())))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,blackstart_agent=debug"))
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(file)
        .init();
    Ok(())
}

fn has_room(dir: &Path, nodes: usize) -> bool {
    let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
    rustix::fs::statvfs(dir)
        .is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) / NODE_BYTES > nodes)
}

/// Where the drill's files are.
pub(super) enum Place {
    Temporary {
        dir: TempDir,
        /// Each simulated machine has a disk of its own. On one real disk they would wait for each other's writes, which
        /// real machines do not.
        disks: Option<TempDir>,
    },
    Kept(PathBuf),
}

impl Place {
    pub(super) fn new(keep: Option<&Path>, nodes: usize) -> Result<Self, Failure> {
        let Some(dir) = keep else {
            let builder = || {
                let mut builder = tempfile::Builder::new();
                builder.prefix("blackstart-drill-");
                builder
            };
            let dir = builder()
                .tempdir()
                .map_err(|error| Failure::other(format!("make a directory for the drill: {error}")))?;
            let disks = has_room(Path::new(IN_MEMORY), nodes)
                .then(|| builder().tempdir_in(IN_MEMORY).ok())
                .flatten();
            return Ok(Self::Temporary { dir, disks });
        };
        Ok(Self::Kept(to_keep(dir)?))
    }

    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Temporary { dir, .. } => dir.path(),
            Self::Kept(dir) => dir,
        }
    }

    pub(super) fn nodes(&self) -> PathBuf {
        match self {
            Self::Temporary {
                disks: Some(disks), ..
            } => disks.path().to_owned(),
            Self::Temporary { .. } | Self::Kept(_) => self.dir().join("nodes"),
        }
    }
}

struct Drill {
    title: String,
    drawn: PowerLoss,
    topology: Topology,
    fleet: Fleet,
    coordinator: Coordinator,
    connection: Connection,
}

impl Drill {
    fn prepare(order: &Order, place: &Place) -> Result<Self, Failure> {
        let dir = place.dir();
        let topology = order.topology.clone();
        let drawn = PowerLoss::draw(&topology, serving, Lost::OneOrTwo, order.seed);
        let pki = dir.join("pki");
        let issued = issue(&pki, &topology)
            .map_err(|error| Failure::other(format!("make the drill's certificates: {error}")))?;
        let failed = |error| Failure::other(format!("lay out the drill below {}: {error}", dir.display()));
        let coordinator =
            Coordinator::new(&dir.join("coordinator"), &pki, (&topology, None), "").map_err(failed)?;
        let fleet = Fleet::new(
            &place.nodes(),
            &pki,
            coordinator.address(),
            &topology,
            &drawn.kubelet_start,
        )
        .map_err(failed)?;
        Ok(Self {
            title: format!("power-loss on sim, seed {}", order.seed),
            connection: Connection {
                coordinators: vec![coordinator.address()],
                shows: Shows::Certificate(issued),
                timeout: Duration::from_secs(5),
            },
            drawn,
            topology,
            fleet,
            coordinator,
        })
    }

    async fn hold(
        &mut self,
        order: &Order,
        show: &mut Show,
        output: &mut Output,
    ) -> Result<History, Failure> {
        self.bring_up(show, output).await?;
        self.coordinator.kill().await;
        self.fleet.cut_power();
        let cut = Instant::now();
        let cut_at = SystemTime::now();
        let seen = self.recover(order, cut, show, output).await?;
        let ended_ms = millis(cut.elapsed());
        let nodes = self.fleet.histories(cut)?;
        Ok(History {
            clusters: clusters(&self.topology),
            nodes,
            runs: seen.into_runs(cut_at),
            coordinator_on_ms: millis(self.drawn.coordinator_on),
            patience_ms: millis(RETURN_DEADLINE),
            crash_ms: self.drawn.crash.map(|(at, back)| (millis(at), millis(back))),
            ended_ms,
        })
    }

    /// Everything starts for the first time, and is healthy.
    async fn bring_up(&mut self, show: &mut Show, output: &mut Output) -> Result<(), Failure> {
        let began = Instant::now();
        self.turn(Turn::PowerOn).await?;
        for name in self.fleet.order.clone() {
            self.fleet.power_on(&name)?;
        }
        let (to, mut ready) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::all_ready(self.connection.clone(), to));
        let mut have = 0;
        let mut tick = ticker();
        loop {
            tokio::select! {
                count = ready.recv() => match count {
                    Some(count) => have = count,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    if let Some(failure) = self.coordinator.failed() {
                        return Err(failure);
                    }
                    let all = self.fleet.order.len();
                    show.now(&self.scene("the fleet comes up", began, &[]), output)?;
                    if began.elapsed() > UP_WITHIN {
                        return Err(Failure::other(format!(
                            "bring the fleet up before the drill: after {}s the coordinator knows {have} of {all} nodes ready",
                            UP_WITHIN.as_secs()
                        )));
                    }
                }
            }
        }
    }

    /// Power comes back as drawn, and the coordinator's runs are followed until everything has settled.
    async fn recover(
        &mut self,
        order: &Order,
        cut: Instant,
        show: &mut Show,
        output: &mut Output,
    ) -> Result<Seen, Failure> {
        let (to, mut looks) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::runs(self.connection.clone(), to));
        let mut returning = self.drawn.power_on.clone().into_iter().peekable();
        let mut turns = Turn::all(&self.drawn).into_iter().peekable();
        let mut saboteur = order.sabotage.map(Saboteur::new);
        let mut seen = Seen::default();
        let mut settled = Settling::default();
        let all = u32::try_from(self.fleet.order.len()).unwrap_or(u32::MAX);
        let over = OVER_WITHIN + EACH_NODE * all;
        let mut tick = ticker();
        loop {
            let next = [
                returning.peek().map(|(at, _)| *at),
                turns.peek().map(|(at, _)| *at),
            ];
            let next = cut + next.into_iter().flatten().min().unwrap_or(over);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let now = cut.elapsed();
                    while let Some((_, name)) = returning.next_if(|(at, _)| *at <= now) {
                        self.fleet.power_on(&name)?;
                    }
                    while let Some((_, turn)) = turns.next_if(|(at, _)| *at <= now) {
                        self.turn(turn).await?;
                    }
                }
                Some(look) = looks.recv() => seen.take(look, millis(cut.elapsed())),
                _ = tick.tick() => {}
            }
            if let Some(saboteur) = &mut saboteur {
                let fleet = &self.fleet;
                let runtime = |name: &str| Ok(fleet.nodes[name].machine.settings().runtime_dir.clone());
                saboteur.work(&fleet.seats(), runtime)?;
            }
            if let Some(failure) = self.coordinator.failed() {
                return Err(failure);
            }
            let power = if returning.peek().is_some() {
                "power comes back"
            } else {
                "power is back"
            };
            let coordinator = match turns.peek() {
                Some((_, Turn::PowerOn | Turn::Restart)) => ", the coordinator is down",
                Some((_, Turn::Crash)) | None => "",
            };
            let act = format!("{power}{coordinator}");
            let scene = self.scene(&act, cut, &seen.runs);
            show.now(&scene, output)?;
            let healthy = self.fleet.count(Stage::Healthy) == self.drawn.power_on.len();
            if returning.peek().is_none() && settled.look(&seen.runs, healthy) || cut.elapsed() > over {
                return Ok(seen);
            }
        }
    }

    async fn turn(&mut self, turn: Turn) -> Result<(), Failure> {
        let started = match turn {
            Turn::PowerOn => self.coordinator.power_on(),
            Turn::Crash => {
                self.coordinator.kill().await;
                Ok(())
            }
            Turn::Restart => self.coordinator.start(),
        };
        started.map_err(|error| Failure::other(format!("start the drill's coordinator: {error}")))
    }

    fn scene<'a>(&'a self, act: &'a str, since: Instant, runs: &'a [RunDetail]) -> Scene<'a> {
        Scene {
            title: &self.title,
            act,
            at_ms: millis(since.elapsed()),
            seats: self.fleet.seats(),
            runs,
            pods: "",
        }
    }
}

/// An authority for this drill alone; gives the operator's files.
pub(super) fn issue(pki: &Path, topology: &Topology) -> Result<blackstart_proto::tls::TlsFiles, PkiError> {
    let authority = Authority::create(pki)?;
    authority.issue_coordinator("coordinator")?;
    for (_, machine) in topology.machines() {
        authority.issue_node(&machine.name)?;
    }
    authority.issue_operator("drill")
}

/// What becomes of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    PowerOn,
    Crash,
    Restart,
}

impl Turn {
    fn all(drawn: &PowerLoss) -> Vec<(Duration, Self)> {
        let crash = drawn.crash.iter();
        let crash = crash.flat_map(|&(at, back)| [(at, Self::Crash), (back, Self::Restart)]);
        std::iter::once((drawn.coordinator_on, Self::PowerOn))
            .chain(crash)
            .collect()
    }
}

//! Three masters as a drill sees them, whatever ground they stand on: where their files are, where their pods answer, and what may be done to them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::part::Part;
use blackstart_tests::component::Mood;
use blackstart_tests::masters::store::Member;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::nodes::Nodes;
use super::processes::Processes;
use super::witness::Witness;
use crate::failure::Failure;
use crate::settings::Connection;

/// What API servers are told of etcd at first.
pub(super) const OLD_ETCD: &str = "https://127.0.0.1:2379";
/// The static pod of etcd.
pub(super) use blackstart_tests::masters::ETCD;

/// Where the files of a master are, as this machine reaches them.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// What its agent calls `/`.
    pub(super) root: PathBuf,
    /// What stands for `/etc/kubernetes`: with `manifests`, `pki`, and what runs keep.
    pub(super) etc: PathBuf,
    /// How parts are, each in a file of its pod's name.
    pub(super) moods: PathBuf,
    /// Its member's data.
    pub(super) data: PathBuf,
    pub(super) snapshots: PathBuf,
    /// The agent's ledger.
    pub(super) ledger: PathBuf,
}

/// A static pod, and where it is asked for its health.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) pod: String,
    pub(super) at: SocketAddr,
    pub(super) path: &'static str,
}

/// One master.
#[derive(Debug, Clone)]
pub(super) struct Master {
    pub(super) name: String,
    pub(super) files: Files,
    pub(super) asked: Vec<Asked>,
    /// Its member, where the drill has etcd.
    pub(super) etcd: Option<Member>,
}

impl Master {
    pub(super) fn manifests(&self) -> PathBuf {
        self.files.etc.join("manifests")
    }

    pub(super) fn manifest(&self, part: Part) -> PathBuf {
        self.manifests().join(format!("{part}.yaml"))
    }

    /// The manifest of its member.
    pub(super) fn etcd_manifest(&self) -> PathBuf {
        self.manifests().join("etcd.yaml")
    }

    pub(super) fn certificate(&self, part: Part) -> PathBuf {
        self.files.etc.join("pki").join(format!("{}.crt", part.as_str()))
    }

    pub(super) fn set(&self, part: Part, mood: Mood) -> io::Result<()> {
        mood.write(&self.files.moods.join(part.pod()))
    }

    /// A file of its, as its agent calls it.
    pub(super) fn as_told(&self, file: &Path) -> PathBuf {
        let inside = file.strip_prefix(&self.files.root).unwrap_or(file);
        Path::new("/").join(inside)
    }
}

/// What masters stand on.
#[derive(Debug)]
pub(super) enum Ground {
    Processes(Processes),
    Nodes(Nodes),
}

/// All of it. What runs ends when it is dropped.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) masters: Vec<Master>,
    pub(super) cluster: String,
    pub(super) connection: Connection,
    /// Of another operator.
    pub(super) second: Connection,
    pub(super) witness: Witness,
    ground: Ground,
}

impl Bed {
    /// Of masters that stand on this, reached by these connections, of which the second is another operator's.
    pub(super) fn new(
        ground: Ground,
        cluster: &str,
        masters: Vec<Master>,
        [connection, second]: [Connection; 2],
    ) -> Self {
        Self {
            cluster: cluster.to_owned(),
            connection,
            second,
            witness: Witness::of(&masters),
            masters,
            ground,
        }
    }

    /// The drill's clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.witness.now_ms()
    }

    /// Every pod answers.
    pub(super) fn is_well(&self) -> bool {
        let mut all = self
            .masters
            .iter()
            .flat_map(|master| master.asked.iter().map(|asked| (&master.name, &asked.pod)));
        all.all(|(node, pod)| self.witness.is_well(node, pod))
    }

    /// Nothing takes longer, on the slowest machine.
    pub(super) const fn patience(&self) -> Duration {
        match &self.ground {
            Ground::Processes(_) => Duration::from_secs(90),
            Ground::Nodes(_) => Duration::from_mins(4),
        }
    }

    /// The process of a pod of a master is hung from now on; the next one is not.
    pub(super) fn hang(&self, at: usize, part: Part) -> Result<(), Failure> {
        let own = match &self.ground {
            Ground::Processes(processes) => processes.process(at, part.pod()),
            Ground::Nodes(nodes) => nodes.process(at, part.pod())?,
        };
        let failed = |error| Failure::other(format!("make trouble for the drill: {error}"));
        self.masters[at].set(part, Mood::Hung(own)).map_err(failed)
    }

    /// Kills the process of a pod; it may end by itself as well.
    pub(super) fn kill(&self, at: usize, pod: &str) -> Result<(), Failure> {
        match &self.ground {
            Ground::Processes(processes) => {
                let process = i32::try_from(processes.process(at, pod)).unwrap_or_default();
                if process > 0 {
                    let _ended = kill(Pid::from_raw(process), Signal::SIGKILL);
                }
                Ok(())
            }
            Ground::Nodes(nodes) => nodes.kill(at, pod),
        }
    }

    /// Why its coordinator runs no more although nobody killed it; `None` if it does.
    pub(super) fn failed(&mut self) -> Option<Failure> {
        match &mut self.ground {
            Ground::Processes(processes) => processes.coordinator.failed(),
            Ground::Nodes(nodes) => nodes.failed(),
        }
    }

    /// Ends the coordinator: what goes from now on is none of its business.
    pub(super) async fn kill_coordinator(&mut self) -> Result<(), Failure> {
        match &mut self.ground {
            Ground::Processes(processes) => {
                processes.coordinator.kill().await;
                Ok(())
            }
            Ground::Nodes(nodes) => nodes.kill_coordinator().await,
        }
    }

    /// Ends the agents, and waits for them: their ledgers are closed then.
    pub(super) async fn stop_agents(&mut self) -> Result<(), Failure> {
        self.witness.stop();
        match &mut self.ground {
            Ground::Processes(processes) => {
                processes.stop_agents().await;
                Ok(())
            }
            Ground::Nodes(nodes) => nodes.stop_agents().await,
        }
    }
}

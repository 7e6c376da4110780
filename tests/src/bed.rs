//! A bed: nodes on a network of their own, as a fleet of one cluster.
//!
//! All it has bears its name: containers and network by label, processes by a file, everything else in one directory. Whoever
//! raises a bed removes first what an earlier one of that name left, so a run that was killed leaves nothing for long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use nix::fcntl::Flock;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use crate::coordinator::Coordinator;
use crate::disk;
use crate::docker::{BED_LABEL, Docker, say};
use crate::image;
use crate::network::Network;
use crate::node::{Node, Place};
use crate::settings::Yaml;
use crate::topology::{Declared, Role, Topology};
use crate::wait;

mod furnish;

pub use furnish::POLKIT_RULE_PATH;

/// A node's systemd takes about 8 of them, and dies without a word when there are no more.
const INOTIFY_INSTANCES: u32 = 1024;

/// What runs in a bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Nodes, and nothing on them.
    Nothing,
    /// Stand-in kubelets.
    Kubelets,
    /// Agents, gates and stand-in kubelets; no coordinator.
    Agents,
    /// All of it.
    Fleet,
}

/// What the API servers of masters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiServers {
    /// Their kubelets stand in for them.
    Kubelets,
    /// Static pods, or nothing.
    StaticPods,
}

/// What a bed is to be.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How many nodes.
    pub topology: Topology,
    /// What runs on them.
    pub runs: Runs,
    /// Size of each node's disk, bytes.
    pub disk_bytes: u64,
    /// In place of [`crate::settings::agent`]'s own keys.
    pub agent: fn(&Declared) -> Yaml,
    /// In place of [`crate::settings::coordinator`]'s own keys.
    pub coordinator: Yaml,
    /// What the API servers of masters are.
    pub api_servers: ApiServers,
    /// Files and directories of this machine that nodes see, read-only: (outside, inside).
    pub mounts: Vec<(PathBuf, String)>,
    /// Further units: (name, text).
    pub units: Vec<(&'static str, String)>,
    /// Further programs of this workspace that nodes have in `/usr/bin`.
    pub programs: Vec<&'static str>,
    /// Volumes that nodes share with other containers: (name, inside).
    pub volumes: Vec<(String, String)>,
    /// Further Debian packages, on an image of its own.
    pub packages: Vec<&'static str>,
    /// Devices of this machine that nodes have too.
    pub devices: Vec<&'static str>,
}

impl Wish {
    /// So many nodes with all of it.
    pub fn fleet(masters: u8, workers: u8) -> Self {
        Self {
            topology: Topology { masters, workers },
            runs: Runs::Fleet,
            disk_bytes: disk::DEFAULT_BYTES,
            agent: |_| Yaml::default(),
            coordinator: Yaml::default(),
            api_servers: ApiServers::Kubelets,
            mounts: Vec::new(),
            units: Vec::new(),
            programs: Vec::new(),
            volumes: Vec::new(),
            packages: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// One node, a worker, with this on it.
    pub fn single(runs: Runs) -> Self {
        Self {
            runs,
            ..Self::fleet(0, 1)
        }
    }
}

/// A bed that stands. Dropped, it is removed with everything in it, unless it is to be kept.
#[derive(Debug)]
pub struct Bed {
    name: String,
    dir: PathBuf,
    docker: Docker,
    nodes: BTreeMap<String, Node>,
    declared: Vec<Declared>,
    coordinator: Option<Coordinator>,
    keep: bool,
    /// Two programs that use one name take turns.
    _lock: Flock<fs::File>,
}

/// What another command has to know of a bed.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    masters: u8,
    workers: u8,
    has_coordinator: bool,
}

fn home() -> PathBuf {
    image::cache().join("beds")
}

/// Held by whoever works with the bed of this name.
fn lock_file(name: &str) -> PathBuf {
    home().join(format!("{name}.lock"))
}

impl Bed {
    /// Makes a bed and powers all its nodes on. Ready when every systemd answers.
    ///
    /// # Errors
    /// Says what is missing, or which node did not come up.
    pub async fn raise(docker: &Docker, name: &str, wish: &Wish) -> anyhow::Result<Self> {
        let image = image::ensure_with(docker, &wish.packages).await?;
        fs::create_dir_all(home()).context("make the directory of beds")?;
        let lock = image::lock(&lock_file(name)).await?;
        let dir = home().join(name);
        sweep(docker, name).await?;
        allow_inotify()?;
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let network = Network::make(docker, name).await?;
        let declared = wish.topology.nodes(&network);
        let has_coordinator = wish.runs == Runs::Fleet;
        let coordinator = has_coordinator.then(|| Coordinator::at(&dir, network.gateway()));
        let mut bed = Self {
            name: name.to_owned(),
            dir,
            docker: docker.clone(),
            nodes: BTreeMap::new(),
            declared,
            coordinator,
            keep: false,
            _lock: lock,
        };
        bed.furnish(wish)?;
        let kept = Kept {
            masters: wish.topology.masters,
            workers: wish.topology.workers,
            has_coordinator,
        };
        fs::write(bed.dir.join("bed.json"), serde_json::to_vec(&kept)?)?;
        let place = Place {
            bed: name,
            network: network.name(),
            image: &image,
            dir: &bed.dir,
        };
        let made = bed.declared.iter().map(async |declared| {
            let spec = bed.spec(wish, declared)?;
            Node::create(docker, place, &spec).await
        });
        let made = try_join_all(made).await?;
        bed.nodes = made
            .into_iter()
            .map(|node| (node.name().to_owned(), node))
            .collect();
        if let Some(coordinator) = &bed.coordinator {
            coordinator.start().await?;
        }
        bed.power_on().await?;
        Ok(bed)
    }

    /// A bed that was kept.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn open(docker: &Docker, name: &str) -> anyhow::Result<Self> {
        let dir = home().join(name);
        let kept: Kept = fs::read(dir.join("bed.json"))
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .with_context(|| format!("there is no bed {name}: raise it first (make testbed-up)"))?;
        let lock = image::lock(&lock_file(name)).await?;
        let network = Network::open(docker, name).await?;
        let topology = Topology {
            masters: kept.masters,
            workers: kept.workers,
        };
        let declared = topology.nodes(&network);
        let mut nodes = BTreeMap::new();
        for declared in &declared {
            let node = Node::open(docker, name, &dir, &declared.name).await?;
            nodes.insert(declared.name.clone(), node);
        }
        Ok(Self {
            name: name.to_owned(),
            coordinator: kept
                .has_coordinator
                .then(|| Coordinator::at(&dir, network.gateway())),
            dir,
            docker: docker.clone(),
            nodes,
            declared,
            keep: true,
            _lock: lock,
        })
    }

    /// Leaves it standing when this value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes it with everything in it.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub async fn take_down(mut self) -> anyhow::Result<()> {
        self.keep = true;
        sweep(&self.docker, &self.name).await?;
        let lock = lock_file(&self.name);
        fs::remove_file(&lock).with_context(|| format!("remove {}", lock.display()))
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its nodes as they are declared, masters first.
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// Every node.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Every node, masters first.
    pub fn nodes_as_declared(&self) -> impl Iterator<Item = &Node> {
        self.declared
            .iter()
            .filter_map(|declared| self.nodes.get(&declared.name))
    }

    /// The nodes of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.declared
            .iter()
            .filter(move |declared| declared.role == role)
            .filter_map(|declared| self.nodes.get(&declared.name))
    }

    /// One node.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        let names: Vec<_> = self.nodes.keys().map(String::as_str).collect();
        self.nodes
            .get(name)
            .with_context(|| format!("no node {name} here, only {}", names.join(", ")))
    }

    /// Its coordinator.
    ///
    /// # Errors
    /// It was made without one.
    pub fn coordinator(&self) -> anyhow::Result<&Coordinator> {
        self.coordinator
            .as_ref()
            .with_context(|| format!("bed {} has no coordinator", self.name))
    }

    /// Cuts the power of every node that has some, of all at once.
    ///
    /// # Errors
    /// A node did not go down.
    pub async fn power_loss(&self) -> anyhow::Result<()> {
        let on = self.nodes().filter(|node| node.is_on());
        try_join_all(on.map(Node::power_off)).await?;
        Ok(())
    }

    /// Powers on every node that is off.
    ///
    /// # Errors
    /// A node did not come up.
    pub async fn power_on(&self) -> anyhow::Result<()> {
        self.power_on_except(&[]).await
    }

    /// Powers on every node that is off, except these.
    ///
    /// # Errors
    /// A node did not come up.
    pub async fn power_on_except(&self, except: &[&str]) -> anyhow::Result<()> {
        let off = self
            .nodes()
            .filter(|node| !node.is_on() && !except.contains(&node.name()));
        try_join_all(off.map(Node::power_on)).await?;
        Ok(())
    }

    /// Waits until the kubelets of these nodes answer.
    ///
    /// # Errors
    /// One does not within `deadline`.
    pub async fn kubelets_answer<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a Node>,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        try_join_all(nodes.into_iter().map(async |node| {
            let what = format!("the kubelet of {} to run", node.name());
            wait::until(&what, deadline, async || {
                let state = node.property("kubelet.service", "ActiveState").await?;
                Ok((state == "active").then_some(()))
            })
            .await
        }))
        .await?;
        Ok(())
    }

    /// What the journals of its nodes and its coordinator's log end with, for a test that failed.
    fn last_words(&self) -> String {
        let mut words = Vec::new();
        for node in self.nodes().filter(|node| node.is_on()) {
            let args = [
                "exec",
                node.container(),
                "journalctl",
                "--no-pager",
                "--lines=60",
                "--output=short-monotonic",
                "--unit=blackstart-*",
                "--unit=kubelet.service",
            ];
            let output = std::process::Command::new("docker").args(args).output();
            let text = output.map(|output| output.stdout).unwrap_or_default();
            words.push(format!(
                "---- {}\n{}",
                node.name(),
                String::from_utf8_lossy(&text)
            ));
        }
        if let Some(coordinator) = &self.coordinator {
            let log = coordinator.log();
            let start = log.floor_char_boundary(log.len().saturating_sub(8000));
            words.push(format!("---- coordinator\n{}", &log[start..]));
        }
        words.join("\n")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() {
            say(&format!(
                "what bed {} said at last:\n{}",
                self.name,
                self.last_words()
            ));
        }
        // A destructor cannot wait for a future; what fails here is removed by the next bed of this name.
        let docker = |args: &[&str], of: &[&str]| {
            let output = std::process::Command::new("docker").args(args).args(of).output();
            match output {
                Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
                failed => {
                    say(&format!("bed {}: docker {args:?} failed: {failed:?}", self.name));
                    String::new()
                }
            }
        };
        let further = Coordinator::further(&self.dir);
        for pid in self
            .coordinator
            .iter()
            .chain(&further)
            .filter_map(Coordinator::pid)
        {
            // Either may fail: it can end by itself in between, or be another process's child.
            let _ = kill(pid, Signal::SIGKILL).and_then(|()| waitpid(pid, None));
        }
        // Asked for, because making the nodes may have been broken off.
        let filter = format!("label={BED_LABEL}={}", self.name);
        let containers = docker(&["ps", "--all", "--quiet", "--filter", &filter], &[]);
        let containers: Vec<_> = containers.lines().collect();
        if !containers.is_empty() {
            docker(&["rm", "--force", "--volumes"], &containers);
        }
        docker(&["network", "rm", &format!("blackstart-{}", self.name)], &[]);
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            say(&format!(
                "bed {}: remove {}: {error}",
                self.name,
                self.dir.display()
            ));
        }
    }
}

/// Removes what bears this bed's name, unless a process is at work with it: then it is left alone.
///
/// # Errors
/// Something could not be removed.
pub async fn remove(docker: &Docker, name: &str) -> anyhow::Result<bool> {
    fs::create_dir_all(home()).context("make the directory of beds")?;
    let lock = lock_file(name);
    let Some(_lock) = image::try_lock(&lock)? else {
        return Ok(false);
    };
    sweep(docker, name).await?;
    fs::remove_file(&lock).with_context(|| format!("remove {}", lock.display()))?;
    Ok(true)
}

/// Removes everything that bears this bed's name, whatever is left of it.
async fn sweep(docker: &Docker, name: &str) -> anyhow::Result<()> {
    let dir = home().join(name);
    let first = Coordinator::at(&dir, std::net::Ipv4Addr::LOCALHOST);
    for coordinator in Coordinator::further(&dir).iter().chain([&first]) {
        if coordinator.pid().is_some() {
            coordinator.kill().await?;
        }
    }
    docker.remove(name).await?;
    if dir.exists() {
        for entry in fs::read_dir(dir.join("nodes")).into_iter().flatten() {
            disk::Disk::at(&entry?.path().join("disk")).released().await?;
        }
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// Names of all beds that left something: files, containers or networks.
///
/// # Errors
/// The engine does not answer.
pub async fn left(docker: &Docker) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={BED_LABEL}");
    let format = format!("{{{{.Label \"{BED_LABEL}\"}}}}");
    let containers = docker
        .run(["ps", "--all", "--filter", &filter, "--format", &format])
        .await?;
    let networks = docker
        .run(["network", "ls", "--filter", &filter, "--format", &format])
        .await?;
    let mut names: Vec<_> = containers
        .lines()
        .chain(networks.lines())
        .map(str::to_owned)
        .collect();
    for entry in fs::read_dir(home()).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.push(name.strip_suffix(".lock").unwrap_or(&name).to_owned());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn allow_inotify() -> anyhow::Result<()> {
    let file = "/proc/sys/fs/inotify/max_user_instances";
    let now: u32 = fs::read_to_string(file)?.trim().parse()?;
    if now < INOTIFY_INSTANCES {
        fs::write(file, INOTIFY_INSTANCES.to_string())
            .with_context(|| format!("raise {file}, of which each node takes about 8"))?;
    }
    Ok(())
}

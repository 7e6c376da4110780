//! One node: a container with systemd as PID 1.
//!
//! Its root file system is that of an installed machine and outlives a power loss; so does its disk, as far as it was
//! synced; `/run` and `/tmp` do not. Where its files can be reached through `/proc` no process is started in it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Pid;

use crate::disk::Disk;
use crate::docker::{BED_LABEL, Cgroups, Docker, has_sys_resource};
use crate::journal::{self, Entry};
use crate::power;
use crate::wait;

/// Where its disk is mounted, inside.
pub const DISK: &str = "/var/lib/node-disk";
/// Label of a node's own name.
const NODE_LABEL: &str = "blackstart.testbed.node";
/// From power to an answering systemd.
const BOOT_DEADLINE: Duration = Duration::from_mins(3);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its host name.
    pub name: String,
    /// On the bed's network.
    pub address: Ipv4Addr,
    /// Size of its disk.
    pub disk_bytes: u64,
    /// Files and directories of this machine that it sees, read-only: (outside, inside).
    pub mounts: Vec<(PathBuf, String)>,
    /// Volumes that it shares with other containers: (name, inside).
    pub volumes: Vec<(String, String)>,
    /// Devices of this machine that it has too.
    pub devices: Vec<&'static str>,
}

/// Where a node is put.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Name of the bed.
    pub bed: &'a str,
    /// Name of the network.
    pub network: &'a str,
    /// Name of the image.
    pub image: &'a str,
    /// The bed's directory.
    pub dir: &'a Path,
}

/// One node, with power or without.
#[derive(Debug)]
pub struct Node {
    name: String,
    container: String,
    docker: Docker,
    disk: Disk,
    /// Its init, as this machine sees it; `None` without power.
    init: Mutex<Option<Pid>>,
}

impl Node {
    /// Makes it, without power.
    ///
    /// # Errors
    /// The disk cannot be made, or the engine refuses.
    pub async fn create(docker: &Docker, place: Place<'_>, spec: &NodeSpec) -> anyhow::Result<Self> {
        let node = Self::named(docker, place.bed, place.dir, &spec.name);
        node.disk.make(spec.disk_bytes).await?;
        let mut args: Vec<String> = [
            "create",
            "--cap-add=ALL",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--security-opt=systempaths=unconfined",
            "--cgroupns=private",
            "--tmpfs=/run:exec,mode=755",
            "--tmpfs=/tmp:exec,mode=1777",
            "--stop-signal=SIGRTMIN+3",
            "--log-driver=json-file",
            // Its init mounts its disk.
            "--device-cgroup-rule=b 7:* rwm",
            "--device-cgroup-rule=c 10:237 rwm",
        ]
        .map(str::to_owned)
        .into();
        if !has_sys_resource() {
            args.push("--cap-drop=SYS_RESOURCE".to_owned());
        }
        match docker.cgroups() {
            // Never the machine's own: systemd would remount it read-only for everybody.
            Cgroups::V1 => args.push("--tmpfs=/sys/fs/cgroup".to_owned()),
            Cgroups::V2 => {}
        }
        args.push(format!("--name={}", node.container));
        args.push(format!("--hostname={}", spec.name));
        args.push(format!("--label={BED_LABEL}={}", place.bed));
        args.push(format!("--label={NODE_LABEL}={}", spec.name));
        args.push(format!("--network={}", place.network));
        args.push(format!("--ip={}", spec.address));
        args.push(format!(
            "--volume={}:/disk",
            directory(place.dir, &spec.name).join("disk").display()
        ));
        for (outside, inside) in &spec.mounts {
            args.push(format!("--volume={}:{inside}:ro", outside.display()));
        }
        for (name, inside) in &spec.volumes {
            args.push(format!("--volume={name}:{inside}"));
        }
        args.extend(spec.devices.iter().map(|device| format!("--device={device}")));
        args.push(place.image.to_owned());
        docker
            .run(args)
            .await
            .with_context(|| format!("make node {}", spec.name))?;
        Ok(node)
    }

    /// A node that was made before, by this process or another.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn open(docker: &Docker, bed: &str, dir: &Path, name: &str) -> anyhow::Result<Self> {
        let node = Self::named(docker, bed, dir, name);
        node.look().await?;
        Ok(node)
    }

    fn named(docker: &Docker, bed: &str, dir: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            container: format!("blackstart-{bed}-{name}"),
            docker: docker.clone(),
            disk: Disk::at(&directory(dir, name).join("disk")),
            init: Mutex::new(None),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As the engine calls it.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Has it power?
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    /// Its init, as this machine numbers it.
    fn init(&self) -> Option<Pid> {
        *self.init.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_init(&self, init: Option<Pid>) {
        *self.init.lock().unwrap_or_else(PoisonError::into_inner) = init;
    }

    /// Asks the engine how it stands.
    async fn look(&self) -> anyhow::Result<Option<Pid>> {
        let pid: i32 = self
            .docker
            .run(["inspect", "--format", "{{.State.Pid}}", &self.container])
            .await?
            .parse()
            .with_context(|| format!("ask for the state of node {}", self.name))?;
        let init = (pid != 0).then(|| Pid::from_raw(pid));
        self.set_init(init);
        Ok(init)
    }

    /// Gives it power, and returns when its systemd answers.
    ///
    /// # Errors
    /// It does not come up; with what its console says.
    pub async fn power_on(&self) -> anyhow::Result<()> {
        self.disk.released().await?;
        self.docker.run(["start", &self.container]).await?;
        let what = format!("node {} to boot", self.name);
        let booted = wait::until(&what, BOOT_DEADLINE, async || {
            let Some(_) = self.look().await? else {
                bail!("its init has ended");
            };
            // Made by systemd as soon as it starts units.
            let bus = self.path("/run/dbus/system_bus_socket")?;
            Ok(bus.exists().then_some(()))
        })
        .await;
        if let Err(error) = booted {
            let console = self
                .docker
                .run(["logs", "--tail", "20", &self.container])
                .await
                .unwrap_or_default();
            return Err(error.context(format!("power on node {}; its console: {console}", self.name)));
        }
        Ok(())
    }

    /// Cuts its power: what was not synced is lost, and nothing in it is told.
    ///
    /// # Errors
    /// It had none, or did not go down.
    pub async fn power_off(&self) -> anyhow::Result<()> {
        let init = self
            .init()
            .with_context(|| format!("node {} has no power to cut", self.name))?;
        let disk = self.path(DISK)?;
        power::cut(init, &disk).with_context(|| format!("cut the power of node {}", self.name))?;
        self.set_init(None);
        self.docker.run(["wait", &self.container]).await?;
        self.disk.released().await
    }

    /// Shuts it down in order, as its operator would.
    ///
    /// # Errors
    /// It did not go down within half a minute.
    pub async fn shut_down(&self) -> anyhow::Result<()> {
        self.docker.run(["stop", "--time", "30", &self.container]).await?;
        let code = self
            .docker
            .run(["inspect", "--format", "{{.State.ExitCode}}", &self.container])
            .await?;
        self.set_init(None);
        if code == "137" {
            bail!("node {} did not shut down within 30s", self.name);
        }
        self.disk.released().await
    }

    /// Runs a command in it; what it wrote.
    ///
    /// # Errors
    /// The command failed or took longer than a minute.
    pub async fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        self.exec_within(Duration::from_mins(1), command).await
    }

    /// Runs a command in it, for at most so long.
    ///
    /// # Errors
    /// The command failed or took longer.
    pub async fn exec_within(&self, deadline: Duration, command: &[&str]) -> anyhow::Result<String> {
        let args = ["exec", self.container.as_str()];
        self.docker
            .run_within(deadline, args.iter().chain(command), &[])
            .await
            .with_context(|| format!("run {command:?} on node {}", self.name))
    }

    /// A file of its, as this machine reaches it while it has power. Not to be used where a part of the path is an
    /// absolute link: it would lead out of the node.
    ///
    /// # Errors
    /// It has no power.
    pub fn path(&self, inside: &str) -> anyhow::Result<PathBuf> {
        let init = self
            .init()
            .with_context(|| format!("node {} has no power", self.name))?;
        Ok(format!("/proc/{init}/root{inside}").into())
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// It has no power, or the file cannot be written.
    pub fn write(&self, inside: &str, contents: &str) -> anyhow::Result<()> {
        let path = self.path(inside)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::write(&path, contents).with_context(|| format!("write {inside} on node {}", self.name))
    }

    /// Reads a file in it.
    ///
    /// # Errors
    /// It has no power, or there is no such file.
    pub fn read(&self, inside: &str) -> anyhow::Result<String> {
        let path = self.path(inside)?;
        fs::read_to_string(path).with_context(|| format!("read {inside} on node {}", self.name))
    }

    /// Copies a file or directory of this machine into it.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn copy_in(&self, from: &Path, inside: &str) -> anyhow::Result<()> {
        let to = format!("{}:{inside}", self.container);
        let from = from.display().to_string();
        self.docker.run(["cp", &from, &to]).await?;
        Ok(())
    }

    /// Identity of its present boot.
    ///
    /// # Errors
    /// It has no power.
    pub fn boot_id(&self) -> anyhow::Result<String> {
        Ok(self.read("/run/boot_id")?.trim().to_owned())
    }

    /// What its journal has of a unit in this boot, oldest first.
    ///
    /// # Errors
    /// It has no power.
    pub async fn journal(&self, unit: &str) -> anyhow::Result<Vec<Entry>> {
        let args = [
            "journalctl",
            "--boot",
            "--unit",
            unit,
            "--output=json",
            "--no-pager",
            "--all",
        ];
        journal::parse(&self.exec(&args).await?)
    }

    /// A property of a unit, as `systemctl show` has it.
    ///
    /// # Errors
    /// It has no power.
    pub async fn property(&self, unit: &str, property: &str) -> anyhow::Result<String> {
        self.exec(&["systemctl", "show", "--value", "--property", property, unit])
            .await
    }

    /// The main process of a unit, as this machine numbers it; `None` if it has none.
    ///
    /// # Errors
    /// It has no power.
    pub async fn main_pid(&self, unit: &str) -> anyhow::Result<Option<Pid>> {
        let inner: i32 = self
            .property(unit, "MainPID")
            .await?
            .parse()
            .context("read MainPID")?;
        if inner == 0 {
            return Ok(None);
        }
        self.pid_outside(inner)
    }

    /// A process of its, numbered as this machine does; `None` if it is gone.
    ///
    /// # Errors
    /// It has no power.
    pub fn pid_outside(&self, inner: i32) -> anyhow::Result<Option<Pid>> {
        let init = self
            .init()
            .with_context(|| format!("node {} has no power", self.name))?;
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&init.to_string());
        for entry in fs::read_dir("/proc").context("list processes")? {
            let name = entry?.file_name();
            let Some(pid) = name
                .to_str()
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            else {
                continue;
            };
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbered = status
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"))
                .and_then(|numbers| numbers.split_whitespace().last())
                .is_some_and(|last| last == inner.to_string());
            if numbered && namespace(pid) == own {
                return Ok(Some(Pid::from_raw(pid.parse()?)));
            }
        }
        Ok(None)
    }
}

/// Where what belongs to a node is kept, outside.
pub fn directory(bed: &Path, node: &str) -> PathBuf {
    bed.join("nodes").join(node)
}

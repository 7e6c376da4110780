//! The faults: how each is injected, what the agent may do about it, and when it is over.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::sleep;

use blackstart_tests::bed::Bed;
use blackstart_tests::bench::repair::KUBELET;
use blackstart_tests::node::{DISK, Node};
use blackstart_tests::wait;

pub(crate) const AGENT: &str = "blackstart-agent.service";
/// A fault that is not mended within this is not mended.
const DEADLINE: Duration = Duration::from_mins(1);
/// What the stand-in kubelet is told to do wrong.
const BEHAVIOUR: &str = "/run/stand-in-kubelet";

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL to the kubelet.
    Kill,
    /// SIGSTOP to the kubelet.
    Freeze,
    /// `systemctl stop`, by nobody who means it.
    Stop,
    /// The kubelet does not start for some seconds.
    StartFailure,
    /// A log grows by 150 MB/s.
    Spurt,
    /// A log is renamed while it grows, and the old one removed.
    Rotation,
    /// A log that grows was deleted.
    DeletedOpen,
    /// Something that is no log fills the disk, and goes.
    DiskFill,
    /// dbus-daemon is restarted.
    DbusRestart,
    /// systemd executes itself anew.
    DaemonReexec,
    /// The coordinator is killed, and comes back.
    CoordinatorAway,
    /// A changed configuration, and SIGHUP.
    ValidReload,
    /// A broken configuration, and SIGHUP.
    InvalidReload,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Kill,
        Self::Freeze,
        Self::Stop,
        Self::StartFailure,
        Self::Spurt,
        Self::Rotation,
        Self::DeletedOpen,
        Self::DiskFill,
        Self::DbusRestart,
        Self::DaemonReexec,
        Self::CoordinatorAway,
        Self::ValidReload,
        Self::InvalidReload,
    ];

    /// How often the agent may do this about it. One death is one restart; a kubelet that does not start is tried again within
    /// the budget of the configuration; a log that grows is reclaimed as often as it grows.
    pub(crate) fn budget(self, remedy: &str) -> usize {
        match (self, remedy) {
            (Self::Kill | Self::Stop, "restart-unit")
            | (Self::Freeze, "kill-restart-unit")
            | (Self::DiskFill, "vacuum-journal" | "prune") => 1,
            (Self::StartFailure, "restart-unit") => super::RESTARTS,
            (Self::StartFailure, "kill-restart-unit") => super::KILL_RESTARTS,
            (Self::Spurt | Self::Rotation | Self::DeletedOpen, "reclaim-log") => 200,
            _ => 0,
        }
    }

    /// It does not go by itself.
    pub(crate) fn needs_remedy(self) -> bool {
        match self {
            Self::Kill | Self::Freeze | Self::Stop | Self::StartFailure | Self::Spurt | Self::DeletedOpen => {
                true
            }
            // What is left of the old log goes with its removal, and the new one may be small.
            Self::Rotation
            | Self::DiskFill
            | Self::DbusRestart
            | Self::DaemonReexec
            | Self::CoordinatorAway
            | Self::ValidReload
            | Self::InvalidReload => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill the kubelet",
            Self::Freeze => "freeze the kubelet",
            Self::Stop => "stop the kubelet's unit",
            Self::StartFailure => "let the kubelet fail to start",
            Self::Spurt => "a log grows by 150 MB/s",
            Self::Rotation => "a growing log is rotated",
            Self::DeletedOpen => "a deleted log grows",
            Self::DiskFill => "fill the disk and free it",
            Self::DbusRestart => "restart dbus",
            Self::DaemonReexec => "daemon-reexec",
            Self::CoordinatorAway => "the coordinator goes and comes back",
            Self::ValidReload => "reload a changed configuration",
            Self::InvalidReload => "reload a broken configuration",
        })
    }
}

/// What faults are injected into.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) node: &'a Node,
    /// The agent's configuration, where it can be written.
    pub(crate) config: PathBuf,
    /// The configuration as it was.
    pub(crate) text: String,
}

impl Field<'_> {
    /// Injects a fault and waits until it is mended. `logs` is a directory of its own under the globs.
    pub(crate) async fn inject(&self, kind: Kind, logs: &str, random: &mut SmallRng) -> anyhow::Result<()> {
        let node = self.node;
        match kind {
            Kind::Kill => {
                let pid = self.kubelet().await?;
                kill(pid, Signal::SIGKILL)?;
                self.another_kubelet(pid).await
            }
            Kind::Freeze => {
                let pid = self.kubelet().await?;
                kill(pid, Signal::SIGSTOP)?;
                self.another_kubelet(pid).await
            }
            Kind::Stop => {
                let pid = self.kubelet().await?;
                node.exec(&["systemctl", "stop", KUBELET]).await?;
                self.another_kubelet(pid).await
            }
            Kind::StartFailure => {
                let pid = self.kubelet().await?;
                node.write(BEHAVIOUR, "refuse")?;
                kill(pid, Signal::SIGKILL)?;
                sleep(Duration::from_millis(random.random_range(500..4000))).await;
                fs::remove_file(node.path(BEHAVIOUR)?)?;
                self.another_kubelet(pid).await
            }
            Kind::Spurt => {
                self.spurt(&format!("{logs}/app.log"), &["--append"], random)
                    .await
            }
            Kind::DeletedOpen => {
                let flags = ["--append", "--delete"];
                self.spurt(&format!("{logs}/app.log"), &flags, random).await
            }
            Kind::Rotation => self.rotate(logs, random).await,
            Kind::DiskFill => self.fill(random).await,
            Kind::DbusRestart => {
                node.exec(&["systemctl", "restart", "dbus.service"]).await?;
                self.answers().await
            }
            Kind::DaemonReexec => {
                node.exec(&["systemctl", "daemon-reexec"]).await?;
                self.answers().await
            }
            Kind::CoordinatorAway => {
                let coordinator = self.bed.coordinator()?;
                coordinator.kill().await?;
                sleep(Duration::from_secs(random.random_range(1..8))).await;
                coordinator.start().await?;
                self.in_session().await
            }
            Kind::ValidReload => {
                let rate = random.random_range(1..9);
                let text = format!("{}load: {{raise_per_processor: {}}}\n", self.text, 20 + rate);
                self.reload(&text).await
            }
            Kind::InvalidReload => {
                let broken = ["units: 7\n", "logs: {min_size: -1}\n", "nonsense: true\n", "{[\n"];
                let text = format!("{}{}", self.text, broken[random.random_range(0..broken.len())]);
                self.reload(&text).await?;
                self.reload(&self.text).await
            }
        }
    }

    async fn kubelet(&self) -> anyhow::Result<Pid> {
        self.node
            .main_pid(KUBELET)
            .await?
            .context("the kubelet does not run before the fault")
    }

    /// Another one runs, and the agent finds nothing wrong.
    async fn another_kubelet(&self, than: Pid) -> anyhow::Result<()> {
        wait::until("another kubelet to run", DEADLINE, async || {
            Ok(self.node.main_pid(KUBELET).await?.filter(|pid| *pid != than))
        })
        .await?;
        self.settled().await
    }

    /// The agent finds nothing wrong any more.
    async fn settled(&self) -> anyhow::Result<()> {
        let mut last = String::new();
        let settled = wait::until("every condition to clear", DEADLINE, async || {
            let command = ["blackstart-agent", "conditions", "--output=json"];
            last = self.node.exec(&command).await?;
            let answer: serde_json::Value = serde_json::from_str(&last)?;
            let items = answer["items"].as_array().context("the agent's conditions")?;
            // Of the machine, which is not the node's alone and which nothing here was done to.
            let machines = ["Overload", "MemoryPressure", "ClockUnsynchronised", "ClockJumped"];
            let clear = items.iter().all(|item| {
                item["condition"]
                    .as_str()
                    .is_some_and(|kind| machines.contains(&kind))
            });
            Ok(clear.then_some(()))
        })
        .await;
        settled.with_context(|| format!("the agent still has {last}"))
    }

    async fn answers(&self) -> anyhow::Result<()> {
        wait::until("the agent to have its units back", DEADLINE, async || {
            let status = self
                .node
                .exec(&["blackstart-agent", "status", "--output=json"])
                .await?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let units = status["units"].as_array().context("the units of the status")?;
            let known = units
                .iter()
                .any(|unit| unit["name"] == KUBELET && unit["state"] == "active");
            Ok(known.then_some(()))
        })
        .await?;
        self.settled().await
    }

    async fn in_session(&self) -> anyhow::Result<()> {
        wait::until("the agent to be in session again", DEADLINE, async || {
            let status = self
                .node
                .exec(&["blackstart-agent", "status", "--output=json"])
                .await?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            Ok((status["coordinator"]["state"] == "up").then_some(()))
        })
        .await
    }

    async fn spurt(&self, log: &str, how: &[&str], random: &mut SmallRng) -> anyhow::Result<()> {
        let seconds = format!("--seconds={}", random.random_range(6..12));
        let mut command = vec!["log-writer", log, "--rate=150000000", "--tail=8", &seconds];
        command.extend(how);
        let answer = self.node.exec_within(DEADLINE, &command).await?;
        let report: serde_json::Value = serde_json::from_str(&answer)?;
        ensure!(report["error"].is_null(), "the writer saw an error: {answer}");
        ensure!(report["tail"] == "whole", "a tail was torn: {answer}");
        let _gone = fs::remove_file(self.node.path(log)?);
        self.settled().await
    }

    async fn rotate(&self, logs: &str, random: &mut SmallRng) -> anyhow::Result<()> {
        let (log, old) = (format!("{logs}/app.log"), format!("{logs}/app.log.1"));
        let seconds = format!("--seconds={}", random.random_range(4..7));
        let write = [
            "log-writer",
            &log,
            "--append",
            "--rate=100000000",
            "--tail=8",
            &seconds,
        ];
        let writing = self.node.exec_within(DEADLINE, &write);
        let rotating = async {
            wait::until("the log to be there", DEADLINE, async || {
                Ok(self.node.path(&log)?.exists().then_some(()))
            })
            .await?;
            sleep(Duration::from_secs(2)).await;
            fs::rename(self.node.path(&log)?, self.node.path(&old)?)?;
            // The writer goes on with the old one, as applications do until they are told.
            fs::write(self.node.path(&log)?, "a new log\n")?;
            anyhow::Ok(())
        };
        let (answer, rotated) = tokio::join!(writing, rotating);
        rotated?;
        let report: serde_json::Value = serde_json::from_str(&answer?)?;
        ensure!(report["error"].is_null(), "the writer saw an error: {report}");
        fs::remove_file(self.node.path(&old)?)?;
        fs::remove_file(self.node.path(&log)?)?;
        self.settled().await
    }

    async fn fill(&self, random: &mut SmallRng) -> anyhow::Result<()> {
        let file = format!("{DISK}/ballast");
        let free = self
            .node
            .exec(&["stat", "--file-system", "--format=%a %S", DISK])
            .await?;
        let bytes: u64 = free
            .split(' ')
            .filter_map(|number| number.parse::<u64>().ok())
            .product();
        let take = (bytes / 100 * random.random_range(92..97)).to_string();
        self.node.exec(&["fallocate", "--length", &take, &file]).await?;
        sleep(Duration::from_secs(random.random_range(3..40))).await;
        fs::remove_file(self.node.path(&file)?)?;
        self.settled().await
    }

    /// Writes the configuration in place (it is a mount of a directory, so a rename would do as well) and has it read.
    async fn reload(&self, text: &str) -> anyhow::Result<()> {
        let before = self.told_of_reloads().await?;
        fs::write(&self.config, text)?;
        self.node
            .exec(&["systemctl", "kill", "--kill-who=main", "--signal=HUP", AGENT])
            .await?;
        wait::until("the agent to read its configuration", DEADLINE, async || {
            Ok((self.told_of_reloads().await? > before).then_some(()))
        })
        .await?;
        let runs = self.node.main_pid(AGENT).await?.is_some();
        ensure!(runs, "the agent ended by a reload");
        Ok(())
    }

    async fn told_of_reloads(&self) -> anyhow::Result<usize> {
        let journal = self.node.journal(AGENT).await?;
        Ok(journal
            .iter()
            .filter(|entry| entry.message.contains("asked to read the configuration again"))
            .count())
    }
}

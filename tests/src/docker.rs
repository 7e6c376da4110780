//! The docker command. Its engine is the user's own; everything made through it carries a label.

use std::ffi::OsStr;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What every container and network of a bed is labelled with; the value is the bed's name.
pub const BED_LABEL: &str = "blackstart.testbed";
/// How long an answer of the engine may take.
const DEADLINE: Duration = Duration::from_mins(3);
/// Bit of `CAP_SYS_RESOURCE` in a capability mask.
const SYS_RESOURCE: u32 = 24;

/// A docker engine that can run nodes.
#[derive(Debug, Clone)]
pub struct Docker {
    cgroups: Cgroups,
}

/// How the machine keeps its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// One hierarchy each.
    V1,
    /// The unified one.
    V2,
}

impl Docker {
    /// Finds the engine.
    ///
    /// # Errors
    /// Names what is missing, and what to do.
    pub async fn find() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            bail!("nodes need root (disks are mounted in them): run as root");
        }
        let version = command(["info", "--format", "{{.CgroupVersion}} {{.ServerErrors}}"])
            .output()
            .await
            .context("run docker: install docker.io")?;
        let answer = String::from_utf8_lossy(&version.stdout);
        let Some(cgroups) = answer
            .split_whitespace()
            .next()
            .filter(|_| version.status.success())
        else {
            let why = String::from_utf8_lossy(&version.stderr);
            bail!(
                "the docker engine does not answer: start dockerd ({})",
                why.trim()
            );
        };
        let cgroups = if cgroups == "2" { Cgroups::V2 } else { Cgroups::V1 };
        Ok(Self { cgroups })
    }

    /// The engine, or `None` after saying why the test is skipped. Where `CI=true` nothing is skipped.
    ///
    /// # Panics
    /// There is none and `CI=true`.
    pub async fn or_skip() -> Option<Self> {
        match Self::find().await {
            Ok(docker) => Some(docker),
            Err(why) => {
                assert!(
                    !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                    "no testbed: {why:#}"
                );
                say(&format!("SKIPPED: no testbed: {why:#}"));
                None
            }
        }
    }

    /// How its machine keeps control groups.
    pub fn cgroups(&self) -> Cgroups {
        self.cgroups
    }

    /// Runs `docker ARGS`; what it wrote to standard output, trimmed.
    ///
    /// # Errors
    /// It failed (its words are in the error), or took longer than a minute.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        self.run_within(DEADLINE, args, &[]).await
    }

    /// Runs `docker ARGS` with this on its standard input, for at most so long.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_within<S: AsRef<OsStr>>(
        &self,
        deadline: Duration,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> anyhow::Result<String> {
        let mut command = command(args);
        let name = format!("{:?}", command.as_std());
        let mut child = command
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run docker")?;
        let answer = async {
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input).await?;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(deadline, answer)
            .await
            .with_context(|| format!("{name} did not end within {deadline:?}"))?
            .with_context(|| format!("run {name}"))?;
        if !output.status.success() {
            bail!(
                "{name} failed ({}): {}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim(),
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Names of the containers of a bed, running or not.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn containers(&self, bed: &str) -> anyhow::Result<Vec<String>> {
        let filter = format!("label={BED_LABEL}={bed}");
        let names = self
            .run(["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
            .await?;
        let mut names: Vec<_> = names.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Removes every container and network of a bed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn remove(&self, bed: &str) -> anyhow::Result<()> {
        let containers = self.containers(bed).await?;
        if !containers.is_empty() {
            let args = ["rm", "--force", "--volumes"].map(str::to_owned);
            self.run(args.into_iter().chain(containers)).await?;
        }
        let filter = format!("label={BED_LABEL}={bed}");
        let networks = self
            .run(["network", "ls", "--filter", &filter, "--format", "{{.ID}}"])
            .await?;
        for network in networks.lines() {
            self.run(["network", "rm", network]).await?;
        }
        Ok(())
    }
}

fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("docker");
    command
        .args(args)
        .stdin(Stdio::null())
        // Ctrl-C is for this program, which has use for docker until everything is removed.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// May this process, and so an engine on this machine, hand out `CAP_SYS_RESOURCE`? Small virtual machines often lack it.
pub fn has_sys_resource() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_none_or(|mask| mask & (1 << SYS_RESOURCE) != 0)
}

/// A line of progress, for whoever watches.
pub fn say(line: &str) {
    // Nobody watching is no reason to fail.
    let _ = writeln!(std::io::stderr(), "testbed: {line}");
}

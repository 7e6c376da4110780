//! The coordinator of a bed: a process of this machine, outside all nodes, as on a machine of its own.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use blackstart_proto::tls::TlsFiles;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use crate::disk::tool;
use crate::settings::{self, Yaml};
use crate::wait;

/// From its start to an open port, and from a polite stop to its end.
const DEADLINE: Duration = Duration::from_mins(2);
/// Where agents and operators find it.
const PORT: u16 = 7443;
/// Directories of further coordinators.
const FURTHER: &str = "further-";

/// The coordinator of a bed, running or not. Which process it is stands in a file, so that another command finds it.
#[derive(Debug)]
pub struct Coordinator {
    dir: PathBuf,
    address: SocketAddr,
}

impl Coordinator {
    /// The one of the bed in `dir`.
    pub fn at(dir: &Path, gateway: std::net::Ipv4Addr) -> Self {
        Self {
            dir: dir.to_owned(),
            address: (gateway, PORT).into(),
        }
    }

    /// One more coordinator of the same fleet, with files of its own below this one's directory; `over` in place of its own keys.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn another(&self, number: u16, over: &Yaml) -> anyhow::Result<Self> {
        let dir = self.dir.join(format!("{FURTHER}{number}"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        for shared in ["pki", "inventory.yaml"] {
            symlink(self.dir.join(shared), dir.join(shared)).with_context(|| format!("share {shared}"))?;
        }
        let address = SocketAddr::new(self.address.ip(), PORT + number);
        let another = Self { dir, address };
        let yaml = settings::coordinator(&another.dir, address).render(over);
        fs::write(another.config(), yaml).context("write a coordinator's configuration")?;
        Ok(another)
    }

    /// The further ones of the bed in `dir`, for whoever takes it down.
    pub(crate) fn further(dir: &Path) -> Vec<Self> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(FURTHER))
            .map(|entry| Self::at(&entry.path(), std::net::Ipv4Addr::LOCALHOST))
            .collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn config(&self) -> PathBuf {
        self.dir.join("coordinator.yaml")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("coordinator.log")).unwrap_or_default()
    }

    /// Its process; `None` if it does not run.
    pub fn pid(&self) -> Option<Pid> {
        let written = fs::read_to_string(self.dir.join("coordinator.pid")).ok()?;
        let pid: i32 = written.trim().parse().ok()?;
        // Numbers are used again.
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let config = self.config().display().to_string();
        let is_it = command
            .split(|byte| *byte == 0)
            .any(|word| word == config.as_bytes());
        is_it.then(|| Pid::from_raw(pid))
    }

    /// Starts it, and returns when its port is open.
    ///
    /// # Errors
    /// It did not start, or ended; with the end of its log.
    pub async fn start(&self) -> anyhow::Result<()> {
        if !self.dir.join("coordinator-boot-id").exists() {
            self.new_boot()?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("coordinator.log"))
            .context("open the coordinator's log")?;
        let child = std::process::Command::new(program("blackstart-coordinator")?)
            .args(["run", "--config"])
            .arg(self.config())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Outlives a command that is interrupted.
            .process_group(0)
            .spawn()
            .context("run blackstart-coordinator")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        fs::write(self.dir.join("coordinator.pid"), pid.to_string())?;
        wait::until("the coordinator to listen", DEADLINE, async || {
            if ended(pid)? {
                let log = self.log();
                let end = log.floor_char_boundary(log.len().saturating_sub(4000));
                bail!("it ended: {}", &log[end..]);
            }
            Ok(TcpStream::connect(self.address).await.ok().map(drop))
        })
        .await
    }

    /// Kills it, wherever it is.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::SIGTERM).await
    }

    async fn end(&self, how: Signal) -> anyhow::Result<()> {
        let pid = self.pid().context("the coordinator does not run")?;
        kill(pid, how).context("signal the coordinator")?;
        wait::until("the coordinator to end", DEADLINE, async || {
            Ok(ended(pid)?.then_some(()))
        })
        .await
    }

    /// Its machine loses power as well: kills it, and makes the next start another boot.
    ///
    /// # Errors
    /// It does not run, or its files cannot be written.
    pub async fn lose_power(&self) -> anyhow::Result<()> {
        self.kill().await?;
        let run = self.dir.join("coordinator-run");
        match fs::remove_dir_all(&run) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", run.display()));
            }
            Ok(()) | Err(_) => {}
        }
        self.new_boot()
    }

    fn new_boot(&self) -> anyhow::Result<()> {
        let id = fs::read("/proc/sys/kernel/random/uuid").context("make a boot id")?;
        fs::write(self.dir.join("coordinator-boot-id"), id).context("write a boot id")
    }

    /// What an operator has in the environment, to use `blackstart` with this bed.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        self.environment_of(&TlsFiles::in_dir(&self.dir.join("pki"), "operator"))
    }

    /// The same with other certificates.
    pub fn environment_of(&self, tls: &TlsFiles) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.display().to_string();
        [
            ("BLACKSTART_COORDINATOR", self.address.to_string()),
            ("BLACKSTART_TLS_CA", text(&tls.ca)),
            ("BLACKSTART_TLS_CERT", text(&tls.certificate)),
            ("BLACKSTART_TLS_KEY", text(&tls.key)),
        ]
    }

    /// Runs `blackstart ARGS -o json` as an operator.
    ///
    /// # Errors
    /// It failed, or answered something else.
    pub async fn ask(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        self.ask_as(&TlsFiles::in_dir(&self.dir.join("pki"), "operator"), args)
            .await
    }

    /// Runs `blackstart ARGS -o json` with these certificates.
    ///
    /// # Errors
    /// It failed, or answered something else.
    pub async fn ask_as(&self, tls: &TlsFiles, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut command = tokio::process::Command::new(program("blackstart")?);
        command
            .args(args)
            .args(["-o", "json"])
            .envs(self.environment_of(tls));
        let answer = tokio::time::timeout(DEADLINE, tool(&mut command))
            .await
            .with_context(|| format!("blackstart {args:?} did not end within {DEADLINE:?}"))??;
        serde_json::from_str(&answer)
            .with_context(|| format!("read what blackstart {args:?} wrote: {answer}"))
    }
}

/// Has a process ended, with all its files closed? A child of this one is reaped.
fn ended(pid: Pid) -> anyhow::Result<bool> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(status) => Ok(status.pid().is_some()),
        // A child of another process; what is left of it may be a zombie that nobody asks for.
        Err(Errno::ECHILD) => Ok(fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| stat.rsplit(") ").next()?.chars().next())
            .is_none_or(|state| state == 'Z' || state == 'X')),
        Err(errno) => Err(errno).context("wait for the coordinator"),
    }
}

/// A program of this workspace, built beside this one.
///
/// # Errors
/// It is not there.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    // A test's program is in `deps`, an example's in `examples`.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "find {name} beside {}: build it first (make build)",
            own.display()
        )
    })
}

//! One container of a static pod: a process, its own or one that an earlier kubelet started.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use blackstart_tests::docker::say;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::manifest::Container;

/// The first pause before a process that ended is started again; a real kubelet's is 10 s. It doubles…
const BACK_OFF: Duration = Duration::from_millis(200);
/// …up to this, and begins anew for one that has lived so long.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a process that is not our child.
const PERIOD: Duration = Duration::from_millis(50);

/// What is written down of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) pid: i32,
    /// In the kernel's ticks since boot: tells it from another one of the same number.
    pub(crate) started: u64,
    /// [`crate::manifest::Pod::stamp`].
    pub(crate) stamp: u64,
}

impl Kept {
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            stamp: words.next()?.parse().ok()?,
        })
    }

    fn write(self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{} {} {}\n", self.pid, self.started, self.stamp))
    }

    fn lives(self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// When a process began; `None` if it is gone, or dead and not yet buried.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A process that runs, or has just ended.
#[derive(Debug)]
pub(crate) enum Process {
    Child(Child),
    Adopted(Kept),
}

impl Process {
    async fn wait(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Adopted(kept) => {
                while kept.lives() {
                    sleep(PERIOD).await;
                }
                "gone".to_owned()
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = match self {
            Self::Child(child) => child.id().and_then(|pid| i32::try_from(pid).ok()),
            Self::Adopted(kept) => kept.lives().then_some(kept.pid),
        };
        // One that has just ended needs none.
        let _gone = pid.map(|pid| kill(Pid::from_raw(pid), signal));
    }
}

/// Asks it to end, and makes it end after `grace`.
pub(crate) async fn stop(process: &mut Process, grace: Duration) -> String {
    process.signal(Signal::SIGTERM);
    if let Ok(ended) = timeout(grace, process.wait()).await {
        return ended;
    }
    process.signal(Signal::SIGKILL);
    process.wait().await
}

/// Keeps a container's process running until `stop`, and then ends it. Dropped, it leaves the process alone.
pub(crate) async fn live(
    what: String,
    container: Container,
    (state, logs): (PathBuf, PathBuf),
    stamp: u64,
    grace: Duration,
    stopped: CancellationToken,
) {
    let mut pause = BACK_OFF;
    while !stopped.is_cancelled() {
        let begun = Instant::now();
        let mut process = match begin(&what, &container, (&state, &logs), stamp) {
            Ok(process) => Some(process),
            Err(error) => {
                say(&format!("{what} does not start: {error}"));
                None
            }
        };
        let ends = async {
            match &mut process {
                Some(process) => say(&format!("{what} ended: {}", process.wait().await)),
                None => sleep(Duration::ZERO).await,
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {
                if let Some(process) = &mut process {
                    say(&format!("{what} was stopped: {}", self::stop(process, grace).await));
                }
                break;
            }
            () = ends => {}
        }
        pause = if begun.elapsed() >= BACK_OFF_MAX {
            BACK_OFF
        } else {
            (pause * 2).min(BACK_OFF_MAX)
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
    if let Err(error) = fs::remove_file(&state)
        && error.kind() != io::ErrorKind::NotFound
    {
        say(&format!("{what}: remove {}: {error}", state.display()));
    }
}

fn begin(
    what: &str,
    container: &Container,
    (state, logs): (&Path, &Path),
    stamp: u64,
) -> io::Result<Process> {
    if let Some(kept) = Kept::read(state)
        && kept.stamp == stamp
        && kept.lives()
    {
        say(&format!("{what} is taken over as process {}", kept.pid));
        return Ok(Process::Adopted(kept));
    }
    let Some((program, arguments)) = container.command.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let logs = logs.join(&container.name);
    fs::create_dir_all(&logs)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(logs.join("0.log"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(&container.args)
        .envs(container.env.iter().map(|one| (&one.name, &one.value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    if let Some(dir) = &container.working_dir {
        command.current_dir(dir);
    }
    let child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid
        && let Some(started) = started(pid)
    {
        Kept { pid, started, stamp }.write(state)?;
    }
    say(&format!("{what} runs as process {}", pid.unwrap_or(0)));
    Ok(Process::Child(child))
}

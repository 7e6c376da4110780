//! What a hung runtime was doing: its stacks, kept before it is killed.
//!
//! dockerd and containerd write the stacks of all goroutines into a file at SIGUSR1. Without them nobody finds out why it
//! hung. They are moved into the agent's state directory, since the runtime's own is in memory and nobody clears it; at most
//! [`KEEP`] of them, each cut after [`MAX_SIZE`].

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::config::RuntimeEndpoint;
use crate::signal::Runtime;

/// So many are kept; the oldest go.
pub const KEEP: usize = 8;
/// Bytes of each that are kept: a few ten thousand goroutines.
pub const MAX_SIZE: u64 = 16 << 20;

/// How often the runtime's directory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Why there are no stacks.
#[derive(Debug, thiserror::Error)]
pub enum NoStacks {
    /// The unit's main process is not the runtime: it might not survive the signal.
    #[error("process {pid} is {found:?}, not {wanted}")]
    Stranger {
        /// Which.
        pid: u32,
        /// Its name.
        found: String,
        /// The runtime's.
        wanted: &'static str,
    },
    /// It did not write them.
    #[error("it wrote no stacks into {} within {within:?}", dir.display())]
    Silent {
        /// Where they were looked for.
        dir: PathBuf,
        /// For how long.
        within: Duration,
    },
    /// They could not be asked for, or kept.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Where stacks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumps {
    dir: PathBuf,
}

impl Dumps {
    /// Below the agent's state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("dumps"),
        }
    }

    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has process `pid` write its stacks, and keeps them. Returns where they are.
    ///
    /// # Errors
    /// There are none, which is no reason not to go on.
    pub async fn take(
        &self,
        runtime: Runtime,
        endpoint: &RuntimeEndpoint,
        pid: u32,
        deadline: Duration,
    ) -> Result<PathBuf, NoStacks> {
        let wanted = program(runtime);
        let comm = PathBuf::from(format!("/proc/{pid}/comm"));
        let found = fs::read_to_string(&comm).map_err(failed("read", &comm))?;
        if found.trim_end() != wanted {
            return Err(NoStacks::Stranger {
                pid,
                found: found.trim_end().to_owned(),
                wanted,
            });
        }
        let dir = seen_by(pid, &endpoint.stacks);
        let before: BTreeSet<_> = stacks(&dir, pid)?.into_iter().collect();
        let asked = i32::try_from(pid)
            .map_err(io::Error::other)
            .and_then(|pid| kill(Pid::from_raw(pid), Signal::SIGUSR1).map_err(io::Error::from));
        asked.map_err(failed("send SIGUSR1 to", &comm))?;

        let until = Instant::now() + deadline;
        let mut last = None;
        while Instant::now() < until {
            sleep(LOOK).await;
            let written = stacks(&dir, pid)?
                .into_iter()
                .rfind(|found| !before.contains(found));
            // Written in one go, but not in one instant: done when it grows no more.
            if let Some(found) = &written
                && found.size > 0
                && written == last
            {
                let (dumps, from) = (self.clone(), found.path.clone());
                let kept = tokio::task::spawn_blocking(move || dumps.keep(runtime, &from)).await;
                return kept
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
                    .map_err(failed("keep", &found.path));
            }
            last = written;
        }
        Err(NoStacks::Silent {
            dir: endpoint.stacks.clone(),
            within: deadline,
        })
    }

    /// Moves the file here. The oldest beyond [`KEEP`] go first, so that a full disk gets room.
    fn keep(&self, runtime: Runtime, from: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        let mut kept: Vec<_> = fs::read_dir(&self.dir)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter_map(|path| Some((number(&path)?, path)))
            .collect();
        kept.sort();
        let next = kept.last().map_or(1, |(last, _)| last + 1);
        let beyond = (kept.len() + 1).saturating_sub(KEEP);
        for (_, path) in kept.drain(..beyond) {
            fs::remove_file(path)?;
        }
        let to = self.dir.join(format!("{next:06}-{}.stacks", runtime.as_str()));
        let source = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(from)?;
        let copied = File::create_new(&to).and_then(|mut target| {
            io::copy(&mut source.take(MAX_SIZE), &mut target)?;
            target.sync_all()
        });
        if let Err(error) = copied {
            // A part of it would only look like the whole.
            let _best_effort = fs::remove_file(&to);
            return Err(error);
        }
        fs::remove_file(from)?;
        Ok(to)
    }
}

/// The number that a kept file's name begins with.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".stacks")?;
    name.split_once('-')?.0.parse().ok()
}

/// Name of the runtime's process.
const fn program(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Docker => "dockerd",
        Runtime::Containerd => "containerd",
    }
}

/// A file of stacks; the one that was written last is the greatest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    modified: (i64, i64),
    path: PathBuf,
    size: u64,
}

/// dockerd's `goroutine-stacks-TIME.log` and containerd's `containerd.PID.stacks.log`, the newest last.
fn stacks(dir: &Path, pid: u32) -> Result<Vec<Found>, NoStacks> {
    let of_containerd = format!("containerd.{pid}.stacks.log");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("look into", dir))? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let of_docker = name
            .strip_prefix("goroutine-stacks-")
            .and_then(|rest| rest.strip_suffix(".log"));
        if of_docker.is_none() && name != of_containerd {
            continue;
        }
        // Gone again between the two calls is not there.
        let Ok(seen) = entry.metadata() else { continue };
        if seen.is_file() {
            found.push(Found {
                modified: (seen.mtime(), seen.mtime_nsec()),
                path: entry.path(),
                size: seen.len(),
            });
        }
    }
    found.sort();
    Ok(found)
}

/// A directory as the process has it: the runtime's unit, or ours, may have a `/tmp` of its own, or we may run in a container.
fn seen_by(pid: u32, dir: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    root.join(dir.strip_prefix("/").unwrap_or(dir))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> NoStacks {
    let path = path.to_owned();
    move |source| NoStacks::Io {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_moved_numbered_cut_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let dumps = Dumps::new(dir.path());
        let from = dir.path().join("goroutine-stacks-x.log");
        for n in 1..=KEEP + 3 {
            fs::write(&from, n.to_string()).unwrap();
            let kept = dumps.keep(Runtime::Docker, &from).unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), n.to_string());
            assert!(!from.exists());
        }
        let names: BTreeSet<_> = fs::read_dir(dumps.dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), KEEP);
        assert_eq!(names.first().unwrap(), "000004-docker.stacks");
        let long = File::create(&from).unwrap();
        long.set_len(MAX_SIZE + 5).unwrap();
        let kept = dumps.keep(Runtime::Containerd, &from).unwrap();
        assert_eq!(fs::metadata(kept).unwrap().len(), MAX_SIZE);
    }

    #[tokio::test]
    async fn a_process_of_another_program_gets_no_signal() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = RuntimeEndpoint {
            socket: dir.path().join("s"),
            unit: "docker.service".into(),
            stacks: dir.path().into(),
        };
        // SIGUSR1 would end this test.
        let error = Dumps::new(dir.path())
            .take(
                Runtime::Docker,
                &endpoint,
                std::process::id(),
                Duration::from_secs(1),
            )
            .await
            .unwrap_err();
        assert!(matches!(error, NoStacks::Stranger { .. }), "{error}");
    }
}

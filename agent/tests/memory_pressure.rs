//! Real memory pressure: tasks that thrash in a cgroup, as the kernel tells it through PSI.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blackstart_agent::config::MemorySettings;
use blackstart_agent::signal::{MemorySignal, Signal};
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::memory::{self, Sources, Tense};
use nix::sys::signal::{Signal as UnixSignal, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A cgroup of version 1 or 2 that limits memory, and one of version 2 that tells of pressure; gone when dropped.
struct Cgroups {
    limit: PathBuf,
    tell: PathBuf,
}

impl Cgroups {
    fn limited_to(bytes: u64) -> Result<Self, String> {
        let name = format!("blackstart-psi-{}", std::process::id());
        for (limit, tell, file) in [
            (
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/unified",
                "memory.limit_in_bytes",
            ),
            ("/sys/fs/cgroup", "/sys/fs/cgroup", "memory.max"),
        ] {
            let groups = Self {
                limit: Path::new(limit).join(&name),
                tell: Path::new(tell).join(&name),
            };
            let made = fs::create_dir_all(&groups.limit).and_then(|()| fs::create_dir_all(&groups.tell));
            if made.is_ok()
                && groups.tell.join("memory.pressure").exists()
                && fs::write(groups.limit.join(file), bytes.to_string()).is_ok()
            {
                return Ok(groups);
            }
        }
        Err("no cgroup that limits memory and tells of its pressure can be made here".to_owned())
    }

    /// Writes a file again and again whose pages do not fit, so that each write waits for memory.
    fn thrash(&self, dir: &Path) -> std::io::Result<Child> {
        let script = "echo $$ > \"$0/cgroup.procs\" && echo $$ > \"$1/cgroup.procs\" && \
                      while :; do dd if=/dev/zero of=\"$2/$$\" bs=1M count=96 2> /dev/null; done";
        Command::new("sh")
            .args(["-c", script])
            .args([&self.limit, &self.tell, dir])
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in [&self.tell, &self.limit] {
            let _best_effort = fs::remove_dir(dir);
        }
    }
}

#[tokio::test]
async fn tasks_that_thrash_are_told_and_their_end_too() {
    let groups = match Cgroups::limited_to(24 << 20) {
        Ok(groups) => groups,
        Err(why) => {
            println!("SKIPPED: no memory pressure can be made: {why}");
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "in CI this has to run"
            );
            return;
        }
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let stop = CancellationToken::new();
    let (send, mut signals) = mpsc::channel(64);
    let sources = Sources {
        pressure: groups.tell.join("memory.pressure"),
        ..Sources::default()
    };
    let tense = Tense::of(&MemorySettings::default());
    let watching = tokio::spawn(memory::watch(sources, tense, send, Beat::begin(), stop.clone()));
    let mut until = async |wanted: fn(&MemorySignal) -> bool| {
        timeout(Duration::from_mins(1), async {
            loop {
                if let Signal::Memory(seen) = signals.recv().await.unwrap()
                    && wanted(&seen)
                {
                    return seen;
                }
            }
        })
        .await
    };
    until(|seen| seen.some_percent < 1.0).await.unwrap();
    let mut thrashing: Vec<_> = (0..3).map(|_| groups.thrash(dir.path()).unwrap()).collect();
    let seen = until(|seen| seen.some_percent > 5.0).await;
    for child in &mut thrashing {
        // The shell and its `dd`.
        killpg(Pid::from_raw(child.id().cast_signed()), UnixSignal::SIGKILL).unwrap();
        child.wait().unwrap();
    }
    let seen = seen.unwrap();
    assert!(!seen.largest.is_empty() && seen.cgroups.is_some(), "{seen:?}");
    until(|seen| seen.some_percent < 2.0).await.unwrap();
    stop.cancel();
    watching.await.unwrap();
}

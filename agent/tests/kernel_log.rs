//! Real OOM kills, as the kernel tells them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use blackstart_agent::condition::ConditionKind;
use blackstart_agent::config::Settings;
use blackstart_agent::diagnose::Diagnosis;
use blackstart_agent::diagnose::kernel::{OOM_KILLS, QUIET};
use blackstart_agent::signal::{KernelEvent, Signal};
use blackstart_agent::watch::kernel;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A memory cgroup of its own, of either version; gone when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn limited_to(test: &str, bytes: u64) -> Result<Self, String> {
        let name = format!("blackstart-oom-{test}-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let dir = Path::new(root).join(&name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let cgroup = Self(dir);
            if fs::write(cgroup.0.join(limit), bytes.to_string()).is_ok() {
                // Without it the kernel swaps before it kills; where there is no swap the file may be missing.
                let _no_swap = fs::write(cgroup.0.join("memory.swap.max"), "0");
                return Ok(cgroup);
            }
        }
        Err("no memory cgroup can be made here".to_owned())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir(&self.0);
    }
}

/// A group, where there is one and the kernel's log can be read; else says that the test is skipped.
fn group(test: &str) -> Option<Cgroup> {
    let cgroup = Cgroup::limited_to(test, 16 << 20);
    let readable = fs::File::open(kernel::KMSG).map_err(|error| format!("{}: {error}", kernel::KMSG));
    match (cgroup, readable) {
        (Ok(cgroup), Ok(_)) => Some(cgroup),
        (Err(why), _) | (_, Err(why)) => {
            println!("SKIPPED: no OOM kill can be watched: {why}");
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "in CI this has to run"
            );
            None
        }
    }
}

/// Has a process run out of the group's memory; what the kernel says of it.
async fn kill_one(cgroup: &Cgroup, signals: &mut mpsc::Receiver<Signal>) -> Signal {
    // Reads one endless line into memory, once it is in the cgroup.
    let script = "echo $$ > \"$0/cgroup.procs\" && exec tail /dev/zero";
    let mut victim = Command::new("sh")
        .args(["-c", script])
        .arg(&cgroup.0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let victims = victim.id();
    let killed = timeout(Duration::from_secs(30), async {
        loop {
            let signal = signals.recv().await.unwrap();
            if matches!(&signal, Signal::Kernel(KernelEvent::OomKill { pid, .. }) if *pid == victims) {
                return signal;
            }
        }
    })
    .await;
    let _reap = victim.kill();
    victim.wait().unwrap();
    killed.unwrap()
}

/// The kernel's log, followed until the guard is dropped.
fn follow() -> (mpsc::Receiver<Signal>, DropGuard) {
    let stop = CancellationToken::new();
    let (send, signals) = mpsc::channel(64);
    tokio::spawn({
        let stop = stop.clone();
        async move { kernel::watch(Path::new(kernel::KMSG), send, stop).await }
    });
    (signals, stop.drop_guard())
}

#[tokio::test]
async fn a_process_that_the_oom_killer_took_is_named() {
    let Some(cgroup) = group("one") else {
        return;
    };
    let (mut signals, _watching) = follow();
    let Signal::Kernel(KernelEvent::OomKill {
        task, whole_machine, ..
    }) = kill_one(&cgroup, &mut signals).await
    else {
        panic!("an OOM kill")
    };
    assert_eq!((task.as_str(), whole_machine), ("tail", false));
}

#[tokio::test]
async fn kills_at_a_limit_again_and_again_are_a_storm_until_they_end() {
    let Some(cgroup) = group("storm") else {
        return;
    };
    let (mut signals, _watching) = follow();
    let mut diagnosis = Diagnosis::new(&Settings::for_node("n"));
    // All of them within the window, however slow the machine is.
    let begun = Instant::now();
    for kill in 1..=OOM_KILLS {
        assert_eq!(diagnosis.conditions(begun), [], "before kill {kill}");
        diagnosis.observe(&kill_one(&cgroup, &mut signals).await, begun);
    }
    let standing = diagnosis.conditions(begun);
    assert_eq!(standing.len(), 1, "{standing:?}");
    assert_eq!(standing[0].key.kind, ConditionKind::OomStorm);
    assert!(
        standing[0].evidence.contains("tail (pid") && standing[0].escalated,
        "{standing:?}"
    );
    assert_eq!(diagnosis.conditions(begun + QUIET), []);
}

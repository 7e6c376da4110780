//! What the kernel itself says when a file system is damaged, a disk fails or a task hangs, from its own log to a condition and its end.
//!
//! What no machine can be made to do without the hardware is read from messages as kernels have written them, through the same watcher.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use blackstart_agent::condition::{Condition, ConditionKind};
use blackstart_agent::config::Settings;
use blackstart_agent::diagnose::Diagnosis;
use blackstart_agent::diagnose::kernel::QUIET;
use blackstart_agent::signal::{KernelEvent, Signal};
use blackstart_agent::watch::kernel;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use support::Mounted;
use support::records::{MIB, have};

const DEADLINE: Duration = Duration::from_mins(1);
const HUNG_TASK: &str = "/proc/sys/kernel/hung_task_timeout_secs";
const HUNG_WARNINGS: &str = "/proc/sys/kernel/hung_task_warnings";

fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "in CI this has to run"
    );
}

/// The watcher of a log, and what diagnosis makes of it.
struct Watched {
    signals: mpsc::Receiver<Signal>,
    diagnosis: Diagnosis,
    _stop: DropGuard,
}

impl Watched {
    fn new(log: &Path) -> Self {
        let stop = CancellationToken::new();
        let (send, signals) = mpsc::channel(64);
        let log = log.to_owned();
        tokio::spawn({
            let stop = stop.clone();
            async move { kernel::watch(&log, send, stop).await }
        });
        Self {
            signals,
            diagnosis: Diagnosis::new(&Settings::for_node("n")),
            _stop: stop.drop_guard(),
        }
    }

    /// Of the kernel itself, from now on: what it said before, perhaps of a device of the same name, is passed over up to an error that
    /// `marker` is made to have. `None` after saying that the test is skipped.
    async fn the_kernel(marker: &Mounted) -> Option<Self> {
        if let Err(error) = File::open(kernel::KMSG) {
            skipped(&format!("{}: {error}", kernel::KMSG));
            return None;
        }
        let mut watched = Self::new(Path::new(kernel::KMSG));
        let words = format!("here begins {}", marker.root().display());
        marker.break_ext4_with(&words).unwrap();
        let passed = timeout(DEADLINE, async {
            loop {
                if let Signal::Kernel(KernelEvent::FilesystemError { why, .. }) =
                    watched.signals.recv().await.unwrap()
                    && why.ends_with(&words)
                {
                    return;
                }
            }
        });
        passed.await.expect("the marker is in the kernel's log");
        Some(watched)
    }

    fn standing(&self, kind: ConditionKind, subject: &str, at: Instant) -> Option<Condition> {
        let mut all = self.diagnosis.conditions(at).into_iter();
        all.find(|condition| condition.key.kind == kind && condition.key.subject == subject)
    }

    async fn until(&mut self, kind: ConditionKind, subject: &str) -> Condition {
        let raised = timeout(DEADLINE, async {
            loop {
                if let Some(condition) = self.standing(kind, subject, Instant::now()) {
                    return condition;
                }
                let signal = self.signals.recv().await.unwrap();
                self.diagnosis.observe(&signal, Instant::now());
            }
        });
        raised
            .await
            .unwrap_or_else(|_| panic!("{kind} of {subject} is never told"))
    }

    /// It stands as long as the kernel speaks of it, and no longer.
    fn goes_by_silence(&self, kind: ConditionKind, subject: &str) {
        let now = Instant::now();
        assert!(self.standing(kind, subject, now).is_some());
        assert_eq!(self.standing(kind, subject, now + QUIET), None);
    }
}

#[tokio::test]
async fn a_directory_that_the_disk_lost_is_told_as_damage_until_the_next_boot() {
    let Some(disk) = have(Mounted::ext4(16 * MIB)) else {
        return;
    };
    let dir = disk.root().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a-name-like-no-other"), "").unwrap();
    disk.wipe("a-name-like-no-other").unwrap();
    let Some(mut node) = Watched::the_kernel(&disk).await else {
        return;
    };
    let device = disk.device().unwrap();
    assert_eq!(
        node.standing(ConditionKind::FilesystemCorrupt, &device, Instant::now()),
        None
    );
    let read = fs::read_dir(&dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let told = node.until(ConditionKind::FilesystemCorrupt, &device).await;
    assert!(
        told.evidence.contains("inode #") && told.escalated,
        "{told:?}, {read:?}"
    );
    // No silence mends it.
    let later = Instant::now() + QUIET * 100;
    let stands = node.standing(ConditionKind::FilesystemCorrupt, &device, later);
    assert!(stands.is_some());
    let next_boot = Diagnosis::new(&Settings::for_node("n"));
    assert_eq!(next_boot.conditions(Instant::now()), []);
}

/// A loop device of its own; gone when dropped.
struct Loop {
    device: String,
    backing: tempfile::NamedTempFile,
}

impl Loop {
    fn new() -> Result<Self, String> {
        let backing = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        backing
            .as_file()
            .set_len(8 * MIB)
            .map_err(|error| error.to_string())?;
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(backing.path())
            .output()
            .map_err(|error| format!("losetup: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        Ok(Self {
            device: String::from_utf8_lossy(&made.stdout).trim().to_owned(),
            backing,
        })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

#[tokio::test]
async fn a_disk_that_does_not_read_is_told_until_the_kernel_is_silent_about_it() {
    let Some(marker) = have(Mounted::ext4(16 * MIB)) else {
        return;
    };
    let Some(mut node) = Watched::the_kernel(&marker).await else {
        return;
    };
    let disk = match Loop::new() {
        Ok(disk) => disk,
        Err(why) => return skipped(&why),
    };
    // Nothing is behind the device any more.
    disk.backing.as_file().set_len(0).unwrap();
    let mut sector = [0; 512];
    File::open(&disk.device)
        .unwrap()
        .read_exact(&mut sector)
        .unwrap_err();
    let name = disk.device.trim_start_matches("/dev/");
    let told = node.until(ConditionKind::DiskFailing, name).await;
    assert!(told.escalated, "{told:?}");
    node.goes_by_silence(ConditionKind::DiskFailing, name);
}

/// A setting of the kernel that is put back when this is dropped.
struct Tuned {
    file: &'static str,
    before: String,
}

impl Tuned {
    fn to(file: &'static str, value: &str) -> Result<Self, String> {
        let before = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        fs::write(file, value).map_err(|error| format!("{file}: {error}"))?;
        Ok(Self { file, before })
    }
}

impl Drop for Tuned {
    fn drop(&mut self) {
        let _best_effort = fs::write(self.file, self.before.trim());
    }
}

/// A file system whose writers wait in the kernel; thawed when dropped.
struct Frozen<'a>(&'a Mounted);

impl<'a> Frozen<'a> {
    fn new(disk: &'a Mounted) -> Result<Self, String> {
        let ended = Command::new("fsfreeze").arg("-f").arg(disk.root()).output();
        match ended {
            Ok(ended) if ended.status.success() => Ok(Self(disk)),
            Ok(ended) => Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned()),
            Err(error) => Err(format!("fsfreeze: {error}")),
        }
    }

    fn writer(&self) -> Child {
        let mut writer = Command::new("touch");
        writer.arg(self.0.root().join("file")).spawn().unwrap()
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _thawed = Command::new("fsfreeze").arg("-u").arg(self.0.root()).status();
    }
}

#[tokio::test]
async fn a_writer_that_hangs_on_a_frozen_disk_is_told_and_lives_on_when_it_thaws() {
    let Some(disk) = have(Mounted::ext4(16 * MIB)) else {
        return;
    };
    if fs::read_to_string("/proc/sys/kernel/hung_task_panic").is_ok_and(|text| text.trim() != "0") {
        return skipped("this machine would panic over a hung task");
    }
    let Some(mut node) = Watched::the_kernel(&disk).await else {
        return;
    };
    let tuned = Tuned::to(HUNG_WARNINGS, "-1").and_then(|all| Ok((all, Tuned::to(HUNG_TASK, "1")?)));
    let _tuned = match tuned {
        Ok(tuned) => tuned,
        Err(why) => return skipped(&format!("no detector of hung tasks: {why}")),
    };
    let frozen = match Frozen::new(&disk) {
        Ok(frozen) => frozen,
        Err(why) => return skipped(&why),
    };
    let mut writer = frozen.writer();
    let pid = writer.id();
    let told = timeout(DEADLINE, async {
        loop {
            let signal = node.signals.recv().await.unwrap();
            // Others may hang here as well.
            if matches!(&signal, Signal::Kernel(KernelEvent::HungTask { pid: of, .. }) if *of == pid) {
                node.diagnosis.observe(&signal, Instant::now());
                return;
            }
        }
    })
    .await;
    drop(frozen);
    assert!(writer.wait().unwrap().success());
    told.expect("the kernel tells of the writer");
    let told = node.until(ConditionKind::KernelHang, "tasks").await;
    assert!(
        told.evidence
            .starts_with(&format!("task touch (pid {pid}) hangs")),
        "{told:?}"
    );
    node.goes_by_silence(ConditionKind::KernelHang, "tasks");
}

/// A log in place of the kernel's, with one record a read.
struct Recorded {
    log: File,
    path: PathBuf,
    sequence: u64,
    _dir: tempfile::TempDir,
}

impl Recorded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kmsg");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // For reading as well, so that it never ends.
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path)
            .unwrap();
        Self {
            log,
            path,
            sequence: 0,
            _dir: dir,
        }
    }

    /// Writes a record of the kernel's facility. The one before has to be read.
    fn says(&mut self, level: u8, text: &str) {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_micros();
        let record = format!("{level},{},{now},-;{text}\n", self.sequence);
        self.sequence += 1;
        self.log.write_all(record.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn what_kernels_said_of_broken_hardware_is_told_until_they_are_silent() {
    let mut log = Recorded::new();
    let mut node = Watched::new(&log.path);
    for (level, text, kind, subject) in [
        (
            2,
            "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 8: be00000000800400",
            ConditionKind::HardwareFault,
            "machine",
        ),
        (
            4,
            "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out",
            ConditionKind::NicFailing,
            "eth0",
        ),
        (
            2,
            "ixgbe 0000:02:00.1 ens2f1: NETDEV WATCHDOG: CPU: 2: transmit queue 5 timed out 5021 ms",
            ConditionKind::NicFailing,
            "ens2f1",
        ),
        (
            4,
            "nf_conntrack: nf_conntrack: table full, dropping packet",
            ConditionKind::ConntrackFull,
            "nf_conntrack",
        ),
        (
            0,
            "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:2:77]",
            ConditionKind::KernelHang,
            "processors",
        ),
    ] {
        // Nothing is known of it before.
        assert_eq!(node.standing(kind, subject, Instant::now()), None, "{text}");
        log.says(level, text);
        let told = node.until(kind, subject).await;
        assert!(told.escalated, "{told:?}");
        node.goes_by_silence(kind, subject);
    }
}

//! The whole way from a filling disk to a reclaimed log, on a real file system of 512 MiB: watchers, diagnosis and
//! remedy as the agent runs them, against a writer of 100 MB/s.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use blackstart_agent::condition::ConditionKind;
use blackstart_agent::config::{DiskSettings, LogSettings};
use blackstart_agent::diagnose::{disk::Disks, logs::Logs};
use blackstart_agent::host::{Host, HostError, UnitAction};
use blackstart_agent::ledger::Outcome;
use blackstart_agent::reclaim::Rules;
use blackstart_agent::remedy::reclaim_log::reclaim_log;
use blackstart_agent::signal::{DiskSignal, LogId, ProbeOutcome, ProbeTarget, Signal, UnitSignal};
use blackstart_agent::watch;
use nix::sys::statvfs::statvfs;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use support::Mounted;
use support::records::{KEEP, MIB, RECORD, check_tail, have, records};

/// Bytes a second.
const RATE: u64 = 100_000_000;
/// Longer than the disk would last.
const STORM: Duration = Duration::from_secs(7);

/// A node of which only the disks are real.
#[derive(Debug)]
struct DisksOnly;

impl Host for DisksOnly {
    async fn watch_units(&self, _: Vec<String>, _: mpsc::Sender<Signal>, _: CancellationToken) {}

    async fn unit_state(&self, _: &str) -> Result<UnitSignal, HostError> {
        Err(HostError::Unreachable(String::new()))
    }

    async fn unit_action(&self, _: &str, _: UnitAction) -> Result<(), HostError> {
        Err(HostError::Unreachable(String::new()))
    }

    async fn probe(&self, _: ProbeTarget, _: Duration) -> ProbeOutcome {
        ProbeOutcome::Refused
    }

    fn disk_usage(&self, mount_point: &Path) -> io::Result<DiskSignal> {
        let seen = statvfs(mount_point)?;
        Ok(DiskSignal {
            mount_point: mount_point.to_owned(),
            bytes_total: seen.blocks() * seen.fragment_size(),
            bytes_available: seen.blocks_available() * seen.fragment_size(),
            inodes_total: seen.files(),
            inodes_free: seen.files_free(),
            time_to_full: None,
        })
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}

/// Writes at [`RATE`] for [`STORM`]; the number of records, or the first error.
fn write(mut file: File) -> io::Result<u64> {
    let (_never, pace) = std::sync::mpsc::channel::<()>();
    let start = Instant::now();
    let chunk = 256 << 10;
    let mut written = 0;
    while start.elapsed() < STORM {
        file.write_all(&records(written / RECORD as u64, chunk))?;
        written += chunk;
        let due = Duration::from_millis(written / (RATE / 1000));
        let early = due.saturating_sub(start.elapsed());
        assert_eq!(pace.recv_timeout(early), Err(RecvTimeoutError::Timeout));
    }
    Ok(written / RECORD as u64)
}

/// What a storm left behind.
#[derive(Debug)]
struct After {
    reclaims: usize,
    least_available: u64,
}

async fn storm(root: PathBuf, file: File, reader: File) -> After {
    let settings = LogSettings {
        globs: vec![format!("{}/**", root.display())],
        keep_tail: KEEP,
        ..LogSettings::default()
    };
    let disks = vec![DiskSettings::at(&root)];
    let rules = Arc::new(Rules::new(&settings).unwrap());
    let stop = CancellationToken::new();
    let (send, mut signals) = mpsc::channel(256);
    let (picture, pictures) = tokio::sync::watch::channel(watch::disk::Picture::new());
    let watchers = [
        tokio::spawn(watch::disk::watch(
            Arc::new(DisksOnly),
            disks.clone(),
            picture,
            send.clone(),
            watch::beat::Beat::begin(),
            stop.clone(),
        )),
        tokio::spawn(watch::logs::watch(
            settings.clone(),
            disks.clone(),
            pictures,
            send.clone(),
            stop.clone(),
        )),
    ];
    let mut pressure = Disks::new(disks.clone());
    let mut logs = Logs::new(settings, disks);
    let mut writer = tokio::task::spawn_blocking(move || write(file));
    let mut after = After {
        reclaims: 0,
        least_available: u64::MAX,
    };
    let records = loop {
        tokio::select! {
            done = &mut writer => break done.unwrap().expect("the writer never sees an error"),
            signal = signals.recv() => {
                let (signal, now) = (signal.unwrap(), Instant::now());
                pressure.observe(&signal, now);
                logs.observe(&signal, now);
                if let Some(condition) = logs.conditions(now).into_iter().next() {
                    assert_eq!(condition.key.kind, ConditionKind::LogRunaway);
                    assert!(!pressure.conditions(now).is_empty());
                    let log: LogId = condition.log.unwrap();
                    let outcome = reclaim_log(log.clone(), Arc::clone(&rules), false).await;
                    println!("{}\n  {outcome:?}", condition.evidence);
                    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
                    logs.observe(&Signal::LogGone(log), now);
                    check_tail(&reader);
                    after.reclaims += 1;
                }
            }
        }
        after.least_available = after
            .least_available
            .min(DisksOnly.disk_usage(&root).unwrap().bytes_available);
    };
    assert_eq!(check_tail(&reader) + 1, records, "the last record is there");
    stop.cancel();
    for watcher in watchers {
        watcher.await.unwrap();
    }
    after
}

async fn survives(append: bool, delete: bool) {
    let Some(fs) = have(Mounted::ext4(512 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let file = OpenOptions::new()
        .create(true)
        .append(append)
        .write(true)
        .open(&path)
        .unwrap();
    let reader = File::open(&path).unwrap();
    if delete {
        fs::remove_file(&path).unwrap();
    }
    let after = storm(fs.root().to_owned(), file, reader).await;
    println!("{after:?}");
    assert!(after.reclaims >= 2, "{after:?}");
    // Under a second's worth would have been luck.
    assert!(after.least_available > MIB * 64, "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_never_fills_under_a_log_that_is_appended_to() {
    survives(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_never_fills_under_a_log_that_is_written_at_offsets() {
    survives(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_never_fills_under_a_log_that_was_deleted_and_is_held_open() {
    survives(true, true).await;
    survives(false, true).await;
}

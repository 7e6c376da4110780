//! What is cut of a log is kept on another file system first: real file systems, a real writer, and archives that fail.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use blackstart_agent::config::{ArchiveSettings, LogSettings};
use blackstart_agent::ledger::Outcome;
use blackstart_agent::reclaim::archive::Kept;
use blackstart_agent::reclaim::plan::Method;
use blackstart_agent::reclaim::{Reclaimed, Rules, reclaim};
use blackstart_agent::remedy::reclaim_log::reclaim_log;
use tokio::time::Instant;

use support::records::{KEEP, MIB, RECORD, have, records};
use support::{Mounted, seen};

/// What is awaited comes within this.
const DEADLINE: Duration = Duration::from_mins(1);

/// A disk with one log, and another one for archives.
struct Disks {
    logs: Mounted,
    archive: Mounted,
}

impl Disks {
    fn new(logs: u64, archive: u64) -> Option<Self> {
        Some(Self {
            logs: have(Mounted::ext4(logs))?,
            archive: have(Mounted::ext4(archive))?,
        })
    }

    fn log(&self) -> PathBuf {
        self.logs.root().join("app.log")
    }

    fn rules(&self, change: impl FnOnce(&mut ArchiveSettings)) -> Rules {
        let mut archive = ArchiveSettings {
            min_free_percent: 0,
            ..ArchiveSettings::at(self.archive.root().to_owned())
        };
        change(&mut archive);
        Rules::new(&LogSettings {
            globs: vec![format!("{}/**", self.logs.root().display())],
            keep_tail: KEEP,
            archive: Some(archive),
            ..LogSettings::default()
        })
        .unwrap()
    }

    /// What an archive cannot make smaller. Nobody writes it.
    fn fill(&self, mib: u64) {
        let mut random = File::open("/dev/urandom").unwrap().take(mib * MIB);
        let mut log = File::create(self.log()).unwrap();
        io::copy(&mut random, &mut log).unwrap();
    }

    fn reclaim(&self, rules: &Rules) -> Reclaimed {
        reclaim(&seen(&self.log()), rules, false).unwrap()
    }

    /// All but the tail is gone, whatever became of the archive.
    fn is_cut(&self) -> bool {
        fs::metadata(self.log()).unwrap().blocks() * 512 <= KEEP + MIB
    }

    /// Everything in the archive's directory.
    fn archives(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(self.archive.root())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("lost+found"))
            .collect();
        found.sort();
        found
    }
}

fn why_not(done: &Reclaimed) -> &str {
    match &done.kept {
        Some(Kept::Not { why }) => why,
        kept => panic!("{kept:?}"),
    }
}

/// A thread that writes a MiB of records for each permit, and says when it has.
struct Writer {
    permits: Sender<()>,
    written: Receiver<()>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(path: &Path, append: bool) -> Self {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .open(path)
            .unwrap();
        let (permits, permitted) = channel();
        let (tell, written) = channel();
        let thread = std::thread::spawn(move || {
            let mut bytes = 0;
            while permitted.recv().is_ok() {
                file.write_all(&records(bytes / RECORD as u64, MIB)).unwrap();
                bytes += MIB;
                let _nobody_waits = tell.send(());
            }
            bytes
        });
        Self {
            permits,
            written,
            thread,
        }
    }

    fn permit(&self, mib: usize) {
        for _ in 0..mib {
            self.permits.send(()).unwrap();
        }
    }

    fn wait_for(&self, mib: usize) {
        for _ in 0..mib {
            self.written.recv_timeout(DEADLINE).unwrap();
        }
    }

    fn finish(self) -> u64 {
        drop(self.permits);
        self.thread.join().unwrap()
    }
}

/// What was cut and what is left are together what was written, byte for byte, while the writer never waits for the archive.
fn nothing_is_lost(append: bool) {
    // Large enough that there is always time.
    let Some(disks) = Disks::new(1024 * MIB, 256 * MIB) else {
        return;
    };
    if Command::new("zstd").arg("--version").output().is_err() {
        println!("SKIPPED: zstd is not installed");
        assert!(
            !std::env::var("CI").is_ok_and(|ci| ci == "true"),
            "in CI this has to run"
        );
        return;
    }
    let rules = disks.rules(|_| {});
    let writer = Writer::start(&disks.log(), append);
    // From the beginning of what was written: what of it is cut, and where the file begins.
    let (mut cut, mut begins) = (0, 0);
    for round in 0..6 {
        writer.permit(24);
        writer.wait_for(if round == 0 { 20 } else { 24 });
        let done = disks.reclaim(&rules);
        let before = cut;
        cut = begins + done.cut;
        if done.method == Some(Method::Collapse) {
            begins = cut;
        }
        let kept = matches!(&done.kept, Some(Kept::Whole { bytes, .. }) if *bytes == cut - before);
        assert!(kept && done.cut > 0, "{done}");
    }
    let written = writer.finish();
    // As whoever needs it gets it, in the order of the names.
    let restored = Command::new("zstd")
        .arg("-dcq")
        .args(disks.archives())
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(restored.stdout.len() as u64, cut);
    let reader = File::open(disks.log()).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), written - begins);
    let mut left = vec![0; usize::try_from(written - cut).unwrap()];
    reader.read_exact_at(&mut left, cut - begins).unwrap();
    assert!(
        [restored.stdout, left].concat() == records(0, written),
        "what was written"
    );
    for archive in disks.archives() {
        let mode = fs::metadata(archive).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "a log may hold what is not for everybody");
    }
}

#[test]
fn an_appended_log_is_its_archives_and_what_is_left() {
    nothing_is_lost(true);
}

#[test]
fn a_log_that_is_written_at_offsets_is_its_archives_and_what_is_left() {
    nothing_is_lost(false);
}

#[tokio::test]
async fn an_archive_that_is_full_does_not_hold_up_the_reclaim_and_the_ledger_says_so() {
    let Some(disks) = Disks::new(512 * MIB, 16 * MIB) else {
        return;
    };
    disks.fill(64);
    let rules = Arc::new(disks.rules(|_| {}));
    let outcome = reclaim_log(seen(&disks.log()), rules, false).await;
    let Outcome::Succeeded { detail } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(detail.contains("NOT ARCHIVED: write "), "{detail}");
    assert!(detail.contains("No space left"), "{detail}");
    assert!(disks.is_cut());
    assert!(
        disks.archives().is_empty(),
        "nothing half is left: {:?}",
        disks.archives()
    );

    // The same by the rule instead of the disk: nothing is begun.
    disks.fill(64);
    let done = disks.reclaim(&disks.rules(|archive| archive.min_free_percent = 99));
    assert!(why_not(&done).contains("less than 99% free"), "{done}");
    // And by the limit on all archives.
    disks.fill(20);
    let done = disks.reclaim(&disks.rules(|archive| archive.max_bytes = 2 * MIB));
    assert!(why_not(&done).contains("more than 2.0 MiB"), "{done}");
    assert!(disks.is_cut() && disks.archives().is_empty());
}

#[test]
fn a_disk_that_is_about_to_be_full_waits_for_no_archive() {
    let Some(disks) = Disks::new(64 * MIB, 256 * MIB) else {
        return;
    };
    disks.fill(32);
    let mut ballast = File::create(disks.logs.root().join("ballast")).unwrap();
    let full = io::copy(&mut io::repeat(1), &mut ballast).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let done = disks.reclaim(&disks.rules(|_| {}));
    assert!(why_not(&done).contains("the log's disk has only"), "{done}");
    assert!(disks.is_cut() && disks.archives().is_empty());
}

#[test]
fn an_archive_on_the_logs_own_disk_is_refused() {
    let Some(disks) = Disks::new(512 * MIB, 16 * MIB) else {
        return;
    };
    disks.fill(32);
    let beside = disks.logs.root().join("archive");
    fs::create_dir(&beside).unwrap();
    let done = disks.reclaim(&disks.rules(|archive| archive.dir.clone_from(&beside)));
    assert!(
        why_not(&done).contains("is on the log's own file system"),
        "{done}"
    );
    assert!(disks.is_cut() && fs::read_dir(beside).unwrap().next().is_none());
}

/// A file system on which nothing can be written until this is dropped: as a storage that hangs.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn new(root: &'a Path) -> Result<Self, String> {
        let output = Command::new("fsfreeze")
            .arg("-f")
            .arg(root)
            .output()
            .map_err(|error| format!("fsfreeze: {error}"))?;
        if output.status.success() {
            return Ok(Self(root));
        }
        Err(format!("fsfreeze: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _thawed = Command::new("fsfreeze").arg("-u").arg(self.0).output();
    }
}

#[test]
fn an_archive_that_hangs_is_left_behind_and_leaves_nothing_when_it_comes_back() {
    let Some(disks) = Disks::new(512 * MIB, 256 * MIB) else {
        return;
    };
    let frozen = match Frozen::new(disks.archive.root()) {
        Ok(frozen) => frozen,
        Err(why) => {
            println!("SKIPPED: {why}");
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "in CI this has to run"
            );
            return;
        }
    };
    let rules = disks.rules(|archive| archive.deadline = Duration::from_millis(300));
    for _ in 0..4 {
        disks.fill(32);
        let done = disks.reclaim(&rules);
        assert!(why_not(&done).contains("not done within 300ms"), "{done}");
        assert!(disks.is_cut());
    }
    // All places are taken by what hangs: no further thread is given to it.
    disks.fill(32);
    let done = disks.reclaim(&rules);
    assert!(why_not(&done).contains("do not end"), "{done}");
    assert!(disks.is_cut());
    drop(frozen);
    // The next one is kept, and what hung finds that nobody waits.
    disks.fill(32);
    let done = disks.reclaim(&disks.rules(|_| {}));
    assert!(matches!(done.kept, Some(Kept::Whole { .. })), "{done}");
    let until = Instant::now() + DEADLINE;
    while disks.archives().len() > 1 {
        assert!(Instant::now() < until, "{:?}", disks.archives());
        std::thread::yield_now();
    }
    assert!(disks.archives()[0].extension().is_some_and(|end| end == "zst"));
}

/// Damages the archive while it is written; `false` if it was too late.
fn damage(root: &Path) -> bool {
    let until = Instant::now() + DEADLINE;
    let find = |ending: &str| {
        let entries = fs::read_dir(root).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(ending))
    };
    while Instant::now() < until && find(".zst").is_none() {
        let Some(path) = find(".partial") else { continue };
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
            continue;
        };
        let mut byte = [0];
        if file.read_exact_at(&mut byte, 100_000).is_ok() {
            return file.write_all_at(&[!byte[0]], 100_000).is_ok();
        }
    }
    false
}

#[test]
fn an_archive_that_does_not_read_back_as_it_was_written_is_none_and_that_is_said() {
    let Some(disks) = Disks::new(512 * MIB, 512 * MIB) else {
        return;
    };
    let rules = disks.rules(|_| {});
    for _ in 0..20 {
        disks.fill(96);
        let root = disks.archive.root().to_owned();
        let damaged = std::thread::spawn(move || damage(&root));
        let done = disks.reclaim(&rules);
        assert!(disks.is_cut());
        if damaged.join().unwrap() && !matches!(done.kept, Some(Kept::Whole { .. })) {
            assert!(why_not(&done).contains("read back"), "{done}");
            assert!(disks.archives().is_empty(), "{:?}", disks.archives());
            return;
        }
        for archive in disks.archives() {
            fs::remove_file(archive).unwrap();
        }
    }
    panic!("the archive was never damaged in time");
}

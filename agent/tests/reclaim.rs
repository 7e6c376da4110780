//! Log reclaim on real file systems: what a log's writer and its reader meet.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use blackstart_agent::config::LogSettings;
use blackstart_agent::reclaim::plan::{Method, Writers};
use blackstart_agent::reclaim::{ReclaimError, Reclaimed, Rules, reclaim};
use blackstart_agent::signal::LogId;

use support::records::{KEEP, MIB, RECORD, check, check_tail, have, records};
use support::{Mounted, seen};

fn rules(root: &Path) -> Rules {
    Rules::new(&LogSettings {
        globs: vec![format!("{}/**", root.display())],
        keep_tail: KEEP,
        ..LogSettings::default()
    })
    .unwrap()
}

fn reclaimed(log: &LogId, root: &Path) -> Result<Reclaimed, ReclaimError> {
    reclaim(log, &rules(root), false)
}

/// A thread that writes records as fast as it can, up to a ceiling that rises with what was reclaimed: a slow machine
/// must not fill the file system before the test gets its turn.
struct Writer {
    written: Arc<AtomicU64>,
    ceiling: Arc<(Mutex<u64>, Condvar)>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Writer {
    fn start(mut file: File) -> Self {
        let written = Arc::new(AtomicU64::new(0));
        let ceiling = Arc::new((Mutex::new(0_u64), Condvar::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (written, ceiling, stop) = (written.clone(), ceiling.clone(), stop.clone());
            std::thread::spawn(move || {
                let chunk = 64 << 10;
                while !stop.load(Ordering::Acquire) {
                    let so_far = written.load(Ordering::Acquire);
                    let (limit, changed) = &*ceiling;
                    let limit = changed
                        .wait_while(limit.lock().unwrap(), |limit| {
                            so_far >= *limit && !stop.load(Ordering::Acquire)
                        })
                        .unwrap();
                    drop(limit);
                    file.write_all(&records(so_far / RECORD as u64, chunk))?;
                    written.store(so_far + chunk, Ordering::Release);
                }
                Ok(())
            })
        };
        Self {
            written,
            ceiling,
            stop,
            thread,
        }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn allow(&self, bytes: u64) {
        let (limit, changed) = &*self.ceiling;
        *limit.lock().unwrap() = bytes;
        changed.notify_all();
    }

    /// Ends it; the error that it met, if any.
    fn finish(self) -> std::io::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.allow(u64::MAX);
        self.thread.join().unwrap()
    }
}

/// A writer puts 512 MiB through a file system of 128 MiB while its log is reclaimed again and again.
fn storm(file: File, reader: &File, log: &LogId, root: &Path, method: Method) {
    let writer = Writer::start(file);
    let (mut collapsed, mut cut) = (0, 0);
    let mut times = 0;
    while writer.written() < 512 * MIB {
        writer.allow(cut + 96 * MIB);
        if writer.written() < cut + 64 * MIB {
            std::thread::yield_now();
            continue;
        }
        let before = writer.written();
        let done = reclaimed(log, root).unwrap();
        if done.writers == Writers::Unknown {
            // Some other process of this machine was out of our sight for a moment: the careful way is right.
            assert_eq!(done.method, Some(Method::Punch), "{done}");
        } else {
            assert_eq!(done.method, Some(method), "{done}");
            times += 1;
        }
        if done.method == Some(Method::Collapse) {
            collapsed += done.cut;
            cut = collapsed;
        } else {
            cut = collapsed + done.cut;
        }
        let last = check_tail(reader);
        assert!(
            (last + 1) * RECORD as u64 >= before,
            "what was written before is there"
        );
    }
    assert!(times >= 4, "{times}");
    writer.finish().expect("the writer never sees an error");
    check_tail(reader);
    let taken = reader.metadata().unwrap().blocks() * 512;
    assert!(taken < 112 * MIB, "{taken}");
}

fn writer(path: &Path, append: bool) -> File {
    OpenOptions::new()
        .create(true)
        .append(append)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn a_log_that_is_appended_to_is_collapsed_under_its_writer() {
    let Some(fs) = have(Mounted::ext4(128 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let file = writer(&path, true);
    let reader = File::open(&path).unwrap();
    storm(file, &reader, &seen(&path), fs.root(), Method::Collapse);
    assert!(reader.metadata().unwrap().len() < 112 * MIB);
}

#[test]
fn a_log_that_is_written_at_offsets_is_punched_under_its_writer() {
    let Some(fs) = have(Mounted::ext4(128 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let file = writer(&path, false);
    let reader = File::open(&path).unwrap();
    storm(file, &reader, &seen(&path), fs.root(), Method::Punch);
    assert!(reader.metadata().unwrap().len() >= 512 * MIB);
}

#[test]
fn a_deleted_log_that_is_held_open_is_reclaimed_by_its_former_name() {
    let Some(fs) = have(Mounted::ext4(128 * MIB)) else {
        return;
    };
    for (append, method) in [(true, Method::Collapse), (false, Method::Punch)] {
        let path = fs.root().join("app.log");
        let file = writer(&path, append);
        let reader = File::open(&path).unwrap();
        let log = LogId {
            deleted: true,
            ..seen(&path)
        };
        fs::remove_file(&path).unwrap();
        storm(file, &reader, &log, fs.root(), method);
        drop(reader);
        assert!(matches!(
            reclaimed(&log, fs.root()),
            Err(ReclaimError::Gone { .. })
        ));
    }
}

#[test]
fn a_deleted_file_with_a_former_name_out_of_scope_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let _held = File::create(&path).unwrap();
    let log = LogId {
        deleted: true,
        ..seen(&path)
    };
    fs::remove_file(&path).unwrap();
    let elsewhere = dir.path().join("logs");
    let refused = reclaimed(&log, &elsewhere).unwrap_err();
    assert!(matches!(refused, ReclaimError::Outside { .. }), "{refused}");
}

/// A closed log of so many MiB.
fn filled(path: &Path, mib: u64) -> LogId {
    fs::write(path, records(0, mib * MIB)).unwrap();
    seen(path)
}

#[test]
fn a_full_disk_takes_the_next_write_after_a_reclaim() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    for append in [true, false] {
        let path = fs.root().join("app.log");
        let mut file = writer(&path, append);
        let error = loop {
            if let Err(error) = file.write_all(&records(0, MIB)) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        // The last page as well.
        while file.write_all(&[b'x'; 512]).is_ok() {}
        let done = reclaimed(&seen(&path), fs.root()).unwrap();
        assert!(done.freed > 40 * MIB, "{done}");
        file.write_all(&records(0, 8 * MIB)).unwrap();
        file.sync_data().unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_is_small_or_was_punched_already_is_left_alone() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let tiny = fs.root().join("tiny.log");
    for size in [0, 1, 4096, KEEP, KEEP + 4095] {
        fs::write(&tiny, vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
        let done = reclaimed(&seen(&tiny), fs.root()).unwrap();
        assert_eq!((done.method, done.freed), (None, 0), "{size}: {done}");
        assert_eq!(fs::metadata(&tiny).unwrap().len(), size);
    }

    let sparse = fs.root().join("sparse.log");
    let mut file = writer(&sparse, false);
    file.seek(SeekFrom::Start(1 << 34)).unwrap();
    file.write_all(b"the end").unwrap();
    let done = reclaimed(&seen(&sparse), fs.root()).unwrap();
    assert_eq!(done.method, None, "{done}");
}

#[test]
fn further_names_are_told() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let log = filled(&path, 40);
    fs::hard_link(&path, fs.root().join("app.link")).unwrap();
    let done = reclaimed(&log, fs.root()).unwrap();
    assert_eq!(done.other_links, 1);
    assert!(done.to_string().contains("1 further name"), "{done}");
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let log = filled(&path, 40);
    let _writer = writer(&path, true);
    let done = reclaim(&log, &rules(fs.root()), true).unwrap();
    assert_eq!((done.method, done.cut), (Some(Method::Collapse), 24 * MIB));
    assert_eq!(done.writers, Writers::Appending(1));
    assert_eq!(fs::metadata(&path).unwrap().len(), 40 * MIB);
}

#[test]
fn a_log_without_a_visible_writer_that_was_written_lately_keeps_its_offsets() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let log = filled(&path, 40);
    assert_eq!(reclaimed(&log, fs.root()).unwrap().method, Some(Method::Punch));
    fs::remove_file(&path).unwrap();
    let log = filled(&path, 40);
    let hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(hour_ago)
        .unwrap();
    assert_eq!(reclaimed(&log, fs.root()).unwrap().method, Some(Method::Collapse));
    assert_eq!(check(&fs::read(&path).unwrap()) + 1, 40 * MIB / RECORD as u64);
}

#[test]
fn a_file_that_took_the_name_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let path = root.join("app.log");
    let log = filled(&path, 20);
    fs::rename(&path, root.join("app.log.1")).unwrap();
    assert!(matches!(reclaimed(&log, &root), Err(ReclaimError::Gone { .. })));
    filled(&path, 20);
    assert!(matches!(
        reclaimed(&log, &root),
        Err(ReclaimError::Replaced { .. })
    ));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(
        reclaimed(&log, &root),
        Err(ReclaimError::NotRegular { .. })
    ));
}

#[test]
fn a_symlink_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let logs = root.join("logs");
    fs::create_dir(&logs).unwrap();
    let secret = root.join("secret");
    let target = filled(&secret, 20);
    // In place of the file, with the identity of what it leads to.
    let swapped = logs.join("app.log");
    std::os::unix::fs::symlink(&secret, &swapped).unwrap();
    let log = LogId {
        path: swapped,
        ..target.clone()
    };
    assert!(matches!(
        reclaimed(&log, &logs),
        Err(ReclaimError::NotRegular { .. })
    ));
    // In place of a directory on the way.
    std::os::unix::fs::symlink(&root, logs.join("app")).unwrap();
    let log = LogId {
        path: logs.join("app/secret"),
        ..target
    };
    assert!(matches!(
        reclaimed(&log, &logs),
        Err(ReclaimError::Outside { .. })
    ));
    assert_eq!(fs::metadata(&secret).unwrap().len(), 20 * MIB);
}

#[test]
fn what_is_protected_or_binary_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    let log = filled(&root.join("state.db"), 20);
    assert!(matches!(
        reclaimed(&log, &root),
        Err(ReclaimError::Protected { .. })
    ));
    let path = root.join("system.log");
    let mut journal = b"LPKSHHRH".to_vec();
    journal.extend(records(0, 20 * MIB));
    fs::write(&path, journal).unwrap();
    let refused = reclaimed(&seen(&path), &root).unwrap_err();
    assert!(refused.to_string().contains("a systemd journal"), "{refused}");
}

#[test]
fn a_read_only_mount_is_named() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let log = filled(&fs.root().join("app.log"), 40);
    fs.make_read_only().unwrap();
    let refused = reclaimed(&log, fs.root()).unwrap_err();
    assert!(matches!(refused, ReclaimError::ReadOnly { .. }), "{refused}");
}

#[test]
fn memory_file_systems_take_the_next_best_method() {
    let Some(tmpfs) = have(Mounted::in_memory("tmpfs")) else {
        return;
    };
    let path = tmpfs.root().join("app.log");
    let log = filled(&path, 40);
    let _writer = writer(&path, true);
    let done = reclaimed(&log, tmpfs.root()).unwrap();
    assert_eq!(done.method, Some(Method::Punch));
    assert!(done.refused[0].starts_with("collapse refused"), "{done}");
    assert_eq!(done.freed, 24 * MIB);

    let Some(ramfs) = have(Mounted::in_memory("ramfs")) else {
        return;
    };
    let path = ramfs.root().join("app.log");
    let log = filled(&path, 40);
    let positioned = writer(&path, false);
    let refused = reclaimed(&log, ramfs.root());
    match refused {
        // ramfs counts no blocks on some kernels.
        Ok(done) => assert_eq!(done.method, None, "{done}"),
        Err(error) => assert!(matches!(error, ReclaimError::NoMethod { .. }), "{error}"),
    }
    drop(positioned);
}

#[test]
fn an_overlay_passes_it_on_and_hides_no_loss() {
    let Some(fs) = have(Mounted::ext4(128 * MIB)) else {
        return;
    };
    let Some(overlay) = have(Mounted::overlay(&fs)) else {
        return;
    };
    let path = overlay.root().join("app.log");
    let log = filled(&path, 40);
    let _writer = writer(&path, true);
    let done = reclaimed(&log, overlay.root()).unwrap();
    assert_eq!(done.method, Some(Method::Collapse), "{done}");
    check(&fs::read(&path).unwrap());

    // Seen from below, where the layers are, the writer is out of sight: offsets stay.
    let path = overlay.root().join("other.log");
    filled(&path, 40);
    let below = seen(&fs.root().join("upper/other.log"));
    let _writer = writer(&path, false);
    let done = reclaimed(&below, fs.root()).unwrap();
    assert_eq!(done.writers, Writers::Unknown, "{done}");
    assert_eq!(done.method, Some(Method::Punch), "{done}");
}

#[test]
fn a_reader_by_name_sees_whole_records_after_each_method() {
    let Some(fs) = have(Mounted::ext4(96 * MIB)) else {
        return;
    };
    let path = fs.root().join("app.log");
    let log = filled(&path, 40);
    let _appends = writer(&path, true);
    assert_eq!(reclaimed(&log, fs.root()).unwrap().method, Some(Method::Collapse));
    let mut bytes = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, KEEP);
    assert_eq!(check(&bytes) + 1, 40 * MIB / RECORD as u64);
}

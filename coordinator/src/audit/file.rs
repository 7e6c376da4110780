//! The audit's files: `NUMBER.log`, the number being that of the first record, so that they are in order by name.
//!
//! A file is begun anew when it is full, and the oldest is dropped when there are too many; the chain goes on over both. What a crash
//! cut off at the end is taken away when the audit is opened, and that is a record.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::Instant;

use super::chain::{Head, Look, Report, What, line};

/// A file is full with so many bytes…
const FULL: u64 = 8 << 20;
/// …and so many files are kept: 256 MiB, which is about 600,000 records.
const KEEP: usize = 32;

/// For so long it is waited for whoever has the files open…
const TURN: Duration = Duration::from_secs(1);
/// …with so long between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The audit that is written to.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    file: Option<(File, u64)>,
    head: Head,
    full: u64,
    keep: usize,
    /// While it is held nobody else writes.
    _lock: Flock<File>,
}

/// The files in their order.
///
/// # Errors
/// The directory cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let is_ours = path.extension().is_some_and(|extension| extension == "log")
            && number.len() == 20
            && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_ours {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Looks at all of it. `expect`: `SEQUENCE:HASH` of an earlier look.
///
/// # Errors
/// A file cannot be read.
pub fn verify(dir: &Path, expect: Option<&str>) -> io::Result<Report> {
    let mut look = Look::new(expect);
    let files = files(dir)?;
    for (index, path) in files.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().display().to_string();
        let mut content = Vec::new();
        File::open(path)?.read_to_end(&mut content)?;
        let mut number = 0;
        let mut rest = content.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            number += 1;
            look.line(&format!("{name}:{number}"), &rest[..end]);
            rest = &rest[end + 1..];
        }
        let torn = u64::try_from(rest.len()).unwrap_or(u64::MAX);
        if index + 1 == files.len() {
            look.rest(torn);
        } else if torn > 0 {
            look.wrong(&name, "ends in the middle of a record, and is not the last file");
        }
    }
    Ok(look.end())
}

impl Log {
    /// Opens the one in `dir`, or begins it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::sized(dir, FULL, KEEP)
    }

    fn sized(dir: &Path, full: u64, keep: usize) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = locked(dir)?;
        let report = verify(dir, None)?;
        for problem in &report.problems {
            tracing::error!(problem, "the audit was changed by somebody");
        }
        let mut log = Self {
            dir: dir.to_owned(),
            file: None,
            head: report.head.clone(),
            full,
            keep,
            _lock: lock,
        };
        if let Some(last) = files(dir)?.last() {
            let file = OpenOptions::new().append(true).open(last)?;
            let length = file.metadata()?.len() - report.torn;
            if report.torn > 0 {
                file.set_len(length)?;
            }
            log.file = Some((file, length));
        }
        tracing::info!(head = %log.head, records = report.records, "the audit is open");
        let begun = What {
            who: "coordinator".to_owned(),
            what: "open the audit".to_owned(),
            outcome: if report.problems.is_empty() {
                "done"
            } else {
                "changed"
            }
            .to_owned(),
            evidence: evidence(&report),
            ..What::default()
        };
        log.append(vec![begun], super::now_unix_ms())?;
        Ok(log)
    }

    /// Appends records; durable once this has returned.
    ///
    /// # Errors
    /// They cannot be written. The log is to be opened anew then.
    pub fn append(&mut self, records: Vec<What>, at_unix_ms: u64) -> io::Result<()> {
        let mut text = String::new();
        for what in records {
            let (line, head) = line(&self.head, at_unix_ms, what).map_err(io::Error::other)?;
            // In turn, so that a file begins with a whole record.
            let length = self.file.as_ref().map_or(u64::MAX, |(_, length)| *length);
            if length.saturating_add(text.len() as u64) >= self.full {
                self.flush(&mut text)?;
                self.begin(head.sequence)?;
            }
            text.push_str(&line);
            self.head = head;
        }
        self.flush(&mut text)
    }

    fn flush(&mut self, text: &mut String) -> io::Result<()> {
        let Some((file, length)) = &mut self.file else {
            return Ok(());
        };
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        *length += text.len() as u64;
        text.clear();
        Ok(())
    }

    /// Begins the file of the record `first`, and drops the oldest.
    fn begin(&mut self, first: u64) -> io::Result<()> {
        let path = self.dir.join(format!("{first:020}.log"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        File::open(&self.dir)?.sync_all()?;
        self.file = Some((file, 0));
        tracing::info!(head = %self.head, file = %path.display(), "the audit goes on in a new file");
        let files = files(&self.dir)?;
        for old in &files[..files.len().saturating_sub(self.keep)] {
            tracing::info!(file = %old.display(), "the oldest file of the audit is dropped");
            fs::remove_file(old)?;
        }
        Ok(())
    }
}

/// A command that is typed has it for a moment.
#[allow(
    clippy::disallowed_methods,
    reason = "a lock of the file system tells nobody that it was given back"
)]
fn locked(dir: &Path) -> io::Result<Flock<File>> {
    let begun = Instant::now();
    let mut file = File::open(dir)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK)) if begun.elapsed() < TURN => file = again,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process writes to it, and does not answer: is it a coordinator with this state_dir and another runtime_dir?",
                ));
            }
            Err((_, error)) => return Err(error.into()),
        }
        sleep(LOOK);
    }
}

fn evidence(report: &Report) -> String {
    let mut parts = Vec::new();
    if report.torn > 0 {
        parts.push(format!(
            "{} bytes of a torn last record were taken away",
            report.torn
        ));
    }
    parts.extend(report.problems.iter().take(10).cloned());
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> What {
        What {
            who: "operator ann".to_owned(),
            what: text.to_owned(),
            outcome: "done".to_owned(),
            ..What::default()
        }
    }

    fn content(dir: &Path) -> Vec<u8> {
        let files = files(dir).unwrap();
        files.iter().flat_map(|file| fs::read(file).unwrap()).collect()
    }

    #[test]
    fn it_goes_on_where_it_ended_and_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path())
            .unwrap()
            .append(vec![command("a"), command("b")], 0)
            .unwrap();
        let head = verify(dir.path(), None).unwrap().head;
        Log::open(dir.path())
            .unwrap()
            .append(vec![command("c")], 0)
            .unwrap();
        let report = verify(dir.path(), Some(&head.to_string())).unwrap();
        // Two records say that it was opened.
        assert_eq!((report.records, report.torn, report.problems.len()), (5, 0, 0));
    }

    #[test]
    fn what_a_crash_cut_off_is_no_tampering_and_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path())
            .unwrap()
            .append(vec![command("a")], 0)
            .unwrap();
        let file = files(dir.path()).unwrap().remove(0);
        let whole = fs::read(&file).unwrap();
        for cut in 1..60 {
            fs::write(&file, &whole[..whole.len() - cut]).unwrap();
            let report = verify(dir.path(), None).unwrap();
            assert!(report.torn > 0 && report.problems.is_empty(), "{cut}: {report:?}");
            drop(Log::open(dir.path()).unwrap());
            let mended = verify(dir.path(), None).unwrap();
            assert_eq!((mended.torn, mended.problems.len()), (0, 0), "{cut}");
            assert!(
                String::from_utf8(content(dir.path()))
                    .unwrap()
                    .contains("torn last record")
            );
        }
    }

    #[test]
    fn tampering_is_told_from_that_and_does_not_keep_it_from_going_on() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path())
            .unwrap()
            .append(vec![command("a"), command("b")], 0)
            .unwrap();
        let file = files(dir.path()).unwrap().remove(0);
        let mut changed = fs::read(&file).unwrap();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        fs::write(&file, &changed).unwrap();
        let report = verify(dir.path(), None).unwrap();
        assert!(
            report.torn == 0 && report.problems[0].contains(".log:2"),
            "{report:?}"
        );
        Log::open(dir.path())
            .unwrap()
            .append(vec![command("c")], 0)
            .unwrap();
        assert!(!verify(dir.path(), None).unwrap().problems.is_empty());
    }

    #[test]
    fn it_takes_bounded_room_and_the_chain_goes_on_over_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::sized(dir.path(), 1000, 3).unwrap();
        for round in 0..50 {
            let records = (0..round % 4).map(|_| command("SetHold")).collect();
            log.append(records, 0).unwrap();
        }
        let report = verify(dir.path(), None).unwrap();
        assert_eq!(files(dir.path()).unwrap().len(), 3);
        assert!(report.first > 1 && report.problems.is_empty(), "{report:?}");
        assert!(content(dir.path()).len() < 3 * 1500);
        // One file of the middle that is gone is found.
        fs::remove_file(&files(dir.path()).unwrap()[1]).unwrap();
        assert!(verify(dir.path(), None).unwrap().problems[0].contains("does not follow"));
    }
}

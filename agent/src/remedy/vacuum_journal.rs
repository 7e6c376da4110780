//! `VacuumJournal`: archived journal files go, the oldest first, until the journal takes no more than it may.
//!
//! journald renames a full file `system.journal` to `system@SEQNUM_ID-SEQNUM-REALTIME.journal`, and one that was not closed (a power
//! loss leaves one each) to `system@REALTIME-RANDOM.journal~`; it writes to neither again. Only such names are touched, never an active
//! file: the tail of the log stays. That is what `journalctl --vacuum-size` does, here without a process and to a bound
//! that counts the active files too. Needs no space.

use std::error::Error as _;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::bytes::Bytes;
use crate::config::Settings;
use crate::ledger::Outcome;

/// What it is done by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VacuumRules {
    /// Where journald keeps the journals of machines.
    pub journal: PathBuf,
    /// The file with this machine's id.
    pub machine_id: PathBuf,
    /// The journal is cut down to this, bytes on disk.
    pub keep: u64,
}

impl VacuumRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            journal: settings.prune.journal.clone(),
            machine_id: "/etc/machine-id".into(),
            keep: settings.prune.journal_keep,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacuumed {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Archived files that are gone, the oldest first.
    pub removed: Vec<PathBuf>,
    /// Bytes on disk that they took.
    pub freed: u64,
    /// Bytes on disk that the journal takes now.
    pub left: u64,
    /// Bytes that it may take.
    pub keep: u64,
}

impl fmt::Display for Vacuumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would remove" } else { "removed" };
        write!(
            f,
            "{would} {} archived journal files and free {}; {} of at most {} are left",
            self.removed.len(),
            Bytes(self.freed),
            Bytes(self.left),
            Bytes(self.keep)
        )
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum VacuumError {
    /// The machine has no id, so its journal is unknown.
    #[error("{} has no machine id", .0.display())]
    NoMachineId(PathBuf),
    /// The journal is not on the disk that is short.
    #[error("{} is not on the disk at {}", journal.display(), mount_point.display())]
    Elsewhere {
        /// Where the journal is.
        journal: PathBuf,
        /// The disk.
        mount_point: PathBuf,
    },
    /// A file could not be looked at or removed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Does it on a thread that may block, and says in one line what came of it.
pub async fn vacuum_journal(mount_point: PathBuf, rules: VacuumRules, dry_run: bool) -> Outcome {
    let done = tokio::task::spawn_blocking(move || vacuum(&mount_point, &rules, dry_run)).await;
    match done {
        Ok(Ok(vacuumed)) if vacuumed.removed.is_empty() && vacuumed.left > vacuumed.keep => Outcome::Failed {
            detail: format!(
                "the journal takes {} and has no archived file that could go",
                Bytes(vacuumed.left)
            ),
        },
        Ok(Ok(vacuumed)) => Outcome::Succeeded {
            detail: vacuumed.to_string(),
        },
        Ok(Err(error)) => Outcome::Failed {
            detail: error
                .source()
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
        },
        Err(_) => Outcome::Failed {
            detail: "the vacuum was broken off".to_owned(),
        },
    }
}

/// Does it. Blocks.
///
/// # Errors
/// The journal is not there, is on another disk, or a file could not be removed; those before it are gone.
pub fn vacuum(mount_point: &Path, rules: &VacuumRules, dry_run: bool) -> Result<Vacuumed, VacuumError> {
    let dir = rules.journal.join(machine_id(&rules.machine_id)?);
    let look = |path: &Path| fs::metadata(path).map_err(failed("look at", path));
    if look(&dir)?.dev() != look(mount_point)?.dev() {
        return Err(VacuumError::Elsewhere {
            journal: dir,
            mount_point: mount_point.to_owned(),
        });
    }
    let mut archived = Vec::new();
    let mut left = 0;
    for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
        let entry = entry.map_err(failed("list", &dir))?;
        // journald itself may rename or remove it meanwhile.
        let Ok(seen) = entry.metadata() else { continue };
        if !seen.is_file() {
            continue;
        }
        let size = seen.blocks() * 512;
        left += size;
        if let Some(ended) = entry.file_name().to_str().and_then(ended) {
            archived.push((ended, entry.path(), size));
        }
    }
    archived.sort();
    let mut vacuumed = Vacuumed {
        dry_run,
        removed: Vec::new(),
        freed: 0,
        left,
        keep: rules.keep,
    };
    for (_, path, size) in archived {
        if vacuumed.left <= rules.keep {
            break;
        }
        if !dry_run {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove", &path)(error)),
            }
        }
        vacuumed.left -= size;
        vacuumed.freed += size;
        vacuumed.removed.push(path);
    }
    Ok(vacuumed)
}

fn machine_id(file: &Path) -> Result<String, VacuumError> {
    let text = fs::read_to_string(file).map_err(failed("read", file))?;
    let id = text.trim_end();
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id.to_owned());
    }
    Err(VacuumError::NoMachineId(file.to_owned()))
}

/// When an archived file begins, microseconds since the Unix epoch, by its name; `None` for an active file and for what
/// is not journald's.
pub(crate) fn ended(name: &str) -> Option<u64> {
    let hex = |text: &str, digits: usize| {
        let ok = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        ok.then(|| u64::from_str_radix(&text[digits - 16..], 16).ok())
            .flatten()
    };
    let (_, rest) = name.split_once('@')?;
    if let Some(rest) = rest.strip_suffix(".journal~") {
        let (realtime, random) = rest.split_once('-')?;
        hex(random, 16)?;
        return hex(realtime, 16);
    }
    let mut parts = rest.strip_suffix(".journal")?.split('-');
    let (id, number, realtime) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    hex(id, 32)?;
    hex(number, 16)?;
    hex(realtime, 16)
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> VacuumError {
    let path = path.to_owned();
    move |source| VacuumError::Io {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn name(of: &str, number: u32) -> String {
        format!(
            "{of}@{ID}-{number:016x}-{:016x}.journal",
            0x5_f000_0000_u64 + u64::from(number)
        )
    }

    fn rules(dir: &Path, keep: u64) -> VacuumRules {
        fs::write(dir.join("machine-id"), format!("{ID}\n")).unwrap();
        fs::create_dir_all(dir.join(ID)).unwrap();
        VacuumRules {
            journal: dir.to_owned(),
            machine_id: dir.join("machine-id"),
            keep,
        }
    }

    #[test]
    fn only_journalds_archived_names_count() {
        assert!(ended(&name("system", 1)) < ended(&name("user-1000", 2)));
        assert!(ended("system@0005f00000000001-0123456789abcdef.journal~").is_some());
        for active in [
            "system.journal",
            "user-1000.journal",
            "user@1000.journal",
            "system@.journal",
            "a@b-c-d.journal",
            "system@é.journal~",
            "notes@home.txt",
        ] {
            assert_eq!(ended(active), None, "{active}");
        }
    }

    #[test]
    fn the_oldest_go_until_it_is_enough_and_active_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let rules = rules(dir.path(), 5 << 20);
        let journal = dir.path().join(ID);
        let write = |name: &str| fs::write(journal.join(name), vec![b'j'; 1 << 20]).unwrap();
        // Four archived ones, one not closed (the oldest), three active.
        for number in [3, 1, 2] {
            write(&name("system", number));
        }
        write(&name("user-1000", 4));
        write("system@00000005effffffff-0123456789abcdef.journal~");
        write("system@00000005efffffff-0123456789abcdef.journal~");
        for active in ["system.journal", "user-1000.journal", "app.journal"] {
            write(active);
        }
        let planned = vacuum(dir.path(), &rules, true).unwrap();
        let done = vacuum(dir.path(), &rules, false).unwrap();
        assert_eq!(planned.removed, done.removed);
        let names: Vec<_> = done
            .removed
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "system@00000005efffffff-0123456789abcdef.journal~",
                &name("system", 1),
                &name("system", 2),
                &name("system", 3),
            ]
        );
        assert!(done.left <= 5 << 20 && done.left > 4 << 20, "{done:?}");
        assert!(done.freed >= 4 << 20);
        // Done twice it changes nothing.
        assert!(vacuum(dir.path(), &rules, false).unwrap().removed.is_empty());
        for name in [
            "system.journal",
            "user-1000.journal",
            "app.journal",
            &name("user-1000", 4),
        ] {
            assert!(journal.join(name).exists(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_journal_without_archived_files_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let rules = rules(dir.path(), 1);
        fs::write(dir.path().join(ID).join("system.journal"), [b'j'; 9000]).unwrap();
        let outcome = vacuum_journal(dir.path().into(), rules.clone(), false).await;
        assert!(
            matches!(&outcome, Outcome::Failed { detail } if detail.contains("no archived file")),
            "{outcome:?}"
        );
        fs::write(&rules.machine_id, "uninitialized\n").unwrap();
        let outcome = vacuum_journal(dir.path().into(), rules, false).await;
        assert!(
            matches!(&outcome, Outcome::Failed { detail } if detail.contains("no machine id")),
            "{outcome:?}"
        );
    }
}

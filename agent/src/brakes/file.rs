//! `state_dir/brakes.json`: written aside, synced and renamed, so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::book::Book;
use super::{Freeze, Held, Hold, Scope, Word};
use crate::explain::kind as condition_kind;
use crate::ledger::Now;

/// Nothing longer was written by us, bytes.
const MAX_FILE: u64 = 1 << 20;
/// A length that is written for one longer than this is damage.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// The file. Fields are added, never renamed: an older agent has to find its holds.
#[derive(Debug, Serialize, Deserialize)]
struct Pages {
    /// What the lengths below are counted from.
    boot: String,
    boottime_ms: u64,
    unix_ms: u64,
    local: Vec<WrittenHold>,
    epoch: u64,
    told: Vec<WrittenHold>,
    freezes: Vec<WrittenFreeze>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenHold {
    scope: Scope,
    /// `None`: every one.
    remedy: Option<String>,
    silence: bool,
    by: String,
    reason: String,
    left_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenFreeze {
    condition: String,
    why: String,
    left_ms: u64,
}

/// How the book stands on disk, at the instant `now` of these clocks.
pub(super) fn write(path: &Path, book: &Book, clocks: &Now, now: Instant) -> io::Result<()> {
    let left =
        |until: Instant| u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
    let hold = |hold: &Hold| WrittenHold {
        scope: hold.scope,
        remedy: match hold.what {
            Held::Remedy(kind) => Some(kind.as_str().to_owned()),
            Held::Every | Held::Silence => None,
        },
        silence: hold.what == Held::Silence,
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        left_ms: hold.until.map(left),
    };
    let pages = Pages {
        boot: clocks.boot.clone(),
        boottime_ms: clocks.boottime_ms,
        unix_ms: clocks.unix_ms,
        local: book.local.iter().map(hold).collect(),
        epoch: book.told.epoch,
        told: book.told.holds.iter().map(hold).collect(),
        freezes: book
            .told
            .freezes
            .iter()
            .map(|freeze| WrittenFreeze {
                condition: freeze.kind.as_str().to_owned(),
                why: freeze.why.clone(),
                left_ms: left(freeze.until),
            })
            .collect(),
    };
    let text = serde_json::to_vec_pretty(&pages).map_err(io::Error::other)?;
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// The book as it was written; `None`: there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub(super) fn read(path: &Path, clocks: &Now, now: Instant) -> io::Result<Option<Book>> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            return Err(io::Error::other(format!("{} bytes are too many", meta.len())));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let pages: Pages = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let same_boot = pages.boot == clocks.boot;
    let elapsed = Duration::from_millis(if same_boot {
        clocks.boottime_ms.saturating_sub(pages.boottime_ms)
    } else {
        clocks.unix_ms.saturating_sub(pages.unix_ms)
    });
    // `None`: over.
    let ends = |left_ms: u64| {
        let left = Duration::from_millis(left_ms).min(LONGEST).checked_sub(elapsed)?;
        (!left.is_zero()).then(|| now + left)
    };
    let hold = |written: WrittenHold| {
        let until = match written.left_ms {
            None => None,
            Some(left) => Some(ends(left)?),
        };
        let what = match (written.silence, written.remedy) {
            (true, _) => Held::Silence,
            (false, None) => Held::Every,
            // A remedy that this version does not have needs no hold.
            (false, Some(name)) => Held::Remedy(RemedyKind::named(&name)?),
        };
        Some(Hold {
            scope: written.scope,
            what,
            by: written.by,
            reason: written.reason,
            until,
        })
    };
    let freeze = |written: WrittenFreeze| {
        Some(Freeze {
            kind: condition_kind(&written.condition).ok()?,
            why: written.why,
            until: ends(written.left_ms).filter(|_| same_boot)?,
        })
    };
    Ok(Some(Book {
        local: pages.local.into_iter().filter_map(hold).collect(),
        told: Word {
            epoch: pages.epoch,
            holds: pages.told.into_iter().filter_map(hold).collect(),
            freezes: pages.freezes.into_iter().filter_map(freeze).collect(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::ConditionKind;

    fn clocks(boot: &str, boottime_s: u64, unix_s: u64) -> Now {
        Now {
            boot: boot.into(),
            boottime_ms: boottime_s * 1000,
            unix_ms: unix_s * 1000,
        }
    }

    #[test]
    fn lengths_go_on_over_a_restart_and_a_reboot_and_no_clock_ends_what_has_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("brakes.json");
        let now = Instant::now();
        assert_eq!(read(&path, &clocks("a", 0, 0), now).unwrap(), None);
        let hold = |what, until| Hold {
            scope: Scope::Local,
            what,
            by: "ann".into(),
            reason: "new disk".into(),
            until,
        };
        let hour = Duration::from_hours(1);
        let book = Book {
            local: vec![
                hold(Held::Silence, None),
                hold(Held::Remedy(RemedyKind::Prune), Some(now + hour)),
            ],
            told: Word {
                epoch: 7,
                holds: vec![hold(Held::Every, Some(now + hour / 2))],
                freezes: vec![Freeze {
                    kind: ConditionKind::UnitFailed,
                    why: "3 of 5".into(),
                    until: now + Duration::from_mins(1),
                }],
            },
        };
        write(&path, &book, &clocks("a", 100, 50_000), now).unwrap();
        let at = |clocks: &Now| read(&path, clocks, now).unwrap().unwrap();
        assert_eq!(at(&clocks("a", 100, 1)), book);
        // Ten seconds later in the same boot, whatever the wall clock says.
        let later = at(&clocks("a", 110, 1));
        assert_eq!(later.local[1].until, Some(now + hour - Duration::from_secs(10)));
        assert_eq!(later.told.freezes.len(), 1);
        // Another boot: by the wall clock; no freeze.
        let rebooted = at(&clocks("b", 5, 50_000 + 1800));
        assert_eq!(rebooted.local[1].until, Some(now + hour / 2));
        assert!(rebooted.told.holds.is_empty() && rebooted.told.freezes.is_empty());
        assert_eq!(rebooted.told.epoch, 7);
        // One that fell back lengthens nothing past the whole.
        assert_eq!(at(&clocks("b", 5, 1)).local[1].until, Some(now + hour));
        let years = at(&clocks("b", 5, 9_000_000));
        assert_eq!(years.local, book.local[..1]);
    }

    #[test]
    fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("brakes.json");
        fs::write(&path, "{").unwrap();
        assert!(read(&path, &clocks("a", 0, 0), Instant::now()).is_err());
    }
}

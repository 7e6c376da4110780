//! Gives back the head of a log without losing its tail or breaking its writer.
//!
//! ```text
//!  LogId ──► open: the one that was seen? in scope? ──► writers: who writes it, and how
//!                                                          │
//!            methods: collapse, punch, truncate ◄── plan: method and range (pure) ──► archive, where one is configured
//!                          │ refused by the file system: the next method
//!                          ▼
//!            the last bytes are where they must be, and the same ──► bytes freed
//! ```
//!
//! Everything here blocks; [`crate::remedy`] runs it on a thread for that. What a *reader* of the log meets: after a
//! collapse or truncate its offset lies beyond the end, as after any rotation by truncation; after a punch offsets
//! stay, and the head reads as zeros. A writer never notices either.

pub mod archive;
mod methods;
mod open;
pub mod plan;
pub mod scope;
pub(crate) mod writers;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::fstatvfs;

use self::archive::{Archive, Kept, Witness};
use self::open::Located;
use self::plan::{Able, Idle, Look, Method, Plan, Writers, plan};
use self::scope::Scope;
use crate::bytes::Bytes;
use crate::config::LogSettings;
use crate::signal::LogId;

/// A log without a visible writer that was modified within this time may have one that is out of sight.
const QUIET: Duration = Duration::from_mins(1);

/// So much of the tail is compared before and after, bytes.
const WINDOW: u64 = 64 << 10;

/// The least cut, bytes: a page, since smaller ones make the kernel zero parts of pages.
const PAGE: u64 = 4096;

/// What may be reclaimed, and what is kept.
#[derive(Debug, Clone)]
pub struct Rules {
    scope: Scope,
    keep_tail: u64,
    archive: Option<Archive>,
}

impl Rules {
    /// From the settings. A misplaced archive is no error here: no log beside it is archived, which each reclaim says.
    ///
    /// # Errors
    /// A glob is malformed.
    pub fn new(settings: &LogSettings) -> Result<Self, globset::Error> {
        Ok(Self {
            scope: Scope::new(settings)?,
            keep_tail: settings.keep_tail,
            archive: settings.archive.clone().map(Archive::new),
        })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reclaimed {
    /// How; `None` when nothing was to be given back.
    pub method: Option<Method>,
    /// Bytes that left the disk: the difference in allocated blocks. What was appended meanwhile lessens it.
    pub freed: u64,
    /// Bytes of the head that were cut; in a dry run, that would be.
    pub cut: u64,
    /// Bytes that it takes now.
    pub allocated: u64,
    /// Who writes it.
    pub writers: Writers,
    /// Names it has beside the one it was reached by: they share its fate.
    pub other_links: u64,
    /// Methods that were refused before, with the kernel's answer.
    pub refused: Vec<String>,
    /// What was kept elsewhere of what was cut; `None` where nothing is to be.
    pub kept: Option<Kept>,
    /// Nothing was changed.
    pub dry_run: bool,
}

impl fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.method, self.dry_run) {
            (None, _) => write!(f, "nothing to give back: it takes {}", Bytes(self.allocated))?,
            (Some(method), true) => write!(f, "would {method} the first {}", Bytes(self.cut))?,
            (Some(method), false) => write!(
                f,
                "freed {} by {method} of the first {}, {} left",
                Bytes(self.freed),
                Bytes(self.cut),
                Bytes(self.allocated)
            )?,
        }
        if let Some(kept) = &self.kept {
            write!(f, "; {kept}")?;
        }
        write!(f, "; {}", self.writers)?;
        if self.other_links > 0 {
            write!(f, "; it has {} further names", self.other_links)?;
        }
        for refused in &self.refused {
            write!(f, "; {refused}")?;
        }
        Ok(())
    }
}

/// Why a log was not reclaimed. Whatever it is, except [`ReclaimError::TailChanged`], the tail is whole.
#[derive(Debug, thiserror::Error)]
pub enum ReclaimError {
    /// It has no such name any more, or nobody holds it open.
    #[error("{} is gone", path.display())]
    Gone {
        /// Which log.
        path: PathBuf,
    },
    /// Another file has its name now.
    #[error("{} is another file than was seen", path.display())]
    Replaced {
        /// Which log.
        path: PathBuf,
    },
    /// A symlink, a directory, a device.
    #[error("{} is no regular file", path.display())]
    NotRegular {
        /// Which log.
        path: PathBuf,
    },
    /// No configured glob names it.
    #[error("{} is not among the configured logs", path.display())]
    Outside {
        /// Its real path.
        path: PathBuf,
    },
    /// It is on the protect list.
    #[error("{} is protected", path.display())]
    Protected {
        /// Its real path.
        path: PathBuf,
    },
    /// It is of a format that is worthless without its head.
    #[error("{} is {format}, not a log", path.display())]
    Binary {
        /// Which log.
        path: PathBuf,
        /// What it is.
        format: &'static str,
    },
    /// Its file system is mounted read-only.
    #[error("{} is on a file system that is mounted read-only", path.display())]
    ReadOnly {
        /// Which log.
        path: PathBuf,
    },
    /// Somebody else truncated it meanwhile.
    #[error("{} was truncated by somebody else meanwhile", path.display())]
    Shrunk {
        /// Which log.
        path: PathBuf,
    },
    /// Neither the file system nor its writers leave a way.
    #[error("no safe way to reclaim {}: {writers}; {refused}", path.display())]
    NoMethod {
        /// Which log.
        path: PathBuf,
        /// Who writes it.
        writers: Writers,
        /// What was tried.
        refused: String,
    },
    /// The last bytes are not what they were: its writer overwrites, or its file system lies.
    #[error("the tail of {} changed during {method}", path.display())]
    TailChanged {
        /// Which log.
        path: PathBuf,
        /// What was done.
        method: Method,
    },
    /// The kernel refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which log.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ReclaimError {
    fn io(action: &'static str, log: &LogId, source: io::Error) -> Self {
        Self::Io {
            action,
            path: log.path.clone(),
            source,
        }
    }
}

/// Gives back the head of `log`, or with `dry_run` says how it would. Blocks: about 0.2 s a GiB.
///
/// # Errors
/// Why not. A log that is gone is an error here, and a success for who wanted its space.
pub fn reclaim(log: &LogId, rules: &Rules, dry_run: bool) -> Result<Reclaimed, ReclaimError> {
    // For a named log the file is checked before /proc is searched, and held meanwhile: its inode stays its own.
    let named = (!log.deleted)
        .then(|| Located::by_name(log, &rules.scope))
        .transpose()?;
    let census = writers::census(log.dev, log.ino);
    let located = match named {
        Some(located) => located,
        None => Located::by_handles(log, &census.handles, &rules.scope)?,
    };
    let file = located.open(log, !dry_run)?;
    let format = open::binary_format(&file).map_err(|source| ReclaimError::io("read", log, source))?;
    if let Some(format) = format {
        return Err(ReclaimError::Binary {
            path: log.path.clone(),
            format,
        });
    }
    Act {
        log,
        file,
        keep_tail: rules.keep_tail,
        archive: rules.archive.as_ref(),
        dry_run,
    }
    .run(&census)
}

/// One log, open.
struct Act<'a> {
    log: &'a LogId,
    file: File,
    keep_tail: u64,
    archive: Option<&'a Archive>,
    dry_run: bool,
}

impl Act<'_> {
    fn run(&self, census: &writers::Census) -> Result<Reclaimed, ReclaimError> {
        let first = self.look()?;
        let writers = census.writers(first.busy);
        let mut able = Able::ALL;
        let mut refused = Vec::new();
        let mut kept = None;
        let mut archived: Option<(u64, Witness)> = None;
        loop {
            // Anew for each attempt: a log is cut by where its end is now.
            let seen = self.look()?;
            if seen.look.size < first.look.size {
                return Err(ReclaimError::Shrunk {
                    path: self.log.path.clone(),
                });
            }
            let done = |method, cut, allocated: u64, refused, kept| Reclaimed {
                method,
                freed: seen.look.allocated.saturating_sub(allocated),
                cut,
                allocated,
                writers,
                other_links: seen.links.saturating_sub(1),
                refused,
                kept,
                dry_run: self.dry_run,
            };
            let plan = match plan(seen.look, writers, able, self.keep_tail) {
                // What came after what was archived is for the next time.
                Ok(plan) => Plan {
                    cut: archived.as_ref().map_or(plan.cut, |(cut, _)| plan.cut.min(*cut)),
                    ..plan
                },
                Err(Idle::TailOnly) => return Ok(done(None, 0, seen.look.allocated, refused, kept)),
                Err(Idle::NoMethod) => {
                    return Err(ReclaimError::NoMethod {
                        path: self.log.path.clone(),
                        writers,
                        refused: refused.join("; "),
                    });
                }
            };
            if self.dry_run {
                let kept = self.archive.map(Archive::would);
                return Ok(done(
                    Some(plan.method),
                    plan.cut,
                    seen.look.allocated,
                    refused,
                    kept,
                ));
            }
            if let (Some(archive), None) = (self.archive, &kept) {
                let (told, witness) = archive.keep(self.log, &self.file, 0..plan.cut);
                kept = Some(told);
                archived = witness.map(|witness| (plan.cut, witness));
                // That took its time: anew.
                continue;
            }
            if archived
                .as_ref()
                .is_some_and(|(_, witness)| !witness.agrees(&self.file))
            {
                return Err(ReclaimError::Shrunk {
                    path: self.log.path.clone(),
                });
            }
            let window = WINDOW.min(seen.look.size - plan.cut);
            let tail = self.read(seen.look.size - window, window)?;
            match methods::apply(&self.file, plan) {
                Ok(()) => {
                    let end = match plan.method {
                        Method::Collapse | Method::Truncate => seen.look.size - plan.cut,
                        Method::Punch => seen.look.size,
                    };
                    if self.read(end - window, window)? != tail {
                        return Err(ReclaimError::TailChanged {
                            path: self.log.path.clone(),
                            method: plan.method,
                        });
                    }
                    let allocated = self.look()?.look.allocated;
                    return Ok(done(Some(plan.method), plan.cut, allocated, refused, kept));
                }
                Err(error) if methods::refused(&error) => {
                    refused.push(format!("{} refused: {error}", plan.method));
                    able = able.without(plan.method);
                }
                Err(source) => return Err(ReclaimError::io(plan.method.as_str(), self.log, source)),
            }
        }
    }

    fn look(&self) -> Result<Seen, ReclaimError> {
        let fail = |source| ReclaimError::io("look at", self.log, source);
        let found = self.file.metadata().map_err(fail)?;
        let block = fstatvfs(&self.file)
            .map_err(|errno| fail(errno.into()))?
            .block_size();
        let age = found
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        Ok(Seen {
            look: Look {
                size: found.len(),
                allocated: found.blocks() * 512,
                block: if block.is_power_of_two() {
                    block.max(PAGE)
                } else {
                    PAGE
                },
            },
            // A time in the future tells nothing: the clock may have jumped.
            busy: age.is_none_or(|age| age < QUIET),
            links: found.nlink(),
        })
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, ReclaimError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReclaimError::Shrunk {
                path: self.log.path.clone(),
            }),
            Err(source) => Err(ReclaimError::io("read", self.log, source)),
        }
    }
}

struct Seen {
    look: Look,
    busy: bool,
    links: u64,
}

//! The gate's files in the runtime directory.
//!
//! | file | written by | says |
//! |---|---|---|
//! | `gate.json` | the gate | what it is doing, and since when |
//! | `gate-release.json` | the agent | the coordinator's release |
//! | `gate-heard.json` | the agent | the coordinator's last word that it works on this node |
//! | `gate.lock` | the gate | locked for as long as a gate's process holds |
//!
//! They need not survive a power loss, only a crash of their writer, so nothing is synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{GateError, GateState};

pub(super) const RECORD: &str = "gate.json";
pub(super) const RELEASE: &str = "gate-release.json";
pub(super) const HEARD: &str = "gate-heard.json";
const LOCK: &str = "gate.lock";

/// Nothing longer was written by us, bytes.
const MAX_FILE: u64 = 64 << 10;

/// What the gate is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What.
    pub state: GateState,
    /// `CLOCK_BOOTTIME` when it began to hold, or opened.
    pub since: Duration,
    /// Its dead-man time.
    pub dead_man: Duration,
    /// Why, for people.
    pub why: String,
    /// A released gate holds for its pre-flight's blockers for no longer than this; zero when it does not look.
    #[serde(default)]
    pub preflight_hold: Duration,
    /// What the pre-flight last said stands in a kubelet's way; `None` before its first answer.
    #[serde(default)]
    pub blockers: Option<Vec<String>>,
}

/// The coordinator's release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The run that asked for it.
    pub run_id: String,
    /// `CLOCK_BOOTTIME` when it came.
    #[serde(default)]
    pub at: Duration,
}

/// The coordinator's last word that it works on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// `CLOCK_BOOTTIME` when it came.
    pub at: Duration,
    /// What the release waits for, for people.
    pub waiting_on: String,
}

/// A file's content with the boot that it belongs to: its nonce, or `None` if the gate opened because it could not learn
/// that.
#[derive(Serialize, Deserialize)]
struct Stamped<T> {
    boot: Option<String>,
    #[serde(flatten)]
    content: T,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// There is none, or it is of another boot.
    Nothing,
    /// It cannot be read, and says nothing either.
    Unreadable(String),
    /// This.
    Is(T),
}

impl<T> Found<T> {
    /// The content, if it says something.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(content) => Some(content),
            Self::Nothing | Self::Unreadable(_) => None,
        }
    }

    fn complaint(&self, name: &str) -> Option<String> {
        match self {
            Self::Unreadable(why) => Some(format!("{name} is ignored: {why}")),
            Self::Nothing | Self::Is(_) => None,
        }
    }
}

/// All that the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The gate's own.
    pub record: Found<Record>,
    /// The agent's, of a release.
    pub release: Found<Release>,
    /// The agent's, of the coordinator's last word.
    pub heard: Found<Heard>,
}

impl Words {
    pub(super) fn read(dir: &Path, boot: Option<&str>) -> Self {
        Self {
            record: read(dir, RECORD, boot),
            release: read(dir, RELEASE, boot),
            heard: read(dir, HEARD, boot),
        }
    }

    /// What could not be read, for people.
    pub(super) fn complaints(&self) -> Vec<String> {
        [
            self.record.complaint(RECORD),
            self.release.complaint(RELEASE),
            self.heard.complaint(HEARD),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

pub(super) fn read<T: DeserializeOwned>(dir: &Path, name: &str, boot: Option<&str>) -> Found<T> {
    let mut text = Vec::new();
    match File::open(dir.join(name)).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::Unreadable(error.to_string()),
        Ok(_) => {}
    }
    understand(&text, boot)
}

/// What the bytes of a file say to this boot.
pub(crate) fn understand<T: DeserializeOwned>(text: &[u8], boot: Option<&str>) -> Found<T> {
    match serde_json::from_slice::<Stamped<T>>(text) {
        Ok(stamped) if stamped.boot.as_deref() == boot => Found::Is(stamped.content),
        Ok(_) => Found::Nothing,
        Err(error) => Found::Unreadable(error.to_string()),
    }
}

pub(super) fn write<T: Serialize>(
    dir: &Path,
    name: &str,
    boot: Option<&str>,
    content: &T,
) -> Result<(), GateError> {
    /// Two writers in one process never share a file aside.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = dir.join(name);
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| GateError::Io { action, path, source }
    };
    let stamped = Stamped {
        boot: boot.map(str::to_owned),
        content,
    };
    let text = serde_json::to_vec(&stamped)
        .map_err(io::Error::other)
        .map_err(failed("encode", &path))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let aside = dir.join(format!(".{name}.{}.{number}", process::id()));
    let renamed = fs::write(&aside, text)
        .map_err(failed("write", &aside))
        .and_then(|()| fs::rename(&aside, &path).map_err(failed("replace", &path)));
    if renamed.is_err() {
        // Already failing: what could be left aside is of no consequence.
        drop(fs::remove_file(&aside));
    }
    renamed
}

/// Locks the gate for as long as the file stays open. `None` if another process has it.
pub(super) fn lock(dir: &Path) -> Result<Option<File>, GateError> {
    let path = dir.join(LOCK);
    let failed = |source| GateError::Io {
        action: "lock",
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A process holds the gate. One that was killed has let go of the lock, and of the kubelet.
pub(super) fn gate_lives(dir: &Path) -> bool {
    File::open(dir.join(LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

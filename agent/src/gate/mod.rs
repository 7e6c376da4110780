//! What holds a kubelet at boot until it may start.
//!
//! The gate is a process of its own that systemd runs before the kubelet. It and the agent speak through files in the
//! runtime directory, so that either may crash without the other:
//!
//! ```text
//!  coordinator ─► link ──heard──►  gate-heard.json  ─┐
//!              ─► remedy ─release► gate-release.json ─┼─► hold: judge ──► kubelet goes on
//!          how the last boot ended (proto::boot) ────┘      │
//!  link, run, `systemctl status` ◄──status── gate.json ◄────┘
//! ```
//!
//! Every file is written aside and renamed, and stamped with its boot: what another boot left says nothing. After a clean
//! stop, or on a first boot, the kubelet goes on at once. After anything else it is held until it is released, or until
//! nobody has spoken to the gate for the dead-man time, by `CLOCK_BOOTTIME`: neither a jump of the wall clock nor a restart
//! of the gate's process changes that. Every error of the gate's own opens it.
//!
//! While it holds it looks whether a kubelet could start at all ([`crate::preflight`]). What stands in the way is told with what it
//! waits for; once it is released, it holds for that a while longer (`gate.preflight_hold`), and then opens and says what stood.

pub(crate) mod files;
mod hold;
mod judge;
#[cfg(test)]
mod tests;
mod wake;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::boot::{self, BootError};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::config::Settings;
use crate::host::Host;

pub use files::{Found, Heard, Record, Release, Words};
pub use hold::{Look, hold, hold_looking, hold_with};
pub use judge::{Terms, Verdict, judge};
pub(crate) use wake::Wake;

/// What the boot gate of this node is doing in this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateState {
    /// Not installed, or did not run in this boot.
    Absent,
    /// Holds the kubelet.
    Held,
    /// Opened by the coordinator's word.
    Released,
    /// Opened by itself on a normal boot.
    Passed,
    /// Opened by itself because nobody spoke to it in time.
    DeadMan,
}

/// What the gate is doing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateStatus {
    /// What.
    pub state: GateState,
    /// What a held gate waits for, for people; empty when it holds nobody.
    pub waiting_on: String,
    /// A held gate opens by itself after this, if nobody speaks to it before.
    pub opens_by_itself_in: Option<Duration>,
    /// What held or opened it, for people.
    pub why: String,
}

/// Why the gate could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The boot identity could not be told or kept.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Nobody has established the boot identity, so that no word to the gate can be stamped.
    #[error("this boot is not known in {}: start the agent or the gate first", .0.display())]
    UnknownBoot(PathBuf),
    /// A file could not be written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What the gate is doing. [`GateState::Absent`] when there is no record of it, or the record is of another boot.
pub fn status(runtime_dir: &Path) -> GateStatus {
    let boot = boot::known(runtime_dir);
    let words = files::Words::read(runtime_dir, boot.as_ref().map(|boot| boot.nonce.as_str()));
    let alive = files::gate_lives(runtime_dir);
    // The clock last: a word that was just said is then never of the future.
    judge::status(&words, alive, boottime())
}

/// Opens the gate of this boot, now or when it comes to ask. Saying it again changes nothing.
///
/// # Errors
/// The boot is not known, or the word cannot be written.
pub fn release(runtime_dir: &Path, run_id: &str) -> Result<(), GateError> {
    let boot = nonce(runtime_dir)?;
    if let Found::Is(Release { .. }) = files::read(runtime_dir, files::RELEASE, Some(&boot)) {
        return Ok(());
    }
    let word = Release {
        run_id: run_id.to_owned(),
        at: boottime(),
    };
    files::write(runtime_dir, files::RELEASE, Some(&boot), &word)
}

/// Passes on that the coordinator knows what is held on this node and works on it: the dead-man time starts anew.
///
/// # Errors
/// The boot is not known, or the word cannot be written.
pub fn heard(runtime_dir: &Path, waiting_on: &str) -> Result<(), GateError> {
    let word = Heard {
        at: boottime(),
        waiting_on: waiting_on.to_owned(),
    };
    files::write(runtime_dir, files::HEARD, Some(&nonce(runtime_dir)?), &word)
}

/// When the coordinator last said in this boot that it works on this node, by `CLOCK_BOOTTIME`.
pub fn heard_at(runtime_dir: &Path) -> Option<Duration> {
    let boot = nonce(runtime_dir).ok()?;
    let heard: Found<Heard> = files::read(runtime_dir, files::HEARD, Some(&boot));
    heard.get().map(|heard| heard.at)
}

fn nonce(runtime_dir: &Path) -> Result<String, GateError> {
    boot::known(runtime_dir)
        .map(|boot| boot.nonce)
        .ok_or_else(|| GateError::UnknownBoot(runtime_dir.to_owned()))
}

/// Leaves the clean-shutdown marker, if the machine itself is on its way down: the gate's own stop alone says nothing of how
/// the boot ends. Tells whether it did.
///
/// A gate that still holds leaves none. Its kubelet has not run since the power loss, and must be held after a restart too.
///
/// # Errors
/// The state directory cannot be read or written.
pub async fn mark_clean_shutdown_if_stopping<H: Host>(
    settings: &Settings,
    host: &H,
) -> Result<bool, GateError> {
    if !host.shutting_down().await {
        info!("the machine is not shutting down; no clean-shutdown marker");
        return Ok(false);
    }
    if status(&settings.runtime_dir).state == GateState::Held {
        info!("the gate still holds the kubelet; no clean-shutdown marker");
        return Ok(false);
    }
    let identity = boot::establish(&settings.boot_id_file, &settings.state_dir, &settings.runtime_dir)?;
    boot::mark_clean_shutdown(&settings.state_dir, &identity)?;
    info!("clean-shutdown marker written");
    Ok(true)
}

/// `CLOCK_BOOTTIME`. Where there is none, later than any deadline: a gate that cannot tell the time opens.
pub(crate) fn boottime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

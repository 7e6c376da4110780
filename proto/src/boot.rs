//! Which start of which machine this is, and how the one before it ended.
//!
//! A boot is the kernel's `boot_id` together with a nonce in the runtime directory (a tmpfs: gone at power-off), so that
//! containers that share a kernel differ too. How the last boot ended is told by a marker that only an orderly shutdown
//! leaves in the state directory: a power loss cannot write it.
//!
//! ```text
//! state dir    boot.json           the boot that was last seen here
//!              clean-shutdown.json  that boot, if it ended in order
//! runtime dir  boot.json           this boot's answer, made by whoever asks first
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the kernel tells its boot id.
pub const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How the boot before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreviousShutdown {
    /// No earlier boot is known here.
    FirstBoot,
    /// It left its marker.
    Clean,
    /// It did not: power loss, crash or hard reset.
    Unclean,
}

/// One start of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootIdentity {
    /// The kernel's `boot_id`.
    pub boot_id: String,
    /// Made at the first start in this boot.
    pub nonce: String,
    /// How the boot before it ended.
    pub previous_shutdown: PreviousShutdown,
}

impl BootIdentity {
    /// The same start of the same machine?
    pub fn same_boot(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && self.nonce == other.nonce
    }
}

/// Why the boot identity could not be told or kept.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct BootError {
    /// What was being done.
    pub action: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError { action, path, source }
}

/// The file that says which boot this is, in the state and in the runtime directory.
const BOOT_FILE: &str = "boot.json";
const MARKER_FILE: &str = "clean-shutdown.json";
const SETTLED_FILE: &str = "settled-boot.json";
const LOCK_FILE: &str = "boot.lock";

/// Tells this boot's identity. The first caller in a boot judges the marker and writes the answer down; every later one,
/// also in another process, reads the same answer.
///
/// # Errors
/// A file or directory that cannot be read or written.
pub fn establish(
    boot_id_file: &Path,
    state_dir: &Path,
    runtime_dir: &Path,
) -> Result<BootIdentity, BootError> {
    fs::create_dir_all(state_dir).map_err(failed("create", state_dir))?;
    fs::create_dir_all(runtime_dir).map_err(failed("create", runtime_dir))?;
    let boot_id = fs::read_to_string(boot_id_file)
        .map_err(failed("read", boot_id_file))?
        .trim()
        .to_owned();

    let lock_path = runtime_dir.join(LOCK_FILE);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(failed("open", &lock_path))?;
    lock.lock().map_err(failed("lock", &lock_path))?;

    let runtime = runtime_dir.join(BOOT_FILE);
    if let Some(known) = read_identity(&runtime).filter(|known| known.boot_id == boot_id) {
        return Ok(known);
    }

    let state = state_dir.join(BOOT_FILE);
    let marker = state_dir.join(MARKER_FILE);
    let last = read_identity(&state);
    let previous_shutdown = match (&last, read_identity(&marker)) {
        (None, _) if !state.exists() => PreviousShutdown::FirstBoot,
        (Some(last), Some(ended)) if last.same_boot(&ended) => PreviousShutdown::Clean,
        // A record that cannot be read is what a power loss leaves.
        _ => PreviousShutdown::Unclean,
    };
    let identity = BootIdentity {
        boot_id,
        nonce: nonce()?,
        previous_shutdown,
    };
    // The marker goes last but one and the runtime answer last: a crash in between is judged again, and errs to Unclean.
    write_durably(&state, &identity)?;
    unmark_clean_shutdown(state_dir)?;
    write_durably(&runtime, &identity)?;
    Ok(identity)
}

/// This boot's identity if somebody has established it already; `None` before that. Judges nothing, writes nothing.
pub fn known(runtime_dir: &Path) -> Option<BootIdentity> {
    read_identity(&runtime_dir.join(BOOT_FILE))
}

/// Says on disk that this boot ends in order. Durable once it has returned.
///
/// # Errors
/// The state directory cannot be written.
pub fn mark_clean_shutdown(state_dir: &Path, identity: &BootIdentity) -> Result<(), BootError> {
    write_durably(&state_dir.join(MARKER_FILE), identity)
}

/// Takes back [`mark_clean_shutdown`]: the boot goes on. Durable once it has returned.
///
/// # Errors
/// The state directory cannot be written.
pub fn unmark_clean_shutdown(state_dir: &Path) -> Result<(), BootError> {
    let marker = state_dir.join(MARKER_FILE);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &marker)(error)),
        _ => sync_dir(state_dir),
    }
}

/// Says on disk that how the boot before this one ended is an old story. Durable once it has returned.
///
/// # Errors
/// The state directory cannot be written.
pub fn mark_settled(state_dir: &Path, identity: &BootIdentity) -> Result<(), BootError> {
    write_durably(&state_dir.join(SETTLED_FILE), identity)
}

/// [`mark_settled`] was said of this boot.
pub fn is_settled(state_dir: &Path, identity: &BootIdentity) -> bool {
    read_identity(&state_dir.join(SETTLED_FILE)).is_some_and(|settled| settled.same_boot(identity))
}

fn read_identity(path: &Path) -> Option<BootIdentity> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write_durably(path: &Path, identity: &BootIdentity) -> Result<(), BootError> {
    let text = serde_json::to_vec(identity)
        .map_err(io::Error::other)
        .map_err(failed("encode", path))?;
    let aside = path.with_extension("json.new");
    let mut file = File::create(&aside).map_err(failed("create", &aside))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &aside))?;
    fs::rename(&aside, path).map_err(failed("rename", &aside))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), BootError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// A random number that the kernel makes anew for each read.
fn nonce() -> Result<String, BootError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(failed("read", source))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine {
        dir: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn power_on(&self, boot: &str) -> BootIdentity {
            let _ = fs::remove_dir_all(self.dir.path().join("run"));
            fs::write(self.dir.path().join("boot_id"), format!("{boot}\n")).unwrap();
            self.ask()
        }

        fn ask(&self) -> BootIdentity {
            let dir = self.dir.path();
            establish(&dir.join("boot_id"), &dir.join("state"), &dir.join("run")).unwrap()
        }

        fn shut_down(&self, identity: &BootIdentity) {
            mark_clean_shutdown(&self.dir.path().join("state"), identity).unwrap();
        }
    }

    #[test]
    fn the_first_boot_is_neither_clean_nor_unclean() {
        assert_eq!(
            Machine::new().power_on("a").previous_shutdown,
            PreviousShutdown::FirstBoot
        );
    }

    #[test]
    fn everybody_gets_the_same_answer_within_a_boot() {
        let machine = Machine::new();
        machine.power_on("a");
        let first = machine.power_on("b");
        assert_eq!(first, machine.ask());
        assert_eq!(known(&machine.dir.path().join("run")), Some(first.clone()));
        assert_eq!(first.previous_shutdown, PreviousShutdown::Unclean);
    }

    #[test]
    fn a_marker_makes_the_next_boot_clean_and_only_that_one() {
        let machine = Machine::new();
        let first = machine.power_on("a");
        machine.shut_down(&first);
        assert_eq!(machine.power_on("b").previous_shutdown, PreviousShutdown::Clean);
        assert_eq!(machine.power_on("c").previous_shutdown, PreviousShutdown::Unclean);
    }

    #[test]
    fn a_marker_that_is_taken_back_counts_for_nothing() {
        let machine = Machine::new();
        let first = machine.power_on("a");
        machine.shut_down(&first);
        unmark_clean_shutdown(&machine.dir.path().join("state")).unwrap();
        assert_eq!(machine.power_on("b").previous_shutdown, PreviousShutdown::Unclean);
    }

    #[test]
    fn a_new_runtime_directory_is_a_new_boot_even_under_the_same_kernel() {
        let machine = Machine::new();
        let first = machine.power_on("a");
        let second = machine.power_on("a");
        assert!(!first.same_boot(&second));
        assert_eq!(second.previous_shutdown, PreviousShutdown::Unclean);
    }

    #[test]
    fn a_torn_record_counts_as_unclean() {
        let machine = Machine::new();
        let first = machine.power_on("a");
        machine.shut_down(&first);
        fs::write(machine.dir.path().join("state").join(BOOT_FILE), b"{\"boot").unwrap();
        assert_eq!(machine.power_on("b").previous_shutdown, PreviousShutdown::Unclean);
    }
}

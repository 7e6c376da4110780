//! `/proc/1/mountinfo` → [`Signal::Mounts`]: whether what is mounted at the watched mount points can be written.
//!
//! The kernel says once in its log that it gave a file system up, and in a container not even that; the mount table says it for as long as it
//! is so. What it says depends on the kernel: on older ones an ext4 with `errors=remount-ro` becomes read-only below a mount that stays
//! read-write (ext4 set `SB_RDONLY`); newer ones leave both as they are and show `emergency_ro`, which `statvfs` does not know. Both are looked
//! for. Kernels in between that show neither leave it to the kernel's log.
//!
//! `/etc/fstab` tells what was meant; without it what was seen before does ([`crate::diagnose::read_only`]).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::beat::Beat;
use crate::signal::{MountState, MountsSignal, Signal, Writable};

/// Reading the table costs some 10 µs a mount. The kernel's log tells of a file system that was given up at once, as a rule.
const PERIOD: Duration = Duration::from_secs(5);

/// Bytes that the table may grow by between two looks and is still read at once.
const ROOM: usize = 4096;

/// What can never be written, whatever its mount says.
const IMAGES: [&str; 6] = ["cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"];
/// What a kernel adds to the options of a file system that it gave up.
const WITHDRAWN: [&str; 3] = ["emergency_ro", "shutdown", "forced_shutdown"];

/// Where mounts stand.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What is mounted.
    pub mountinfo: PathBuf,
    /// What was meant to be; need not be there.
    pub fstab: PathBuf,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            // The node's, not ours: a hardened unit sees most of it read-only, and a container other mounts.
            mountinfo: "/proc/1/mountinfo".into(),
            fstab: "/etc/fstab".into(),
        }
    }
}

/// Watches until `stop`. What cannot be read is told once in the log, and raises and clears nothing.
pub async fn watch(
    sources: Sources,
    mount_points: Vec<PathBuf>,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut observable = true;
    let mut last = Table::default();
    loop {
        let begun = Instant::now();
        match last.look(&sources, &mount_points) {
            Ok(None) => observable = true,
            Ok(Some(mounts)) => {
                observable = true;
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = signals.send(Signal::Mounts(MountsSignal { mounts })) => if sent.is_err() { return },
                }
            }
            Err(error) => {
                if observable {
                    warn!(%error, path = %sources.mountinfo.display(), "mounts cannot be looked at");
                }
                observable = false;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = beat.pause(begun, PERIOD) => {}
        }
    }
}

/// What was read last.
#[derive(Debug, Default)]
struct Table {
    mountinfo: Vec<u8>,
    /// It was told, and nothing but the table itself can change that.
    settled: bool,
}

impl Table {
    /// `None` when nothing has changed. Both files are the kernel's or small: no disk that hangs is asked.
    fn look(&mut self, sources: &Sources, mount_points: &[PathBuf]) -> io::Result<Option<Vec<MountState>>> {
        // Room for all of it, or it is read bit by bit.
        let mut mountinfo = Vec::with_capacity(self.mountinfo.len() + ROOM);
        File::open(&sources.mountinfo)?.read_to_end(&mut mountinfo)?;
        if self.settled && mountinfo == self.mountinfo {
            return Ok(None);
        }
        let fstab = fs::read(&sources.fstab).unwrap_or_default();
        let states: Vec<_> = mount_points
            .iter()
            .filter_map(|mount_point| state(mount_point, &mountinfo, &fstab))
            .collect();
        // What was meant can be written anew.
        let by_fstab = |state: &MountState| matches!(state.writable, Writable::Mounted { .. });
        self.settled = !states.iter().any(by_fstab);
        self.mountinfo = mountinfo;
        Ok(Some(states))
    }
}

/// `None` where nothing is mounted. Of several mounts at the same place the last is the one that is seen.
pub(crate) fn state(mount_point: &Path, mountinfo: &[u8], fstab: &[u8]) -> Option<MountState> {
    let mount = lines(mountinfo)
        .filter_map(|fields| Mount::parse(&fields))
        .rfind(|mount| mount.at == mount_point)?;
    let writable = if let Some(word) = WITHDRAWN.into_iter().find(|word| mount.below(word)) {
        Writable::Withdrawn {
            why: format!("{word} in its options"),
        }
    } else if mount.read_only {
        Writable::Mounted {
            meant: meant_writable(mount_point, fstab),
        }
    } else if mount.below("ro") && !IMAGES.contains(&mount.kind) {
        Writable::Withdrawn {
            why: "its mount is read-write and it is not".to_owned(),
        }
    } else {
        Writable::Yes
    };
    Some(MountState {
        mount_point: mount_point.to_owned(),
        device: mount.source.to_owned(),
        writable,
    })
}

/// One line: `36 35 98:0 /root /at rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue` (`Documentation/filesystems/proc.rst`).
struct Mount<'a> {
    at: PathBuf,
    read_only: bool,
    kind: &'a str,
    source: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(fields: &[&'a str]) -> Option<Self> {
        let dash = fields.iter().position(|field| *field == "-")?;
        Some(Self {
            at: unescape(fields.get(4)?),
            read_only: has(fields.get(5)?, "ro"),
            kind: fields.get(dash + 1)?,
            source: fields.get(dash + 2)?,
            options: fields.get(dash + 3)?,
        })
    }

    fn below(&self, option: &str) -> bool {
        has(self.options, option)
    }
}

fn meant_writable(mount_point: &Path, fstab: &[u8]) -> bool {
    lines(fstab)
        .filter(|fields| fields.len() >= 4 && !fields[0].starts_with('#'))
        .any(|fields| unescape(fields[1]) == mount_point && !has(fields[3], "ro"))
}

fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = Vec<&str>> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split_ascii_whitespace().collect())
}

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|one| one == option)
}

/// Blanks, tabs, newlines and backslashes stand as `\040` and so on.
fn unescape(field: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writable(mountinfo: &str, fstab: &str) -> Option<Writable> {
        state(Path::new("/data"), mountinfo.as_bytes(), fstab.as_bytes()).map(|state| state.writable)
    }

    fn mount(options: &str, kind: &str, below: &str) -> String {
        format!(
            "22 1 8:1 / / rw - ext4 /dev/sda1 ro\n44 27 7:0 / /data {options} shared:1 - {kind} /dev/sdb1 {below}\n"
        )
    }

    #[test]
    fn each_way_to_be_read_only_is_told_apart() {
        let of = |options, kind, below| writable(&mount(options, kind, below), "").unwrap();
        assert_eq!(of("rw,relatime", "ext4", "rw,errors=remount-ro"), Writable::Yes);
        assert_eq!(
            of("ro,relatime", "ext4", "ro"),
            Writable::Mounted { meant: false }
        );
        // Older kernels, and newer ones.
        for below in ["ro,errors=remount-ro", "rw,errors=remount-ro,emergency_ro"] {
            let seen = of("rw,relatime", "ext4", below);
            assert!(matches!(seen, Writable::Withdrawn { .. }), "{below}");
        }
        assert_eq!(of("rw", "squashfs", "ro"), Writable::Yes);
        assert_eq!(writable("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", ""), None);
    }

    #[test]
    fn fstab_tells_what_was_meant() {
        let meant = |fstab: &str| match writable(&mount("ro", "ext4", "ro"), fstab).unwrap() {
            Writable::Mounted { meant } => meant,
            other @ (Writable::Yes | Writable::Withdrawn { .. }) => panic!("{other:?}"),
        };
        assert!(meant("# a comment\nUUID=1 /data ext4 defaults,noatime 0 2\n"));
        assert!(!meant("UUID=1 /data ext4 ro,noatime 0 2\n"));
        assert!(!meant(
            "#UUID=1 /data ext4 defaults 0 2\nUUID=1 /data2 ext4 rw 0 2\n"
        ));
    }

    #[test]
    fn the_last_mount_at_a_place_is_the_one_that_is_seen_and_blanks_are_read() {
        let both = mount("ro", "ext4", "ro") + &mount("rw", "ext4", "rw");
        assert_eq!(writable(&both, ""), Some(Writable::Yes));
        assert_eq!(unescape(r"/a\040b\134c\04"), Path::new("/a b\\c\\04"));
    }
}

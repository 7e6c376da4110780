//! A real file system of its own for a test: an image on a loop device, or in memory; unmounted whatever happens.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; a skipped one says so"
)]

pub(crate) mod docker;
pub(crate) mod records;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use blackstart_agent::signal::LogId;
use tempfile::TempDir;

/// A mounted file system that is gone when this is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Mounted {
    root: PathBuf,
    dir: TempDir,
}

impl Mounted {
    /// ext4 of so many bytes, without space reserved for root. `Err` says what the machine lacks.
    pub(crate) fn ext4(size: u64) -> Result<Self, String> {
        Self::ext4_with(size, &[], "loop")
    }

    /// The same, made and mounted with these options.
    pub(crate) fn ext4_with(size: u64, made: &[&str], mounted_with: &str) -> Result<Self, String> {
        let mounted = Self::prepare()?;
        let image = mounted.dir.path().join("image");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(size).map_err(|error| error.to_string())?;
        let image = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &[&["-q", "-F", "-m", "0"], made, &[&image]].concat())?;
        mounted.mount(&["-o", mounted_with, &image])
    }

    /// `tmpfs` or `ramfs`.
    pub(crate) fn in_memory(kind: &str) -> Result<Self, String> {
        Self::prepare()?.mount(&["-t", kind, "none"])
    }

    /// An overlay whose upper layer is in `below`, as under a container's root.
    pub(crate) fn overlay(below: &Self) -> Result<Self, String> {
        let layer = |name: &str| {
            let path = below.root().join(name);
            fs::create_dir(&path).map_err(|error| error.to_string())?;
            Ok::<_, String>(path.display().to_string())
        };
        let (lower, upper, work) = (layer("lower")?, layer("upper")?, layer("work")?);
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Self::prepare()?.mount(&["-t", "overlay", "overlay", "-o", &layers])
    }

    fn prepare() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let root = fs::canonicalize(dir.path())
            .map_err(|error| error.to_string())?
            .join("mnt");
        fs::create_dir(&root).map_err(|error| error.to_string())?;
        Ok(Self { root, dir })
    }

    fn mount(self, what: &[&str]) -> Result<Self, String> {
        let root = self.root.to_string_lossy().into_owned();
        run("mount", &[what, &[&root]].concat())?;
        Ok(self)
    }

    /// Mounts it anew, read-only.
    pub(crate) fn make_read_only(&self) -> Result<(), String> {
        run("mount", &["-o", "remount,ro", &self.root.to_string_lossy()])
    }

    /// Mounts it anew, read-write.
    pub(crate) fn make_writable(&self) -> Result<(), String> {
        run("mount", &["-o", "remount,rw", &self.root.to_string_lossy()])
    }

    /// Has ext4 find an error in it: the kernel's own way to test what comes of one.
    pub(crate) fn break_ext4(&self) -> Result<(), String> {
        self.break_ext4_with("a test")
    }

    /// The same, by these words in the kernel's log.
    pub(crate) fn break_ext4_with(&self, words: &str) -> Result<(), String> {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device()?);
        fs::write(&trigger, words).map_err(|error| format!("{trigger}: {error}"))
    }

    /// The loop device that it is on, without `/dev/`.
    pub(crate) fn device(&self) -> Result<String, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let at = format!(" {} ", self.root.display());
        let mount = mounts
            .lines()
            .rfind(|line| line.contains(&at))
            .unwrap_or_default();
        let device = mount
            .split(' ')
            .next()
            .and_then(|device| device.strip_prefix("/dev/"));
        device
            .map(str::to_owned)
            .ok_or_else(|| "it is on no device".to_owned())
    }

    /// While it is not mounted, zeroes every kilobyte of its disk that holds `text`, as a bad disk would.
    pub(crate) fn wipe(&self, text: &str) -> Result<(), String> {
        const BLOCK: usize = 1024;
        let root = self.root.to_string_lossy().into_owned();
        let image = self.dir.path().join("image");
        run("umount", &[&root])?;
        let mut bytes = fs::read(&image).map_err(|error| error.to_string())?;
        let mut wiped = 0;
        for block in bytes.chunks_mut(BLOCK) {
            if block.windows(text.len()).any(|found| found == text.as_bytes()) {
                block.fill(0);
                wiped += 1;
            }
        }
        assert!(wiped > 0, "{text} is nowhere");
        fs::write(&image, bytes).map_err(|error| error.to_string())?;
        run(
            "mount",
            &["-o", "loop,errors=continue", &image.to_string_lossy(), &root],
        )
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let root = self.root.to_string_lossy().into_owned();
        if run("umount", &[&root]).is_err() {
            // Somebody still has a file open there, or it was never mounted.
            let _gone = run("umount", &["-l", &root]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// What a watcher would say of the log at `path`.
pub(crate) fn seen(path: &Path) -> LogId {
    let found = fs::metadata(path).expect("the log is there");
    LogId {
        dev: found.dev(),
        ino: found.ino(),
        path: path.to_owned(),
        deleted: false,
    }
}

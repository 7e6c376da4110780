//! A node's disk: an ext4 image in a directory of its own, mounted by the node alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::wait;

/// Bytes, if a test asks for nothing else.
pub const DEFAULT_BYTES: u64 = 1 << 30;

/// One disk.
#[derive(Debug, Clone)]
pub struct Disk {
    image: PathBuf,
}

impl Disk {
    /// Where the image is, in the directory that is bound into the node.
    pub fn at(directory: &Path) -> Self {
        Self {
            image: directory.join("node.img"),
        }
    }

    /// Makes an empty one; sparse, so it takes what is written to it.
    ///
    /// # Errors
    /// The image cannot be written, or `mkfs.ext4` is missing.
    pub async fn make(&self, bytes: u64) -> anyhow::Result<()> {
        if let Some(directory) = self.image.parent() {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let file = fs::File::create(&self.image).with_context(|| format!("make {}", self.image.display()))?;
        file.set_len(bytes)?;
        tool(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0"])
                .arg(&self.image),
        )
        .await?;
        Ok(())
    }

    /// Waits until no loop device holds it: a node that is started earlier gets the shut-down file system back.
    ///
    /// # Errors
    /// It is still held after a minute.
    pub async fn released(&self) -> anyhow::Result<()> {
        let what = format!("loop devices to let go of {}", self.image.display());
        wait::until(&what, Duration::from_mins(1), async || {
            let held = tool(Command::new("losetup").arg("--associated").arg(&self.image)).await?;
            Ok(held.is_empty().then_some(()))
        })
        .await
    }
}

/// Runs a tool of the system; what it wrote.
pub(crate) async fn tool(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{:?}", command.as_std());
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {name}: install the package it is in"))?;
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

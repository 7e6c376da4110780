//! The Debian packages as `make packages-for-tests` makes them, and others of the same content with another version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::coordinator::program;
use crate::disk::tool;
use crate::docker::say;
use crate::node::Node;

/// The packages of this workspace.
#[derive(Debug, Clone)]
pub struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Those that were made of the programs beside this one, or `None` after saying what is missing. Where `CI=true` nothing is skipped.
    ///
    /// # Panics
    /// They are missing or older than the programs, and `CI=true`.
    pub fn or_skip() -> Option<Self> {
        match Self::find() {
            Ok(packages) => Some(packages),
            Err(why) => {
                assert!(
                    !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                    "no packages: {why:#}"
                );
                say(&format!("SKIPPED: no packages: {why:#}"));
                None
            }
        }
    }

    fn find() -> anyhow::Result<Self> {
        let made = |path: &Path| -> anyhow::Result<SystemTime> {
            let seen = fs::metadata(path).with_context(|| format!("look for {}", path.display()))?;
            Ok(seen.modified()?)
        };
        let mut dir = None;
        for name in ["blackstart-agent", "blackstart-coordinator", "blackstart"] {
            let program = program(name)?;
            let beside = program.parent().and_then(Path::parent);
            let packages = beside.context("find the target directory")?.join("packages");
            let package = only(&packages, name).context("make packages-for-tests")?;
            if made(&package)? < made(&program)? {
                bail!(
                    "{} is older than {}: make packages-for-tests",
                    package.display(),
                    program.display()
                );
            }
            dir = Some(packages);
        }
        Ok(Self {
            dir: dir.context("find the target directory")?,
        })
    }

    /// The file of a package.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn file(&self, package: &str) -> anyhow::Result<PathBuf> {
        only(&self.dir, package)
    }

    /// The RPM of the same content, or `None` after saying what is missing. Where `CI=true` nothing is skipped.
    ///
    /// # Panics
    /// It is missing, and `CI=true`.
    pub fn rpm_or_skip(&self, package: &str) -> Option<PathBuf> {
        let prefix = format!("{package}-");
        let named = |name: &str| {
            let version = name.strip_prefix(&prefix)?.strip_suffix(".rpm")?;
            version
                .starts_with(|first: char| first.is_ascii_digit())
                .then_some(())
        };
        let mut entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let found = entries.find(|entry| named(&entry.file_name().to_string_lossy()).is_some());
        if found.is_none() {
            let why = "no RPM beside the packages: apt-get install rpm, make packages-for-tests";
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
            say(&format!("SKIPPED: {why}"));
        }
        found.map(|entry| entry.path())
    }

    /// Makes a package of the same content with another version, in `to`.
    ///
    /// # Errors
    /// dpkg-deb does not do it.
    pub async fn with_version(&self, package: &str, version: &str, to: &Path) -> anyhow::Result<PathBuf> {
        let tree = to.join(format!("{package}-{version}"));
        tool(
            Command::new("dpkg-deb")
                .arg("-R")
                .arg(self.file(package)?)
                .arg(&tree),
        )
        .await?;
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).context("read a package's control file")?;
        let lines: Vec<_> = text
            .lines()
            .map(|line| match line.strip_prefix("Version: ") {
                Some(_) => format!("Version: {version}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        fs::write(&control, lines.concat()).context("write a package's control file")?;
        let file = to.join(format!("{package}_{version}.deb"));
        tool(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-Zgzip", "-z1", "-b"])
                .arg(&tree)
                .arg(&file),
        )
        .await?;
        fs::remove_dir_all(&tree).context("remove a package's tree")?;
        Ok(file)
    }
}

fn only(dir: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let prefix = format!("{package}_");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            found.push(dir.join(&*name));
        }
    }
    match &found[..] {
        [file] => Ok(file.clone()),
        [] => bail!("no package {package} in {}", dir.display()),
        several => bail!("several of {package}: {several:?}"),
    }
}

/// Takes away what a node's image has of Blackstart for other tests: its user, which they have no package to make.
///
/// # Errors
/// The node does not answer.
pub async fn forget(node: &Node) -> anyhow::Result<()> {
    node.exec(&["rm", "-f", "/usr/lib/sysusers.d/blackstart.conf"])
        .await?;
    node.exec(&["userdel", "blackstart"]).await?;
    Ok(())
}

//! The root file system of a node: debootstrap's smallest, systemd, and little else.
//!
//! The suite is the machine's own, so that binaries built here run in it. What is in it decides its name, so that a
//! changed recipe is a new image; its tar is kept in the cache, because no registry may be at hand.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::process::Command;
use tokio::time::Instant;

use crate::disk::tool;
use crate::docker::{Docker, say};
use crate::wait;

mod layer;

pub use layer::ensure_with;

/// What is installed beside debootstrap's minimum.
const PACKAGES: &[&str] = &[
    "dbus",
    "e2fsprogs",
    "iproute2",
    // Provides the logind that polkitd asks for, which debootstrap does not look up.
    "libpam-systemd",
    "mount",
    "polkitd",
    "procps",
    "systemd",
    "systemd-sysv",
];
const INIT: &str = include_str!("../image/init");
const JOURNALD: &str = include_str!("../image/journald.conf");
const MASKED: &str = include_str!("../image/masked");
const SYSUSERS: &str = include_str!("../../deploy/sysusers.d/blackstart.conf");
const SYSUSERS_PATH: &str = "/usr/lib/sysusers.d/blackstart.conf";
const INIT_PATH: &str = "/usr/lib/blackstart-testbed/init";
/// Given up after.
const BUILD_DEADLINE: Duration = Duration::from_mins(15);

/// Another program may build an image or run its tests meanwhile.
const LOCK_DEADLINE: Duration = Duration::from_mins(30);

/// Where images, packages and the disks of nodes are kept: `$BLACKSTART_TESTBED_CACHE`, or `/var/cache/blackstart-testbed`.
pub fn cache() -> PathBuf {
    std::env::var_os("BLACKSTART_TESTBED_CACHE")
        .filter(|path| !path.is_empty())
        .map_or_else(|| "/var/cache/blackstart-testbed".into(), PathBuf::from)
}

/// Which distribution, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    suite: String,
    mirror: String,
}

impl Source {
    fn of_this_machine() -> anyhow::Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let mirror = std::env::var("BLACKSTART_TESTBED_MIRROR").ok();
        Self::of(&release, mirror)
    }

    fn of(release: &str, mirror: Option<String>) -> anyhow::Result<Self> {
        let field = |name: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
        };
        let default = match field("ID").as_deref() {
            Some("debian") => "http://deb.debian.org/debian",
            Some("ubuntu") => "http://archive.ubuntu.com/ubuntu",
            other => bail!(
                "nodes are made from the machine's own distribution, and that of {other:?} is not known: use Debian or Ubuntu"
            ),
        };
        let suite = field("VERSION_CODENAME").context("find VERSION_CODENAME in /etc/os-release")?;
        Ok(Self {
            suite,
            mirror: mirror.unwrap_or_else(|| default.to_owned()),
        })
    }

    /// Of everything that decides what is in the image.
    fn digest(&self) -> u64 {
        let packages = PACKAGES.join(",");
        let parts = [
            &self.suite,
            &packages,
            INIT,
            JOURNALD,
            MASKED,
            SYSUSERS,
            "trimmed 1",
        ];
        fnv(parts.join("\0").as_bytes())
    }
}

/// FNV-1a: names a recipe, guards against nobody.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The image's name, after building or importing it if the engine does not have it.
///
/// # Errors
/// Names what is missing: debootstrap, a reachable mirror, space.
pub async fn ensure(docker: &Docker) -> anyhow::Result<String> {
    let source = Source::of_this_machine()?;
    let digest = source.digest();
    let tag = format!("blackstart-testbed:{}-{digest:016x}", source.suite);
    if docker.run(["image", "inspect", &tag]).await.is_ok() {
        return Ok(tag);
    }
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    // Test programs may run side by side.
    let _lock = lock(&cache.join("image.lock")).await?;
    if docker.run(["image", "inspect", &tag]).await.is_ok() {
        return Ok(tag);
    }
    let tar = cache.join(format!("image-{}-{digest:016x}.tar", source.suite));
    if !tar.exists() {
        build(&source, &cache, &tar).await?;
    }
    say(&format!("importing {}", tar.display()));
    let command = format!("CMD [{INIT_PATH:?}]");
    let file = tar.display().to_string();
    let args = [
        "import",
        "-c",
        &command,
        "-c",
        "ENV container=docker",
        &file,
        &tag,
    ];
    docker.run_within(BUILD_DEADLINE, args, &[]).await?;
    Ok(tag)
}

/// Removes every image of nodes, and the cache.
///
/// # Errors
/// An image is in use, or a file cannot be removed.
pub async fn purge(docker: &Docker) -> anyhow::Result<()> {
    let images = docker
        .run([
            "images",
            "blackstart-testbed",
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ])
        .await?;
    for image in images.lines() {
        docker.run(["rmi", image]).await?;
    }
    let cache = cache();
    if cache.exists() {
        fs::remove_dir_all(&cache).with_context(|| format!("remove {}", cache.display()))?;
    }
    Ok(())
}

/// Waits for a lock that is held until the value is dropped.
pub(crate) async fn lock(path: &Path) -> anyhow::Result<Flock<fs::File>> {
    let name = path.display().to_string();
    let mut told = false;
    wait::until(&format!("the lock {name}"), LOCK_DEADLINE, async || {
        let lock = try_lock(path)?;
        if lock.is_none() && !told {
            say(&format!("waiting for whoever holds {name}"));
            told = true;
        }
        Ok(lock)
    })
    .await
}

/// The lock, if nobody holds it.
pub(crate) fn try_lock(path: &Path) -> anyhow::Result<Option<Flock<fs::File>>> {
    let file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        // Whoever held it before may have removed the file, and then it locks nobody out.
        Ok(lock) => {
            let same =
                fs::metadata(path).is_ok_and(|now| lock.metadata().is_ok_and(|own| own.ino() == now.ino()));
            Ok(same.then_some(lock))
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| format!("lock {}", path.display())),
    }
}

async fn build(source: &Source, cache: &Path, tar: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    let root = tempfile::Builder::new()
        .prefix("building-")
        .tempdir_in(cache)
        .context("make a directory to build the image in")?;
    let packages = cache.join("packages");
    fs::create_dir_all(&packages)?;
    say(&format!(
        "building a node's root file system: {} from {} (about a minute, once)",
        source.suite, source.mirror
    ));
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--cache-dir={}", packages.display()))
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(&source.suite)
        .arg(root.path())
        .arg(&source.mirror);
    tokio::time::timeout(BUILD_DEADLINE, tool(&mut debootstrap))
        .await
        .with_context(|| format!("debootstrap did not end within {BUILD_DEADLINE:?}"))?
        .with_context(|| {
            format!(
                "build the image of a node (needs debootstrap, and {}; another mirror: BLACKSTART_TESTBED_MIRROR)",
                source.mirror
            )
        })?;
    furnish(root.path()).context("furnish the image of a node")?;
    let mut users = Command::new("chroot");
    users.arg(root.path()).args(["systemd-sysusers", SYSUSERS_PATH]);
    tool(&mut users).await?;
    say("packing it");
    let partial = tar.with_extension("partial");
    let mut pack = Command::new("tar");
    pack.arg("--numeric-owner")
        .arg("-C")
        .arg(root.path())
        .arg("-cf")
        .arg(&partial)
        .arg(".");
    tool(&mut pack).await?;
    fs::rename(&partial, tar)?;
    say(&format!("built in {:.0?}", begun.elapsed()));
    Ok(())
}

/// Makes a node of a freshly installed system, and takes away what no node needs.
fn furnish(root: &Path) -> anyhow::Result<()> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    fs::create_dir_all(at("/usr/lib/blackstart-testbed"))?;
    fs::write(at(INIT_PATH), INIT)?;
    fs::set_permissions(at(INIT_PATH), fs::Permissions::from_mode(0o755))?;
    fs::write(at(SYSUSERS_PATH), SYSUSERS)?;
    fs::create_dir_all(at("/etc/systemd/journald.conf.d"))?;
    fs::write(at("/etc/systemd/journald.conf.d/testbed.conf"), JOURNALD)?;
    for unit in MASKED.lines() {
        let link = at("/etc/systemd/system").join(unit);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        symlink("/dev/null", link)?;
    }
    // Or all nodes would have one id.
    fs::write(at("/etc/machine-id"), "")?;
    if at("/var/lib/dbus/machine-id").symlink_metadata().is_ok() {
        fs::remove_file(at("/var/lib/dbus/machine-id"))?;
    }
    for emptied in [
        "/usr/share/doc",
        "/usr/share/man",
        "/usr/share/locale",
        "/usr/share/info",
        "/var/cache/apt",
        "/var/lib/apt/lists",
    ] {
        let path = at(emptied);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
            fs::create_dir(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_of_the_machines_own_suite() {
        let debian = "NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        let source = Source::of(debian, None).unwrap();
        assert_eq!(
            source,
            Source {
                suite: "bookworm".into(),
                mirror: "http://deb.debian.org/debian".into()
            }
        );
        let ubuntu = "ID=ubuntu\nVERSION_CODENAME=\"noble\"\n";
        let other = Source::of(ubuntu, Some("http://mirror.lan/ubuntu".into())).unwrap();
        assert_eq!(
            (other.suite.as_str(), other.mirror.as_str()),
            ("noble", "http://mirror.lan/ubuntu")
        );
        assert_ne!(source.digest(), other.digest());
        let error = Source::of("ID=fedora\n", None).unwrap_err().to_string();
        assert!(error.contains("use Debian or Ubuntu"), "{error}");
    }
}

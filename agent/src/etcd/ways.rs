//! Where manifests and data lie while etcd is changed, and how they are moved: renamed in one step, never over another file, and durable
//! before the next step.
//!
//! What a run takes out of the kubelet's sight lies in a directory of its own, `blackstart-etcd/RUN` beside `static_pods.held`, and stays there: so
//! each step of a run is told from what lies where.
//!
//! That etcd has ended is told by the lock that it holds on its database for as long as it lives (bbolt: `flock`), and by its port: no
//! container runtime has to be asked.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::act::EtcdRules;
use super::look::{Found, manifest};
use super::pod::EtcdPod;
use crate::watch::static_pods::directory::Places;
use crate::watch::static_pods::manifest::is_pod_name;

/// Between two looks whether something has ended.
pub(super) const PERIOD: Duration = Duration::from_millis(250);
/// Beside `static_pods.held`.
const DIR: &str = "blackstart-etcd";

/// Where the things of a run lie.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// Where the kubelet looks.
    pub(super) manifests: PathBuf,
    /// What the run has taken out.
    pub(super) kept: PathBuf,
    /// What it is going to put in.
    pub(super) next: PathBuf,
    /// Its name.
    pub(super) run: String,
    places: Places,
    #[cfg(test)]
    killed_after: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl Ways {
    pub(super) fn of(run: &str, rules: &EtcdRules) -> Result<Self, String> {
        let places = &rules.places;
        // The name becomes a path.
        if !is_pod_name(run) {
            return Err(format!("{run:?} is no name of a run"));
        }
        let kept = runs(places).join(run);
        Ok(Self {
            manifests: places.manifests.clone(),
            next: kept.join("next"),
            kept,
            run: run.to_owned(),
            places: places.clone(),
            #[cfg(test)]
            killed_after: std::sync::Arc::clone(&rules.killed_after),
        })
    }

    /// Between two steps: where a test has the process end.
    #[cfg_attr(
        not(test),
        allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "tests end it here")
    )]
    pub(super) fn step(&self) -> Result<(), String> {
        #[cfg(test)]
        if self
            .killed_after
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed)
            == 0
        {
            self.killed_after.store(0, std::sync::atomic::Ordering::Relaxed);
            return Err("killed".to_owned());
        }
        Ok(())
    }

    /// The manifest that another run has fenced.
    pub(super) fn fenced(&self) -> Option<Found> {
        taken_out(&self.places).map(|(_, found)| found)
    }

    /// Where a member's data lies once it is set aside.
    pub(super) fn aside(&self, data: &Path) -> PathBuf {
        data.join(format!("member.set-aside.{}", self.run))
    }

    /// Makes the directories of the run.
    pub(super) fn make(&self) -> Result<(), String> {
        fs::create_dir_all(&self.next).map_err(|error| format!("make {}: {error}", self.next.display()))
    }

    /// Takes a manifest out.
    pub(super) fn take_out(&self, file: &str) -> Result<(), String> {
        let moved = rename(&self.manifests.join(file), &self.kept.join(file))
            .and_then(|()| sync(&self.kept))
            .and_then(|()| sync(&self.manifests));
        moved.map_err(|error| {
            let hint = if error.kind() == ErrorKind::CrossesDevices {
                ": static_pods.held has to be on the file system of the manifests"
            } else {
                ""
            };
            format!("move {file} out: {error}{hint}")
        })
    }

    /// Puts it back.
    pub(super) fn put_back(&self, file: &str) -> Result<(), String> {
        rename(&self.kept.join(file), &self.manifests.join(file))
            .and_then(|()| sync(&self.manifests))
            .map_err(|error| format!("move {file} back: {error}"))
    }

    /// Puts the new one in.
    pub(super) fn put_in(&self, file: &str) -> Result<PathBuf, String> {
        let (next, to) = (self.next.join(file), self.manifests.join(file));
        rename(&next, &to)
            .and_then(|()| sync(&self.manifests))
            .map_err(|error| format!("move the new manifest in: {error}; it is {}", next.display()))?;
        Ok(to)
    }
}

/// Where the directories of all runs are.
pub(super) fn runs(places: &Places) -> PathBuf {
    places.held.with_file_name(DIR)
}

/// The directory of each run, with its name.
pub(crate) fn dirs(places: &Places) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(runs(places)).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    dirs.sort();
    dirs
}

/// The manifest of etcd that a run has taken out last, and which run.
pub(super) fn taken_out(places: &Places) -> Option<(String, Found)> {
    let mut all: Vec<_> = fs::read_dir(runs(places))
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let at = entry.metadata().ok()?.modified().ok()?;
            let found = manifest(&entry.path()).ok()?;
            Some((at, entry.file_name().into_string().ok()?, found))
        })
        .collect();
    all.sort_by_key(|(at, ..)| *at);
    all.pop().map(|(_, run, found)| (run, found))
}

pub(super) async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err("it was broken off".to_owned()))
}

/// Waits until etcd has ended and stays so.
pub(super) async fn gone(pod: &EtcdPod, since: Instant, rules: &EtcdRules) -> Result<(), String> {
    loop {
        let database = pod.data_dir.join("member/snap/db");
        let held = off(move || is_held(&database)).await?;
        let answers = listens(pod).await;
        if !held && !answers && since.elapsed() >= rules.out_at_least {
            return Ok(());
        }
        if since.elapsed() >= rules.gone_deadline.max(rules.out_at_least) {
            return Err(format!(
                "etcd still {} {} s after its manifest was moved out: does the kubelet run?",
                if held { "holds its database" } else { "listens" },
                since.elapsed().as_secs()
            ));
        }
        sleep(PERIOD).await;
    }
}

/// Some process has the database open for writing.
pub(super) fn is_held(database: &Path) -> Result<bool, String> {
    let failed = |error: io::Error| format!("look at {}: {error}", database.display());
    let file = match File::open(database) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Given up with the file.
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(failed(error.into())),
    }
}

async fn listens(pod: &EtcdPod) -> bool {
    for url in pod.endpoints() {
        let address = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        if TcpStream::connect(address.trim_end_matches('/')).await.is_ok() {
            return true;
        }
    }
    false
}

pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// In one step, and never over another file.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

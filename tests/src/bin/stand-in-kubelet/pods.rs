//! Static pods: what lies in the manifest directory runs, as processes of the node itself.
//!
//! ```text
//!  manifests, at each look ──► pods ──► a process for each container, started again with back-off when it ends
//!                                ├────► STATE/POD/CONTAINER: "pid start-time stamp", for the next kubelet, and for tests
//!                                └────► LOGS/kube-system_POD-NODE_UID/CONTAINER/0.log: what it writes
//! ```
//! As with a real one, pods outlive their kubelet: the next one takes over what runs, and stops what lies there no more.
//! It does not probe: what hangs stays hung.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_tests::docker::say;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::manifest::Pod;
use crate::process::{self, Kept};

/// Longer manifests are not read, bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// What an earlier kubelet left, and nobody wants any more, has so long to end.
const GRACE: Duration = Duration::from_secs(30);

/// The pods of one manifest directory.
#[derive(Debug)]
pub(crate) struct Pods {
    manifests: PathBuf,
    state: PathBuf,
    logs: PathBuf,
    running: BTreeMap<String, Running>,
    /// Manifests that cannot be run, and why; said once.
    refused: BTreeMap<PathBuf, String>,
}

#[derive(Debug)]
struct Running {
    stamp: u64,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pods {
    /// Nothing runs yet but what an earlier kubelet left.
    pub(crate) fn new(manifests: PathBuf, state: PathBuf, logs: PathBuf) -> Self {
        Self {
            manifests,
            state,
            logs,
            running: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// One look: starts, stops and replaces.
    pub(crate) fn look(&mut self) {
        let wanted = self.wanted();
        self.running.retain(|_, running| !running.task.is_finished());
        for (name, running) in &self.running {
            if wanted.get(name).is_none_or(|pod| pod.stamp() != running.stamp) {
                running.stop.cancel();
            }
        }
        for pod in wanted.values() {
            self.stop_others(pod);
            if !self.running.contains_key(&pod.name) {
                let stop = CancellationToken::new();
                let task = tokio::spawn(live(
                    pod.clone(),
                    self.state.join(&pod.name),
                    logs(&self.logs, &pod.name),
                    stop.clone(),
                ));
                self.begin(&pod.name, pod.stamp(), stop, task);
            }
        }
        for left in names(&self.state) {
            if !wanted.contains_key(&left) && !self.running.contains_key(&left) {
                let task = tokio::spawn(end(self.state.join(&left)));
                self.begin(&left, 0, CancellationToken::new(), task);
            }
        }
    }

    fn begin(&mut self, name: &str, stamp: u64, stop: CancellationToken, task: JoinHandle<()>) {
        let running = Running { stamp, stop, task };
        self.running.insert(name.to_owned(), running);
    }

    /// Processes that an earlier kubelet started from another version of the manifest are no longer its pod's.
    fn stop_others(&mut self, pod: &Pod) {
        let dir = self.state.join(&pod.name);
        let other = |name: &String| Kept::read(&dir.join(name)).is_some_and(|kept| kept.stamp != pod.stamp());
        if !self.running.contains_key(&pod.name) && names(&dir).iter().any(other) {
            let task = tokio::spawn(end(dir));
            self.begin(&pod.name, 0, CancellationToken::new(), task);
        }
    }

    fn wanted(&mut self) -> BTreeMap<String, Pod> {
        let mut wanted = BTreeMap::new();
        let mut refused = BTreeMap::new();
        // As the kubelet does it, every file counts but hidden ones, whatever its name ends with.
        for name in names(&self.manifests) {
            let path = self.manifests.join(name);
            match read(&path) {
                Ok(None) => {}
                Ok(Some(pod)) => {
                    wanted.entry(pod.name.clone()).or_insert(pod);
                }
                Err(why) => {
                    if self.refused.get(&path) != Some(&why) {
                        say(&format!("manifest {}: {why}", path.display()));
                    }
                    refused.insert(path, why);
                }
            }
        }
        self.refused = refused;
        wanted
    }
}

fn read(path: &Path) -> Result<Option<Pod>, String> {
    let text = || -> io::Result<Option<String>> {
        let seen = fs::metadata(path)?;
        if !seen.is_file() {
            return Ok(None);
        }
        if seen.len() > MAX_MANIFEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::read_to_string(path).map(Some)
    };
    match text() {
        Ok(None) => Ok(None),
        Ok(Some(text)) => Pod::parse(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What is in a directory, without hidden files; nothing where there is none.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// Where the containers of a pod write, each in a directory of its own; static pods bear their node's name, and here one uid for all.
fn logs(all: &Path, pod: &str) -> PathBuf {
    let node = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    all.join(format!("kube-system_{pod}-{}_0a1b", node.trim()))
}

/// A pod's life, until `stop`.
async fn live(pod: Pod, dir: PathBuf, logs: PathBuf, stop: CancellationToken) {
    if let Err(error) = fs::create_dir_all(&dir) {
        say(&format!("pod {}: make {}: {error}", pod.name, dir.display()));
        return;
    }
    say(&format!("pod {} is to run", pod.name));
    let stamp = pod.stamp();
    let mut containers = JoinSet::new();
    for container in pod.containers {
        let what = format!("pod {} container {}", pod.name, container.name);
        let kept = dir.join(&container.name);
        containers.spawn(process::live(
            what,
            container,
            (kept, logs.clone()),
            stamp,
            pod.grace,
            stop.clone(),
        ));
    }
    while containers.join_next().await.is_some() {}
    forget(&dir);
    say(&format!("pod {} has ended", pod.name));
}

/// Ends what an earlier kubelet left of a pod.
async fn end(dir: PathBuf) {
    let mut ending = JoinSet::new();
    for name in names(&dir) {
        let path = dir.join(name);
        ending.spawn(async move {
            if let Some(kept) = Kept::read(&path) {
                process::stop(&mut process::Process::Adopted(kept), GRACE).await;
            }
            forget(&path);
        });
    }
    while ending.join_next().await.is_some() {}
    forget(&dir);
}

fn forget(path: &Path) {
    let removed = if path.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        say(&format!("remove {}: {error}", path.display()));
    }
}

//! What is seen of the masters from outside: how health ports answer, and which manifests lie where the kubelet looks. A drill is judged by it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::seen::millis;
use super::bed::{Asked, Master};
use super::chronicle::{Health, Out};

/// Everything is looked at so often; an answer may take so long.
const LOOK: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
struct Seen {
    health: Vec<Health>,
    outs: Vec<Out>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub(super) struct Witness {
    began: Instant,
    seen: Arc<Mutex<Seen>>,
    looks: JoinHandle<()>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Witness {
    /// Of these. Its clock begins.
    pub(super) fn of(masters: &[Master]) -> Self {
        let (began, seen) = (Instant::now(), Arc::default());
        let ports: Vec<_> = masters
            .iter()
            .flat_map(|master| {
                master
                    .asked
                    .iter()
                    .map(|asked| (master.name.clone(), asked.clone()))
            })
            .map(|(node, asked)| ask(node, asked, began, Arc::clone(&seen)))
            .collect();
        let manifests: Vec<_> = masters
            .iter()
            .map(|master| follow(master.name.clone(), master.manifests(), began, Arc::clone(&seen)))
            .collect();
        let looks = tokio::spawn(async {
            tokio::join!(join_all(ports), join_all(manifests));
        });
        Self { began, seen, looks }
    }

    /// The drill's clock.
    pub(super) fn now_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// How health ports were seen to answer, each time that it changed.
    pub(super) fn health(&self) -> Vec<Health> {
        lock(&self.seen).health.clone()
    }

    /// How a pod answered at last.
    pub(super) fn is_well(&self, node: &str, pod: &str) -> bool {
        let seen = lock(&self.seen);
        let last = seen
            .health
            .iter()
            .rev()
            .find(|one| one.node == node && one.pod == pod);
        last.is_some_and(|last| last.well)
    }

    /// When which manifest was away.
    pub(super) fn outs(&self) -> Vec<Out> {
        let mut outs = lock(&self.seen).outs.clone();
        outs.sort_by_key(|out| out.gone_ms);
        outs
    }

    /// What is seen from now on is not looked at any more.
    pub(super) fn stop(&self) {
        self.looks.abort();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks a health port, again and again.
async fn ask(node: String, Asked { pod, at, path }: Asked, began: Instant, seen: Arc<Mutex<Seen>>) {
    let mut last = None;
    loop {
        let well = matches!(timeout(ANSWER, answers(at, path)).await, Ok(Ok(true)));
        if last != Some(well) {
            last = Some(well);
            lock(&seen).health.push(Health {
                at_ms: millis(began.elapsed()),
                node: node.clone(),
                pod: pod.clone(),
                well,
            });
        }
        sleep(LOOK).await;
    }
}

async fn answers(at: SocketAddr, path: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(at).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

/// Follows which manifests are in a directory.
async fn follow(node: String, dir: PathBuf, began: Instant, seen: Arc<Mutex<Seen>>) {
    let mut before: BTreeMap<PathBuf, (String, String)> = BTreeMap::new();
    loop {
        let now = manifests(&dir);
        let at = millis(began.elapsed());
        {
            let outs = &mut lock(&seen).outs;
            for (path, (pod, text)) in &before {
                let after = now.get(path).map(|(_, text)| text);
                if after != Some(text) {
                    outs.push(Out {
                        node: node.clone(),
                        pod: pod.clone(),
                        gone_ms: at,
                        // Written anew in one step.
                        back_ms: after.map(|_| at),
                    });
                }
            }
            for (path, (pod, _)) in &now {
                let is_open = |out: &&mut Out| out.node == node && out.pod == *pod;
                if !before.contains_key(path)
                    && let Some(out) = outs.iter_mut().rev().find(is_open)
                {
                    out.back_ms.get_or_insert(at);
                }
            }
        }
        before = now;
        sleep(LOOK).await;
    }
}

/// The manifests in a directory, each with its pod's name and its text.
pub(super) fn manifests(dir: &Path) -> BTreeMap<PathBuf, (String, String)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter_map(|path| {
            // One that is just being moved is not there.
            let text = fs::read_to_string(&path).ok()?;
            let pod: Value = serde_saphyr::from_str(&text).ok()?;
            let name = pod["metadata"]["name"].as_str()?.to_owned();
            Some((path, (name, text)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(witness: &Seen) -> &Out {
        assert_eq!(witness.outs.len(), 1, "{:?}", witness.outs);
        &witness.outs[0]
    }

    #[tokio::test(start_paused = true)]
    async fn a_manifest_that_goes_comes_back_or_is_written_anew_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.yaml");
        fs::write(&path, "metadata: {name: etcd}\n").unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(follow(
            "m1".to_owned(),
            dir.path().to_owned(),
            Instant::now(),
            Arc::clone(&seen),
        ));
        sleep(LOOK * 2).await;
        assert!(lock(&seen).outs.is_empty());
        fs::remove_file(&path).unwrap();
        sleep(LOOK * 2).await;
        assert_eq!(only(&lock(&seen)).back_ms, None);
        fs::write(&path, "metadata: {name: etcd}\n").unwrap();
        sleep(LOOK * 2).await;
        {
            let seen = lock(&seen);
            let out = only(&seen);
            assert!(out.back_ms.is_some_and(|back| back > out.gone_ms), "{out:?}");
        }
        fs::write(dir.path().join("new"), "metadata: {name: etcd}\nspec: {}\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        sleep(LOOK * 2).await;
        task.abort();
        let outs = lock(&seen).outs.clone();
        assert_eq!(outs.len(), 2, "{outs:?}");
        assert_eq!(outs[1].back_ms, Some(outs[1].gone_ms), "in one step");
    }
}

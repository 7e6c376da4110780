//! A stand-in for the kubelet of one master: runs what the manifests in a directory say, as processes, again when they end, and stops what has no
//! manifest any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;

use super::witness::manifests;
use super::{exec, part};

/// Between two looks at the directory.
const LOOK: Duration = Duration::from_millis(50);
/// One that ends by itself is started again after this.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Shared with its thread.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The processes that run, by pod.
    running: Mutex<BTreeMap<String, u32>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends, with all its processes, when it is dropped.
#[derive(Debug)]
pub(super) struct Kubelet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Of the manifests below `dir`; what pods write goes below `dir/logs`, as the kubelet keeps it. `program` is this command.
    pub(super) fn start(dir: &Path, node: &str, program: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let mut work = Work {
            dir: dir.to_owned(),
            node: node.to_owned(),
            program: program.to_owned(),
            shared: Arc::clone(&shared),
            pods: BTreeMap::new(),
        };
        let thread = thread::spawn(move || {
            while !work.shared.stop.load(Ordering::Relaxed) {
                work.look();
                thread::park_timeout(LOOK);
            }
            for (_, mut pod) in std::mem::take(&mut work.pods) {
                pod.end();
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// The process of a pod.
    pub(super) fn process(&self, pod: &str) -> Option<u32> {
        lock(&self.shared.running).get(pod).copied()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

struct Work {
    dir: PathBuf,
    node: String,
    program: PathBuf,
    shared: Arc<Shared>,
    /// By the manifest's file.
    pods: BTreeMap<PathBuf, Pod>,
}

struct Pod {
    name: String,
    text: String,
    process: Option<Child>,
    /// Not to be started before this.
    next: Instant,
}

impl Pod {
    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended, and nobody else has its number before it is waited for.
            let _ended = kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM);
            let _status = process.wait();
        }
    }
}

impl Work {
    fn look(&mut self) {
        let wanted = manifests(&self.dir.join("manifests"));
        let now = Instant::now();
        self.pods.retain(|path, pod| {
            if wanted.get(path).is_some_and(|(_, text)| *text == pod.text) {
                return true;
            }
            pod.end();
            false
        });
        for (path, (name, text)) in wanted {
            self.pods.entry(path).or_insert_with(|| Pod {
                name,
                text,
                process: None,
                next: now,
            });
        }
        let mut running = BTreeMap::new();
        for pod in self.pods.values_mut() {
            let ended = pod
                .process
                .as_mut()
                .is_some_and(|process| process.try_wait().is_ok_and(|status| status.is_some()));
            if ended {
                pod.process = None;
                pod.next = now + BACK_OFF;
            }
            if pod.process.is_none() && now >= pod.next {
                pod.process = start(&self.dir, &self.node, &self.program, pod).ok();
                pod.next = now + BACK_OFF;
            }
            if let Some(process) = &pod.process {
                running.insert(pod.name.clone(), process.id());
            }
        }
        *lock(&self.shared.running) = running;
    }
}

fn start(dir: &Path, node: &str, program: &Path, pod: &Pod) -> io::Result<Child> {
    let written: Value = serde_saphyr::from_str(&pod.text).map_err(io::Error::other)?;
    let container = &written["spec"]["containers"][0];
    let words = container["command"].as_array().cloned().unwrap_or_default();
    let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
    let first = words.first().ok_or(io::ErrorKind::InvalidData)?;
    let logs = dir.join(format!("logs/kube-system_{}-{node}_0a1b/{}", pod.name, pod.name));
    fs::create_dir_all(&logs)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(logs.join("0.log"))?;
    let mut command = if first.starts_with('/') {
        exec::command(program, &words)
    } else {
        let port = container["livenessProbe"]["httpGet"]["port"].as_u64();
        let port = port.ok_or(io::ErrorKind::InvalidData)?;
        let mut command = Command::new(program);
        command
            .args(["drill", part::SUBCOMMAND])
            .arg(format!("127.0.0.1:{port}"))
            .arg(dir.join("moods").join(&pod.name));
        command
    };
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is for the drill, which takes it down.
        .process_group(0)
        .spawn()
}

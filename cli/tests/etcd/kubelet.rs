//! A stand-in for the kubelet: runs what the manifests in a directory say, as processes, again when they end, and stops what has none. The
//! command `listen ADDRESS` is no process: something listens there while the manifest is in place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Between two looks at the directory.
const LOOK: Duration = Duration::from_millis(100);

/// Ends, with all its processes, when it is dropped.
pub(crate) struct Kubelet {
    stop: Arc<AtomicBool>,
    /// Its processes are not asked to end.
    power_loss: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Of the manifests below `dir`, whose output goes to `dir/etcd.log`.
    pub(crate) fn start(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let power_loss = Arc::new(AtomicBool::new(false));
        let (dir, until, at_once) = (dir.to_owned(), Arc::clone(&stop), Arc::clone(&power_loss));
        let thread = thread::spawn(move || {
            let mut pods = BTreeMap::new();
            while !until.load(Ordering::Relaxed) {
                look(&dir, &mut pods);
                thread::park_timeout(LOOK);
            }
            if at_once.load(Ordering::Relaxed) {
                pods.values_mut().for_each(Pod::kill);
            }
            pods.values_mut().for_each(Pod::end);
        });
        Self {
            stop,
            power_loss,
            thread: Some(thread),
        }
    }
}

impl Kubelet {
    /// Its processes end in the middle of whatever they do.
    pub(crate) fn lose_power(self) {
        self.power_loss.store(true, Ordering::Relaxed);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ended = thread.join();
        }
    }
}

struct Pod {
    text: String,
    runs: Runs,
}

enum Runs {
    Process(Child),
    Listener(TcpListener),
}

impl Pod {
    fn start(text: String, log: &Path) -> Self {
        let pod: Value = serde_saphyr::from_str(&text).unwrap();
        let words = pod["spec"]["containers"][0]["command"].as_array().unwrap();
        let mut words = words.iter().map(|word| word.as_str().unwrap());
        let program = words.next().unwrap();
        if program == "listen" {
            let listener = TcpListener::bind(words.next().unwrap()).unwrap();
            listener.set_nonblocking(true).unwrap();
            return Self {
                text,
                runs: Runs::Listener(listener),
            };
        }
        let log = File::options().create(true).append(true).open(log).unwrap();
        let process = Command::new(program)
            .args(words)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            text,
            runs: Runs::Process(process),
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.runs {
            Runs::Process(process) => process.try_wait().unwrap().is_some(),
            Runs::Listener(listener) => {
                // Whoever has looked whether it is there has gone by now.
                while listener.accept().is_ok() {}
                false
            }
        }
    }

    fn kill(&mut self) {
        if let Runs::Process(process) = &mut self.runs {
            let _ended_already = process.kill();
        }
    }

    fn end(&mut self) {
        if let Runs::Process(process) = &mut self.runs {
            // It may have ended, and nobody else has its number before it is waited for.
            let _ended = kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM);
            let _status = process.wait();
        }
    }
}

fn look(dir: &Path, pods: &mut BTreeMap<PathBuf, Pod>) {
    let mut wanted = BTreeMap::new();
    for entry in fs::read_dir(dir.join("manifests")).unwrap() {
        let path = entry.unwrap().path();
        // One that is just being moved is not there.
        if let Ok(text) = fs::read_to_string(&path) {
            wanted.insert(path, text);
        }
    }
    pods.retain(|path, pod| {
        let stays = wanted.get(path) == Some(&pod.text) && !pod.has_ended();
        if !stays {
            pod.end();
        }
        stays
    });
    for (path, text) in wanted {
        pods.entry(path)
            .or_insert_with(|| Pod::start(text, &dir.join("etcd.log")));
    }
}

//! A real dockerd of a test's own, in a directory of its own; gone with all its processes and mounts when dropped.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// A statically linked busybox, for images that need nothing else.
const BUSYBOX: &str = "/bin/busybox";
/// dockerd starts, or ends, within this.
const DEADLINE: Duration = Duration::from_mins(1);

/// A dockerd that listens on a socket in its directory.
#[derive(Debug)]
pub(crate) struct Dockerd {
    dir: PathBuf,
    child: Option<Child>,
}

impl Dockerd {
    /// Starts one in `dir`. `Err` says what the machine lacks.
    pub(crate) async fn start(dir: &Path) -> Result<Self, String> {
        for program in [BUSYBOX, "dockerd", "docker"] {
            Command::new(program)
                .arg(if program == BUSYBOX { "true" } else { "--version" })
                .output()
                .map_err(|error| format!("{program}: {error}"))?;
        }
        fs::write(dir.join("daemon.json"), "{}").map_err(|error| error.to_string())?;
        let mut dockerd = Self {
            dir: dir.to_owned(),
            child: None,
        };
        dockerd.run().await?;
        Ok(dockerd)
    }

    /// Starts it (again), and waits until it answers.
    pub(crate) async fn run(&mut self) -> Result<(), String> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .map_err(|error| error.to_string())?;
        let path = |name: &str| self.dir.join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--config-file", &path("daemon.json")])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args([
                "--pidfile",
                &path("pid"),
                "-H",
                &format!("unix://{}", path("docker.sock")),
            ])
            .args(["--iptables=false", "--ip-masq=false", "--bridge=none"])
            .args(["--shutdown-timeout", "1"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("dockerd: {error}"))?;
        self.child = Some(child);
        let until = Instant::now() + DEADLINE;
        while self.try_docker(&["version"]).is_err() {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let last = log.lines().next_back().unwrap_or_default();
                return Err(format!("dockerd does not start here: {last}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Where it writes its stacks.
    pub(crate) fn stacks(&self) -> PathBuf {
        self.dir.join("exec")
    }

    /// The socket of its containerd.
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.stacks().join("containerd/containerd.sock")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its containerd's process.
    pub(crate) fn containerd_pid(&self) -> Option<u32> {
        let file = self.stacks().join("containerd/containerd.pid");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Kills it as `SIGKILL` does: containers live on.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        child.kill().unwrap();
        child.wait().unwrap();
        // A containerd of dockerd's own dies with it. The next dockerd takes one that is still dying for one that runs.
        if let Some(pid) = self.containerd_pid() {
            let dead = || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
            };
            let begun = Instant::now();
            while !dead() && begun.elapsed() < DEADLINE {
                nap();
            }
            let _gone = fs::remove_file(self.stacks().join("containerd/containerd.pid"));
        }
        let _gone = fs::remove_file(self.dir.join("pid"));
    }

    /// The processes that keep its containers.
    fn shims(&self) -> Vec<(u32, u32)> {
        let of_ours = self.dir.join("exec").display().to_string();
        processes(|pid, _| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("containerd-shim") && line.contains(&of_ours)
        })
    }

    /// Runs the client.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        self.try_docker(arguments).unwrap()
    }

    fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments)
            .output()
            .map_err(|error| format!("docker: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("docker {arguments:?}: {said}"))
    }

    /// Makes an image of busybox and `ballast` bytes that nothing shares. Without a name it dangles. Returns its id.
    pub(crate) fn image(&self, name: Option<&str>, ballast: usize) -> String {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "true", "false", "tail"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let mut bytes = vec![0; ballast];
        fs::File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut bytes))
            .unwrap();
        fs::write(root.path().join("ballast"), bytes).unwrap();
        let archive = Command::new("tar")
            .arg("-C")
            .arg(root.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        let mut import = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["import", "-"])
            .args(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(&archive.stdout).unwrap();
        let output = import.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The names of all images.
    pub(crate) fn images(&self) -> Vec<String> {
        let listed = self.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<_> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let signal = |pid: Option<u32>, signal| {
            if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
                let _gone = kill(Pid::from_raw(pid), signal);
            }
        };
        let containerd = self.containerd_pid();
        signal(containerd, Signal::SIGCONT);
        if let Some(mut child) = self.child.take() {
            signal(Some(child.id()), Signal::SIGCONT);
            // In order, so that it ends its containers and unmounts what is theirs.
            signal(Some(child.id()), Signal::SIGTERM);
            let begun = Instant::now();
            while begun.elapsed() < DEADLINE && matches!(child.try_wait(), Ok(None)) {
                nap();
            }
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        signal(self.containerd_pid(), Signal::SIGKILL);
        // Of a test that failed with containers running.
        for (pid, _) in self.shims() {
            for (child, _) in processes(|_, parent| parent == pid) {
                signal(Some(child), Signal::SIGKILL);
            }
            signal(Some(pid), Signal::SIGKILL);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().rev() {
            let at = line.split(' ').nth(1).unwrap_or_default();
            if Path::new(at).starts_with(&self.dir) && Path::new(at) != self.dir {
                let _gone = Command::new("umount").args(["-l", at]).output();
            }
        }
    }
}

/// Processes with their parents.
fn processes(wanted: impl Fn(u32, u32) -> bool) -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .filter(|(pid, parent)| wanted(*pid, *parent))
        .collect()
}

/// A moment, where nothing can be awaited.
fn nap() {
    let _elapsed = nix::poll::poll(&mut [], 50_u16);
}

/// Says why a test cannot run here; in CI it has to.
pub(crate) fn skipped(why: &str) {
    println!("SKIPPED: no dockerd: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "in CI this has to run: {why}"
    );
}

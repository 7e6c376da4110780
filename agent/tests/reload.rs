//! SIGHUP, to the real program.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blackstart_agent::local::answer::Answer;
use blackstart_agent::local::{Question, ask};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_mins(1);

/// Killed with its test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

fn write(dir: &Path, rest: &str) {
    let text = format!(
        "node: node-1\nstate_dir: {0}/state\nruntime_dir: {0}/run\ndry_run: true\nunits: []\ndisks: []\n{rest}\n",
        dir.display()
    );
    fs::write(dir.join("agent.yaml"), text).unwrap();
}

/// Waits until the running agent says that this is the setting in force.
async fn in_force(dir: &Path, setting: &str, value: &str) {
    let question = Question::Explain {
        condition: "Overload".to_owned(),
    };
    let waiting = async {
        loop {
            if let Ok(Answer::Explanation(told)) = ask(&dir.join("run/agent.sock"), &question).await
                && told
                    .thresholds
                    .iter()
                    .any(|at| at.setting == setting && at.value == value)
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

/// Waits until the log has these words.
async fn logged(log: &Path, words: &str) {
    let waiting = async {
        while !fs::read_to_string(log).unwrap().contains(words) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let found = timeout(SOON, waiting).await.is_ok();
    assert!(found, "{words} is not in {}", fs::read_to_string(log).unwrap());
}

#[tokio::test]
async fn a_hangup_takes_a_valid_file_over_and_leaves_a_wrong_one_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    write(dir.path(), "load: {raise_per_processor: 4}");
    let program = Command::new(env!("CARGO_BIN_EXE_blackstart-agent"))
        .args(["run", "--config"])
        .arg(dir.path().join("agent.yaml"))
        .stderr(fs::File::create(&log).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut agent = Agent(program);
    let setting = "load.raise_per_processor";
    in_force(dir.path(), setting, "4").await;

    write(dir.path(), "load: {raise_per_processor: 6}");
    agent.signal(Signal::SIGHUP);
    in_force(dir.path(), setting, "6").await;
    logged(&log, "load.raise_per_processor: 4 → 6").await;

    write(
        dir.path(),
        "load: {raise_per_processor: many}\nrestart: {window: soon}",
    );
    agent.signal(Signal::SIGHUP);
    logged(&log, "restart.window").await;
    in_force(dir.path(), setting, "6").await;

    write(
        dir.path(),
        "load: {raise_per_processor: 7}\nmetrics: {listen: 127.0.0.1:1}",
    );
    agent.signal(Signal::SIGHUP);
    logged(&log, "needs a restart").await;
    in_force(dir.path(), setting, "6").await;

    agent.signal(Signal::SIGTERM);
    let ended = tokio::task::spawn_blocking(move || agent.0.wait().map(|status| (status, agent)));
    let (status, _agent) = timeout(SOON, ended).await.unwrap().unwrap().unwrap();
    assert!(status.success(), "{status}");
}

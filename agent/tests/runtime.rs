//! A real dockerd and its containerd: hung, killed and restarted; containers that flap, die and run out of memory.

mod support;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::condition::{Condition, ConditionKind};
use blackstart_agent::config::{RuntimeEndpoint, RuntimeSettings, Settings};
use blackstart_agent::diagnose::containers::Containers;
use blackstart_agent::diagnose::runtime::Runtimes;
use blackstart_agent::host::{Host, HostError, Machine, UnitAction};
use blackstart_agent::ledger::Outcome;
use blackstart_agent::remedy::restart_container::{ContainerRules, restart_container};
use blackstart_agent::remedy::restart_runtime::{RuntimeRules, restart, restart_runtime};
use blackstart_agent::signal::{
    ActiveState, DiskSignal, ProbeOutcome, ProbeTarget, Runtime, RuntimeAnswer, Signal, UnitDetail,
    UnitSignal,
};
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::runtime::{call, watch};
use nix::sys::signal::{Signal as UnixSignal, kill};
use nix::unistd::Pid;
use support::docker::{Dockerd, skipped};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const UNIT: &str = "docker.service";

async fn dockerd() -> Option<(Dockerd, TempDir)> {
    // Paths of sockets are short: not in the target directory.
    let dir = tempfile::tempdir().expect("a directory");
    match Dockerd::start(dir.path()).await {
        Ok(dockerd) => Some((dockerd, dir)),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

fn settings(dockerd: &Dockerd) -> RuntimeSettings {
    let defaults = RuntimeSettings::default();
    RuntimeSettings {
        docker: RuntimeEndpoint {
            socket: dockerd.socket(),
            stacks: dockerd.stacks(),
            ..defaults.docker.clone()
        },
        containerd: RuntimeEndpoint {
            socket: dockerd.containerd_socket(),
            ..defaults.containerd.clone()
        },
        flapping_restarts: 3,
        ..defaults
    }
}

fn unit(main_pid: u32) -> UnitSignal {
    UnitSignal {
        unit: UNIT.to_owned(),
        active: if main_pid == 0 {
            ActiveState::Inactive
        } else {
            ActiveState::Active
        },
        sub: "running".to_owned(),
        main_pid,
        restarts: 0,
        result: "success".to_owned(),
        detail: UnitDetail::default(),
    }
}

fn send(pid: u32, signal: UnixSignal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
}

/// Stops a process. A thread that runs on another processor may still answer after `kill` has returned, so this returns
/// when each of its threads stands still.
async fn freeze(pid: u32) {
    send(pid, UnixSignal::SIGSTOP);
    let stands = timeout(MINUTE, async {
        while !stopped(pid) {
            tokio::task::yield_now().await;
        }
    });
    stands.await.expect("SIGSTOP stops it");
}

fn stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // A thread that has ended meanwhile answers nothing either.
        stat.rsplit(") ")
            .next()
            .is_none_or(|rest| rest.is_empty() || rest.starts_with('T'))
    })
}

/// The watcher and what diagnosis makes of it.
struct Watched {
    signals: mpsc::Receiver<Signal>,
    stop: CancellationToken,
    watching: tokio::task::JoinHandle<()>,
    runtimes: Runtimes,
    containers: Containers,
}

impl Watched {
    fn new(settings: &RuntimeSettings) -> Self {
        let (sender, signals) = mpsc::channel(64);
        let stop = CancellationToken::new();
        Self {
            signals,
            watching: tokio::spawn(watch(settings.clone(), sender, Beat::begin(), stop.clone())),
            stop,
            runtimes: Runtimes::new(settings.clone()),
            containers: Containers::new(settings),
        }
    }

    fn standing(&self) -> Vec<Condition> {
        let mut standing = self.runtimes.conditions();
        standing.extend(self.containers.conditions(Instant::now()));
        standing
    }

    /// Until what stands is as wanted.
    async fn until(&mut self, within: Duration, wanted: impl Fn(&[Condition]) -> bool) -> Vec<Condition> {
        let ended = timeout(within, async {
            loop {
                let standing = self.standing();
                if wanted(&standing) {
                    return standing;
                }
                let signal = self.signals.recv().await.expect("it watches");
                self.runtimes.observe(&signal, Instant::now());
                self.containers.observe(&signal, Instant::now());
            }
        })
        .await;
        ended.unwrap_or_else(|_| panic!("after {within:?} there stands {:?}", self.standing()))
    }

    /// Until the watcher has been answered once.
    async fn answered(&mut self) {
        let ended = timeout(MINUTE, async {
            loop {
                if let Signal::Runtime(seen) = self.signals.recv().await.expect("it watches")
                    && seen.runtime == Runtime::Docker
                    && seen.answer == RuntimeAnswer::Answered
                {
                    return;
                }
            }
        });
        ended.await.expect("docker answers");
    }

    async fn end(self) {
        self.stop.cancel();
        let ended = timeout(MINUTE, self.watching).await;
        ended.expect("it ends in time").expect("it did not break");
    }
}

const MINUTE: Duration = Duration::from_mins(1);

fn has(standing: &[Condition], kind: ConditionKind, subject: &str) -> bool {
    standing
        .iter()
        .any(|one| one.key.kind == kind && one.key.subject == subject)
}

#[tokio::test]
async fn a_stopped_dockerd_is_hung_within_15_s_and_well_again_when_it_goes_on() {
    let Some((dockerd, _dir)) = dockerd().await else {
        return;
    };
    let mut watched = Watched::new(&settings(&dockerd));
    watched
        .runtimes
        .observe(&Signal::Unit(unit(dockerd.pid())), Instant::now());
    watched.answered().await;
    freeze(dockerd.pid()).await;
    let standing = watched
        .until(Duration::from_secs(15), |standing| {
            has(standing, ConditionKind::RuntimeHung, UNIT)
        })
        .await;
    assert!(
        standing[0].evidence.contains("no answer within 3s"),
        "{standing:?}"
    );
    send(dockerd.pid(), UnixSignal::SIGCONT);
    watched.until(Duration::from_secs(30), <[_]>::is_empty).await;
    watched.end().await;
}

#[tokio::test]
async fn a_daemon_that_answers_a_ping_and_nothing_else_is_hung() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).await.unwrap();
            if request.starts_with(b"GET /_ping") {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
                stream.write_all(answer).await.unwrap();
            }
            held.push(stream);
        }
    });
    let mut ping = UnixStream::connect(&socket).await.unwrap();
    ping.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        .await
        .unwrap();
    let mut status = [0; 15];
    ping.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    let after = Duration::from_millis(500);
    assert_eq!(
        call(Runtime::Docker, &socket, after).await,
        Some(RuntimeAnswer::TimedOut { after })
    );
    serving.abort();
}

#[tokio::test]
async fn a_stopped_containerd_times_out_and_answers_again() {
    let Some((dockerd, _dir)) = dockerd().await else {
        return;
    };
    let socket = dockerd.containerd_socket();
    let ask = |deadline| call(Runtime::Containerd, &socket, deadline);
    assert_eq!(ask(MINUTE).await, Some(RuntimeAnswer::Answered));
    let pid = dockerd.containerd_pid().unwrap();
    freeze(pid).await;
    let after = Duration::from_secs(1);
    assert_eq!(ask(after).await, Some(RuntimeAnswer::TimedOut { after }));
    send(pid, UnixSignal::SIGCONT);
    assert_eq!(ask(MINUTE).await, Some(RuntimeAnswer::Answered));
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_out_of_memory_flapping_and_unhealthy_are_told_by_name() {
    let Some((dockerd, _dir)) = dockerd().await else {
        return;
    };
    dockerd.image(Some("shop:1"), 0);
    let mut watched = Watched::new(&settings(&dockerd));
    watched.answered().await;
    let run = |name: &str, options: &[&str], command: &[&str]| {
        let fixed = ["run", "-d", "--network", "none", "--name", name];
        dockerd.docker(&[&fixed, options, &["shop:1"], command].concat());
    };
    // Nobody wants this one up: it is not told.
    run("once", &["-m", "8m"], &["tail", "/dev/zero"]);
    run(
        "leaks",
        &["-m", "8m", "--restart", "on-failure:1"],
        &["tail", "/dev/zero"],
    );
    run("flaps", &["--restart", "always"], &["sh", "-c", "exit 3"]);
    run(
        "ill",
        &[
            "--restart",
            "always",
            "--health-cmd",
            "false",
            "--health-interval",
            "1s",
            "--health-retries",
            "1",
        ],
        &["sleep", "1000"],
    );
    let standing = watched
        .until(MINUTE, |standing| {
            has(standing, ConditionKind::ContainerOomKilled, "leaks")
                && has(standing, ConditionKind::ContainerFlapping, "flaps")
                && has(standing, ConditionKind::ContainerDied, "flaps")
                && has(standing, ConditionKind::ContainerUnhealthy, "ill")
        })
        .await;
    let evidence = |kind| {
        let found = standing.iter().find(|one| one.key.kind == kind).unwrap();
        found.evidence.as_str()
    };
    let killed = evidence(ConditionKind::ContainerOomKilled);
    assert!(killed.starts_with("container leaks (shop:1) ran out"), "{killed}");
    assert!(evidence(ConditionKind::ContainerFlapping).ends_with("with status 3"));
    assert!(
        !standing.iter().any(|one| one.key.subject == "once"),
        "{standing:?}"
    );

    // Its status is told as soon as its end is.
    watched
        .until(MINUTE, |standing| {
            standing.iter().any(|one| {
                one.key.kind == ConditionKind::ContainerOomKilled && one.evidence.ends_with("with status 137")
            })
        })
        .await;
    dockerd.docker(&["rm", "-f", "ill", "flaps"]);
    watched
        .until(MINUTE, |standing| {
            !has(standing, ConditionKind::ContainerUnhealthy, "ill")
        })
        .await;
    watched.end().await;
}

/// systemd, as far as it has one unit: a real dockerd.
struct OneUnit(Mutex<Dockerd>);

impl Host for OneUnit {
    async fn watch_units(&self, _: Vec<String>, _: mpsc::Sender<Signal>, _: CancellationToken) {}

    async fn unit_state(&self, name: &str) -> Result<UnitSignal, HostError> {
        if name != UNIT {
            return Err(HostError::Refused {
                action: "read",
                unit: name.to_owned(),
                why: "there is no such unit".to_owned(),
            });
        }
        Ok(unit(self.0.lock().await.pid()))
    }

    async fn unit_action(&self, name: &str, action: UnitAction) -> Result<(), HostError> {
        assert_eq!(name, UNIT);
        let mut dockerd = self.0.lock().await;
        match action {
            UnitAction::Kill | UnitAction::KillMain | UnitAction::Stop => dockerd.kill(),
            UnitAction::ResetFailed | UnitAction::Weigh(_) => {}
            UnitAction::Restart => dockerd.run().await.map_err(HostError::Unreachable)?,
        }
        Ok(())
    }

    async fn probe(&self, _: ProbeTarget, _: Duration) -> ProbeOutcome {
        ProbeOutcome::Refused
    }

    fn disk_usage(&self, _: &Path) -> io::Result<DiskSignal> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn machine(&self) -> Option<Machine> {
        Some(Machine::default())
    }

    async fn shutting_down(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_hung_dockerd_is_restarted_its_stacks_kept_and_its_containers_live_on() {
    let Some((dockerd, dir)) = dockerd().await else {
        return;
    };
    fs::write(dir.path().join("daemon.json"), r#"{"live-restore": true}"#).unwrap();
    send(dockerd.pid(), UnixSignal::SIGHUP);
    dockerd.image(Some("shop:1"), 0);
    let id = dockerd.docker(&["run", "-d", "--network", "none", "shop:1", "sleep", "1000"]);
    let started = |dockerd: &Dockerd| dockerd.docker(&["inspect", "-f", "{{.State.StartedAt}}", &id]);
    let began = started(&dockerd);
    let first = dockerd.pid();

    let mut all = Settings::for_node("n");
    all.runtime = settings(&dockerd);
    all.state_dir = dir.path().join("state");
    let rules = RuntimeRules::new(&all);
    let host = Arc::new(OneUnit(Mutex::new(dockerd)));
    let planned = restart_runtime(&*host, UNIT, &rules, true).await;
    assert!(
        matches!(&planned, Outcome::Succeeded { detail } if detail.contains("nothing was changed")),
        "{planned:?}"
    );
    assert_eq!(host.0.lock().await.pid(), first);

    let done = restart(&*host, UNIT, &rules).await.unwrap();
    assert_ne!(done.main_pid, first);
    let kept = done.stacks.unwrap();
    assert!(kept.starts_with(all.state_dir.join("dumps")));
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.contains("goroutine "), "{}", &text[..text.len().min(200)]);
    assert_eq!(
        started(&*host.0.lock().await),
        began,
        "the container was restarted too"
    );

    // One that is stopped writes none, and is restarted nevertheless.
    let second = done.main_pid;
    freeze(second).await;
    let outcome = restart_runtime(&*host, UNIT, &rules, false).await;
    assert!(
        matches!(&outcome, Outcome::Succeeded { detail } if detail.contains("no stacks were kept")),
        "{outcome:?}"
    );
    assert_ne!(host.0.lock().await.pid(), second);
    host.0.lock().await.docker(&["rm", "-f", &id]);
}

/// Fails its health check in its first life, unless `name` says that it always does.
fn unhealthy(dockerd: &Dockerd, name: &str, options: &[&str]) {
    let second = if name == "hopeless" {
        "false"
    } else {
        "[ -e /second ]"
    };
    let life =
        format!("if {second}; then : > /healthy; fi; : > /second; trap 'exit 0' TERM; sleep 100000 & wait");
    let fixed = [
        "run",
        "--detach",
        "--network=none",
        "--restart=always",
        "--health-cmd=[ -e /healthy ]",
        "--health-interval=1s",
        "--health-retries=1",
        "--name",
        name,
    ];
    dockerd.docker(&[&fixed, options, &["app:1", "sh", "-c", &life]].concat());
}

#[tokio::test]
async fn an_unhealthy_container_is_restarted_where_it_may_be_and_has_to_be_healthy_then() {
    let Some((dockerd, _dir)) = dockerd().await else {
        return;
    };
    dockerd.image(Some("app:1"), 0);
    let mut watched = Watched::new(&settings(&dockerd));
    unhealthy(&dockerd, "shop", &[]);
    unhealthy(&dockerd, "hopeless", &[]);
    unhealthy(&dockerd, "pods", &["--label=io.kubernetes.pod.uid=1"]);
    let ill = |name: &'static str| {
        move |standing: &[Condition]| has(standing, ConditionKind::ContainerUnhealthy, name)
    };
    let all = |standing: &[Condition]| {
        ["shop", "hopeless", "pods"]
            .iter()
            .all(|name| ill(name)(standing))
    };
    watched.until(MINUTE, all).await;
    let rules = |names: &[&str]| {
        let mut all = Settings::for_node("n");
        all.runtime = settings(&dockerd);
        all.runtime.may_restart_containers = names.iter().map(|name| (*name).to_owned()).collect();
        all.runtime.container_healthy_within = if names == ["hopeless"] {
            Duration::from_secs(3)
        } else {
            MINUTE
        };
        ContainerRules::new(&all)
    };
    let restart =
        async |name, names: &[&str], dry_run| match restart_container(name, &rules(names), dry_run).await {
            Outcome::Succeeded { detail } => format!("done: {detail}"),
            Outcome::Failed { detail } => format!("failed: {detail}"),
        };
    let starts = |name: &str| dockerd.docker(&["inspect", "-f", "{{.State.StartedAt}}", name]);
    let before = ["shop", "pods"].map(starts);
    for (name, names, dry_run, said) in [
        ("shop", &["other"][..], false, "failed: shop is not among"),
        ("pods", &["*"][..], false, "failed: pods is of a pod"),
        ("gone", &["*"][..], false, "failed: look at gone"),
        ("shop", &["*"][..], true, "done: dry run: would restart"),
    ] {
        let told = restart(name, names, dry_run).await;
        assert!(told.starts_with(said), "{told}");
    }
    assert_eq!(["shop", "pods"].map(starts), before, "nothing was touched");

    let told = restart("shop", &["shop"], false).await;
    assert!(told.contains("its own health check passes again"), "{told}");
    let standing = watched.until(MINUTE, |standing| !ill("shop")(standing)).await;
    assert!(ill("pods")(&standing), "the kubelet's matter");
    let told = restart("shop", &["shop"], false).await;
    assert!(told.contains("unhealthy no more"), "{told}");
    let told = restart("hopeless", &["hopeless"], false).await;
    assert!(told.starts_with("failed: restarted, and its health is"), "{told}");
    watched.end().await;
}

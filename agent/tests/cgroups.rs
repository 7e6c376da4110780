//! Real control groups, load and hanging processes, as this machine's kernel shows them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blackstart_agent::condition::ConditionKind;
use blackstart_agent::config::{LeakSettings, LoadSettings};
use blackstart_agent::diagnose::leak::Leaks;
use blackstart_agent::signal::{LoadSignal, Signal, UnitMemorySignal};
use blackstart_agent::watch::beat::Beat;
use blackstart_agent::watch::cgroup::{Cgroups, Root};
use blackstart_agent::watch::load::{self, Sources};
use nix::sys::signal::{Signal as UnixSignal, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;
/// Looks at a unit that leaks.
const STEPS: u32 = 24;
/// For what the kernel averages over a minute.
const LONG: Duration = Duration::from_mins(2);

fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "in CI this has to run"
    );
}

/// Groups of our own in whatever hierarchies this machine has; gone when dropped.
struct Groups {
    name: String,
    made: Vec<PathBuf>,
}

impl Groups {
    /// Makes a unit's group in each hierarchy, below one of our own.
    fn of_unit(test: &str, unit: &str) -> Result<Self, String> {
        let mut groups = Self {
            name: format!("blackstart-{test}-{}", std::process::id()),
            made: Vec::new(),
        };
        let mount = Path::new("/sys/fs/cgroup");
        let two = mount.join("cgroup.controllers").exists();
        let tops = if two {
            vec![mount.to_owned()]
        } else {
            ["memory", "cpuacct", "cpu,cpuacct"]
                .map(|one| mount.join(one))
                .into_iter()
                .filter(|top| top.join("cgroup.procs").exists() && !top.is_symlink())
                .collect()
        };
        for top in &tops {
            let mut dir = top.clone();
            for part in [groups.name.as_str(), "system.slice", unit] {
                if two {
                    // Children have only what their parent gives them.
                    fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu")
                        .map_err(|error| format!("controllers cannot be passed on: {error}"))?;
                }
                dir = dir.join(part);
                fs::create_dir(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
                groups.made.push(dir.clone());
            }
        }
        if groups.made.is_empty() {
            return Err("no control groups can be made here".to_owned());
        }
        Ok(groups)
    }

    fn root(&self) -> Root {
        Root {
            below: PathBuf::from(&self.name),
            ..Root::default()
        }
    }

    /// Makes the unit's groups anew.
    fn renew(&self) {
        for leaf in self.made.iter().filter(|dir| dir.ends_with_service()) {
            fs::remove_dir(leaf).unwrap();
            fs::create_dir(leaf).unwrap();
        }
    }

    /// Runs a script in the unit's groups.
    fn run(&self, script: &str) -> Running {
        let leaves = self.made.iter().filter(|dir| dir.ends_with_service());
        let join = "for group in \"$@\"; do echo $$ > \"$group/cgroup.procs\" || exit 1; done;";
        let child = Command::new("sh")
            .args(["-c", &format!("{join} {script}"), "sh"])
            .args(leaves)
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Running(child)
    }
}

trait EndsWithService {
    fn ends_with_service(&self) -> bool;
}

impl EndsWithService for PathBuf {
    fn ends_with_service(&self) -> bool {
        self.extension().is_some_and(|extension| extension == "service")
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            let _best_effort = fs::remove_dir(dir);
        }
    }
}

/// A process with all its children; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = killpg(Pid::from_raw(self.0.id().cast_signed()), UnixSignal::SIGKILL);
        let _gone = self.0.wait();
    }
}

/// Asks again until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = timeout(LONG, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waiting.await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn what_a_unit_holds_is_seen_without_its_page_cache() {
    let groups = match Groups::of_unit("hog", "hog.service") {
        Ok(groups) => groups,
        Err(why) => return skipped(&why),
    };
    let cgroups = Cgroups::mounted(&groups.root());
    let held = || {
        cgroups
            .unit("hog.service", Path::new("/proc"))
            .map_or(0, |unit| unit.bytes)
    };
    assert!(held() < MIB);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("cached");
    // 100 MiB of page cache, and a buffer of 64 MiB that nobody takes off its hands.
    let hog = groups.run(&format!(
        "dd if=/dev/zero of={} bs=1M count=100 2> /dev/null; dd if=/dev/zero bs=64M count=1 2> /dev/null | sleep 600",
        file.display()
    ));
    until("64 MiB are held", || held() >= 64 * MIB).await;
    assert!(held() < 90 * MIB, "{} bytes: the page cache is in it", held());
    let largest = cgroups.memory();
    assert_eq!(largest[0].cgroup.name, "hog.service", "{largest:?}");
    let life = cgroups.unit("hog.service", Path::new("/proc")).unwrap().life;
    assert_ne!(life, 0);
    drop(hog);
    until("it is free again", || held() < MIB).await;
}

/// The memory is real, the hours between two looks are not.
#[tokio::test]
async fn a_unit_that_only_ever_grows_is_told_as_a_leak_until_it_is_restarted() {
    let groups = match Groups::of_unit("leak", "leak.service") {
        Ok(groups) => groups,
        Err(why) => return skipped(&why),
    };
    let settings = LeakSettings {
        units: vec!["leak.service".to_owned()],
        window: Duration::from_hours(24),
        min_span: Duration::from_hours(6),
        min_growth: 16 * MIB,
        min_growth_percent: 50,
    };
    let cgroups = Cgroups::mounted(&groups.root());
    let look = || cgroups.unit("leak.service", Path::new("/proc"));
    let mut diagnosis = Leaks::new(settings);
    let begun = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("more");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Two megabytes more that it never gives back, for each line.
    let script = "exec python3 -c 'import sys; kept = [bytearray(b\"x\") * (2 << 20) for line in open(sys.argv[1])]; open(sys.argv[1])'";
    let leaks = groups.run(&format!("{script} {}", fifo.display()));
    let mut more = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    for step in 0..STEPS {
        let before = look().map_or(0, |unit| unit.bytes);
        writeln!(more, "more").unwrap();
        until("it has grown", || {
            look().is_some_and(|unit| unit.bytes > before + MIB)
        })
        .await;
        let units = look().into_iter().collect();
        let now = begun + Duration::from_hours(1) * step;
        diagnosis.observe(&Signal::UnitMemory(UnitMemorySignal { units }), now);
    }
    let standing = diagnosis.conditions();
    assert_eq!(standing.len(), 1, "{standing:?}");
    assert_eq!(standing[0].key.kind, ConditionKind::MemoryLeak);
    assert_eq!(standing[0].key.subject, "leak.service");
    assert!(standing[0].escalated && standing[0].evidence.contains("its memory grew from"));

    // Another process in its place, in a group of its own, as systemd makes it.
    drop(leaks);
    groups.renew();
    let _new = groups.run("exec sleep 600");
    until("the new one runs", || {
        look().is_some_and(|unit| unit.bytes < 16 * MIB)
    })
    .await;
    let units = look().into_iter().collect();
    let now = begun + Duration::from_hours(1) * STEPS;
    diagnosis.observe(&Signal::UnitMemory(UnitMemorySignal { units }), now);
    assert_eq!(diagnosis.conditions(), []);
}

#[tokio::test]
async fn busy_loops_are_told_as_load_with_the_group_that_runs_them() {
    let groups = match Groups::of_unit("busy", "busy.service") {
        Ok(groups) => groups,
        Err(why) => return skipped(&why),
    };
    let limits = LoadSettings {
        raise_per_processor: 1000,
        raise_cpu_some_percent: 1,
        ..LoadSettings::default()
    };
    if !Path::new("/proc/pressure/cpu").exists() {
        return skipped("this kernel has no PSI");
    }
    let sources = Sources {
        proc: "/proc".into(),
        cgroups: groups.root(),
    };
    // Twice as many as there are processors.
    let loops = std::thread::available_parallelism().map_or(4, |processors| processors.get() * 2);
    let _busy: Vec<_> = (0..loops).map(|_| groups.run("while :; do :; done")).collect();
    let seen = told(sources, limits, |seen| !seen.heaviest.is_empty()).await;
    assert!(seen.cpu_some_percent >= 1.0, "{seen:?}");
    assert_eq!(seen.heaviest[0].cgroup.name, "busy.service", "{seen:?}");
    assert!(seen.heaviest[0].percent > 10, "{seen:?}");
    assert!(seen.blocked.is_some(), "{seen:?}");
}

/// A process that waits for its `vfork` child to exec is in state D, and its child waits for a FIFO that nobody opens. So many of them are a
/// load by themselves: the kernel counts them, on a machine that does nothing else too.
#[tokio::test]
async fn processes_that_hang_in_the_kernel_are_named_with_where() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "import os, sys; os.posix_spawn('/bin/true', ['true'], {}, \
                  file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])";
    let limits = LoadSettings {
        raise_per_processor: 1,
        ..LoadSettings::default()
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut hanging = Vec::new();
    for _ in 0..processors * 8 {
        let hangs = Command::new("python3")
            .args(["-c", script])
            .arg(&fifo)
            .process_group(0)
            .spawn();
        let Ok(hangs) = hangs else {
            return skipped("there is no python3 to hang");
        };
        hanging.push(Running(hangs));
    }
    let pids: Vec<_> = hanging.iter().map(|running| running.0.id()).collect();
    let hangs =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") D "));
    until("they are in state D", || pids.iter().all(hangs)).await;
    let sources = Sources {
        proc: "/proc".into(),
        cgroups: Root::default(),
    };
    let named = |seen: &LoadSignal| {
        seen.hanging
            .iter()
            .find(|hanging| pids.contains(&hanging.pid))
            .cloned()
    };
    let seen = told(sources, limits, |seen| named(seen).is_some()).await;
    let hanging = named(&seen).unwrap();
    assert!(hanging.name.starts_with("python3"), "{hanging:?}");
    println!("{hanging}");
}

/// Waits until the load is told like that.
async fn told(sources: Sources, limits: LoadSettings, like: impl Fn(&LoadSignal) -> bool) -> LoadSignal {
    let stop = CancellationToken::new();
    let (send, mut signals) = mpsc::channel(8);
    let watching = tokio::spawn(load::watch(sources, limits, send, Beat::begin(), stop.clone()));
    let seen = timeout(LONG, async {
        loop {
            if let Signal::Load(seen) = signals.recv().await.unwrap()
                && like(&seen)
            {
                return seen;
            }
        }
    });
    let seen = seen.await.expect("never told");
    stop.cancel();
    watching.await.unwrap();
    seen
}

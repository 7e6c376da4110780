//! Finds out what the agent is and may do: the edge of [`super`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{getegid, geteuid, getpid};
use rustix::fs::{StatVfsMountFlags, statvfs};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Capabilities, Capability, Facts, KernelLog, Lack, Leave, Place, lacks};
use crate::config::{Settings, full_names};
use crate::host::Host;
use crate::reclaim::scope::split;
use crate::signal::ActiveState;
use crate::sys;
use crate::watch::kernel::KMSG;

/// Looked at so often while something is missing or cannot be told…
const AGAIN: Duration = Duration::from_mins(1);
/// …and so often otherwise.
const SELDOM: Duration = Duration::from_mins(10);
/// A disk that hangs does not answer: then it is tried again.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is missing, as last found; `None` before the first look.
pub type Found = Option<Arc<[Lack]>>;

/// Looks until `stop`, and tells what is missing: in the log once, and again when it changes.
pub async fn follow<H: Host>(
    host: Arc<H>,
    mut in_force: watch::Receiver<Arc<Settings>>,
    found: watch::Sender<Found>,
    stop: CancellationToken,
) {
    loop {
        let settings = Arc::clone(&in_force.borrow_and_update());
        let facts = tokio::select! {
            () = stop.cancelled() => return,
            facts = survey(&*host, settings) => facts,
        };
        let mut again = AGAIN;
        if let Some(facts) = facts {
            let lacks = lacks(&facts);
            let mut units = facts.units.iter().chain(&facts.others);
            let sure = units.all(|(_, leave)| *leave != Leave::Unknown);
            if lacks.is_empty() && sure {
                again = SELDOM;
            }
            found.send_if_modified(|last| {
                let changed = last.as_deref() != Some(&lacks[..]);
                if changed {
                    tell(&facts, &lacks);
                    *last = Some(lacks.into());
                }
                changed
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = in_force.changed() => {}
            () = sleep(again) => {}
        }
    }
}

fn tell(facts: &Facts, lacks: &[Lack]) {
    info!(
        uid = facts.uid,
        capabilities = facts.capabilities.names().join(" "),
        in_container = facts.in_container,
        lacks = lacks.len(),
        "privileges"
    );
    for lack in lacks {
        warn!(
            function = %lack.function,
            missing = %lack.missing,
            effect = lack.effect(),
            mend = lack.mend(),
            "not possible with these privileges"
        );
    }
}

/// One look. `None` if a disk does not answer.
pub async fn survey<H: Host>(host: &H, settings: Arc<Settings>) -> Option<Facts> {
    let (mut units, mut others) = (Vec::new(), Vec::new());
    for unit in &settings.units {
        let leave = host.may_manage(unit).await;
        units.push((unit.clone(), leave));
    }
    for unit in not_watched(&settings) {
        // Most nodes have one of the time services; the others are nobody's to allow.
        let seen = host.unit_state(unit).await;
        if seen.is_ok_and(|seen| seen.active != ActiveState::NotFound) {
            others.push((unit.clone(), host.may_manage(unit).await));
        }
    }
    let looking = tokio::task::spawn_blocking(move || look(&settings, units, others));
    timeout(DEADLINE, looking).await.ok()?.ok()
}

/// Units that are restarted for something else than their own state, as far as they are named in full.
fn not_watched(settings: &Settings) -> impl Iterator<Item = &String> {
    let others: BTreeSet<_> = settings
        .helpers()
        .chain(full_names(&settings.memory.may_restart))
        .filter(|unit| !settings.units.contains(unit))
        .collect();
    others.into_iter()
}

fn look(settings: &Settings, units: Vec<(String, Leave)>, others: Vec<(String, Leave)>) -> Facts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut roots: Vec<_> = settings
        .logs
        .globs
        .iter()
        .filter_map(|glob| fs::canonicalize(split(glob).0).ok())
        .collect();
    roots.sort();
    roots.dedup();
    let runtimes = [&settings.runtime.docker, &settings.runtime.containerd];
    Facts {
        uid: geteuid().as_raw(),
        groups: groups(&status),
        capabilities: capabilities(&status),
        units,
        others,
        logs: roots.into_iter().filter_map(|root| place(root).ok()).collect(),
        journal: place(settings.prune.journal.clone()).ok(),
        sockets: runtimes
            .into_iter()
            .filter_map(|runtime| place(fs::canonicalize(&runtime.socket).ok()?).ok())
            .collect(),
        kernel_log: kernel_log(capabilities(&status)),
        clock_refused: sys::clock_discipline().is_err(),
        triggers_restricted: fs::read_to_string("/proc/sys/kernel/osrelease")
            .is_ok_and(|release| triggers_restricted(&release)),
        in_container: in_container(),
    }
}

fn kernel_log(ours: Capabilities) -> KernelLog {
    let restricted =
        fs::read_to_string("/proc/sys/kernel/dmesg_restrict").is_ok_and(|text| text.trim() == "1");
    // Without the capability it is refused for that alone.
    if restricted && !ours.has(Capability::Syslog) {
        KernelLog::Restricted
    } else if refused(Path::new(KMSG)) {
        KernelLog::Refused
    } else {
        KernelLog::Open
    }
}

/// It is there, or was not given to us, and cannot be opened. One that is not there at all is nobody's to give.
fn refused(kmsg: &Path) -> bool {
    fs::File::open(kmsg).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        || (in_container() && !kmsg.exists())
}

fn place(path: PathBuf) -> io::Result<Place> {
    let seen = fs::metadata(&path)?;
    let mounted = statvfs(&path)?;
    Ok(Place {
        owner: seen.uid(),
        group: seen.gid(),
        mode: seen.permissions().mode(),
        read_only: mounted.f_flag.contains(StatVfsMountFlags::RDONLY),
        path,
    })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// All of them where the kernel does not tell: an attempt then shows it.
fn capabilities(status: &str) -> Capabilities {
    let mask = field(status, "CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    Capabilities(mask.unwrap_or(u64::MAX))
}

fn groups(status: &str) -> Vec<u32> {
    let more = field(status, "Groups:").unwrap_or_default();
    more.split_whitespace()
        .filter_map(|group| group.parse().ok())
        .chain([getegid().as_raw()])
        .collect()
}

/// From 5.13 on pressure files are for everybody, and triggers for `CAP_SYS_RESOURCE`; from 6.4 on slow triggers are for everybody.
fn triggers_restricted(release: &str) -> bool {
    let mut numbers = release
        .split(|char: char| !char.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => ((5, 13)..(6, 4)).contains(&(major, minor)),
        _ => false,
    }
}

/// The first process of this process namespace has another root directory than we do, or is ourselves. A service of the node has the
/// root of the node's init, also when systemd gives it a view of its own of that. What cannot be seen says no.
fn in_container() -> bool {
    if getpid().as_raw() == 1 {
        return true;
    }
    let root = |path: &str| fs::metadata(Path::new(path)).map(|seen| (seen.dev(), seen.ino()));
    match (root("/"), root("/proc/1/root/")) {
        (Ok(ours), Ok(inits)) => ours != inits,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_who_we_are() {
        let status = "Name:\tx\nGroups:\t4 27 \nCapEff:\t0000000400080022\n";
        let capabilities = capabilities(status);
        assert_eq!(
            capabilities.names(),
            ["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_PTRACE", "CAP_SYSLOG"]
        );
        assert!(groups(status).starts_with(&[4, 27]));
    }

    #[test]
    fn kernels_between_5_13_and_6_4_restrict_triggers() {
        for (release, restricted) in [
            ("3.10.0-1160.el7.x86_64", false),
            ("5.10.0-30-amd64", false),
            ("5.15.0-130-generic", true),
            ("6.1.0-38-amd64", true),
            ("6.4.0", false),
            ("6.12.3", false),
        ] {
            assert_eq!(triggers_restricted(release), restricted, "{release}");
        }
    }
}

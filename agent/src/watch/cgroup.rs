//! Control groups as the kernel shows them → who takes memory and processor time.
//!
//! ```text
//!  version 2:   /sys/fs/cgroup/{system.slice,kubepods.slice,…}            memory.stat, cpu.stat
//!  version 1:   /sys/fs/cgroup/memory/{system.slice,kubepods,docker,…}    memory.stat
//!               /sys/fs/cgroup/cpuacct/…                                  cpuacct.usage
//!  hybrid:      as version 1, with an almost empty version 2 at unified
//! ```
//!
//! Units, pods and containers are told apart by their names. A look reads a file of each of them, so nobody looks while all
//! is well; only the daemons of [`super::unit_memory`] are read now and then.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::signal::{Cgroup, CgroupKind, CgroupUse, UnitMemory};

/// No more groups are looked at than this: a node has a few hundred.
const MOST: usize = 2048;
/// Slices within slices: `user.slice/user-1000.slice`.
const DEPTH: usize = 4;
/// No more processes of a unit are added up where it has no memory controller.
const MOST_PROCESSES: usize = 512;
/// The kubelet names pods here: `NAMESPACE_NAME_UID`.
const POD_LOGS: &str = "/var/log/pods";

/// Where control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Mostly `/sys/fs/cgroup`.
    pub mount: PathBuf,
    /// Only what is below this group is looked at; empty for all.
    pub below: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self {
            mount: "/sys/fs/cgroup".into(),
            below: PathBuf::new(),
        }
    }
}

/// Which of the kernel's two interfaces has a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller; also on a hybrid machine.
    One,
    /// One for all.
    Two,
}

#[derive(Debug, Clone)]
struct Tree {
    top: PathBuf,
    version: Version,
}

/// The hierarchies that are mounted.
#[derive(Debug, Clone)]
pub struct Cgroups {
    memory: Option<Tree>,
    cpu: Option<Tree>,
    /// The hierarchy in which systemd keeps every unit, with controllers or without.
    units: Option<PathBuf>,
}

impl Cgroups {
    /// Looks what is mounted.
    pub fn mounted(root: &Root) -> Self {
        let Root { mount, below } = root;
        let two = fs::read_to_string(mount.join("cgroup.controllers")).ok();
        let has = |controller: &str| {
            two.as_deref()
                .is_some_and(|all| all.split_ascii_whitespace().any(|has| has == controller))
        };
        let tree = |controller: &str, ones: &[&str], file: &str| -> Option<Tree> {
            let one = ones
                .iter()
                .map(|one| mount.join(one))
                .find(|one| one.join(file).exists());
            let (top, version) = match one {
                Some(one) => (one, Version::One),
                None if has(controller) => (mount.clone(), Version::Two),
                None => return None,
            };
            Some(Tree {
                top: top.join(below),
                version,
            })
        };
        let units = if two.is_some() {
            mount.clone()
        } else {
            mount.join("systemd")
        };
        Self {
            memory: tree("memory", &["memory"], "memory.stat"),
            cpu: tree("cpu", &["cpuacct", "cpu,cpuacct"], "cpuacct.usage"),
            units: units.is_dir().then(|| units.join(below)),
        }
    }

    /// Which interface sets weights of processor time; `None` without either.
    pub fn weights(&self) -> Option<Version> {
        self.cpu.as_ref().map(|cpu| cpu.version)
    }

    /// Every unit, pod and container with the memory that it holds, the largest first.
    pub fn memory(&self) -> Vec<CgroupUse> {
        self.memory_of(|_| true)
    }

    /// The same of some of them; no file of the others is read.
    pub fn memory_of(&self, wanted: impl Fn(&Cgroup) -> bool) -> Vec<CgroupUse> {
        let Some(tree) = &self.memory else {
            return Vec::new();
        };
        let mut all: Vec<_> = groups(&tree.top)
            .into_iter()
            .filter(|(cgroup, _)| wanted(cgroup))
            .filter_map(|(cgroup, path)| {
                let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
                let Stat { anonymous, shared } = stat_of(&stat, tree.version)?;
                Some(CgroupUse {
                    cgroup,
                    bytes: anonymous.saturating_add(shared),
                })
            })
            .collect();
        all.sort_by(|one, other| {
            other
                .bytes
                .cmp(&one.bytes)
                .then_with(|| one.cgroup.cmp(&other.cgroup))
        });
        all
    }

    /// The processor time that every unit, pod and container has taken so far.
    pub fn cpu(&self) -> BTreeMap<Cgroup, Duration> {
        let Some(tree) = &self.cpu else {
            return BTreeMap::new();
        };
        groups(&tree.top)
            .into_iter()
            .filter_map(|(cgroup, path)| Some((cgroup, cpu_of(&path, tree.version)?)))
            .collect()
    }

    /// A unit's anonymous memory; from its processes where its group does not count memory (systemd before 238).
    /// `None` when it does not run.
    pub fn unit(&self, unit: &str, proc: &Path) -> Option<UnitMemory> {
        let counted = self.memory.as_ref().and_then(|tree| {
            let path = find_unit(&tree.top, unit)?;
            let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
            Some((stat_of(&stat, tree.version)?.anonymous, path))
        });
        let (bytes, path) = if let Some(counted) = counted {
            counted
        } else {
            let path = find_unit(self.units.as_deref()?, unit)?;
            (processes(&path, proc)?, path)
        };
        Some(UnitMemory {
            unit: unit.to_owned(),
            bytes,
            life: fs::metadata(path).ok()?.ino(),
        })
    }
}

/// Puts the names that people know in place of pods' uids, as far as the kubelet has written them down.
pub(super) fn name_pods<'a>(cgroups: impl Iterator<Item = &'a mut Cgroup>) {
    let mut pods = cgroups.filter(|cgroup| cgroup.kind == CgroupKind::Pod).peekable();
    if pods.peek().is_none() {
        return;
    }
    let names: HashMap<String, String> = children(Path::new(POD_LOGS))
        .into_iter()
        .filter_map(|(entry, _)| pod_of(&entry))
        .collect();
    for pod in pods {
        if let Some(name) = names.get(&pod.name) {
            pod.name.clone_from(name);
        }
    }
}

/// `NAMESPACE_NAME_UID` → (uid, `namespace/name`).
fn pod_of(entry: &str) -> Option<(String, String)> {
    let mut parts = entry.splitn(3, '_');
    let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    Some((uid.to_owned(), format!("{namespace}/{name}")))
}

/// Every unit, pod and container below `top`, with its directory.
fn groups(top: &Path) -> Vec<(Cgroup, PathBuf)> {
    let mut found = Vec::new();
    descend(top, DEPTH, &mut found);
    found
}

fn descend(dir: &Path, depth: usize, found: &mut Vec<(Cgroup, PathBuf)>) {
    for (name, path) in children(dir) {
        if found.len() >= MOST {
            return;
        }
        match named(&name) {
            Named::Group(cgroup) => found.push((cgroup, path)),
            Named::Parent if depth > 0 => descend(&path, depth - 1, found),
            Named::Parent | Named::Nothing => {}
        }
    }
}

/// What a group's name says.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Group(Cgroup),
    /// Holds others.
    Parent,
    Nothing,
}

fn named(name: &str) -> Named {
    let group = |kind, name: &str| {
        Named::Group(Cgroup {
            kind,
            name: name.to_owned(),
        })
    };
    // kubepods/burstable/podUID by cgroupfs, kubepods-burstable-podU_I_D.slice by systemd.
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods-") => slice.rsplit_once("-pod").map(|(_, uid)| uid),
        Some(_) => None,
        None => name.strip_prefix("pod"),
    };
    if let Some(uid) = uid.filter(|uid| uid.len() >= 32) {
        return group(CgroupKind::Pod, &uid.replace('_', "-"));
    }
    if let Some(scope) = name.strip_suffix(".scope") {
        return match scope.rsplit_once('-') {
            Some((_, id)) if is_container(id) => group(CgroupKind::Container, id),
            _ => group(CgroupKind::Unit, name),
        };
    }
    if is_container(name) {
        return group(CgroupKind::Container, name);
    }
    if name.strip_suffix(".service").is_some() {
        return group(CgroupKind::Unit, name);
    }
    if name.strip_suffix(".slice").is_some()
        || matches!(name, "kubepods" | "burstable" | "besteffort" | "docker")
    {
        return Named::Parent;
    }
    Named::Nothing
}

fn is_container(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A unit's directory: in `system.slice`, in a slice of its own, or at the top.
fn find_unit(top: &Path, unit: &str) -> Option<PathBuf> {
    let usual = top.join("system.slice").join(unit);
    if usual.is_dir() {
        return Some(usual);
    }
    let at_top = top.join(unit);
    if at_top.is_dir() {
        return Some(at_top);
    }
    children(top)
        .into_iter()
        .filter(|(name, _)| name.strip_suffix(".slice").is_some() && !name.starts_with("kubepods"))
        .map(|(_, path)| path.join(unit))
        .find(|path| path.is_dir())
}

/// The directories in a directory.
fn children(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// What cannot be dropped of a group's memory, bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    anonymous: u64,
    /// Shared memory and files on tmpfs.
    shared: u64,
}

/// `memory.stat`: `anon` and `shmem`; in version 1 `total_rss` and `total_shmem`, those below included.
pub(crate) fn stat_of(text: &str, version: Version) -> Option<Stat> {
    let of = |key: &str| -> Option<u64> {
        let rest = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        rest.trim().parse().ok()
    };
    let (anonymous, shared) = match version {
        Version::One => ("total_rss", "total_shmem"),
        Version::Two => ("anon", "shmem"),
    };
    Some(Stat {
        anonymous: of(anonymous)?,
        // Kernels before 4.4 do not tell it in version 1.
        shared: of(shared).unwrap_or_default(),
    })
}

/// `cpuacct.usage` in nanoseconds, or `usage_usec` of `cpu.stat`.
fn cpu_of(group: &Path, version: Version) -> Option<Duration> {
    match version {
        Version::One => {
            let text = fs::read_to_string(group.join("cpuacct.usage")).ok()?;
            Some(Duration::from_nanos(text.trim().parse().ok()?))
        }
        Version::Two => {
            let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            Some(Duration::from_micros(usage.trim().parse().ok()?))
        }
    }
}

/// Anonymous memory of a group's processes, bytes; `None` when there are none.
fn processes(group: &Path, proc: &Path) -> Option<u64> {
    let pids = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let each = pids.lines().take(MOST_PROCESSES).filter_map(|pid| {
        let status = fs::read_to_string(proc.join(pid).join("status")).ok()?;
        rss_anon(&status)
    });
    each.fold(None, |sum: Option<u64>, bytes| {
        Some(sum.unwrap_or_default().saturating_add(bytes))
    })
}

/// `RssAnon` of `/proc/PID/status`, or `VmRSS` on kernels before 4.5; bytes.
pub(crate) fn rss_anon(status: &str) -> Option<u64> {
    let of = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    of("RssAnon:").or_else(|| of("VmRSS:"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0f6e2a6e-8b1c-4a5d-9d8e-7b2f5c1a3e4d";

    fn group(kind: CgroupKind, name: &str) -> Named {
        Named::Group(Cgroup {
            kind,
            name: name.into(),
        })
    }

    #[test]
    fn units_pods_and_containers_are_told_apart_by_either_driver() {
        let id = "a".repeat(64);
        let by_systemd = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        for (name, expected) in [
            ("docker.service", group(CgroupKind::Unit, "docker.service")),
            ("session-3.scope", group(CgroupKind::Unit, "session-3.scope")),
            (&format!("pod{UID}"), group(CgroupKind::Pod, UID)),
            (&by_systemd, group(CgroupKind::Pod, UID)),
            (&format!("docker-{id}.scope"), group(CgroupKind::Container, &id)),
            (&id, group(CgroupKind::Container, &id)),
            ("kubepods-besteffort.slice", Named::Parent),
            ("system.slice", Named::Parent),
            ("burstable", Named::Parent),
            ("podman", Named::Nothing),
        ] {
            assert_eq!(named(name), expected, "{name}");
        }
    }

    #[test]
    fn page_cache_is_not_counted_in_either_version() {
        let one =
            "cache 900\nrss 1\nshmem 2\ntotal_cache 900\ntotal_rss 4096\ntotal_rss_huge 7\ntotal_shmem 10\n";
        let two = "anon 4096\nfile 900\nshmem 10\nanon_thp 7\n";
        let expected = Some(Stat {
            anonymous: 4096,
            shared: 10,
        });
        assert_eq!(stat_of(one, Version::One), expected);
        assert_eq!(stat_of(two, Version::Two), expected);
        assert_eq!(stat_of("file 1\n", Version::Two), None);
    }

    #[test]
    fn a_machine_of_version_two_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root {
            mount: dir.path().to_owned(),
            below: PathBuf::new(),
        };
        fs::write(dir.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
        for (path, anon, usec) in [("system.slice/kubelet.service", 10, 5), (&pod, 20, 7)] {
            let group = dir.path().join(path);
            fs::create_dir_all(&group).unwrap();
            fs::write(
                group.join("memory.stat"),
                format!("anon {anon}\nfile 99\nshmem 1\n"),
            )
            .unwrap();
            fs::write(
                group.join("cpu.stat"),
                format!("usage_usec {usec}\nuser_usec 1\n"),
            )
            .unwrap();
        }
        let cgroups = Cgroups::mounted(&root);
        assert_eq!(cgroups.weights(), Some(Version::Two));
        let told: Vec<_> = cgroups.memory().iter().map(ToString::to_string).collect();
        assert_eq!(told, [format!("pod {UID} 21 B"), "kubelet.service 11 B".into()]);
        assert_eq!(
            cgroups.cpu().values().sum::<Duration>(),
            Duration::from_micros(12)
        );
        let unit = cgroups.unit("kubelet.service", Path::new("/proc")).unwrap();
        assert_eq!(unit.bytes, 10);
        assert_eq!(cgroups.unit("docker.service", Path::new("/proc")), None);
    }

    #[test]
    fn without_a_memory_controller_a_unit_is_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("systemd/system.slice/a.service");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let cgroups = Cgroups::mounted(&Root {
            mount: dir.path().to_owned(),
            below: PathBuf::new(),
        });
        assert_eq!(cgroups.weights(), None);
        assert!(cgroups.unit("a.service", Path::new("/proc")).unwrap().bytes > 0);
    }

    #[test]
    fn the_kubelet_s_directories_name_pods() {
        assert_eq!(
            pod_of(&format!("kube-system_coredns-1_{UID}")),
            Some((UID.to_owned(), "kube-system/coredns-1".to_owned()))
        );
        assert_eq!(pod_of("a_b"), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,100}") {
            let _ = (named(&text), stat_of(&text, Version::One), rss_anon(&text), pod_of(&text));
        }
    }
}

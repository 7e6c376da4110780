//! Does a process keep the wall clock that is no configured time service's: one in a container, one that a supervisor started, one for a
//! hardware clock. A second service beside it would fight with it over the clock.

use std::fs;
use std::path::Path;

use crate::signal::Keeper;

/// Processes whose work is to keep a clock.
const NAMES: [&str; 7] = [
    "chronyd",
    "ntpd",
    "ntp-daemon",
    "openntpd",
    "systemd-timesyn",
    "phc2sys",
    "timemaster",
];

/// The first such process whose cgroup is none of the `services`'. A process that ends meanwhile is none.
pub(super) fn other(proc: &Path, services: &[String]) -> Option<Keeper> {
    let processes = fs::read_dir(proc).ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
        let name = read("comm")?.trim().to_owned();
        if !NAMES.contains(&name.as_str()) {
            return None;
        }
        let cgroup = read("cgroup")?;
        let of_a_service = cgroup
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .flat_map(|path| path.split('/'))
            .any(|part| services.iter().any(|service| service == part));
        (!of_a_service).then_some(Keeper { pid, name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_its_own_unit_is_no_other_and_one_in_a_container_is() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: u32, name: &str, cgroup: &str| {
            let dir = dir.path().join(pid.to_string());
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
            fs::write(dir.join("cgroup"), cgroup).unwrap();
        };
        let services = ["chronyd.service".to_owned()];
        let other = || other(dir.path(), &services);
        process(1, "systemd", "0::/init.scope\n");
        process(
            7,
            "chronyd",
            "4:cpu:/\n1:name=systemd:/system.slice/chronyd.service\n0::/\n",
        );
        assert_eq!(other(), None);
        process(9, "ntpd", "0::/system.slice/docker-4f1c.scope\n");
        let found = Keeper {
            pid: 9,
            name: "ntpd".to_owned(),
        };
        assert_eq!(other(), Some(found));
    }
}

//! Disks: room, inodes, writable; and etcd's data.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::Finding;
use crate::bytes::Bytes;
use crate::config::{DiskSettings, GateRole, Settings};
use crate::diagnose::disk::{CRITICAL_PERCENT, bytes_percent, inodes_percent};
use crate::host::Host;
use crate::signal::DiskSignal;

/// What a kubelet writes to, where it is.
const KUBELET_WRITES: [&str; 2] = ["/var/lib/kubelet", "/var/log/pods"];

pub(super) fn check<H: Host>(settings: &Settings, host: &H) -> Vec<Finding> {
    let mut findings: Vec<_> = settings
        .disks
        .iter()
        .map(|disk| room(disk, host.disk_usage(&disk.mount_point)))
        .collect();
    findings.extend(writable(settings));
    if settings.gate.role == GateRole::ControlPlane {
        findings.extend(settings.preflight.etcd_data.iter().map(|path| etcd(path)));
    }
    findings
}

fn room(disk: &DiskSettings, usage: io::Result<DiskSignal>) -> Finding {
    const CHECK: &str = "disk";
    let subject = disk.mount_point.display().to_string();
    let usage = match usage {
        Ok(usage) => usage,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::warning(
                CHECK,
                subject,
                "there is no such mount point",
                "mend disks in the configuration",
            );
        }
        Err(error) => {
            return Finding::blocker(CHECK, subject, error.to_string(), "mount | grep; dmesg -T | tail");
        }
    };
    let (bytes, inodes) = (bytes_percent(&usage), inodes_percent(&usage));
    let detail = format!(
        "{bytes}% used, {} left; {inodes}% of the inodes used",
        Bytes(usage.bytes_available)
    );
    let advice = "blackstart-agent explain DiskPressure";
    let most = bytes.max(inodes);
    if most >= CRITICAL_PERCENT {
        Finding::blocker(CHECK, subject, detail, advice)
    } else if most >= disk.raise_percent {
        Finding::warning(CHECK, subject, detail, advice)
    } else {
        Finding::ok(CHECK, subject, detail)
    }
}

/// What has to be written to and is mounted read-only, as a kernel leaves a file system after an error.
fn writable(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "read-only";
    let mut paths: BTreeSet<PathBuf> = KUBELET_WRITES.map(PathBuf::from).into();
    paths.extend(settings.disks.iter().map(|disk| disk.mount_point.clone()));
    paths.insert(settings.state_dir.clone());
    if settings.gate.role == GateRole::ControlPlane {
        paths.extend(settings.preflight.etcd_data.iter().cloned());
    }
    let mut findings: Vec<_> = paths
        .iter()
        .filter(|path| statvfs(*path).is_ok_and(|seen| seen.f_flag.contains(StatVfsMountFlags::RDONLY)))
        .map(|path| {
            Finding::blocker(
                CHECK,
                path.display().to_string(),
                "it is on a file system that is mounted read-only",
                "blackstart-agent explain FilesystemReadOnly",
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "",
            "nothing that is written to is mounted read-only",
        ));
    }
    findings
}

/// A master's etcd: there, readable, and not empty.
fn etcd(path: &Path) -> Finding {
    const CHECK: &str = "etcd-data";
    let subject = path.display().to_string();
    for directory in ["member/snap", "member/wal"] {
        let listed = fs::read_dir(path.join(directory)).and_then(|mut entries| entries.next().transpose());
        let (what, advice) = match listed {
            Ok(Some(_)) => continue,
            Ok(None) => (
                format!("{directory} is empty"),
                "restore a snapshot, or remove this member and join it anew",
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (
                format!("there is no {directory}"),
                "mount its disk; if etcd runs elsewhere: preflight: {etcd_data: []}",
            ),
            Err(error) => (
                format!("{directory} cannot be read: {error}"),
                "dmesg -T | tail; blackstart-agent explain FilesystemCorrupt",
            ),
        };
        return Finding::blocker(CHECK, subject, what, advice);
    }
    Finding::ok(CHECK, subject, "it can be read")
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn bytes_or_inodes_over_the_limit_are_told_by_how_far_they_are() {
        let disk = DiskSettings::at("/var");
        for (bytes_free, inodes_free, state) in [
            (50, 50, State::Ok),
            (15, 50, State::Warning),
            (50, 15, State::Warning),
            (5, 50, State::Blocker),
            (50, 0, State::Blocker),
        ] {
            let usage = DiskSignal {
                mount_point: "/var".into(),
                bytes_total: 100,
                bytes_available: bytes_free,
                inodes_total: 100,
                inodes_free,
                time_to_full: None,
            };
            assert_eq!(room(&disk, Ok(usage)).state, state, "{bytes_free} {inodes_free}");
        }
        let broken = room(&disk, Err(io::Error::from_raw_os_error(5)));
        assert_eq!(broken.state, State::Blocker);
    }
}

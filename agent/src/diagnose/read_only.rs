//! [`Signal::Mounts`] → `FilesystemReadOnly` of a mount point. Pure.
//!
//! Raised when the kernel gave the file system up, when `/etc/fstab` has it read-write, or when it could be written before: what was always
//! mounted read-only is meant so. Cleared when it can be written again, or is mounted no more. What the kernel's log says of the
//! device ([`super::kernel`]) stands beside it, and longer: until a reboot.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::signal::{MountState, Signal, Writable};

/// All watched mount points.
#[derive(Debug, Clone, Default)]
pub struct ReadOnly {
    mounts: BTreeMap<PathBuf, Mount>,
}

#[derive(Debug, Clone)]
struct Mount {
    state: MountState,
    was_writable: bool,
    since: Instant,
}

impl ReadOnly {
    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Mounts(seen) = signal else { return };
        let mut before = std::mem::take(&mut self.mounts);
        for state in &seen.mounts {
            let last = before.remove(&state.mount_point);
            let was_writable = last.as_ref().is_some_and(|last| last.was_writable);
            let stood = last.filter(|last| last.state.writable != Writable::Yes);
            self.mounts.insert(
                state.mount_point.clone(),
                Mount {
                    state: state.clone(),
                    was_writable: was_writable || state.writable == Writable::Yes,
                    since: stood.map_or(now, |stood| stood.since),
                },
            );
        }
    }

    /// What stands.
    pub fn conditions(&self) -> Vec<Condition> {
        self.mounts
            .values()
            .filter_map(|mount| Some((mount, mount.why()?)))
            .map(|(mount, why)| Condition {
                key: ConditionKey {
                    kind: ConditionKind::FilesystemReadOnly,
                    subject: mount.state.mount_point.display().to_string(),
                },
                severity: Severity::Critical,
                since: mount.since,
                evidence: format!("{} cannot be written: {why}", mount.state.device),
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            })
            .collect()
    }
}

impl Mount {
    fn why(&self) -> Option<String> {
        match &self.state.writable {
            Writable::Yes => None,
            Writable::Withdrawn { why } => Some(format!("the kernel gave the file system up ({why})")),
            Writable::Mounted { meant: true } => {
                Some("it is mounted read-only, and read-write in /etc/fstab".to_owned())
            }
            Writable::Mounted { meant: false } => self
                .was_writable
                .then(|| "it is mounted read-only, and was read-write before".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signal::MountsSignal;

    fn seen(writable: &[Writable]) -> Signal {
        Signal::Mounts(MountsSignal {
            mounts: writable
                .iter()
                .map(|writable| MountState {
                    mount_point: "/data".into(),
                    device: "/dev/sdb1".into(),
                    writable: writable.clone(),
                })
                .collect(),
        })
    }

    #[test]
    fn raised_against_what_was_meant_or_seen_and_cleared_when_it_can_be_written() {
        let (yes, mounted) = (Writable::Yes, |meant| Writable::Mounted { meant });
        let withdrawn = Writable::Withdrawn { why: "x".into() };
        let mut now = Instant::now();
        let mut disks = ReadOnly::default();
        let mut stands = |writable: &[Writable]| {
            now += Duration::from_secs(2);
            disks.observe(&seen(writable), now);
            disks.conditions().first().map(|condition| now - condition.since)
        };
        assert_eq!(stands(&[mounted(false)]), None, "meant so");
        assert!(stands(&[mounted(true)]).is_some(), "not by fstab");
        assert!(stands(&[withdrawn]).is_some(), "by the kernel");
        assert_eq!(stands(&[yes]), None);
        assert_eq!(stands(&[mounted(false)]), Some(Duration::ZERO), "it was writable");
        assert_eq!(stands(&[mounted(false)]), Some(Duration::from_secs(2)));
        assert_eq!(stands(&[]), None, "mounted no more");
    }
}

//! [`Signal::Kernel`] → what the kernel's words mean for the node. Pure.
//!
//! The kernel says that something happened, never that it is over. Damage ([`Stands::UntilReboot`]) stands until the agent
//! starts in another boot: nothing but a repair mends it. The rest ([`Stands::While`]) stands while it goes on, and is cleared when the kernel
//! has been silent about it for [`QUIET`].
//!
//! None of these has a local remedy: the condition is the request to look, and with it to cordon the node.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::memory::largest_groups;
use crate::condition::Severity::{Critical, Warning};
use crate::condition::{Condition, ConditionKey, ConditionKind as Kind, Severity};
use crate::signal::{KernelEvent, Signal};

/// Silence for so long clears what stands while it goes on.
pub const QUIET: Duration = Duration::from_mins(10);
/// So many OOM kills within [`OOM_WINDOW`] are a storm. One kill of a container at its limit is that container's matter.
pub const OOM_KILLS: usize = 5;
/// See [`OOM_KILLS`].
pub const OOM_WINDOW: Duration = Duration::from_mins(2);
/// No more subjects of a kind are told apart than this; a flood of names must not fill the memory.
const MAX_SUBJECTS: usize = 32;

/// How long a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    UntilReboot,
    While,
}

/// What the kernel has said.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    findings: BTreeMap<ConditionKey, Finding>,
    /// When the last kills in cgroups were, the oldest first.
    kills: Vec<Instant>,
    /// Who held most memory when it was last short, and when that was.
    largest: Option<(String, Instant)>,
}

#[derive(Debug, Clone)]
struct Finding {
    stands: Stands,
    severity: Severity,
    since: Instant,
    last: Instant,
    count: u64,
    words: String,
}

impl Kernel {
    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        if let Signal::Memory(memory) = signal
            && let Some(groups) = memory.cgroups.as_deref().filter(|groups| !groups.is_empty())
        {
            self.largest = Some((largest_groups(groups), now));
        }
        let Signal::Kernel(event) = signal else { return };
        match event {
            KernelEvent::OomKill {
                pid,
                task,
                whole_machine,
            } => self.killed(*pid, task, *whole_machine, now),
            KernelEvent::ReadOnly { device } => {
                let words = "remounted read-only by the kernel after an error".to_owned();
                self.find(
                    Kind::FilesystemReadOnly,
                    device,
                    Stands::UntilReboot,
                    Critical,
                    words,
                    now,
                );
            }
            KernelEvent::FilesystemError { device, why } => {
                let words = why.clone();
                self.find(
                    Kind::FilesystemCorrupt,
                    device,
                    Stands::UntilReboot,
                    Critical,
                    words,
                    now,
                );
            }
            KernelEvent::IoError { device } => {
                let words = "the disk did not read or write".to_owned();
                self.find(Kind::DiskFailing, device, Stands::While, Critical, words, now);
            }
            KernelEvent::HungTask { pid, task } => {
                let words = format!("task {task} (pid {pid}) hangs in the kernel");
                self.find(Kind::KernelHang, "tasks", Stands::While, Warning, words, now);
            }
            KernelEvent::Lockup { why } => {
                self.find(
                    Kind::KernelHang,
                    "processors",
                    Stands::While,
                    Critical,
                    why.clone(),
                    now,
                );
            }
            KernelEvent::Hardware { why } => {
                self.find(
                    Kind::HardwareFault,
                    "machine",
                    Stands::While,
                    Critical,
                    why.clone(),
                    now,
                );
            }
            KernelEvent::NicReset { device } => {
                let words = "its transmit queue timed out and it was reset".to_owned();
                self.find(Kind::NicFailing, device, Stands::While, Warning, words, now);
            }
            KernelEvent::ConntrackFull => {
                let words = "the connection-tracking table is full and packets are dropped; \
                             raise net.netfilter.nf_conntrack_max"
                    .to_owned();
                self.find(
                    Kind::ConntrackFull,
                    "nf_conntrack",
                    Stands::While,
                    Critical,
                    words,
                    now,
                );
            }
            KernelEvent::Lost { .. } => {}
        }
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        self.findings
            .iter()
            .filter(|(_, finding)| finding.stands_at(now))
            .map(|(key, finding)| Condition {
                key: key.clone(),
                severity: finding.severity,
                since: finding.since,
                evidence: match &self.largest {
                    // Seen around the kills: what was large at another time explains nothing.
                    Some((largest, at))
                        if key.kind == Kind::OomStorm
                            && *at + OOM_WINDOW >= finding.since
                            && *at <= finding.last + OOM_WINDOW =>
                    {
                        format!("{}; {largest}", finding.evidence())
                    }
                    Some(_) | None => finding.evidence(),
                },
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            })
            .collect()
    }

    /// When the next finding is cleared by silence.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.findings
            .values()
            .filter(|finding| finding.stands == Stands::While && finding.stands_at(now))
            .map(|finding| finding.last + QUIET)
            .min()
    }

    fn killed(&mut self, pid: u32, task: &str, whole_machine: bool, now: Instant) {
        self.kills
            .retain(|at| now.saturating_duration_since(*at) < OOM_WINDOW);
        if self.kills.len() < OOM_KILLS {
            self.kills.push(now);
        }
        if whole_machine {
            let words = format!("the machine ran out of memory; {task} (pid {pid}) was killed");
            self.find(Kind::OomStorm, "machine", Stands::While, Critical, words, now);
        } else if self.kills.len() >= OOM_KILLS {
            let words = format!(
                "{OOM_KILLS} processes or more were killed at their cgroup's limit within {}s, the last {task} (pid {pid})",
                OOM_WINDOW.as_secs()
            );
            self.find(Kind::OomStorm, "cgroups", Stands::While, Warning, words, now);
        }
    }

    fn find(
        &mut self,
        kind: Kind,
        subject: &str,
        stands: Stands,
        severity: Severity,
        words: String,
        now: Instant,
    ) {
        let key = ConditionKey {
            kind,
            subject: subject.to_owned(),
        };
        if let Some(finding) = self.findings.get_mut(&key) {
            if !finding.stands_at(now) {
                finding.since = now;
                finding.count = 0;
            }
            finding.last = now;
            finding.count += 1;
            // The first words are the cause, what follows is mostly its consequence.
            if finding.count == 1 {
                finding.words = words;
            }
            return;
        }
        self.findings
            .retain(|key, finding| key.kind != kind || finding.stands_at(now));
        if self.findings.keys().filter(|key| key.kind == kind).count() < MAX_SUBJECTS {
            self.findings.insert(
                key,
                Finding {
                    stands,
                    severity,
                    since: now,
                    last: now,
                    count: 1,
                    words,
                },
            );
        }
    }
}

impl Finding {
    fn stands_at(&self, now: Instant) -> bool {
        match self.stands {
            Stands::UntilReboot => true,
            Stands::While => now.saturating_duration_since(self.last) < QUIET,
        }
    }

    fn evidence(&self) -> String {
        if self.count > 1 {
            format!("{} ({} times)", self.words, self.count)
        } else {
            self.words.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oom(whole_machine: bool) -> Signal {
        Signal::Kernel(KernelEvent::OomKill {
            pid: 7,
            task: "java".into(),
            whole_machine,
        })
    }

    fn kinds(kernel: &Kernel, now: Instant) -> Vec<(Kind, String)> {
        kernel
            .conditions(now)
            .into_iter()
            .map(|condition| (condition.key.kind, condition.key.subject))
            .collect()
    }

    #[test]
    fn one_container_at_its_limit_is_no_storm_and_five_in_two_minutes_are() {
        let start = Instant::now();
        let mut kernel = Kernel::default();
        for n in 0..4 {
            kernel.observe(&oom(false), start + Duration::from_secs(n));
        }
        assert!(kernel.conditions(start + Duration::from_secs(4)).is_empty());
        // Slow ones never add up.
        let mut slow = Kernel::default();
        for n in 0..20 {
            slow.observe(&oom(false), start + OOM_WINDOW / 4 * n);
        }
        assert!(slow.conditions(start + OOM_WINDOW * 5).is_empty());
        let last = start + Duration::from_secs(5);
        kernel.observe(&oom(false), last);
        assert_eq!(kinds(&kernel, last), [(Kind::OomStorm, "cgroups".to_owned())]);
        assert!(kernel.conditions(last + QUIET).is_empty());
    }

    #[test]
    fn the_machine_out_of_memory_is_told_at_once() {
        let now = Instant::now();
        let mut kernel = Kernel::default();
        kernel.observe(&oom(true), now);
        let conditions = kernel.conditions(now);
        assert_eq!(conditions[0].severity, Critical);
        assert!(
            conditions[0].evidence.contains("java (pid 7)"),
            "{}",
            conditions[0].evidence
        );
        assert_eq!(kernel.next_change(now), Some(now + QUIET));
    }

    #[test]
    fn damage_stands_however_long_the_kernel_is_silent() {
        let now = Instant::now();
        let mut kernel = Kernel::default();
        kernel.observe(
            &Signal::Kernel(KernelEvent::ReadOnly {
                device: "sda1".into(),
            }),
            now,
        );
        let later = now + QUIET * 100;
        assert_eq!(
            kinds(&kernel, later),
            [(Kind::FilesystemReadOnly, "sda1".to_owned())]
        );
        assert_eq!(kernel.next_change(later), None);
    }

    #[test]
    fn the_first_words_are_kept_and_counted() {
        let now = Instant::now();
        let mut kernel = Kernel::default();
        for why in ["the cause", "a consequence", "another"] {
            let event = KernelEvent::FilesystemError {
                device: "sda1".into(),
                why: why.into(),
            };
            kernel.observe(&Signal::Kernel(event), now);
        }
        assert_eq!(kernel.conditions(now)[0].evidence, "the cause (3 times)");
    }

    proptest! {
        #[test]
        fn a_flood_of_names_is_bounded(names in prop::collection::vec("[a-z]{1,6}", 0..200)) {
            let now = Instant::now();
            let mut kernel = Kernel::default();
            for device in names {
                kernel.observe(&Signal::Kernel(KernelEvent::IoError { device }), now);
            }
            prop_assert!(kernel.conditions(now).len() <= MAX_SUBJECTS);
        }
    }
}

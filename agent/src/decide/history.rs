//! What was tried, as the ledger tells it. Pure.
//!
//! ```text
//!  ledger, at the start ──replay──► History ◄── begun, ended, refilled: each as it is written to the ledger
//!                                     │
//!                                     ▼ decide
//! ```
//!
//! Held in memory beside the ledger so that durations within one life of the agent are monotonic, and so that a decision
//! need not read thousands of records. Attempts on a unit count until the ledger says that health refilled its budget, so
//! neither a restart of the agent, nor a reboot, nor a wall clock that lies after one refills it. Attempts on a log count
//! within a window. Only the agent's own decisions count, never the coordinator's commands.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Now, Outcome, Record};
use crate::remedy::Remedy;

/// Name in the ledger of the record that says: this unit was healthy for long enough, its budget is full again.
pub const REFILL: &str = "refill-budget";

/// Attempts of a subject that are remembered; more than any ladder has, and more than a budget of logs is likely to.
const KEEP: usize = 4096;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// [`Remedy::RestartUnit`].
    Restart,
    /// [`Remedy::KillRestartUnit`].
    KillRestart,
    /// [`Remedy::ReclaimLog`].
    Reclaim,
    /// [`Remedy::VacuumJournal`].
    Vacuum,
    /// [`Remedy::Prune`].
    Prune,
    /// [`Remedy::RestartContainer`].
    RestartContainer,
    /// [`Remedy::BounceStaticPod`].
    Bounce,
    /// [`Remedy::RelieveMemory`].
    Relieve,
    /// [`Remedy::ProtectUnits`].
    Protect,
}

impl Rung {
    /// `None` for what only the coordinator asks for.
    pub const fn of(remedy: &Remedy) -> Option<Self> {
        match remedy {
            Remedy::RestartUnit { .. } => Some(Self::Restart),
            Remedy::KillRestartUnit { .. } | Remedy::RestartRuntime { .. } => Some(Self::KillRestart),
            Remedy::ReclaimLog { .. } => Some(Self::Reclaim),
            Remedy::VacuumJournal { .. } => Some(Self::Vacuum),
            Remedy::Prune { .. } => Some(Self::Prune),
            Remedy::RestartContainer { .. } => Some(Self::RestartContainer),
            Remedy::BounceStaticPod { .. } => Some(Self::Bounce),
            Remedy::RelieveMemory { .. } => Some(Self::Relieve),
            Remedy::ProtectUnits => Some(Self::Protect),
            Remedy::ReleaseKubelet { .. }
            | Remedy::HoldManifest { .. }
            | Remedy::ReleaseManifest { .. }
            | Remedy::StopKubelet { .. }
            | Remedy::StartKubelet { .. }
            | Remedy::Etcd(_)
            | Remedy::ControlPlane(_) => None,
        }
    }

    /// By the name that [`Remedy::name`] writes into the ledger.
    /// Attempts of this kind are forgotten as time passes, not by health.
    const fn counts_within_a_window(self) -> bool {
        match self {
            Self::Reclaim | Self::Vacuum | Self::Prune | Self::RestartContainer => true,
            // The latter two have windows of their own, and are few.
            Self::Restart | Self::KillRestart | Self::Bounce | Self::Relieve | Self::Protect => false,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "restart-unit" => Some(Self::Restart),
            "kill-restart-unit" | "restart-runtime" => Some(Self::KillRestart),
            "vacuum-journal" => Some(Self::Vacuum),
            "prune" => Some(Self::Prune),
            "reclaim-log" => Some(Self::Reclaim),
            "restart-container" => Some(Self::RestartContainer),
            "bounce-static-pod" => Some(Self::Bounce),
            "relieve-memory" => Some(Self::Relieve),
            "protect-units" => Some(Self::Protect),
            _ => None,
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried.
    pub rung: Rung,
    /// When. May lie before this boot.
    pub begun: Instant,
    /// `None` while it runs, and for ever if the agent died meanwhile.
    pub end: Option<End>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Instant,
    /// Done and verified, and not only rehearsed.
    pub helped: bool,
    /// What came of it, for people.
    pub detail: String,
}

impl Attempt {
    /// From when on a pause before the next one is counted.
    pub fn last_seen(&self) -> Instant {
        self.end.as_ref().map_or(self.begun, |end| end.at)
    }

    /// Done and verified, and not only rehearsed.
    pub fn helped(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.helped)
    }
}

/// Every attempt that still counts.
#[derive(Debug, Clone, Default)]
pub struct History {
    subjects: BTreeMap<String, VecDeque<Attempt>>,
}

impl History {
    /// From the ledger's records, oldest first. `clocks` and `now` are the same instant.
    pub fn replay<'a>(records: impl Iterator<Item = &'a Record>, clocks: &Now, now: Instant) -> Self {
        let mut history = Self::default();
        for record in records.filter(|record| record.intent.command_id.is_none()) {
            let subject = &record.intent.subject;
            if record.intent.remedy == REFILL {
                history.refilled(subject);
                continue;
            }
            let Some(rung) = Rung::named(&record.intent.remedy) else {
                continue;
            };
            let age = record.age(clocks);
            let ago = |age: Duration| now.checked_sub(age).unwrap_or(now);
            let end = record.outcome.as_ref().map(|outcome| End {
                at: ago(age.saturating_sub(Duration::from_millis(record.took_ms))),
                ..end_of(outcome, record.intent.dry_run, now)
            });
            history.push(
                subject.clone(),
                Attempt {
                    rung,
                    begun: ago(age),
                    end,
                },
            );
        }
        history
    }

    /// An attempt begins.
    pub fn begun(&mut self, remedy: &Remedy, now: Instant) {
        if let Some(rung) = Rung::of(remedy) {
            let attempt = Attempt {
                rung,
                begun: now,
                end: None,
            };
            self.push(remedy.subject(), attempt);
        }
    }

    /// The running attempt on `subject` has ended.
    pub fn ended(&mut self, subject: &str, outcome: &Outcome, dry_run: bool, now: Instant) {
        if let Some(attempt) = self.subjects.get_mut(subject).and_then(VecDeque::back_mut) {
            attempt.end = Some(end_of(outcome, dry_run, now));
        }
    }

    /// The running attempt on `subject` was never made.
    pub fn withdrawn(&mut self, subject: &str) {
        if let Some(attempts) = self.subjects.get_mut(subject) {
            attempts.pop_back();
            if attempts.is_empty() {
                self.subjects.remove(subject);
            }
        }
    }

    /// Health has lasted: the budget of `unit` is full again.
    pub fn refilled(&mut self, unit: &str) {
        self.subjects.remove(unit);
    }

    /// Forgets attempts on logs that are older than `window`.
    pub fn prune(&mut self, window: Duration, now: Instant) {
        self.subjects.retain(|_, attempts| {
            while attempts.front().is_some_and(|oldest| {
                oldest.rung.counts_within_a_window() && now.saturating_duration_since(oldest.begun) >= window
            }) {
                attempts.pop_front();
            }
            !attempts.is_empty()
        });
    }

    /// Attempts on `subject` that still count, oldest first.
    pub fn of(&self, subject: &str) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.subjects.get(subject).into_iter().flatten()
    }

    /// Everything that attempts are remembered of.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(String::as_str)
    }

    /// So many of this kind count.
    pub fn count(&self, subject: &str, rung: Rung) -> u32 {
        let count = self.of(subject).filter(|attempt| attempt.rung == rung).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// So many of this kind were begun within `window`.
    pub fn count_within(&self, subject: &str, rung: Rung, window: Duration, now: Instant) -> u32 {
        let lately = |attempt: &&Attempt| {
            attempt.rung == rung && now.saturating_duration_since(attempt.begun) < window
        };
        u32::try_from(self.of(subject).filter(lately).count()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, subject: String, attempt: Attempt) {
        let attempts = self.subjects.entry(subject).or_default();
        if attempts.len() >= KEEP {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
    }
}

fn end_of(outcome: &Outcome, dry_run: bool, at: Instant) -> End {
    let (helped, detail) = match outcome {
        Outcome::Succeeded { detail } => (!dry_run, detail),
        Outcome::Failed { detail } => (false, detail),
    };
    End {
        at,
        helped,
        detail: detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Intent, Sequence};
    use crate::signal::LogId;

    fn record(sequence: u64, remedy: &str, subject: &str, boottime_ms: u64) -> Record {
        Record {
            sequence: Sequence(sequence),
            intent: Intent {
                remedy: remedy.into(),
                subject: subject.into(),
                reason: String::new(),
                command_id: None,
                dry_run: false,
            },
            outcome: None,
            boot: "b".into(),
            epoch: 0,
            at_unix_ms: 0,
            took_ms: 0,
            boottime_ms,
        }
    }

    #[test]
    fn every_remedy_of_the_ladder_is_found_again_by_its_name() {
        let unit = || "u.service".to_owned();
        let log = LogId {
            dev: 1,
            ino: 1,
            path: "/a".into(),
            deleted: false,
        };
        for remedy in [
            Remedy::RestartUnit { unit: unit() },
            Remedy::KillRestartUnit { unit: unit() },
            Remedy::ReclaimLog { log },
            Remedy::RestartContainer { name: unit() },
            Remedy::BounceStaticPod { pod: unit() },
            Remedy::ReleaseKubelet { run_id: unit() },
            Remedy::StopKubelet { run_id: unit() },
            Remedy::StartKubelet { run_id: unit() },
            Remedy::RelieveMemory { unit: unit() },
            Remedy::ProtectUnits,
        ] {
            assert_eq!(Rung::named(remedy.name()), Rung::of(&remedy), "{remedy}");
        }
    }

    #[test]
    fn replay_counts_own_attempts_since_the_last_refill_with_their_ages() {
        let now = Instant::now();
        let clocks = Now {
            boot: "b".into(),
            boottime_ms: 60_000,
            unix_ms: 0,
        };
        let mut ordered = record(4, "restart-unit", "u.service", 30_000);
        ordered.intent.command_id = Some("run/1".into());
        let mut last = record(5, "kill-restart-unit", "u.service", 50_000);
        last.outcome = Some(Outcome::Failed { detail: "no".into() });
        last.took_ms = 2_000;
        let records = [
            record(1, "restart-unit", "u.service", 1_000),
            record(2, REFILL, "u.service", 10_000),
            record(3, "restart-unit", "u.service", 20_000),
            ordered,
            last,
            record(6, "release-kubelet", "kubelet", 51_000),
        ];
        let history = History::replay(records.iter(), &clocks, now);
        let attempts: Vec<_> = history.of("u.service").collect();
        assert_eq!(attempts.len(), 2);
        assert_eq!(now - attempts[0].begun, Duration::from_secs(40));
        assert_eq!(attempts[0].end, None);
        assert_eq!(now - attempts[1].last_seen(), Duration::from_secs(8));
        assert_eq!(history.count("u.service", Rung::KillRestart), 1);
        assert_eq!(history.of("kubelet").count(), 0);
    }
}

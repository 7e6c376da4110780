//! [`Signal::Container`] → `ContainerFlapping`, `ContainerOomKilled`, `ContainerDied`, `ContainerUnhealthy`. Pure.
//!
//! - Flapping: so many restarts within the window; cleared when there was none for a whole window. Both runtimes wait longer after each restart
//!   (up to five minutes), so the rate alone would clear what has only slowed down.
//! - Killed for memory, and died with an error: told for [`TOLD`] after the last time; they are over when they are noticed.
//!   The first is the cause of the second and hides it.
//! - Unhealthy: as long as docker says so; it has a hysteresis of its own.
//!
//! Silence clears only while the runtime can be observed: the time during which it did not answer does not count.
//! None has a remedy here: what restarts the container is at work already, and who can change its image or its limits is not the node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind as Kind, Severity};
use crate::config::RuntimeSettings;
use crate::signal::{ContainerSignal, Runtime, RuntimeAnswer, Signal};

/// An end is told for so long.
pub const TOLD: Duration = Duration::from_mins(10);
/// No more containers are told apart than this.
const MAX_SUBJECTS: usize = 128;

/// All containers that somebody wants up.
#[derive(Debug, Clone)]
pub struct Containers {
    restarts: usize,
    window: Duration,
    seen: BTreeMap<String, Seen>,
    /// docker has not been observable since then.
    blind_since: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Seen {
    signal: ContainerSignal,
    /// The last restarts, at most as many as count; the oldest first.
    restarts: VecDeque<Instant>,
    flapping: Option<Finding>,
    oom_killed: Option<Finding>,
    died: Option<Finding>,
    unhealthy: Option<Instant>,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Finding {
    since: Instant,
    last: Instant,
    count: u64,
}

impl Containers {
    /// Nothing seen yet.
    pub fn new(settings: &RuntimeSettings) -> Self {
        Self {
            restarts: usize::try_from(settings.flapping_restarts).unwrap_or(usize::MAX),
            window: settings.flapping_window,
            seen: BTreeMap::new(),
            blind_since: None,
        }
    }

    /// Judges by other settings from the next restart on.
    pub fn retune(&mut self, settings: &RuntimeSettings) {
        self.restarts = usize::try_from(settings.flapping_restarts).unwrap_or(usize::MAX);
        self.window = settings.flapping_window;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        if let Signal::Runtime(seen) = signal
            && seen.runtime == Runtime::Docker
        {
            match seen.answer {
                RuntimeAnswer::Answered => self.see_again(now),
                RuntimeAnswer::TimedOut { .. }
                | RuntimeAnswer::Failed { .. }
                | RuntimeAnswer::Unobservable { .. } => {
                    self.blind_since.get_or_insert(now);
                }
            }
        }
        let Signal::Container(signal) = signal else {
            return;
        };
        self.see_again(now);
        if !self.seen.contains_key(&signal.name) && !self.make_room(now) {
            return;
        }
        let window = self.window;
        let seen = self
            .seen
            .entry(signal.name.clone())
            .or_insert_with(|| Seen::new(signal, now));
        seen.observe(signal, self.restarts, window, now);
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let now = self.blind_since.unwrap_or(now);
        self.seen
            .values()
            .flat_map(|seen| seen.conditions(self.window, now))
            .collect()
    }

    /// When the next finding is cleared by silence.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        if self.blind_since.is_some() {
            return None;
        }
        let ends = self.seen.values().flat_map(|seen| seen.ends(self.window));
        ends.filter(|end| *end > now).min()
    }

    /// Moves everything that ends by silence on by the time that was blind.
    fn see_again(&mut self, now: Instant) {
        let Some(since) = self.blind_since.take() else {
            return;
        };
        let blind = now.saturating_duration_since(since);
        for seen in self.seen.values_mut() {
            let findings = [&mut seen.flapping, &mut seen.oom_killed, &mut seen.died];
            for finding in findings.into_iter().flatten() {
                finding.last += blind;
            }
        }
    }

    /// Forgets what stands no more, and the one that has been silent for longest if it must. `false` when everything stands.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.seen.len() < MAX_SUBJECTS {
            return true;
        }
        let window = self.window;
        let silent = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.conditions(window, now).is_empty())
            .min_by_key(|(_, seen)| seen.last)
            .map(|(name, _)| name.clone());
        silent.is_some_and(|name| self.seen.remove(&name).is_some())
    }
}

impl Seen {
    fn new(signal: &ContainerSignal, now: Instant) -> Self {
        Self {
            // What the watcher counted before the first signal was new as well.
            signal: ContainerSignal {
                restarts: 0,
                failures: 0,
                oom_kills: 0,
                ..signal.clone()
            },
            restarts: VecDeque::new(),
            flapping: None,
            oom_killed: None,
            died: None,
            unhealthy: None,
            last: now,
        }
    }

    fn observe(&mut self, signal: &ContainerSignal, restarts: usize, window: Duration, now: Instant) {
        let before = std::mem::replace(&mut self.signal, signal.clone());
        self.last = now;
        // A count that fell was begun anew.
        let new = |before: u64, after: u64| after.checked_sub(before).unwrap_or(after);

        let restarted = new(before.restarts, signal.restarts);
        for _ in 0..restarted.min(u64::try_from(restarts).unwrap_or(u64::MAX)) {
            self.restarts.push_back(now);
        }
        while self.restarts.len() > restarts {
            self.restarts.pop_front();
        }
        let oldest = self.restarts.front();
        let often = self.restarts.len() >= restarts
            && oldest.is_some_and(|oldest| now.saturating_duration_since(*oldest) < window);
        let flaps = stands(self.flapping, window, now);
        if restarted > 0 && (often || flaps) {
            let count = if flaps {
                restarted
            } else {
                self.restarts.len() as u64
            };
            again(&mut self.flapping, count, window, now);
        }
        let killed = new(before.oom_kills, signal.oom_kills);
        if killed > 0 {
            again(&mut self.oom_killed, killed, TOLD, now);
        }
        let failed = new(before.failures, signal.failures);
        if failed > 0 {
            again(&mut self.died, failed, TOLD, now);
        }
        self.unhealthy = signal.unhealthy.then(|| self.unhealthy.unwrap_or(now));
    }

    fn conditions(&self, window: Duration, now: Instant) -> Vec<Condition> {
        let oom_killed = self.oom_killed.filter(|finding| finding.stands(TOLD, now));
        let died = self.died.filter(|finding| finding.stands(TOLD, now));
        let flapping = self.flapping.filter(|finding| finding.stands(window, now));
        let exit = self.signal.last_exit.map_or_else(
            || "without a status yet".to_owned(),
            |status| format!("with status {status}"),
        );
        let mut found = Vec::new();
        let mut tell = |kind, severity, since, what: String| {
            let image = &self.signal.image;
            found.push(Condition {
                key: ConditionKey {
                    kind,
                    subject: self.signal.name.clone(),
                },
                severity,
                since,
                evidence: format!("container {} ({image}) {what}", self.signal.name),
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            });
        };
        if let Some(finding) = flapping {
            let what = format!("was restarted {} times; it ended last {exit}", finding.count);
            tell(Kind::ContainerFlapping, Severity::Warning, finding.since, what);
        }
        if let Some(finding) = oom_killed {
            let times = times(finding.count);
            let what = format!("ran out of its memory{times} and was killed; it ended last {exit}");
            tell(Kind::ContainerOomKilled, Severity::Warning, finding.since, what);
        } else if let Some(finding) = died {
            let what = format!("ended {exit}{}", times(finding.count));
            tell(Kind::ContainerDied, Severity::Info, finding.since, what);
        }
        if let Some(since) = self.unhealthy {
            let what = "fails its own health check".to_owned();
            tell(Kind::ContainerUnhealthy, Severity::Warning, since, what);
        }
        found
    }

    fn ends(&self, window: Duration) -> impl Iterator<Item = Instant> + use<> {
        [
            self.flapping.map(|finding| finding.last + window),
            self.oom_killed.map(|finding| finding.last + TOLD),
            self.died.map(|finding| finding.last + TOLD),
        ]
        .into_iter()
        .flatten()
    }
}

impl Finding {
    fn stands(&self, long: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < long
    }
}

fn stands(finding: Option<Finding>, long: Duration, now: Instant) -> bool {
    finding.is_some_and(|finding| finding.stands(long, now))
}

/// It happened once more, or for the first time since it was cleared.
fn again(finding: &mut Option<Finding>, count: u64, long: Duration, now: Instant) {
    match finding {
        Some(finding) if finding.stands(long, now) => {
            finding.count = finding.count.saturating_add(count);
            finding.last = now;
        }
        _ => {
            *finding = Some(Finding {
                since: now,
                last: now,
                count,
            });
        }
    }
}

fn times(count: u64) -> String {
    if count > 1 {
        format!(" {count} times")
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests;

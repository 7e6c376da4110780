//! [`Signal::Runtime`] and [`Signal::Unit`] → `RuntimeHung`. Pure.
//!
//! A runtime is hung when its unit is active and so many real calls in a row came to nothing. While its unit is not active the unit's own
//! condition stands, and while it starts its calls may well wait: neither counts. One answer clears it, and so does another main process.
//! A call that could not be made is no evidence of anything.
//!
//! A docker that waits for a hung containerd is not mended by a restart of docker: while containerd's calls fail nothing is raised of
//! docker, and afterwards docker's are counted anew.

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::RuntimeSettings;
use crate::signal::{ActiveState, Runtime, RuntimeAnswer, Signal, UnitSignal};

/// Both runtimes.
#[derive(Debug, Clone)]
pub struct Runtimes {
    settings: RuntimeSettings,
    docker: State,
    containerd: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// systemd says that it runs.
    active: bool,
    main_pid: u32,
    failures: u32,
    /// What the last failed call came to.
    why: String,
    raised: Option<Instant>,
}

impl Runtimes {
    /// Nothing seen yet.
    pub fn new(settings: RuntimeSettings) -> Self {
        Self {
            settings,
            docker: State::default(),
            containerd: State::default(),
        }
    }

    /// Judges by other settings from the next call on.
    pub fn retune(&mut self, settings: RuntimeSettings) {
        self.settings = settings;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        if let Signal::Unit(unit) = signal {
            if unit.unit == self.settings.docker.unit {
                self.docker.unit(unit);
            }
            if unit.unit == self.settings.containerd.unit {
                self.containerd.unit(unit);
            }
        }
        if let Signal::Runtime(seen) = signal {
            let raise = self.settings.failures_to_raise;
            match seen.runtime {
                Runtime::Docker => {
                    // Until containerd's own calls have told, docker's say nothing of docker.
                    let raise = if self.containerd.failures > 0 {
                        u32::MAX
                    } else {
                        raise
                    };
                    self.docker.answer(&seen.answer, raise, now);
                }
                Runtime::Containerd => {
                    let hung = self.containerd.raised.is_some();
                    self.containerd.answer(&seen.answer, raise, now);
                    if hung || self.containerd.raised.is_some() {
                        self.docker.again();
                    }
                }
            }
        }
    }

    /// What stands. The subject is the unit.
    pub fn conditions(&self) -> Vec<Condition> {
        let states = [
            (Runtime::Containerd, &self.containerd, &self.settings.containerd),
            (Runtime::Docker, &self.docker, &self.settings.docker),
        ];
        states
            .into_iter()
            .filter_map(|(runtime, state, endpoint)| {
                Some(Condition {
                    key: ConditionKey {
                        kind: ConditionKind::RuntimeHung,
                        subject: endpoint.unit.clone(),
                    },
                    severity: Severity::Critical,
                    since: state.raised?,
                    evidence: format!(
                        "{} (pid {}) is active and {} real calls in a row came to nothing; the last: {}",
                        runtime.as_str(),
                        state.main_pid,
                        state.failures,
                        state.why
                    ),
                    escalated: false,
                    log: None,
                    heaviest: Vec::new(),
                })
            })
            .collect()
    }
}

impl State {
    fn unit(&mut self, unit: &UnitSignal) {
        let active = match unit.active {
            ActiveState::Active | ActiveState::Reloading => true,
            ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::NotFound => false,
            ActiveState::Unknown => return,
        };
        if !active || unit.main_pid != self.main_pid {
            *self = Self::default();
        }
        self.active = active;
        self.main_pid = unit.main_pid;
    }

    fn answer(&mut self, answer: &RuntimeAnswer, raise: u32, now: Instant) {
        match answer {
            RuntimeAnswer::Answered => self.again(),
            RuntimeAnswer::TimedOut { after } => {
                self.failed(format!("no answer within {}s", after.as_secs_f32()), raise, now);
            }
            RuntimeAnswer::Failed { why } => self.failed(why.clone(), raise, now),
            RuntimeAnswer::Unobservable { .. } => {}
        }
    }

    /// What was counted is no evidence any more.
    fn again(&mut self) {
        self.failures = 0;
        self.raised = None;
    }

    fn failed(&mut self, why: String, raise: u32, now: Instant) {
        if !self.active {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        if self.failures >= raise {
            self.raised.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::signal::{RuntimeSignal, UnitDetail};

    fn unit(active: ActiveState, main_pid: u32) -> Signal {
        Signal::Unit(UnitSignal {
            unit: "docker.service".into(),
            active,
            sub: String::new(),
            main_pid,
            restarts: 0,
            result: "success".into(),
            detail: UnitDetail::default(),
        })
    }

    fn call(answer: RuntimeAnswer) -> Signal {
        Signal::Runtime(RuntimeSignal {
            runtime: Runtime::Docker,
            answer,
        })
    }

    fn hung() -> Signal {
        call(RuntimeAnswer::TimedOut {
            after: Duration::from_secs(3),
        })
    }

    fn blind() -> Signal {
        call(RuntimeAnswer::Unobservable { why: String::new() })
    }

    fn failed() -> Signal {
        call(RuntimeAnswer::Failed { why: "500".into() })
    }

    fn stands(signals: &[Signal]) -> bool {
        let mut runtimes = Runtimes::new(RuntimeSettings::default());
        for signal in signals {
            runtimes.observe(signal, Instant::now());
        }
        !runtimes.conditions().is_empty()
    }

    #[test]
    fn three_failed_calls_in_a_row_of_an_active_unit_are_a_hang() {
        let active = || unit(ActiveState::Active, 7);
        let answered = || call(RuntimeAnswer::Answered);
        for (expected, signals) in [
            (true, vec![active(), hung(), failed(), hung()]),
            (
                true,
                vec![active(), hung(), blind(), hung(), blind(), hung(), blind()],
            ),
            (false, vec![active(), hung(), hung(), answered(), hung()]),
            (false, vec![active(), hung(), hung(), hung(), answered()]),
            (false, vec![hung(), hung(), hung()]),
            (
                false,
                vec![unit(ActiveState::Activating, 7), hung(), hung(), hung()],
            ),
            (
                false,
                vec![active(), hung(), hung(), hung(), unit(ActiveState::Failed, 0)],
            ),
            (
                false,
                vec![active(), hung(), hung(), hung(), unit(ActiveState::Active, 8)],
            ),
            (
                true,
                vec![active(), hung(), hung(), hung(), unit(ActiveState::Unknown, 0)],
            ),
            (
                true,
                vec![
                    active(),
                    hung(),
                    hung(),
                    hung(),
                    Signal::UnitsUnobservable { why: String::new() },
                    active(),
                ],
            ),
        ] {
            assert_eq!(stands(&signals), expected, "{signals:?}");
        }
    }

    #[test]
    fn the_evidence_says_what_was_tried() {
        let mut runtimes = Runtimes::new(RuntimeSettings::default());
        for signal in [unit(ActiveState::Active, 7), hung(), hung(), hung()] {
            runtimes.observe(&signal, Instant::now());
        }
        let condition = &runtimes.conditions()[0];
        assert_eq!(condition.key.subject, "docker.service");
        assert_eq!(
            condition.evidence,
            "docker (pid 7) is active and 3 real calls in a row came to nothing; the last: no answer within 3s"
        );
    }

    #[test]
    fn containerd_comes_first() {
        let unit_of_containerd = Signal::Unit(UnitSignal {
            unit: "containerd.service".into(),
            active: ActiveState::Active,
            sub: String::new(),
            main_pid: 3,
            restarts: 0,
            result: "success".into(),
            detail: UnitDetail::default(),
        });
        let containerd = |answer| {
            Signal::Runtime(RuntimeSignal {
                runtime: Runtime::Containerd,
                answer,
            })
        };
        let after = Duration::from_secs(3);
        let now = Instant::now();
        let mut runtimes = Runtimes::new(RuntimeSettings::default());
        let subjects = |runtimes: &Runtimes| -> Vec<_> {
            let conditions = runtimes.conditions();
            conditions.into_iter().map(|one| one.key.subject).collect()
        };
        runtimes.observe(&unit(ActiveState::Active, 7), now);
        runtimes.observe(&unit_of_containerd, now);
        for _ in 0..3 {
            runtimes.observe(&containerd(RuntimeAnswer::TimedOut { after }), now);
            runtimes.observe(&hung(), now);
        }
        assert_eq!(subjects(&runtimes), ["containerd.service"]);
        // It was restarted; docker gets its time to find it again.
        runtimes.observe(&containerd(RuntimeAnswer::Answered), now);
        for failures in 1..=3 {
            runtimes.observe(&hung(), now);
            assert_eq!(subjects(&runtimes).len(), usize::from(failures == 3));
        }
    }

    proptest! {
        /// 0 answered, 1 timed out, 2 failed, 3 unobservable, 4 active, 5 inactive.
        #[test]
        fn is_raised_by_failures_in_a_row_alone_and_never_changed_by_blindness(steps in prop::collection::vec(0_u8..6, 1..200)) {
            let mut runtimes = Runtimes::new(RuntimeSettings::default());
            let (mut active, mut in_a_row, mut stood) = (false, 0_u32, false);
            for step in steps {
                let signal = match step {
                    0 => call(RuntimeAnswer::Answered),
                    1 => hung(),
                    2 => failed(),
                    3 => blind(),
                    4 => unit(ActiveState::Active, 7),
                    _ => unit(ActiveState::Inactive, 0),
                };
                runtimes.observe(&signal, Instant::now());
                let stands = !runtimes.conditions().is_empty();
                match step {
                    0 => in_a_row = 0,
                    1 | 2 => in_a_row += u32::from(active),
                    3 => prop_assert_eq!(stands, stood),
                    4 => active = true,
                    _ => (active, in_a_row) = (false, 0),
                }
                prop_assert_eq!(stands, in_a_row >= 3);
                stood = stands;
            }
        }
    }
}

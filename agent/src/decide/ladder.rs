//! A unit's ladder: restart (the first time at once, then after a growing pause), then kill and restart, then stop and
//! say so. Pure.
//!
//! | condition | begins at |
//! |---|---|
//! | `UnitFailed`, `UnitInactive` | restart |
//! | `KubeletUnhealthy` | kill and restart: what hangs ignores a polite stop |
//! | `RuntimeHung` | kill and restart, its stacks kept first |
//! | `UnitJobHung` | kill and restart |
//! | `KubeletPlegUnhealthy` | restart, when it has stood for `pleg.restart_after` |
//! | `ClockUnsynchronised` | restart, once |
//! | `CniMissing` | restart |
//!
//! A unit waits for what it needs, see [`super::order`]. All draw on the same budget.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::{Attempt, Rung};
use super::order::{self, Turn};
use super::{Input, Look, Proposal, Treatment, WaitingOn};
use crate::condition::Condition;
use crate::config::{RestartPolicy, Settings};
use crate::remedy::Remedy;

/// What a restart that succeeded changed may take so long to be told by systemd.
const SETTLE: Duration = Duration::from_secs(1);
/// A kubelet gets so many times as long to answer after a restart as it takes to be found silent.
const PATIENCE: u32 = 5;
/// A runtime that was restarted reads all its containers before it answers.
const RUNTIME_ANSWERS: Duration = Duration::from_mins(1);

/// The first look after a restart may still see the old kubelet; two more have to agree on a new one that is only starting.
const PLEG_LOOKS: u32 = 3;

/// The rungs of a ladder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder {
    rungs: &'static [Rung],
    /// So many attempts of a rung at most, whatever the policy says.
    most: u32,
    patience: Patience,
}

/// How long what stands may still be what stood before an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// The unit runs or it does not.
    None,
    /// As long as a kubelet may take to answer.
    Kubelet,
    /// As long as a runtime may take to answer.
    Runtime,
    /// Until a whole look at the journal has seen nothing but the new kubelet.
    Pleg,
    /// As long as a clock may be unsynchronised.
    Clock,
    /// As long as there may be no CNI configuration.
    Cni,
}

/// For what does not run.
pub(super) const FULL: Ladder = Ladder {
    rungs: &[Rung::Restart, Rung::KillRestart],
    most: u32::MAX,
    patience: Patience::None,
};

/// For what runs and does not answer.
pub(super) const KILL: Ladder = Ladder {
    rungs: &[Rung::KillRestart],
    most: u32::MAX,
    patience: Patience::Kubelet,
};

/// For a container runtime that runs and does not answer.
pub(super) const RUNTIME: Ladder = Ladder {
    rungs: &[Rung::KillRestart],
    most: u32::MAX,
    patience: Patience::Runtime,
};

/// For a start or stop that does not end.
pub(super) const HUNG_JOB: Ladder = Ladder {
    rungs: &[Rung::KillRestart],
    most: u32::MAX,
    patience: Patience::None,
};

/// For a kubelet that answers, and does not see its containers.
pub(super) const PLEG: Ladder = Ladder {
    rungs: &[Rung::Restart, Rung::KillRestart],
    most: u32::MAX,
    patience: Patience::Pleg,
};

/// The ladder that a treatment goes up, if any.
pub(super) const fn of(treatment: Treatment) -> Option<Ladder> {
    match treatment {
        Treatment::Ladder => Some(FULL),
        Treatment::KillKubelet => Some(KILL),
        Treatment::RestartRuntime => Some(RUNTIME),
        Treatment::KillUnit => Some(HUNG_JOB),
        Treatment::RestartKubelet => Some(PLEG),
        Treatment::Reclaim
        | Treatment::FreeDisk
        | Treatment::FreeInodes
        | Treatment::RestartContainer
        | Treatment::Bounce
        | Treatment::RelieveMemory
        | Treatment::Protect
        | Treatment::RestartTimeService
        | Treatment::RestartCni
        | Treatment::Tell => None,
    }
}

/// For a time service: what one restart does not mend, its servers or its network have to.
pub(super) const ONCE: Ladder = Ladder {
    rungs: &[Rung::Restart],
    most: 1,
    patience: Patience::Clock,
};

/// For what writes the CNI configuration when it starts.
pub(super) const WRITES: Ladder = Ladder {
    rungs: &[Rung::Restart],
    most: u32::MAX,
    patience: Patience::Cni,
};

pub(super) fn look(
    input: &Input<'_>,
    condition: &Condition,
    unit: &str,
    ladder: Ladder,
    taken: &BTreeSet<String>,
) -> Look {
    let (settings, now) = (input.settings, input.now);
    let policy = &settings.restart;
    if !settings.may_restart(unit) {
        return Look::Wait(WaitingOn::NotAllowed);
    }
    if taken.contains(unit) {
        return Look::Wait(WaitingOn::Running);
    }
    if input.brakes.gate_held && unit == settings.kubelet_unit {
        return Look::Wait(WaitingOn::BootGate);
    }
    let last = input.history.of(unit).next_back();
    if let Some(last) = last {
        let until = last.last_seen() + ladder.settle(last, settings);
        if until > now {
            return Look::Wait(WaitingOn::Settling { until });
        }
    }
    let Some(rung) = ladder.next(input, unit) else {
        return spent(input, condition, unit);
    };
    let due = condition.since + ladder.hold(settings);
    if due > now {
        return Look::Wait(WaitingOn::Recovery { until: due });
    }
    let without = match order::turn(input, unit, due) {
        Turn::Now => String::new(),
        Turn::Wait { unit, until } => return Look::Wait(WaitingOn::Dependency { unit, until }),
        Turn::Without { unit, why } => format!("; without {unit}, which it needs: {why}"),
    };
    if input.brakes.systemd_away {
        return Look::Wait(WaitingOn::Systemd);
    }
    if let Some(until) = input.brakes.ledger_until.filter(|until| *until > now) {
        return Look::Wait(WaitingOn::Ledger { until });
    }
    let made = input.history.of(unit).count();
    if let Some(last) = last {
        let until = last.last_seen() + back_off(policy, made);
        if until > now {
            return Look::Wait(WaitingOn::BackOff { until });
        }
    }
    let unit = unit.to_owned();
    let remedy = match rung {
        Rung::KillRestart if ladder.patience == Patience::Runtime => Remedy::RestartRuntime { unit },
        Rung::KillRestart => Remedy::KillRestartUnit { unit },
        Rung::Restart
        | Rung::Reclaim
        | Rung::Vacuum
        | Rung::Prune
        | Rung::RestartContainer
        | Rung::Bounce
        | Rung::Relieve
        | Rung::Protect => Remedy::RestartUnit { unit },
    };
    let reason = format!(
        "{}: {}{without}; attempt {} of {}",
        condition.key.kind,
        condition.evidence,
        made + 1,
        ladder.attempts(settings)
    );
    Look::Begin(Proposal { remedy, reason })
}

/// The pause before the next attempt, when so many have been made.
pub(super) fn back_off(policy: &RestartPolicy, made: usize) -> Duration {
    let doublings = u32::try_from(made.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    policy
        .backoff_first
        .saturating_mul(factor)
        .min(policy.backoff_max)
}

impl Ladder {
    /// The first rung with something left.
    pub(super) fn next(self, input: &Input<'_>, unit: &str) -> Option<Rung> {
        let policy = &input.settings.restart;
        self.rungs
            .iter()
            .copied()
            .find(|rung| input.history.count(unit, *rung) < self.budget(*rung, policy))
    }

    pub(super) fn budget(self, rung: Rung, policy: &RestartPolicy) -> u32 {
        match rung {
            Rung::Restart => policy.restarts.min(self.most),
            Rung::KillRestart => policy.kill_restarts.min(self.most),
            Rung::Reclaim
            | Rung::Vacuum
            | Rung::Prune
            | Rung::RestartContainer
            | Rung::Bounce
            | Rung::Relieve
            | Rung::Protect => 0,
        }
    }

    /// All that a unit's budget has: a ladder that begins higher up draws on the same.
    fn attempts(self, settings: &Settings) -> u32 {
        let all = match self.patience {
            Patience::None | Patience::Kubelet | Patience::Runtime | Patience::Pleg => FULL.rungs,
            Patience::Clock | Patience::Cni => self.rungs,
        };
        let budgets = all.iter().map(|rung| self.budget(*rung, &settings.restart));
        budgets.fold(0, u32::saturating_add)
    }

    /// What stands may come right by itself for so long.
    fn hold(self, settings: &Settings) -> Duration {
        match self.patience {
            Patience::Pleg => settings.pleg.restart_after,
            Patience::None | Patience::Kubelet | Patience::Runtime | Patience::Clock | Patience::Cni => {
                Duration::ZERO
            }
        }
    }

    fn settle(self, last: &Attempt, settings: &Settings) -> Duration {
        match self.patience {
            Patience::Kubelet => {
                let probe = &settings.kubelet;
                probe
                    .while_failing()
                    .max(probe.deadline)
                    .saturating_mul(probe.failures_to_raise)
                    * PATIENCE
            }
            Patience::Runtime => RUNTIME_ANSWERS,
            Patience::Pleg => settings.pleg.interval * PLEG_LOOKS + settings.pleg.deadline,
            Patience::Clock => settings.clock.unsynchronised_hold,
            Patience::Cni => settings.network.cni.hold,
            Patience::None if last.helped() => SETTLE.min(settings.restart.backoff_first),
            Patience::None => Duration::ZERO,
        }
    }
}

fn spent(input: &Input<'_>, condition: &Condition, unit: &str) -> Look {
    let restarts = input.history.count(unit, Rung::Restart);
    let kills = input.history.count(unit, Rung::KillRestart);
    let last = input.history.of(unit).next_back();
    let ended = last
        .and_then(|last| last.end.as_ref())
        .map_or("its end is not known", |end| end.detail.as_str());
    let evidence = format!(
        "{}: {}; {restarts} restarts and {kills} kill-restarts did not mend it; the last: {ended}; \
         the agent leaves it alone until it has been healthy for {:?}",
        condition.key.kind, condition.evidence, input.settings.restart.window
    );
    Look::Spent {
        since: last.map_or(condition.since, Attempt::last_seen),
        evidence,
        again: None,
    }
}

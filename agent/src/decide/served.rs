//! Units that are restarted for what they serve and not for their own state: whoever keeps the clock, whoever writes the CNI configuration. Pure.
//!
//! | condition | unit | ladder |
//! |---|---|---|
//! | `ClockUnsynchronised` | the time service that runs, otherwise the first that is wanted | one restart |
//! | `CniMissing` | `network.cni.unit`, if there is one | restarts |
//!
//! Health of such a unit is what it serves: only that refills its budget. Nothing is restarted for the clock while another process keeps it, or
//! while it is not known of every time service whether it runs: two of them fight over one clock.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Input, Look, WaitingOn, ladder};
use crate::condition::Condition;
use crate::config::Settings;
use crate::signal::{ActiveState, ClockSignal, CniFound, NetworkSignal, Signal};

/// What was observed of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    units: BTreeMap<String, ActiveState>,
    kept_since: Option<Instant>,
    other_keeper: bool,
    cni_since: Option<Instant>,
}

/// Who is to be restarted for the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice<'a> {
    Unit(&'a str),
    /// No configured service is installed and enabled.
    Nobody,
    /// systemd has not told of each of them.
    NotKnown,
}

impl Served {
    /// Takes in what was seen at `now`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other signal, a later one too, is for another area"
    )]
    pub(super) fn observe(&mut self, signal: &Signal, now: Instant) {
        match signal {
            Signal::Unit(seen) => {
                self.units.insert(seen.unit.clone(), seen.active);
            }
            Signal::Clock(ClockSignal {
                synchronised,
                other_keeper,
                ..
            }) => {
                let kept = *synchronised == Some(true);
                self.kept_since = kept.then(|| self.kept_since.unwrap_or(now));
                self.other_keeper = other_keeper.is_some();
            }
            Signal::Network(NetworkSignal::Cni(seen)) => {
                let usable = seen.found == CniFound::Usable;
                self.cni_since = usable.then(|| self.cni_since.unwrap_or(now));
            }
            _ => {}
        }
    }

    /// Since when what `unit` serves has been well; `since`, its own health, for units that are watched for themselves.
    pub(super) fn well_since(&self, unit: &str, since: Instant, settings: &Settings) -> Option<Instant> {
        let mut well = since;
        if settings.clock.services.iter().any(|service| service == unit) {
            well = well.max(self.kept_since?);
        }
        if settings.network.cni.unit.as_deref() == Some(unit) {
            well = well.max(self.cni_since?);
        }
        Some(well)
    }

    /// Those that systemd has, of the units that are restarted for what they serve.
    pub(super) fn installed<'a>(&'a self, settings: &'a Settings) -> impl Iterator<Item = &'a String> {
        settings.helpers().filter(|unit| match self.units.get(*unit) {
            None | Some(ActiveState::NotFound | ActiveState::Unknown) => false,
            Some(
                ActiveState::Active
                | ActiveState::Reloading
                | ActiveState::Inactive
                | ActiveState::Failed
                | ActiveState::Activating
                | ActiveState::Deactivating,
            ) => true,
        })
    }

    fn choose<'a>(&self, services: &'a [String]) -> Choice<'a> {
        let mut wanted = None;
        let mut known = true;
        for service in services {
            match self.units.get(service) {
                Some(
                    ActiveState::Active
                    | ActiveState::Reloading
                    | ActiveState::Activating
                    | ActiveState::Deactivating,
                ) => return Choice::Unit(service),
                Some(ActiveState::Inactive | ActiveState::Failed) => wanted = wanted.or(Some(service)),
                Some(ActiveState::NotFound) => {}
                Some(ActiveState::Unknown) | None => known = false,
            }
        }
        match wanted {
            _ if !known => Choice::NotKnown,
            Some(service) => Choice::Unit(service),
            None => Choice::Nobody,
        }
    }
}

pub(super) fn clock(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Look {
    let served = input.health.served();
    if served.other_keeper {
        return Look::Wait(WaitingOn::AnotherKeeper);
    }
    match served.choose(&input.settings.clock.services) {
        Choice::Unit(unit) => ladder::look(input, condition, unit, ladder::ONCE, taken),
        Choice::Nobody => Look::Wait(WaitingOn::TimeService),
        Choice::NotKnown => Look::Wait(WaitingOn::Systemd),
    }
}

/// `None` when no unit is known to write it: told, and nothing done.
pub(super) fn cni(input: &Input<'_>, condition: &Condition, taken: &BTreeSet<String>) -> Option<Look> {
    let unit = input.settings.network.cni.unit.as_ref()?;
    Some(ladder::look(input, condition, unit, ladder::WRITES, taken))
}

#[cfg(test)]
mod tests;

//! What holds a remedy back whatever stands: the protect list, silence, holds and freezes. Pure.
//!
//! This is the one place where the protect list is asked, for the agent's own decisions and for the coordinator's commands;
//! the hands that do a remedy ask it once more. What it protects:
//!
//! | setting | of | who asks beside this place |
//! |---|---|---|
//! | `protect.units` | units, by glob | [`perform`](crate::remedy::perform) |
//! | `logs.protect` | logs, by glob | [`reclaim`](crate::reclaim), by the real path |
//! | `prune.protect` | images | [`prune`](crate::remedy::prune), which alone sees them |
//!
//! In the order of what is told first: silence, a hold of every remedy, a freeze of the condition, a hold of this remedy, the protect list.

use globset::Glob;
use tokio::time::Instant;

use super::{Input, WaitingOn};
use crate::brakes::{Hold, Standing};
use crate::condition::Condition;
use crate::config::{ProtectSettings, Settings};
use crate::reclaim::scope::glob as path_glob;
use crate::remedy::Remedy;

/// What holds every remedy of a condition back.
pub(super) fn of_condition(input: &Input<'_>, condition: &Condition) -> Option<WaitingOn> {
    let (standing, now) = (&input.brakes.standing, input.now);
    if let Some(hold) = standing.silence(now) {
        return Some(WaitingOn::Silenced {
            by: hold.by.clone(),
            reason: hold.reason.clone(),
            until: hold.until,
        });
    }
    if let Some(hold) = standing.hold(None, now) {
        return Some(held(hold));
    }
    let freeze = standing.freeze(condition.key.kind, now)?;
    Some(WaitingOn::Frozen {
        why: freeze.why.clone(),
        until: freeze.until,
    })
}

/// What holds this remedy back.
pub(super) fn of_remedy(input: &Input<'_>, remedy: &Remedy) -> Option<WaitingOn> {
    let kind = remedy.kind()?;
    if let Some(hold) = input.brakes.standing.hold(Some(kind), input.now) {
        return Some(held(hold));
    }
    protected(remedy, input.settings).map(|by| WaitingOn::Protected { by })
}

/// Why a command of the coordinator for this remedy is refused. What a cold start asks for is not held: a kubelet that nobody
/// lets go helps nobody. A freeze is of what nodes decide by themselves, so it refuses no command.
pub(crate) fn refuses(
    remedy: &Remedy,
    settings: &Settings,
    standing: &Standing,
    now: Instant,
) -> Option<String> {
    let kind = remedy.kind()?;
    let silence = standing.silence(now).map(|hold| ("the node is silenced", hold));
    let hold = standing.hold(Some(kind), now).map(|hold| ("it is held", hold));
    if let Some((what, hold)) = silence.or(hold) {
        return Some(format!("{what} by {}: {}", hold.by, hold.reason));
    }
    protected(remedy, settings).map(|by| format!("{} is protected ({by})", remedy.subject()))
}

/// The line of the protect list that forbids this remedy.
pub(crate) fn protected(remedy: &Remedy, settings: &Settings) -> Option<String> {
    match remedy {
        Remedy::RestartUnit { unit }
        | Remedy::KillRestartUnit { unit }
        | Remedy::RestartRuntime { unit }
        | Remedy::RelieveMemory { unit } => protected_unit(unit, &settings.protect),
        Remedy::ReclaimLog { log } => {
            let matches =
                |glob: &&String| path_glob(glob).is_ok_and(|glob| glob.compile_matcher().is_match(&log.path));
            let glob = settings.logs.protect.iter().find(matches)?;
            Some(format!("logs.protect: {glob}"))
        }
        // Of containers and components only those that are named may be restarted, and more weight harms nobody. Disks choose what goes
        // themselves, and never what is protected.
        Remedy::RestartContainer { .. }
        | Remedy::BounceStaticPod { .. }
        | Remedy::ProtectUnits
        | Remedy::Prune { .. }
        | Remedy::VacuumJournal { .. }
        | Remedy::ReleaseKubelet { .. }
        | Remedy::HoldManifest { .. }
        | Remedy::ReleaseManifest { .. }
        | Remedy::StopKubelet { .. }
        | Remedy::StartKubelet { .. }
        | Remedy::Etcd(_)
        | Remedy::ControlPlane(_) => None,
    }
}

/// The line of the protect list that names this unit.
pub(crate) fn protected_unit(unit: &str, protect: &ProtectSettings) -> Option<String> {
    let matches = |glob: &&String| Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(unit));
    let glob = protect.units.iter().find(matches)?;
    Some(format!("protect.units: {glob}"))
}

fn held(hold: &Hold) -> WaitingOn {
    WaitingOn::Held {
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        until: hold.until,
    }
}

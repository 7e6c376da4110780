//! What the gate's files, how the last boot ended, and the time make: pure.

use std::time::Duration;

use blackstart_proto::boot::PreviousShutdown;

use super::files::{Record, Release, Words};
use super::{GateState, GateStatus};

/// May the kubelet go on?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Open {
        /// How.
        state: GateState,
        /// Why, for people.
        why: String,
    },
    /// Not before somebody says so, or it is `opens_at`.
    Hold {
        /// `CLOCK_BOOTTIME` when it began to hold.
        since: Duration,
        /// `CLOCK_BOOTTIME` when it opens by itself, if nobody speaks to it before.
        opens_at: Duration,
    },
}

/// What does not change while a gate holds.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How the boot before this one ended.
    pub previous_shutdown: PreviousShutdown,
    /// So long it holds without a word of the coordinator.
    pub dead_man: Duration,
    /// It holds nobody, and says what it would have done.
    pub dry_run: bool,
    /// So long it holds a kubelet that is released for what its pre-flight says stands in the way; zero when it does not look.
    pub preflight_hold: Duration,
}

/// A pre-flight that has not answered by then hangs on a disk, and holds nobody.
pub(super) const PREFLIGHT_DEADLINE: Duration = Duration::from_secs(10);

/// What a gate does at `now`, by `CLOCK_BOOTTIME`.
pub fn judge(words: &Words, terms: Terms, now: Duration) -> Verdict {
    let open = |state, why: &str| Verdict::Open {
        state,
        why: why.to_owned(),
    };
    let mut since = now;
    if let Some(record) = words.record.get() {
        match record.state {
            GateState::Held => since = record.since.min(now),
            GateState::Released | GateState::Passed | GateState::DeadMan => {
                return open(record.state, &record.why);
            }
            GateState::Absent => {}
        }
    }
    match terms.previous_shutdown {
        PreviousShutdown::FirstBoot => return open(GateState::Passed, "the first boot with this agent"),
        PreviousShutdown::Clean => return open(GateState::Passed, "the last boot was shut down in order"),
        PreviousShutdown::Unclean => {}
    }
    if let Some(release) = words.release.get() {
        return released(words, release, terms, since, now);
    }
    if terms.dry_run {
        return open(GateState::Passed, "dry-run: it would have held the kubelet");
    }
    let opens_at = spoken_to_at(words, since, now).saturating_add(terms.dead_man);
    if now >= opens_at {
        let blockers = blockers(words).unwrap_or_default();
        let mut why = format!("nobody has spoken to it for {} s", terms.dead_man.as_secs());
        if !blockers.is_empty() {
            why = format!(
                "{why}; it opens though these stood in the way: {}",
                blockers.join("; ")
            );
        }
        return open(GateState::DeadMan, &why);
    }
    Verdict::Hold { since, opens_at }
}

/// What the pre-flight last said; `None` before its first answer.
fn blockers(words: &Words) -> Option<&[String]> {
    words.record.get()?.blockers.as_deref()
}

/// Released: it goes on at once when nothing stands in the way, and after a while whatever does. Words of the coordinator do not
/// make that longer.
fn released(words: &Words, release: &Release, terms: Terms, since: Duration, now: Duration) -> Verdict {
    let open = |rest: &str| Verdict::Open {
        state: GateState::Released,
        why: format!("released by run {}{rest}", release.run_id),
    };
    if terms.dry_run || terms.preflight_hold.is_zero() {
        return open("");
    }
    let hold = terms.preflight_hold.min(terms.dead_man);
    let (hold, late) = match blockers(words) {
        Some([]) => return open(""),
        Some(blockers) => (
            hold,
            format!(
                "; these stood in the way for {} s more: {}",
                hold.as_secs(),
                blockers.join("; ")
            ),
        ),
        None => (
            hold.min(PREFLIGHT_DEADLINE),
            "; its pre-flight did not answer".to_owned(),
        ),
    };
    let opens_at = release.at.min(now).max(since).saturating_add(hold);
    if now >= opens_at {
        return open(&late);
    }
    Verdict::Hold { since, opens_at }
}

/// When the dead-man time began: with the hold, or with the coordinator's last word. A word of the future is no word.
fn spoken_to_at(words: &Words, since: Duration, now: Duration) -> Duration {
    match words.heard.get() {
        Some(heard) if heard.at <= now => heard.at.max(since),
        _ => since,
    }
}

/// What to tell of a gate. `alive`: a process holds it.
pub(super) fn status(words: &Words, alive: bool, now: Duration) -> GateStatus {
    let mut complaints = words.complaints();
    if words.heard.get().is_some_and(|heard| heard.at > now) {
        complaints.push("gate-heard.json is ignored: it is of the future".to_owned());
    }
    let Some(record) = words.record.get() else {
        return GateStatus {
            state: GateState::Absent,
            waiting_on: String::new(),
            opens_by_itself_in: None,
            why: told("no gate has run in this boot", &complaints),
        };
    };
    match record.state {
        GateState::Absent | GateState::Released | GateState::Passed | GateState::DeadMan => GateStatus {
            state: record.state,
            waiting_on: String::new(),
            opens_by_itself_in: None,
            why: told(&record.why, &complaints),
        },
        GateState::Held if alive => held(words, record, &complaints, now),
        GateState::Held => gone(words, &complaints),
    }
}

fn held(words: &Words, record: &Record, complaints: &[String], now: Duration) -> GateStatus {
    let terms = Terms {
        previous_shutdown: PreviousShutdown::Unclean,
        dead_man: record.dead_man,
        dry_run: false,
        preflight_hold: record.preflight_hold,
    };
    let opens_at = match judge(words, terms, now) {
        Verdict::Hold { opens_at, .. } => opens_at,
        // It is about to.
        Verdict::Open { .. } => now,
    };
    let blockers = record.blockers.as_deref().unwrap_or_default().join("; ");
    let coordinator = match words.heard.get() {
        None => "the coordinator's release; nothing heard from it yet".to_owned(),
        Some(heard) if heard.waiting_on.is_empty() => {
            "the coordinator's release; it works on this node".to_owned()
        }
        Some(heard) => format!("the coordinator's release; it waits for {}", heard.waiting_on),
    };
    let waiting_on = match (words.release.get(), blockers.is_empty()) {
        (None, true) => coordinator,
        (None, false) => format!("{coordinator}; then the pre-flight: {blockers}"),
        (Some(_), true) => "the pre-flight's answer".to_owned(),
        (Some(release), false) => format!(
            "the pre-flight; released by run {}, but {blockers}",
            release.run_id
        ),
    };
    GateStatus {
        state: GateState::Held,
        waiting_on: told(&waiting_on, complaints),
        opens_by_itself_in: Some(opens_at.saturating_sub(now)),
        why: record.why.clone(),
    }
}

/// The gate's process was killed while it held: it holds nobody any more, whatever its record says.
fn gone(words: &Words, complaints: &[String]) -> GateStatus {
    let (state, why) = match words.release.get() {
        Some(release) => (GateState::Released, format!("released by run {}", release.run_id)),
        None => (
            GateState::Passed,
            "the gate's process ended without a word, and holds nobody".to_owned(),
        ),
    };
    GateStatus {
        state,
        waiting_on: String::new(),
        opens_by_itself_in: None,
        why: told(&why, complaints),
    }
}

fn told(what: &str, complaints: &[String]) -> String {
    let mut text = what.to_owned();
    for complaint in complaints {
        text.push_str("; ");
        text.push_str(complaint);
    }
    text
}

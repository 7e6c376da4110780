//! What happened on this node, told once: to the log, and to whoever else listens.
//!
//! ```text
//!  mind ──conditions──► Told ──────raised, escalated, cleared──┐
//!                                                              ├─► Reports ─┬─► log ──► journal (fields, message ids)
//!  flight ──remedies begun and ended───────────────────────────┘            └─► kubernetes (events)
//! ```
//!
//! Nobody who listens can hold the loop up: what finds no room is dropped.

pub mod journal;

use std::borrow::Cow;
use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::ledger::Outcome;

/// So many happenings wait for whoever listens.
pub(crate) const QUEUE: usize = 256;

/// A condition, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: ConditionKind,
    /// With what.
    pub subject: String,
    /// How bad.
    pub severity: Severity,
    /// What was seen; for one that is cleared, what was seen last.
    pub evidence: String,
    /// Its remedies are spent.
    pub escalated: bool,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A condition stands that did not.
    Raised(Finding),
    /// One that stood has become worse, or its remedies are spent.
    Escalated(Finding),
    /// One that stood does not any more.
    Cleared(Finding),
    /// A remedy is carried out from now on; its intent is in the ledger.
    Begun {
        /// Its name.
        remedy: &'static str,
        /// What it is done to.
        subject: String,
        /// Why.
        reason: String,
        /// Where it stands in the ledger; `None` when the ledger cannot be written.
        sequence: Option<u64>,
        /// It is only written down.
        dry_run: bool,
    },
    /// It has ended.
    Ended {
        /// Its name.
        remedy: &'static str,
        /// What it was done to.
        subject: String,
        /// How.
        outcome: Outcome,
        /// Where it stands in the ledger.
        sequence: Option<u64>,
        /// It was only written down.
        dry_run: bool,
    },
}

impl Severity {
    /// Its name in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The conditions that were told last.
#[derive(Debug, Default)]
pub(crate) struct Told(BTreeMap<ConditionKey, Finding>);

impl Told {
    /// What has happened since the last time.
    pub(crate) fn changes(&mut self, conditions: &[Condition]) -> Vec<Happening> {
        let mut happened = Vec::new();
        let mut gone = std::mem::take(&mut self.0);
        for condition in conditions {
            let finding = Finding {
                kind: condition.key.kind,
                subject: condition.key.subject.clone(),
                severity: condition.severity,
                evidence: condition.evidence.clone(),
                escalated: condition.escalated,
            };
            match gone.remove(&condition.key) {
                None => happened.push(Happening::Raised(finding.clone())),
                Some(before)
                    if finding.severity > before.severity || finding.escalated && !before.escalated =>
                {
                    happened.push(Happening::Escalated(finding.clone()));
                }
                Some(_) => {}
            }
            self.0.insert(condition.key.clone(), finding);
        }
        happened.extend(gone.into_values().map(Happening::Cleared));
        happened
    }
}

/// Where happenings are told. Clones tell to the same.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    to: mpsc::Sender<Happening>,
}

impl Reports {
    pub(crate) fn new(to: mpsc::Sender<Happening>) -> Self {
        Self { to }
    }

    /// Tells it, without waiting for anybody.
    pub(crate) fn tell(&self, happening: Happening) {
        log(&happening);
        // Full, or nobody listens: the log has it.
        let _ = self.to.try_send(happening);
    }
}

/// At one of three levels, which the macros of tracing must know when they are compiled.
macro_rules! at_level {
    ($severity:expr, $($what:tt)+) => {
        match $severity {
            Severity::Info => info!($($what)+),
            Severity::Warning => warn!($($what)+),
            Severity::Critical => error!($($what)+),
        }
    };
}

/// The messages are constants: [`journal`] knows them by their words and gives each its `MESSAGE_ID`.
fn log(happening: &Happening) {
    match happening {
        Happening::Raised(finding) => {
            let Finding {
                kind,
                subject,
                severity,
                evidence,
                escalated,
            } = finding;
            at_level!(
                *severity,
                condition = kind.as_str(),
                subject,
                severity = severity.as_str(),
                evidence,
                escalated,
                "condition raised"
            );
        }
        Happening::Escalated(finding) => error!(
            condition = finding.kind.as_str(),
            subject = finding.subject,
            severity = finding.severity.as_str(),
            evidence = finding.evidence,
            escalated = finding.escalated,
            "condition escalated"
        ),
        Happening::Cleared(finding) => info!(
            condition = finding.kind.as_str(),
            subject = finding.subject,
            severity = finding.severity.as_str(),
            evidence = finding.evidence,
            "condition cleared"
        ),
        Happening::Begun {
            remedy,
            subject,
            reason,
            sequence,
            dry_run,
        } => info!(remedy, subject, reason, sequence, dry_run, "remedy begun"),
        Happening::Ended {
            remedy,
            subject,
            outcome,
            sequence,
            dry_run,
        } => {
            let (severity, outcome, detail) = match outcome {
                Outcome::Succeeded { detail } => (Severity::Info, "succeeded", detail),
                Outcome::Failed { detail } => (Severity::Warning, "failed", detail),
            };
            at_level!(
                severity,
                remedy,
                subject,
                outcome,
                detail,
                sequence,
                dry_run,
                "remedy ended"
            );
        }
    }
}

/// In one line, whatever it says: what comes from file names, units and the kernel must not look like lines or fields of ours.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    // Also what turns the direction of a line around, or ends it for some readers.
    let bad = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if bad(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    Cow::Owned(line)
}

/// No more than `longest` bytes of it, cut between characters.
pub(crate) fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn condition(severity: Severity, escalated: bool, evidence: &str) -> Condition {
        Condition {
            key: ConditionKey {
                kind: ConditionKind::UnitFailed,
                subject: "kubelet.service".to_owned(),
            },
            severity,
            since: Instant::now(),
            evidence: evidence.to_owned(),
            escalated,
            log: None,
            heaviest: Vec::new(),
        }
    }

    #[test]
    fn each_change_is_told_once_and_other_evidence_is_none() {
        let mut standing = Told::default();
        let mut told = |conditions: &[Condition]| -> Vec<&'static str> {
            let word = |happening: &Happening| match happening {
                Happening::Raised(_) => "raised",
                Happening::Escalated(_) => "escalated",
                Happening::Cleared(finding) => {
                    assert_eq!(finding.evidence, "fourth", "what was seen last");
                    "cleared"
                }
                Happening::Begun { .. } | Happening::Ended { .. } => "remedy",
            };
            standing.changes(conditions).iter().map(word).collect()
        };
        assert_eq!(told(&[condition(Severity::Warning, false, "first")]), ["raised"]);
        assert!(told(&[condition(Severity::Warning, false, "second")]).is_empty());
        assert_eq!(
            told(&[condition(Severity::Critical, false, "third")]),
            ["escalated"]
        );
        assert_eq!(
            told(&[condition(Severity::Critical, true, "fourth")]),
            ["escalated"]
        );
        assert_eq!(told(&[]), ["cleared"]);
        assert!(told(&[]).is_empty());
    }

    #[test]
    fn nothing_makes_a_second_line() {
        assert_eq!(one_line("plain, ä, 中"), "plain, ä, 中");
        assert_eq!(
            one_line("a\nMESSAGE=b\r\u{1b}[2J\u{202e}\0"),
            "a\\nMESSAGE=b\\r\\u{1b}[2J\\u{202e}\\u{0}"
        );
        assert_eq!(cut("ää", 3), "ä");
    }
}

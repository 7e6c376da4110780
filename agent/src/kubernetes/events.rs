//! Happenings → events of the node: the same again is a count, and there are never more than a few requests.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Call, Verb};
use super::conditions::time;
use crate::condition::Severity;
use crate::ledger::Outcome;
use crate::report::{Happening, cut, one_line};

/// As the kubelet does: a node is in no namespace, its events are in this one.
const EVENTS: &str = "/api/v1/namespaces/default/events";
/// No longer, bytes.
const LONGEST: usize = 1024;
/// So many different ones are known; the one that happened longest ago is forgotten first.
const KNOWN: usize = 64;
/// One that happened no more for so long is forgotten: the API server does not keep it longer either.
const FORGET: Duration = Duration::from_hours(1);
/// The count of one is told at most so often.
const AGAIN: Duration = Duration::from_secs(30);
/// So many requests at once…
const BURST: u32 = 20;
/// …and then one in so long.
const REFILL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    reason: String,
    subject: String,
    warning: bool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    message: String,
    name: String,
    /// It is at the API server, told of at this time.
    sent: Option<Instant>,
    count: u32,
    /// What of the count was told.
    told: u32,
    first: Timestamp,
    last: Timestamp,
    at: Instant,
    /// Since when it has something to say.
    since: Instant,
}

/// A request, and what it tells.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) call: Call,
    name: String,
    count: u32,
}

/// Events that are, or are to be, at the API server.
#[derive(Debug)]
pub(super) struct Events {
    node: String,
    entries: VecDeque<Entry>,
    tokens: u32,
    refilled: Instant,
    made: u64,
}

impl Events {
    pub(super) fn new(node: &str, now: Instant) -> Self {
        Self {
            node: node.to_owned(),
            entries: VecDeque::new(),
            tokens: BURST,
            refilled: now,
            made: 0,
        }
    }

    /// Something happened.
    pub(super) fn add(&mut self, happening: &Happening, now: Instant, wall: Timestamp) {
        self.entries
            .retain(|entry| now.saturating_duration_since(entry.at) < FORGET);
        let (key, message) = words(happening);
        let known = self.entries.iter().position(|entry| entry.key == key);
        let entry = if let Some(mut entry) = known.and_then(|index| self.entries.remove(index)) {
            if entry.count == entry.told {
                entry.since = now;
            }
            entry.count = entry.count.saturating_add(1);
            (entry.message, entry.last, entry.at) = (message, wall, now);
            entry
        } else {
            self.made += 1;
            Entry {
                key,
                message,
                name: format!(
                    "{}.{:x}{:04x}",
                    self.node,
                    wall.as_nanosecond(),
                    self.made & 0xffff
                ),
                sent: None,
                count: 1,
                told: 0,
                first: wall,
                last: wall,
                at: now,
                since: now,
            }
        };
        // In the order of their last time.
        self.entries.push_back(entry);
        if self.entries.len() > KNOWN {
            self.entries.pop_front();
        }
    }

    /// When there is something to send.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let first = self.entries.iter().filter_map(Entry::due).min()?;
        let (tokens, _) = self.refill(now);
        let room = if tokens > 0 { now } else { self.refilled + REFILL };
        Some(first.max(room))
    }

    fn refill(&self, now: Instant) -> (u32, Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let gained = u32::try_from(passed.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        let tokens = self.tokens.saturating_add(gained).min(BURST);
        let since = if tokens == BURST {
            now
        } else {
            self.refilled + REFILL * gained
        };
        (tokens, since)
    }

    /// The next request: what waits longest, so that one that happens all the time has its turn too. It counts whatever becomes of it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Due> {
        (self.tokens, self.refilled) = self.refill(now);
        if self.tokens == 0 {
            return None;
        }
        let node = &self.node;
        let entry = self
            .entries
            .iter()
            .filter(|entry| entry.due().is_some_and(|at| at <= now))
            .min_by_key(|entry| entry.since)?;
        let call = if entry.sent.is_none() {
            Call {
                path: EVENTS.to_owned(),
                verb: Verb::Create(entry.object(node)),
            }
        } else {
            Call {
                path: format!("{EVENTS}/{}", entry.name),
                verb: Verb::Patch(json!({
                    "count": entry.count,
                    "lastTimestamp": time(entry.last),
                    "message": entry.message,
                })),
            }
        };
        self.tokens -= 1;
        Some(Due {
            call,
            name: entry.name.clone(),
            count: entry.count,
        })
    }

    /// It is through, or will never be.
    pub(super) fn sent(&mut self, due: &Due, now: Instant) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.name == due.name) {
            entry.sent = Some(now);
            entry.told = due.count;
        }
    }

    /// The API server does not have it any more: it is written anew.
    pub(super) fn gone(&mut self, due: &Due) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.name == due.name) {
            entry.sent = None;
            entry.told = 0;
        }
    }
}

impl Entry {
    /// When it is to be sent, if it has anything to say.
    fn due(&self) -> Option<Instant> {
        (self.count > self.told).then(|| self.sent.map_or(self.since, |sent| sent + AGAIN))
    }

    fn object(&self, node: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": "default"},
            // The kubelet writes the name as the uid, and `kubectl describe node` looks for it.
            "involvedObject": {"kind": "Node", "name": node, "uid": node},
            "reason": self.key.reason,
            "message": self.message,
            "type": if self.key.warning { "Warning" } else { "Normal" },
            "source": {"component": "blackstart-agent", "host": node},
            "firstTimestamp": time(self.first),
            "lastTimestamp": time(self.last),
            "count": self.count,
        })
    }
}

fn words(happening: &Happening) -> (Key, String) {
    let (reason, subject, warning, said) = match happening {
        Happening::Raised(finding) => (
            finding.kind.as_str().to_owned(),
            finding.subject.clone(),
            finding.severity > Severity::Info,
            &finding.evidence,
        ),
        Happening::Escalated(finding) => (
            format!("{}Escalated", finding.kind),
            finding.subject.clone(),
            true,
            &finding.evidence,
        ),
        Happening::Cleared(finding) => (
            format!("{}Cleared", finding.kind),
            finding.subject.clone(),
            false,
            &finding.evidence,
        ),
        Happening::Begun {
            remedy,
            subject,
            reason,
            ..
        } => (
            "RemedyBegun".to_owned(),
            format!("{remedy} {subject}"),
            false,
            reason,
        ),
        Happening::Ended {
            remedy,
            subject,
            outcome,
            ..
        } => {
            let (reason, warning, detail) = match outcome {
                Outcome::Succeeded { detail } => ("RemedySucceeded", false, detail),
                Outcome::Failed { detail } => ("RemedyFailed", true, detail),
            };
            (reason.to_owned(), format!("{remedy} {subject}"), warning, detail)
        }
    };
    let dry = match happening {
        Happening::Begun { dry_run: true, .. } | Happening::Ended { dry_run: true, .. } => " (dry run)",
        Happening::Begun { .. }
        | Happening::Ended { .. }
        | Happening::Raised(_)
        | Happening::Escalated(_)
        | Happening::Cleared(_) => "",
    };
    let text = format!("{subject}{dry}: {said}");
    let message = cut(&one_line(&text), LONGEST).to_owned();
    let key = Key {
        reason,
        subject,
        warning,
    };
    (key, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::ConditionKind;
    use crate::report::Finding;

    fn raised(subject: &str) -> Happening {
        Happening::Raised(Finding {
            kind: ConditionKind::UnitFailed,
            subject: subject.to_owned(),
            severity: Severity::Critical,
            evidence: "it failed".to_owned(),
            escalated: false,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_again_is_a_count_and_a_flood_is_a_few_requests() {
        let now = Instant::now();
        let wall = Timestamp::from_second(1_700_000_000).unwrap();
        let mut events = Events::new("worker-1", now);
        events.add(&raised("a"), now, wall);
        let due = events.next(now).unwrap();
        let Verb::Create(object) = &due.call.verb else {
            panic!("{due:?}");
        };
        assert_eq!(
            (&object["count"], &object["type"]),
            (&json!(1), &json!("Warning"))
        );
        events.sent(&due, now);
        assert!(events.next(now).is_none() && events.due(now).is_none());
        for _ in 0..5 {
            events.add(&raised("a"), now, wall);
        }
        assert_eq!(events.due(now), Some(now + AGAIN));
        let later = now + AGAIN;
        let due = events.next(later).unwrap();
        assert!(
            matches!(&due.call.verb, Verb::Patch(patch) if patch["count"] == 6),
            "{due:?}"
        );
        assert!(
            due.call
                .path
                .starts_with("/api/v1/namespaces/default/events/worker-1.")
        );
        events.gone(&due);
        let again = events.next(later).unwrap();
        assert!(matches!(&again.call.verb, Verb::Create(object) if object["count"] == 6));
        events.sent(&again, later);

        let mut requests = 0;
        for number in 0..1000 {
            events.add(&raised(&format!("unit-{number}")), later, wall);
            while let Some(due) = events.next(later) {
                requests += 1;
                events.sent(&due, later);
            }
        }
        assert!(requests <= BURST, "{requests}");
        assert!(events.entries.len() <= KNOWN);
        let next = events.due(later).unwrap();
        assert!(next > later && next <= later + REFILL);
    }
}

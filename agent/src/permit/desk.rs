//! What is wished for, and what became of it. Pure but for the ids that it is given the beginning of.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::info;

use super::{ASK_ANEW, Answer, PermitKind, Said, Saying, Use, Verdict, Wish};

/// More returns are not kept: the coordinator finds by itself that the oldest is over.
const RETURNS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Asked for; what the coordinator said to it.
    Asked { told: Option<String> },
    /// It may be begun.
    Granted { until: Instant, epoch: u64 },
    /// Not so; asked for anew after this.
    Refused { why: String, again: Instant },
    /// What it was for is under way.
    Used,
    /// It is to be given back.
    Over(Use),
}

#[derive(Debug, Clone)]
struct Entry {
    id: String,
    wish: Wish,
    state: State,
}

impl Entry {
    fn is(&self, kind: PermitKind, subject: &str) -> bool {
        self.wish.kind == kind && self.wish.subject == subject && !matches!(self.state, State::Over(_))
    }
}

/// The wishes of one agent process.
#[derive(Debug)]
pub struct Desk {
    /// No other process of this node has the same.
    process: u64,
    next: u64,
    entries: Vec<Entry>,
}

impl Desk {
    /// `process` is in every id: no two processes of a node have the same.
    pub const fn new(process: u64) -> Self {
        Self {
            process,
            next: 0,
            entries: Vec::new(),
        }
    }

    /// These are the wishes now.
    pub fn want(&mut self, wishes: &[Wish], now: Instant) {
        for entry in &mut self.entries {
            let wanted = wishes.iter().any(|wish| entry.is(wish.kind, &wish.subject));
            match &entry.state {
                State::Asked { .. } if !wanted => entry.state = State::Over(Use::Unused),
                State::Granted { until, .. } if !wanted || *until <= now => {
                    entry.state = State::Over(Use::Unused);
                }
                State::Asked { .. }
                | State::Granted { .. }
                | State::Refused { .. }
                | State::Used
                | State::Over(_) => {}
            }
        }
        self.entries.retain(|entry| match &entry.state {
            State::Refused { again, .. } => {
                *again > now && wishes.iter().any(|wish| entry.is(wish.kind, &wish.subject))
            }
            State::Asked { .. } | State::Granted { .. } | State::Used | State::Over(_) => true,
        });
        let over = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.state, State::Over(_)));
        let mut surplus = over.count().saturating_sub(RETURNS);
        self.entries.retain(|entry| {
            let goes = surplus > 0 && matches!(entry.state, State::Over(_));
            surplus -= usize::from(goes);
            !goes
        });
        for wish in wishes {
            if self
                .entries
                .iter()
                .any(|entry| entry.is(wish.kind, &wish.subject))
            {
                continue;
            }
            self.next += 1;
            let id = format!(
                "{}/{}@{:016x}-{}",
                wish.kind, wish.subject, self.process, self.next
            );
            info!(
                id,
                reason = wish.reason,
                "the coordinator is asked for its permit"
            );
            self.entries.push(Entry {
                id,
                wish: wish.clone(),
                state: State::Asked { told: None },
            });
        }
    }

    /// The coordinator says something.
    pub fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(at) = self.entries.iter().position(|entry| entry.id == answer.id) else {
            return;
        };
        let entry = &mut self.entries[at];
        match (&entry.state, answer.verdict) {
            (State::Over(_), Verdict::Returned) => {
                self.entries.remove(at);
            }
            (State::Asked { .. } | State::Granted { .. }, Verdict::Granted { until }) => {
                info!(id = entry.id, epoch = answer.epoch, "permitted");
                let epoch = answer.epoch;
                entry.state = State::Granted { until, epoch };
            }
            (State::Asked { .. } | State::Granted { .. }, Verdict::Wait { on }) => {
                entry.state = State::Asked { told: Some(on) };
            }
            (State::Asked { .. } | State::Granted { .. }, Verdict::Refused { why }) => {
                info!(id = entry.id, why, "not permitted");
                let again = now + ASK_ANEW;
                entry.state = State::Refused { why, again };
            }
            // What is under way is not taken back by a word, and what is over is only returned.
            (
                State::Used | State::Over(_) | State::Refused { .. },
                Verdict::Granted { .. } | Verdict::Wait { .. } | Verdict::Refused { .. },
            )
            | (
                State::Asked { .. } | State::Granted { .. } | State::Refused { .. } | State::Used,
                Verdict::Returned,
            ) => {}
        }
    }

    /// What a permit is for begins. The epoch of the permit; `None`: it is done without one.
    pub fn used(&mut self, kind: PermitKind, subject: &str) -> Option<u64> {
        let entry = self.entries.iter_mut().find(|entry| entry.is(kind, subject))?;
        let epoch = match entry.state {
            State::Granted { epoch, .. } => Some(epoch),
            State::Asked { .. } | State::Refused { .. } | State::Used | State::Over(_) => None,
        };
        entry.state = State::Used;
        epoch
    }

    /// What was under way on this subject has ended.
    pub fn ended(&mut self, subject: &str, how: Use) {
        if let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| entry.state == State::Used && entry.wish.subject == subject)
        {
            entry.state = State::Over(how);
        }
    }

    /// What may be begun now, and until when.
    pub fn granted(&self) -> BTreeMap<(PermitKind, String), Instant> {
        let granted = self.entries.iter().filter_map(|entry| match entry.state {
            State::Granted { until, .. } => Some(((entry.wish.kind, entry.wish.subject.clone()), until)),
            State::Asked { .. } | State::Refused { .. } | State::Used | State::Over(_) => None,
        });
        granted.collect()
    }

    /// What the coordinator said of the others.
    pub fn told(&self) -> BTreeMap<(PermitKind, String), String> {
        let told = self.entries.iter().filter_map(|entry| {
            let told = match &entry.state {
                State::Asked { told } => told.clone()?,
                State::Refused { why, .. } => format!("it is refused: {why}"),
                State::Granted { .. } | State::Used | State::Over(_) => return None,
            };
            Some(((entry.wish.kind, entry.wish.subject.clone()), told))
        });
        told.collect()
    }

    /// What the coordinator is to know.
    pub fn said(&self) -> Vec<Said> {
        let said = self.entries.iter().filter_map(|entry| {
            let what = match &entry.state {
                State::Asked { .. } | State::Granted { .. } | State::Used => Saying::Ask(entry.wish.clone()),
                State::Over(how) => Saying::Return(how.clone()),
                State::Refused { .. } => return None,
            };
            let id = entry.id.clone();
            Some(Said { id, what })
        });
        said.collect()
    }

    /// When something changes by time alone.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let changes = self.entries.iter().filter_map(|entry| match &entry.state {
            State::Granted { until: at, .. } | State::Refused { again: at, .. } => Some(*at),
            State::Asked { .. } | State::Used | State::Over(_) => None,
        });
        changes.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KIND: PermitKind = PermitKind::RuntimeRestart;

    fn wish() -> Wish {
        Wish {
            kind: KIND,
            subject: "docker.service".to_owned(),
            reason: "it hangs".to_owned(),
        }
    }

    fn says(desk: &mut Desk, id: &str, verdict: Verdict, now: Instant) {
        let id = id.to_owned();
        desk.answered(
            Answer {
                id,
                epoch: 7,
                verdict,
            },
            now,
        );
    }

    #[test]
    fn a_wish_is_asked_for_used_and_given_back_until_that_is_taken_in() {
        let now = Instant::now();
        let mut desk = Desk::new(1);
        desk.want(&[wish()], now);
        desk.want(&[wish()], now);
        let said = desk.said();
        assert!(
            matches!(
                said[..],
                [Said {
                    what: Saying::Ask(_),
                    ..
                }]
            ),
            "{said:?}"
        );
        let id = said[0].id.clone();
        says(&mut desk, &id, Verdict::Wait { on: "m-2".to_owned() }, now);
        assert_eq!(desk.told().values().collect::<Vec<_>>(), ["m-2"]);
        assert!(desk.granted().is_empty());
        let until = now + Duration::from_mins(1);
        says(&mut desk, &id, Verdict::Granted { until }, now);
        assert_eq!(desk.granted().len(), 1);
        assert_eq!(desk.used(KIND, "docker.service"), Some(7));
        // Under way: still said, and no word takes it back.
        desk.want(&[], now);
        says(&mut desk, &id, Verdict::Refused { why: String::new() }, now);
        assert!(matches!(desk.said()[0].what, Saying::Ask(_)));
        let detail = "answers".to_owned();
        desk.ended("docker.service", Use::Succeeded { detail });
        // The next wish is another request, and the return of the first is not forgotten for it.
        desk.want(&[wish()], now);
        assert_eq!(desk.said().len(), 2);
        assert_ne!(desk.said()[1].id, id);
        says(&mut desk, &id, Verdict::Returned, now);
        assert_eq!(desk.said().len(), 1);
    }

    #[test]
    fn what_is_not_wished_for_any_more_or_not_begun_in_time_goes_back_unused() {
        let now = Instant::now();
        let later = now + Duration::from_mins(1);
        for (wishes, at) in [(vec![], now), (vec![wish()], later)] {
            let mut desk = Desk::new(1);
            desk.want(&[wish()], now);
            let id = desk.said()[0].id.clone();
            says(&mut desk, &id, Verdict::Granted { until: later }, now);
            assert_eq!(desk.next_change(now), Some(later));
            desk.want(&wishes, at);
            assert!(desk.granted().is_empty());
            assert_eq!(
                desk.said()[0],
                Said {
                    id,
                    what: Saying::Return(Use::Unused)
                }
            );
            assert_eq!(desk.said().len(), 1 + wishes.len());
        }
    }

    #[test]
    fn a_refusal_is_asked_anew_after_a_while() {
        let now = Instant::now();
        let mut desk = Desk::new(1);
        desk.want(&[wish()], now);
        let id = desk.said()[0].id.clone();
        says(
            &mut desk,
            &id,
            Verdict::Refused {
                why: "a worker".to_owned(),
            },
            now,
        );
        assert_eq!(desk.said(), []);
        assert!(desk.told().values().all(|told| told.contains("a worker")));
        desk.want(&[wish()], now + ASK_ANEW);
        assert_ne!(desk.said()[0].id, id);
    }
}

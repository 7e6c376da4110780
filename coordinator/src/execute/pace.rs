//! How many nodes of a cluster may be starting at once: by how its API server answers. Pure.
//!
//! Thousands of kubelets that start at once list and watch everything at once. An API server that answers them too slowly is asked again by
//! all of them, and may never recover. So the window opens slowly and closes fast:
//!
//! ```text
//!  answer                                                     window
//!  200 within latency_good, and the window is used     ──►    + increase, once an interval
//!  200, slower                                         ──►    as it is
//!  200 after latency_bad; 429, 5xx, time-out, refused  ──►    halved, once an interval; never below 1
//!  nothing is known (agents that do not tell)          ──►    + 1 for each node that comes up
//!  a node that fails                                   ──►    halved
//! ```
//!
//! A word counts only if it is younger than the last move that it would follow: what was said before a cut says nothing of what the cut did.
//! Of several masters the median is believed: one that is ill does not stop the fleet, and one that is idle does not hide that the others are not.
//! The window is only in memory. After a crash of the coordinator, and when a control plane is lost, it begins anew at its initial size.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::view::{ApiServerAnswer, ApiServerError};
use crate::policy::WavePolicy;

/// One word about the API server of a cluster: of an agent on a master, or of a client of the coordinator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback {
    /// How it answered.
    pub answer: ApiServerAnswer,
    /// When.
    pub at: Instant,
}

/// What a word is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has room for more.
    Good,
    /// It has enough to do.
    Slow,
    /// It has too much to do.
    Bad,
}

impl Feedback {
    /// What this is taken for.
    pub fn verdict(&self, wave: &WavePolicy) -> Verdict {
        match self.answer {
            ApiServerAnswer::Ready(took) if took <= wave.latency_good => Verdict::Good,
            ApiServerAnswer::Ready(took) if took < wave.latency_bad => Verdict::Slow,
            ApiServerAnswer::Ready(_) | ApiServerAnswer::Failed(_) => Verdict::Bad,
        }
    }

    /// The longer it took, the worse; any failure is worse than any answer.
    fn badness(&self) -> Duration {
        match self.answer {
            ApiServerAnswer::Ready(took) => took,
            ApiServerAnswer::Failed(_) => Duration::MAX,
        }
    }
}

/// The word that is believed of several masters': the median, of an even number the worse one.
pub fn median(words: impl IntoIterator<Item = Feedback>) -> Option<Feedback> {
    let mut words: Vec<_> = words.into_iter().collect();
    words.sort_by_key(Feedback::badness);
    words.get(words.len() / 2).copied()
}

/// The worse of two words, if there are two.
pub fn worse(one: Option<Feedback>, other: Option<Feedback>) -> Option<Feedback> {
    [one, other].into_iter().flatten().max_by_key(Feedback::badness)
}

/// A window as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// So many at once.
    pub window: usize,
    /// What it goes by now; `None`: nobody tells.
    pub heard: Option<Feedback>,
    /// The last time that it grew, or could have.
    grown: Option<Instant>,
    cut: Option<Instant>,
}

impl Pace {
    /// A window at its initial size.
    pub const fn new(initial: usize) -> Self {
        Self {
            window: initial,
            heard: None,
            grown: None,
            cut: None,
        }
    }

    /// What a word (`None`: nobody tells) makes of it, with so many under way.
    #[must_use]
    pub fn hear(
        mut self,
        heard: Option<Feedback>,
        in_flight: usize,
        max: usize,
        now: Instant,
        wave: &WavePolicy,
    ) -> Self {
        self.heard = heard;
        let Some(word) = heard else {
            self.grown = None;
            return self;
        };
        let since = |at: Option<Instant>| at.is_none_or(|at| now >= at + wave.interval && word.at > at);
        match word.verdict(wave) {
            Verdict::Good => {
                // What is not used proves nothing about more.
                let first = *self.grown.get_or_insert(now);
                if in_flight >= self.window && since(Some(first)) && since(self.cut) {
                    self.window = self.window.saturating_add(wave.increase).min(max);
                    self.grown = Some(now);
                }
            }
            Verdict::Slow => self.grown = Some(now),
            Verdict::Bad => {
                self.grown = Some(now);
                if since(self.cut) {
                    self.window = (self.window / 2).max(1);
                    self.cut = Some(now);
                }
            }
        }
        self
    }

    /// A node has come up.
    pub fn came_up(&mut self, max: usize) {
        if self.heard.is_none() {
            self.window = (self.window + 1).min(max);
        }
    }

    /// A node has failed.
    pub fn failed(&mut self) {
        self.window = (self.window / 2).max(1);
    }
}

impl fmt::Display for ApiServerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(took) => write!(f, "{} ms", took.as_millis()),
            Self::Failed(ApiServerError::Overloaded) => f.write_str("429: overloaded"),
            Self::Failed(ApiServerError::Unavailable) => f.write_str("5xx: not ready"),
            Self::Failed(ApiServerError::TimedOut) => f.write_str("timed out"),
            Self::Failed(ApiServerError::Refused) => f.write_str("refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX: usize = 20;

    fn wave() -> WavePolicy {
        WavePolicy {
            initial: 4,
            max: MAX,
            increase: 3,
            interval: 5 * SECOND,
            latency_good: Duration::from_millis(500),
            latency_bad: 2 * SECOND,
        }
    }

    /// A lane that is always full, and an API server whose answers are scripted, one a second.
    fn windows(answers: &[ApiServerAnswer]) -> Vec<usize> {
        let begin = Instant::now();
        let mut pace = Pace::new(4);
        (0..)
            .zip(answers)
            .map(|(second, answer)| {
                let now = begin + second * SECOND;
                let word = Feedback {
                    answer: *answer,
                    at: now,
                };
                pace = pace.hear(Some(word), pace.window, MAX, now, &wave());
                pace.window
            })
            .collect()
    }

    const fn ms(milliseconds: u64) -> ApiServerAnswer {
        ApiServerAnswer::Ready(Duration::from_millis(milliseconds))
    }

    #[test]
    fn opens_slowly_closes_fast_and_never_wholly() {
        let good = windows(&[ms(80); 40]);
        assert_eq!(good[..11], [4, 4, 4, 4, 4, 7, 7, 7, 7, 7, 10]);
        assert_eq!(good[39], MAX);

        let slow = windows(&[ms(900); 40]);
        assert_eq!(slow[39], 4, "neither more nor less");

        let overloaded = windows(&[ApiServerAnswer::Failed(ApiServerError::Overloaded); 20]);
        assert_eq!(overloaded[..11], [2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        assert_eq!(windows(&[ms(2000)]), [2]);
    }

    #[test]
    fn what_was_said_before_a_cut_does_not_cut_again() {
        let begin = Instant::now();
        let said_at = |at, answer| Some(Feedback { answer, at });
        let cut = Pace::new(16).hear(said_at(begin, ms(3000)), 16, MAX, begin, &wave());
        assert_eq!(cut.window, 8);
        let later = begin + 10 * SECOND;
        assert_eq!(
            cut.hear(said_at(begin, ms(3000)), 8, MAX, later, &wave()).window,
            8
        );
        assert_eq!(
            cut.hear(said_at(later, ms(3000)), 8, MAX, later, &wave()).window,
            4
        );
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let begin = Instant::now();
        let mut pace = Pace::new(4);
        for second in 0..60 {
            let now = begin + second * SECOND;
            let word = Feedback {
                answer: ms(10),
                at: now,
            };
            pace = pace.hear(Some(word), 3, MAX, now, &wave());
        }
        assert_eq!(pace.window, 4);
    }

    #[test]
    fn without_a_word_nodes_that_come_up_open_it() {
        let now = Instant::now();
        let mut pace = Pace::new(4).hear(None, 4, MAX, now, &wave());
        pace.came_up(MAX);
        assert_eq!(pace.window, 5);
        let word = Feedback {
            answer: ms(10),
            at: now,
        };
        let mut told = pace.hear(Some(word), 5, MAX, now, &wave());
        told.came_up(MAX);
        assert_eq!(told.window, 5);
        told.failed();
        assert_eq!(told.window, 2);
    }

    #[test]
    fn one_master_of_three_neither_stops_the_fleet_nor_hides_the_others() {
        let at = Instant::now();
        let word = |answer| Feedback { answer, at };
        let dead = word(ApiServerAnswer::Failed(ApiServerError::Refused));
        let (quick, slow) = (word(ms(20)), word(ms(3000)));
        assert_eq!(median([dead, quick, quick]), Some(quick));
        assert_eq!(median([quick, slow, slow]), Some(slow));
        assert_eq!(median([quick, dead]), Some(dead));
        assert_eq!(median([]), None);
        assert_eq!(worse(Some(quick), Some(slow)), Some(slow));
        assert_eq!(worse(None, Some(slow)), Some(slow));
    }
}

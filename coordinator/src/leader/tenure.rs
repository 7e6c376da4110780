//! For how long this coordinator may act.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// The right to act, looked at right before every act. Cheap to clone; all clones are one right.
#[derive(Debug, Clone, Default)]
pub struct Tenure {
    /// `None`: there is one coordinator, which always leads.
    term: Option<Arc<Term>>,
}

#[derive(Debug)]
struct Term {
    /// Nanoseconds since boot.
    until: AtomicU64,
    over: CancellationToken,
    why: OnceLock<String>,
}

impl Tenure {
    /// Of a coordinator that is the only one.
    pub const fn alone() -> Self {
        Self { term: None }
    }

    /// Until the machine has been up for so long, unless it is extended.
    pub(crate) fn until(at: Duration) -> Self {
        let term = Term {
            until: AtomicU64::new(nanos(at)),
            over: CancellationToken::new(),
            why: OnceLock::new(),
        };
        Self {
            term: Some(Arc::new(term)),
        }
    }

    /// May this coordinator act now?
    pub fn holds(&self) -> bool {
        self.term.is_none() || !self.left(uptime()).is_zero()
    }

    /// What is left of it at a time since boot. Zero once it has ended, whatever the time.
    pub(crate) fn left(&self, now: Duration) -> Duration {
        let Some(term) = &self.term else {
            return Duration::MAX;
        };
        if term.over.is_cancelled() {
            return Duration::ZERO;
        }
        Duration::from_nanos(term.until.load(Ordering::Acquire)).saturating_sub(now)
    }

    /// The lease was renewed. A tenure that is over, or once was by the clock, is never taken up again.
    pub(crate) fn extend(&self, now: Duration, until: Duration) {
        if self.left(now).is_zero() {
            self.end("the lease was not renewed in time");
        } else if let Some(term) = &self.term {
            term.until.fetch_max(nanos(until), Ordering::AcqRel);
        }
    }

    /// It is over. The first reason counts.
    pub(crate) fn end(&self, why: impl Into<String>) {
        if let Some(term) = &self.term {
            let _earlier = term.why.set(why.into());
            term.over.cancel();
        }
    }

    /// Until it is over: why. Somebody has to look at the clock meanwhile (the keeper does).
    pub(crate) async fn ended(&self) -> String {
        match &self.term {
            Some(term) => {
                term.over.cancelled().await;
                term.why.get().cloned().unwrap_or_default()
            }
            None => std::future::pending().await,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Since boot, with the time in which the machine slept. It goes on while this process is stopped.
pub(crate) fn uptime() -> Duration {
    // A clock that cannot be read must end every tenure.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_holds_as_long_as_it_is_extended_in_time_and_never_again_after_that() {
        let tenure = Tenure::until(s(10));
        assert_eq!(tenure.left(s(4)), s(6));
        tenure.extend(s(9), s(14));
        assert_eq!(tenure.left(s(13)), s(1));
        // An answer to a renewal that was asked for long ago does not shorten it.
        tenure.extend(s(13), s(12));
        assert_eq!(tenure.left(s(13)), s(1));
        // It woke up too late: the renewal is too late as well.
        tenure.extend(s(15), s(20));
        assert_eq!(tenure.left(s(15)), s(0));
        assert!(!tenure.holds());
    }

    #[tokio::test]
    async fn the_first_reason_for_its_end_is_told() {
        let tenure = Tenure::until(Duration::MAX);
        assert!(tenure.holds());
        tenure.end("first");
        tenure.end("second");
        assert!(!tenure.holds());
        assert_eq!(tenure.ended().await, "first");
        assert!(Tenure::alone().holds());
    }
}

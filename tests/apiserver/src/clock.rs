//! The time that the double and its cluster live in.
//!
//! A real clock may run faster than the world's, so that forty seconds without a heartbeat pass in one; a manual clock stands still
//! until its owner moves it, so that a test decides what has happened by when.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A clock that all clones share.
#[derive(Clone, Debug)]
pub struct Clock {
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    Running {
        wall: Timestamp,
        started: Instant,
        speed: u32,
    },
    Manual(Mutex<Timestamp>),
}

impl Clock {
    /// The world's time, `speed` times as fast (1 is real time).
    pub fn running(speed: u32) -> Self {
        let kind = Kind::Running {
            wall: Timestamp::now(),
            started: Instant::now(),
            speed: speed.max(1),
        };
        Self { kind: Arc::new(kind) }
    }

    /// A clock that stands at the present until somebody moves it.
    pub fn manual() -> Self {
        Self {
            kind: Arc::new(Kind::Manual(Mutex::new(Timestamp::now()))),
        }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        match &*self.kind {
            Kind::Running { wall, started, speed } => {
                let passed = started.elapsed().saturating_mul(*speed);
                *wall + SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX)
            }
            Kind::Manual(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a manual clock; a running one goes on by itself.
    pub(crate) fn advance(&self, by: Duration) {
        if let Kind::Manual(now) = &*self.kind {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            *now += SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        }
    }

    /// How long a running clock takes for `duration`; nothing for a manual one.
    pub(crate) fn real(&self, duration: Duration) -> Option<Duration> {
        match &*self.kind {
            Kind::Running { speed, .. } => Some(duration / *speed),
            Kind::Manual(_) => None,
        }
    }
}

/// RFC 3339 in whole seconds, as `metav1.Time` is written.
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in microseconds, as `metav1.MicroTime` is written.
pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A time as it was written, if it is one.
pub fn parse(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|text| text.parse().ok())
}

/// Whole seconds from `since` to `now`.
pub fn elapsed(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

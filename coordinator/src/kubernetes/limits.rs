//! How many requests a cluster may be asked: a budget of our own, and the server's wish to be left alone. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// No server is obeyed that wants to be left alone for longer.
const LONGEST: Duration = Duration::from_mins(1);

/// A bucket of requests that fills with time.
#[derive(Debug)]
pub(super) struct Limits {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
    /// Until then the server wants to be left alone.
    not_before: Option<Instant>,
}

impl Limits {
    /// So many a second, and twice as many at once.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let burst = f64::from(per_second) * 2.0;
        Self {
            per_second: f64::from(per_second),
            burst,
            tokens: burst,
            filled: now,
            not_before: None,
        }
    }

    /// Takes one request's worth, or says when to ask again.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return Err(until);
        }
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }

    /// The server said 429 (or 503 with a time): its priority and fairness has no seat for us.
    pub(super) fn leave_alone(&mut self, wish: Duration, now: Instant) {
        let until = now + wish.min(LONGEST);
        self.not_before = Some(self.not_before.map_or(until, |before| before.max(until)));
    }

    /// So long the server is still left alone.
    pub(super) fn left_alone(&self, now: Instant) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_and_then_only_as_many_as_the_budget_has() {
        let now = Instant::now();
        let mut limits = Limits::new(10, now);
        let burst = (0..100).take_while(|_| limits.take(now).is_ok()).count();
        assert_eq!(burst, 20);
        let next = limits.take(now).unwrap_err();
        assert_eq!(next - now, Duration::from_millis(100));
        assert!(limits.take(next).is_ok());
        assert!(limits.take(next).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_wants_to_be_left_alone_is_but_not_for_ever() {
        let now = Instant::now();
        let mut limits = Limits::new(10, now);
        limits.leave_alone(Duration::from_secs(3), now);
        limits.leave_alone(Duration::from_secs(1), now);
        assert_eq!(limits.take(now), Err(now + Duration::from_secs(3)));
        assert!(limits.take(now + Duration::from_secs(3)).is_ok());
        limits.leave_alone(Duration::from_hours(1), now);
        assert_eq!(limits.take(now), Err(now + LONGEST));
    }
}

//! When to try again, and where.

use std::time::Duration;

use rand::Rng;

/// The first wait is a random share of this…
const FIRST: Duration = Duration::from_millis(250);
/// …and each round doubles it, up to this.
const CAP: Duration = Duration::from_secs(5);

/// Goes through the addresses in turn, and stays with one that works.
#[derive(Debug)]
pub(super) struct Backoff {
    addresses: usize,
    turn: usize,
    failures: usize,
}

impl Backoff {
    /// `addresses` of them, at least one.
    pub(super) fn new(addresses: usize) -> Self {
        Self {
            addresses,
            turn: 0,
            failures: 0,
        }
    }

    /// Which address to try.
    pub(super) fn turn(&self) -> usize {
        self.turn
    }

    /// It did not work: the next one.
    pub(super) fn failed(&mut self) {
        self.turn = (self.turn + 1) % self.addresses;
        self.failures = self.failures.saturating_add(1);
    }

    /// Another coordinator said that this one leads.
    pub(super) fn sent_on(&mut self, turn: usize) {
        self.turn = turn;
    }

    /// It worked, for a while: from now on as at the beginning, with the same one first.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now: fully jittered, so that a fleet does not come back in step.
    pub(super) fn wait(&self, random: &mut impl Rng) -> Duration {
        self.longest().mul_f64(random.random_range(0.0..1.0))
    }

    fn longest(&self) -> Duration {
        let rounds = u32::try_from(self.failures / self.addresses).unwrap_or(u32::MAX);
        FIRST.saturating_mul(2_u32.saturating_pow(rounds)).min(CAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_through_the_addresses_and_waits_longer_each_round_up_to_a_bound() {
        let mut backoff = Backoff::new(2);
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push((backoff.turn(), backoff.longest().as_millis()));
            backoff.failed();
        }
        assert_eq!(
            seen,
            [(0, 250), (1, 250), (0, 500), (1, 500), (0, 1000), (1, 1000)]
        );
        for _ in 0..100_000 {
            backoff.failed();
        }
        assert_eq!(backoff.longest(), CAP);
        assert!(backoff.wait(&mut rand::rng()) <= CAP);
    }

    #[test]
    fn a_session_that_worked_makes_it_quick_again_at_the_same_address() {
        let mut backoff = Backoff::new(3);
        for _ in 0..10 {
            backoff.failed();
        }
        let turn = backoff.turn();
        backoff.succeeded();
        assert_eq!((backoff.turn(), backoff.longest()), (turn, FIRST));
    }
}

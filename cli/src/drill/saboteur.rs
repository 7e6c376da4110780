//! Somebody who breaks a law on purpose: a drill that could not fail would prove nothing.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::Sabotage;
use super::show::{Seat, Stage};
use super::topology::Role;
use crate::failure::Failure;

/// A saboteur is at work so long after his victim waits.
const BEFORE_SABOTAGE: Duration = Duration::from_millis(300);

/// Does behind the coordinator's back what should never be done, to show that the drill would find it.
#[derive(Debug)]
pub(super) struct Saboteur {
    what: Sabotage,
    victim: Option<(String, Instant)>,
    done: bool,
}

impl Saboteur {
    pub(super) const fn new(what: Sabotage) -> Self {
        Self {
            what,
            victim: None,
            done: false,
        }
    }

    /// `runtime`: where a machine keeps its runtime files.
    pub(super) fn work(
        &mut self,
        seats: &[Seat<'_>],
        runtime: impl FnOnce(&str) -> Result<PathBuf, Failure>,
    ) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        let now = Instant::now();
        let Some((name, since)) = &self.victim else {
            self.victim = self.choose(seats).map(|name| (name.to_owned(), now));
            return Ok(());
        };
        if *since + BEFORE_SABOTAGE > now {
            return Ok(());
        }
        self.done = true;
        blackstart_agent::gate::release(&runtime(name)?, "sabotage")
            .map_err(|error| Failure::other(format!("sabotage the gate of {name}: {error}")))
    }

    /// One that is held, in a cluster whose turn comes last.
    fn choose<'a>(&self, seats: &[Seat<'a>]) -> Option<&'a str> {
        let role = match self.what {
            Sabotage::EarlyWorker => Role::Worker,
            Sabotage::EarlyMaster => Role::Master,
        };
        let last = seats.last()?.cluster;
        let mut candidates = seats
            .iter()
            .filter(|seat| seat.role == role && seat.cluster == last);
        candidates
            .find(|seat| seat.stage == Stage::Held)
            .map(|seat| seat.name)
    }
}

//! What all connections share: the world behind its lock, the faults, the record of requests.

use crate::access::Access;
use crate::clock::Clock;
use crate::controllers;
use crate::faults::Faults;
use crate::world::World;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Who asked.
    pub user: String,
    /// `get`, `list` …
    pub verb: String,
    /// The API group, empty for the core.
    pub group: String,
    /// The resource, or empty for other paths.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// The path without its query.
    pub path: String,
    /// The status of the answer; 0 if none was given.
    pub code: u16,
    /// When it was answered, by the double's clock.
    pub at: Timestamp,
    /// The newest revision when it was asked: what it changed has a later one.
    pub revision: u64,
    /// What it would have written, of requests that change something; `null` for others, and for what is no JSON.
    pub body: Value,
}

impl Recorded {
    /// It would have changed something, whatever the answer was.
    pub fn is_change(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }
}

/// How many requests are remembered.
const REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) metrics: bool,
    pub(crate) access: Mutex<Access>,
    pub(crate) faults: Mutex<Faults>,
    /// The newest revision.
    pub(crate) changed: watch::Sender<u64>,
    /// Rises when watches are cut.
    pub(crate) cut: watch::Sender<u64>,
    /// Rises when the faults change.
    pub(crate) mended: watch::Sender<u64>,
    world: Mutex<World>,
    requests: Mutex<Vec<Recorded>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(clock: Clock, metrics: bool, access: Access, world: World) -> Self {
        Self {
            clock,
            metrics,
            access: Mutex::new(access),
            faults: Mutex::new(Faults::default()),
            changed: watch::Sender::new(world.store.revision()),
            cut: watch::Sender::new(0),
            mended: watch::Sender::new(0),
            world: Mutex::new(world),
            requests: Mutex::new(Vec::new()),
        }
    }

    /// Looks at the world.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&lock(&self.world))
    }

    /// Changes the world at the present of its clock. The disruption budgets are counted anew before anybody else sees it.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.world);
        let before = world.store.revision();
        world.now = self.clock.now();
        let result = change(&mut world);
        if world.store.revision() != before {
            controllers::disruption::pass(&mut world);
            self.changed.send_replace(world.store.revision());
        }
        result
    }

    pub(crate) fn record(&self, request: Recorded) {
        let mut requests = lock(&self.requests);
        if requests.len() < REMEMBERED {
            requests.push(request);
        }
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        lock(&self.requests).clone()
    }

    pub(crate) fn forget_requests(&self) {
        lock(&self.requests).clear();
    }
}

/// A manual clock is moved in steps no longer than this, with everything that is due in between.
const STEP: Duration = Duration::from_secs(1);

impl Shared {
    /// Changes the faults, and cuts off what hung.
    pub(crate) fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.faults));
        self.mended.send_modify(|count| *count += 1);
    }

    /// Lets the controllers look at the world again.
    pub(crate) fn poke(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Moves a manual clock; the controllers do what becomes due on the way.
    pub(crate) fn advance(&self, by: Duration) {
        self.write(controllers::settle);
        let mut left = by;
        while !left.is_zero() {
            let step = left.min(STEP);
            self.clock.advance(step);
            self.write(controllers::settle);
            left -= step;
        }
    }
}

//! A copy of the store that goes with etcd, so that a coordinator that follows can answer from it, also while etcd is away.
//!
//! It is read whole once, and then follows what is written. How fresh it is, is not believed of the watch: the turn, which every
//! write of a leader writes, is read from a majority once a second, and a copy that has reached it is all that there was
//! when that was asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Keys;
use super::tenure::uptime;
use crate::config::EtcdSettings;
use crate::etcd::Etcd;
use crate::etcd::wire::WatchResponse;
use crate::etcd::wire::event::EventType;
use crate::store::etcd::Snapshot;

/// Between two looks at whether the copy is all that there is.
const LOOK: Duration = Duration::from_secs(1);
/// A copy that is behind for longer is made anew: its watch has been lost.
const BEHIND: Duration = Duration::from_secs(10);
/// Before a copy that could not be made or followed is made anew.
const AGAIN: Duration = Duration::from_secs(1);

/// The copy. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Mirror {
    etcd: Etcd,
    keys: Keys,
    prefix: String,
    timeout: Duration,
    copy: Arc<Mutex<Option<Copied>>>,
}

/// What there was.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    pub(crate) snapshot: Snapshot,
    /// The revision of the last change that is in it.
    pub(crate) revision: i64,
    /// It was all that there was, as time since boot.
    as_of: Duration,
}

impl Copied {
    /// How long ago it was all that there was.
    pub(crate) fn age(&self) -> Duration {
        uptime().saturating_sub(self.as_of)
    }
}

impl Mirror {
    pub(crate) fn new(etcd: Etcd, settings: &EtcdSettings) -> Self {
        Self {
            etcd,
            keys: Keys::new(&settings.prefix),
            prefix: settings.prefix.clone(),
            timeout: settings.timeout,
            copy: Arc::default(),
        }
    }

    /// The copy as it is; `None`: the store was not read since this coordinator began.
    pub(crate) fn copy(&self) -> Option<Copied> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// That of the copy.
    pub(crate) fn revision(&self) -> Option<i64> {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.as_ref().map(|copy| copy.revision)
    }

    /// Goes with etcd, for ever. What was copied last stays while etcd is away.
    pub(crate) async fn run(self) {
        loop {
            let why = self.follow().await;
            tracing::debug!(why, "the copy of the store is made anew");
            sleep(AGAIN).await;
        }
    }

    /// Makes a copy and goes with it, until something fails: what.
    async fn follow(&self) -> String {
        let asked_at = uptime();
        let all = self.keys.all();
        let (found, revision) = match self.etcd.all_at_once(self.timeout, &all).await {
            Ok(found) => found,
            Err(error) => return error.to_string(),
        };
        let mut snapshot = Snapshot::new(self.keys.clone(), &self.prefix);
        for key in found {
            snapshot.set(key);
        }
        self.keep(|copy| {
            *copy = Some(Copied {
                snapshot,
                revision,
                as_of: asked_at,
            });
        });
        let mut watch = match self.etcd.changes(self.timeout, &all, revision).await {
            Ok(watch) => watch,
            Err(status) => return status.message().to_owned(),
        };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let looked = tokio::select! {
                changed = watch.message() => match changed {
                    Ok(Some(changed)) if !changed.canceled => {
                        self.take_in(changed);
                        continue;
                    }
                    Ok(_) => return "the watch ended".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                _ = look.tick() => self.look().await,
            };
            if let Err(why) = looked {
                return why;
            }
        }
    }

    fn take_in(&self, changed: WatchResponse) {
        self.keep(|copy| {
            let Some(copy) = copy else { return };
            for event in changed.events {
                let gone = event.r#type() == EventType::Delete;
                let Some(key) = event.kv else { continue };
                copy.revision = copy.revision.max(key.mod_revision);
                if gone {
                    copy.snapshot.remove(&key.key);
                } else {
                    copy.snapshot.set(key);
                }
            }
        });
    }

    /// Is the copy all that there is?
    async fn look(&self) -> Result<(), String> {
        let asked_at = uptime();
        let turn = self.etcd.get(self.timeout, &self.keys.turn()).await;
        let written = turn
            .map_err(|error| error.to_string())?
            .map_or(0, |turn| turn.mod_revision);
        self.keep(|copy| match copy {
            Some(copy) if copy.revision >= written => {
                copy.as_of = asked_at;
                Ok(())
            }
            Some(copy) if copy.age() > BEHIND => Err("it stays behind".to_owned()),
            Some(_) | None => Ok(()),
        })
    }

    fn keep<T>(&self, change: impl FnOnce(&mut Option<Copied>) -> T) -> T {
        change(&mut self.copy.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

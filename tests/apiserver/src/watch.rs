//! Watches: every change after a revision, as one JSON document a line
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>).

use crate::refusal::Refusal;
use crate::represent::Representation;
use crate::selector::Selector;
use crate::shared::Shared;
use crate::store::Change;
use crate::world::World;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// How often a quiet watch gets a bookmark if it wants some.
const BOOKMARKS: Duration = Duration::from_mins(1);

/// A watch in progress.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) representation: Representation,
    pub(crate) selector: Selector,
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    /// The revision that was seen last.
    pub(crate) position: u64,
    pub(crate) pending: VecDeque<Value>,
    pub(crate) bookmarks: bool,
    pub(crate) next_bookmark: Instant,
    pub(crate) until: Instant,
    pub(crate) changed: Receiver<u64>,
    pub(crate) cut: Receiver<u64>,
    pub(crate) over: bool,
}

/// From where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The `resourceVersion` that was given; 0 for none, which begins with what there is.
    pub(crate) revision: u64,
    pub(crate) initial: bool,
    pub(crate) initial_bookmark: bool,
}

impl Watch {
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        world: &World,
        representation: Representation,
        selector: Selector,
        namespace: Option<String>,
        start: Start,
        (bookmarks, timeout): (bool, Duration),
    ) -> Self {
        let mut watch = Self {
            shared: Arc::clone(shared),
            representation,
            selector,
            namespace,
            position: start.revision,
            pending: VecDeque::new(),
            bookmarks,
            next_bookmark: Instant::now() + BOOKMARKS,
            until: Instant::now() + timeout,
            changed: shared.changed.subscribe(),
            cut: shared.cut.subscribe(),
            over: false,
        };
        if start.initial || start.revision == 0 {
            watch.position = world.store.revision();
            let plural = watch.representation.resource.plural;
            for object in world.store.list(plural, watch.namespace.as_deref()) {
                if watch.selector.matches(object) {
                    let event =
                        json!({"type": "ADDED", "object": watch.representation.object(object, world.now)});
                    watch.pending.push_back(event);
                }
            }
            if start.initial_bookmark {
                let object = watch.representation.bookmark(watch.position, true);
                watch
                    .pending
                    .push_back(json!({"type": "BOOKMARK", "object": object}));
            }
        }
        watch
    }

    /// The next frame of the answer, and the watch that goes on after it.
    pub(crate) async fn next(mut self) -> Option<(Result<Frame<Bytes>, io::Error>, Self)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                let mut line = event.to_string();
                line.push('\n');
                return Some((Ok(Frame::data(Bytes::from(line))), self));
            }
            if self.over {
                return None;
            }
            self.changed.borrow_and_update();
            self.read();
            if !self.pending.is_empty() || self.over {
                continue;
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                _ = self.cut.changed() => {
                    self.over = true;
                    let error = io::Error::new(io::ErrorKind::ConnectionReset, "the watch was cut");
                    return Some((Err(error), self));
                }
                () = tokio::time::sleep_until(self.until) => self.over = true,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARKS;
                    let object = self.representation.bookmark(self.position, false);
                    self.pending.push_back(json!({"type": "BOOKMARK", "object": object}));
                }
            }
        }
    }

    /// Takes in what was written since.
    fn read(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.read(|world| {
            let Some(changes) = world.store.since(self.position) else {
                let refusal = Refusal::too_old(self.position, world.store.compacted());
                self.pending
                    .push_back(json!({"type": "ERROR", "object": refusal.status()}));
                self.over = true;
                return;
            };
            let events: Vec<_> = changes.filter_map(|change| self.event(change, world)).collect();
            self.pending.extend(events);
            // After a restore the revision may be behind: such a watch hears nothing until it is reached again.
            self.position = self.position.max(world.store.revision());
        });
    }

    /// What a change is to this watch: an object that comes to be selected is added, one that no longer is is deleted.
    fn event(&self, change: &Change, world: &World) -> Option<Value> {
        if change.key.resource != self.representation.resource.plural
            || self
                .namespace
                .as_ref()
                .is_some_and(|namespace| *namespace != change.key.namespace)
        {
            return None;
        }
        let before = change
            .before
            .as_deref()
            .filter(|object| self.selector.matches(object));
        let after = change
            .after
            .as_deref()
            .filter(|object| self.selector.matches(object));
        let (kind, object) = match (before, after) {
            (None, Some(after)) => ("ADDED", after.clone()),
            (Some(_), Some(after)) => ("MODIFIED", after.clone()),
            (Some(before), None) => {
                let mut last = change.after.as_deref().unwrap_or(before).clone();
                crate::json::set(
                    &mut last,
                    "/metadata/resourceVersion",
                    change.revision.to_string(),
                );
                ("DELETED", last)
            }
            (None, None) => return None,
        };
        Some(json!({"type": kind, "object": self.representation.object(&object, world.now)}))
    }
}

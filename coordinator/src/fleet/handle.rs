//! The one owner of the live picture: sessions speak to it, everybody else reads the view that it publishes.
//!
//! ```text
//!  api::session ──open──► SessionLine ──report, answer, goodbye, drop──┐
//!       ▲                                                              ▼
//!       └──────────────orders (bounded)─────────────────────────── State ──publish──► watch<FleetView>
//!  executor ──deliver(order)──► the node's line, if it is in session    └──boots──► store
//! ```
//!
//! Publishing is coalesced: the first change goes out at once, those that follow within a pause go out together. The
//! pause grows with the size of the fleet, so that thousands of reports a second cost a bounded share of one core; and a
//! report that says what the one before it said changes nothing: it is in the view of the next second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::message::{Hello, Leave, Report};
use super::node::SessionId;
use super::state::State;
use super::view::FleetView;
use super::{Ask, EtcdAnswer, Order, OrderResult, Question, Reply, ToNode, boots};
use crate::events::{Events, NewEvent};
use crate::inventory::{Inventory, NodeName};
use crate::store::{Store, StoreError};

/// To a question.
const OTHER: &str = "its agent answered another question";

/// Orders that may wait for one session. The executor has at most a few for each node.
const ORDERS: usize = 16;
/// Changes within this are published together.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause is at least so many times what a publication cost.
const PAUSE_PER_COST: u32 = 10;
/// The view is published anew at least so often: time alone changes what it means.
const REFRESH: Duration = Duration::from_secs(1);
/// How long a store that failed is left alone.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// Held nodes that a run is working on, each with what it waits for: their dead-man time starts anew with every report.
pub type Holds = BTreeMap<NodeName, String>;

/// What a fleet is made of.
#[derive(Debug)]
pub struct FleetParts {
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// A session that has not reported for so long is silent.
    pub silent_after: Duration,
    /// The coordinator's own machine booted anew after an unclean end.
    pub own_unclean_boot: bool,
    /// Where happenings are told.
    pub events: Events,
    /// Where agents' answers go.
    pub results: mpsc::Sender<OrderResult>,
    /// Who is held on purpose.
    pub holds: watch::Receiver<Holds>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the queue of the node's session.
    Queued,
    /// The node is not in session: the order is dropped, and whoever sent it sends it again.
    NotInSession,
    /// The queue of its session is full: dropped likewise.
    Full,
}

/// What a report is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The report.
    pub sequence: u64,
    /// The node's kubelet is held, and somebody is working on it.
    pub hold: bool,
    /// What the held node waits for.
    pub waiting_on: String,
}

/// The live fleet. Cheap to clone; all clones are one fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Notify,
    view: watch::Sender<Arc<FleetView>>,
    events: Events,
    results: mpsc::Sender<OrderResult>,
    holds: watch::Receiver<Holds>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The way to each session. A line that is dropped ends its session.
    /// Boxed: a queue has room for all that may wait, and in most sessions nothing ever does.
    lines: BTreeMap<NodeName, mpsc::Sender<Box<ToNode>>>,
    /// Who waits for an answer.
    asking: BTreeMap<u64, (NodeName, oneshot::Sender<Reply>)>,
    /// The last question's number.
    asked: u64,
}

impl Fleet {
    /// The declared nodes with what the store remembers of them. Nothing is published or saved until [`Fleet::run`].
    ///
    /// # Errors
    /// The store does not answer.
    pub fn new(parts: FleetParts, store: &dyn Store) -> Result<Self, StoreError> {
        let now = Instant::now();
        let remembered = boots::load(store)?;
        let state = State::new(
            &parts.inventory,
            &remembered,
            parts.silent_after,
            // Without a fleet that was known before, nothing was lost.
            parts.own_unclean_boot && !remembered.is_empty(),
            now,
        );
        let view = watch::Sender::new(Arc::new(state.view(now)));
        Ok(Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    state,
                    lines: BTreeMap::new(),
                    asking: BTreeMap::new(),
                    asked: 0,
                }),
                changed: Notify::new(),
                view,
                events: parts.events,
                results: parts.results,
                holds: parts.holds,
            }),
        })
    }

    /// What the store alone knows of the declared nodes: their boots. No session is opened here.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) fn remembered(
        inventory: Arc<Inventory>,
        events: Events,
        store: &dyn Store,
    ) -> Result<Self, StoreError> {
        let parts = FleetParts {
            inventory,
            silent_after: Duration::MAX,
            own_unclean_boot: false,
            events,
            results: mpsc::channel(1).0,
            holds: watch::channel(Holds::new()).1,
        };
        let fleet = Self::new(parts, store)?;
        fleet.inner().state.unheard();
        Ok(fleet)
    }

    /// The newest view, and every later one.
    pub fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.shared.view.subscribe()
    }

    /// Reads what is known, conditions and remedies as well. Sessions wait meanwhile: `look` must be short.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner().state)
    }

    /// A run has these nodes in charge: remembered of each for as long as its present boot lasts.
    pub fn attend<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>) {
        self.inner().state.attend(nodes);
    }

    /// Who is held on purpose, and what for.
    pub fn holds(&self) -> watch::Receiver<Holds> {
        self.shared.holds.clone()
    }

    /// Begins a session of `node`, which replaces an older one. `None`: the node is not declared.
    pub fn open(&self, node: &NodeName, hello: Hello) -> Option<SessionLine> {
        let (line, orders) = mpsc::channel(ORDERS);
        let (id, events) = {
            let mut inner = self.inner();
            let opened = inner.state.hello(node, hello, Instant::now())?;
            inner.lines.insert(node.clone(), line);
            opened
        };
        self.tell(events);
        Some(SessionLine {
            fleet: self.clone(),
            node: node.clone(),
            id,
            orders,
        })
    }

    /// Puts an order into the queue of its node's session.
    pub fn deliver(&self, order: Order) -> Delivery {
        let inner = self.inner();
        let Some(line) = inner.lines.get(&order.node) else {
            return Delivery::NotInSession;
        };
        match line.try_send(Box::new(ToNode::Order(order))) {
            Ok(()) => Delivery::Queued,
            Err(mpsc::error::TrySendError::Full(_)) => Delivery::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::NotInSession,
        }
    }

    /// Asks the agent of a node about its etcd member.
    ///
    /// # Errors
    /// It is not in session, or does not answer within this time: for people.
    pub async fn ask(&self, node: &NodeName, ask: Ask, within: Duration) -> Result<EtcdAnswer, String> {
        let question = |id| ToNode::Ask(Question { id, within, ask });
        match self.question(node, within, question).await? {
            Reply::Etcd(answer) => Ok(answer),
            Reply::ControlPlane(_) => Err(OTHER.to_owned()),
        }
    }

    /// Asks the agent of a node about the static pods of its control plane.
    ///
    /// # Errors
    /// It is not in session, or does not answer within this time: for people.
    pub async fn ask_control_plane(
        &self,
        node: &NodeName,
        within: Duration,
    ) -> Result<crate::control_plane::told::Told, String> {
        let question = |id| ToNode::LookAtControlPlane { id, within };
        match self.question(node, within, question).await? {
            Reply::ControlPlane(told) => Ok(*told),
            Reply::Etcd(_) => Err(OTHER.to_owned()),
        }
    }

    async fn question(
        &self,
        node: &NodeName,
        within: Duration,
        question: impl FnOnce(u64) -> ToNode,
    ) -> Result<Reply, String> {
        let (to, answer) = oneshot::channel();
        let id = {
            let mut inner = self.inner();
            let Some(line) = inner.lines.get(node).cloned() else {
                return Err("its agent is not in session".to_owned());
            };
            inner.asked += 1;
            let id = inner.asked;
            line.try_send(Box::new(question(id)))
                .map_err(|_| "its agent is behind with what it is told".to_owned())?;
            // Whoever was not answered has gone.
            inner.asking.retain(|_, (_, waits)| !waits.is_closed());
            inner.asking.insert(id, (node.clone(), to));
            id
        };
        let answered = timeout(within, answer).await;
        self.inner().asking.remove(&id);
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(format!("its agent did not answer within {} s", within.as_secs())),
        }
    }

    /// Publishes views, notices silence and saves boots, until it is told to stop; then saves what is left.
    pub async fn run(self, store: Arc<dyn Store>, stop: CancellationToken) {
        tokio::join!(self.publish(&stop), self.save(store, &stop));
    }

    async fn publish(&self, stop: &CancellationToken) {
        loop {
            let refresh = Instant::now() + REFRESH;
            let next = self
                .inner()
                .state
                .next_silence()
                .map_or(refresh, |at| at.min(refresh));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.changed.notified() => {}
                () = sleep_until(next) => {}
            }
            let began = Instant::now();
            let (view, events) = {
                let mut inner = self.inner();
                let (silent, events) = inner.state.tick(began);
                for node in silent {
                    inner.lines.remove(&node);
                }
                (inner.state.view(began), events)
            };
            self.shared.view.send_replace(Arc::new(view));
            for event in events {
                self.shared.events.emit(event);
            }
            let pause = PAUSE.max(began.elapsed() * PAUSE_PER_COST);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Follows the view rather than a signal of its own: every change of a boot makes one.
    async fn save(&self, store: Arc<dyn Store>, stop: &CancellationToken) {
        let mut view = self.view();
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                changed = view.changed() => changed.is_err(),
            };
            let failed = self.save_boots(&store).await;
            if stopping {
                return;
            }
            if failed {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(SAVE_AGAIN) => {}
                }
            }
        }
    }

    /// Saves what changed; tells whether some of it could not be.
    async fn save_boots(&self, store: &Arc<dyn Store>) -> bool {
        let unsaved = self.inner().state.take_unsaved();
        if unsaved.is_empty() {
            return false;
        }
        let store = Arc::clone(store);
        let names: Vec<_> = unsaved.iter().map(|(name, _)| name.clone()).collect();
        let saved = spawn_blocking(move || boots::save(store.as_ref(), &unsaved)).await;
        let why = match saved {
            Ok(Ok(())) => return false,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            why,
            nodes = names.len(),
            "boots of nodes are not saved; trying again"
        );
        self.inner().state.still_unsaved(names);
        true
    }

    fn tell(&self, events: Vec<NewEvent>) {
        self.shared.changed.notify_one();
        self.emit(events);
    }

    fn emit(&self, events: Vec<NewEvent>) {
        for event in events {
            self.shared.events.emit(event);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session is no longer its node's: a newer one has come, or it was silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this session is over: a newer one of this node has come, or nothing was heard for too long")]
pub struct SessionOver;

/// One session's side of the fleet. Dropped without a goodbye, its session is lost.
#[derive(Debug)]
pub struct SessionLine {
    fleet: Fleet,
    node: NodeName,
    id: SessionId,
    orders: mpsc::Receiver<Box<ToNode>>,
}

impl SessionLine {
    /// The next order for this node, or question.
    ///
    /// # Errors
    /// The session is over.
    pub async fn next(&mut self) -> Result<ToNode, SessionOver> {
        self.orders.recv().await.map(|next| *next).ok_or(SessionOver)
    }

    /// Passes on what was answered to a question, if anybody still waits for it.
    pub fn told(&self, question: u64, answer: Reply) {
        let mut inner = self.fleet.inner();
        if inner
            .asking
            .get(&question)
            .is_some_and(|(node, _)| *node == self.node)
            && let Some((_, waits)) = inner.asking.remove(&question)
        {
            let _gone = waits.send(answer);
        }
    }

    /// Takes in a report.
    ///
    /// # Errors
    /// The session is over.
    pub fn report(&self, report: Report) -> Result<Acknowledgement, SessionOver> {
        let sequence = report.sequence;
        let (events, news) = self
            .fleet
            .inner()
            .state
            .report(&self.node, self.id, report, Instant::now())
            .ok_or(SessionOver)?;
        // Of a healthy fleet nearly every report says what the one before it said: that comes with the next refresh.
        if news {
            self.fleet.tell(events);
        } else {
            self.fleet.emit(events);
        }
        let holds = self.fleet.shared.holds.borrow();
        let waiting_on = holds.get(&self.node);
        Ok(Acknowledgement {
            sequence,
            hold: waiting_on.is_some(),
            waiting_on: waiting_on.cloned().unwrap_or_default(),
        })
    }

    /// Passes on how a command ended; waits while whoever reads the answers is behind.
    ///
    /// # Errors
    /// The session is over.
    pub async fn answer(&self, result: OrderResult) -> Result<(), SessionOver> {
        self.fleet
            .inner()
            .state
            .heard(&self.node, self.id, Instant::now())
            .ok_or(SessionOver)?;
        if self.fleet.shared.results.send(result).await.is_err() {
            tracing::warn!(node = %self.node, "an answer came while the executor is gone; it will ask again");
        }
        Ok(())
    }

    /// The agent leaves on purpose.
    pub fn goodbye(self, leave: Leave) {
        let events = {
            let mut inner = self.fleet.inner();
            let events = inner.state.goodbye(&self.node, self.id, leave, Instant::now());
            if !events.is_empty() {
                inner.lines.remove(&self.node);
            }
            events
        };
        self.fleet.tell(events);
    }
}

impl Drop for SessionLine {
    fn drop(&mut self) {
        let events = {
            let mut inner = self.fleet.inner();
            let events = inner.state.ended(&self.node, self.id, Instant::now());
            // Without events it was not the node's session any more, and the line is another's.
            if !events.is_empty() {
                inner.lines.remove(&self.node);
            }
            events
        };
        if !events.is_empty() {
            self.fleet.tell(events);
        }
    }
}

#[cfg(test)]
mod tests;

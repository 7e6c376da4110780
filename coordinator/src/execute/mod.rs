//! The one executor of all plans: journal before dispatch, lanes and budgets, pause, resume, abort, resume after a crash.
//!
//! ```text
//!            Executor (handle) ──start, pause, resume, abort──►┐
//!  FleetView ─────────────────────────────────────────────────►│ driver   one task, one writer
//!  Stalls ─────────────────────────────────────────────────────►│   │
//!  OrderResult ───────────────────────────────────────────────►│   │
//!                                                              │   ├─► advance   pure: (run, fleet, now) → what next, and
//!                                                              │   │             what each step waits on
//!  store ◄── entry, durable before anything is dispatched ─────│   ├─► state     pure: (state, event) → state
//!  Order  ◄── command RUN/STEP/attempt@epoch ──────────────────│   │
//!  holds, Vec<RunStatus>, events ◄─────────────────────────────┘◄──┘
//! ```
//!
//! The journal is the truth: the state of a run is what [`state`] makes of its entries, in the process that wrote them and
//! in the one that replays them after a crash. What is only in memory are times (when a step's turn came, when its command
//! was sent) and answers. So after a crash **every deadline starts anew**: monotonic clocks do not survive, and a wall clock
//! after a power loss cannot be trusted. A step that was begun and has no outcome is looked at first; if its node does not
//! attest health it gets the *same* command id again, which an agent that has done it answers from its ledger.
//!
//! ## Which held nodes are told to go on waiting
//! [`Ports::holds`] starts the dead-man time of a held node anew, so it may only name nodes that this executor really is going
//! to release:
//! - a *running* run holds the nodes whose release is ahead;
//! - a *paused* run holds them too: somebody is there who wants nothing to start now;
//! - behind a gate that *halted* its run nobody is held any longer: perhaps nobody is there to be asked, and a node that opens its
//!   own gate is better than one that stays dark (masters first: their dead-man time is shorter). The rest of the run, which does not
//!   depend on that gate, goes on and is held;
//! - an aborted run, and an executor that was superseded, hold nobody.

pub mod advance;
mod control;
mod driver;
pub mod journal;
pub mod pace;
pub mod record;
mod show;
pub mod stall;
pub mod state;
pub mod status;
pub mod tally;
pub mod typical;
pub mod waiting;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::driver::Driver;
use self::record::{JournalError, Run};
use self::stall::Stalls;
use self::status::{RunState, RunStatus};
use crate::events::Events;
use crate::fleet::view::FleetView;
use crate::fleet::{Order, OrderResult};
use crate::inventory::{Inventory, NodeName};
use crate::plan::Plan;
use crate::plan::lint::Finding;
use crate::policy::ColdStartPolicy;
use crate::runbooks::plan::Runbook;
use crate::store::{Store, StoreError};

/// So many operators' words may wait for the driver.
const CONTROL_BACKLOG: usize = 64;

/// Every run that is remembered, oldest first, as it stands. Those that did not change share their memory with the list
/// before.
pub type Runs = Arc<Vec<Arc<RunStatus>>>;

/// What the executor is connected to.
#[derive(Debug)]
pub struct Ports {
    /// The live picture.
    pub view: watch::Receiver<Arc<FleetView>>,
    /// Commands to nodes.
    pub orders: mpsc::Sender<Order>,
    /// Their answers.
    pub results: mpsc::Receiver<OrderResult>,
    /// The held nodes that a run is going to release, each with what it waits for.
    pub holds: watch::Sender<BTreeMap<NodeName, String>>,
    /// Why control planes do not come up, as far as somebody looks into it.
    pub stalls: watch::Receiver<Stalls>,
    /// What happens, for people.
    pub events: Events,
}

/// What an executor takes from its machine besides its ports. The default is the machine it runs on; a simulation gives its own,
/// so that a run repeats itself to the last entry.
pub struct Surroundings {
    /// The wall clock, milliseconds since the Unix epoch. It is written down for people, and decides nothing.
    pub unix_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What back-off draws its chance from.
    pub chance: StdRng,
    /// The store waits for a disk, and is asked on a thread that may.
    pub store_waits: bool,
}

impl Default for Surroundings {
    fn default() -> Self {
        let unix_ms = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            unix_ms: Box::new(unix_ms),
            chance: StdRng::from_rng(&mut rand::rng()),
            store_waits: true,
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// Why the executor could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal cannot be understood. It was left as it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why something that was asked of the executor was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such run.
    #[error("there is no run {0}; `blackstart get runs` lists them")]
    Unknown(String),
    /// The run has ended, so nothing can be changed about it.
    #[error("run {run} has ended ({state:?})")]
    Ended {
        /// Which.
        run: String,
        /// How.
        state: RunState,
    },
    /// The plan breaks a law.
    #[error("the plan is refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Findings(Vec<Finding>),
    /// Another run is at work on some of the same nodes.
    #[error("run {run} is at work on {node}; abort it first, or wait for its end")]
    Overlap {
        /// Which.
        run: String,
        /// One of the nodes.
        node: NodeName,
    },
    /// Another executor is at work.
    #[error("this coordinator was superseded: {0}; stop the other one, then restart this one")]
    Superseded(String),
    /// The journal could not be written, so it was not done. Safe to ask again.
    #[error("the journal could not be written: {0}")]
    Journal(String),
    /// The driver is shutting down.
    #[error("the coordinator is shutting down")]
    Stopping,
}

/// What an operator, or the coordinator itself, wants of a run.
#[derive(Debug)]
enum Word {
    Start {
        plan: Plan,
        reason: String,
        request: Option<String>,
    },
    Pause {
        run: String,
    },
    Resume {
        run: String,
    },
    Abort {
        run: String,
    },
}

/// A [`Word`] and where its answer goes.
#[derive(Debug)]
struct Control {
    word: Word,
    reply: oneshot::Sender<Result<Arc<RunStatus>, Refusal>>,
}

/// The handle by which the executor is asked and told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor {
    epoch: u64,
    control: mpsc::Sender<Control>,
    runs: watch::Receiver<Runs>,
}

impl Executor {
    /// Takes a new epoch and replays the journal of every run. Nothing is dispatched before [`Driver::run`].
    ///
    /// # Errors
    /// The store does not answer, or a journal in it cannot be understood.
    pub fn open(
        store: Arc<dyn Store>,
        inventory: Arc<Inventory>,
        policy: ColdStartPolicy,
        ports: Ports,
    ) -> Result<(Self, Driver), ExecuteError> {
        Self::open_in(Surroundings::default(), store, inventory, policy, ports)
    }

    /// [`Executor::open`], in other surroundings than this machine's.
    ///
    /// # Errors
    /// The store does not answer, or a journal in it cannot be understood.
    pub fn open_in(
        surroundings: Surroundings,
        store: Arc<dyn Store>,
        inventory: Arc<Inventory>,
        policy: ColdStartPolicy,
        ports: Ports,
    ) -> Result<(Self, Driver), ExecuteError> {
        let (control, words) = mpsc::channel(CONTROL_BACKLOG);
        let (publish, runs) = watch::channel(Runs::default());
        let driver = Driver::open(store, inventory, policy, ports, surroundings, words, publish)?;
        let executor = Self {
            epoch: driver.epoch(),
            control,
            runs,
        };
        Ok((executor, driver))
    }

    /// The runs as a store has them, without anybody who works on them: what is said to them is refused.
    ///
    /// # Errors
    /// As [`Executor::open`].
    pub(crate) fn remembered(store: &dyn Store) -> Result<Self, ExecuteError> {
        let now = Instant::now();
        let run = |id: String| {
            let run = Run::replay(&id, &store.journal(&id)?, now)?;
            Ok(Arc::new(status::remembered(&run, now)))
        };
        let runs: Vec<_> = store
            .runs()?
            .into_iter()
            // Those of runbooks are remembered beside.
            .filter(|id| Runbook::of_run(id).is_none())
            .map(run)
            .collect::<Result<_, ExecuteError>>()?;
        Ok(Self {
            epoch: 0,
            control: mpsc::channel(1).0,
            runs: watch::channel(Arc::new(runs)).1,
        })
    }

    /// The epoch that every command of this executor carries.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Begins a run. Returns once its plan is durable.
    ///
    /// # Errors
    /// The plan has findings, or another run is at work on the same nodes, or the executor cannot act.
    pub async fn start(&self, plan: Plan, reason: String) -> Result<Arc<RunStatus>, Refusal> {
        self.start_once(plan, reason, None).await
    }

    /// [`Self::start`] by a command that has a name. If a run was begun by the same one, under whichever coordinator, it is that run.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_once(
        &self,
        plan: Plan,
        reason: String,
        request: Option<String>,
    ) -> Result<Arc<RunStatus>, Refusal> {
        self.tell(Word::Start {
            plan,
            reason,
            request,
        })
        .await
    }

    /// Begins no new step of a run until it is resumed; what was dispatched is followed to its end. Pausing a paused run
    /// does nothing.
    ///
    /// # Errors
    /// There is no such run, or it has ended.
    pub async fn pause(&self, run: &str) -> Result<Arc<RunStatus>, Refusal> {
        let run = run.to_owned();
        self.tell(Word::Pause { run }).await
    }

    /// Goes on with a paused run, and tries the failed steps of a halted one again. Deadlines start anew. Resuming a running
    /// run does nothing.
    ///
    /// # Errors
    /// There is no such run, or it has ended.
    pub async fn resume(&self, run: &str) -> Result<Arc<RunStatus>, Refusal> {
        let run = run.to_owned();
        self.tell(Word::Resume { run }).await
    }

    /// Ends a run: what was not begun never is, what was dispatched is no longer followed. Aborting an aborted run does
    /// nothing.
    ///
    /// # Errors
    /// There is no such run, or it has succeeded.
    pub async fn abort(&self, run: &str) -> Result<Arc<RunStatus>, Refusal> {
        let run = run.to_owned();
        self.tell(Word::Abort { run }).await
    }

    /// Every run that is remembered, oldest first.
    pub fn runs(&self) -> Vec<Arc<RunStatus>> {
        self.runs.borrow().to_vec()
    }

    /// One run.
    pub fn run(&self, id: &str) -> Option<Arc<RunStatus>> {
        self.runs.borrow().iter().find(|run| run.id == id).map(Arc::clone)
    }

    /// The runs as they stand, and again at every change.
    pub fn watch(&self) -> watch::Receiver<Runs> {
        self.runs.clone()
    }

    async fn tell(&self, word: Word) -> Result<Arc<RunStatus>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let control = Control { word, reply };
        self.control.send(control).await.map_err(|_| Refusal::Stopping)?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }
}

#[cfg(test)]
pub(crate) mod tests;

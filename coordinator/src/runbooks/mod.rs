//! Runbooks: the chapters of the operators' plan, one file each.
//!
//! ```text
//!  Request ─► observe ─► maintenance, node_down: plan (pure) ─► steps with evidence, refusals, approvals
//!               ▲ World: API caches, agent, silences              │ start: lanes let it
//!               │                                                 ▼
//!               └───────────────── driver, one task a run ◄─── journal (store)
//!                    look (pure): done? what next? what for? ─► intent durable ─► API call, command, silence ─► outcome durable
//! ```
//!
//! Beside [`crate::execute`] and not in it: a cold start is a DAG over thousands of nodes that is decided in one look at the fleet; a
//! runbook is a few steps on one node, some of which call an API server that may take seconds. They share the store, the agents'
//! commands with their epochs, and the lanes.
//!
//! Runbooks on pods and workloads (`pods_heal`, `workload_heal`, `node_component`) are decided on a `case` as well: what is read of them for
//! each look, since caches keep too little. `diagnosis` says what is wrong with it.
//!
//! A step is decided by a look at the world, before and after a crash alike; so a run resumes by looking, and nothing that was done is
//! done again. An abort puts back, last change first, what the journal says that the run may have changed, and says what it leaves.

pub mod call;
mod driver;
pub mod journal;
pub mod lanes;
pub mod look;
pub mod maintenance;
pub mod node_down;
mod observe;
pub mod plan;
pub mod pods;
mod ports;
pub mod record;
mod refusal;
pub mod status;
pub mod waiting;
mod work;
pub mod world;

pub mod case;
pub mod declared;
pub mod diagnosis;
pub mod mends;
pub mod node_component;
pub mod pods_heal;
pub mod subject;
pub mod workload_heal;

pub use self::ports::Ports;
pub use self::refusal::{OpenError, Refusal};
pub use self::work::Work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use self::case::read::Depth;
use self::declared::Declared;
use self::diagnosis::Diagnosis;
use self::driver::{Driver, Heard};
use self::journal::{Entry, Event};
use self::mends::Awaited;
use self::plan::{Request, Runbook, RunbookPlan};
use self::record::{Record, RunState};
use self::status::RunbookStatus;
use self::subject::{Of, Subject};
use self::waiting::WaitingOn;
use self::world::World;
use crate::events::{EventKind, NewEvent, Severity};
use crate::kubernetes::detail::{PodDetail, Workload, WorkloadName};
use crate::kubernetes::objects::Key;
use crate::store::NewEntry;

/// So many words and answers wait for a run.
const BACKLOG: usize = 16;

/// What an operator says to a run.
#[derive(Debug)]
enum Word {
    Approve { by: String },
    Abort { by: String },
}

#[derive(Debug)]
struct Told {
    word: Word,
    reply: oneshot::Sender<Result<Arc<RunbookStatus>, Refusal>>,
}

/// The way to a run at work.
#[derive(Debug, Clone)]
struct Line {
    words: mpsc::Sender<Told>,
    answers: mpsc::Sender<Heard>,
}

/// The handle by which runbooks are planned, started and steered. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Runbooks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ports: Ports,
    /// Every run that the store has, as it stands.
    runs: watch::Sender<Arc<BTreeMap<String, Arc<RunbookStatus>>>>,
    lines: Mutex<BTreeMap<String, Line>>,
    /// One start at a time: lanes are looked at and taken together.
    starting: tokio::sync::Mutex<()>,
    begin: mpsc::Sender<Driver>,
}

/// One line on each runbook: what it is for, and the chapter of the operators' plan.
pub const fn describe(runbook: Runbook) -> (&'static str, &'static str) {
    match runbook {
        Runbook::Drain => (
            "cordon a node and evict its pods as their budgets allow",
            "硬件维修",
        ),
        Runbook::MaintenanceBegin => (
            "silence a node's agent, cordon and drain it, and stop its kubelet",
            "硬件维修",
        ),
        Runbook::MaintenanceEnd => (
            "start its kubelet, await Ready with a fresh lease, uncordon, end the silence",
            "硬件维修",
        ),
        Runbook::NodeDown => (
            "restart the kubelet of a node that does not answer, or move its pods once it is proved dead",
            "操作系统宕机",
        ),
        Runbook::PodsHeal => (
            "mend pods that do not run: made again, memory raised, a stuck end finished with proof",
            "Pod 故障恢复",
        ),
        Runbook::WorkloadHeal => (
            "make a workload whole: rolling restart, memory, tolerations, with rollback",
            "GatewayProxy / NSF 故障恢复",
        ),
        Runbook::NodeComponent => (
            "restart a node's kubelet, make its CNI pod again, and verify both",
            "节点组件异常恢复",
        ),
    }
}

/// The plan for a request, from what is known now. Pure.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    match request.runbook {
        Runbook::Drain => maintenance::drain(request, world),
        Runbook::MaintenanceBegin => maintenance::begin(request, world),
        Runbook::MaintenanceEnd => maintenance::end(request, world),
        Runbook::NodeDown => node_down::plan(request, world),
        Runbook::PodsHeal => pods_heal::plan(request, world),
        Runbook::WorkloadHeal => workload_heal::plan(request, world),
        Runbook::NodeComponent => node_component::plan(request, world),
    }
}

impl Runbooks {
    /// Reads the journals of all runs. Nothing is done before [`Work::run`]. Blocks.
    ///
    /// # Errors
    /// The store does not answer, or a journal in it cannot be understood.
    pub fn open(ports: Ports) -> Result<(Self, Work), OpenError> {
        let mut runs = BTreeMap::new();
        let mut active = Vec::new();
        for id in ports.store.runs()? {
            if Runbook::of_run(&id).is_none() {
                continue;
            }
            let failed = |(index, why)| OpenError::Journal {
                run: id.clone(),
                index,
                why,
            };
            let record = Record::replay(&id, &ports.store.journal(&id)?).map_err(failed)?;
            runs.insert(id.clone(), Arc::new(RunbookStatus::new(&record, None)));
            if record.state.is_active() {
                active.push(record);
            }
        }
        let (begin, starts) = mpsc::channel(BACKLOG);
        let handle = Self {
            shared: Arc::new(Shared {
                ports,
                runs: watch::Sender::new(Arc::new(runs)),
                lines: Mutex::default(),
                starting: tokio::sync::Mutex::new(()),
                begin,
            }),
        };
        let drivers = active
            .into_iter()
            .map(|record| handle.driver(record, true))
            .collect();
        let work = Work {
            handle: handle.clone(),
            drivers,
            begun: starts,
        };
        Ok((handle, work))
    }

    /// What would be done, from what is known now; what is about pods is read for it. Does nothing.
    ///
    /// # Errors
    /// The node or the cluster is not declared.
    pub async fn plan(&self, request: Request) -> Result<RunbookPlan, Refusal> {
        let ports = &self.shared.ports;
        let case = if request.runbook.wants_case() {
            Some(observe::case(ports, &request, Depth::Reasons).await.map(Arc::new))
        } else {
            None
        };
        let mut world = observe::of(ports, &request)?;
        world.case = case;
        Ok(plan(request, &world))
    }

    /// What is wrong with pods, and what could not be looked at.
    ///
    /// # Errors
    /// The cluster is not declared, or its pods cannot be read.
    pub async fn diagnose(&self, subject: &Subject) -> Result<(Vec<Diagnosis>, Vec<String>), Refusal> {
        let ports = &self.shared.ports;
        if ports.inventory.cluster(&subject.cluster).is_none() {
            return Err(Refusal::UnknownCluster(subject.cluster.clone()));
        }
        let case = observe::case_of(ports, subject, Depth::Reasons).await;
        let case = case.map_err(Refusal::Read)?;
        let now = i64::try_from(unix_ms()).unwrap_or_default();
        let mut found = diagnosis::all(&case, jiff::Timestamp::from_millisecond(now).unwrap_or_default());
        if let Of::Pod(name) = &subject.of {
            if !case.pods.iter().any(|pod| pod.key.name == *name) {
                return Err(Refusal::UnknownPod(subject.to_string()));
            }
            found.retain(|one| one.kind == "Pod" && one.key.name == *name);
        }
        Ok((found, case.lacks))
    }

    /// The workloads that operators declared.
    pub fn declared(&self) -> &[Declared] {
        &self.shared.ports.declared
    }

    /// The declared workloads, each as it stands, or why that is not known.
    pub async fn workloads(&self) -> Vec<(Declared, Result<(Workload, u64), String>)> {
        let ports = &self.shared.ports;
        let of = async |declared: &Declared| {
            let subject = Subject {
                cluster: declared.cluster.clone(),
                namespace: declared.namespace.clone(),
                of: Of::AllPods,
            };
            let case = observe::case_of(ports, &subject, Depth::Pods).await?;
            let key = Key {
                namespace: declared.namespace.clone(),
                name: declared.object.clone(),
            };
            let awaited = Awaited {
                kind: declared.kind.to_string(),
                key: key.clone(),
                node: None,
            };
            let name = WorkloadName {
                kind: declared.kind,
                key,
            };
            let restarts = case.pods_of(&awaited).map(PodDetail::restarts).sum();
            let workload = case.workload(&name).cloned();
            workload
                .map(|workload| (workload, restarts))
                .ok_or_else(|| format!("cluster {} has no {name}", declared.cluster))
        };
        let mut all = Vec::new();
        for declared in ports.declared.iter() {
            all.push((declared.clone(), of(declared).await));
        }
        all
    }

    /// Begins a run. Returns once its plan is durable.
    ///
    /// # Errors
    /// The plan refuses, a lane is busy, or the journal cannot be written.
    pub async fn start(&self, request: Request) -> Result<Arc<RunbookStatus>, Refusal> {
        let _turn = self.shared.starting.lock().await;
        let plan = self.plan(request).await?;
        if !plan.may_run() {
            let refusals = plan.refusals.iter();
            return Err(Refusal::Plan(
                refusals
                    .map(|one| format!("{}: missing: {}", one.what, one.missing))
                    .collect(),
            ));
        }
        let runs = Arc::clone(&self.shared.runs.borrow());
        let cold_starts = Arc::clone(&self.shared.ports.cold_starts.borrow());
        let view = Arc::clone(&self.shared.ports.view.borrow());
        let inventory = &self.shared.ports.inventory;
        lanes::admit(
            &plan,
            runs.values().map(AsRef::as_ref),
            &cold_starts,
            inventory,
            &view,
        )?;
        let runbook = plan.request.runbook;
        let earlier = runs
            .values()
            .filter(|run| run.plan.request.runbook == runbook)
            .count();
        let id = format!("{runbook}-{}", earlier + 1);
        let entry = Entry {
            at_unix_ms: unix_ms(),
            event: Event::RunbookStarted {
                plan: Box::new(plan),
                epoch: self.shared.ports.epoch,
            },
        };
        let bytes = serde_json::to_vec(&entry).map_err(|error| Refusal::Journal(error.to_string()))?;
        let store = Arc::clone(&self.shared.ports.store);
        let written = NewEntry {
            run: id.clone(),
            index: 0,
            bytes,
        };
        spawn_blocking(move || store.append_all(&[written]))
            .await
            .map_err(|_| Refusal::Stopping)?
            .map_err(|error| Refusal::Journal(error.to_string()))?;
        let record = Record::begin(id, entry).ok_or(Refusal::Stopping)?;
        let event = NewEvent::new(
            Severity::Warning,
            EventKind::RunStarted,
            format!(
                "began: {} ({})",
                record.plan.request.by, record.plan.request.reason
            ),
        );
        self.shared.tell(&record, event);
        let status = self.shared.publish(&record, None);
        let driver = self.driver(record, false);
        self.shared
            .begin
            .send(driver)
            .await
            .map_err(|_| Refusal::Stopping)?;
        Ok(status)
    }

    /// Approves of the step that waits for it; after a failure, has it tried again.
    ///
    /// # Errors
    /// There is no such run, or nothing of it waits for approval.
    pub async fn approve(&self, run: &str, by: String) -> Result<Arc<RunbookStatus>, Refusal> {
        self.tell(run, Word::Approve { by }).await
    }

    /// Puts back what the run changed, and ends it. Aborting an aborted run does nothing.
    ///
    /// # Errors
    /// There is no such run, or it has succeeded.
    pub async fn abort(&self, run: &str, by: String) -> Result<Arc<RunbookStatus>, Refusal> {
        self.tell(run, Word::Abort { by }).await
    }

    /// Every run, by id.
    pub fn runs(&self) -> Arc<BTreeMap<String, Arc<RunbookStatus>>> {
        Arc::clone(&self.shared.runs.borrow())
    }

    /// The runs as they stand, and again at every change.
    pub fn watch(&self) -> watch::Receiver<Arc<BTreeMap<String, Arc<RunbookStatus>>>> {
        self.shared.runs.subscribe()
    }

    /// One run.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn run(&self, id: &str) -> Result<Arc<RunbookStatus>, Refusal> {
        let runs = self.runs();
        let run = runs.get(id).map(Arc::clone);
        run.ok_or_else(|| Refusal::UnknownRun(id.to_owned()))
    }

    async fn tell(&self, run: &str, word: Word) -> Result<Arc<RunbookStatus>, Refusal> {
        let status = self.run(run)?;
        let line = self.shared.lines().get(run).cloned();
        let Some(line) = line.filter(|_| status.state.is_active()) else {
            return match (word, status.state) {
                (Word::Abort { .. }, RunState::Aborted) => Ok(status),
                (_, state) => Err(Refusal::State(format!("run {run} has ended ({state:?})"))),
            };
        };
        let (reply, answer) = oneshot::channel();
        line.words
            .send(Told { word, reply })
            .await
            .map_err(|_| Refusal::Stopping)?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }

    fn driver(&self, record: Record, resumed: bool) -> Driver {
        let (words, to_words) = mpsc::channel(BACKLOG);
        let (answers, to_answers) = mpsc::channel(BACKLOG);
        self.shared
            .lines()
            .insert(record.id.clone(), Line { words, answers });
        Driver::new(Arc::clone(&self.shared), record, resumed, to_words, to_answers)
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, record: &Record, waiting: Option<WaitingOn>) -> Arc<RunbookStatus> {
        let status = Arc::new(RunbookStatus::new(record, waiting));
        let told = Arc::clone(&status);
        self.runs.send_if_modified(move |runs| {
            if runs.get(&told.id).is_some_and(|before| **before == *told) {
                return false;
            }
            let mut next = (**runs).clone();
            next.insert(told.id.clone(), told);
            *runs = Arc::new(next);
            true
        });
        status
    }

    fn tell(&self, record: &Record, event: NewEvent) {
        let request = &record.plan.request;
        let event = event.run(&record.id);
        let event = if request.subject.is_some() {
            event
        } else {
            event.node(&request.node)
        };
        self.ports.events.emit(event.cluster(&record.plan.cluster));
    }
}

/// The wall clock, milliseconds since the Unix epoch. It is written down for people, and decides nothing.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

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

pub mod action;
pub mod around;
pub mod call;
pub mod conditions;
pub mod control_plane;
mod driver;
pub mod etcd_member;
pub mod etcd_quorum;
pub mod etcd_snapshot;
pub mod journal;
mod kept;
pub mod lanes;
pub mod look;
pub mod maintenance;
pub mod network_loss;
pub mod node_down;
mod observe;
pub mod options;
pub mod overload;
pub mod plan;
pub mod pods;
pub mod policy;
mod ports;
pub mod proof;
pub mod readiness;
pub mod record;
mod refusal;
pub mod shortage;
pub mod status;
pub mod trigger;
pub mod verify;
pub mod waiting;
mod watchman;
pub mod weather;
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

use std::collections::{BTreeMap, BTreeSet};
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
use self::observe::Known;
use self::plan::{Request, Runbook, RunbookPlan};
use self::policy::Fence;
use self::readiness::Readiness;
use self::record::{Record, RunState};
use self::status::RunbookStatus;
use self::subject::{Of, Subject};
use self::waiting::WaitingOn;
use self::weather::{Lookout, Weather};
use self::world::World;
use crate::events::{EventKind, NewEvent, Severity};
use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::detail::{PodDetail, Workload};
use crate::kubernetes::objects::Key;
use crate::kubernetes::objects::workload::WorkloadName;
use crate::quorum::eyes::{Glance, Verified};
use crate::store::{NewEntry, Store};

/// So many words and answers wait for a run.
const BACKLOG: usize = 16;

/// What an operator says to a run.
#[derive(Debug, Clone)]
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
    lookout: Lookout,
    /// How ready clusters were in better days, as the store has it.
    readiness: Mutex<BTreeMap<ClusterName, Readiness>>,
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
        Runbook::ResourceShortage => (
            "say why pods find no node and what would help, await that agents give disk space back and that the pods run",
            "节点资源空间不足",
        ),
        Runbook::NetworkLoss => (
            "let the pods of chosen workloads leave a node that its cluster cannot reach, until it is reached again",
            "节点网络异常",
        ),
        Runbook::Overload => (
            "move the heaviest pods of a node away, one after the other, until its load is low",
            "节点负载过高",
        ),
        Runbook::ColdStartVerify => (
            "await that as many pods of each workload are ready as before a power loss, and name what did not start",
            "机房断电",
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
        Runbook::EtcdSnapshot => (
            "have the agents of two masters take a verified snapshot of etcd",
            "etcd 节点故障",
        ),
        Runbook::EtcdMember => (
            "bring an etcd member back in place, or replace it on its node: snapshot, remove, learner, in sync, promote",
            "etcd 节点故障",
        ),
        Runbook::EtcdQuorum => (
            "bring an etcd without a quorum back in place, or restore it from the member that has most, as a cluster of one",
            "etcd 节点故障",
        ),
        Runbook::ControlPlane => (
            "name what is wrong with the static pods of a control plane, and bounce them one at a time; --restart, --etcd-servers",
            "静态 Pod 故障",
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
        Runbook::ResourceShortage => shortage::plan(request, world),
        Runbook::NetworkLoss => network_loss::plan(request, world),
        Runbook::Overload => overload::plan(request, world),
        Runbook::ColdStartVerify => verify::plan(request, world),
        Runbook::PodsHeal => pods_heal::plan(request, world),
        Runbook::WorkloadHeal => workload_heal::plan(request, world),
        Runbook::NodeComponent => node_component::plan(request, world),
        Runbook::EtcdSnapshot => etcd_snapshot::plan(request, world),
        Runbook::EtcdMember => etcd_member::plan(request, world),
        Runbook::EtcdQuorum => etcd_quorum::plan(request, world),
        Runbook::ControlPlane => control_plane::plan(request, world),
    }
}

/// Every run that a store has.
fn records(store: &dyn Store) -> Result<Vec<Record>, OpenError> {
    let mut records = Vec::new();
    for id in store.runs()? {
        if Runbook::of_run(&id).is_none() {
            continue;
        }
        let failed = |(index, why)| OpenError::Journal {
            run: id.clone(),
            index,
            why,
        };
        records.push(Record::replay(&id, &store.journal(&id)?).map_err(failed)?);
    }
    Ok(records)
}

/// Every run that a store has, as it stood: who does not lead knows no more. Blocks.
///
/// # Errors
/// The store does not answer, or a journal in it cannot be understood.
pub fn remembered(store: &dyn Store) -> Result<BTreeMap<String, Arc<RunbookStatus>>, OpenError> {
    let told = |record: Record| {
        let status = RunbookStatus::new(&record, Some(WaitingOn::Leader));
        (record.id, Arc::new(status))
    };
    Ok(records(store)?.into_iter().map(told).collect())
}

impl Runbooks {
    /// Reads the journals of all runs. Nothing is done before [`Work::run`]. Blocks.
    ///
    /// # Errors
    /// The store does not answer, or a journal in it cannot be understood.
    pub fn open(ports: Ports) -> Result<(Self, Work), OpenError> {
        let mut runs = BTreeMap::new();
        let mut active = Vec::new();
        for record in records(ports.store.as_ref())? {
            runs.insert(record.id.clone(), Arc::new(RunbookStatus::new(&record, None)));
            if record.state.is_active() {
                active.push(record);
            }
        }
        let readiness = kept::load(ports.store.as_ref())?;
        let (begin, starts) = mpsc::channel(BACKLOG);
        let handle = Self {
            shared: Arc::new(Shared {
                ports,
                runs: watch::Sender::new(Arc::new(runs)),
                lines: Mutex::default(),
                starting: tokio::sync::Mutex::new(()),
                begin,
                lookout: Lookout::default(),
                readiness: Mutex::new(readiness),
            }),
        };
        handle.shared.tell_in_hand();
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
    pub async fn plan(&self, mut request: Request) -> Result<RunbookPlan, Refusal> {
        let ports = &self.shared.ports;
        if request.runbook == Runbook::NetworkLoss {
            let (options, policy) = (&mut request.options, &ports.policy);
            if options.workloads.is_empty() {
                options.workloads.clone_from(&policy.workloads);
            }
            let seconds = u32::try_from(policy.tolerate.as_secs()).unwrap_or(u32::MAX);
            options.tolerate_seconds.get_or_insert(seconds);
        }
        if request.runbook == Runbook::NodeDown {
            request.options.fence = ports.policy.fence == Fence::Propose;
        }
        let case = if request.runbook.wants_case() {
            Some(observe::case(ports, &request, Depth::Reasons).await.map(Arc::new))
        } else {
            None
        };
        let mut world = self.shared.world(&request, None)?;
        world.case = case;
        Ok(plan(request, &world))
    }

    /// Asks the cluster for what the plan of such a request needs and caches do not have. Takes seconds at most.
    pub async fn ask(&self, request: &Request) {
        observe::ask(&self.shared.ports, request).await;
        observe::ask_power(&self.shared.ports, request).await;
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

    /// How a cluster's etcd is: asked of the agents of its masters.
    ///
    /// # Errors
    /// The cluster is not declared.
    pub async fn etcd(&self, cluster: &ClusterName) -> Result<Glance, Refusal> {
        let ports = &self.shared.ports;
        if ports.inventory.cluster(cluster).is_none() {
            return Err(Refusal::UnknownCluster(cluster.clone()));
        }
        Ok(ports.etcd.look(&ports.inventory, cluster).await)
    }

    /// Has the agents of its masters read their snapshots again.
    ///
    /// # Errors
    /// The cluster is not declared.
    pub async fn verify_etcd_snapshots(&self, cluster: &ClusterName) -> Result<Verified, Refusal> {
        let ports = &self.shared.ports;
        if ports.inventory.cluster(cluster).is_none() {
            return Err(Refusal::UnknownCluster(cluster.clone()));
        }
        Ok(ports.etcd.verify(&ports.inventory, cluster).await)
    }

    /// Begins a run. Returns once its plan is durable.
    ///
    /// # Errors
    /// The plan refuses, a lane is busy, or the journal cannot be written.
    pub async fn start(&self, request: Request) -> Result<Arc<RunbookStatus>, Refusal> {
        let _turn = self.shared.starting.lock().await;
        self.ask(&request).await;
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
        if plan.request.options.proposed.is_some() {
            Shared::is_first(&plan, &runs)?;
        } else {
            self.shared.admit(&plan, runs.values().map(AsRef::as_ref))?;
        }
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
        // Whoever sees a run may steer it: its line is there first.
        let driver = self.driver(record.clone(), false);
        let status = self.shared.publish(&record, None);
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
        if let Some(line) = line.filter(|_| status.state.is_active()) {
            let (reply, answer) = oneshot::channel();
            let told = Told {
                word: word.clone(),
                reply,
            };
            if line.words.send(told).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            // It was not heard: the run has ended in the same moment, or nobody is at work any more.
            if self.run(run)?.state.is_active() {
                return Err(Refusal::Stopping);
            }
        }
        let status = self.run(run)?;
        match (word, status.state) {
            (Word::Abort { .. }, RunState::Aborted) => Ok(status),
            (Word::Approve { by }, RunState::Succeeded)
                if status
                    .steps
                    .iter()
                    .any(|step| step.approved.as_ref() == Some(&by)) =>
            {
                Ok(status)
            }
            (_, state) => Err(Refusal::State(format!("run {run} has ended ({state:?})"))),
        }
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

    /// Which nodes runs take away.
    fn tell_in_hand(&self) {
        let runs = Arc::clone(&self.runs.borrow());
        let takes = |run: &&Arc<RunbookStatus>| {
            run.state.is_active() && !run.is_proposal && lanes::takes(run.plan.request.runbook)
        };
        let nodes = runs.values().filter(takes).flat_map(|run| {
            let on = run.plan.steps.iter().filter_map(|step| step.on.clone());
            on.filter(|_| run.plan.request.runbook == Runbook::ControlPlane)
                .chain([run.plan.request.node.clone()])
        });
        let nodes: BTreeSet<NodeName> = nodes.filter(|node| !node.0.is_empty()).collect();
        self.ports.in_hand.send_if_modified(|before| {
            let is_other = *before != nodes;
            *before = nodes;
            is_other
        });
    }

    fn readiness(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Readiness>> {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weather(&self) -> Arc<Weather> {
        self.lookout.weather(&self.ports)
    }

    fn world(&self, request: &Request, plan: Option<&RunbookPlan>) -> Result<World, Refusal> {
        let cluster = observe::cluster(&self.ports, request).ok_or_else(|| unknown(request))?;
        let weather = self.weather();
        let known = Known {
            weather: &weather,
            readiness: self.readiness().get(&cluster).cloned(),
        };
        Ok(observe::world(&self.ports, request, plan, &known, cluster))
    }

    /// Whether a run may be at work beside these.
    fn admit<'a>(
        &self,
        plan: &RunbookPlan,
        runs: impl Iterator<Item = &'a RunbookStatus>,
    ) -> Result<(), Refusal> {
        let sky = self.weather().over(&plan.cluster);
        if let Some(why) = sky.storm.clone()
            && !plan.request.options.despite_storm
            && lanes::minds_storm(&plan.request)
        {
            return Err(Refusal::Storm { why });
        }
        let cold_starts = Arc::clone(&self.ports.cold_starts.borrow());
        let view = Arc::clone(&self.ports.view.borrow());
        let book = Arc::clone(&self.ports.permits.borrow());
        let api = self.ports.clusters.get(&plan.cluster);
        let requests = api.map_or(0, |api| api.requests_per_second());
        let workers = lanes::width(plan.request.runbook, &sky, &self.ports.policy, requests);
        Ok(lanes::admit(
            plan,
            runs,
            &cold_starts,
            &self.ports.inventory,
            &view,
            &book,
            workers,
        )?)
    }

    /// No other run is about the same, at work or proposed.
    fn is_first(plan: &RunbookPlan, runs: &BTreeMap<String, Arc<RunbookStatus>>) -> Result<(), Refusal> {
        let same = |run: &&Arc<RunbookStatus>| {
            run.state.is_active()
                && run.plan.request.runbook == plan.request.runbook
                && run.plan.cluster == plan.cluster
                && run.plan.request.has_subject_of(&plan.request)
        };
        match runs.values().find(same) {
            Some(run) => Err(Refusal::Open(run.id.clone())),
            None => Ok(()),
        }
    }

    fn publish(&self, record: &Record, waiting: Option<WaitingOn>) -> Arc<RunbookStatus> {
        let status = Arc::new(RunbookStatus::new(record, waiting));
        let told = Arc::clone(&status);
        let is_news = self.runs.send_if_modified(move |runs| {
            if runs.get(&told.id).is_some_and(|before| **before == *told) {
                return false;
            }
            let mut next = (**runs).clone();
            next.insert(told.id.clone(), told);
            *runs = Arc::new(next);
            true
        });
        if is_news {
            self.tell_in_hand();
        }
        status
    }

    fn tell(&self, record: &Record, event: NewEvent) {
        let mut event = event.run(&record.id);
        if !record.plan.request.node.0.is_empty() {
            event = event.node(&record.plan.request.node);
        }
        self.ports.events.emit(event.cluster(&record.plan.cluster));
    }
}

fn unknown(request: &Request) -> Refusal {
    if let Some(subject) = &request.subject {
        return Refusal::UnknownCluster(subject.cluster.clone());
    }
    if request.node.0.is_empty() || request.options.cluster.is_some() {
        return Refusal::UnknownSubject {
            runbook: request.runbook,
            node: request.node.0.clone(),
            cluster: request
                .options
                .cluster
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
    }
    Refusal::UnknownNode(request.node.clone())
}

/// The wall clock, milliseconds since the Unix epoch. It is written down for people, and decides nothing.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

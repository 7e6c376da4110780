//! The handle by which operators plan, start and steer runbooks, and what they are told of runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use super::case::read::Depth;
use super::declared::Declared;
use super::diagnosis::{self, Diagnosis};
use super::driver::{Driver, Heard};
use super::journal::{Entry, Event};
use super::mends::Awaited;
use super::plan::{Request, Runbook, RunbookPlan};
use super::policy::Fence;
use super::record::{Record, RunState};
use super::shared::Shared;
use super::status::RunbookStatus;
use super::subject::{Of, Subject};
use super::waiting::WaitingOn;
use super::weather::Lookout;
use super::{OpenError, Ports, Refusal, Work, etcd_keeper, kept, observe, plan};
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
pub(super) enum Word {
    Approve { by: String, of: Option<String> },
    Abort { by: String },
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) word: Word,
    pub(super) reply: oneshot::Sender<Result<Arc<RunbookStatus>, Refusal>>,
}

/// The way to a run at work.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) words: mpsc::Sender<Told>,
    pub(super) answers: mpsc::Sender<Heard>,
}

/// The handle by which runbooks are planned, started and steered. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Runbooks {
    pub(super) shared: Arc<Shared>,
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
        for (cluster, last) in etcd_keeper::load(ports.store.as_ref())? {
            ports.etcd.remember(cluster, last);
        }
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
        observe::search(&self.shared.ports, request).await;
        observe::invite(&self.shared.ports, request).await;
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

    /// A piece of a snapshot on a node, and the size of the whole.
    ///
    /// # Errors
    /// There is none, or the node's agent stays away: for people.
    pub async fn etcd_piece(
        &self,
        node: &NodeName,
        file: &str,
        offset: u64,
    ) -> Result<(Vec<u8>, u64), String> {
        self.shared.ports.etcd.piece(node, file, offset).await
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

    /// Approves of what waits for it, if that is `of` ([`RunbookStatus::asks`]; `None`: whatever it is); after a failure, has the step tried again.
    ///
    /// # Errors
    /// There is no such run, nothing of it waits for approval, or something else than `of`.
    pub async fn approve(
        &self,
        run: &str,
        of: Option<&str>,
        by: String,
    ) -> Result<Arc<RunbookStatus>, Refusal> {
        let of = of.map(str::to_owned);
        self.tell(run, Word::Approve { by, of }).await
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
            (Word::Approve { by, of }, RunState::Succeeded)
                if status.steps.iter().any(|step| {
                    step.approved.as_ref() == Some(&by) && of.as_ref().is_none_or(|of| *of == step.id())
                }) =>
            {
                Ok(status)
            }
            (_, state) => Err(Refusal::State(format!("run {run} has ended ({state:?})"))),
        }
    }

    pub(super) fn driver(&self, record: Record, resumed: bool) -> Driver {
        let (words, to_words) = mpsc::channel(BACKLOG);
        let (answers, to_answers) = mpsc::channel(BACKLOG);
        self.shared
            .lines()
            .insert(record.id.clone(), Line { words, answers });
        Driver::new(Arc::clone(&self.shared), record, resumed, to_words, to_answers)
    }
}

/// The wall clock, milliseconds since the Unix epoch. It is written down for people, and decides nothing.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

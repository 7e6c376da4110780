//! One cluster: what it can do, the caches that this allows, and the changes that are asked of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hyper::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::asked::{Asked, Sample, Told, Usage};
use super::cache::Cache;
use super::calls::ApiCall;
use super::capabilities::{Capabilities, GroupList, GroupVersion, VersionInfo};
use super::connection::{Access, CallError, Connection, causes};
use super::objects::workload::{Workload, WorkloadKind};
use super::objects::{Attachment, Budget, Lease, Node, Pod, Ready};
use super::reads::ReadError;
use super::rights::Resource;
use super::view::{Api, ApiView, Controllers, Life, NodeRoom, Room, Waiting};
use crate::inventory::ClusterName;

/// A cluster that does not answer is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// What a cluster can do is asked anew so often: clusters are upgraded.
const DISCOVER: Duration = Duration::from_mins(5);
/// Discovery ends within this.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(15);
/// What is asked for when somebody needs it is there within this, all its pages.
const ASKED_WITHIN: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    name: ClusterName,
    connection: Connection,
    state: RwLock<State>,
    changes: watch::Sender<u64>,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
enum State {
    /// It was not reached yet.
    Unknown { why: String },
    /// Its caches are kept.
    Known(Arc<Caches>),
}

#[derive(Debug)]
struct Caches {
    can: Capabilities,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    leases: Option<Cache<Lease>>,
    budgets: Option<Cache<Budget>>,
    attachments: Option<Cache<Attachment>>,
}

impl Caches {
    fn new(can: Capabilities) -> Self {
        let core = || GroupVersion("v1".to_owned());
        Self {
            nodes: Cache::new(core()),
            pods: Cache::new(core()),
            leases: can.leases.clone().map(Cache::new),
            budgets: can.budgets.clone().map(Cache::new),
            attachments: can.attachments.clone().map(Cache::new),
            can,
        }
    }

    /// Keeps them all, for ever.
    async fn keep(&self, connection: &Connection, changes: &watch::Sender<u64>) {
        tokio::join!(
            self.nodes.keep(connection, changes),
            self.pods.keep(connection, changes),
            async {
                if let Some(leases) = &self.leases {
                    leases.keep(connection, changes).await;
                }
            },
            async {
                if let Some(budgets) = &self.budgets {
                    budgets.keep(connection, changes).await;
                }
            },
            async {
                if let Some(attachments) = &self.attachments {
                    attachments.keep(connection, changes).await;
                }
            },
        );
    }

    /// The age of the oldest, or what is missing.
    fn age(&self, connection: &Connection, now: Instant) -> Result<Duration, String> {
        let mut oldest = self.nodes.age(connection, now)?;
        oldest = oldest.max(self.pods.age(connection, now)?);
        if let Some(leases) = &self.leases {
            oldest = oldest.max(leases.age(connection, now)?);
        }
        if let Some(budgets) = &self.budgets {
            oldest = oldest.max(budgets.age(connection, now)?);
        }
        if let Some(attachments) = &self.attachments {
            oldest = oldest.max(attachments.age(connection, now)?);
        }
        Ok(oldest)
    }

    fn trouble(&self) -> Option<String> {
        self.nodes
            .trouble()
            .or_else(|| self.pods.trouble())
            .or_else(|| self.leases.as_ref().and_then(Cache::trouble))
            .or_else(|| self.budgets.as_ref().and_then(Cache::trouble))
            .or_else(|| self.attachments.as_ref().and_then(Cache::trouble))
    }
}

impl Cluster {
    pub(super) fn new(name: ClusterName, access: Access) -> Self {
        Self {
            name,
            connection: Connection::new(access),
            state: RwLock::new(State::Unknown {
                why: "its API was not asked yet".to_owned(),
            }),
            changes: watch::Sender::new(0),
            asked: Mutex::default(),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &ClusterName {
        &self.name
    }

    /// At most so many requests are sent to it in a second.
    pub fn requests_per_second(&self) -> u32 {
        self.connection.requests_per_second()
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Counts up at each change of what is known of it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What it can do, once it was asked.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.caches().ok().map(|caches| caches.can.clone())
    }

    /// What is known of it that concerns one node.
    pub fn view(&self, node: &str, now: Instant) -> Api {
        let caches = match self.caches() {
            Ok(caches) => caches,
            Err(why) => return Api::Unknown { why },
        };
        let age = match caches.age(&self.connection, now) {
            Ok(age) => age,
            Err(why) => return Api::Unknown { why },
        };
        let key = super::objects::Key {
            namespace: String::new(),
            name: node.to_owned(),
        };
        let object = caches.nodes.read(|nodes| nodes.get(&key).cloned());
        let life = match &caches.leases {
            // A lease has its namespace in the API, and its node's name.
            Some(leases) => leases.read(|leases| {
                leases.get(&key).map_or_else(Life::default, |lease| Life {
                    renewed: lease.object.renewed,
                    seen: lease.seen,
                    watched: Some(lease.watched),
                })
            }),
            None => object.as_ref().map_or_else(Life::default, |node| Life {
                renewed: node.object.heartbeat,
                seen: node.seen,
                watched: Some(node.watched),
            }),
        };
        let pods = caches.pods.on(node);
        let budgets = caches.budgets.as_ref().map(|budgets| {
            budgets.read(|budgets| {
                let all = budgets.values().map(|budget| &budget.object);
                let here = all.filter(|budget| pods.iter().any(|pod| budget.covers(pod)));
                here.cloned().collect()
            })
        });
        let attachments = caches.attachments.as_ref();
        let attachments = attachments.map(|attachments| attachments.on(node));
        Api::Known(Box::new(ApiView {
            can: caches.can.clone(),
            age,
            node: object.map(|node| node.object),
            life,
            pods,
            budgets: budgets.unwrap_or_default(),
            attachments: attachments.unwrap_or_default(),
        }))
    }

    /// What all its nodes have and carry, and the pods that have none; beside them the pods of these uids.
    ///
    /// # Errors
    /// It is not known, or only from long ago: why.
    pub fn room(&self, now: Instant, fresh: Duration, uids: &BTreeSet<&str>) -> Result<Room, String> {
        let caches = self.caches()?;
        let age = caches.age(&self.connection, now)?;
        if age > fresh {
            return Err(format!(
                "what is known of cluster {} is {} s old: its API server does not answer",
                self.name,
                age.as_secs()
            ));
        }
        let mut room = Room {
            nodes: caches.nodes.read(|nodes| {
                let nodes = nodes.values().map(|node| {
                    let node = node.object.clone();
                    (node.name.clone(), NodeRoom::of(node))
                });
                nodes.collect()
            }),
            ..Room::default()
        };
        caches.pods.read(|pods| {
            for tracked in pods.values() {
                let pod = &tracked.object;
                if pod.is_over() {
                    continue;
                }
                if uids.contains(pod.uid.as_str()) {
                    room.named.insert(pod.uid.clone(), pod.clone());
                }
                if let Some(node) = room.nodes.get_mut(&pod.node) {
                    node.taken.add(&pod.requests);
                    node.count += 1;
                } else if pod.node.is_empty() && !pod.is_deleting {
                    room.waiting.push(Waiting {
                        pod: pod.clone(),
                        since: tracked.watched,
                    });
                }
                count(&mut room.controllers, pod);
            }
        });
        Ok(room)
    }

    /// The pods that have had no node for at least so long, as far as this coordinator has watched.
    pub fn waiting(&self, now: Instant, least: Duration) -> Vec<Pod> {
        let Ok(caches) = self.caches() else {
            return Vec::new();
        };
        caches.pods.read(|pods| {
            let waiting = pods.values().filter(|pod| {
                let is_old = now.saturating_duration_since(pod.watched) >= least;
                is_old && pod.object.node.is_empty() && !pod.object.is_deleting && !pod.object.is_over()
            });
            waiting.map(|pod| pod.object.clone()).collect()
        })
    }

    /// The names of its nodes that are not ready by its own word; `None`: it is not known, or only from long ago.
    pub fn not_ready(&self, now: Instant, fresh: Duration) -> Option<Vec<String>> {
        let caches = self.caches().ok()?;
        let age = caches.age(&self.connection, now).ok()?;
        (age <= fresh).then(|| {
            caches.nodes.read(|nodes| {
                let lost = nodes.values().filter(|node| node.object.ready != Ready::True);
                lost.map(|node| node.object.name.clone()).collect()
            })
        })
    }

    /// The usage of nodes and pods, if it was asked for ([`Cluster::ask_usage`]).
    pub fn usage(&self) -> Told<Usage> {
        self.asked().usage.told()
    }

    /// What a node used, each time that it was asked for; oldest first.
    pub fn samples(&self, node: &str) -> Vec<Sample> {
        self.asked().samples(node)
    }

    /// Its workloads, if they were asked for ([`Cluster::ask_workloads`]).
    pub fn workloads(&self) -> Told<Vec<Workload>> {
        self.asked().workloads.told()
    }

    /// Asks for the usage of its nodes and pods, unless that was done within `every`. Takes seconds at most.
    pub async fn ask_usage(&self, every: Duration) {
        if !self.asked().usage.is_due(every) {
            return;
        }
        let usage = timeout(ASKED_WITHIN, self.read_usage()).await;
        let usage = usage.unwrap_or_else(|_| Err(format!("no answer within {ASKED_WITHIN:?}")));
        self.asked().take_usage(usage);
    }

    /// Asks for its workloads, unless that was done within `every`. Takes seconds at most.
    pub async fn ask_workloads(&self, every: Duration) {
        if !self.asked().workloads.is_due(every) {
            return;
        }
        let workloads = timeout(ASKED_WITHIN, self.read_workloads()).await;
        let workloads = workloads.unwrap_or_else(|_| Err(format!("no answer within {ASKED_WITHIN:?}")));
        self.asked().workloads.take(workloads);
    }

    async fn read_usage(&self) -> Result<Usage, String> {
        let metrics = self.caches()?.can.metrics.clone().ok_or_else(|| {
            format!(
                "cluster {} serves no metrics.k8s.io: metrics-server is not installed, or not up",
                self.name
            )
        })?;
        let told = |error: ReadError| error.to_string();
        let nodes = self
            .objects_of(Resource::NodeMetrics, Some(&metrics), "", "")
            .await;
        let pods = self
            .objects_of(Resource::PodMetrics, Some(&metrics), "", "")
            .await;
        Ok(Usage::read(&nodes.map_err(told)?, &pods.map_err(told)?))
    }

    async fn read_workloads(&self) -> Result<Vec<Workload>, String> {
        let apps = self.caches()?.can.workloads.clone();
        let apps = apps.ok_or_else(|| format!("cluster {} serves no apps/v1", self.name))?;
        let mut all = Vec::new();
        for kind in WorkloadKind::ROLLING {
            let items = self.objects_of(kind.into(), Some(&apps), "", "").await;
            let items = items.map_err(|error| error.to_string())?;
            all.extend(items.iter().filter_map(|item| Workload::read(kind, item)));
        }
        Ok(all)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps it from being known at present, for people.
    pub fn trouble(&self) -> Option<String> {
        match self.caches() {
            Ok(caches) => caches.trouble(),
            Err(why) => Some(why),
        }
    }

    /// Makes a change, once.
    ///
    /// # Errors
    /// It was not made; or nobody answered, and it may have been.
    pub async fn perform(&self, call: &ApiCall) -> Result<(), CallError> {
        let attachments = self.capabilities().and_then(|can| can.attachments);
        let within = timeout(
            Duration::from_secs(20),
            self.connection.perform(call, attachments.as_ref()),
        );
        within.await.unwrap_or_else(|_| {
            Err(CallError::Unreachable(
                "no answer within 20 s, on any address".to_owned(),
            ))
        })
    }

    /// Asks what it can do, and keeps its caches; for ever.
    pub(super) async fn keep(&self) {
        loop {
            match self.discover().await {
                Ok(can) => {
                    tracing::info!(cluster = %self.name, version = %can.version, "the API of a cluster answers");
                    let caches = Arc::new(Caches::new(can));
                    self.set(State::Known(Arc::clone(&caches)));
                    tokio::select! {
                        () = caches.keep(&self.connection, &self.changes) => {}
                        () = self.until_it_can_otherwise(&caches.can) => {}
                    }
                }
                Err(why) => {
                    self.set(State::Unknown {
                        why: format!("the API of cluster {} does not answer: {why}", self.name),
                    });
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    /// A failure to ask is none of its abilities lost.
    async fn until_it_can_otherwise(&self, can: &Capabilities) {
        loop {
            sleep(DISCOVER).await;
            if let Ok(now) = self.discover().await
                && now != *can
            {
                tracing::info!(cluster = %self.name, version = %now.version, "what a cluster can do has changed");
                return;
            }
        }
    }

    async fn discover(&self) -> Result<Capabilities, String> {
        let asked = async {
            let client = self
                .connection
                .client()
                .await
                .map_err(|error| error.to_string())?;
            let version: VersionInfo = get(&client, "/version").await?;
            let groups: GroupList = get(&client, "/apis").await?;
            let version = version.version().ok_or("it does not say which version it is")?;
            Ok(Capabilities::new(version, &groups))
        };
        let asked = timeout(DISCOVERED_WITHIN, asked).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {DISCOVERED_WITHIN:?}")))
    }

    fn caches(&self) -> Result<Arc<Caches>, String> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Unknown { why } => Err(why.clone()),
            State::Known(caches) => Ok(Arc::clone(caches)),
        }
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn count(controllers: &mut Controllers, pod: &Pod) {
    if pod.is_deleting {
        return;
    }
    if let Some(controller) = &pod.controller {
        let tally = controllers
            .entry((pod.key.namespace.clone(), controller.clone()))
            .or_default();
        tally.pods += 1;
        tally.ready += usize::from(pod.is_ready);
        tally.waiting += usize::from(pod.node.is_empty());
    }
}

async fn get<T: serde::de::DeserializeOwned>(client: &kube::Client, path: &str) -> Result<T, String> {
    let request = Request::get(path)
        .header(hyper::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    client.request(request).await.map_err(|error| causes(&error))
}

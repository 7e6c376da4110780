//! Asks the agents of a cluster's masters, and keeps what was seen for those who cannot wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep};

use super::judge::{Answers, Seen, View, judge};
use super::newcomer::{Invitation, Newcomer, Prepared, Wanted};
use super::sources::{Last, Sources};
use super::told::Snapshot;
use crate::fleet::{Ask, EtcdAnswer, Fleet};
use crate::inventory::{ClusterName, Inventory, NodeName, Role};

/// An agent asks its member for 3 s by default, and then tells what came of it.
const LOOK: Duration = Duration::from_secs(5);
/// A disk reads a snapshot of 8 GiB, etcd's largest, in less.
const VERIFY: Duration = Duration::from_mins(5);
/// So much of a snapshot is asked for at once, bytes.
const PIECE: u32 = 256 << 10;
/// A disk that is slow has it by then.
const PIECE_WITHIN: Duration = Duration::from_secs(10);
/// It is tried so often, with this between: half a minute.
const TRIES: u32 = 15;
const AGAIN: Duration = Duration::from_secs(2);
/// What was found on disks is good for so long while nobody answers: a plan is looked at, and then begun.
const FOUND: Duration = Duration::from_secs(30);

type Asks = dyn Fn(NodeName, Ask, Duration) -> BoxFuture<'static, Result<EtcdAnswer, String>> + Send + Sync;
/// Of each node its snapshots, each with what is wrong with it; or why they are not known.
pub type Verified = BTreeMap<NodeName, Result<Vec<(Snapshot, Option<String>)>, String>>;

/// A way to look. Cheap to clone.
#[derive(Clone)]
pub struct Eyes {
    asks: Arc<Asks>,
    seen: Arc<Mutex<BTreeMap<ClusterName, Glance>>>,
    found: Arc<Mutex<BTreeMap<ClusterName, Findings>>>,
    last: Arc<Mutex<BTreeMap<ClusterName, Last>>>,
    newcomers: Arc<Mutex<BTreeMap<ClusterName, Newcomer>>>,
}

/// What was found on the disks of masters, and when.
#[derive(Debug, Clone)]
pub struct Findings {
    /// By node.
    pub sources: Arc<Sources>,
    /// When the agents were asked.
    pub at: Instant,
}

/// What was seen, and when.
#[derive(Debug, Clone)]
pub struct Glance {
    /// What.
    pub view: Arc<View>,
    /// When the agents were asked.
    pub at: Instant,
}

impl Eyes {
    /// By this way of asking.
    pub fn new(
        asks: impl Fn(NodeName, Ask, Duration) -> BoxFuture<'static, Result<EtcdAnswer, String>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            asks: Arc::new(asks),
            seen: Arc::default(),
            found: Arc::default(),
            last: Arc::default(),
            newcomers: Arc::default(),
        }
    }

    /// Through the sessions of a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let fleet = fleet.clone();
        Self::new(move |node, ask, within| {
            let fleet = fleet.clone();
            Box::pin(async move { fleet.ask(&node, ask, within).await })
        })
    }

    /// Asks all of them at once; takes some seconds at most.
    pub async fn look(&self, inventory: &Inventory, cluster: &ClusterName) -> Glance {
        let at = Instant::now();
        let told = self.ask(inventory, cluster, Ask::Look, LOOK).await;
        let answers: Answers = told
            .into_iter()
            .map(|(node, answer)| {
                let told = answer.and_then(|answer| {
                    if let EtcdAnswer::Told(told) = answer {
                        Ok(*told)
                    } else {
                        Err(OTHER.to_owned())
                    }
                });
                (node, told)
            })
            .collect();
        let glance = Glance {
            view: Arc::new(judge(&answers, unix_seconds())),
            at,
        };
        self.kept().insert(cluster.clone(), glance.clone());
        if glance.view.cluster_id.is_some() {
            // Whoever runs writes.
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.remove(cluster);
        }
        if let Some(last) = last(&glance.view, unix_ms()) {
            self.remember(cluster.clone(), last);
        }
        glance
    }

    /// The same, unless it was asked less than this ago.
    pub async fn look_again(&self, inventory: &Inventory, cluster: &ClusterName, every: Duration) {
        let is_fresh = self
            .seen(cluster)
            .is_some_and(|glance| glance.at.elapsed() < every);
        if !is_fresh {
            self.look(inventory, cluster).await;
        }
    }

    /// What was seen last.
    pub fn seen(&self, cluster: &ClusterName) -> Option<Glance> {
        self.kept().get(cluster).cloned()
    }

    /// Has all snapshots read again.
    pub async fn verify(&self, inventory: &Inventory, cluster: &ClusterName) -> Verified {
        let told = self.ask(inventory, cluster, Ask::Verify, VERIFY).await;
        let checks = |answer| {
            if let EtcdAnswer::Verified(checks) = answer {
                Ok(checks)
            } else {
                Err(OTHER.to_owned())
            }
        };
        told.into_iter()
            .map(|(node, answer)| (node, answer.and_then(checks)))
            .collect()
    }

    /// A piece of a snapshot on a node, and the size of the whole. An agent that is away is asked again for a while: its session may be just new.
    ///
    /// # Errors
    /// There is none, or the agent stays away: for people.
    pub async fn piece(&self, node: &NodeName, file: &str, offset: u64) -> Result<(Vec<u8>, u64), String> {
        let mut tries = 0;
        loop {
            let ask = Ask::Read {
                file: file.to_owned(),
                offset,
                at_most: PIECE,
            };
            let why = match (self.asks)(node.clone(), ask, PIECE_WITHIN).await {
                Ok(EtcdAnswer::Piece(piece)) => return piece,
                Ok(_) => OTHER.to_owned(),
                Err(why) => why,
            };
            tries += 1;
            if tries >= TRIES {
                return Err(why);
            }
            sleep(AGAIN).await;
        }
    }

    /// Has the agents look for out of what it could be restored, unless they did a moment ago. Takes minutes where there is much.
    pub async fn search(&self, inventory: &Inventory, cluster: &ClusterName) {
        let is_fresh = self
            .found(cluster)
            .is_some_and(|found| found.at.elapsed() < FOUND);
        if is_fresh {
            return;
        }
        let told = self.ask(inventory, cluster, Ask::Search, VERIFY).await;
        let sources = |answer| {
            let EtcdAnswer::Found(sources, trouble) = answer else {
                return Err(OTHER.to_owned());
            };
            match trouble {
                Some(why) if sources.is_empty() => Err(why),
                Some(_) | None => Ok(sources),
            }
        };
        let sources: Sources = told
            .into_iter()
            .map(|(node, answer)| (node, answer.and_then(sources)))
            .collect();
        let findings = Findings {
            sources: Arc::new(sources),
            at: Instant::now(),
        };
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(cluster.clone(), findings);
    }

    /// Has the agent of a node look whether a member may be there, with the manifest of a member that is well. Takes some seconds at most.
    pub async fn invite(&self, cluster: &ClusterName, wanted: Wanted) {
        let told = self.prepared(&wanted).await;
        let newcomer = Newcomer { wanted, told };
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        newcomers.insert(cluster.clone(), newcomer);
    }

    async fn prepared(&self, wanted: &Wanted) -> Result<(String, Prepared), String> {
        let told = (self.asks)(wanted.like.clone(), Ask::Template, LOOK).await;
        let of_like = |why: String| {
            format!(
                "the manifest of {}: {why} (an agent that is older than its coordinator does not know the question: update it)",
                wanted.like
            )
        };
        let EtcdAnswer::Template(like) = told.map_err(of_like)? else {
            return Err(of_like(OTHER.to_owned()));
        };
        let like = like.map_err(of_like)?;
        let file = like.file.clone();
        let ask = Ask::Newcomer(Box::new(Invitation {
            like,
            name: wanted.on.0.clone(),
            address: wanted.address.clone(),
            initial_cluster: wanted.initial_cluster.clone(),
            needs_bytes: wanted.needs_bytes,
        }));
        let told = (self.asks)(wanted.on.clone(), ask, LOOK).await;
        let of_on = |why: String| {
            format!(
                "what the agent of {} makes of it: {why} (an agent that is older than its coordinator does not know the question: update it)",
                wanted.on
            )
        };
        let EtcdAnswer::Newcomer(prepared) = told.map_err(of_on)? else {
            return Err(of_on(OTHER.to_owned()));
        };
        Ok((file, prepared))
    }

    /// What was told of a member that is to be on another node, or on one that has none any more.
    pub fn newcomer(&self, cluster: &ClusterName) -> Option<Newcomer> {
        let newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        newcomers.get(cluster).cloned()
    }

    /// What was found last.
    pub fn found(&self, cluster: &ClusterName) -> Option<Findings> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(cluster).cloned()
    }

    /// What was seen of it while it was well.
    pub fn last(&self, cluster: &ClusterName) -> Option<Last> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(cluster).cloned()
    }

    /// Of the same cluster, what has seen more stays.
    pub fn remember(&self, cluster: ClusterName, seen: Last) {
        let mut all = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_older = all
            .get(&cluster)
            .is_some_and(|last| last.cluster_id == seen.cluster_id && last.revision > seen.revision);
        if !is_older {
            all.insert(cluster, seen);
        }
    }

    async fn ask(
        &self,
        inventory: &Inventory,
        cluster: &ClusterName,
        ask: Ask,
        within: Duration,
    ) -> BTreeMap<NodeName, Result<EtcdAnswer, String>> {
        let asked = hosts(inventory, cluster).into_iter().map(|node| {
            let answer = (self.asks)(node.clone(), ask.clone(), within);
            async move { (node, answer.await) }
        });
        join_all(asked).await.into_iter().collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Glance>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes that may have a member: those for etcd alone, where there are some; otherwise the masters.
pub fn hosts(inventory: &Inventory, cluster: &ClusterName) -> Vec<NodeName> {
    let of = |role| {
        let nodes = inventory.members(cluster).filter(move |node| node.role == role);
        nodes.map(|node| node.name.clone()).collect::<Vec<_>>()
    };
    match of(Role::Etcd) {
        alone if !alone.is_empty() => alone,
        _ => of(Role::ControlPlane),
    }
}

const OTHER: &str = "its agent answered another question";

/// What is worth to be remembered of a cluster that is well.
fn last(view: &View, now_unix_ms: u64) -> Option<Last> {
    if !view.has_quorum() {
        return None;
    }
    let statuses = || view.members.iter().filter_map(Seen::status);
    let ours = statuses().filter(|status| Some(status.cluster_id) == view.cluster_id);
    let most = ours.max_by_key(|status| status.revision)?;
    Some(Last {
        cluster_id: most.cluster_id,
        revision: most.revision,
        version: most.version.clone(),
        at_unix_ms: now_unix_ms,
        members: view
            .members
            .iter()
            .filter(|seen| seen.id.is_some() && !seen.name.is_empty())
            .map(|seen| (seen.name.clone(), seen.peer_urls.clone()))
            .collect(),
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock: certificates are measured by it.
fn unix_seconds() -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
}

impl Default for Eyes {
    /// Nobody answers.
    fn default() -> Self {
        Self::new(|_, _, _| Box::pin(async { Err("nobody can be asked".to_owned()) }))
    }
}

impl fmt::Debug for Eyes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eyes")
    }
}

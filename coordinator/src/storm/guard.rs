//! The storm guard: looks at the fleet whenever it changed, freezes and thaws, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Frozen, Seen, Verdict, judge};
use crate::brakes::BrakesHandle;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::execute::Executor;
use crate::fleet::Fleet;
use crate::fleet::view::FleetView;
use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::outage::{self, Verdict as Outage};
use crate::plan::cold_start;
use crate::policy::{OutagePolicy, StormPolicy};

/// The fleet is looked at no more often, …
const PAUSE: Duration = Duration::from_millis(100);
/// … and between two looks is so many times what a look took, …
const PAUSE_PER_COST: u32 = 10;
/// … within reason: a look may have had to wait for the store.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// So many nodes are named in an evidence.
const NAMED: usize = 8;

/// An operator ends a storm.
#[derive(Debug)]
pub struct ThawRequest {
    /// Of this cluster.
    pub cluster: ClusterName,
    /// Of this condition; `None`: every one.
    pub condition: Option<String>,
    /// Who says so.
    pub by: String,
    /// What it ended.
    pub answer: tokio::sync::oneshot::Sender<Vec<(ClusterName, String, Frozen)>>,
}

/// What it looks at, and whom it tells.
#[derive(Debug)]
pub struct Guard {
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// What makes a storm.
    pub policy: StormPolicy,
    /// What makes an outage.
    pub outage: OutagePolicy,
    /// The live picture.
    pub fleet: Fleet,
    /// Runs.
    pub executor: Executor,
    /// What is frozen.
    pub brakes: BrakesHandle,
    /// What happens, for people.
    pub events: Events,
    /// What operators thaw.
    pub thaws: mpsc::Receiver<ThawRequest>,
}

type Key = (ClusterName, String);

/// What was raised before is history.
#[derive(Debug, Default)]
struct Memory {
    clusters: BTreeMap<ClusterName, Instant>,
    conditions: BTreeMap<Key, Instant>,
    renewed: Option<Instant>,
}

impl Guard {
    /// Guards until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut views = self.fleet.view();
        let mut memory = Memory::default();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let began = Instant::now();
            self.pass(&view, &mut memory).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE.max(began.elapsed() * PAUSE_PER_COST).min(LONGEST_PAUSE)) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // The view is published at least every second.
                changed = views.changed() => if changed.is_err() { return },
                Some(asked) = self.thaws.recv() => self.thaw(asked, &mut memory).await,
            }
        }
    }

    async fn pass(&self, view: &FleetView, memory: &mut Memory) {
        let now = Instant::now();
        let before = self.brakes.book().storms.clone();
        let silenced = silenced(&self.brakes, &self.fleet);
        let power = self.power_events(view, &silenced);
        for cluster in &power {
            memory.clusters.insert(cluster.clone(), now);
        }
        let seen = self.look(&silenced, &power, memory, now);
        let mut storms = before.clone();
        let keys: BTreeSet<&Key> = before.keys().chain(seen.keys()).collect();
        let mut events = Vec::new();
        for key in keys {
            let (tally, names) = seen.get(key).cloned().unwrap_or_else(|| {
                let none = Seen {
                    power_event: power.contains(&key.0),
                    exempt: self.policy.exempt.contains(&key.1),
                    ..Seen::default()
                };
                (none, Vec::new())
            });
            match judge(before.get(key), &tally, &self.policy, now) {
                Verdict::Calm => {}
                Verdict::Freeze { threshold } => {
                    let evidence = self.evidence(key, &tally, &names);
                    events.push((key.clone(), EventKind::StormBegan, Severity::Critical, format!(
                        "{evidence}: it is not the nodes; no node of the cluster mends it by itself until it passes, or: blackstart storm thaw --cluster {} {}",
                        key.0, key.1
                    )));
                    let frozen = Frozen {
                        since: now,
                        threshold,
                        evidence,
                        below_since: None,
                    };
                    storms.insert(key.clone(), frozen);
                }
                Verdict::Frozen { below_since } => {
                    if let Some(frozen) = storms.get_mut(key) {
                        frozen.below_since = below_since;
                    }
                }
                Verdict::Thaw(why) => {
                    storms.remove(key);
                    memory.conditions.insert(key.clone(), now);
                    let text = format!("{} is thawed: {}", key.1, why.as_str());
                    events.push((key.clone(), EventKind::StormEnded, Severity::Info, text));
                }
            }
        }
        let frozen = !storms.is_empty();
        self.put(storms).await;
        for ((cluster, _), kind, severity, text) in events {
            tracing::warn!(%cluster, text, "storm");
            self.events
                .emit(NewEvent::new(severity, kind, text).cluster(&cluster));
        }
        let due = |at: Instant| now.saturating_duration_since(at) >= self.policy.term / 3;
        if frozen && memory.renewed.is_none_or(due) {
            memory.renewed = Some(now);
            self.brakes.renew();
        }
    }

    async fn put(&self, storms: BTreeMap<Key, Frozen>) {
        let brakes = self.brakes.clone();
        let put = spawn_blocking(move || brakes.storms(storms)).await;
        match put {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what is frozen is not kept in the store"),
            Err(error) => tracing::error!(%error, "what is frozen is not kept in the store"),
        }
    }

    async fn thaw(&self, asked: ThawRequest, memory: &mut Memory) {
        let now = Instant::now();
        let mut storms = self.brakes.book().storms.clone();
        let wanted = |(cluster, condition): &Key| {
            *cluster == asked.cluster && asked.condition.as_ref().is_none_or(|one| one == condition)
        };
        let ended: Vec<_> = storms.extract_if(.., |key, _| wanted(key)).collect();
        self.put(storms).await;
        let mut answer = Vec::new();
        for ((cluster, condition), frozen) in ended {
            let text = format!("{condition} is thawed by operator {}", asked.by);
            tracing::warn!(%cluster, text, "storm");
            let event = NewEvent::new(Severity::Warning, EventKind::StormEnded, text);
            self.events.emit(event.cluster(&cluster));
            memory
                .conditions
                .insert((cluster.clone(), condition.clone()), now);
            answer.push((cluster, condition, frozen));
        }
        // Whoever asked may be gone.
        let _gone = asked.answer.send(answer);
    }

    /// The clusters that a cold start owns, or is about to.
    fn power_events(&self, view: &FleetView, silenced: &BTreeSet<NodeName>) -> BTreeSet<ClusterName> {
        let outages = outage::assess_without(view, &self.inventory, &self.outage, silenced);
        let declared = outages
            .into_iter()
            .filter(|outage| matches!(outage.verdict, Outage::PowerEvent { .. }))
            .map(|outage| outage.cluster);
        let runs = self.executor.runs();
        let owned = runs
            .iter()
            .filter(|run| run.state.is_active() && run.plan.runbook == cold_start::RUNBOOK)
            .flat_map(|run| run.plan.releases())
            .filter_map(|node| self.inventory.node(node))
            .map(|spec| spec.cluster.clone());
        declared.chain(owned).collect()
    }

    fn look(
        &self,
        silenced: &BTreeSet<NodeName>,
        power: &BTreeSet<ClusterName>,
        memory: &Memory,
        now: Instant,
    ) -> BTreeMap<Key, (Seen, Vec<NodeName>)> {
        let mut seen: BTreeMap<Key, (Seen, Vec<NodeName>)> = BTreeMap::new();
        let mut sizes: BTreeMap<&ClusterName, usize> = BTreeMap::new();
        self.fleet.read(|state| {
            for spec in self.inventory.nodes.values() {
                if silenced.contains(&spec.name) {
                    continue;
                }
                *sizes.entry(&spec.cluster).or_default() += 1;
                let Some(node) = state.node(&spec.name).filter(|node| node.view().in_session) else {
                    continue;
                };
                for (kind, at) in node.raised() {
                    let key = (spec.cluster.clone(), kind.clone());
                    let after = [memory.clusters.get(&spec.cluster), memory.conditions.get(&key)];
                    let recent = now.saturating_duration_since(*at) <= self.policy.window
                        && after.into_iter().flatten().all(|after| at > after);
                    let (tally, names) = seen.entry(key).or_default();
                    if recent {
                        tally.raised += 1;
                        names.push(spec.name.clone());
                    }
                    let stands = node.conditions().iter().any(|standing| standing.kind == *kind);
                    tally.standing += usize::from(stands);
                }
            }
        });
        for ((cluster, kind), (tally, _)) in &mut seen {
            tally.nodes = sizes.get(cluster).copied().unwrap_or_default();
            tally.power_event = power.contains(cluster);
            tally.exempt = self.policy.exempt.contains(kind);
        }
        seen
    }

    fn evidence(&self, (cluster, condition): &Key, tally: &Seen, names: &[NodeName]) -> String {
        let some: Vec<_> = names.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "{condition} on {} of {} nodes of {cluster} within {} s ({}{more})",
            tally.raised,
            tally.nodes,
            self.policy.window.as_secs(),
            some.join(", ")
        )
    }
}

/// The nodes that are silenced, by an operator's word here or on the node itself.
pub fn silenced(brakes: &BrakesHandle, fleet: &Fleet) -> BTreeSet<NodeName> {
    let mut silenced = brakes.silenced();
    fleet.read(|state| {
        let themselves = state.nodes().filter(|(_, node)| node.is_silenced());
        silenced.extend(themselves.map(|(name, _)| name.clone()));
    });
    silenced
}

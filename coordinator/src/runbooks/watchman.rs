//! Carries out what [`super::trigger`] decides, and keeps how ready each cluster is while it is well.
//!
//! ```text
//!  agents' conditions, sessions, caches ─► signs ─► trigger::decide (pure) ─► Runbooks::start, or abort of what was proposed
//!  control planes that cold starts wait for ─► their etcd ─► lost_quorum::judge (pure) ─► signs, and what the cold start is told
//!  clusters that are well ─► workloads ─► Readiness ─► store              a cold start that ended ─► cold-start-verify
//! ```

mod stalls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::stalls::Watched;
use super::options::Options;
use super::overload::CONDITION;
use super::plan::{Request, Runbook};
use super::readiness::Readiness;
use super::status::RunbookStatus;
use super::subject::Mending;
use super::trigger::{BY, Decision, Sign, decide};
use super::weather::Weather;
use super::world::{Api, seconds};
use super::{Refusal, Runbooks, kept, pods, unix_ms};
use crate::execute::status::RunState;
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, NodeName, NodeSpec};
use crate::kubernetes::objects::Pod;
use crate::plan::cold_start;

/// It looks so often.
const EVERY: Duration = Duration::from_secs(1);
/// What was refused is tried again after this.
const AGAIN: Duration = Duration::from_mins(1);
/// A cold start that ended longer ago than this is not verified by itself any more.
const VERIFIED_WITHIN: Duration = Duration::from_hours(1);
/// What was ready in better days is forgotten after this, whatever has not come back since.
const FORGOTTEN: Duration = Duration::from_hours(24);
/// Pods may take so long to go.
const DRAIN_WITHIN: Duration = Duration::from_mins(10);

/// Looks, begins, proposes and withdraws.
#[derive(Debug)]
pub(super) struct Watchman {
    pub(super) runbooks: Runbooks,
}

type Subject = (Runbook, Option<NodeName>, ClusterName);

#[derive(Debug, Default)]
struct Memory {
    /// Not to be tried before a time, and why.
    refused: BTreeMap<Subject, (Instant, String)>,
    /// The control planes that cold starts wait for.
    stalls: BTreeMap<ClusterName, Watched>,
    /// When how ready a cluster is was looked at last.
    looked: BTreeMap<ClusterName, Instant>,
}

fn subject(sign: &Sign) -> Subject {
    (sign.runbook, sign.node.clone(), sign.cluster.clone())
}

impl Memory {
    /// Why what calls for a run was refused lately.
    fn why_refused(&self, sign: &Sign) -> Option<&str> {
        self.refused.get(&subject(sign)).map(|(_, why)| why.as_str())
    }
}

impl Watchman {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(EVERY) => {}
            }
            if !self.runbooks.shared.ports.tenure.holds() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pass(&mut memory) => {}
            }
        }
    }

    async fn pass(&self, memory: &mut Memory) {
        let shared = &self.runbooks.shared;
        let weather = shared.weather();
        let mut signs = self.signs(&weather);
        signs.extend(self.of_stalls(memory).await);
        let runs = self.runbooks.runs();
        let all: Vec<&RunbookStatus> = runs.values().map(AsRef::as_ref).collect();
        let now = Instant::now();
        memory.refused.retain(|_, (until, _)| *until > now);
        for decision in decide(&signs, &all, &shared.ports.policy, unix_ms()) {
            match decision {
                Decision::Withdraw { run } => {
                    if let Err(refusal) = self.runbooks.abort(&run, BY.to_owned()).await {
                        tracing::debug!(run, %refusal, "a proposal was not withdrawn");
                    }
                }
                Decision::Begin { sign, propose } => {
                    let subject = subject(&sign);
                    if memory.refused.contains_key(&subject) {
                        continue;
                    }
                    if let Err(refusal) = self.begin(&sign, propose).await {
                        tracing::info!(
                            runbook = %sign.runbook, cluster = %sign.cluster, node = ?sign.node, why = %refusal,
                            "what a condition calls for was refused; trying again later"
                        );
                        memory.refused.insert(subject, (now + AGAIN, refusal.to_string()));
                    }
                }
            }
        }
        self.keep_readiness(&weather, memory).await;
    }

    async fn begin(&self, sign: &Sign, propose: bool) -> Result<(), Refusal> {
        let request = Request {
            runbook: sign.runbook,
            node: sign.node.clone().unwrap_or_else(|| NodeName(String::new())),
            by: BY.to_owned(),
            reason: sign.evidence.clone(),
            drain_within: DRAIN_WITHIN,
            delete_local_data: false,
            delete_unmanaged: false,
            proof: None,
            options: Options {
                cluster: sign.node.is_none().then(|| sign.cluster.clone()),
                proposed: propose.then(|| sign.evidence.clone()),
                ..Options::default()
            },
            subject: None,
            mending: Mending::default(),
        };
        let run = self.runbooks.start(request).await?;
        tracing::warn!(
            run = run.id,
            evidence = sign.evidence,
            propose,
            "a condition calls for a runbook"
        );
        Ok(())
    }

    /// What calls for a runbook now, in clusters that are in no storm and no power event.
    fn signs(&self, weather: &Weather) -> Vec<Sign> {
        let ports = &self.runbooks.shared.ports;
        let view: Arc<FleetView> = Arc::clone(&ports.view.borrow());
        let silenced = ports.brakes.silenced();
        let now = Instant::now();
        let mut signs = Vec::new();
        for cluster in &ports.inventory.clusters {
            let sky = weather.over(&cluster.name);
            if sky.storm.is_some() || sky.power_event.is_some() {
                continue;
            }
            let api = ports.clusters.get(&cluster.name);
            let Some(lost) = api.and_then(|api| api.not_ready(now, ports.timing.fresh)) else {
                continue;
            };
            for spec in ports
                .inventory
                .members(&cluster.name)
                .filter(|spec| !silenced.contains(&spec.name))
            {
                signs.extend(self.of_node(spec, lost.contains(&spec.name.0), &view, now));
            }
            signs.extend(self.of_pods(&cluster.name, now));
        }
        signs.extend(self.of_cold_starts(weather));
        signs
    }

    fn of_node(&self, spec: &NodeSpec, is_lost: bool, view: &FleetView, now: Instant) -> Option<Sign> {
        let ports = &self.runbooks.shared.ports;
        let policy = &ports.policy;
        let sign = |runbook, evidence| {
            Some(Sign {
                runbook,
                node: Some(spec.name.clone()),
                cluster: spec.cluster.clone(),
                evidence,
            })
        };
        let node = view.nodes.get(&spec.name)?;
        if is_lost && node.phase != Phase::Stopped {
            let quiet = match ports.clusters.get(&spec.cluster)?.view(&spec.name.0, now) {
                Api::Known(view) => view.life.quiet_for(now)?,
                Api::Unknown { .. } => return None,
            };
            if quiet < policy.lost_for {
                return None;
            }
            let quiet = seconds(quiet);
            return if node.in_session {
                let is_healthy = node.attestation.as_ref().is_some_and(|said| said.kubelet_healthy);
                if is_healthy {
                    sign(
                        Runbook::NetworkLoss,
                        format!("its agent speaks, and its API servers have not heard of it for {quiet}"),
                    )
                } else {
                    sign(
                        Runbook::NodeDown,
                        format!(
                            "its kubelet does not answer its agent, and has not been heard of for {quiet}"
                        ),
                    )
                }
            } else {
                sign(
                    Runbook::NodeDown,
                    format!("neither its agent nor its kubelet has been heard of for {quiet}"),
                )
            };
        }
        let told = ports.conditions.of(&spec.name).into_iter();
        let overload = told
            .filter(|condition| condition.kind == CONDITION && !condition.silenced && node.in_session)
            .find(|condition| now.saturating_duration_since(condition.since) >= policy.overloaded_for)?;
        sign(
            Runbook::Overload,
            format!(
                "its agent has told of {CONDITION} for {}: {}",
                seconds(now.saturating_duration_since(overload.since)),
                overload.evidence
            ),
        )
    }

    fn of_pods(&self, cluster: &ClusterName, now: Instant) -> Option<Sign> {
        let ports = &self.runbooks.shared.ports;
        let waiting = ports
            .clusters
            .get(cluster)?
            .waiting(now, ports.policy.pending_for);
        if waiting.is_empty() {
            return None;
        }
        Some(Sign {
            runbook: Runbook::ResourceShortage,
            node: None,
            cluster: cluster.clone(),
            evidence: format!(
                "{} found no node for {}",
                pods::names(waiting.iter().collect::<Vec<&Pod>>()),
                seconds(ports.policy.pending_for)
            ),
        })
    }

    /// The clusters that a cold start has brought back, and that nobody has verified since.
    fn of_cold_starts(&self, weather: &Weather) -> Vec<Sign> {
        let shared = &self.runbooks.shared;
        let ports = &shared.ports;
        let (now, runs) = (unix_ms(), self.runbooks.runs());
        let cold_starts = Arc::clone(&ports.cold_starts.borrow());
        let mut signs = BTreeMap::new();
        let ended = cold_starts
            .iter()
            .filter(|run| run.plan.runbook == cold_start::RUNBOOK && run.state == RunState::Succeeded);
        for run in ended {
            let end = run.started_unix_ms.saturating_add(run.elapsed_ms);
            if Duration::from_millis(now.saturating_sub(end)) > VERIFIED_WITHIN {
                continue;
            }
            let specs = run.plan.releases().filter_map(|node| ports.inventory.node(node));
            let clusters: BTreeSet<_> = specs.map(|spec| spec.cluster.clone()).collect();
            for cluster in clusters {
                let is_verified = runs.values().any(|verify| {
                    verify.plan.request.runbook == Runbook::ColdStartVerify
                        && verify.plan.cluster == cluster
                        && verify.started_unix_ms >= end
                });
                let is_known = shared.readiness().contains_key(&cluster);
                if is_known && !is_verified && weather.over(&cluster).power_event.is_none() {
                    let sign = Sign {
                        runbook: Runbook::ColdStartVerify,
                        node: None,
                        cluster: cluster.clone(),
                        evidence: format!("{} has ended", run.id),
                    };
                    signs.insert(cluster, sign);
                }
            }
        }
        signs.into_values().collect()
    }

    async fn keep_readiness(&self, weather: &Weather, memory: &mut Memory) {
        let shared = &self.runbooks.shared;
        let ports = &shared.ports;
        let now = Instant::now();
        for cluster in ports.clusters.iter() {
            let name = cluster.name();
            let sky = weather.over(name);
            let looked = memory.looked.get(name);
            let is_due = looked
                .is_none_or(|looked| now.saturating_duration_since(*looked) >= ports.policy.readiness_every);
            let is_well = sky.storm.is_none()
                && sky.power_event.is_none()
                && cluster.not_ready(now, ports.timing.fresh).is_some();
            if !is_due || !is_well {
                continue;
            }
            memory.looked.insert(name.clone(), now);
            cluster.ask_workloads(Duration::ZERO).await;
            let told = cluster.workloads();
            let workloads = match told.within(ports.timing.fresh, Instant::now()) {
                Ok(workloads) => workloads,
                Err(why) => {
                    tracing::info!(cluster = %name, why, "how ready a cluster is cannot be told");
                    continue;
                }
            };
            let fresh = Readiness::of(workloads, unix_ms());
            let is_worse = shared.readiness().get(name).is_some_and(|before| {
                let age = fresh.taken_unix_ms.saturating_sub(before.taken_unix_ms);
                !before.compare(workloads).missing.is_empty() && Duration::from_millis(age) < FORGOTTEN
            });
            if is_worse {
                continue;
            }
            let (store, cluster, kept) = (Arc::clone(&ports.store), name.clone(), fresh.clone());
            let saved = spawn_blocking(move || kept::save(store.as_ref(), &cluster, &kept)).await;
            let failed = match saved {
                Ok(Ok(())) => {
                    shared.readiness().insert(name.clone(), fresh);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(cluster = %name, error = failed, "how ready a cluster is was not kept");
        }
    }
}

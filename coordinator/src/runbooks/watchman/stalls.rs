//! Control planes that a cold start waits for: looks into their etcd, and says what calls for a restore ([`lost_quorum`] decides).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::lanes::gate_of;
use super::super::lost_quorum::{self, Found, Host, Scene, Stands, Verdict};
use super::super::plan::Runbook;
use super::super::status::RunbookStatus;
use super::super::trigger::Sign;
use super::{Memory, Watchman};
use crate::execute::stall::Stall;
use crate::execute::status::{RunStatus, StepState};
use crate::execute::tally::stand;
use crate::execute::waiting::Stand;
use crate::inventory::{ClusterName, NodeName};
use crate::plan::cold_start;
use crate::policy::Trigger;
use crate::quorum::eyes::hosts;

/// Agents are asked about etcd so often meanwhile.
const ASK: Duration = Duration::from_secs(2);
/// What they told longer ago is not decided on.
const FRESH: Duration = Duration::from_secs(10);
/// A session that is lost is as a rule there again within this: so is every one after a change of coordinators.
const RECONNECT: Duration = Duration::from_mins(1);

/// What is remembered of one control plane that is waited for.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// All have been back, or were given up, since then.
    standing: Option<Instant>,
    /// Somebody has been away since then.
    away: Option<Instant>,
}

impl Watchman {
    /// What calls for a runbook of etcd. Tells cold starts why they wait.
    pub(super) async fn of_stalls(&self, memory: &mut Memory) -> Vec<Sign> {
        let shared = &self.runbooks.shared;
        let ports = &shared.ports;
        let cold_starts = Arc::clone(&ports.cold_starts.borrow());
        let mut waiting: BTreeMap<ClusterName, BTreeSet<NodeName>> = BTreeMap::new();
        for run in cold_starts
            .iter()
            .filter(|run| run.state.is_active() && run.plan.runbook == cold_start::RUNBOOK)
        {
            for cluster in &ports.inventory.clusters {
                if waits_for(run, &cluster.name) {
                    let given_up = waiting.entry(cluster.name.clone()).or_default();
                    given_up.extend(run.residue.iter().cloned());
                }
            }
        }
        memory.stalls.retain(|cluster, _| waiting.contains_key(cluster));
        let (mut signs, mut stalls) = (Vec::new(), BTreeMap::new());
        for (cluster, given_up) in waiting {
            let runs = self.runbooks.runs();
            let here = |run: &&Arc<RunbookStatus>| {
                run.state.is_active()
                    && run.plan.cluster == cluster
                    && run.plan.request.runbook.wants_etcd()
                    && run.plan.request.runbook != Runbook::EtcdSnapshot
            };
            if let Some(run) = runs.values().filter(here).find(|run| !run.is_proposal) {
                let stall = Stall {
                    words: at_work(run),
                    run: Some(run.id.clone()),
                };
                stalls.insert(cluster, stall);
                continue;
            }
            let open: Vec<_> = runs.values().filter(here).cloned().collect();
            let verdict = self.verdict(&cluster, &given_up, !open.is_empty(), memory).await;
            let (sign, words) = self.carry(&cluster, verdict, &open, memory);
            if let Some(words) = words {
                let run = open
                    .first()
                    .map(|run| run.id.clone())
                    .filter(|_| !sign.is_empty());
                stalls.insert(cluster, Stall { words, run });
            }
            signs.extend(sign);
        }
        ports.stalls.send_if_modified(|before| {
            let is_other = **before != stalls;
            if is_other {
                *before = Arc::new(stalls);
            }
            is_other
        });
        signs
    }

    async fn verdict(
        &self,
        cluster: &ClusterName,
        given_up: &BTreeSet<NodeName>,
        is_proposed: bool,
        memory: &mut Memory,
    ) -> Verdict {
        let ports = &self.runbooks.shared.ports;
        let hosts = self.hosts(cluster, given_up);
        let last = ports.etcd.last(cluster);
        let now = Instant::now();
        let watched = memory.stalls.entry(cluster.clone()).or_default();
        let mut scene = Scene {
            cluster,
            hosts: &hosts,
            view: None,
            last: last.as_ref(),
            standing: Duration::ZERO,
            chance: ports.policy.quorum_chance,
            is_proposed,
        };
        // Whether all are back is told without asking anybody.
        if lost_quorum::judge(&scene) == Verdict::NotBack {
            let away = *watched.away.get_or_insert(now);
            if is_proposed && now.saturating_duration_since(away) < RECONNECT {
                return Verdict::Unclear;
            }
            watched.standing = None;
            return Verdict::NotBack;
        }
        watched.away = None;
        let standing = *watched.standing.get_or_insert(now);
        ports.etcd.look_again(&ports.inventory, cluster, ASK).await;
        let glance = ports.etcd.seen(cluster);
        let glance = glance.filter(|glance| glance.at.elapsed() <= FRESH);
        scene.view = glance.as_ref().map(|glance| glance.view.as_ref());
        scene.standing = now.saturating_duration_since(standing);
        let verdict = lost_quorum::judge(&scene);
        if verdict == Verdict::Well {
            watched.standing = None;
        }
        verdict
    }

    /// Whoever should have a member, and how it stands.
    fn hosts(&self, cluster: &ClusterName, given_up: &BTreeSet<NodeName>) -> Vec<Host> {
        let ports = &self.runbooks.shared.ports;
        let view = Arc::clone(&ports.view.borrow());
        let now = Instant::now();
        let host = |node: NodeName| {
            let given_up = given_up.contains(&node);
            let stands = match stand(&view, &node, now, ports.timing.fresh) {
                Stand::KubeletHealthy(_) | Stand::ApiServerReady(_) => Stands::Back,
                Stand::KubeletNotHealthy(_) | Stand::Held => Stands::KubeletDown { given_up },
                Stand::NotBack(_) | Stand::Stale => Stands::Away { given_up },
            };
            let found = ports.conditions.of(&node).into_iter();
            let found = found.map(|one| Found {
                kind: one.kind,
                subject: one.subject,
                evidence: one.evidence,
            });
            Host {
                stands,
                found: found.collect(),
                node,
            }
        };
        hosts(&ports.inventory, cluster).into_iter().map(host).collect()
    }

    /// What follows from a verdict: signs, and what the cold start is told.
    fn carry(
        &self,
        cluster: &ClusterName,
        verdict: Verdict,
        open: &[Arc<RunbookStatus>],
        memory: &Memory,
    ) -> (Vec<Sign>, Option<String>) {
        match verdict {
            Verdict::NotBack | Verdict::Well => (Vec::new(), None),
            Verdict::Waits(words) | Verdict::Ails(words) => (Vec::new(), Some(words)),
            // What is proposed stays as it is.
            Verdict::Unclear => {
                let signs: Vec<_> = open.iter().map(|run| sign_of(run)).collect();
                let words = open.first().map(|run| proposed(&run.id));
                (signs, words)
            }
            Verdict::Propose {
                runbook,
                node,
                evidence,
            } => {
                let sign = Sign {
                    runbook,
                    node,
                    cluster: cluster.clone(),
                    evidence: evidence.clone(),
                };
                let run = open.iter().find(|run| sign.asks_for(run));
                let next = match (run, memory.why_refused(&sign)) {
                    (Some(run), _) => proposed(&run.id),
                    (None, _) if self.runbooks.shared.ports.policy.triggers.etcd == Trigger::Off => {
                        format!("look: {}", command("plan", &sign))
                    }
                    (None, Some(why)) => format!(
                        "{runbook} cannot be proposed: {why}; by hand: {}",
                        command("run", &sign)
                    ),
                    (None, None) => format!("by hand: {}", command("plan", &sign)),
                };
                (vec![sign], Some(format!("{evidence}; {next}")))
            }
        }
    }
}

/// It waits for the control plane of this cluster, or has waited too long.
fn waits_for(run: &RunStatus, cluster: &ClusterName) -> bool {
    matches!(
        gate_of(run, cluster),
        Some(StepState::Waiting | StepState::Failed)
    )
}

fn at_work(run: &RunbookStatus) -> String {
    let waits = run
        .waiting
        .as_ref()
        .map(|waiting| format!(", and waits for {waiting}"));
    format!(
        "run {} is at work on its etcd{} (blackstart runbook status {})",
        run.id,
        waits.unwrap_or_default(),
        run.id
    )
}

fn proposed(id: &str) -> String {
    format!(
        "run {id} is proposed and waits for an operator: blackstart runbook status {id}, blackstart runbook approve {id}"
    )
}

fn command(verb: &str, sign: &Sign) -> String {
    let about = match &sign.node {
        Some(node) => node.to_string(),
        None => format!("--cluster {}", sign.cluster),
    };
    format!("blackstart runbook {verb} {} {about}", sign.runbook)
}

fn sign_of(run: &RunbookStatus) -> Sign {
    let request = &run.plan.request;
    Sign {
        runbook: request.runbook,
        node: (!request.node.0.is_empty()).then(|| request.node.clone()),
        cluster: run.plan.cluster.clone(),
        evidence: request.reason.clone(),
    }
}

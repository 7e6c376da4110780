//! How an answer is drawn from what the agent knows.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::boot::BootIdentity;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{
    Answer, Aside, Budget, Coordinator, Disk, Done, Gate, Lacking, NodeStatus, Standing, Unit, Watches,
};
use super::{Question, hold};
use crate::brakes::SharedBrakes;
use crate::condition::Severity;
use crate::config::{HttpTarget, Settings};
use crate::decide::budgets::budgets;
use crate::decide::history::History;
use crate::diagnose::disk::bytes_percent;
use crate::explain::{explain, kind};
use crate::gate;
use crate::ledger::{Outcome, Record, SharedLedger};
use crate::link::LinkState;
use crate::picture::Picture;
use crate::privilege::survey::Found;
use crate::set_aside::Held;
use crate::signal::ActiveState;

/// No more remedies than this are told at once.
const MAX_REMEDIES: usize = 1000;

/// What can be seen of a running agent from outside. Beside holds, it only looks.
#[derive(Debug, Clone)]
pub struct Window {
    /// The settings in force.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// This boot.
    pub boot: BootIdentity,
    /// Read only.
    pub ledger: SharedLedger,
    /// What the loop last said.
    pub picture: watch::Receiver<Arc<Picture>>,
    /// `None` where no coordinator is configured.
    pub link: Option<watch::Receiver<LinkState>>,
    /// What the agent may not do here.
    pub lacks: watch::Receiver<Found>,
    /// What is held; the only thing here that can be changed.
    pub brakes: SharedBrakes,
    /// The machine has a kernel of its own to watch.
    pub machine: bool,
    /// Since when the agent runs.
    pub begun: Instant,
}

impl Window {
    /// Answers. Takes the ledger's lock, which a slow disk may hold: for a thread that may block.
    pub fn answer(&self, question: &Question) -> Answer {
        let now = Instant::now();
        match question {
            Question::Status => Answer::NodeStatus(Box::new(self.status(now))),
            Question::Conditions => Answer::ConditionList {
                items: self.conditions(now),
            },
            Question::Remedies { last } => Answer::RemedyList {
                items: self.remedies(*last),
                lacks: self.lacking(),
            },
            Question::Explain { condition } => match kind(condition) {
                Ok(kind) => Answer::Explanation(explain(kind, &self.settings())),
                Err(why) => Answer::Refusal { why },
            },
            Question::Hold {
                remedy,
                silence,
                by,
                reason,
                for_ms,
            } => {
                let what = hold::what(remedy.as_deref(), *silence);
                hold::hold(&self.brakes, what, by, reason, *for_ms)
            }
            Question::Lift { remedy, silence } => {
                hold::lift(&self.brakes, hold::what(remedy.as_deref(), *silence))
            }
        }
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// The last picture.
    pub(crate) fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.picture.borrow())
    }

    /// In session with the coordinator.
    pub(crate) fn link_up(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| matches!(*link.borrow(), LinkState::Up { .. }))
    }

    fn status(&self, now: Instant) -> NodeStatus {
        let settings = self.settings();
        let picture = self.picture();
        let gate = gate::status(&settings.runtime_dir);
        let seen = &picture.attestation;
        let brakes = self.brakes.standing(now);
        NodeStatus {
            node: settings.node.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            running_for_ms: since(self.begun, now),
            boot_id: self.boot.boot_id.clone(),
            previous_shutdown: self.boot.previous_shutdown,
            dry_run: settings.dry_run,
            gate: Gate {
                state: gate.state,
                why: gate.why,
                waiting_on: gate.waiting_on,
                opens_by_itself_in_ms: gate.opens_by_itself_in.map(millis),
            },
            coordinator: self.coordinator(now),
            waiting_on: seen.waiting_on.clone(),
            watches: self.watches(),
            kubelet_active: seen.kubelet_active,
            kubelet_healthy: seen.kubelet_healthy,
            apiserver_ready: settings.api_server.is_some().then_some(seen.apiserver_ready),
            units: picture
                .units
                .iter()
                .map(|unit| Unit {
                    name: unit.unit.clone(),
                    state: state(unit.active).to_owned(),
                    sub: unit.sub.clone(),
                    main_pid: unit.main_pid,
                    restarts: unit.restarts,
                    result: unit.result.clone(),
                })
                .collect(),
            disks: picture
                .disks
                .iter()
                .map(|disk| Disk {
                    mount_point: disk.mount_point.clone(),
                    bytes_total: disk.bytes_total,
                    bytes_available: disk.bytes_available,
                    used_percent: bytes_percent(disk),
                    inodes_total: disk.inodes_total,
                    inodes_free: disk.inodes_free,
                    time_to_full_ms: disk.time_to_full.map(millis),
                })
                .collect(),
            budgets: self.budgets(now),
            conditions: picture.conditions.len(),
            lacks: self.lacking(),
            set_aside: picture.set_aside.iter().map(aside).collect(),
            holds: brakes
                .holds
                .iter()
                .map(|held| hold::held_here(held, now))
                .collect(),
            freezes: brakes
                .freezes
                .iter()
                .map(|frozen| hold::frozen_here(frozen, now))
                .collect(),
        }
    }

    fn lacking(&self) -> Vec<Lacking> {
        let lacks = self.lacks.borrow();
        lacks
            .iter()
            .flat_map(|lacks| lacks.iter())
            .map(|lack| Lacking {
                function: lack.function.to_string(),
                missing: lack.missing.to_string(),
                effect: lack.effect().to_owned(),
                mend: lack.mend(),
            })
            .collect()
    }

    fn coordinator(&self, now: Instant) -> Coordinator {
        let Some(link) = &self.link else {
            return Coordinator::None;
        };
        match &*link.borrow() {
            LinkState::Up { since: at, address } => Coordinator::Up {
                address: *address,
                for_ms: since(*at, now),
            },
            LinkState::Down { since: at, trouble } => Coordinator::Down {
                for_ms: since(*at, now),
                trouble: trouble.clone(),
            },
        }
    }

    fn watches(&self) -> Watches {
        let settings = self.settings();
        let mut units = settings.units.clone();
        if !units.contains(&settings.kubelet_unit) {
            units.push(settings.kubelet_unit.clone());
        }
        let endpoints = std::iter::once(&settings.kubelet).chain(&settings.api_server);
        Watches {
            units,
            endpoints: endpoints.map(|probe| url(&probe.target)).collect(),
            disks: settings
                .disks
                .iter()
                .map(|disk| disk.mount_point.clone())
                .collect(),
            logs: settings.logs.globs.clone(),
            machine: self.machine,
            certificates: if self.machine {
                settings.certificates()
            } else {
                Vec::new()
            },
        }
    }

    /// As the loop counts them: from the ledger alone.
    pub(crate) fn budgets(&self, now: Instant) -> Vec<Budget> {
        let history = {
            let ledger = self.ledger.lock();
            History::replay(ledger.records(), &ledger.now(), now)
        };
        let picture = self.picture();
        let installed = |unit: &str| picture.helpers.iter().any(|helper| helper == unit);
        budgets(&self.settings(), &history, installed, now)
            .into_iter()
            .map(|budget| Budget {
                subject: budget.subject,
                remedy: budget.remedy.to_owned(),
                limit: budget.limit,
                left: budget.left,
            })
            .collect()
    }

    fn conditions(&self, now: Instant) -> Vec<Standing> {
        let picture = self.picture();
        let silenced = picture.brakes.silence(now).is_some();
        let mut standing: Vec<_> = picture.conditions.iter().collect();
        standing.sort_by_key(|condition| (Reverse(condition.severity), condition.key.clone()));
        standing
            .into_iter()
            .map(|condition| Standing {
                condition: condition.key.kind.as_str().to_owned(),
                subject: condition.key.subject.clone(),
                severity: match condition.severity {
                    Severity::Critical => "critical",
                    Severity::Warning => "warning",
                    Severity::Info => "info",
                }
                .to_owned(),
                for_ms: since(condition.since, now),
                evidence: condition.evidence.clone(),
                escalated: condition.escalated,
                silenced,
                waiting_on: picture
                    .waiting_on(condition)
                    .map(|waiting| waiting.on.to_string()),
            })
            .collect()
    }

    fn remedies(&self, last: usize) -> Vec<Done> {
        let ledger = self.ledger.lock();
        let mut newest: Vec<_> = ledger
            .records()
            .rev()
            .take(last.min(MAX_REMEDIES))
            .map(done)
            .collect();
        newest.reverse();
        newest
    }
}

fn aside(held: &Held) -> Aside {
    Aside {
        component: held.component,
        run: held.run_id.clone(),
        reason: held.reason.clone(),
        for_ms: millis(gate::boottime().saturating_sub(held.since)),
    }
}

fn done(record: &Record) -> Done {
    let (outcome, detail) = match &record.outcome {
        None => ("unknown", "begun, and no outcome was written"),
        Some(Outcome::Succeeded { detail }) => ("succeeded", detail.as_str()),
        Some(Outcome::Failed { detail }) => ("failed", detail.as_str()),
    };
    Done {
        number: record.sequence.0,
        begun_at: i64::try_from(record.at_unix_ms)
            .ok()
            .and_then(|at| Timestamp::from_millisecond(at).ok())
            .map_or_else(String::new, |at| format!("{at:.3}")),
        remedy: record.intent.remedy.clone(),
        subject: record.intent.subject.clone(),
        reason: record.intent.reason.clone(),
        outcome: outcome.to_owned(),
        detail: detail.to_owned(),
        took_ms: record.took_ms,
        command_id: record.intent.command_id.clone(),
        dry_run: record.intent.dry_run,
    }
}

/// systemd's word.
pub(crate) const fn state(active: ActiveState) -> &'static str {
    match active {
        ActiveState::Active => "active",
        ActiveState::Reloading => "reloading",
        ActiveState::Inactive => "inactive",
        ActiveState::Failed => "failed",
        ActiveState::Activating => "activating",
        ActiveState::Deactivating => "deactivating",
        ActiveState::NotFound => "not-found",
        ActiveState::Unknown => "unknown",
    }
}

fn url(target: &HttpTarget) -> String {
    let scheme = if target.tls { "https" } else { "http" };
    format!("{scheme}://{}{}", target.address, target.path)
}

fn since(at: Instant, now: Instant) -> u64 {
    millis(now.saturating_duration_since(at))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! What the handle, the runs at work and the watchman of runbooks share: the runs as they stand, and who may begin beside whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::driver::Driver;
use super::handle::Line;
use super::observe::{self, Known};
use super::plan::{Request, Runbook, RunbookPlan};
use super::readiness::Readiness;
use super::record::Record;
use super::status::RunbookStatus;
use super::waiting::WaitingOn;
use super::weather::{Lookout, Weather};
use super::world::World;
use super::{Ports, Refusal, lanes};
use crate::events::NewEvent;
use crate::inventory::{ClusterName, NodeName};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ports: Ports,
    /// Every run that the store has, as it stands.
    pub(super) runs: watch::Sender<Arc<BTreeMap<String, Arc<RunbookStatus>>>>,
    pub(super) lines: Mutex<BTreeMap<String, Line>>,
    /// One start at a time: lanes are looked at and taken together.
    pub(super) starting: tokio::sync::Mutex<()>,
    pub(super) begin: mpsc::Sender<Driver>,
    pub(super) lookout: Lookout,
    /// How ready clusters were in better days, as the store has it.
    pub(super) readiness: Mutex<BTreeMap<ClusterName, Readiness>>,
}

impl Shared {
    pub(super) fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which nodes runs take away.
    pub(super) fn tell_in_hand(&self) {
        let runs = Arc::clone(&self.runs.borrow());
        let takes = |run: &&Arc<RunbookStatus>| {
            run.state.is_active() && !run.is_proposal && lanes::takes(run.plan.request.runbook)
        };
        let nodes = runs.values().filter(takes).flat_map(|run| {
            let on = run.plan.steps.iter().filter_map(|step| step.on.clone());
            on.filter(|_| run.plan.request.runbook == Runbook::ControlPlane)
                .chain([run.plan.request.node.clone()])
                .chain(run.plan.request.options.on.clone())
        });
        let nodes: BTreeSet<NodeName> = nodes.filter(|node| !node.0.is_empty()).collect();
        self.ports.in_hand.send_if_modified(|before| {
            let is_other = *before != nodes;
            *before = nodes;
            is_other
        });
    }

    pub(super) fn readiness(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Readiness>> {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn weather(&self) -> Arc<Weather> {
        self.lookout.weather(&self.ports)
    }

    pub(super) fn world(&self, request: &Request, plan: Option<&RunbookPlan>) -> Result<World, Refusal> {
        let cluster = observe::cluster(&self.ports, request).ok_or_else(|| unknown(request))?;
        let weather = self.weather();
        let known = Known {
            weather: &weather,
            readiness: self.readiness().get(&cluster).cloned(),
        };
        Ok(observe::world(&self.ports, request, plan, &known, cluster))
    }

    /// Whether a run may be at work beside these.
    pub(super) fn admit<'a>(
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
    pub(super) fn is_first(
        plan: &RunbookPlan,
        runs: &BTreeMap<String, Arc<RunbookStatus>>,
    ) -> Result<(), Refusal> {
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

    pub(super) fn publish(&self, record: &Record, waiting: Option<WaitingOn>) -> Arc<RunbookStatus> {
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

    pub(super) fn tell(&self, record: &Record, event: NewEvent) {
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

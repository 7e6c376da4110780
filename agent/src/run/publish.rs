//! What the agent says of its node: the [`Picture`] for the coordinator, and a line for `systemctl status`.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::component::{Component, ManifestState, Manifests};
use tokio::time::Instant;

use crate::brakes::{self, Standing};
use crate::condition::Condition;
use crate::config::Settings;
use crate::decide::Waiting;
use crate::decide::health::Health;
use crate::diagnose::Diagnosis;
use crate::gate::{GateState, GateStatus};
use crate::picture::{ApiServerAnswer, Attestation, Picture};
use crate::set_aside::Held;
use crate::signal::{ActiveState, ProbeOutcome, ProbeTarget};

/// What a picture is drawn from.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) settings: &'a Settings,
    pub(super) diagnosis: &'a Diagnosis,
    pub(super) health: &'a Health,
    pub(super) gate: &'a GateStatus,
    pub(super) conditions: Vec<Condition>,
    pub(super) waiting: &'a [Waiting],
    /// What is held back now.
    pub(super) brakes: Standing,
    /// What is set aside.
    pub(super) set_aside: Arc<Vec<Held>>,
    /// The node's static pods are this machine's.
    pub(super) machine: bool,
    /// Since when this agent looks.
    pub(super) begun: Instant,
}

impl View<'_> {
    pub(super) fn picture(self) -> Picture {
        Picture {
            attestation: self.attestation(),
            units: self.diagnosis.units().cloned().collect(),
            helpers: self.health.helpers(self.settings).cloned().collect(),
            disks: self.diagnosis.disks().cloned().collect(),
            brakes: self.brakes,
            set_aside: self.set_aside,
            waiting: self.waiting.to_vec(),
            conditions: self.conditions,
        }
    }

    fn attestation(&self) -> Attestation {
        let kubelet = self.diagnosis.probe(ProbeTarget::Kubelet);
        let api_server = self.diagnosis.probe(ProbeTarget::ApiServer);
        let answers = |probe: Option<(&ProbeOutcome, Instant)>| {
            probe.is_some_and(|(outcome, _)| *outcome == ProbeOutcome::Healthy)
        };
        let seen = |probe: Option<(&ProbeOutcome, Instant)>| probe.map_or(self.begun, |(_, at)| at);
        // A unit's state holds from its last change on, for as long as systemd can be asked.
        let mut observed_at = seen(kubelet);
        if self.settings.api_server.is_some() {
            observed_at = observed_at.min(seen(api_server));
        }
        if let Some(since) = self.health.unobservable_since() {
            observed_at = observed_at.min(since);
        }
        Attestation {
            gate: self.gate.state,
            kubelet_active: self
                .diagnosis
                .unit(&self.settings.kubelet_unit)
                .is_some_and(|unit| matches!(unit.active, ActiveState::Active | ActiveState::Reloading)),
            kubelet_healthy: answers(kubelet),
            apiserver_ready: self.settings.api_server.is_some() && answers(api_server),
            api_server: self
                .settings
                .api_server
                .as_ref()
                .and(api_server)
                .and_then(|(outcome, _)| answer(outcome, self.diagnosis.api_server_took())),
            observed_at,
            waiting_on: self.waiting_on(),
            manifests: self.manifests(),
        }
    }

    fn manifests(&self) -> Manifests {
        if !self.machine {
            return Manifests::new();
        }
        let state = |component: Component| {
            if self.set_aside.iter().any(|held| held.component == component) {
                ManifestState::SetAside
            } else {
                self.diagnosis.manifest(component.pod())
            }
        };
        let all = Component::ALL.into_iter();
        all.map(|component| (component, state(component))).collect()
    }

    fn waiting_on(&self) -> String {
        if self.gate.state == GateState::Held {
            return self.gate.waiting_on.clone();
        }
        self.waiting
            .first()
            .map(|waiting| format!("{} waits for {}", waiting.subject, waiting.on))
            .unwrap_or_default()
    }
}

/// What a probe of the API server says of its load.
fn answer(outcome: &ProbeOutcome, took: Duration) -> Option<ApiServerAnswer> {
    match outcome {
        ProbeOutcome::Healthy => Some(ApiServerAnswer::Ready(took)),
        ProbeOutcome::Unhealthy { status: 429 } => Some(ApiServerAnswer::Overloaded),
        ProbeOutcome::Unhealthy { status: 500.. } => Some(ApiServerAnswer::Unavailable),
        ProbeOutcome::TimedOut => Some(ApiServerAnswer::TimedOut),
        ProbeOutcome::Refused => Some(ApiServerAnswer::Refused),
        ProbeOutcome::Unhealthy { .. } | ProbeOutcome::Unobservable { .. } => None,
    }
}

/// One line for `systemctl status`.
pub(super) fn status(picture: &Picture) -> String {
    let mut parts = Vec::new();
    if picture.attestation.gate == GateState::Held {
        parts.push("the boot gate holds the kubelet".to_owned());
    }
    let holds = &picture.brakes.holds;
    if let Some(hold) = holds.iter().find(|hold| hold.what == brakes::Held::Silence) {
        parts.push(format!("silenced by {}: {}", hold.by, hold.reason));
    } else if let Some(hold) = holds.first() {
        parts.push(format!("{} held by {}: {}", hold.what, hold.by, hold.reason));
    }
    if !picture.set_aside.is_empty() {
        let aside: Vec<_> = picture
            .set_aside
            .iter()
            .map(|held| held.component.pod())
            .collect();
        parts.push(format!("{} set aside", aside.join(" and ")));
    }
    match picture.conditions.as_slice() {
        [] => parts.push("nothing stands".to_owned()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() {
                String::new()
            } else {
                format!(" and {} more", rest.len())
            };
            parts.push(format!("{} {}{more}", first.key.kind, first.key.subject));
        }
    }
    if !picture.attestation.waiting_on.is_empty() {
        parts.push(picture.attestation.waiting_on.clone());
    }
    parts.join("; ")
}

//! [`Signal::StaticPods`] and the kubelet's own signals → `ControlPlaneComponentDown`, `StaticPodManifestMissing`,
//! `StaticPodManifestInvalid`. Pure.
//!
//! | manifest | kubelet | port | containers | the component is |
//! |---|---|---|---|---|
//! | there | well | answers | any | up |
//! | there | well | does not | any | down |
//! | there | well | none is known, or it cannot be asked | do not run | down |
//! | there | well | likewise | run | up |
//! | anything else | | | | neither: nothing is counted |
//!
//! `failures_to_raise` looks in a row that find it down raise the condition, one that finds it up clears it. Looks count once the
//! manifest and the kubelet have been there for `start_grace`. While the boot gate holds the kubelet or the kubelet does not run or
//! answer nothing is raised of any pod: that is a condition of its own, and a kubelet that is down starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use blackstart_proto::component::ManifestState;
use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::{ProbeSettings, StaticPodSettings};
use crate::set_aside::Held;
use crate::signal::{
    ActiveState, MissingManifest, PodContainers, ProbeOutcome, ProbeTarget, Signal, StaticPod,
    StaticPodsSignal,
};

/// A bounce may take so much longer than its deadline for the containers' end before a manifest that is out counts as missing.
const OUT_TOO_LONG: Duration = Duration::from_secs(30);

/// What the static pods of the node are like.
#[derive(Debug, Clone)]
pub struct StaticPods {
    settings: StaticPodSettings,
    kubelet_unit: String,
    kubelet_failures: u32,
    gate_held: bool,
    kubelet: Kubelet,
    pods: BTreeMap<String, Seen>,
    missing: BTreeMap<String, (MissingManifest, Instant)>,
    invalid: BTreeMap<String, (String, Instant)>,
    /// Pods whose manifests are out by the coordinator's word.
    aside: BTreeSet<String>,
    /// The directory was read.
    looked: bool,
}

/// The kubelet, as far as its pods depend on it.
#[derive(Debug, Clone, Default)]
struct Kubelet {
    /// The process that runs, and since when it was seen.
    running: Option<(u32, Instant)>,
    /// Since when it answers, of the process that runs.
    answers: Option<Instant>,
    /// Probes of it that failed in a row.
    failures: u32,
    /// systemd cannot be asked.
    blind: bool,
}

#[derive(Debug, Clone)]
struct Seen {
    pod: StaticPod,
    /// Since when there is this version of its manifest.
    since: Instant,
    down: Option<Down>,
}

#[derive(Debug, Clone, Copy)]
struct Down {
    count: u32,
    since: Instant,
    last: Instant,
}

/// What one look at a pod says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Nobody can tell.
    Unknown,
}

impl State {
    pub(crate) fn of(pod: &StaticPod) -> Self {
        match pod.health.as_ref().map(|(_, outcome)| outcome) {
            Some(ProbeOutcome::Healthy) => Self::Up,
            Some(ProbeOutcome::Unhealthy { .. } | ProbeOutcome::TimedOut | ProbeOutcome::Refused) => {
                Self::Down
            }
            None | Some(ProbeOutcome::Unobservable { .. }) => match pod.containers {
                PodContainers::Running => Self::Up,
                PodContainers::NotRunning(_) => Self::Down,
                PodContainers::Unknown => Self::Unknown,
            },
        }
    }
}

impl StaticPods {
    /// Nothing seen yet.
    pub fn new(settings: StaticPodSettings, kubelet_unit: &str, kubelet: &ProbeSettings) -> Self {
        Self {
            settings,
            kubelet_unit: kubelet_unit.to_owned(),
            kubelet_failures: kubelet.failures_to_raise,
            gate_held: false,
            kubelet: Kubelet::default(),
            pods: BTreeMap::new(),
            missing: BTreeMap::new(),
            invalid: BTreeMap::new(),
            aside: BTreeSet::new(),
            looked: false,
        }
    }

    /// Judges by other settings from now on.
    pub fn retune(&mut self, settings: StaticPodSettings, kubelet: &ProbeSettings) {
        self.settings = settings;
        self.kubelet_failures = kubelet.failures_to_raise;
    }

    /// While the boot gate holds the kubelet, nothing is expected of its pods.
    pub fn set_gate_held(&mut self, held: bool) {
        self.gate_held = held;
        if held {
            self.forget();
        }
    }

    /// Nothing is expected of what a cold start has set aside.
    pub fn set_aside(&mut self, held: &[Held]) {
        self.aside = held.iter().map(|held| held.component.pod().to_owned()).collect();
    }

    /// Where the manifest of a pod is that is not set aside.
    pub fn manifest(&self, pod: &str) -> ManifestState {
        let bounced = |(missing, _): &(MissingManifest, Instant)| missing.held.is_some();
        if self.pods.contains_key(pod) {
            ManifestState::InPlace
        } else if !self.looked || self.missing.get(pod).is_some_and(bounced) {
            ManifestState::Unknown
        } else {
            ManifestState::Absent
        }
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other signal, a later one too, is for another area"
    )]
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        match signal {
            Signal::Unit(unit) if unit.unit == self.kubelet_unit => {
                self.kubelet.blind = unit.active == ActiveState::Unknown;
                let runs = match unit.active {
                    ActiveState::Active | ActiveState::Reloading => true,
                    ActiveState::Unknown => return,
                    ActiveState::Inactive
                    | ActiveState::Failed
                    | ActiveState::Activating
                    | ActiveState::Deactivating
                    | ActiveState::NotFound => false,
                };
                let same = |(pid, _): &(u32, Instant)| *pid == unit.main_pid;
                if !runs {
                    self.kubelet = Kubelet::default();
                    self.forget();
                } else if !self.kubelet.running.as_ref().is_some_and(same) {
                    self.kubelet = Kubelet {
                        running: Some((unit.main_pid, now)),
                        ..Kubelet::default()
                    };
                    self.forget();
                }
            }
            Signal::UnitsUnobservable { .. } => self.kubelet.blind = true,
            Signal::Probe(probe) if probe.target == ProbeTarget::Kubelet => match probe.outcome {
                ProbeOutcome::Healthy => {
                    self.kubelet.failures = 0;
                    self.kubelet.answers.get_or_insert(now);
                }
                ProbeOutcome::Unhealthy { .. } | ProbeOutcome::TimedOut | ProbeOutcome::Refused => {
                    self.kubelet.failures = self.kubelet.failures.saturating_add(1);
                    if self.kubelet_is_silent() {
                        self.kubelet.answers = None;
                        self.forget();
                    }
                }
                ProbeOutcome::Unobservable { .. } => {}
            },
            Signal::StaticPods(seen) => self.seen(seen, now),
            _ => {}
        }
    }

    /// What was counted is over: the kubelet has to have its time first.
    fn forget(&mut self) {
        for seen in self.pods.values_mut() {
            seen.down = None;
        }
    }

    fn kubelet_is_silent(&self) -> bool {
        self.kubelet.failures >= self.kubelet_failures
    }

    /// Since when the kubelet does what it is there for.
    fn kubelet_well_since(&self) -> Option<Instant> {
        let (_, running) = self.kubelet.running?;
        let answers = self.kubelet.answers?;
        (!self.gate_held).then_some(running.max(answers))
    }

    fn seen(&mut self, signal: &StaticPodsSignal, now: Instant) {
        if signal.unseen.is_some() {
            return;
        }
        self.looked = true;
        let kubelet_well = self.kubelet_well_since();
        let counts = !self.kubelet.blind && self.kubelet.failures == 0;
        let mut before = std::mem::take(&mut self.pods);
        for pod in &signal.pods {
            let known = before.remove(&pod.name);
            let mut seen = match known {
                Some(known) if known.pod.version == pod.version && known.pod.manifest == pod.manifest => {
                    Seen {
                        pod: pod.clone(),
                        ..known
                    }
                }
                Some(_) | None => Seen {
                    pod: pod.clone(),
                    since: now,
                    down: None,
                },
            };
            match State::of(pod) {
                State::Up => seen.down = None,
                State::Unknown => {}
                State::Down => {
                    let grace = self.settings.start_grace;
                    let ready =
                        kubelet_well.is_some_and(|well| now >= well + grace) && now >= seen.since + grace;
                    // A look that an event brought counts only as time passes.
                    let spaced = seen
                        .down
                        .is_none_or(|down| now >= down.last + self.settings.while_failing() / 2);
                    if counts && ready && spaced {
                        let down = seen.down.get_or_insert(Down {
                            count: 0,
                            since: now,
                            last: now,
                        });
                        down.count = down.count.saturating_add(1);
                        down.last = now;
                    }
                }
            }
            self.pods.insert(pod.name.clone(), seen);
        }
        let mut before = std::mem::take(&mut self.missing);
        for missing in &signal.missing {
            let since = match before.remove(&missing.pod) {
                Some((same, since)) if same == *missing => since,
                Some(_) | None => now,
            };
            self.missing.insert(missing.pod.clone(), (missing.clone(), since));
        }
        let mut before = std::mem::take(&mut self.invalid);
        for (file, why) in &signal.invalid {
            let since = before.remove(file).map_or(now, |(_, since)| since);
            self.invalid.insert(file.clone(), (why.clone(), since));
        }
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        if self.kubelet_well_since().is_none() {
            return Vec::new();
        }
        let invalid = self.invalid.iter().map(|(file, (why, since))| {
            let path = self.settings.manifests.join(file);
            let kind = ConditionKind::StaticPodManifestInvalid;
            let evidence = format!("manifest {}: {why}", path.display());
            stands(
                kind,
                path.display().to_string(),
                Severity::Warning,
                *since,
                evidence,
            )
        });
        let missing = self.missing.values().filter_map(|(missing, since)| {
            if self.aside.contains(&missing.pod) {
                return None;
            }
            let since = match &missing.held {
                None => *since,
                Some(_) => *since + self.out_too_long(),
            };
            (since <= now).then(|| self.missing(missing, since))
        });
        let down = self.pods.values().filter_map(|seen| self.down(seen));
        down.chain(missing).chain(invalid).collect()
    }

    /// When [`Self::conditions`] will change though no signal comes; always after `now`.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.kubelet_well_since()?;
        let held = self
            .missing
            .values()
            .filter(|(missing, _)| missing.held.is_some());
        held.filter(|(missing, _)| !self.aside.contains(&missing.pod))
            .map(|(_, since)| *since + self.out_too_long())
            .filter(|at| *at > now)
            .min()
    }

    fn out_too_long(&self) -> Duration {
        self.settings.gone_deadline.max(self.settings.out_at_least) + OUT_TOO_LONG
    }

    fn missing(&self, missing: &MissingManifest, since: Instant) -> Condition {
        let dir = self.settings.manifests.display();
        let evidence = match &missing.held {
            Some(path) => format!(
                "the manifest of {} is not in {dir}: a bounce has left it in {}",
                missing.pod,
                Path::display(path)
            ),
            None => format!(
                "no manifest in {dir} is of {}, {}",
                missing.pod,
                if self.settings.expected.is_some() {
                    "which is expected by static_pods.expected"
                } else {
                    "of which there was one before"
                }
            ),
        };
        let kind = ConditionKind::StaticPodManifestMissing;
        stands(kind, missing.pod.clone(), Severity::Critical, since, evidence)
    }

    fn down(&self, seen: &Seen) -> Option<Condition> {
        let down = seen
            .down
            .filter(|down| down.count >= self.settings.failures_to_raise)?;
        let pod = &seen.pod;
        let port = match &pod.health {
            None => "it has no health port that is known".to_owned(),
            Some((url, outcome)) => match outcome {
                ProbeOutcome::Healthy => format!("{url} answers"),
                ProbeOutcome::Unhealthy { status } => format!("{url} answers {status}"),
                ProbeOutcome::TimedOut => format!("{url} does not answer in time"),
                ProbeOutcome::Refused => format!("{url} refuses connections"),
                ProbeOutcome::Unobservable { why } => format!("{url} cannot be asked: {why}"),
            },
        };
        let containers = match &pod.containers {
            PodContainers::Unknown => "judged by its port alone, since docker does not tell".to_owned(),
            PodContainers::Running => "its containers run".to_owned(),
            PodContainers::NotRunning(not) => format!("not running: {}", not.join(", ")),
        };
        let evidence = format!(
            "manifest {} is there and the kubelet answers, but {port}; {containers}; {} looks in a row",
            pod.manifest, down.count
        );
        let kind = ConditionKind::ControlPlaneComponentDown;
        Some(stands(
            kind,
            pod.name.clone(),
            Severity::Critical,
            down.since,
            evidence,
        ))
    }
}

fn stands(
    kind: ConditionKind,
    subject: String,
    severity: Severity,
    since: Instant,
    evidence: String,
) -> Condition {
    Condition {
        key: ConditionKey { kind, subject },
        severity,
        since,
        evidence,
        escalated: false,
        log: None,
        heaviest: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

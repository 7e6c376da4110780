//! What was seen of static pods.

use std::path::PathBuf;

use super::ProbeOutcome;

/// The static pods that were found in one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StaticPodsSignal {
    /// Those with a manifest that can be read, in the order of their names.
    pub pods: Vec<StaticPod>,
    /// Manifests that cannot be read: their file names, and why, for people.
    pub invalid: Vec<(String, String)>,
    /// Pods whose manifests are to be there and are not, in the order of their names.
    pub missing: Vec<MissingManifest>,
    /// Why the directory cannot be read: then nothing is known of what is in it.
    pub unseen: Option<String>,
}

impl StaticPodsSignal {
    /// Everything that was to be there is, runs and answers, as far as anybody here can tell.
    pub fn is_well(&self) -> bool {
        let answers = |pod: &StaticPod| {
            pod.health.as_ref().is_none_or(|(_, outcome)| {
                matches!(outcome, ProbeOutcome::Healthy | ProbeOutcome::Unobservable { .. })
            })
        };
        let runs =
            |pod: &StaticPod| matches!(pod.containers, PodContainers::Unknown | PodContainers::Running);
        self.invalid.is_empty()
            && self.missing.is_empty()
            && self.unseen.is_none()
            && self.pods.iter().all(|pod| answers(pod) && runs(pod))
    }
}

/// A manifest that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingManifest {
    /// Its pod.
    pub pod: String,
    /// Where it lies meanwhile, if a bounce has moved it out.
    pub held: Option<PathBuf>,
}

/// A static pod, as its manifest, its runtime and its health port tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPod {
    /// Its name in the manifest.
    pub name: String,
    /// The manifest's file name.
    pub manifest: String,
    /// Differs when the manifest was written anew.
    pub version: u64,
    /// Whether its containers run.
    pub containers: PodContainers,
    /// Where it was asked, and what came of it; `None`: it has no health port that is known.
    pub health: Option<(String, ProbeOutcome)>,
}

/// Whether a pod's containers run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodContainers {
    /// Nobody here can tell: there is no docker, or it did not answer.
    Unknown,
    /// All of them do.
    Running,
    /// These do not.
    NotRunning(Vec<String>),
}

//! What happened in a drill on masters, as values: what it is judged and reported by.

use super::super::history::Entry;

/// Everything. Times are milliseconds on the drill's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Chronicle {
    /// When, and what was said.
    pub(super) told: Vec<(u64, String)>,
    pub(super) runs: Vec<RunStory>,
    pub(super) heard: Vec<Heard>,
    pub(super) outs: Vec<Out>,
    pub(super) health: Vec<Health>,
    pub(super) manifests: Vec<Manifest>,
    pub(super) ledgers: Vec<(String, Vec<Entry>)>,
    /// What was to be true at the end, and why it is not.
    pub(super) wrong: Vec<String>,
    /// Keys that were acknowledged and are not there.
    pub(super) lost: Vec<String>,
    /// So many were.
    pub(super) acknowledged: usize,
    /// Copies of data that are to be there and are not.
    pub(super) no_copy: Vec<String>,
    /// How long what took, milliseconds.
    pub(super) timings: Vec<(&'static str, u64)>,
    /// What was waited for in vain.
    pub(super) stuck: Option<String>,
    /// When the first trouble came, and when all was well again after the last.
    pub(super) trouble_ms: Option<u64>,
    pub(super) ended_ms: Option<u64>,
}

/// A run as it was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct RunStory {
    pub(super) id: String,
    /// Of a run that is about one.
    pub(super) node: String,
    pub(super) state: String,
    /// How it was to end.
    pub(super) expected: &'static str,
    pub(super) asked_ms: u64,
    pub(super) ended_ms: Option<u64>,
    pub(super) waiting_on: Option<String>,
    pub(super) steps: Vec<StepStory>,
}

/// One step.
#[derive(Debug, Clone, Default)]
pub(super) struct StepStory {
    pub(super) id: String,
    pub(super) phase: String,
    pub(super) planned: String,
    pub(super) said: String,
    pub(super) wants_approval: bool,
    pub(super) approved_ms: Option<u64>,
    /// By another than who has begun the run.
    pub(super) by_another: bool,
    pub(super) ended_ms: Option<u64>,
}

/// What was refused, or stopped at, and what was to be said of it.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) asked: String,
    pub(super) expected: String,
    pub(super) said: Vec<String>,
}

/// A manifest was away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) node: String,
    pub(super) pod: String,
    pub(super) gone_ms: u64,
    pub(super) back_ms: Option<u64>,
}

/// A health port answered otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) at_ms: u64,
    pub(super) node: String,
    pub(super) pod: String,
    pub(super) well: bool,
}

/// A manifest at the beginning and at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) node: String,
    pub(super) pod: String,
    pub(super) before: String,
    /// What it is to be.
    pub(super) wanted: String,
    /// `None`: it is not there.
    pub(super) after: Option<String>,
    /// It is to be written anew: the old one is to be kept.
    pub(super) rewritten: bool,
    /// The old one is kept.
    pub(super) kept: bool,
}

impl Chronicle {
    /// A part was well then, as far as was seen up to a moment later: the ports are looked at one look after the other.
    pub(super) fn is_well(&self, node: &str, pod: &str, at_ms: u64) -> bool {
        let until = at_ms + 300;
        let of = |one: &&Health| one.node == node && one.pod == pod && one.at_ms <= until;
        self.health.iter().rev().find(of).is_some_and(|one| one.well)
    }
}

//! What becomes of each pod of a node that is drained. Pure.

use std::fmt::Write;

use super::plan::{Refusal, Request};
use super::world::ApiView;
use crate::kubernetes::objects::{Budget, Pod, PodKind};

/// So many names stand in a sentence.
const NAMED: usize = 5;

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is evicted.
    Goes,
    /// It belongs to the node.
    Stays,
    /// Its emptyDir would be lost, and nobody said that it may be.
    LocalData,
    /// Nobody would make it again, and nobody said that it may go.
    Unmanaged,
}

/// What becomes of a pod of a drained node; `kubectl drain --ignore-daemonsets` decides likewise.
pub fn fate(pod: &Pod, request: &Request) -> Fate {
    if pod.kind != PodKind::Plain {
        Fate::Stays
    } else if pod.is_over() || pod.is_deleting {
        Fate::Goes
    } else if pod.controller.is_none() && !request.delete_unmanaged {
        Fate::Unmanaged
    } else if pod.has_local_data && !request.delete_local_data {
        Fate::LocalData
    } else {
        Fate::Goes
    }
}

/// Those that are to go and are still there.
pub fn going<'a>(view: &'a ApiView, request: &'a Request) -> impl Iterator<Item = &'a Pod> {
    view.pods.iter().filter(|pod| fate(pod, request) == Fate::Goes)
}

/// Those that a dead node has to give up: all that could run elsewhere.
pub fn movable(view: &ApiView) -> impl Iterator<Item = &Pod> {
    view.pods.iter().filter(|pod| pod.kind == PodKind::Plain)
}

/// Why the node is not drained, one for each reason.
pub fn refusals(view: &ApiView, request: &Request) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (why, missing) in [
        (
            Fate::LocalData,
            "their emptyDir is lost with them; --delete-local-data says that it may be",
        ),
        (
            Fate::Unmanaged,
            "no controller makes them again; --delete-unmanaged says that they may go",
        ),
    ] {
        let pods: Vec<_> = view.pods.iter().filter(|pod| fate(pod, request) == why).collect();
        if !pods.is_empty() {
            refusals.push(Refusal {
                what: format!("evict {}", names(pods)),
                missing: missing.to_owned(),
            });
        }
    }
    refusals
}

/// The budgets that let none of these pods go at present, for people.
pub fn blocked(view: &ApiView, request: &Request) -> Vec<String> {
    let tight = |budget: &&Budget| budget.allowed == 0;
    let mut notes = Vec::new();
    for budget in view.budgets.iter().filter(tight) {
        let pods: Vec<_> = going(view, request)
            .filter(|pod| !pod.is_over() && budget.covers(pod))
            .collect();
        if !pods.is_empty() {
            notes.push(format!(
                "budget {} lets none of its pods go at present: {} will wait for it",
                budget.key,
                names(pods)
            ));
        }
    }
    notes
}

/// `3 pods: a/b, a/c and 1 more`.
pub fn names<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> String {
    let pods: Vec<_> = pods.into_iter().collect();
    let mut text = match pods.len() {
        0 => return "no pods".to_owned(),
        1 => "pod".to_owned(),
        many => format!("{many} pods:"),
    };
    for (at, pod) in pods.iter().take(NAMED).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma} {}", pod.key);
    }
    if pods.len() > NAMED {
        let _ = write!(text, " and {} more", pods.len() - NAMED);
    }
    text
}

//! The storm guard of runbooks: how much of each cluster is not well at once. Pure but for [`Lookout`], which remembers the last look.
//!
//! | power event | not well at `max(nodes, share)` | → |
//! |---|---|---|
//! | declared | | go on: all of them are down, and that is known |
//! | no | yes | storm: nothing is begun, and what is at work changes nothing; an operator may have it go on |
//! | no | no | go on |
//!
//! Where the API of a cluster is known, its word counts: a node is not well when it is not Ready there, or when its agent says that its
//! kubelet is not. Elsewhere a silent agent counts as well. Nodes that are silenced count for nobody: somebody is at work on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Ports;
use super::policy::RunbookPolicy;
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{ClusterName, NodeName};
use crate::outage::{self, Verdict};
use crate::plan::cold_start;

/// A look is good for so long: drivers of hundreds of runs do not each judge a fleet.
const GOOD_FOR: Duration = Duration::from_millis(500);
/// So many nodes are named.
const NAMED: usize = 6;

/// How one cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sky {
    /// What tells of a power event in it.
    pub power_event: Option<String>,
    /// Too much of it is not well at once.
    pub storm: Option<String>,
}

/// So many nodes that are not well at once are too many, of so many.
pub fn threshold(nodes: usize, policy: &RunbookPolicy) -> usize {
    let share = (nodes * policy.storm_share_percent as usize).div_ceil(100);
    share.max(policy.storm_nodes)
}

/// Whether it is a storm, and what tells so.
pub fn judge(nodes: usize, not_well: &BTreeSet<&NodeName>, policy: &RunbookPolicy) -> Option<String> {
    let limit = threshold(nodes, policy);
    if not_well.len() < limit {
        return None;
    }
    let some: Vec<_> = not_well.iter().take(NAMED).map(ToString::to_string).collect();
    let more = match not_well.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{} of its {nodes} nodes are not well at once ({}{more}), and {limit} are too many",
        not_well.len(),
        some.join(", ")
    ))
}

/// An agent's word on whether its node is well, beside what the cluster's API says.
const fn is_not_well(phase: Phase, by_api: Option<bool>) -> bool {
    match (phase, by_api) {
        (_, Some(true))
        | (Phase::NotReady | Phase::Held | Phase::Silent, None)
        | (Phase::NotReady | Phase::Held, Some(false)) => true,
        (Phase::Silent | Phase::Ready | Phase::Stopped | Phase::Unknown, Some(false))
        | (Phase::Ready | Phase::Stopped | Phase::Unknown, None) => false,
    }
}

/// How every cluster is.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    clusters: BTreeMap<ClusterName, Sky>,
}

impl Weather {
    /// Looks at everything.
    pub(super) fn of(ports: &Ports, now: Instant) -> Self {
        let view: Arc<FleetView> = Arc::clone(&ports.view.borrow());
        let silenced = ports.brakes.silenced();
        let outages = outage::assess_without(&view, &ports.inventory, &ports.outage, &silenced);
        let mut clusters: BTreeMap<ClusterName, Sky> = BTreeMap::new();
        for outage in outages {
            if let Verdict::PowerEvent { evidence, .. } = outage.verdict {
                clusters.entry(outage.cluster).or_default().power_event = Some(evidence);
            }
        }
        let runs = Arc::clone(&ports.cold_starts.borrow());
        for run in runs
            .iter()
            .filter(|run| run.state.is_active() && run.plan.runbook == cold_start::RUNBOOK)
        {
            for spec in run.plan.releases().filter_map(|node| ports.inventory.node(node)) {
                let sky = clusters.entry(spec.cluster.clone()).or_default();
                sky.power_event
                    .get_or_insert_with(|| format!("{} is bringing it back", run.id));
            }
        }
        for cluster in &ports.inventory.clusters {
            let known = ports.clusters.get(&cluster.name);
            let lost = known.and_then(|known| known.not_ready(now, ports.timing.fresh));
            let lost: Option<BTreeSet<_>> = lost.map(|lost| lost.into_iter().collect());
            let members: Vec<_> = cluster
                .nodes
                .iter()
                .filter(|node| !silenced.contains(*node))
                .collect();
            let not_well = members
                .iter()
                .copied()
                .filter(|node| {
                    let phase = view.nodes.get(*node).map_or(Phase::Unknown, |node| node.phase);
                    is_not_well(phase, lost.as_ref().map(|lost| lost.contains(&node.0)))
                })
                .collect();
            let sky = clusters.entry(cluster.name.clone()).or_default();
            if sky.power_event.is_none() {
                sky.storm = judge(members.len(), &not_well, &ports.policy);
            }
        }
        Self { clusters }
    }

    /// How a cluster is.
    pub fn over(&self, cluster: &ClusterName) -> Sky {
        self.clusters.get(cluster).cloned().unwrap_or_default()
    }
}

/// Looks at the weather now and then.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    last: Mutex<Option<(Instant, Arc<Weather>)>>,
}

impl Lookout {
    pub(super) fn weather(&self, ports: &Ports) -> Arc<Weather> {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, weather)) if now.saturating_duration_since(*at) < GOOD_FOR => Arc::clone(weather),
            Some(_) | None => {
                let weather = Arc::new(Weather::of(ports, now));
                *last = Some((now, Arc::clone(&weather)));
                weather
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_so_many_nodes_and_such_a_share_of_them() {
        let policy = RunbookPolicy::default();
        let of = |nodes| threshold(nodes, &policy);
        assert_eq!([of(4), of(15), of(16), of(1500)], [3, 3, 4, 300]);
        let names: Vec<_> = (0..9).map(|n| NodeName(format!("w{n}"))).collect();
        let down = |count: usize| names.iter().take(count).collect();
        assert_eq!(judge(9, &down(2), &policy), None);
        let why = judge(9, &down(8), &policy).unwrap();
        assert!(
            why.contains("8 of its 9 nodes") && why.contains("and 2 more"),
            "{why}"
        );
    }

    #[test]
    fn the_api_has_the_last_word_on_a_silent_agent_and_the_agent_on_its_kubelet() {
        for (phase, by_api, expected) in [
            (Phase::Silent, Some(false), false),
            (Phase::Silent, Some(true), true),
            (Phase::Silent, None, true),
            (Phase::Held, Some(false), true),
            (Phase::Ready, Some(true), true),
            (Phase::Unknown, None, false),
            (Phase::Stopped, None, false),
        ] {
            assert_eq!(is_not_well(phase, by_api), expected, "{phase:?} {by_api:?}");
        }
    }
}

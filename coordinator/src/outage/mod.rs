//! Is this a power event, and of which clusters? Pure: a function of what is known of each node.
//!
//! ```text
//!                       sign of a node                                    verdict on its cluster
//!  session lost, not back yet                   ─ Lost ─────┐
//!  back in another boot, unclean end before it  ─ Unclean ──┤  together `share_percent` of the nodes within `window`:
//!  held at its boot gate                        ─ Unclean ──┘    no Unclean among them → Suspicion (a partition looks the same)
//!                                                                at least one Unclean  → PowerEvent
//!  clean end, same boot, first contact, goodbye ─ no sign       the coordinator's own boot was unclean too, within the same
//!                                                                `window`: one Unclean → PowerEvent
//! ```
//!
//! `docs/outage.md` has the whole truth table; it is written by the test that holds it. A rack is judged across clusters by [`racks`].
//!
//! The sign of a loss stands until its node is back. That of an unclean boot is history once it is older than `window`, or a recovered
//! cluster would be in a power event for ever; it stands for as long as its node is held, because then there is something to bring
//! back.

pub mod racks;

use std::collections::BTreeSet;
use std::time::Duration;

use blackstart_proto::boot::PreviousShutdown;
use tokio::time::Instant;

use crate::fleet::view::{FleetView, GateState, NodeView, Phase};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec};
use crate::policy::OutagePolicy;

/// So many nodes are named in an evidence; the others are counted.
const NAMED: usize = 8;

/// What the nodes of one cluster tell together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOutage {
    /// Which cluster.
    pub cluster: ClusterName,
    /// What they tell.
    pub verdict: Verdict,
}

/// Whether a cluster lost its power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Too few signs to be one event.
    Normal,
    /// Many sessions were lost together, and nobody is back to say why: power, or a partition.
    Suspicion {
        /// Whose sessions were lost.
        lost: Vec<NodeName>,
        /// Counts, names and times, for people.
        evidence: String,
    },
    /// It did.
    PowerEvent {
        /// When its first sign was seen: tells this event from a later one.
        since: Instant,
        /// Nodes that are down.
        lost: Vec<NodeName>,
        /// Nodes that are back from an unclean end.
        unclean: Vec<NodeName>,
        /// Those of the cluster's nodes that are not ready now. Empty: there is nothing to bring back.
        not_ready: Vec<NodeName>,
        /// Counts, names and times, for people.
        evidence: String,
    },
}

/// The verdict on each cluster, in the inventory's order.
pub fn assess(view: &FleetView, inventory: &Inventory, policy: &OutagePolicy) -> Vec<ClusterOutage> {
    assess_without(view, inventory, policy, &BTreeSet::new())
}

/// The same, as if these nodes were not there: somebody is at work on them.
pub fn assess_without(
    view: &FleetView,
    inventory: &Inventory,
    policy: &OutagePolicy,
    silenced: &BTreeSet<NodeName>,
) -> Vec<ClusterOutage> {
    let rule = Rule {
        share_percent: policy.share_percent,
        window: policy.window,
        own: view.own_unclean_boot,
    };
    inventory
        .clusters
        .iter()
        .map(|cluster| {
            let members: Vec<_> = inventory
                .members(&cluster.name)
                .filter(|node| !silenced.contains(&node.name))
                .collect();
            ClusterOutage {
                cluster: cluster.name.clone(),
                verdict: judge(view, &members, &rule),
            }
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignKind {
    Lost,
    Unclean,
}

#[derive(Debug, Clone, Copy)]
struct Sign<'a> {
    at: Instant,
    kind: SignKind,
    node: &'a NodeSpec,
}

/// What makes some nodes' signs one event.
struct Rule {
    /// So many percent of the nodes.
    share_percent: u32,
    /// Within so long.
    window: Duration,
    /// The coordinator's own boot was unclean, and counts as a sign.
    own: bool,
}

/// What the nodes tell, in the order in which it came.
fn signs<'a>(view: &FleetView, members: &[&'a NodeSpec], window: Duration) -> Vec<Sign<'a>> {
    let mut signs: Vec<_> = members
        .iter()
        .filter_map(|node| {
            let (kind, at) = sign(view.nodes.get(&node.name)?, view, window)?;
            Some(Sign { at, kind, node })
        })
        .collect();
    signs.sort_by(|a, b| (a.at, &a.node.name).cmp(&(b.at, &b.node.name)));
    signs
}

fn judge(view: &FleetView, members: &[&NodeSpec], rule: &Rule) -> Verdict {
    let signs = signs(view, members, rule.window);
    let share = |group: &[Sign<'_>]| group.len() * 100 >= members.len() * rule.share_percent as usize;
    let unclean = |group: &[Sign<'_>]| group.iter().any(|sign| sign.kind == SignKind::Unclean);
    // The coordinator's own boot is a sign like the others: one hours before is of another event.
    let with_own = |group: &[Sign<'_>]| {
        rule.own
            && group
                .iter()
                .any(|sign| sign.kind == SignKind::Unclean && apart(sign.at, view.began_at) <= rule.window)
    };
    let groups = groups(&signs, rule.window);
    let power = groups
        .iter()
        .filter(|group| unclean(group) && (share(group) || with_own(group)))
        .max_by_key(|group| group.len());
    if let Some(group) = power {
        return Verdict::PowerEvent {
            since: group[0].at,
            lost: names(group, SignKind::Lost),
            unclean: names(group, SignKind::Unclean),
            not_ready: members
                .iter()
                .filter(|node| {
                    view.nodes
                        .get(&node.name)
                        .is_none_or(|node| node.phase != Phase::Ready)
                })
                .map(|node| node.name.clone())
                .collect(),
            evidence: evidence(view, group, members.len(), with_own(group)),
        };
    }
    let lost: Vec<_> = signs
        .iter()
        .copied()
        .filter(|sign| sign.kind == SignKind::Lost)
        .collect();
    match self::groups(&lost, rule.window)
        .into_iter()
        .filter(|group| share(group))
        .max_by_key(|group| group.len())
    {
        Some(group) => Verdict::Suspicion {
            lost: names(group, SignKind::Lost),
            evidence: evidence(view, group, members.len(), false),
        },
        None => Verdict::Normal,
    }
}

/// What a node tells, and since when.
fn sign(node: &NodeView, view: &FleetView, window: Duration) -> Option<(SignKind, Instant)> {
    // The gate holds after an unclean end only. It is asked first: it needs nothing that this coordinator remembers.
    let held = node
        .attestation
        .as_ref()
        .is_some_and(|word| word.gate == GateState::Held);
    if held || node.phase == Phase::Held {
        return Some((SignKind::Unclean, node.new_boot_at.unwrap_or(view.began_at)));
    }
    if let (Some(boot), Some(before), Some(at)) = (&node.boot, &node.previous_boot, node.new_boot_at)
        && boot.previous_shutdown == PreviousShutdown::Unclean
        && !boot.same_boot(before)
        && apart(at, view.at) <= window
    {
        return Some((SignKind::Unclean, at));
    }
    let lost_at = node.lost_at.filter(|_| !node.in_session)?;
    Some((SignKind::Lost, lost_at))
}

/// For each sign the longest run of signs that begins with it and fits into the window.
fn groups<'a, 'b>(signs: &'b [Sign<'a>], window: Duration) -> Vec<&'b [Sign<'a>]> {
    let mut end = 0;
    (0..signs.len())
        .map(|start| {
            while end < signs.len() && apart(signs[start].at, signs[end].at) <= window {
                end += 1;
            }
            &signs[start..end]
        })
        .collect()
}

fn apart(a: Instant, b: Instant) -> Duration {
    if a > b { a - b } else { b - a }
}

fn names(group: &[Sign<'_>], kind: SignKind) -> Vec<NodeName> {
    group
        .iter()
        .filter(|sign| sign.kind == kind)
        .map(|sign| sign.node.name.clone())
        .collect()
}

fn evidence(view: &FleetView, group: &[Sign<'_>], of: usize, own: bool) -> String {
    let list = |kind| {
        let names = names(group, kind);
        let some: Vec<_> = names.iter().take(NAMED).map(ToString::to_string).collect();
        match names.len() {
            0 => String::new(),
            count if count > NAMED => format!("{count} ({} and {} more)", some.join(", "), count - NAMED),
            count => format!("{count} ({})", some.join(", ")),
        }
    };
    let mut parts = Vec::new();
    for (kind, what) in [
        (SignKind::Unclean, "back in a new boot after an unclean end"),
        (SignKind::Lost, "lost without a goodbye"),
    ] {
        let list = list(kind);
        if !list.is_empty() {
            parts.push(format!("{what}: {list}"));
        }
    }
    if own {
        parts.push("the coordinator's own machine booted anew after an unclean end".to_owned());
    }
    let racks: BTreeSet<_> = group
        .iter()
        .filter_map(|sign| sign.node.rack.as_deref())
        .collect();
    if racks.len() > 1 {
        parts.push(format!("in {} racks", racks.len()));
    }
    let ago = |sign: Option<&Sign<'_>>| sign.map_or(0, |sign| apart(view.at, sign.at).as_secs());
    parts.push(format!(
        "first sign {} s ago, last {} s ago",
        ago(group.first()),
        ago(group.last())
    ));
    format!("{} of {of} nodes; {}", group.len(), parts.join("; "))
}

#[cfg(test)]
mod tests;

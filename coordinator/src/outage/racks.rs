//! Did a whole rack go, whatever clusters its nodes are of? Pure.
//!
//! A rack that loses its power or its switch may take too little of any cluster to be an event of that cluster; then its nodes
//! rejoin one by one, and nobody would know what they have in common. So this is told, and nothing is begun for it. What takes every
//! rack is no rack's loss: the clusters tell that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Rule, Verdict, apart, judge, sign, signs};
use crate::events::{EventKind, NewEvent, Severity};
use crate::fleet::view::{FleetView, Phase};
use crate::inventory::{Inventory, NodeSpec};
use crate::policy::OutagePolicy;

/// A rack is told of when no node of it went (or came back) for so long: what takes a whole site does not take its racks in the same
/// instant.
pub const SETTLE: Duration = Duration::from_secs(30);
/// A rack of fewer nodes is told by its nodes.
const LEAST: usize = 2;

/// A rack that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RackOutage {
    /// Which.
    pub rack: String,
    /// [`Verdict::PowerEvent`]: a node of it is back from an unclean end. [`Verdict::Suspicion`]: none is back to say whether it was
    /// the power or the switch.
    pub verdict: Verdict,
}

/// The racks that went, each with all of its nodes that were there, while another rack did not.
pub fn assess(view: &FleetView, inventory: &Inventory, policy: &OutagePolicy) -> Vec<RackOutage> {
    let mut racks: BTreeMap<&str, Vec<&NodeSpec>> = BTreeMap::new();
    for node in inventory.nodes.values() {
        let phase = view.nodes.get(&node.name).map(|node| node.phase);
        // Who said goodbye, or was never heard of, tells nothing of a rack.
        let there = match phase {
            Some(Phase::Ready | Phase::NotReady | Phase::Held | Phase::Silent) => true,
            Some(Phase::Unknown | Phase::Stopped) | None => false,
        };
        if let Some(rack) = node.rack.as_deref().filter(|_| there) {
            racks.entry(rack).or_default().push(node);
        }
    }
    let rule = Rule {
        share_percent: 100,
        window: policy.window,
        own: false,
    };
    // Somebody has to stand who says so: one that was not heard of yet may have gone as well.
    let stands = |node: &&NodeSpec| {
        view.nodes
            .get(&node.name)
            .is_some_and(|known| known.in_session && sign(known, view, rule.window).is_none())
    };
    if !racks.values().flatten().any(stands) {
        return Vec::new();
    }
    racks
        .into_iter()
        .filter(|(_, nodes)| nodes.len() >= LEAST)
        .filter_map(|(rack, nodes)| {
            let last = signs(view, &nodes, rule.window).last()?.at;
            let verdict = judge(view, &nodes, &rule);
            let settled = apart(view.at, last) >= SETTLE;
            (settled && verdict != Verdict::Normal).then(|| RackOutage {
                rack: rack.to_owned(),
                verdict,
            })
        })
        .collect()
}

/// What was told of which rack, so that nothing is told twice.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, bool>);

impl Told {
    /// What there is to tell: each rack once when it went, and once more when it turns out to have been its power.
    pub fn news(&mut self, outages: &[RackOutage]) -> Vec<NewEvent> {
        self.0
            .retain(|rack, _| outages.iter().any(|outage| outage.rack == *rack));
        let mut news = Vec::new();
        for RackOutage { rack, verdict } in outages {
            let (power, severity, kind, text) = match verdict {
                Verdict::Normal => continue,
                Verdict::Suspicion { evidence, .. } => (
                    false,
                    Severity::Warning,
                    EventKind::SessionLost,
                    format!("rack {rack} is gone, its power or its switch: {evidence}"),
                ),
                Verdict::PowerEvent { evidence, .. } => (
                    true,
                    Severity::Critical,
                    EventKind::PowerEvent,
                    format!("rack {rack} lost its power, and other racks did not: {evidence}"),
                ),
            };
            let before = self.0.get(rack).copied();
            if before == Some(power) || before == Some(true) {
                continue;
            }
            self.0.insert(rack.clone(), power);
            news.push(NewEvent::new(severity, kind, text));
        }
        news
    }
}

//! Racks: two clusters of six nodes over three racks, two nodes of each cluster in each rack.

use super::super::racks::{RackOutage, SETTLE, Told, assess};
use super::*;
use crate::events::{EventKind, Severity};

/// `fates` of the nodes of each rack: those of the first cluster, then those of the second.
fn view(fates: [[Node; 4]; 3], now: u64) -> (Inventory, FleetView) {
    let mut inventory = cluster("a", 6);
    let other = cluster("b", 6);
    inventory.clusters.extend(other.clusters);
    inventory.nodes.extend(other.nodes);
    let began_at = Instant::now();
    let mut nodes = std::collections::BTreeMap::new();
    for (index, spec) in inventory.nodes.values_mut().enumerate() {
        let (cluster, place) = (index / 6, index % 6);
        spec.rack = Some(format!("r{}", place / 2 + 1));
        let fate = fates[place / 2][cluster * 2 + place % 2];
        nodes.insert(spec.name.clone(), node_view(fate, began_at));
    }
    let view = FleetView {
        at: began_at + Duration::from_secs(now),
        nodes,
        own_unclean_boot: false,
        began_at,
    };
    (inventory, view)
}

fn judged(fates: [[Node; 4]; 3], now: u64) -> Vec<RackOutage> {
    let (inventory, view) = view(fates, now);
    // What is of a rack alone is of no cluster.
    if fates[1..].iter().flatten().all(|fate| matches!(fate, Fine)) {
        let clusters = super::super::assess(&view, &inventory, &OutagePolicy::default());
        assert!(clusters.iter().all(|outage| outage.verdict == Verdict::Normal));
    }
    assess(&view, &inventory, &OutagePolicy::default())
}

/// (what happened, the first rack, the second, the third, seconds after the coordinator began, what is told of which racks)
type Row = (
    &'static str,
    [Node; 4],
    [Node; 4],
    [Node; 4],
    u64,
    &'static [(&'static str, Expect)],
);

const WELL: [Node; 4] = [Fine; 4];
const GONE: [Node; 4] = [Lost(50), Lost(52), Lost(50), Lost(51)];

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    ("nothing", WELL, WELL, WELL, 90, &[]),
    ("all nodes of a rack lost", GONE, WELL, WELL, 90, &[("r1", Expect::Suspicion)]),
    ("the same, just now", GONE, WELL, WELL, 60, &[]),
    ("and one of them is back unclean", [Held(300), Lost(52), Lost(50), Lost(51)], WELL, WELL, 400, &[("r1", Expect::Power)]),
    ("all of them are back unclean", [Held(300), Held(305), Held(320), Held(310)], WELL, WELL, 400, &[("r1", Expect::Power)]),
    ("its switch is back: same boots", [SameBoot; 4], WELL, WELL, 90, &[]),
    ("all but one lost", [Lost(50), Lost(50), Lost(50), Fine], WELL, WELL, 90, &[]),
    ("all lost but one that said goodbye", [Lost(50), Lost(50), Lost(50), Goodbye], WELL, WELL, 90, &[("r1", Expect::Suspicion)]),
    ("all lost, hours apart", [Lost(50), Lost(HOUR), Lost(2 * HOUR), Lost(3 * HOUR)], WELL, WELL, 4 * HOUR, &[]),
    ("two racks lost", GONE, GONE, WELL, 90, &[("r1", Expect::Suspicion), ("r2", Expect::Suspicion)]),
    ("every rack lost: the site", GONE, GONE, GONE, 90, &[]),
    ("rolling reboot of a rack", [Back(Clean, 40), Back(Clean, 45), Goodbye, Fine], WELL, WELL, 90, &[]),
    ("its nodes are held, and the coordinator has heard of no other yet", [Held(10); 4], [Unheard; 4], [Unheard; 4], 90, &[]),
    ("the coordinator restarted", [Unheard; 4], [Unheard; 4], [Unheard; 4], 90, &[]),
];

#[test]
fn truth_table() {
    for (what, first, second, third, now, expect) in TABLE {
        let told = judged([*first, *second, *third], *now);
        let told: Vec<_> = told
            .iter()
            .map(|outage| (outage.rack.as_str(), Expect::of(&outage.verdict)))
            .collect();
        assert_eq!(told, *expect, "{what}");
    }
}

#[test]
fn each_rack_is_told_once_and_once_more_when_it_was_its_power() {
    let gone = judged([GONE, WELL, WELL], 90);
    let back = judged([[Held(300), Lost(52), Lost(50), Lost(51)], WELL, WELL], 400);
    let mut told = Told::default();
    let first = told.news(&gone);
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].severity, first[0].kind),
        (Severity::Warning, EventKind::SessionLost)
    );
    assert!(
        first[0].message.starts_with("rack r1 is gone, its power or its switch: 4 of 4 nodes; lost without a goodbye: 4 (a-1, b-1, b-2, a-2)"),
        "{}",
        first[0].message
    );
    assert_eq!(told.news(&gone), []);
    let then = told.news(&back);
    assert_eq!((then.len(), then[0].kind), (1, EventKind::PowerEvent));
    assert!(
        then[0].message.contains("other racks did not"),
        "{}",
        then[0].message
    );
    // Whatever it looks like on the way back, it is the same event until it is over.
    assert_eq!(told.news(&gone), []);
    assert_eq!(told.news(&[]), []);
    assert_eq!(told.news(&gone).len(), 1);
    assert!(SETTLE < OutagePolicy::default().window);
}

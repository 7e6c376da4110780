use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::config::{CniSettings, DnsSettings};
use crate::signal::DefaultRoute;

const HOLD: Duration = Duration::from_secs(15);

fn settings() -> NetworkSettings {
    NetworkSettings {
        hold: HOLD,
        dns: Some(DnsSettings::of("api.example")),
        ..NetworkSettings::default()
    }
}

fn path(routes: usize, had_route: bool, links: &[LinkState]) -> Signal {
    let names = ["eth0", "eth1"];
    Signal::Network(NetworkSignal::Path(PathSignal {
        routes: vec![
            DefaultRoute {
                gateway: Some("10.0.0.1".parse().unwrap()),
                interface: "eth0".to_owned(),
            };
            routes
        ],
        had_route,
        links: links
            .iter()
            .zip(names)
            .map(|(state, name)| Link {
                name: name.to_owned(),
                state: *state,
            })
            .collect(),
    }))
}

fn reach(coordinator: Option<bool>, peers: &[Option<bool>]) -> Signal {
    let peers = (1_u8..).zip(peers).map(|(number, reached)| {
        let peer = SocketAddr::from(([10, 0, 0, number], 10250));
        (peer, *reached)
    });
    Signal::Network(NetworkSignal::Reach(ReachSignal {
        coordinator,
        peers: peers.collect(),
    }))
}

fn cni(found: CniFound) -> Signal {
    Signal::Network(NetworkSignal::Cni(CniSignal {
        dir: "/etc/cni/net.d".into(),
        found,
    }))
}

fn dns(resolved: Result<(), &str>) -> Signal {
    Signal::Network(NetworkSignal::Dns(DnsSignal {
        name: "api.example".to_owned(),
        resolved: resolved.map_err(str::to_owned),
    }))
}

/// What stands when it was so for long, as (kind, evidence).
fn at_last(settings: NetworkSettings, signals: &[Signal]) -> Vec<(ConditionKind, String)> {
    let now = Instant::now();
    let mut network = Network::new(settings);
    for signal in signals {
        network.observe(signal, now);
    }
    let conditions = network.conditions(now + Duration::from_hours(1));
    let told = conditions.into_iter().map(|one| (one.key.kind, one.evidence));
    told.collect()
}

fn isolated(signals: &[Signal]) -> Option<String> {
    let all = at_last(settings(), signals);
    let first = all.into_iter().next();
    first.map(|(kind, evidence)| {
        assert_eq!(kind, ConditionKind::NetworkIsolated);
        evidence
    })
}

#[test]
fn the_way_out_is_judged_by_routes_and_links() {
    use LinkState::{Carrier, Down, Gone, NoCarrier, Unknown};
    for (signal, expected) in [
        (path(1, true, &[Carrier]), None),
        (path(1, true, &[NoCarrier, Carrier]), None),
        (path(1, true, &[Unknown]), None),
        (path(1, true, &[NoCarrier, Unknown]), None),
        (
            path(1, true, &[NoCarrier]),
            Some("no carrier under the default route: eth0, which has no carrier"),
        ),
        (
            path(0, true, &[Down]),
            Some("no default route; the last one was by eth0, which is set down"),
        ),
        (
            path(0, true, &[Carrier, Gone]),
            Some("no default route; the last one was by eth0, which has carrier, eth1, which is gone"),
        ),
        // It never had one: so it is meant to be.
        (path(0, false, &[]), None),
    ] {
        assert_eq!(
            isolated(std::slice::from_ref(&signal)).as_deref(),
            expected,
            "{signal:?}"
        );
    }
}

#[test]
fn nobody_in_reach_is_isolation_only_by_two_witnesses() {
    let (no, yes) = (Some(false), Some(true));
    for (signal, expected) in [
        (reach(no, &[]), None),
        (reach(None, &[no]), None),
        (reach(no, &[None, None]), None),
        (reach(yes, &[no, no]), None),
        (reach(no, &[no, yes]), None),
        (
            reach(no, &[no, None]),
            Some("no session with the coordinator, and none of 1 peers can be reached: 10.0.0.1:10250"),
        ),
        (
            reach(None, &[no, no]),
            Some("none of 2 peers can be reached: 10.0.0.1:10250, 10.0.0.2:10250"),
        ),
    ] {
        assert_eq!(
            isolated(std::slice::from_ref(&signal)).as_deref(),
            expected,
            "{signal:?}"
        );
    }
}

#[test]
fn isolation_has_to_last_and_one_look_clears_it() {
    let start = Instant::now();
    let mut network = Network::new(settings());
    let lost = path(0, true, &[LinkState::Down]);
    network.observe(&lost, start);
    assert_eq!(network.next_change(start), Some(start + HOLD));
    // Said again: it lasts since the first time.
    network.observe(&lost, start + HOLD / 2);
    assert!(
        network
            .conditions(start + HOLD - Duration::from_nanos(1))
            .is_empty()
    );
    let told = network.conditions(start + HOLD);
    assert_eq!((told[0].since, told[0].severity), (start, Severity::Critical));
    assert!(told[0].escalated, "nothing is restarted because of it");
    network.observe(&path(1, true, &[LinkState::Carrier]), start + HOLD);
    assert!(network.conditions(start + HOLD).is_empty());
    assert_eq!(network.next_change(start + HOLD), None);
}

#[test]
fn a_directory_that_is_not_there_matters_where_it_has_to_be() {
    let required = NetworkSettings {
        cni: CniSettings {
            required: true,
            ..CniSettings::default()
        },
        ..settings()
    };
    let missing = [cni(CniFound::NoDirectory)];
    assert!(at_last(settings(), &missing).is_empty());
    assert_eq!(at_last(required, &missing).len(), 1);
    let removed = [cni(CniFound::Usable), cni(CniFound::NoDirectory)];
    assert_eq!(at_last(settings(), &removed).len(), 1);
}

#[test]
fn a_missing_configuration_says_who_may_bring_it_back() {
    let broken = [cni(CniFound::Broken {
        file: "10-calico.conflist".to_owned(),
        why: "it is empty".to_owned(),
    })];
    let by_pod = at_last(settings(), &broken);
    let expected = "/etc/cni/net.d/10-calico.conflist cannot be used: it is empty; no unit is known to write it: \
                    ask for the CNI pod's recreation";
    assert_eq!(by_pod, [(ConditionKind::CniMissing, expected.to_owned())]);
    let mut with_unit = settings();
    with_unit.cni.unit = Some("flanneld.service".to_owned());
    let by_unit = at_last(with_unit, &broken);
    assert!(!by_unit[0].1.contains("recreation"), "{by_unit:?}");
}

#[test]
fn what_is_not_watched_any_more_is_not_told_any_more() {
    let now = Instant::now();
    let later = now + Duration::from_hours(1);
    let mut network = Network::new(settings());
    for signal in [
        path(0, true, &[LinkState::Down]),
        cni(CniFound::Empty),
        dns(Err("refused")),
    ] {
        network.observe(&signal, now);
    }
    assert_eq!(network.conditions(later).len(), 3);
    network.retune(settings());
    assert_eq!(network.conditions(later).len(), 3);
    network.retune(NetworkSettings {
        default_route: false,
        cni: CniSettings {
            watch: false,
            ..CniSettings::default()
        },
        ..NetworkSettings::default()
    });
    assert!(network.conditions(later).is_empty());
    assert_eq!(network.next_change(now), None);
}

proptest! {
    /// The loop sleeps until `next_change`: nothing may change before, and nothing after the last.
    #[test]
    fn conditions_change_only_when_foretold(history in prop::collection::vec((0_u64..40_000, 0_usize..11), 1..40)) {
        let mut now = Instant::now();
        let mut network = Network::new(settings());
        let stands = |network: &Network, at| {
            network.conditions(at).into_iter().map(|one| (one.key, one.severity, one.evidence)).collect::<Vec<_>>()
        };
        for (millis, at) in history {
            now += Duration::from_millis(millis);
            let before = stands(&network, now);
            let signal = match at {
                0 => path(1, true, &[LinkState::Carrier]),
                1 => path(1, true, &[LinkState::NoCarrier]),
                2 => path(0, true, &[LinkState::Down]),
                3 => reach(Some(false), &[Some(false)]),
                4 => reach(Some(true), &[Some(false)]),
                5 => cni(CniFound::Empty),
                6 => cni(CniFound::Usable),
                7 => dns(Err("refused")),
                8 => dns(Ok(())),
                9 => path(1, true, &[LinkState::Unknown]),
                _ => reach(None, &[None]),
            };
            network.observe(&signal, now);
            if at >= 9 {
                // Blindness neither raises nor clears.
                prop_assert_eq!(stands(&network, now), before);
            }
        }
        for _ in 0..8 {
            let stood = stands(&network, now);
            let Some(next) = network.next_change(now) else {
                prop_assert_eq!(stands(&network, now + Duration::from_hours(1)), stood);
                return Ok(());
            };
            prop_assert_eq!(stands(&network, next - Duration::from_nanos(1)), stood.clone());
            prop_assert_ne!(stands(&network, next), stood);
            now = next;
        }
        prop_assert!(false, "conditions never come to rest");
    }
}

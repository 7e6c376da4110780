//! Each check over values, one thing wrong at a time.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::fleet::Fleet;
use super::machine::{Machine, Named};
use super::{Check, Finding, Level, Observed, examine};
use crate::view::{
    Attestation, Certificate, Condition, Coordinator, GateState, Node, NodeCertificate, NodeDetail,
    NodePhase, Role, Severity,
};

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().unwrap()
}

fn in_hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

fn node(name: &str) -> NodeDetail {
    NodeDetail {
        node: Node {
            name: name.to_owned(),
            cluster: "lab".to_owned(),
            role: Role::Worker,
            address: "10.0.0.1".to_owned(),
            rack: None,
            phase: NodePhase::Ready,
            phase_age_ms: 1000,
            agent_version: Some("1.2.0".to_owned()),
            conditions: 0,
            boot_id: None,
            waiting_on: None,
        },
        boot: None,
        attestation: Some(Attestation {
            gate: GateState::Passed,
            kubelet_active: true,
            kubelet_healthy: true,
            apiserver_ready: false,
            apiserver_latency_ms: None,
            apiserver_error: None,
            age_ms: 10,
            manifests: std::collections::BTreeMap::new(),
        }),
        last_heard_ms: Some(10),
        highest_epoch: 1,
        standing_conditions: Vec::new(),
        units: Vec::new(),
        disks: Vec::new(),
        remedies: Vec::new(),
        holds: Vec::new(),
        freezes: Vec::new(),
    }
}

fn certificate(role: &'static str, hours: i64) -> Certificate {
    Certificate {
        role: Some(role),
        name: Some("ann".to_owned()),
        begins_at: in_hours(-1000),
        ends_at: in_hours(hours),
        authority: "a".to_owned(),
        file: format!("/pki/{role}.crt"),
        key_file: None,
    }
}

fn coordinator(name: &str, leads: bool) -> Coordinator {
    Coordinator {
        name: name.to_owned(),
        leads,
        addresses: Vec::new(),
        version: "1.2.0".to_owned(),
    }
}

fn fleet() -> Fleet {
    Fleet {
        address: "10.0.0.100:7443".parse().unwrap(),
        coordinators: vec![coordinator("one", true)],
        nodes: vec![node("a"), node("b")],
        certificates: vec![NodeCertificate {
            node: "a".to_owned(),
            cluster: None,
            serial: "1".to_owned(),
            issued_at: Some(in_hours(-100)),
            ends_at: Some(in_hours(8000)),
            renewable_until_at: None,
            behind: false,
            revoked: None,
        }],
    }
}

fn named() -> Named {
    Named {
        nodes: Ok(2),
        certificates: vec![
            Ok(certificate("coordinator", 8000)),
            Ok(certificate("authority", 80000)),
        ],
        authority: Some((PathBuf::from("/pki/ca.key"), Ok(()))),
        store: Some((PathBuf::from("/state/store.redb"), Ok(()))),
        disk: (PathBuf::from("/state"), Ok((50, 100))),
        kubeconfigs: vec![("lab".to_owned(), PathBuf::from("/k"), Ok(()))],
        etcd: Vec::new(),
    }
}

fn seen(fleet: Fleet, named: Named) -> Observed {
    Observed {
        now: now(),
        version: "1.2.0",
        own: vec![
            Ok(certificate("operator", 8000)),
            Ok(certificate("authority", 80000)),
        ],
        fleet: Ok(fleet),
        machine: Some(Machine {
            file: PathBuf::from("/etc/coordinator.yaml"),
            named: Ok(named),
        }),
    }
}

/// What is not in order, each with a way out.
fn bad(seen: &Observed) -> Vec<(Check, Level, String)> {
    let findings = examine(seen)
        .into_iter()
        .filter(|finding| finding.level > Level::Ok);
    findings
        .map(|finding| {
            let Finding {
                check,
                level,
                subject,
                what,
                fix,
            } = finding;
            assert!(fix.is_some(), "{what}: what is to be done?");
            (check, level, subject.unwrap_or_default())
        })
        .collect()
}

fn of_fleet(change: impl FnOnce(&mut Fleet)) -> Vec<(Check, Level, String)> {
    let mut fleet = fleet();
    change(&mut fleet);
    bad(&seen(fleet, named()))
}

fn of_machine(change: impl FnOnce(&mut Named)) -> Vec<(Check, Level, String)> {
    let mut named = named();
    change(&mut named);
    bad(&seen(fleet(), named))
}

fn one(check: Check, level: Level, subject: &str) -> Vec<(Check, Level, String)> {
    vec![(check, level, subject.to_owned())]
}

#[test]
fn where_nothing_is_wrong_every_check_says_so() {
    let seen = seen(fleet(), named());
    assert_eq!(bad(&seen), []);
    let mut said: Vec<_> = examine(&seen)
        .into_iter()
        .map(|finding| finding.check.word())
        .collect();
    said.dedup();
    assert_eq!(
        said,
        [
            "connection",
            "certificates",
            "leader",
            "versions",
            "certificates",
            "nodes",
            "gates",
            "conditions",
            "configuration",
            "store",
            "kubeconfigs"
        ]
    );
}

#[test]
fn a_fleet_that_is_not_reached_is_the_first_thing_and_the_machine_is_looked_at_all_the_same() {
    let mut seen = seen(fleet(), named());
    seen.fleet = Err((
        "no coordinator could be reached".to_owned(),
        "start it".to_owned(),
    ));
    assert_eq!(bad(&seen), one(Check::Connection, Level::Wrong, ""));
    seen.machine.as_mut().unwrap().named = Err("line 3".to_owned());
    let found = bad(&seen);
    assert_eq!(
        found[1],
        (
            Check::Configuration,
            Level::Wrong,
            "/etc/coordinator.yaml".to_owned()
        )
    );
}

#[test]
fn nodes_that_are_not_there_or_would_not_wait_are_named() {
    for (phase, level) in [
        (NodePhase::Unknown, Level::Wrong),
        (NodePhase::Silent, Level::Wrong),
        (NodePhase::Stopped, Level::Warning),
        (NodePhase::Held, Level::Warning),
        (NodePhase::NotReady, Level::Warning),
    ] {
        let found = of_fleet(|fleet| fleet.nodes[1].node.phase = phase);
        assert_eq!(found, one(Check::Nodes, level, "b"), "{phase:?}");
    }
    assert_eq!(
        of_fleet(|fleet| fleet.nodes.clear()),
        one(Check::Nodes, Level::Wrong, "")
    );
    for (gate, level) in [
        (GateState::Absent, Level::Wrong),
        (GateState::DeadMan, Level::Warning),
    ] {
        let found = of_fleet(|fleet| fleet.nodes[0].attestation.as_mut().unwrap().gate = gate);
        assert_eq!(found, one(Check::Gates, level, "a"), "{gate:?}");
    }
}

#[test]
fn what_agents_find_is_passed_on_by_its_weight() {
    for (severity, level) in [
        (Severity::Info, None),
        (Severity::Warning, Some(Level::Warning)),
        (Severity::Critical, Some(Level::Wrong)),
    ] {
        let found = of_fleet(|fleet| {
            fleet.nodes[0].standing_conditions.push(Condition {
                node: "a".to_owned(),
                cluster: "lab".to_owned(),
                kind: "DiskPressure".to_owned(),
                subject: "/".to_owned(),
                severity,
                standing_ms: 1,
                evidence: "91 % used".to_owned(),
                escalated: false,
                silenced: false,
                waiting_on: None,
            });
        });
        let expected = level.map(|level| (Check::Conditions, level, "a".to_owned()));
        assert_eq!(found, Vec::from_iter(expected));
    }
}

#[test]
fn versions_are_compared_by_number_and_a_newer_agent_says_whom_to_update() {
    let found = of_fleet(|fleet| fleet.nodes[0].node.agent_version = Some("1.10.0".to_owned()));
    assert_eq!(found, one(Check::Versions, Level::Warning, "a"));
    let mut fleet = fleet();
    fleet.nodes[0].node.agent_version = Some("1.10.0".to_owned());
    let newer = examine(&seen(fleet, named()));
    let fix = newer.iter().find_map(|finding| finding.fix.as_deref());
    assert!(fix.unwrap().contains("update the coordinator"), "{fix:?}");
    let found = of_fleet(|fleet| {
        fleet.coordinators.push(Coordinator {
            version: "1.1.9".to_owned(),
            ..coordinator("two", false)
        });
    });
    assert_eq!(found, one(Check::Versions, Level::Warning, "two"));
    let found = of_fleet(|fleet| fleet.coordinators[0].leads = false);
    assert_eq!(found, one(Check::Leader, Level::Wrong, ""));
    let found = of_fleet(|fleet| fleet.coordinators.push(coordinator("two", true)));
    assert_eq!(found, one(Check::Leader, Level::Wrong, ""));
}

#[test]
fn certificates_are_told_before_they_end() {
    for (hours, level) in [(-1, Level::Wrong), (29 * 24, Level::Warning)] {
        let mut seen = seen(fleet(), named());
        seen.own[0] = Ok(certificate("operator", hours));
        assert_eq!(
            bad(&seen),
            one(Check::Certificates, level, "/pki/operator.crt"),
            "{hours}"
        );
        let found = of_machine(|named| named.certificates[0] = Ok(certificate("coordinator", hours)));
        assert_eq!(found, one(Check::Certificates, level, "/pki/coordinator.crt"));
    }
    for (hours, level) in [(-1, Level::Wrong), (10, Level::Warning)] {
        let found = of_fleet(|fleet| fleet.certificates[0].ends_at = Some(in_hours(hours)));
        assert_eq!(found, one(Check::Certificates, level, "a"), "{hours}");
    }
    let revoked = of_fleet(|fleet| {
        fleet.certificates[0].ends_at = Some(in_hours(-1));
        fleet.certificates[0].revoked = Some("sold".to_owned());
    });
    assert_eq!(revoked, []);
    let found = of_machine(|named| named.authority.as_mut().unwrap().1 = Err("no such file".to_owned()));
    assert_eq!(found, one(Check::Certificates, Level::Wrong, "/pki/ca.key"));
}

#[test]
fn what_the_coordinator_needs_on_its_machine_is_named() {
    let no = || Err::<(), _>("no such file".to_owned());
    assert_eq!(
        of_machine(|named| named.nodes = Err("line 2".to_owned())),
        one(Check::Configuration, Level::Wrong, "")
    );
    assert_eq!(
        of_machine(|named| named.store.as_mut().unwrap().1 = no()),
        one(Check::Store, Level::Wrong, "/state/store.redb")
    );
    assert_eq!(
        of_machine(|named| named.disk.1 = Ok((9, 100))),
        one(Check::Store, Level::Warning, "/state")
    );
    assert_eq!(
        of_machine(|named| named.kubeconfigs[0].2 = no()),
        one(Check::Kubeconfigs, Level::Wrong, "/k")
    );
    let members = |up: usize| -> Vec<_> {
        (0..3)
            .map(|member| {
                (
                    format!("https://{member}"),
                    if member < up { Ok(()) } else { no() },
                )
            })
            .collect()
    };
    assert_eq!(of_machine(|named| named.etcd = members(3)), []);
    assert_eq!(
        of_machine(|named| named.etcd = members(2)),
        one(Check::Etcd, Level::Warning, "https://2")
    );
    let levels: Vec<_> = of_machine(|named| named.etcd = members(1))
        .into_iter()
        .map(|(_, level, _)| level)
        .collect();
    assert_eq!(levels, [Level::Warning, Level::Warning, Level::Wrong]);
}

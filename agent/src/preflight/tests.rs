//! Real files, sockets and certificates; the machine itself is simulated only as far as its disks go.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::config::{CoordinatorSettings, DiskSettings, GateRole};
use crate::host::real::RealHost;
use blackstart_proto::tls::TlsFiles;

/// A node whose paths are all in a directory of their own, and on which everything is as it must be.
fn node() -> (TempDir, Settings, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["state", "pki", "etcd/member/snap", "etcd/member/wal"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("etcd/member/wal/0.wal"), "x").unwrap();
    fs::write(at("etcd/member/snap/db"), "x").unwrap();
    fs::write(at("pki/fresh.crt"), certificate(2020, 4000)).unwrap();
    let listener = UnixListener::bind(at("runtime.sock")).unwrap();
    let mut settings = Settings {
        state_dir: at("state"),
        disks: vec![DiskSettings {
            raise_percent: 100,
            ..DiskSettings::at(dir.path())
        }],
        ..Settings::for_node("master-1")
    };
    settings.gate.role = GateRole::ControlPlane;
    settings.preflight.certificates = vec![at("pki/*.crt").display().to_string()];
    settings.preflight.container_runtimes = vec![at("none.sock"), at("runtime.sock")];
    settings.preflight.etcd_data = vec![at("etcd")];
    (dir, settings, listener)
}

fn certificate(from: i32, until: i32) -> String {
    let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn look(settings: &Settings) -> Vec<Finding> {
    check(
        settings,
        &RealHost::new(settings.kubelet.target.clone(), None, None),
    )
}

/// The one finding of `check` that is not fine.
fn trouble(settings: &Settings, name: &str) -> Finding {
    let mut found: Vec<_> = look(settings)
        .into_iter()
        .filter(|finding| finding.check == name && finding.state != State::Ok)
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_node_on_which_all_is_well_is_not_blocked() {
    let (_dir, settings, _runtime) = node();
    let findings = look(&settings);
    // The disk of whoever runs this may be full.
    let blockers: Vec<_> = findings
        .iter()
        .filter(|finding| finding.state == State::Blocker && finding.check != "disk")
        .collect();
    assert!(blockers.is_empty(), "{blockers:?}");
    for name in [
        "clock",
        "certificate",
        "disk",
        "read-only",
        "container-runtime",
        "etcd-data",
    ] {
        assert!(findings.iter().any(|finding| finding.check == name), "{name}");
    }
}

#[test]
fn a_clock_behind_the_floor_blocks() {
    let (_dir, settings, _runtime) = node();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let floor = now + Duration::from_hours(1);
    fs::write(
        settings.state_dir.join("clock-floor"),
        floor.as_secs().to_string(),
    )
    .unwrap();
    let found = trouble(&settings, "clock");
    assert_eq!(found.state, State::Blocker);
    assert!(!found.advice.is_empty());
}

#[test]
fn bad_certificates_block_and_the_agents_own_only_warns() {
    let (dir, mut settings, _runtime) = node();
    let at = |name: &str| dir.path().join(name);
    for (content, why) in [
        (certificate(2020, 2021), "expired"),
        (certificate(3000, 3001), "not valid before"),
        ("\0".repeat(1000), "zeroes"),
    ] {
        fs::write(at("pki/bad.crt"), content).unwrap();
        let found = trouble(&settings, "certificate");
        assert_eq!(found.state, State::Blocker);
        assert!(found.detail.contains(why), "{}", found.detail);
        assert!(found.subject.ends_with("bad.crt"));
    }
    fs::remove_file(at("pki/bad.crt")).unwrap();
    fs::write(at("node.crt"), certificate(2020, 2021)).unwrap();
    settings.coordinator = Some(CoordinatorSettings {
        addresses: Vec::new(),
        tls: TlsFiles {
            ca: at("ca.crt"),
            certificate: at("node.crt"),
            key: at("node.key"),
        },
        report_interval: Duration::from_secs(2),
        permit_wait: crate::config::PERMIT_WAIT,
    });
    assert_eq!(trouble(&settings, "certificate").state, State::Warning);
}

#[test]
fn a_full_disk_blocks_and_one_over_its_limit_warns() {
    let (_dir, mut settings, _runtime) = node();
    settings.disks = vec![DiskSettings {
        raise_percent: 0,
        ..DiskSettings::at("/dev/shm")
    }];
    assert_eq!(trouble(&settings, "disk").state, State::Warning);
    settings.disks = vec![DiskSettings::at("/nowhere/at/all")];
    assert!(trouble(&settings, "disk").detail.contains("no such mount point"));
}

#[test]
fn what_is_mounted_read_only_is_named() {
    let (_dir, mut settings, _runtime) = node();
    // Always there, and always read-only.
    let Some(read_only) = fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, options) = (words.next()?, words.nth(1)?);
            options.starts_with("ro").then(|| path.to_owned())
        })
        .find(|path| fs::metadata(path).is_ok_and(|seen| seen.is_dir()))
    else {
        eprintln!("nothing is mounted read-only here");
        return;
    };
    settings.preflight.etcd_data = vec![read_only.clone().into()];
    assert_eq!(trouble(&settings, "read-only").subject, read_only);
}

#[test]
fn a_runtime_that_is_gone_or_dead_blocks() {
    let (dir, mut settings, runtime) = node();
    drop(runtime);
    let dead = trouble(&settings, "container-runtime");
    assert_eq!(dead.state, State::Blocker);
    assert!(dead.detail.contains("nobody listens"), "{}", dead.detail);
    fs::remove_file(dir.path().join("runtime.sock")).unwrap();
    assert!(trouble(&settings, "container-runtime").detail.contains("none of"));
    settings.preflight.container_runtimes.clear();
    assert!(
        !look(&settings)
            .iter()
            .any(|finding| finding.check == "container-runtime")
    );
}

#[test]
fn etcds_data_must_be_there_on_masters_alone() {
    let (dir, mut settings, _runtime) = node();
    fs::remove_file(dir.path().join("etcd/member/wal/0.wal")).unwrap();
    assert!(trouble(&settings, "etcd-data").detail.contains("empty"));
    fs::remove_dir_all(dir.path().join("etcd")).unwrap();
    assert_eq!(trouble(&settings, "etcd-data").state, State::Blocker);
    settings.gate.role = GateRole::Worker;
    assert!(!look(&settings).iter().any(|finding| finding.check == "etcd-data"));
}

//! Real certificates in real files.

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::super::clock::FLOOR_FILE;
use super::*;
use crate::condition::{Condition, ConditionKind};
use crate::diagnose::certificates::Certificates;

const SOON: Duration = Duration::from_secs(30);
/// 2026-09-21.
const NOW: u64 = 1_790_000_000;
/// What a dead battery says.
const LONG_AGO: u64 = 1_451_606_400;

fn clocks_at(wall: u64) -> Clocks {
    Clocks {
        wall: Duration::from_secs(wall),
        boot: Duration::ZERO,
        synchronised: Some(true),
    }
}

fn right() -> Clocks {
    clocks_at(NOW)
}

fn reset() -> Clocks {
    clocks_at(LONG_AGO)
}

fn certificate(year: i32, month: u8) -> String {
    let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, month, 1);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn pki() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("expired.crt", certificate(2026, 9)),
        ("expiring.crt", certificate(2026, 10)),
        ("fresh.crt", certificate(2027, 9)),
        ("garbage.crt", "no certificate".to_owned()),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn told(signal: &Signal) -> Vec<(ConditionKind, String)> {
    let mut certificates = Certificates::new(Duration::from_hours(30 * 24));
    certificates.observe(signal, Instant::now());
    let of = |condition: Condition| {
        let path = PathBuf::from(condition.key.subject);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (condition.key.kind, name)
    };
    certificates.conditions().into_iter().map(of).collect()
}

async fn seen(dir: &TempDir, read: fn() -> Clocks) -> Signal {
    let (signals, mut received) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let globs = vec![dir.path().join("*.crt").display().to_string()];
    let watching = tokio::spawn(watch(globs, dir.path().to_owned(), read, signals, stop.clone()));
    let signal = timeout(SOON, received.recv()).await.unwrap().unwrap();
    stop.cancel();
    timeout(SOON, watching).await.unwrap().unwrap();
    signal
}

#[tokio::test]
async fn expired_and_expiring_are_told_and_garbage_is_not() {
    let dir = pki();
    let signal = seen(&dir, right).await;
    assert_eq!(
        told(&signal),
        [
            (ConditionKind::CertificateExpired, "expired.crt".to_owned()),
            (ConditionKind::CertificateExpiring, "expiring.crt".to_owned()),
        ]
    );
    let Signal::Certificates(seen) = signal else {
        panic!()
    };
    assert_eq!(seen.files.len(), 4);
}

#[tokio::test]
async fn a_clock_that_fell_back_makes_no_certificate_young_again() {
    let dir = pki();
    assert!(told(&seen(&dir, reset).await).is_empty());
    fs::write(dir.path().join(FLOOR_FILE), NOW.to_string()).unwrap();
    assert_eq!(told(&seen(&dir, reset).await).len(), 2);
}

#[test]
fn a_renewed_file_is_read_again_and_an_unchanged_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.crt");
    fs::write(&path, certificate(2026, 9)).unwrap();
    let finder = Finder::new(&[path.display().to_string()]).unwrap();
    let mut shelf = Shelf::new(finder);
    let end = |shelf: &mut Shelf| {
        let seen = shelf.look(dir.path(), right());
        seen.files[0].content.clone().unwrap()[0].not_after
    };
    let first = end(&mut shelf);
    assert_eq!(end(&mut shelf), first);
    let aside = dir.path().join("aside");
    fs::write(&aside, certificate(2027, 9)).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(end(&mut shelf) - first, 365 * 24 * 3600);
}

#[tokio::test]
async fn a_certificate_that_expires_is_told_until_its_file_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.crt");
    for (year, month, expected) in [
        (2027, 9, None),
        (2026, 10, Some(ConditionKind::CertificateExpiring)),
        (2026, 9, Some(ConditionKind::CertificateExpired)),
        (2028, 9, None),
    ] {
        fs::write(&path, certificate(year, month)).unwrap();
        let standing = told(&seen(&dir, right).await);
        let kinds: Vec<_> = standing.into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, Vec::from_iter(expected), "until {year}-{month}");
    }
}

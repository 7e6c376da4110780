use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// Where an event is waited for.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn words_of_old_and_new_kubelets_are_understood() {
    for (line, ill) in [
        (
            "E0730 12:00:00.1 812 kubelet.go:2361] \"Skipping pod synchronization\" err=\"PLEG is not healthy: pleg was last seen active \
             3m7.3s ago; threshold is 3m0s\"",
            Some(true),
        ),
        (
            "I0730 12:00:00.1 812 kubelet.go:1823] skipping pod synchronization - [container runtime is down, PLEG is not healthy: pleg was \
             last seen active 5m1s ago; threshold is 3m0s.]",
            Some(true),
        ),
        (
            "\"Skipping pod synchronization\" err=\"[container runtime is down]\"",
            Some(true),
        ),
        (
            "\"Skipping pod synchronization\" err=\"[container runtime status check may not have completed yet, PLEG is not healthy: pleg \
             has yet to be successful]\"",
            Some(false),
        ),
        (
            "skipping pod synchronization - [container runtime is down PLEG is not healthy: pleg was last seen active \
             2562047h47m16.854775807s ago; threshold is 3m0s]",
            Some(false),
        ),
        ("GenericPLEG: container finished", None),
        ("", None),
    ] {
        let found = read(line);
        assert_eq!(
            found
                .as_ref()
                .map(|found| matches!(found, PlegSignal::Unhealthy { .. })),
            ill,
            "{line}"
        );
    }
}

fn program(dir: &Path, text: &str) -> PlegSettings {
    let path = dir.join("journalctl");
    // Written under another name: a program that is open for writing cannot be run.
    let draft = dir.join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, &path).unwrap();
    PlegSettings {
        journalctl: path,
        ..PlegSettings::default()
    }
}

async fn looked(text: &str) -> io::Result<PlegSignal> {
    let dir = tempfile::tempdir().unwrap();
    let settings = program(dir.path(), text);
    timeout(SOON, look(&settings, "kubelet.service", SOON))
        .await
        .unwrap()
}

#[tokio::test]
async fn the_newest_message_counts_and_the_rest_is_not_read() {
    // One that writes for ever, so that only an early end ends it.
    let found = looked("echo quiet; echo 'PLEG is not healthy: 4m'; while :; do echo older; done").await;
    let message = "PLEG is not healthy: 4m".to_owned();
    assert_eq!(found.unwrap(), PlegSignal::Unhealthy { message });
}

#[tokio::test]
async fn it_is_asked_for_the_kubelet_s_unit_and_no_further_back() {
    let found = looked("echo \"PLEG is not healthy $*\"").await.unwrap();
    let PlegSignal::Unhealthy { message } = found else {
        panic!("{found:?}")
    };
    assert!(
        message.ends_with("--unit=kubelet.service --since=-20s"),
        "{message}"
    );
}

#[tokio::test]
async fn a_journal_without_the_message_is_quiet_and_one_that_cannot_be_read_is_not() {
    // A pipe full of complaints does not stop it.
    let chatty = "i=0; while [ $i -lt 3000 ]; do echo 'a complaint of some length, on standard error' >&2; i=$((i+1)); done; echo all is well";
    assert_eq!(looked(chatty).await.unwrap(), PlegSignal::Quiet);
    let denied = looked("echo 'No journal files were opened due to insufficient permissions.' >&2").await;
    assert!(denied.unwrap_err().to_string().contains("permissions"));
    assert!(looked("exit 1").await.is_err());
    let missing = PlegSettings {
        journalctl: "/nonexistent/journalctl".into(),
        ..PlegSettings::default()
    };
    assert!(look(&missing, "kubelet.service", SOON).await.is_err());
}

#[tokio::test]
async fn one_that_hangs_is_unobservable_and_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let settings = PlegSettings {
        interval: Duration::from_millis(50),
        deadline: Duration::from_millis(50),
        ..program(dir.path(), "exec sleep 1000")
    };
    let (sender, mut signals) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch("kubelet.service".into(), settings, sender, stop.clone()));
    for _ in 0..2 {
        let signal = timeout(SOON, signals.recv()).await.unwrap().unwrap();
        assert!(
            matches!(signal, Signal::Pleg(PlegSignal::Unobservable { .. })),
            "{signal:?}"
        );
    }
    stop.cancel();
    timeout(SOON, watching).await.unwrap().unwrap();
}

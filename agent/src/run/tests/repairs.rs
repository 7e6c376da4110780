//! What the agent does by itself.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::machine::{DOCKER, KUBELET, Machine, Running, node, order, release, written};
use crate::condition::ConditionKind;
use crate::config::DiskSettings;
use crate::decide::history::REFILL;
use crate::gate::{self, GateState};
use crate::host::UnitAction::{KillMain, ResetFailed, Restart};
use crate::ledger::{Intent, Outcome};
use crate::order::OrderStatus;
use crate::signal::{ActiveState, DiskSignal};

#[tokio::test(start_paused = true)]
async fn a_unit_that_dies_is_restarted_and_the_ledger_says_why() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    agent.sees(|picture| picture.attestation.kubelet_healthy).await;
    machine.set(KUBELET, ActiveState::Failed);
    let records = agent
        .records(|records| records.iter().any(|record| record.outcome.is_some()))
        .await;
    assert_eq!(machine.asked(KUBELET), [ResetFailed, Restart]);
    assert_eq!(records.len(), 1);
    assert!(matches!(&records[0].outcome, Some(Outcome::Succeeded { detail }) if detail.contains("active")));
    let reason = &records[0].intent.reason;
    assert!(
        reason.starts_with("UnitFailed") && reason.ends_with("attempt 1 of 5"),
        "{reason}"
    );
    let seen = agent
        .sees(|picture| picture.conditions.is_empty() && picture.attestation.kubelet_healthy)
        .await;
    assert!(seen.attestation.kubelet_active);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_spent_ladder_is_told_and_left_alone_until_somebody_mends_the_unit() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    machine.heals(false);
    let mut agent = Running::start(&settings, &machine).await;
    machine.set(DOCKER, ActiveState::Failed);
    let told = agent.stands(ConditionKind::RemedyExhausted, DOCKER).await;
    assert!(told.escalated);
    assert!(
        told.evidence.contains("its job ended with failed"),
        "{}",
        told.evidence
    );
    assert!(agent.stands(ConditionKind::UnitFailed, DOCKER).await.escalated);
    let restart = [ResetFailed, Restart];
    // Its shims keep the containers.
    let kill = [KillMain, ResetFailed, Restart];
    let all = [&restart[..], &restart, &restart, &kill, &kill].concat();
    assert_eq!(machine.asked(DOCKER), all);
    agent.wait(Duration::from_hours(1)).await;
    assert_eq!(machine.asked(DOCKER), all);

    machine.heals(true);
    machine.set(DOCKER, ActiveState::Active);
    agent.sees(|picture| picture.conditions.is_empty()).await;
    agent
        .records(|records| records.iter().any(|record| record.intent.remedy == REFILL))
        .await;
    machine.set(DOCKER, ActiveState::Failed);
    agent.sees(|picture| !picture.conditions.is_empty()).await;
    agent.sees(|picture| picture.conditions.is_empty()).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn agents_that_die_in_the_middle_share_one_budget() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    machine.heals(false);
    machine.set(DOCKER, ActiveState::Failed);
    for attempts in 1..5 {
        let agent = Running::start(&settings, &machine).await;
        agent.records(|records| records.len() >= attempts).await;
        agent.crash().await;
    }
    let mut last = Running::start(&settings, &machine).await;
    last.stands(ConditionKind::RemedyExhausted, DOCKER).await;
    last.records(|records| records.iter().all(|record| record.outcome.is_some()))
        .await;
    last.stop().await;
    let count = |name: &str| {
        written(&settings)
            .iter()
            .filter(|record| record.intent.remedy == name)
            .count()
    };
    assert_eq!((count("restart-unit"), count("kill-restart-unit")), (3, 2));
    let restarts = machine
        .asked(DOCKER)
        .iter()
        .filter(|asked| **asked == Restart)
        .count();
    assert!(restarts <= 5, "{restarts}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_counts_only_if_the_unit_lives_on_and_its_job_ends() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let agent = Running::start(&settings, &machine).await;
    let ended = async |count: usize| {
        let records = agent
            .records(|records| records.len() >= count && records[count - 1].outcome.is_some())
            .await;
        match &records[count - 1].outcome {
            Some(Outcome::Failed { detail }) => detail.clone(),
            other => panic!("{other:?}"),
        }
    };
    machine.set(DOCKER, ActiveState::Failed);
    agent.records(|_| machine.asked(DOCKER).contains(&Restart)).await;
    machine.hangs(true);
    machine.set(DOCKER, ActiveState::Failed);
    let died = ended(1).await;
    assert!(died.contains("active after the restart, and within"), "{died}");
    let hung = ended(2).await;
    assert!(
        hung.contains("restart docker.service: not done within 90s"),
        "{hung}"
    );
    agent.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_records_and_changes_nothing() {
    let (_dir, mut settings) = node();
    settings.dry_run = true;
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    machine.set(DOCKER, ActiveState::Failed);
    agent.stands(ConditionKind::RemedyExhausted, DOCKER).await;
    agent.wait(Duration::from_mins(5)).await;
    agent.stop().await;
    assert_eq!(machine.asked(DOCKER), []);
    let records = written(&settings);
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|record| record.intent.dry_run));
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_the_gate_holds_is_not_touched_until_it_is_released() {
    let (dir, settings) = node();
    let machine = Machine::new();
    // An agent was here; then the power went.
    Running::start(&settings, &machine).await.crash().await;
    fs::remove_dir_all(dir.path().join("run")).unwrap();
    machine.set(KUBELET, ActiveState::Failed);
    machine.set(DOCKER, ActiveState::Failed);

    let mut agent = Running::start(&settings, &machine).await;
    let (held, stop) = (settings.clone(), CancellationToken::new());
    let gate = tokio::spawn(async move { gate::hold(&held, stop).await.unwrap() });
    let seen = agent
        .sees(|picture| picture.attestation.gate == GateState::Held)
        .await;
    assert!(!seen.attestation.waiting_on.is_empty());
    let before = machine.asked(KUBELET);
    machine.set(KUBELET, ActiveState::Active);
    machine.set(KUBELET, ActiveState::Failed);
    agent.wait(Duration::from_secs(30)).await;
    assert_eq!(machine.asked(KUBELET), before);
    assert_eq!(machine.asked(DOCKER), [ResetFailed, Restart]);

    let answer = agent.order(order("run-1/1", 1, release())).await;
    assert_eq!(answer.status, OrderStatus::Done, "{}", answer.detail);
    assert_eq!(gate.await.unwrap(), GateState::Released);
    agent
        .sees(|picture| picture.attestation.gate == GateState::Released && picture.attestation.kubelet_active)
        .await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_fills_its_disk_gives_its_head_back() {
    let (dir, mut settings) = node();
    let path = fs::canonicalize(dir.path()).unwrap().join("app.log");
    fs::write(&path, vec![b'x'; 4 << 20]).unwrap();
    let _writer = OpenOptions::new().append(true).open(&path).unwrap();
    settings.logs.globs = vec![format!("{}/*.log", path.parent().unwrap().display())];
    settings.logs.keep_tail = 1 << 20;
    settings.logs.min_size = 1 << 20;
    settings.disks = vec![DiskSettings::at(path.parent().unwrap())];
    let machine = Machine::new();
    machine.fill(Some(DiskSignal {
        mount_point: settings.disks[0].mount_point.clone(),
        bytes_total: 64 << 20,
        bytes_available: 1 << 20,
        inodes_total: 0,
        inodes_free: 0,
        time_to_full: None,
    }));
    let agent = Running::start(&settings, &machine).await;
    let records = agent
        .records(|records| records.iter().any(|record| record.outcome.is_some()))
        .await;
    assert_eq!(records[0].intent.remedy, "reclaim-log");
    assert!(
        matches!(&records[0].outcome, Some(Outcome::Succeeded { detail }) if detail.contains("freed 3.0 MiB")),
        "{records:?}"
    );
    assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 1 << 20);
    agent.wait(Duration::from_secs(20)).await;
    agent.stop().await;
    assert_eq!(written(&settings).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_ledger_units_wait_and_the_agent_says_so() {
    let (dir, settings) = node();
    fs::create_dir(&settings.state_dir).unwrap();
    let Some(_small) = Small::mount(&settings.state_dir) else {
        return;
    };
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    agent.sees(|picture| picture.attestation.kubelet_healthy).await;
    let filler = settings.state_dir.join("filler");
    fs::write(&filler, vec![0; 16 << 20]).unwrap_err();
    let intent = |length: usize| Intent {
        remedy: "filler".to_owned(),
        subject: String::new(),
        reason: "x".repeat(length),
        command_id: None,
        dry_run: false,
    };
    for length in [900, 0] {
        let full = (0..10_000).any(|_| agent.ledger.lock().intent(intent(length)).is_err());
        assert!(full);
    }

    machine.set(DOCKER, ActiveState::Failed);
    let ledger = settings.ledger().display().to_string();
    let told = agent.stands(ConditionKind::LedgerUnwritable, &ledger).await;
    assert!(told.evidence.contains("not restarted"), "{}", told.evidence);
    agent.wait(Duration::from_secs(30)).await;
    assert_eq!(machine.asked(DOCKER), []);

    fs::remove_file(&filler).unwrap();
    agent.sees(|picture| picture.conditions.is_empty()).await;
    assert_eq!(machine.asked(DOCKER), [ResetFailed, Restart]);
    agent.stop().await;
    drop(dir);
}

/// A file system of a megabyte; unmounted whatever happens.
struct Small<'a>(&'a std::path::Path);

impl<'a> Small<'a> {
    fn mount(at: &'a std::path::Path) -> Option<Self> {
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("none"), at, Some("tmpfs"), flags, Some("size=1m")) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                assert!(
                    !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                    "mount a tmpfs: {error}"
                );
                println!("SKIPPED: mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

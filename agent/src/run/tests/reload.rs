//! New settings while the agent runs.

use std::time::Duration;

use super::machine::{DOCKER, KUBELET, Machine, Running, node};
use crate::condition::ConditionKind;
use crate::config::DiskSettings;
use crate::host::UnitAction;
use crate::signal::{ActiveState, DiskSignal};

#[tokio::test(start_paused = true)]
async fn what_stands_goes_on_and_new_thresholds_count_from_now_on() {
    let (_dir, mut settings) = node();
    settings.disks = vec![DiskSettings::at("/var")];
    let machine = Machine::new();
    machine.heals(false);
    machine.fill(Some(DiskSignal {
        mount_point: "/var".into(),
        bytes_total: 100,
        bytes_available: 40,
        inodes_total: 0,
        inodes_free: 0,
        time_to_full: None,
    }));
    let mut agent = Running::start(&settings, &machine).await;
    machine.set(DOCKER, ActiveState::Failed);
    let before = agent.stands(ConditionKind::RemedyExhausted, DOCKER).await;
    let tried = machine.asked(DOCKER).len();

    settings.disks[0].raise_percent = 50;
    settings.disks[0].clear_percent = 40;
    settings.kubelet.interval = Duration::from_secs(1);
    assert_eq!(*agent.reload(&settings), settings);
    agent.stands(ConditionKind::DiskPressure, "/var").await;
    let after = agent.stands(ConditionKind::RemedyExhausted, DOCKER).await;
    assert_eq!(after.since, before.since);
    assert_eq!(machine.asked(DOCKER).len(), tried);
    agent.sees(|picture| picture.attestation.kubelet_healthy).await;

    // A larger budget is one that has room.
    settings.restart.restarts += 1;
    agent.reload(&settings);
    agent.records(|_| machine.asked(DOCKER).len() > tried).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_no_longer_named_is_left_alone_and_a_new_one_is_taken_up() {
    let (_dir, mut settings) = node();
    let machine = Machine::new();
    settings.units = vec![KUBELET.into()];
    let mut agent = Running::start(&settings, &machine).await;
    agent.sees(|picture| picture.units.len() == 1).await;
    machine.set(DOCKER, ActiveState::Failed);
    agent.wait(Duration::from_mins(1)).await;
    assert!(machine.asked(DOCKER).is_empty());

    settings.units = vec![KUBELET.into(), DOCKER.into()];
    agent.reload(&settings);
    agent.records(|records| records.len() == 1).await;
    agent.sees(|picture| picture.units.len() == 2).await;

    settings.units = vec![KUBELET.into()];
    agent.reload(&settings);
    agent.sees(|picture| picture.units.len() == 1).await;
    machine.set(DOCKER, ActiveState::Failed);
    agent.wait(Duration::from_mins(1)).await;
    let restarts = machine.asked(DOCKER);
    let restarts = restarts.iter().filter(|asked| **asked == UnitAction::Restart);
    assert_eq!(restarts.count(), 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_restart_is_refused_whole() {
    let (_dir, settings) = node();
    let agent = Running::start(&settings, &Machine::new()).await;
    let mut other = settings.clone();
    other.node = "node-2".to_owned();
    other.restart.restarts = 9;
    assert_eq!(*agent.reload(&other), settings);
    agent.stop().await;
}

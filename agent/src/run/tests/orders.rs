//! What the coordinator asks for.

use std::time::Duration;

use tokio::time::Instant;

use super::machine::{DOCKER, KUBELET, Machine, Running, node, order, release, restart, written};
use crate::brakes::{Held, Hold, Scope};
use crate::host::UnitAction::{ResetFailed, Restart, Stop};
use crate::ledger::{Intent, Ledger, Outcome};
use crate::order::{Order, OrderStatus};
use crate::remedy::Remedy;
use crate::signal::ActiveState;

#[tokio::test(start_paused = true)]
async fn a_lower_epoch_than_one_obeyed_is_refused_also_by_the_next_agent() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    assert_eq!(
        agent.order(order("a/1", 7, restart(DOCKER))).await.status,
        OrderStatus::Done
    );
    let refused = agent.order(order("b/1", 6, restart(DOCKER))).await;
    assert_eq!(refused.status, OrderStatus::RefusedEpoch);
    assert!(refused.detail.contains('7'), "{}", refused.detail);
    agent.crash().await;
    let mut next = Running::start(&settings, &machine).await;
    assert_eq!(
        next.order(order("b/1", 6, restart(DOCKER))).await.status,
        OrderStatus::RefusedEpoch
    );
    assert_eq!(machine.asked(DOCKER), [ResetFailed, Restart]);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_is_answered_and_not_done_again() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let first = agent.order(order("a/1", 1, restart(DOCKER))).await;
    assert_eq!(agent.order(order("a/1", 2, restart(DOCKER))).await, first);
    agent.crash().await;
    let mut next = Running::start(&settings, &machine).await;
    // Late as well: it was done, and that is the answer.
    let late = Order {
        expires_at: Instant::now(),
        ..order("a/1", 2, restart(DOCKER))
    };
    assert_eq!(next.order(late).await, first);
    assert_eq!(machine.asked(DOCKER), [ResetFailed, Restart]);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_or_is_not_allowed_is_refused_and_leaves_no_record() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let expired = Order {
        expires_at: Instant::now(),
        ..order("a/1", 1, restart(DOCKER))
    };
    let kill = Remedy::KillRestartUnit {
        unit: DOCKER.to_owned(),
    };
    for refused in [
        expired,
        order("a/2", 1, restart("sshd.service")),
        order("a/3", 1, kill),
    ] {
        let answer = agent.order(refused).await;
        assert_eq!(answer.status, OrderStatus::Refused, "{}", answer.detail);
    }
    assert_eq!(machine.asked(DOCKER), []);
    agent.stop().await;
    assert!(written(&settings).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_the_remedy_that_runs_and_expires_if_that_lasts() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    machine.set(DOCKER, ActiveState::Failed);
    agent.records(|records| records.len() == 1).await;
    // The agent's own restart is verified for a second more.
    let soon = Order {
        expires_at: Instant::now() + Duration::from_millis(200),
        ..order("a/1", 1, restart(DOCKER))
    };
    assert_eq!(agent.order(soon).await.status, OrderStatus::Refused);
    assert_eq!(
        agent.order(order("a/2", 1, restart(DOCKER))).await.status,
        OrderStatus::Done
    );
    assert_eq!(
        machine.asked(DOCKER),
        [ResetFailed, Restart, ResetFailed, Restart]
    );
    agent.stop().await;
}

/// A ledger with a command that an agent began and did not live to finish.
fn interrupted(settings: &crate::config::Settings, remedy: &Remedy) {
    let (mut ledger, _) = Ledger::open(&settings.ledger(), "an earlier boot").unwrap();
    ledger.obey_epoch(3).unwrap();
    let intent = Intent {
        remedy: remedy.name().to_owned(),
        subject: remedy.subject(),
        reason: "the plan says so".to_owned(),
        command_id: Some("a/1".to_owned()),
        dry_run: false,
    };
    ledger.intent(intent).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_a_crash_interrupted_is_looked_into_and_not_repeated() {
    for (state, status) in [
        (ActiveState::Active, OrderStatus::Done),
        (ActiveState::Inactive, OrderStatus::Failed),
    ] {
        let (_dir, settings) = node();
        interrupted(&settings, &restart(DOCKER));
        let machine = Machine::new();
        machine.set(DOCKER, state);
        let mut agent = Running::start(&settings, &machine).await;
        let answer = agent.order(order("a/1", 3, restart(DOCKER))).await;
        assert_eq!(answer.status, status, "{}", answer.detail);
        assert_eq!(machine.asked(DOCKER), []);
        agent.stop().await;
        assert!(written(&settings)[0].outcome.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_a_crash_interrupted_is_made_when_it_is_asked_for_again() {
    let (_dir, settings) = node();
    interrupted(&settings, &release());
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    agent.sees(|picture| picture.attestation.kubelet_healthy).await;
    assert_eq!(written(&settings)[0].outcome, None);
    let answer = agent.order(order("a/1", 3, release())).await;
    assert_eq!(answer.status, OrderStatus::Done, "{}", answer.detail);
    agent.stop().await;
    let records = written(&settings);
    assert_eq!(records.len(), 1);
    assert!(matches!(records[0].outcome, Some(Outcome::Succeeded { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_obeys_nobody() {
    let (_dir, mut settings) = node();
    settings.dry_run = true;
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    for (id, remedy) in [("a/1", release()), ("a/2", restart(KUBELET))] {
        let answer = agent.order(order(id, 1, remedy)).await;
        assert_eq!(answer.status, OrderStatus::Refused);
        assert!(answer.detail.contains("runs dry"), "{}", answer.detail);
    }
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_is_stopped_and_started_by_the_coordinators_word_while_its_node_is_silenced() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let silence = Hold {
        scope: Scope::Local,
        what: Held::Silence,
        by: "drain-1".into(),
        reason: "new memory".into(),
        until: None,
    };
    agent.brakes.hold(&silence).unwrap();
    let run = || "maintenance-begin-1".to_owned();
    let stop = Remedy::StopKubelet { run_id: run() };
    let stopped = agent.order(order("a/1", 1, stop.clone())).await;
    assert_eq!(stopped.status, OrderStatus::Done, "{}", stopped.detail);
    agent.sees(|picture| !picture.attestation.kubelet_active).await;
    // Stopped it stays: the silence keeps the agent's own remedies from starting it.
    agent.wait(Duration::from_hours(1)).await;
    assert_eq!(agent.order(order("a/2", 1, stop)).await.status, OrderStatus::Done);
    assert_eq!(machine.asked(KUBELET), [Stop]);
    let start = Remedy::StartKubelet { run_id: run() };
    for id in ["a/3", "a/4"] {
        let started = agent.order(order(id, 1, start.clone())).await;
        assert_eq!(started.status, OrderStatus::Done, "{}", started.detail);
    }
    // One that runs is not restarted.
    assert_eq!(machine.asked(KUBELET), [Stop, ResetFailed, Restart]);
    agent.stop().await;
}

//! What keeps the agent from acting: holds, silence, freezes, the protect list.

use std::time::Duration;

use blackstart_proto::remedy::RemedyKind;
use tokio::time::Instant;

use super::machine::{DOCKER, KUBELET, Machine, Running, node, order, release, restart};
use crate::brakes::{Freeze, Held, Hold, Scope, Word};
use crate::condition::ConditionKind;
use crate::decide::WaitingOn;
use crate::host::UnitAction::{ResetFailed, Restart};
use crate::order::OrderStatus;
use crate::picture::Picture;
use crate::signal::ActiveState;

fn hold(what: Held, until: Option<Instant>) -> Hold {
    Hold {
        scope: Scope::Local,
        what,
        by: "ann".into(),
        reason: "new kubelet".into(),
        until,
    }
}

/// What is told that the failed kubelet waits for.
async fn waits(agent: &mut Running, on: impl Fn(&WaitingOn) -> bool) -> std::sync::Arc<Picture> {
    let waits = |picture: &Picture| {
        picture
            .waiting
            .iter()
            .any(|waiting| waiting.subject == KUBELET && on(&waiting.on))
    };
    agent.sees(|picture| waits(picture)).await
}

#[tokio::test(start_paused = true)]
async fn a_held_unit_stays_dead_over_a_crash_of_the_agent_until_the_hold_is_lifted() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let what = Held::Remedy(RemedyKind::RestartUnit);
    agent.brakes.hold(&hold(what, None)).unwrap();
    machine.set(KUBELET, ActiveState::Failed);
    waits(
        &mut agent,
        |on| matches!(on, WaitingOn::Held { by, .. } if by == "ann"),
    )
    .await;
    let refused = agent.order(order("a/1", 1, restart(KUBELET))).await;
    assert_eq!(refused.status, OrderStatus::Refused);
    assert!(refused.detail.contains("ann: new kubelet"), "{}", refused.detail);
    agent.crash().await;

    let mut agent = Running::start(&settings, &machine).await;
    waits(&mut agent, |on| matches!(on, WaitingOn::Held { .. })).await;
    agent.wait(Duration::from_hours(1)).await;
    assert_eq!(machine.asked(KUBELET), []);
    assert!(agent.brakes.lift(what).unwrap().is_some());
    agent
        .sees(|picture| picture.conditions.is_empty() && picture.waiting.is_empty())
        .await;
    assert_eq!(machine.asked(KUBELET), [ResetFailed, Restart]);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_by_itself_and_silence_keeps_everything_but_a_release() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let until = Instant::now() + Duration::from_mins(5);
    agent.brakes.hold(&hold(Held::Silence, Some(until))).unwrap();
    machine.set(KUBELET, ActiveState::Failed);
    machine.set(DOCKER, ActiveState::Failed);
    let seen = waits(&mut agent, |on| matches!(on, WaitingOn::Silenced { .. })).await;
    assert!(seen.brakes.silence(Instant::now()).is_some());
    assert_eq!(
        agent.order(order("a/1", 1, release())).await.status,
        OrderStatus::Done
    );
    let seen = agent
        .sees(|picture| picture.conditions.is_empty() && picture.waiting.is_empty())
        .await;
    assert!(Instant::now() >= until);
    assert!(seen.brakes.holds.is_empty());
    assert_eq!(machine.asked(KUBELET), [ResetFailed, Restart]);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_is_not_renewed_ends_and_one_of_an_old_epoch_is_refused() {
    let (_dir, settings) = node();
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    let frozen = |epoch| Word {
        epoch,
        holds: Vec::new(),
        freezes: vec![Freeze {
            kind: ConditionKind::UnitFailed,
            why: "3 of 4 nodes".into(),
            until: Instant::now() + Duration::from_mins(1),
        }],
    };
    agent.brakes.told(frozen(4), 5);
    assert!(agent.brakes.standing(Instant::now()).freezes.is_empty());
    agent.brakes.told(frozen(5), 5);
    machine.set(KUBELET, ActiveState::Failed);
    waits(&mut agent, |on| matches!(on, WaitingOn::Frozen { .. })).await;
    agent.wait(Duration::from_secs(30)).await;
    agent.brakes.told(frozen(5), 5);
    agent.wait(Duration::from_secs(45)).await;
    assert_eq!(machine.asked(KUBELET), []);
    // An order is an operator's or a run's, who know of the storm.
    assert_eq!(
        agent.order(order("a/1", 5, restart(DOCKER))).await.status,
        OrderStatus::Done
    );
    agent
        .sees(|picture| picture.conditions.is_empty() && picture.waiting.is_empty())
        .await;
    assert_eq!(machine.asked(KUBELET), [ResetFailed, Restart]);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_to_what_is_protected_by_whoever_asks() {
    let (_dir, mut settings) = node();
    settings.protect.units = vec!["kube*".to_owned()];
    let machine = Machine::new();
    let mut agent = Running::start(&settings, &machine).await;
    machine.set(KUBELET, ActiveState::Failed);
    waits(
        &mut agent,
        |on| matches!(on, WaitingOn::Protected { by } if by.contains("kube*")),
    )
    .await;
    let refused = agent.order(order("a/1", 1, restart(KUBELET))).await;
    assert_eq!(refused.status, OrderStatus::Refused);
    assert!(
        refused.detail.contains("protect.units: kube*"),
        "{}",
        refused.detail
    );
    agent.wait(Duration::from_hours(1)).await;
    assert_eq!(machine.asked(KUBELET), []);
    agent.stop().await;
}

//! Permits as agents and operators see them.

use std::time::Duration;

use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::{
    ApiServerError, GateState, ListPermitsRequest, PermitAnswer, PermitDetail, PermitKind, PermitOutcome,
    PermitRequest, PermitReturn, PermitVerdict, ReleasePermitRequest, WatchEventsRequest,
};
use tokio::time::sleep;
use tonic::Code;

use crate::support::{Agent, World, within};

/// Three masters.
pub(crate) const MASTERS: &str = "\
clusters:
  - name: biz
    nodes:
      - {name: biz-1, address: 10.0.0.1, role: control-plane}
      - {name: biz-2, address: 10.0.0.2, role: control-plane}
      - {name: biz-3, address: 10.0.0.3, role: control-plane}
";

async fn asks(agent: &Agent, id: &str) {
    let request = PermitRequest {
        request_id: id.to_owned(),
        kind: PermitKind::RuntimeRestart.into(),
        subject: "docker.service".to_owned(),
        reason: "it hangs".to_owned(),
    };
    agent.say(Body::PermitRequest(request)).await;
}

async fn returns(agent: &Agent, id: &str) {
    let over = PermitReturn {
        request_id: id.to_owned(),
        outcome: PermitOutcome::Succeeded.into(),
        detail: "it answers".to_owned(),
    };
    agent.say(Body::PermitReturn(over)).await;
}

/// Everybody reports that all is well, until the first is told this of a request.
async fn told(agents: &mut [Agent], at: usize, id: &str, verdict: PermitVerdict) -> PermitAnswer {
    within(&format!("{id} to be {verdict:?}"), async {
        loop {
            for agent in &mut *agents {
                agent.reports(GateState::Passed, true).await;
            }
            let answers = std::mem::take(&mut agents[at].permits);
            let found = answers
                .into_iter()
                .find(|answer| answer.request_id == id && answer.verdict() == verdict);
            if let Some(found) = found {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn permits(world: &World) -> Vec<PermitDetail> {
    let mut operator = world.operator().await;
    let listed = operator.list_permits(ListPermitsRequest::default()).await;
    listed.unwrap().into_inner().permits
}

async fn agents(world: &World) -> [Agent; 3] {
    let mut agents = [
        world.agent("biz-1", "a").await,
        world.agent("biz-2", "a").await,
        world.agent("biz-3", "a").await,
    ];
    for agent in &mut agents {
        agent.reports(GateState::Passed, true).await;
    }
    agents
}

#[tokio::test]
async fn masters_go_one_after_the_other_also_over_a_restart_of_the_coordinator() {
    let mut world = World::of(MASTERS, |_| {}).await;
    let mut fleet = agents(&world).await;
    asks(&fleet[0], "one").await;
    let granted = told(&mut fleet, 0, "one", PermitVerdict::Granted).await;
    assert!(granted.epoch > 0 && granted.begin_within_ms > 0);
    asks(&fleet[1], "two").await;
    let waits = told(&mut fleet, 1, "two", PermitVerdict::Wait).await;
    assert!(
        waits.reason.starts_with("biz-1, which has the lane"),
        "{}",
        waits.reason
    );
    // The same again is the same.
    asks(&fleet[0], "one").await;
    told(&mut fleet, 0, "one", PermitVerdict::Granted).await;
    let listed = permits(&world).await;
    let rows: Vec<_> = listed
        .iter()
        .map(|permit| (permit.node.as_str(), permit.granted, permit.lane.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("biz-1", true, "control-plane"),
            ("biz-2", false, "control-plane")
        ]
    );
    drop(fleet);
    world.stop().await;

    world.start(|_| {}).await;
    let mut fleet = agents(&world).await;
    asks(&fleet[1], "two").await;
    let waits = told(&mut fleet, 1, "two", PermitVerdict::Wait).await;
    assert!(waits.reason.contains("biz-1"), "{}", waits.reason);
    asks(&fleet[0], "one").await;
    let again = told(&mut fleet, 0, "one", PermitVerdict::Granted).await;
    assert!(again.epoch > granted.epoch, "by the epoch of whoever answers");
    returns(&fleet[0], "one").await;
    told(&mut fleet, 0, "one", PermitVerdict::Returned).await;
    told(&mut fleet, 1, "two", PermitVerdict::Granted).await;
    // What is over is not granted by a late repetition.
    asks(&fleet[0], "one").await;
    told(&mut fleet, 0, "one", PermitVerdict::Refused).await;
    assert_eq!(permits(&world).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn no_master_goes_while_another_is_down_and_the_one_that_is_down_may() {
    let mut world = World::of(MASTERS, |_| {}).await;
    let mut fleet = agents(&world).await;
    let mut report = fleet[2].report_of(GateState::Passed, false);
    if let Some(attestation) = &mut report.attestation {
        attestation.apiserver_error = ApiServerError::Refused.into();
    }
    fleet[2].say(Body::Report(report)).await;
    asks(&fleet[0], "one").await;
    let [first, second, third] = &mut fleet;
    let others = std::slice::from_mut(first);
    let waits = told(others, 0, "one", PermitVerdict::Wait).await;
    assert!(waits.reason.starts_with("others to be up"), "{}", waits.reason);
    asks(third, "three").await;
    within("the one that is down", async {
        loop {
            if let blackstart_proto::v1::coordinator_message::Body::PermitAnswer(answer) =
                third.told().await.unwrap()
                && answer.verdict() == PermitVerdict::Granted
            {
                return;
            }
            second.reports(GateState::Passed, true).await;
        }
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn an_operator_takes_a_permit_back_and_the_next_has_its_turn() {
    let mut world = World::of(MASTERS, |_| {}).await;
    let mut fleet = agents(&world).await;
    asks(&fleet[0], "one").await;
    told(&mut fleet, 0, "one", PermitVerdict::Granted).await;
    asks(&fleet[1], "two").await;
    told(&mut fleet, 1, "two", PermitVerdict::Wait).await;
    let mut operator = world.operator().await;
    let ask = |node: &str, reason: &str| ReleasePermitRequest {
        node: node.to_owned(),
        reason: reason.to_owned(),
    };
    for (wrong, code) in [
        (ask("biz-1", " "), Code::InvalidArgument),
        (ask("nobody", "it is broken"), Code::NotFound),
        (ask("biz-3", "it has none"), Code::NotFound),
    ] {
        assert_eq!(operator.release_permit(wrong).await.unwrap_err().code(), code);
    }
    let released = operator.release_permit(ask("biz-1", "it is broken")).await;
    assert_eq!(released.unwrap().into_inner().permits.len(), 1);
    let taken = told(&mut fleet, 0, "one", PermitVerdict::Refused).await;
    assert!(taken.reason.contains("taken back"), "{}", taken.reason);
    told(&mut fleet, 1, "two", PermitVerdict::Granted).await;
    let follow = WatchEventsRequest {
        follow: false,
        node: "biz-1".to_owned(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    let mut audit = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        if event.kind == "PermitEnded" {
            audit.push(event.message);
        }
    }
    assert!(
        audit
            .iter()
            .any(|message| message.contains("operator ann: it is broken")),
        "{audit:?}"
    );
    world.stop().await;
}

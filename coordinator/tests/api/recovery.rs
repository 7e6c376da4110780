//! From a power event to a fleet that is back, and what operators have to say in it.

use std::time::Duration;

use blackstart_coordinator::policy::Trigger;
use blackstart_proto::v1::command::Action;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{
    ColdStartRequest, Command, Event, GateState, GetRunRequest, HoldScope, ListRunsRequest,
    RunControlRequest, RunDetail, RunState, RunSummary, SetHoldRequest, StepState, WatchEventsRequest,
};
use tokio::time::interval;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::support::{Agent, Answered, NODES, World, within};

type Operator = FleetServiceClient<Channel>;

/// Reports as a held node does, until `enough` of an answer.
async fn held_until(agent: &mut Agent, what: &str, mut enough: impl FnMut(&Answered) -> bool) -> Answered {
    let mut reports = interval(Duration::from_millis(20));
    within(what, async {
        loop {
            reports.tick().await;
            let answered = agent.reports(GateState::Held, false).await;
            if enough(&answered) {
                return answered;
            }
        }
    })
    .await
}

/// The node is held, and is told that somebody is working on it; nobody lets it go meanwhile.
async fn waits(agent: &mut Agent) -> String {
    let answered = held_until(agent, "a hold", |answered| {
        assert_eq!(answered.commands, [], "it was not its turn");
        answered.hold
    })
    .await;
    answered.waiting_on
}

/// The node is let go, does it, and is healthy.
async fn is_released(agent: &mut Agent) -> Command {
    let mut answered = held_until(agent, "a release", |answered| !answered.commands.is_empty()).await;
    let command = answered.commands.remove(0);
    assert!(
        matches!(command.action, Some(Action::ReleaseKubelet(_))),
        "{command:?}"
    );
    assert!(command.epoch > 0);
    agent.answers(&command.command_id).await;
    agent.reports(GateState::Released, true).await;
    command
}

/// The whole fleet was ready in boot `a`, and lost its power.
async fn power_loss(world: &World) {
    let mut agents = Vec::new();
    for name in NODES {
        let mut agent = world.agent(name, "a").await;
        agent.reports(GateState::Passed, true).await;
        agents.push(agent);
    }
    let mut operator = world.operator().await;
    let follow = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    drop(agents);
    let mut lost = 0;
    within("three losses", async {
        while lost < NODES.len() {
            let event = events.message().await.unwrap().unwrap();
            lost += usize::from(event.kind == "SessionLost");
        }
    })
    .await;
}

async fn runs(operator: &mut Operator) -> Vec<RunSummary> {
    operator
        .list_runs(ListRunsRequest {})
        .await
        .unwrap()
        .into_inner()
        .runs
}

/// Follows the run until it ends.
async fn end_of(operator: &mut Operator, id: &str) -> RunDetail {
    let id = id.to_owned();
    let mut run = operator
        .watch_run(GetRunRequest { id })
        .await
        .unwrap()
        .into_inner();
    within("the run's end", async {
        let mut last = None;
        while let Some(detail) = run.message().await.unwrap() {
            last = Some(detail);
        }
        last.unwrap()
    })
    .await
}

#[tokio::test]
async fn after_a_power_loss_masters_are_let_go_first_and_then_the_workers() {
    let world = World::new().await;
    power_loss(&world).await;

    // The workers are the quicker ones, and wait.
    let mut workers = [world.agent("biz-2", "b").await, world.agent("biz-3", "b").await];
    for worker in &mut workers {
        let waiting_on = waits(worker).await;
        assert!(waiting_on.contains("biz"), "it says what for: {waiting_on}");
    }
    let mut master = world.agent("biz-1", "b").await;
    let first = is_released(&mut master).await;
    let mut commands = Vec::new();
    for worker in &mut workers {
        commands.push(is_released(worker).await.command_id);
    }
    assert!(!commands.contains(&first.command_id));

    let mut operator = world.operator().await;
    let begun = runs(&mut operator).await;
    assert_eq!(begun.len(), 1, "{begun:?}");
    let ended = end_of(&mut operator, &begun[0].id).await;
    let summary = ended.summary.unwrap();
    assert_eq!((summary.state(), summary.residue.len()), (RunState::Succeeded, 0));
    assert_eq!(summary.runbook, "cold-start");
    assert!(summary.reason.contains("power event"), "{}", summary.reason);
    assert!(ended.steps.iter().all(|step| step.state() == StepState::Done));
}

#[tokio::test]
async fn a_coordinator_that_restarts_in_the_middle_goes_on_with_the_same_run() {
    let mut world = World::new().await;
    power_loss(&world).await;
    let mut worker = world.agent("biz-2", "b").await;
    waits(&mut worker).await;
    let before = runs(&mut world.operator().await).await;
    world.stop().await;
    assert_eq!(worker.ends().await.code(), Code::Unavailable);
    world.start(|_| {}).await;

    let mut worker = world.agent("biz-2", "b").await;
    waits(&mut worker).await;
    let mut master = world.agent("biz-1", "b").await;
    is_released(&mut master).await;
    is_released(&mut worker).await;
    let mut late = world.agent("biz-3", "b").await;
    is_released(&mut late).await;
    let mut operator = world.operator().await;
    let ended = end_of(&mut operator, &before[0].id).await;
    assert_eq!(ended.summary.unwrap().state(), RunState::Succeeded);
    assert_eq!(runs(&mut operator).await.len(), 1, "nothing was begun twice");
}

/// The next power event that is told of.
async fn proposal(events: &mut Streaming<Event>) -> Event {
    within("the proposal", async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind == "PowerEvent" {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_silenced_node_counts_neither_as_lost_nor_among_the_nodes_of_an_outage() {
    let world = World::with(|settings| settings.cold_start.trigger = Trigger::Propose).await;
    let mut operator = world.operator().await;
    let silence = SetHoldRequest {
        scope: HoldScope::Node.into(),
        target: "biz-3".to_owned(),
        silence: true,
        reason: "new disk".to_owned(),
        ..SetHoldRequest::default()
    };
    operator.set_hold(silence).await.unwrap();
    power_loss(&world).await;
    let follow = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    let mut master = world.agent("biz-1", "b").await;
    master.reports(GateState::Held, false).await;
    let told = proposal(&mut events).await.message;
    assert!(
        told.contains("2 of 2 nodes") && told.contains("biz-2") && !told.contains("biz-3"),
        "{told}"
    );
}

#[tokio::test]
async fn where_it_is_only_proposed_an_operator_begins_it() {
    let world = World::with(|settings| settings.cold_start.trigger = Trigger::Propose).await;
    power_loss(&world).await;
    let mut operator = world.operator().await;
    let follow = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    let mut master = world.agent("biz-1", "b").await;
    let answered = master.reports(GateState::Held, false).await;
    assert!(!answered.hold && answered.commands.is_empty());
    let event = proposal(&mut events).await;
    assert!(
        event.message.contains("blackstart coldstart start --cluster biz"),
        "{}",
        event.message
    );
    assert_eq!(runs(&mut operator).await, []);

    let asked = ColdStartRequest {
        clusters: vec!["biz".to_owned()],
        reason: "seen it".to_owned(),
    };
    let run = operator.start_cold_start(asked).await.unwrap().into_inner();
    assert_eq!(run.reason, "operator ann: seen it");
    is_released(&mut master).await;
}

#[tokio::test]
async fn a_plan_is_shown_in_the_order_in_which_it_would_be_carried_out() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let plan = operator
        .plan_cold_start(ColdStartRequest::default())
        .await
        .unwrap()
        .into_inner();
    let place = |kind: &str, node: &str| {
        let found = plan
            .steps
            .iter()
            .position(|step| step.kind == kind && step.node == node);
        found.unwrap_or_else(|| panic!("no {kind} of {node:?} in {plan:?}"))
    };
    assert!(plan.estimated_ms > 0, "{plan:?}");
    let known = |id: &String| plan.steps.iter().any(|step| step.id == *id);
    assert!(
        !plan.critical_path.is_empty() && plan.critical_path.iter().all(known),
        "{plan:?}"
    );
    let gate = place("control-plane-gate", "");
    assert!(place("release-kubelet", "biz-1") < gate);
    assert!(gate < place("release-kubelet", "biz-2") && gate < place("release-kubelet", "biz-3"));
    assert!(
        plan.steps
            .iter()
            .all(|step| step.cluster == "biz" && !step.description.is_empty())
    );
    assert!(!plan.notes.is_empty());

    let unknown = ColdStartRequest {
        clusters: vec!["bix".to_owned()],
        reason: String::new(),
    };
    let status = operator.plan_cold_start(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(runs(&mut operator).await, [], "a plan does nothing");
}

#[tokio::test]
async fn operators_pause_resume_and_abort() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let run = operator
        .start_cold_start(ColdStartRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(run.reason, "operator ann");
    let second = operator
        .start_cold_start(ColdStartRequest::default())
        .await
        .unwrap_err();
    assert_eq!(second.code(), Code::FailedPrecondition);
    assert!(second.message().contains(&run.id), "{second}");

    let this = || RunControlRequest { id: run.id.clone() };
    assert_eq!(
        operator.pause_run(this()).await.unwrap().into_inner().state(),
        RunState::Paused
    );
    assert_eq!(
        operator.resume_run(this()).await.unwrap().into_inner().state(),
        RunState::Running
    );
    assert_eq!(
        operator.abort_run(this()).await.unwrap().into_inner().state(),
        RunState::Aborted
    );
    let status = operator.resume_run(this()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        end_of(&mut operator, &run.id).await.summary.unwrap().state(),
        RunState::Aborted
    );

    let nothing = RunControlRequest {
        id: "cold-start-99".to_owned(),
    };
    assert_eq!(
        operator.abort_run(nothing).await.unwrap_err().code(),
        Code::NotFound
    );
    let nothing = GetRunRequest {
        id: "cold-start-99".to_owned(),
    };
    assert_eq!(
        operator.get_run(nothing).await.unwrap_err().code(),
        Code::NotFound
    );
}

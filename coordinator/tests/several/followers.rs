//! Operators who reach only a coordinator that follows: the leader answers them all the same, and knows who they are; and while it
//! is gone, what the store has is told with its age.

use std::time::Duration;

use blackstart_apiserver::{Authority, Clock, Credentials, Double, NodeSpec, Options};
use blackstart_proto::leader::{OPERATOR, REQUEST, Route, Way, leader_at};
use blackstart_proto::v1::runbook_service_client::RunbookServiceClient;
use blackstart_proto::v1::{
    ApproveRunbookRequest, ColdStartRequest, HoldScope, ListConditionsRequest, ListHoldsRequest,
    ListNodesRequest, ListRunbookRunsRequest, ListRunsRequest, NodePhase, RunControlRequest, RunState,
    RunSummary, RunbookRequest, RunbookRun, RunbookRunRequest, RunbookState, SetHoldRequest,
    WatchEventsRequest,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Response};

use crate::etcd::{Line, is_here};
use crate::world::{DEADLINE, MASTER, World, until};

/// Longer than any test takes: nobody takes over.
const NO_TAKEOVER: &str = "10m";

fn way<T>(answer: &Response<T>) -> Option<Way> {
    Route::read(answer.metadata().as_ref()).map(|route| route.way)
}

fn coordinator(index: usize) -> String {
    format!("coordinator-{}", index + 1)
}

fn hold() -> SetHoldRequest {
    SetHoldRequest {
        scope: HoldScope::Node.into(),
        target: "biz-2".to_owned(),
        reason: "disks are changed".to_owned(),
        ..SetHoldRequest::default()
    }
}

/// A start that is known by its name.
fn start(name: &'static str) -> Request<ColdStartRequest> {
    let mut request = Request::new(ColdStartRequest {
        clusters: Vec::new(),
        reason: "power is back".to_owned(),
    });
    request.metadata_mut().insert(REQUEST, name.parse().unwrap());
    request
}

fn control(run: &RunSummary) -> RunControlRequest {
    RunControlRequest { id: run.id.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_only_a_follower_asks_and_commands_the_leader_by_way_of_it() {
    if !is_here("a follower that forwards") {
        return;
    }
    let mut world = World::new(NO_TAKEOVER).await;
    let first = world.leader_but(&[]).await;
    let follower = world.follower_but(&[first]).await;
    world.power_on(&[MASTER]);
    world.ready(&[MASTER]).await;
    let forwarded = Some(Way::Forwarded(coordinator(first)));
    let mut by_way = world.as_whom("ann", follower).await;

    // What only sessions know, live.
    let nodes = by_way.list_nodes(ListNodesRequest::default()).await.unwrap();
    assert_eq!(way(&nodes), forwarded);
    let ready = |node: &&blackstart_proto::v1::NodeSummary| node.phase() == NodePhase::Ready;
    assert_eq!(nodes.get_ref().nodes.iter().filter(ready).count(), 1);

    // A command, in the operator's own name.
    let held = by_way.set_hold(hold()).await.unwrap();
    assert_eq!(way(&held), forwarded);
    let mut leader = world.as_whom("ann", first).await;
    let holds = leader.list_holds(ListHoldsRequest::default()).await.unwrap();
    assert_eq!(way(&holds), None, "the leader itself answered");
    assert_eq!(holds.get_ref().holds[0].hold.as_ref().unwrap().by, "ann");

    let begun = by_way.start_cold_start(start("r-1")).await.unwrap().into_inner();
    let reason = format!("operator ann by way of {}: power is back", coordinator(follower));
    assert_eq!(begun.reason, reason);
    // The same command again, by whatever way, is the same run; another is refused by the leader, in its own words.
    let other = world.follower_but(&[first, follower]).await;
    let again = world
        .as_whom("ann", other)
        .await
        .start_cold_start(start("r-1"))
        .await;
    assert_eq!(again.unwrap().into_inner().id, begun.id);
    let refused = by_way.start_cold_start(start("r-2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("is active"), "{refused}");

    // A stream goes on for as long as it is read, and tells who said what by which way.
    let asked = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = by_way.watch_events(asked).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let aborted = by_way.abort_run(control(&begun)).await.unwrap().into_inner();
    assert_eq!(aborted.state(), RunState::Aborted);
    let told = timeout(DEADLINE, async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            let last = event.message.contains("AbortRun");
            seen.push(format!("{} {}", event.kind, event.message));
            if last {
                return;
            }
        }
    });
    told.await.unwrap();
    for command in ["SetHold", "StartColdStart", "AbortRun"] {
        let text = format!("Forwarded {command} by ann, by way of {}", coordinator(follower));
        assert!(
            seen.iter().any(|event| event.starts_with(&text)),
            "{text} in {seen:#?}"
        );
    }
}

/// One run, as a coordinator tells it, and by which way.
async fn told(
    client: &mut RunbookServiceClient<Channel>,
    id: &str,
) -> Result<(RunbookRun, Option<Way>), tonic::Status> {
    let asked = RunbookRunRequest { id: id.to_owned() };
    let answer = client.get_runbook_run(asked).await?;
    let way = way(&answer);
    Ok((answer.into_inner(), way))
}

#[tokio::test(flavor = "multi_thread")]
async fn runbooks_are_planned_begun_steered_and_shown_by_way_of_a_follower() {
    if !is_here("a follower that forwards runbooks") {
        return;
    }
    let authority = Authority::new().unwrap();
    let double = Double::start(Options {
        tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
        clock: Clock::running(20),
        ..Options::default()
    });
    let double = double.await.unwrap();
    double.with(|world| {
        world.add_node(&NodeSpec::master(MASTER));
        world.add_node(&NodeSpec::worker("biz-2"));
        let labels = json!({"app": "web"});
        let web = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"nodeName": "biz-2", "containers": [{"name": "c", "image": "web:1"}]}}},
        });
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": labels}},
        });
        world.apply_manifests(&[web, budget]).unwrap();
    });
    let kubeconfig = double.kubeconfig(Some(&authority.certificate), &Credentials::Token("t"));
    let mut world = World::with(NO_TAKEOVER, |root| {
        let file = root.join("kubeconfig");
        std::fs::write(&file, kubeconfig).unwrap();
        format!("clusters:\n  - {{name: biz, kubeconfig: {}}}\n", file.display())
    })
    .await;
    let first = world.leader_but(&[]).await;
    let follower = world.follower_but(&[first]).await;
    let forwarded = Some(Way::Forwarded(coordinator(first)));
    let channel = until("a follower", async || {
        world.channel("ann", world.coordinators[follower].listens).await
    });
    let mut by_way = RunbookServiceClient::new(channel.await);
    let drain = || RunbookRequest {
        runbook: "drain".to_owned(),
        node: "biz-2".to_owned(),
        reason: "new memory".to_owned(),
        ..RunbookRequest::default()
    };
    let begun = until("the leader to know the cluster, and to begin", async || {
        let plan = by_way.plan_runbook(drain()).await.unwrap();
        assert_eq!(way(&plan), forwarded);
        if plan.into_inner().steps.is_empty() {
            return None;
        }
        let begun = by_way.start_runbook(drain()).await.ok()?;
        assert_eq!(way(&begun), forwarded);
        Some(begun.into_inner())
    })
    .await;
    assert_eq!(begun.by, "ann", "it is the operator's, and not the follower's");
    let (run, by) = until("the drain to be held by the budget", async || {
        let (run, by) = told(&mut by_way, &begun.id).await.unwrap();
        run.waiting_on.contains("web").then_some((run, by))
    })
    .await;
    assert_eq!((run.state(), by), (RunbookState::Running, forwarded.clone()));
    // A refusal is the leader's own answer.
    let refused = by_way
        .approve_runbook(ApproveRunbookRequest {
            id: begun.id.clone(),
            asks: String::new(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("nothing of run drain-1 waits"),
        "{refused}"
    );

    // While the leader is gone, what is stored is shown, and commands are not done.
    world.coordinators[first].kill().await;
    let kept = until("an answer from the store", async || {
        let answer = by_way.list_runbook_runs(ListRunbookRunsRequest {}).await.ok()?;
        matches!(way(&answer), Some(Way::Store(_))).then(|| answer.into_inner().runs)
    })
    .await;
    assert_eq!((kept.len(), kept[0].id.as_str()), (1, begun.id.as_str()));
    assert!(
        kept[0].waiting_on.contains("only the coordinator that leads"),
        "{}",
        kept[0].waiting_on
    );
    // A cold start's list is not upset by a runbook's journal beside it.
    let mut fleet = world.as_whom("ann", follower).await;
    let runs = fleet.list_runs(ListRunsRequest {}).await.unwrap();
    assert!(runs.into_inner().runs.is_empty());
    let abort = RunbookRunRequest { id: begun.id };
    let refused = by_way.abort_runbook(abort).await.unwrap_err();
    assert!(refused.message().contains("not done"), "{refused}");
    let refused = by_way.plan_runbook(drain()).await.unwrap_err();
    assert!(
        refused.message().contains("only the leader knows this"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_coordinator_speaks_for_an_operator_and_nothing_is_forwarded_twice() {
    if !is_here("who may forward") {
        return;
    }
    let world = World::new(NO_TAKEOVER).await;
    let first = world.leader_but(&[]).await;
    let follower = world.follower_but(&[first]).await;
    let claiming = || {
        let mut request = Request::new(ListRunsRequest {});
        request.metadata_mut().insert(OPERATOR, "bob".parse().unwrap());
        request
    };
    for whom in ["ann", MASTER] {
        for asked in [first, follower] {
            let answer = world.as_whom(whom, asked).await.list_runs(claiming()).await;
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{whom}: {refused}");
            assert!(
                refused.message().contains("only a coordinator may speak"),
                "{refused}"
            );
        }
    }
    let name = coordinator(follower);
    let spoken = world.as_whom(&name, first).await.list_runs(claiming()).await;
    spoken.unwrap();
    // A coordinator that took another for the leader is told who leads; it is not forwarded once more.
    let refused = world
        .as_whom(&name, follower)
        .await
        .list_runs(claiming())
        .await
        .unwrap_err();
    assert_eq!(leader_at(&refused), [world.coordinators[first].to_agents.address]);
    // For itself it may ask for nothing.
    let refused = world
        .as_whom(&name, first)
        .await
        .list_runs(ListRunsRequest {})
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_leader_is_gone_a_follower_answers_from_the_store_and_says_so() {
    if !is_here("a follower that answers") {
        return;
    }
    let mut world = World::new(NO_TAKEOVER).await;
    let first = world.leader_but(&[]).await;
    world.power_on(&[MASTER]);
    world.ready(&[MASTER]).await;
    let mut leader = world.as_whom("ann", first).await;
    leader.set_hold(hold()).await.unwrap();
    let begun = leader.start_cold_start(start("r-1")).await.unwrap().into_inner();
    leader.pause_run(control(&begun)).await.unwrap();
    let follower = world.follower_but(&[first]).await;
    world.coordinators[first].kill().await;

    let answers = async |world: &World| {
        until("a follower to answer from the store", async || {
            let mut asked = world.as_whom("ann", follower).await;
            let runs = asked.list_runs(ListRunsRequest {}).await.ok()?;
            let Some(Way::Store(age)) = way(&runs) else {
                return None;
            };
            let [run] = &runs.get_ref().runs[..] else {
                return None;
            };
            (run.state() == RunState::Paused).then(|| (age, run.clone()))
        })
        .await
    };
    let (_, run) = answers(&world).await;
    assert_eq!(run.id, begun.id);
    assert!(
        run.waiting_on
            .iter()
            .any(|line| line.contains("only the coordinator that leads")),
        "{run:?}"
    );
    let mut asked = world.as_whom("ann", follower).await;
    let holds = asked.list_holds(ListHoldsRequest::default()).await.unwrap();
    assert_eq!(
        holds.get_ref().holds[0].hold.as_ref().unwrap().reason,
        "disks are changed"
    );
    let nodes = asked.list_nodes(ListNodesRequest::default()).await.unwrap();
    let master = nodes
        .get_ref()
        .nodes
        .iter()
        .find(|node| node.name == MASTER)
        .unwrap();
    assert_eq!(master.phase(), NodePhase::Unknown, "nobody here knows");
    assert!(
        !master.boot_id.is_empty(),
        "the boot it was last heard in is stored"
    );

    // What is not stored is refused, with what to do; so is a command, which is not done.
    let refused = asked
        .list_conditions(ListConditionsRequest::default())
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("only the leader knows this"),
        "{refused}"
    );
    let refused = asked.resume_run(control(&begun)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().starts_with("not done: ") && refused.message().contains("get coordinators"),
        "{refused}"
    );

    // It is started anew, and answers again; also when etcd is gone, ever older.
    world.coordinators[follower].signal(Signal::SIGTERM);
    assert!(world.coordinators[follower].ended().await);
    world.start(follower);
    answers(&world).await;
    for member in 0..3 {
        world.etcd.kill_member(member);
    }
    until("an old answer", async || {
        let (age, run) = answers(&world).await;
        assert_eq!(run.id, begun.id);
        (age > Duration::from_secs(3)).then_some(())
    })
    .await;
}

/// The leader dies with a command in hand, which `line` has let etcd know of or not. The same command is given again.
async fn dies_with_a_command(line: Line) {
    let mut world = World::new("10s").await;
    let first = world.leader_but(&[]).await;
    let follower = world.follower_but(&[first]).await;
    let other = world.follower_but(&[first, follower]).await;
    let mut by_way = world.as_whom("ann", follower).await;
    world.coordinators[first].cut_from_etcd(line);
    let command = tokio::spawn(async move { by_way.start_cold_start(start("r-1")).await });
    until("the command to be with the leader", async || {
        let log = world.coordinators[first].log();
        log.contains("came by way of another coordinator").then_some(())
    })
    .await;
    world.coordinators[first].kill().await;
    let outcome = command.await.unwrap().unwrap_err();
    assert!(outcome.message().contains("not known"), "{outcome}");
    println!("{line:?}: {outcome}");

    // Whoever leads next is given the same command, by two ways.
    let next = world.leader_but(&[first]).await;
    let mut ids = Vec::new();
    for asked in [other, follower] {
        let begun = until("the command to be taken", async || {
            let mut fleet = world.as_whom("ann", asked).await;
            let begun = fleet.start_cold_start(start("r-1")).await.ok()?;
            Some(begun.into_inner().id)
        });
        ids.push(begun.await);
    }
    let runs = world.runs(next).await.unwrap();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(ids, [runs[0].id.clone(), runs[0].id.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_done_by_a_leader_that_died_before_it_said_so_is_not_done_again() {
    if is_here("a leader that dies before it answers") {
        dies_with_a_command(Line::Mute).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_died_with_its_leader_is_done_once_when_it_is_given_again() {
    if is_here("a leader that dies with a command") {
        dies_with_a_command(Line::Cut).await;
    }
}

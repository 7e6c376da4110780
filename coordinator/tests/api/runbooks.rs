//! Runbooks through the API: a real coordinator, an agent's session, and a double of the cluster's API server.

use std::time::Duration;

use blackstart_apiserver::{Authority, Clock, Credentials, Double, NodeSpec, Options};
use blackstart_coordinator::config::ClusterAccess;
use blackstart_coordinator::inventory::ClusterName;
use blackstart_coordinator::kubernetes::connection::{Access, Identity};
use blackstart_proto::v1::command::Action;
use blackstart_proto::v1::runbook_service_client::RunbookServiceClient;
use blackstart_proto::v1::{GateState, RunbookRequest, RunbookRun, RunbookRunRequest, RunbookState};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::support::{NODES, World, within};

fn request(runbook: &str, node: &str) -> RunbookRequest {
    RunbookRequest {
        runbook: runbook.to_owned(),
        node: node.to_owned(),
        reason: "new memory".to_owned(),
        ..RunbookRequest::default()
    }
}

async fn runbooks(world: &World, who: &str) -> RunbookServiceClient<Channel> {
    RunbookServiceClient::new(world.connect(world.tls(who)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_with_what_is_missing() {
    let world = World::new().await;
    let mut client = runbooks(&world, "ann").await;
    let plan = client
        .plan_runbook(request("drain", "biz-2"))
        .await
        .unwrap()
        .into_inner();
    assert!(plan.steps.is_empty());
    assert!(
        plan.refusals[0]
            .missing
            .contains("no way to the API of cluster biz"),
        "{plan:?}"
    );
    let refused = client.start_runbook(request("drain", "biz-2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for (runbook, node) in [("drain", "biz-9"), ("polish", "biz-2")] {
        let refused = client.start_runbook(request(runbook, node)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    }
    let mut node = runbooks(&world, "biz-1").await;
    let refused = node.start_runbook(request("drain", "biz-2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// Until the run stands so.
async fn until(
    client: &mut RunbookServiceClient<Channel>,
    id: &str,
    like: impl Fn(&RunbookRun) -> bool,
) -> RunbookRun {
    within("a state of the run", async {
        loop {
            let asked = Request::new(RunbookRunRequest { id: id.to_owned() });
            let run = client.get_runbook_run(asked).await.unwrap().into_inner();
            if like(&run) {
                return run;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maintenance_goes_through_session_and_api_and_outlasts_the_coordinator() {
    let authority = Authority::new().unwrap();
    let double = Double::start(Options {
        tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
        clock: Clock::running(20),
        ..Options::default()
    });
    let double = double.await.unwrap();
    double.with(|world| {
        for node in NODES {
            world.add_node(&NodeSpec::worker(node));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        double.kubeconfig(Some(&authority.certificate), &Credentials::Token("t")),
    )
    .unwrap();
    let access = Access {
        identity: Identity::Kubeconfig(kubeconfig),
        addresses: Vec::new(),
        masters: Vec::new(),
        requests_per_second: 100,
    };
    let clusters = vec![ClusterAccess {
        name: ClusterName("biz".to_owned()),
        access,
    }];
    let mut world = World::with(|settings| settings.clusters.clone_from(&clusters)).await;
    let mut agent = world.agent("biz-2", "boot-1").await;
    agent.reports(GateState::Passed, true).await;
    let mut client = runbooks(&world, "ann").await;
    let run = within("the caches", async {
        loop {
            match client.start_runbook(request("maintenance-begin", "biz-2")).await {
                Ok(run) => return run.into_inner(),
                Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!((run.by.as_str(), run.reason.as_str()), ("ann", "new memory"));
    // Its agent is told to stop the kubelet, and the coordinator dies before it has answered.
    let command = within("the command", async {
        loop {
            let answered = agent.reports(GateState::Passed, true).await;
            if let Some(command) = answered.commands.into_iter().next() {
                return command;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(
        matches!(command.action, Some(Action::StopKubelet(_))),
        "{command:?}"
    );
    world.stop().await;
    world
        .start(|settings| settings.clusters.clone_from(&clusters))
        .await;
    let mut agent = world.agent("biz-2", "boot-1").await;
    let mut client = runbooks(&world, "ann").await;
    let again = within("the same command", async {
        loop {
            let answered = agent.reports(GateState::Passed, true).await;
            if let Some(command) = answered.commands.into_iter().next() {
                return command;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(
        again.command_id, command.command_id,
        "an agent does each name once"
    );
    agent.answers(&again.command_id).await;
    let ended = within("its end", async {
        loop {
            agent.reports(GateState::Passed, false).await;
            let asked = RunbookRunRequest { id: run.id.clone() };
            let run = client.get_runbook_run(asked).await.unwrap().into_inner();
            if run.state() != RunbookState::Running {
                return run;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(ended.state(), RunbookState::Succeeded, "{ended:?}");
    let cordoned =
        double.with(|world| world.get("nodes", "", "biz-2").unwrap()["spec"]["unschedulable"] == true);
    assert!(cordoned);
    let seen = until(&mut client, &run.id, |run| run.state() == RunbookState::Succeeded).await;
    assert_eq!(seen.steps.len(), 5);
}

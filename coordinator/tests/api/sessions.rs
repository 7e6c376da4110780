//! Sessions from hello to goodbye, as agents and operators see them.

use std::time::Duration;

use crate::support::{Agent, World, hello, within};
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{
    Condition, DiskStatus, Event, GateState, GetNodeRequest, GoodbyeReason, ListClustersRequest,
    ListConditionsRequest, ListNodesRequest, ListRemediesRequest, NodeDetail, NodePhase, RemedyOutcome,
    RemedyRecord, Severity, UnitStatus, WatchEventsRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

async fn node(operator: &mut FleetServiceClient<Channel>, name: &str) -> NodeDetail {
    let name = name.to_owned();
    operator
        .get_node(GetNodeRequest { name })
        .await
        .unwrap()
        .into_inner()
}

/// Looks until the node is in that phase.
async fn comes_to(operator: &mut FleetServiceClient<Channel>, name: &str, phase: NodePhase) -> NodeDetail {
    let events = WatchEventsRequest {
        follow: true,
        node: name.to_owned(),
    };
    let mut events = operator.watch_events(events).await.unwrap().into_inner();
    within(&format!("{name} to be {phase:?}"), async {
        loop {
            let detail = node(operator, name).await;
            if detail.summary.as_ref().unwrap().phase() == phase {
                return detail;
            }
            // Something happens before it changes.
            events.message().await.unwrap().unwrap();
        }
    })
    .await
}

async fn next_of_kind(events: &mut Streaming<Event>, kind: &str) -> Event {
    within(kind, async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.kind == kind {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_an_agent_reports_is_what_operators_see() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let mut agent = world.agent("biz-1", "a").await;
    let mut report = agent.report_of(GateState::Passed, true);
    report.conditions.push(Condition {
        kind: "DiskPressure".to_owned(),
        subject: "/var".to_owned(),
        severity: Severity::Critical.into(),
        standing_ms: 5000,
        evidence: "93 % used".to_owned(),
        escalated: false,
        ..Condition::default()
    });
    report.units.push(UnitStatus {
        name: "kubelet.service".to_owned(),
        active_state: "active".to_owned(),
        sub_state: "running".to_owned(),
        restarts: 2,
    });
    report.disks.push(DiskStatus {
        mount_point: "/var".to_owned(),
        bytes_total: 100,
        bytes_available: 7,
        inodes_total: 10,
        inodes_free: 9,
    });
    report.remedies.push(RemedyRecord {
        sequence: 4,
        remedy: "reclaim-log".to_owned(),
        subject: "/var/log/app.log".to_owned(),
        outcome: RemedyOutcome::Succeeded.into(),
        ..RemedyRecord::default()
    });
    agent.say(Body::Report(report.clone())).await;
    let ack = agent.told().await.unwrap();
    assert!(
        matches!(&ack, blackstart_proto::v1::coordinator_message::Body::Ack(ack) if ack.sequence == 1 && !ack.hold),
        "{ack:?}"
    );

    let detail = node(&mut operator, "biz-1").await;
    let summary = detail.summary.unwrap();
    assert_eq!(
        (summary.phase(), summary.agent_version.as_str()),
        (NodePhase::Ready, "1.2.3")
    );
    assert_eq!(
        (summary.address.as_str(), summary.rack.as_str()),
        ("10.0.0.1", "r1")
    );
    assert_eq!((summary.boot_id.as_str(), summary.conditions), ("a", 1));
    assert_eq!((detail.units, detail.disks), (report.units, report.disks));
    assert_eq!(detail.remedies, report.remedies);
    assert!(detail.attestation.unwrap().kubelet_healthy);
    assert!(detail.conditions[0].standing_ms >= 5000);

    let clusters = operator
        .list_clusters(ListClustersRequest {})
        .await
        .unwrap()
        .into_inner()
        .clusters;
    let biz = &clusters[0];
    assert_eq!(
        (biz.control_planes, biz.control_planes_ready, biz.conditions),
        (1, 1, 1)
    );
    assert_eq!((biz.workers, biz.workers_ready), (2, 0));
    let conditions = |node: &str, cluster: &str| ListConditionsRequest {
        node: node.to_owned(),
        cluster: cluster.to_owned(),
    };
    for (asked, expected) in [(conditions("", "biz"), 1), (conditions("biz-2", ""), 0)] {
        let found = operator
            .list_conditions(asked)
            .await
            .unwrap()
            .into_inner()
            .conditions;
        assert_eq!(found.len(), expected);
    }
    let remedies = operator
        .list_remedies(ListRemediesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(remedies.remedies[0].remedy.as_ref(), Some(&report.remedies[0]));
}

#[tokio::test]
async fn a_name_that_is_not_declared_is_told() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let status = operator
        .list_nodes(ListNodesRequest {
            cluster: "bix".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("bix"), "{status}");
    let status = operator
        .get_node(GetNodeRequest {
            name: "biz-9".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("biz-9"), "{status}");
}

#[tokio::test]
async fn a_connection_that_ends_is_a_loss_and_a_goodbye_is_none() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let mut agent = world.agent("biz-1", "a").await;
    agent.reports(GateState::Passed, true).await;
    drop(agent);
    comes_to(&mut operator, "biz-1", NodePhase::Silent).await;

    let mut agent = world.agent("biz-1", "a").await;
    agent.reports(GateState::Passed, true).await;
    agent.leaves(GoodbyeReason::Shutdown).await;
    let detail = comes_to(&mut operator, "biz-1", NodePhase::Stopped).await;
    assert_eq!(detail.attestation, None);
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_silent_though_its_connection_stands() {
    let world = World::with(|settings| settings.silent_after = Duration::from_millis(300)).await;
    let mut operator = world.operator().await;
    let line = world.line(&world.files("biz-1")).await.unwrap();
    let mut hello = hello("biz-1", "a");
    hello.report_interval_ms = 100;
    let mut agent = Agent::open(line, hello).await.unwrap();
    comes_to(&mut operator, "biz-1", NodePhase::Silent).await;
    assert_eq!(
        agent.ends().await.code(),
        Code::Aborted,
        "so that it connects anew"
    );
}

#[tokio::test]
async fn a_newer_session_of_the_same_node_ends_the_older() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let mut old = world.agent("biz-1", "a").await;
    let mut new = world.agent("biz-1", "a").await;
    assert_eq!(old.ends().await.code(), Code::Aborted);
    new.reports(GateState::Passed, true).await;
    comes_to(&mut operator, "biz-1", NodePhase::Ready).await;
}

#[tokio::test]
async fn a_session_is_the_same_on_a_line_and_as_a_call() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    for way in world.ways(&world.files("biz-1")).await {
        let mut agent = Agent::open(way, hello("biz-1", "a")).await.unwrap();
        let welcome = agent.told().await.unwrap();
        assert!(matches!(welcome, Told::Welcome(_)), "{welcome:?}");
        agent.reports(GateState::Passed, true).await;
        comes_to(&mut operator, "biz-1", NodePhase::Ready).await;
        agent.is_answered().await;
        agent.leaves(GoodbyeReason::AgentStop).await;
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_session_and_nothing_else() {
    let world = World::new().await;
    let mut agent = world.agent("biz-1", "a").await;
    let mut other = world.agent("biz-2", "a").await;
    let mut report = agent.report_of(GateState::Passed, true);
    report.attestation.as_mut().unwrap().waiting_on = "x".repeat(2 << 20);
    agent.say(Body::Report(report)).await;
    let status = agent.ends().await;
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status}"
    );
    other.reports(GateState::Passed, true).await;
}

#[tokio::test]
async fn a_restarted_coordinator_tells_a_new_boot_from_the_one_that_it_knew() {
    let mut world = World::new().await;
    let mut agents = Vec::new();
    for name in ["biz-1", "biz-2"] {
        let mut agent = world.agent(name, "a").await;
        agent.reports(GateState::Passed, true).await;
        agents.push(agent);
    }
    world.stop().await;
    for agent in &mut agents {
        assert_eq!(agent.ends().await.code(), Code::Unavailable, "a stop is said");
    }
    world.start(|_| {}).await;
    let mut operator = world.operator().await;
    let detail = node(&mut operator, "biz-1").await;
    assert_eq!(detail.boot.unwrap().boot_id, "a");
    assert_eq!(detail.summary.unwrap().phase(), NodePhase::Silent);

    let follow = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    let _same = world.agent("biz-1", "a").await;
    let _other = world.agent("biz-2", "b").await;
    let event = next_of_kind(&mut events, "NewBoot").await;
    assert_eq!((event.node.as_str(), event.cluster.as_str()), ("biz-2", "biz"));
}

#[tokio::test]
async fn a_follower_gets_what_was_and_what_comes_of_one_node() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    let _one = world.agent("biz-1", "a").await;
    let _two = world.agent("biz-2", "a").await;
    let follow = WatchEventsRequest {
        follow: true,
        node: "biz-2".to_owned(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    assert_eq!(next_of_kind(&mut events, "SessionUp").await.node, "biz-2");
    let mut agent = world.agent("biz-1", "a").await;
    agent.reports(GateState::Passed, true).await;
    drop(world.agent("biz-2", "a").await);
    assert_eq!(next_of_kind(&mut events, "SessionLost").await.node, "biz-2");
}

//! Who gets nowhere: everything over real mutual TLS.

use crate::support::{Agent, Way, World, hello, within};
use blackstart_proto::identity::COORDINATOR_DNS_NAME;
use blackstart_proto::tls::client_config;
use blackstart_proto::v1;
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{GateState, ListNodesRequest, NodePhase, WatchEventsRequest};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig};

/// With TLS 1.3 a client learns only from its first call that it was not let in.
async fn gets_nowhere<E>(way: Result<impl Into<Way>, E>) {
    let Ok(way) = way else {
        return;
    };
    let status = refused(way, "biz-1").await;
    assert_ne!(
        status.code(),
        Code::PermissionDenied,
        "it came as far as the service: {status}"
    );
}

async fn refused(way: impl Into<Way>, node: &str) -> tonic::Status {
    match Agent::open(way, hello(node, "a")).await {
        Ok(mut agent) => agent.ends().await,
        Err(status) => status,
    }
}

#[tokio::test]
async fn without_a_certificate_of_this_authority_nobody_gets_as_far_as_a_service() {
    let world = World::new().await;
    let ca = std::fs::read(world.path("pki/ca.crt")).unwrap();
    let nobody = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca))
        .domain_name(COORDINATOR_DNS_NAME);
    gets_nowhere(world.connect(nobody).await).await;
    gets_nowhere(world.line_of(None).await).await;
    // It trusts our authority, and shows a certificate of another.
    let elsewhere = tempfile::tempdir().unwrap();
    let files = crate::support::other_authority(elsewhere.path());
    let stranger = client_config(&files.read().unwrap()).ca_certificate(Certificate::from_pem(&ca));
    gets_nowhere(world.connect(stranger).await).await;
    gets_nowhere(world.line(&files).await).await;
}

#[tokio::test]
async fn a_node_speaks_for_itself_alone_and_only_if_it_is_declared() {
    let world = World::new().await;
    let mut operator = world.operator().await;
    for (certificate, says, expected) in [
        ("biz-1", "biz-2", "the hello is of node \"biz-2\""),
        ("stranger", "stranger", "node stranger is not in the inventory"),
    ] {
        for way in world.ways(&world.files(certificate)).await {
            let status = refused(way, says).await;
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains(expected), "{status}");
        }
    }
    let nodes = operator
        .list_nodes(ListNodesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .nodes;
    assert!(
        nodes.iter().all(|node| node.phase() == NodePhase::Unknown),
        "{nodes:?}"
    );
    // And people are told.
    let mut events = operator
        .watch_events(WatchEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut told = Vec::new();
    while let Some(event) = within("events", events.message()).await.unwrap() {
        told.push((event.kind, event.node));
    }
    let refused = |node: &str| ("Refused".to_owned(), node.to_owned());
    assert_eq!(told, [refused("biz-1"), refused("stranger")]);
}

#[tokio::test]
async fn a_session_begins_with_a_hello() {
    let world = World::new().await;
    for way in world.ways(&world.files("biz-1")).await {
        let first = Body::Report(v1::Report::default());
        let status = Agent::open_with(way, first).await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
}

#[tokio::test]
async fn operators_and_nodes_have_each_their_own_service() {
    let world = World::new().await;
    for way in world.ways(&world.files("ann")).await {
        let status = refused(way, "biz-1").await;
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("only nodes may call this"), "{status}");
    }

    let channel = world.connect(world.tls("biz-1")).await.unwrap();
    let mut as_node = FleetServiceClient::new(channel);
    macro_rules! is_refused {
        ($($call:ident: $request:ident),+ $(,)?) => {$(
            let request = v1::$request::default();
            let status = as_node.$call(request).await.map(|_| ()).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{}: {status}", stringify!($call));
        )+};
    }
    is_refused!(
        list_clusters: ListClustersRequest,
        list_nodes: ListNodesRequest,
        get_node: GetNodeRequest,
        list_conditions: ListConditionsRequest,
        list_remedies: ListRemediesRequest,
        list_runs: ListRunsRequest,
        get_run: GetRunRequest,
        watch_events: WatchEventsRequest,
        watch_run: GetRunRequest,
        plan_cold_start: ColdStartRequest,
        start_cold_start: ColdStartRequest,
        pause_run: RunControlRequest,
        resume_run: RunControlRequest,
        abort_run: RunControlRequest,
    );
}

/// With a certificate that counts, and a thousand connections that are all used: the newest stand, and nobody else is kept out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_of_one_node_harm_nobody_else() {
    let world = World::new().await;
    let mut before = world.agent("biz-1", "a").await;
    let files = world.files("biz-2");
    let mut held = Vec::new();
    for number in 0..1000 {
        held.push(world.line(&files).await.unwrap());
        // Others notice nothing; and who is silent for too long is taken for gone.
        if number % 50 == 0 {
            before.reports(GateState::Passed, true).await;
        }
    }
    // An older one is cut…
    let refused = Agent::open(held.swap_remove(0), hello("biz-2", "a")).await;
    assert!(refused.is_err());
    // …others stand, and it can be spoken to itself as well.
    before.reports(GateState::Passed, true).await;
    world.agent("biz-3", "a").await;
    world.agent("biz-2", "a").await;
    world.operator().await;
}

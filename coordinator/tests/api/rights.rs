//! What each operator may do, and what those are told who may not.

use std::collections::BTreeMap;

use blackstart_coordinator::config::Settings;
use blackstart_coordinator::inventory::ClusterName;
use blackstart_coordinator::pki::Authority;
use blackstart_coordinator::trust::rights::{Grant, Right, Roles};
use blackstart_proto::v1;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::runbook_service_client::RunbookServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::enrolment::{enrols, trust};
use crate::support::World;

/// `ann` is an admin, `ben` operates in `biz`, `cat` approves everywhere, `dan` sees, and `eve` has a certificate and no role.
pub(crate) fn roles(settings: &mut Settings) {
    enrols(settings);
    let authority = Authority::open(settings.tls.ca.parent().unwrap()).unwrap();
    for operator in ["ben", "cat", "dan", "eve"] {
        authority.issue_operator(operator).unwrap();
    }
    let grant = |right, cluster: Option<&str>| {
        let clusters = cluster.map(|cluster| vec![ClusterName(cluster.to_owned())]);
        vec![Grant { right, clusters }]
    };
    settings.roles = Roles {
        operators: Some(BTreeMap::from([
            ("ann".to_owned(), grant(Right::Admin, None)),
            ("ben".to_owned(), grant(Right::Operate, Some("biz"))),
            ("cat".to_owned(), grant(Right::Approve, None)),
            ("dan".to_owned(), grant(Right::View, None)),
        ])),
        two_persons: Vec::new(),
    };
}

async fn fleet(world: &World, operator: &str) -> FleetServiceClient<Channel> {
    FleetServiceClient::new(world.connect(world.tls(operator)).await.unwrap())
}

fn hold(scope: v1::HoldScope, target: &str) -> v1::SetHoldRequest {
    v1::SetHoldRequest {
        scope: scope.into(),
        target: target.to_owned(),
        reason: "a test".to_owned(),
        ..v1::SetHoldRequest::default()
    }
}

fn denied(status: &Status, right: &str) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let told = format!("lacks the right \"{right}\"");
    assert!(status.message().contains(&told), "{status}");
}

#[tokio::test]
async fn each_does_what_the_role_is_for_and_is_told_which_right_is_missing() {
    let world = World::with(roles).await;
    for operator in ["ann", "ben", "cat", "dan"] {
        let mut fleet = fleet(&world, operator).await;
        fleet.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    }
    let mut eve = fleet(&world, "eve").await;
    denied(
        &eve.list_nodes(v1::ListNodesRequest::default()).await.unwrap_err(),
        "view",
    );

    let mut ben = fleet(&world, "ben").await;
    ben.set_hold(hold(v1::HoldScope::Node, "biz-1")).await.unwrap();
    ben.set_hold(hold(v1::HoldScope::Cluster, "biz")).await.unwrap();
    let everywhere = ben.set_hold(hold(v1::HoldScope::Fleet, "")).await.unwrap_err();
    denied(&everywhere, "operate");
    assert!(everywhere.message().contains("in all clusters"), "{everywhere}");
    let started = ben
        .start_cold_start(v1::ColdStartRequest::default())
        .await
        .unwrap_err();
    denied(&started, "operate");

    let mut dan = fleet(&world, "dan").await;
    denied(
        &dan.set_hold(hold(v1::HoldScope::Node, "biz-1"))
            .await
            .unwrap_err(),
        "operate",
    );
    let mut cat = fleet(&world, "cat").await;
    denied(
        &cat.set_hold(hold(v1::HoldScope::Node, "biz-1"))
            .await
            .unwrap_err(),
        "operate",
    );

    let mut ben = RunbookServiceClient::new(world.connect(world.tls("ben")).await.unwrap());
    let request = v1::ApproveRunbookRequest {
        id: "drain-1".to_owned(),
        asks: String::new(),
    };
    denied(
        &ben.approve_runbook(request.clone()).await.unwrap_err(),
        "approve",
    );
    let mut cat = RunbookServiceClient::new(world.connect(world.tls("cat")).await.unwrap());
    let none = cat.approve_runbook(request).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound, "{none}");
}

#[tokio::test]
async fn only_admins_let_others_in() {
    let world = World::with(roles).await;
    let request = v1::CreateTokenRequest {
        ttl_s: 60,
        ..v1::CreateTokenRequest::default()
    };
    trust(&world, "ann")
        .await
        .create_token(request.clone())
        .await
        .unwrap();
    for operator in ["ben", "cat", "dan"] {
        let told = trust(&world, operator)
            .await
            .create_token(request.clone())
            .await
            .unwrap_err();
        denied(&told, "admin");
        let revoke = v1::RevokeRequest {
            subject: "blackstart://operator/ann".to_owned(),
            reason: "mine".to_owned(),
        };
        denied(
            &trust(&world, operator).await.revoke(revoke).await.unwrap_err(),
            "admin",
        );
    }
}

/// A call that nobody has given a right is nobody's, also an admin's: the door says so, before any service is asked.
#[tokio::test]
async fn a_call_that_has_no_right_is_refused_at_the_door() {
    let world = World::with(roles).await;
    let channel = world.connect(world.tls("ann")).await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/blackstart.v1.FleetService/Forgotten");
    let codec = tonic_prost::ProstCodec::<v1::ListRunsRequest, v1::ListRunsResponse>::default();
    let asked = tonic::Request::new(v1::ListRunsRequest {});
    let status = client.unary(asked, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert!(status.message().contains("has no such call"), "{status}");
}

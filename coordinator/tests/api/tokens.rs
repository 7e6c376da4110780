//! Operators with a token of an identity provider, and no certificate.

use blackstart_coordinator::config::Settings;
use blackstart_coordinator::trust::oidc::OidcSettings;
use blackstart_proto::leader::OPERATOR;
use blackstart_proto::tls::visitor_config;
use blackstart_proto::v1;
use blackstart_proto::v1::agent_service_client::AgentServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::trust_service_client::TrustServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::enrolment::trust;
use crate::oidc::{AUDIENCE, ISSUER, Provider};
use crate::rights::roles;
use crate::support::{World, within};

/// Roles as in `rights`, and this provider, whose keys are written.
fn served(settings: &mut Settings, provider: &Provider) {
    roles(settings);
    let keys = settings.tls.ca.with_file_name("oidc-keys.json");
    provider.publish(&keys);
    settings.oidc = Some(OidcSettings {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        keys,
        claim: "sub".to_owned(),
        suffix: String::new(),
    });
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

async fn visitor(world: &World) -> Channel {
    let ca = std::fs::read(world.path("pki/ca.crt")).unwrap();
    world.connect(visitor_config(&ca)).await.unwrap()
}

#[tokio::test]
async fn a_token_is_as_good_as_a_certificate_of_the_same_name() {
    let provider = Provider::new();
    let world = World::with(|settings| served(settings, &provider)).await;
    let mut fleet = FleetServiceClient::new(visitor(&world).await);
    let nodes = v1::ListNodesRequest::default();
    let ben = provider.token("ben", 300);
    fleet.list_nodes(with(&ben, nodes.clone())).await.unwrap();
    let hold = |scope: v1::HoldScope, target: &str| v1::SetHoldRequest {
        scope: scope.into(),
        target: target.to_owned(),
        reason: "a test".to_owned(),
        ..v1::SetHoldRequest::default()
    };
    let set = fleet
        .set_hold(with(&ben, hold(v1::HoldScope::Node, "biz-1")))
        .await
        .unwrap();
    assert_eq!(set.into_inner().hold.unwrap().by, "ben");
    let told = fleet
        .set_hold(with(&ben, hold(v1::HoldScope::Fleet, "")))
        .await
        .unwrap_err();
    assert!(
        told.message()
            .contains("operator ben lacks the right \"operate\""),
        "{told}"
    );
    // Each call is its own: without a token, or with another one.
    for (request, why) in [
        (
            Request::new(nodes.clone()),
            "no certificate was shown, and no token",
        ),
        (with("a.b.c", nodes.clone()), "the token is none"),
        (
            with(&Provider::new().token("ann", 300), nodes.clone()),
            "no key of",
        ),
        (
            with(&provider.token("nobody", 300), nodes.clone()),
            "operator nobody lacks the right \"view\"",
        ),
    ] {
        let told = fleet.list_nodes(request).await.unwrap_err();
        assert_eq!(told.code(), Code::PermissionDenied, "{told}");
        assert!(told.message().contains(why), "{why:?} in {told}");
    }
    // Whoever shows a certificate is whom that names, whatever token comes with it.
    let mut dan = FleetServiceClient::new(world.connect(world.tls("dan")).await.unwrap());
    let told = dan
        .set_hold(with(&provider.token("ann", 300), hold(v1::HoldScope::Fleet, "")))
        .await
        .unwrap_err();
    assert!(told.message().contains("operator dan lacks"), "{told}");
    // It is an operator's, and no node's.
    let mut agent = AgentServiceClient::new(visitor(&world).await);
    let says = tokio_stream::iter([v1::AgentMessage::default()]);
    let told = agent
        .session(with(&provider.token("ann", 300), says))
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
}

#[tokio::test]
async fn a_revoked_operator_has_no_token_that_counts_and_no_stream_that_goes_on() {
    let provider = Provider::new();
    let world = World::with(|settings| served(settings, &provider)).await;
    let mut fleet = FleetServiceClient::new(visitor(&world).await);
    let dan = provider.token("dan", 300);
    let follow = v1::WatchEventsRequest {
        follow: true,
        ..v1::WatchEventsRequest::default()
    };
    let mut events = fleet.watch_events(with(&dan, follow)).await.unwrap().into_inner();
    let revoke = v1::RevokeRequest {
        subject: "blackstart://operator/dan".to_owned(),
        reason: "has left".to_owned(),
    };
    trust(&world, "ann").await.revoke(revoke).await.unwrap();
    // Nothing that is said after it reaches him.
    let ended = async {
        while let Ok(Some(event)) = events.message().await {
            assert!(!event.message.contains("has left"), "{event:?}");
        }
    };
    within("the end of the stream", ended).await;
    let mut fleet = FleetServiceClient::new(visitor(&world).await);
    let told = fleet
        .list_nodes(with(&dan, v1::ListNodesRequest::default()))
        .await
        .unwrap_err();
    assert!(told.message().contains("revoked by ann: has left"), "{told}");
}

#[tokio::test]
async fn a_coordinator_that_knows_no_provider_takes_no_token_and_one_without_its_keys_works_all_the_same() {
    let provider = Provider::new();
    let world = World::with(roles).await;
    let mut fleet = FleetServiceClient::new(visitor(&world).await);
    let ann = provider.token("ann", 300);
    let told = fleet
        .list_nodes(with(&ann, v1::ListNodesRequest::default()))
        .await
        .unwrap_err();
    assert!(told.message().contains("takes no tokens"), "{told}");
    let without_keys = |settings: &mut Settings| {
        served(settings, &provider);
        std::fs::remove_file(&settings.oidc.as_ref().unwrap().keys).unwrap();
    };
    let world = World::with(without_keys).await;
    let mut operator = world.operator().await;
    operator
        .list_nodes(v1::ListNodesRequest::default())
        .await
        .unwrap();
    let mut fleet = FleetServiceClient::new(visitor(&world).await);
    let told = fleet
        .list_nodes(with(&ann, v1::ListNodesRequest::default()))
        .await
        .unwrap_err();
    assert!(told.message().contains("no key of"), "{told}");
    provider.publish(&world.path("pki/oidc-keys.json"));
    fleet
        .list_nodes(with(&ann, v1::ListNodesRequest::default()))
        .await
        .unwrap();
}

/// Or whoever has come by a token for minutes would have a certificate for a year.
#[tokio::test]
async fn a_token_renews_no_certificate() {
    let provider = Provider::new();
    let world = World::with(|settings| served(settings, &provider)).await;
    let request = || v1::RenewOperatorRequest::default();
    let mut by_token = TrustServiceClient::new(visitor(&world).await);
    let asked = with(&provider.token("ann", 300), request());
    let told = by_token.renew_operator(asked).await.unwrap_err();
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
    assert!(told.message().contains("by itself alone"), "{told}");
    // Nor does a coordinator that says for whom it asks, or a node.
    let channel = world.connect(world.tls("coordinator")).await.unwrap();
    let mut passed_on = Request::new(request());
    passed_on.metadata_mut().insert(OPERATOR, "ann".parse().unwrap());
    let told = TrustServiceClient::new(channel)
        .renew_operator(passed_on)
        .await
        .unwrap_err();
    assert!(told.message().contains("by itself alone"), "{told}");
    let told = trust(&world, "biz-1")
        .await
        .renew_operator(request())
        .await
        .unwrap_err();
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
    // With a certificate it is taken for what it is: no request at all.
    let told = trust(&world, "ann")
        .await
        .renew_operator(request())
        .await
        .unwrap_err();
    assert_eq!(told.code(), Code::InvalidArgument, "{told}");
}

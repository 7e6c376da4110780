//! What is revoked counts no more, from the moment that it is said: in sessions that stand, after a restart, and until the node has
//! joined anew.

use blackstart_agent::enrol::join::join;
use blackstart_proto::v1;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::{GateState, ListNodesRequest};
use tonic::Code;

use crate::enrolment::{Machine, enrols, session, token, trust};
use crate::support::{World, within};

async fn revoke(world: &World, subject: &str) -> v1::Revocation {
    let request = v1::RevokeRequest {
        subject: subject.to_owned(),
        reason: "stolen".to_owned(),
    };
    trust(world, "ann")
        .await
        .revoke(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_node_that_is_revoked_in_session_is_out_at_once_and_stays_out() {
    let mut world = World::with(enrols).await;
    let mut thief = session(&world, &world.files("biz-1"), "biz-1").await.unwrap();
    let mut other = session(&world, &world.files("biz-2"), "biz-2").await.unwrap();
    thief.reports(GateState::Passed, true).await;
    let revoked = revoke(&world, "blackstart://node/biz-1").await;
    assert_eq!((revoked.cut, revoked.by.as_str()), (1, "ann"));
    within("the session's end", thief.ends()).await;
    // Nobody else is concerned.
    other.reports(GateState::Passed, true).await;
    let told = session(&world, &world.files("biz-1"), "biz-1")
        .await
        .err()
        .unwrap();
    assert_eq!(told.code(), Code::PermissionDenied, "{told}");
    assert!(told.message().contains("revoked by ann: stolen"), "{told}");
    // It is durable.
    world.stop().await;
    world.start(enrols).await;
    let told = session(&world, &world.files("biz-1"), "biz-1")
        .await
        .err()
        .unwrap();
    assert!(told.message().contains("revoked by ann: stolen"), "{told}");
    // The node comes back with a new key, and the stolen one does not.
    let made = token(&world, "biz-1").await;
    let machine = Machine::new('a');
    let joined = join(machine.joins(&world, "biz-1", &made)).await.unwrap();
    session(&world, &joined.files, "biz-1").await.unwrap();
    let told = session(&world, &world.files("biz-1"), "biz-1")
        .await
        .err()
        .unwrap();
    assert!(told.message().contains("revoked by ann"), "{told}");
}

#[tokio::test]
async fn one_certificate_is_revoked_by_its_number() {
    let world = World::with(enrols).await;
    let made = token(&world, "biz-3").await;
    let machine = Machine::new('a');
    let joined = join(machine.joins(&world, "biz-3", &made)).await.unwrap();
    let mut ann = trust(&world, "ann").await;
    let listed = ann.list_certificates(v1::ListCertificatesRequest::default());
    let serial = listed.await.unwrap().into_inner().certificates[0].serial.clone();
    let mut agent = session(&world, &joined.files, "biz-3").await.unwrap();
    assert_eq!(revoke(&world, &format!("serial:{serial}")).await.cut, 1);
    within("the session's end", agent.ends()).await;
    // Another certificate of the same node is none of it.
    session(&world, &world.files("biz-3"), "biz-3").await.unwrap();
}

#[tokio::test]
async fn an_operator_who_has_left_sees_nothing_any_more() {
    let world = World::with(|settings| {
        enrols(settings);
        let pki = settings.tls.ca.parent().unwrap();
        let authority = blackstart_coordinator::pki::Authority::open(pki).unwrap();
        authority.issue_operator("ben").unwrap();
    })
    .await;
    let channel = world.connect(world.tls("ben")).await.unwrap();
    let mut ben = FleetServiceClient::new(channel);
    ben.list_nodes(ListNodesRequest::default()).await.unwrap();
    revoke(&world, "blackstart://operator/ben").await;
    assert!(ben.list_nodes(ListNodesRequest::default()).await.is_err());
    let channel = world.connect(world.tls("ben")).await.unwrap();
    let told = FleetServiceClient::new(channel)
        .list_nodes(ListNodesRequest::default())
        .await
        .unwrap_err();
    assert!(told.message().contains("revoked by ann"), "{told}");
}

#[tokio::test]
async fn revoking_wants_a_reason_and_a_name() {
    let world = World::with(enrols).await;
    let mut ann = trust(&world, "ann").await;
    for (subject, reason) in [("blackstart://node/biz-1", " "), ("biz-1", "stolen")] {
        let request = v1::RevokeRequest {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
        };
        let told = ann.revoke(request).await.unwrap_err();
        assert_eq!(told.code(), Code::InvalidArgument, "{told}");
    }
}

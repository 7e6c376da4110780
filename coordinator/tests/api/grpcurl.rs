//! What `grpcurl` asks first, whatever one asks with it: which services there are, what they take, and whether they are well.

use std::collections::BTreeSet;

use blackstart_proto::tls::visitor_config;
use blackstart_proto::v1::fleet_service_server::SERVICE_NAME as FLEET;
use tokio::time::{Duration, Instant};
use tokio_stream::{StreamExt, iter};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha;

use crate::enrolment::trust;
use crate::rights::roles;
use crate::support::{World, within};

async fn channel(world: &World, name: &str) -> Channel {
    world.connect(world.tls(name)).await.unwrap()
}

async fn check(channel: Channel, service: &str) -> Result<ServingStatus, Status> {
    let service = service.to_owned();
    let asked = HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await;
    asked.map(|told| told.into_inner().status())
}

async fn reflect(channel: Channel, asked: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(asked),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(iter([request])).await?;
    let answer = within("an answer", answers.into_inner().next()).await;
    Ok(answer.unwrap()?.message_response.unwrap())
}

fn list() -> MessageRequest {
    MessageRequest::ListServices(String::new())
}

#[tokio::test]
async fn it_is_told_what_there_is_what_it_takes_and_that_it_is_well() {
    let world = World::with(roles).await;
    let dan = channel(&world, "dan").await;
    let MessageResponse::ListServicesResponse(told) = reflect(dan.clone(), list()).await.unwrap() else {
        panic!("no list");
    };
    let told: BTreeSet<_> = told.service.into_iter().map(|one| one.name).collect();
    let ours = [
        "Agent",
        "Audit",
        "Coordinator",
        "Enrolment",
        "Fleet",
        "Runbook",
        "Trust",
    ];
    let mut expected: BTreeSet<_> = ours.map(|name| format!("blackstart.v1.{name}Service")).into();
    expected.extend([
        "grpc.health.v1.Health".to_owned(),
        "grpc.reflection.v1.ServerReflection".to_owned(),
    ]);
    assert_eq!(told, expected);
    for service in &ours {
        let symbol = MessageRequest::FileContainingSymbol(format!("blackstart.v1.{service}Service"));
        let described = reflect(dan.clone(), symbol).await.unwrap();
        let MessageResponse::FileDescriptorResponse(files) = described else {
            panic!("{service}: {described:?}");
        };
        assert!(!files.file_descriptor_proto.is_empty());
    }
    // Programs of before 2023 ask by another name.
    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(dan.clone());
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let answers = old.server_reflection_info(iter([request])).await.unwrap();
    assert!(
        within("an answer", answers.into_inner().next())
            .await
            .unwrap()
            .is_ok()
    );

    for service in [
        "",
        FLEET,
        "blackstart.v1.AgentService",
        "blackstart.v1.AuditService",
    ] {
        assert_eq!(
            check(dan.clone(), service).await.unwrap(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    let nothing = check(dan, "blackstart.v1.Nothing").await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound, "{nothing}");
}

#[tokio::test]
async fn health_is_for_whoever_is_known_and_descriptions_for_operators_who_may_see() {
    let world = World::with(roles).await;
    // A node may know whether the coordinator is well, and so may an operator who may nothing else.
    for name in ["biz-2", "eve"] {
        let known = channel(&world, name).await;
        assert_eq!(
            check(known.clone(), "").await.unwrap(),
            ServingStatus::Serving,
            "{name}"
        );
        let refused = reflect(known, list()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}: {refused}");
    }
    // Without a certificate there is neither.
    let ca = std::fs::read(world.path("pki/ca.crt")).unwrap();
    let visitor = world.connect(visitor_config(&ca)).await.unwrap();
    for refused in [
        check(visitor.clone(), "").await.unwrap_err(),
        reflect(visitor, list()).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    // Nor is there once a certificate counts no more.
    let dan = channel(&world, "dan").await;
    check(dan.clone(), "").await.unwrap();
    let revoke = blackstart_proto::v1::RevokeRequest {
        subject: "blackstart://operator/dan".to_owned(),
        reason: "has left".to_owned(),
    };
    trust(&world, "ann").await.revoke(revoke).await.unwrap();
    assert!(check(dan, "").await.is_err());
}

/// Whoever watches keeps no coordinator from ending: it is told so and let go.
#[tokio::test]
async fn who_watches_is_told_of_the_end_and_holds_nothing_up() {
    let mut world = World::new().await;
    let watch = HealthCheckRequest::default();
    let mut health = HealthClient::new(world.connect(world.tls("ann")).await.unwrap());
    let mut told = health.watch(watch).await.unwrap().into_inner();
    let first = within("a word", told.next()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let begun = Instant::now();
    world.stop().await;
    let last = within("another", told.next()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

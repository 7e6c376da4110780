//! What is commanded stands in the audit with who, why and what came of it; and one changed byte of it is found.

use std::fs;
use std::path::{Path, PathBuf};

use blackstart_coordinator::audit::chain::Record;
use blackstart_coordinator::audit::file::{files, verify};
use blackstart_proto::v1;
use blackstart_proto::v1::audit_service_client::AuditServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;

use crate::enrolment::{enrols, token};
use crate::support::{World, within};

fn records(dir: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for file in files(dir).unwrap() {
        let text = fs::read_to_string(file).unwrap();
        records.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Record>(&line[65..]).unwrap()),
        );
    }
    records
}

async fn holds(world: &World, reason: &str, target: &str) -> Result<(), tonic::Status> {
    let channel = world.connect(world.tls("ann")).await.unwrap();
    let hold = v1::SetHoldRequest {
        scope: v1::HoldScope::Node.into(),
        target: target.to_owned(),
        reason: reason.to_owned(),
        ..v1::SetHoldRequest::default()
    };
    FleetServiceClient::new(channel).set_hold(hold).await.map(drop)
}

async fn audited(world: &World, expect: &str) -> v1::AuditReport {
    let channel = world.connect(world.tls("ann")).await.unwrap();
    let request = v1::VerifyAuditRequest {
        expect: expect.to_owned(),
    };
    let report = AuditServiceClient::new(channel).verify_audit(request).await;
    report.unwrap().into_inner()
}

fn audit(world: &World) -> PathBuf {
    world.path("state/audit")
}

#[tokio::test]
async fn a_command_is_there_before_it_is_answered_with_who_what_why_and_what_came_of_it() {
    let world = World::with(enrols).await;
    holds(&world, "a new disk", "biz-1").await.unwrap();
    holds(&world, "a new disk", "nowhere").await.unwrap_err();
    let secret = token(&world, "biz-1").await.token;
    let records = records(&audit(&world));
    let of: Vec<_> = records
        .iter()
        .filter(|record| record.what.what == "SetHold")
        .collect();
    let outcomes: Vec<_> = of.iter().map(|record| record.what.outcome.as_str()).collect();
    assert_eq!(outcomes, ["asked", "done", "asked", "refused"]);
    for record in &of {
        assert_eq!(record.what.who, "operator ann");
        assert!(record.what.asked.contains("a new disk"), "{record:?}");
        assert!(!record.what.certificate.is_empty());
    }
    assert_eq!(of[0].what.matter, of[1].what.matter);
    assert!(
        of[3].what.evidence.contains("nowhere is not in the inventory"),
        "{:?}",
        of[3]
    );
    assert!(records.iter().any(|record| record.what.what == "CreateToken"));
    let text = fs::read_to_string(&files(&audit(&world)).unwrap()[0]).unwrap();
    assert!(!text.contains(secret.split('.').next_back().unwrap()));
}

#[tokio::test]
async fn one_changed_byte_is_found_and_a_torn_end_is_told_from_it() {
    let mut world = World::with(enrols).await;
    holds(&world, "one", "biz-1").await.unwrap();
    let report = audited(&world, "").await;
    assert!(report.problems.is_empty() && report.records >= 3, "{report:?}");
    let head = report.head;
    world.stop().await;
    // A power loss while a record was written.
    let file = files(&audit(&world)).unwrap().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, [whole.as_slice(), b"0123 {\"sequ"].concat()).unwrap();
    let torn = verify(&audit(&world), Some(&head)).unwrap();
    assert_eq!((torn.torn, torn.problems.len()), (11, 0));
    world.start(enrols).await;
    let mended = within("the audit", audited(&world, &head)).await;
    assert_eq!((mended.torn, mended.problems), (0, Vec::<String>::new()));
    world.stop().await;
    // Somebody who would rather have been somebody else.
    let text = fs::read_to_string(&file)
        .unwrap()
        .replacen("operator ann", "operator bob", 1);
    fs::write(&file, text).unwrap();
    world.start(enrols).await;
    let changed = audited(&world, &head).await;
    assert!(changed.problems[0].contains("was changed"), "{changed:?}");
}

#[tokio::test]
async fn all_of_it_is_given_to_an_admin() {
    let world = World::with(enrols).await;
    holds(&world, "one", "biz-1").await.unwrap();
    let channel = world.connect(world.tls("ann")).await.unwrap();
    let mut pieces = AuditServiceClient::new(channel)
        .export_audit(v1::ExportAuditRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut told = Vec::new();
    while let Some(piece) = within("the audit", pieces.message()).await.unwrap() {
        told.extend(piece.lines);
    }
    let text = String::from_utf8(told).unwrap();
    assert!(text.contains("SetHold") && text.contains("ExportAudit"), "{text}");
}

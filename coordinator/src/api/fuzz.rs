//! Requests of operators for the fuzzer, as far as services look at them before they act: read, noted for the audit, converted and
//! checked. What comes next has to do with values that were let through, so those are looked at here.

use std::sync::{Arc, LazyLock};

use blackstart_proto::{Message, v1};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::asked::asked;
use super::convert::brakes;
use super::runbook_service;
use super::trust_service::reason;
use crate::audit::chain::{Head, What, line};
use crate::fleet::view::FleetView;
use crate::inventory::{ClusterName, Inventory};
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::pki::CertificateRequest;
use crate::plan::cold_start;
use crate::policy::ColdStartPolicy;
use crate::runbooks::declared::Declared;
use crate::runbooks::plan::Request;
use crate::trust::book::Subject;

/// The calls of operators. The first byte of an input says which one the rest is of, counted from here; so what was learned of one stays of it
/// only if new ones come last.
const CALLS: [&str; 39] = [
    "FleetService/ListClusters",
    "FleetService/ListNodes",
    "FleetService/GetNode",
    "FleetService/ListConditions",
    "FleetService/ListRemedies",
    "FleetService/ListRuns",
    "FleetService/GetRun",
    "FleetService/WatchEvents",
    "FleetService/WatchRun",
    "FleetService/PlanColdStart",
    "FleetService/StartColdStart",
    "FleetService/PauseRun",
    "FleetService/ResumeRun",
    "FleetService/AbortRun",
    "FleetService/ListHolds",
    "FleetService/SetHold",
    "FleetService/LiftHold",
    "FleetService/ListStorms",
    "FleetService/ThawStorm",
    "FleetService/ListPermits",
    "FleetService/ReleasePermit",
    "CoordinatorService/ListCoordinators",
    "RunbookService/ListRunbooks",
    "RunbookService/PlanRunbook",
    "RunbookService/StartRunbook",
    "RunbookService/ListRunbookRuns",
    "RunbookService/GetRunbookRun",
    "RunbookService/ApproveRunbook",
    "RunbookService/AbortRunbook",
    "RunbookService/DiagnosePods",
    "RunbookService/ListWorkloads",
    "RunbookService/GetEtcd",
    "RunbookService/VerifyEtcdSnapshots",
    "RunbookService/FetchEtcdSnapshot",
    "TrustService/CreateToken",
    "TrustService/Revoke",
    "TrustService/AllowRenewal",
    "AuditService/VerifyAudit",
    "TrustService/RenewOperator",
];

static INVENTORY: LazyLock<Arc<Inventory>> = LazyLock::new(|| {
    let text = "clusters:\n- name: biz\n  nodes:\n  - {name: biz-1, address: 10.0.0.1, role: control-plane}\n  - {name: biz-2, address: 10.0.0.2}\n\
                - name: app\n  after: [biz]\n  nodes:\n  - {name: app-1, address: 10.0.1.1, role: control-plane}\n";
    crate::inventory::parse("inventory.yaml", text)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .inventory
        .into()
});

static DECLARED: LazyLock<[Declared; 1]> = LazyLock::new(|| {
    [Declared {
        name: "gateway".to_owned(),
        cluster: ClusterName("biz".to_owned()),
        namespace: "edge".to_owned(),
        kind: WorkloadKind::Deployment,
        object: "gateway".to_owned(),
        needs: Vec::new(),
        add_memory: 0,
        changes_by_itself: false,
    }]
});

/// A refusal tells its reason, and is not the server's fault.
fn refusal(status: &Status) {
    let code = status.code();
    assert!(
        matches!(
            code,
            Code::InvalidArgument | Code::NotFound | Code::PermissionDenied
        ),
        "{status}"
    );
    assert!(!status.message().is_empty());
}

/// One request of an operator.
pub(crate) fn request(bytes: &[u8]) {
    let Some((which, message)) = bytes.split_first() else {
        return;
    };
    let call = CALLS[usize::from(*which) % CALLS.len()];
    noted(call, message);
    match call.split_once('/').map_or(call, |(_, name)| name) {
        "PlanColdStart" | "StartColdStart" => read(message, cold_start_of),
        "SetHold" => read(message, |asked: v1::SetHoldRequest| {
            hold(asked.scope(), asked.target.clone(), &asked.remedy, asked.silence);
        }),
        "LiftHold" => read(message, |asked: v1::LiftHoldRequest| {
            hold(asked.scope(), asked.target.clone(), &asked.remedy, asked.silence);
        }),
        "PlanRunbook" | "StartRunbook" => read(message, runbook),
        "Revoke" => read(message, |asked: v1::RevokeRequest| {
            if let Ok(subject) = asked.subject.parse::<Subject>() {
                assert_eq!(subject.to_string().parse(), Ok(subject));
            }
            words(&asked.reason);
        }),
        "AllowRenewal" => read(message, |asked: v1::AllowRenewalRequest| words(&asked.reason)),
        "RenewOperator" => read(message, |asked: v1::RenewOperatorRequest| {
            if let Ok(request) = CertificateRequest::read(&asked.request) {
                assert_eq!(request.key().len(), 64);
            }
        }),
        // What these have is looked up as it is.
        _ => read_any(message),
    }
}

fn read<M: Message + Default>(message: &[u8], look: impl FnOnce(M)) {
    if let Ok(message) = M::decode(message) {
        look(message);
    }
}

/// Names and numbers, by which something is found or is not.
fn read_any(message: &[u8]) {
    fn is_read<M: Message + Default + PartialEq>(message: &[u8]) {
        if let Ok(read) = M::decode(message) {
            let again = M::decode(read.encode_to_vec().as_slice());
            assert!(again.is_ok_and(|again| again == read));
        }
    }
    is_read::<v1::ListConditionsRequest>(message);
    is_read::<v1::WatchEventsRequest>(message);
    is_read::<v1::RunControlRequest>(message);
    is_read::<v1::ListPermitsRequest>(message);
    is_read::<v1::ReleasePermitRequest>(message);
    is_read::<v1::ThawStormRequest>(message);
    is_read::<v1::DiagnosePodsRequest>(message);
    is_read::<v1::FetchEtcdSnapshotRequest>(message);
    is_read::<v1::CreateTokenRequest>(message);
    is_read::<v1::VerifyAuditRequest>(message);
}

/// What the audit says of it is one line, whatever it has in it.
fn noted(call: &str, message: &[u8]) {
    let framed = [&[0; 5], message].concat();
    let what = What {
        who: "operator ann".to_owned(),
        what: call.to_owned(),
        asked: asked(&format!("/blackstart.v1.{call}"), &framed),
        outcome: "asked".to_owned(),
        ..What::default()
    };
    let (line, _) = line(&Head::default(), 0, what).expect("text is JSON");
    assert_eq!(line.find('\n'), Some(line.len() - 1));
    assert!(!line.trim_end().contains(char::is_control), "{line:?}");
}

fn words(given: &str) {
    match reason(given, "this") {
        Ok(kept) => assert!((1..=1024).contains(&kept.chars().count())),
        Err(status) => refusal(&status),
    }
}

fn hold(scope: v1::HoldScope, target: String, remedy: &str, silence: bool) {
    if let Err(status) = brakes::scope(scope, target) {
        refusal(&status);
    }
    if let Err(status) = brakes::held(remedy, silence) {
        refusal(&status);
    }
}

fn cold_start_of(asked: v1::ColdStartRequest) {
    let clusters: Vec<_> = asked.clusters.into_iter().map(ClusterName).collect();
    if clusters.iter().any(|name| INVENTORY.cluster(name).is_none()) {
        return;
    }
    let now = Instant::now();
    let view = FleetView {
        at: now,
        nodes: std::collections::BTreeMap::new(),
        own_unclean_boot: false,
        began_at: now,
    };
    let plan = cold_start::plan(&INVENTORY, &view, &ColdStartPolicy::default(), &clusters);
    let of = |name| INVENTORY.node(name).map(|spec| &spec.cluster);
    for node in plan.releases() {
        let cluster = of(node).expect("a node of the inventory");
        assert!(clusters.is_empty() || clusters.contains(cluster));
    }
}

fn runbook(wire: v1::RunbookRequest) {
    let asked = match runbook_service::asked("ann", wire, &*DECLARED) {
        Ok(asked) => asked,
        Err(status) => return refusal(&status),
    };
    assert!(asked.reason.chars().count() <= 1024 && asked.options.pods.len() <= 100);
    assert!(!asked.about().is_empty() || asked.node.0.is_empty());
    if let Some(subject) = &asked.subject {
        for name in [&subject.cluster.0, &subject.namespace] {
            assert!(runbook_service::is_name(name), "{name:?}");
        }
    }
    // A run that is taken up again is the run that was begun.
    let kept = serde_json::to_vec(&asked).expect("text is JSON");
    let again: Request = serde_json::from_slice(&kept).expect("what was written can be read");
    assert_eq!(again, asked);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::rights::{For, of_call};

    const PROTOS: [&str; 4] = [
        include_str!("../../../proto/proto/blackstart/v1/fleet.proto"),
        include_str!("../../../proto/proto/blackstart/v1/runbook.proto"),
        include_str!("../../../proto/proto/blackstart/v1/enrolment.proto"),
        include_str!("../../../proto/proto/blackstart/v1/audit.proto"),
    ];

    #[test]
    fn every_call_with_something_in_it_is_fuzzed() {
        // Nothing can be said in these, or an id that is looked up.
        const EMPTY: [&str; 4] = ["ListTokens", "ListCertificates", "RevokeToken", "ExportAudit"];
        let mut service = "";
        for text in PROTOS.iter().flat_map(|proto| proto.lines()) {
            let mut words = text.trim().split([' ', '(']);
            match words.next() {
                Some("service") => service = words.next().unwrap(),
                Some("rpc") => {
                    let name = words.next().unwrap();
                    let call = format!("{service}/{name}");
                    if matches!(
                        of_call(&format!("/blackstart.v1.{call}")),
                        Some(For::Operators(_))
                    ) {
                        assert!(
                            CALLS.contains(&call.as_str()) || EMPTY.contains(&name),
                            "{call}: add it to CALLS, as the last"
                        );
                    }
                }
                Some(_) | None => {}
            }
        }
    }
}

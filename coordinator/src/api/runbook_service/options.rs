//! What only some runbooks are told, from the wire.

use blackstart_proto::part::Part;
use blackstart_proto::v1;
use tonic::Status;

use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::objects::Key;
use crate::kubernetes::objects::workload::WorkloadName;
use crate::runbooks::options::Options;

/// More pods or workloads than this are not named by a person.
const MANY: usize = 100;

pub(super) fn asked(wire: &v1::RunbookRequest) -> Result<Options, Status> {
    if wire.pods.len() > MANY || wire.workloads.len() > MANY {
        return Err(Status::invalid_argument(format!(
            "no more than {MANY} pods or workloads"
        )));
    }
    let given = |number: u32| (number > 0).then_some(number);
    Ok(Options {
        cluster: (!wire.cluster.is_empty()).then(|| ClusterName(wire.cluster.clone())),
        workloads: wire
            .workloads
            .iter()
            .map(|text| workload(text))
            .collect::<Result<_, _>>()?,
        tolerate_seconds: given(wire.tolerate_seconds),
        pods: wire.pods.iter().map(|text| pod(text)).collect::<Result<_, _>>()?,
        threshold_percent: given(wire.threshold_percent),
        hold_seconds: given(wire.hold_seconds),
        at_most: given(wire.at_most),
        part: part(&wire.component)?,
        restart: wire.restart,
        etcd_servers: (!wire.etcd_servers.is_empty()).then(|| wire.etcd_servers.clone()),
        on: (!wire.on.is_empty()).then(|| NodeName(wire.on.clone())),
        fence: false,
        despite_storm: wire.despite_storm,
        proposed: None,
    })
}

fn part(text: &str) -> Result<Option<Part>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let part = Part::named(text);
    part.map(Some).ok_or_else(|| {
        let names = Part::ALL.map(Part::as_str).join(", ");
        let hint = if text == "etcd" {
            "; etcd has runbooks of its own: etcd-member, etcd-quorum"
        } else {
            ""
        };
        Status::invalid_argument(format!("{text:?} is no part of a control plane: {names}{hint}"))
    })
}

fn workload(text: &str) -> Result<WorkloadName, Status> {
    WorkloadName::parse(text).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{text:?} is no workload: NAMESPACE/KIND/NAME, such as gateway-system/deployment/gateway-proxy"
        ))
    })
}

fn pod(text: &str) -> Result<Key, Status> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Key {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        Some(_) | None => Err(Status::invalid_argument(format!(
            "{text:?} is no pod: NAMESPACE/NAME"
        ))),
    }
}

//! Reads a [`Case`] from a cluster's API: a few lists of one namespace, or of one node.

use serde_json::Value;

use super::Case;
use crate::kubernetes::Cluster;
use crate::kubernetes::detail::{
    Event, PodDetail, Room, Workload, claim, has_ready_address, memory_bounds, quota_room,
};
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::kubernetes::reads::{ReadError, encoded};
use crate::kubernetes::rights::Resource;

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runbooks) enum Place<'a> {
    /// Everywhere in a namespace; of all namespaces if it is empty.
    Namespace(&'a str),
    /// The pods of a node.
    Node(&'a str),
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runbooks) enum Depth {
    /// Pods and those who make them: what steps go by.
    Pods,
    /// Also what explains why pods do not run.
    Reasons,
}

/// Reads it. `needs`: services whose readiness matters, by namespace and name.
///
/// # Errors
/// Pods, or those who make them, could not be read: nothing can be said without.
pub(in crate::runbooks) async fn read(
    cluster: &Cluster,
    place: Place<'_>,
    depth: Depth,
    needs: &[(String, String)],
) -> Result<Case, String> {
    let (within, narrowed) = match place {
        Place::Namespace(namespace) => (namespace, String::new()),
        Place::Node(node) => ("", format!("&fieldSelector=spec.nodeName%3D{}", encoded(node))),
    };
    let told = |what: &str, error: &ReadError| format!("{what} in cluster {}: {error}", cluster.name());
    let mut case = Case::default();
    let pods = cluster
        .objects(Resource::Pods, within, &narrowed)
        .await
        .map_err(|error| told("list pods", &error))?;
    case.pods = pods.iter().filter_map(PodDetail::read).collect();
    let kinds: &[WorkloadKind] = match place {
        Place::Namespace(_) => &WorkloadKind::ALL,
        Place::Node(_) => &[WorkloadKind::DaemonSet],
    };
    for kind in kinds {
        let objects = cluster
            .objects((*kind).into(), within, "")
            .await
            .map_err(|error| told(&format!("list {}", kind.plural()), &error))?;
        case.workloads
            .extend(objects.iter().map(|object| Workload::read(*kind, object)));
    }
    if depth == Depth::Reasons {
        reasons(cluster, within, &mut case).await;
    }
    for (namespace, service) in needs {
        let ready = match cluster.object(Resource::Endpoints, namespace, service).await {
            Ok(endpoints) => Ok(has_ready_address(&endpoints)),
            Err(ReadError::Gone) => Ok(false),
            Err(error) => Err(told(&format!("get endpoints {namespace}/{service}"), &error)),
        };
        case.needs.insert(format!("{namespace}/{service}"), ready);
    }
    Ok(case)
}

/// What explains; what cannot be read is named, and the rest is judged without it.
async fn reasons(cluster: &Cluster, within: &str, case: &mut Case) {
    let mut lacks = Vec::new();
    let mut list = async |resource: Resource, within: &str, what: &str| match cluster
        .objects(resource, within, "")
        .await
    {
        Ok(objects) => objects,
        Err(error) => {
            lacks.push(format!("{what}: {error}"));
            Vec::new()
        }
    };
    let events = list(Resource::Events, within, "events").await;
    case.events = events.iter().map(Event::read).collect();
    case.events.sort_by_key(|event| std::cmp::Reverse(event.last));
    let ranges = list(Resource::LimitRanges, within, "limit ranges").await;
    case.bounds = ranges.iter().flat_map(memory_bounds).collect();
    let quotas = list(Resource::Quotas, within, "resource quotas").await;
    case.quotas = quotas.iter().map(quota_room).collect();
    let claims = list(Resource::Claims, within, "persistent volume claims").await;
    case.claims = claims.iter().map(claim).collect();
    let nodes = list(Resource::Nodes, "", "nodes").await;
    case.rooms = nodes.iter().map(Room::read).collect();
    if case
        .events
        .iter()
        .any(|event| event.message.contains("free ports"))
    {
        let all = list(Resource::Pods, "", "pods of other namespaces").await;
        let holds = |pod: &PodDetail| !pod.host_ports.is_empty() && !pod.node.is_empty() && !pod.is_over();
        case.holders = all
            .iter()
            .filter(|pod| has_host_port(pod))
            .filter_map(PodDetail::read)
            .filter(holds)
            .collect();
    }
    case.lacks = lacks;
}

fn has_host_port(pod: &Value) -> bool {
    let containers = pod["spec"]["containers"].as_array();
    let mut ports = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    ports.any(|port| port["hostPort"].as_u64().is_some_and(|number| number > 0))
}

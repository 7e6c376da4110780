//! Takes the [`World`] of a node from what the coordinator knows: caches, sessions, silences. Waits for nothing; what has to be asked of
//! a cluster first is asked by [`ask`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::around::{Around, Finding, Neighbours, Pressed};
use super::case::Case;
use super::case::read::{Depth, Place, read};
use super::etcd_newcomer;
use super::node_down::dead;
use super::plan::{Request, Runbook, RunbookPlan};
use super::readiness::Readiness;
use super::subject::Subject;
use super::weather::Weather;
use super::world::{Agent, Api, Silence, World};
use super::{Ports, unix_ms};
use crate::brakes::{Held, Scope};
use crate::fleet::view::{FleetView, GateState, NodeView, Phase};
use crate::inventory::{ClusterName, NodeName, NodeSpec, Role};
use crate::quorum::eyes::hosts;

/// The conditions by which agents tell that a disk is short.
const DISKS: [&str; 4] = ["DiskPressure", "DiskFilling", "InodePressure", "LogRunaway"];

/// What is known beside [`Ports`].
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) weather: &'a Weather,
    pub(super) readiness: Option<Readiness>,
}

/// The cluster that a request is about; `None`: it, or the node, is not declared.
pub(super) fn cluster(ports: &Ports, request: &Request) -> Option<ClusterName> {
    if let Some(subject) = &request.subject {
        let cluster = ports.inventory.cluster(&subject.cluster)?;
        return Some(cluster.name.clone());
    }
    if let Some(spec) = ports.inventory.node(&request.node) {
        return Some(spec.cluster.clone());
    }
    let named = request.options.cluster.as_ref();
    let named = named.filter(|_| request.node.0.is_empty() && request.runbook.of_cluster())?;
    ports.inventory.cluster(named).map(|cluster| cluster.name.clone())
}

/// Asks a cluster for what a runbook needs and its caches do not have. Takes seconds at most.
pub(super) async fn ask(ports: &Ports, request: &Request) {
    let Some(name) = cluster(ports, request) else {
        return;
    };
    if tells_api_servers(request.runbook) {
        let etcd = ports.etcd.look_again(&ports.inventory, &name, ETCD);
        let others = ports.control_plane.look_again(&ports.inventory, &name, ETCD);
        tokio::join!(etcd, others);
        return;
    }
    if request.runbook.wants_etcd() {
        return ports.etcd.look_again(&ports.inventory, &name, ETCD).await;
    }
    let cluster = ports.clusters.get(&name).map(Arc::clone);
    let Some(cluster) = cluster else { return };
    let every = ports.timing.usage;
    match request.runbook {
        Runbook::Overload => cluster.ask_usage(every).await,
        Runbook::NetworkLoss | Runbook::ColdStartVerify => cluster.ask_workloads(every.min(WORKLOADS)).await,
        Runbook::Drain
        | Runbook::MaintenanceBegin
        | Runbook::MaintenanceEnd
        | Runbook::NodeDown
        | Runbook::ResourceShortage
        | Runbook::PodsHeal
        | Runbook::WorkloadHeal
        | Runbook::NodeComponent
        | Runbook::EtcdSnapshot
        | Runbook::EtcdMember
        | Runbook::EtcdQuorum
        | Runbook::EtcdAll
        | Runbook::ControlPlane => {}
    }
}

/// Has the disks of masters looked at, for the plan of a restore when nobody answers. Takes minutes where there is much.
pub(super) async fn search(ports: &Ports, request: &Request) {
    let Some(name) = cluster(ports, request).filter(|_| request.runbook == Runbook::EtcdAll) else {
        return;
    };
    let is_lost = ports
        .etcd
        .seen(&name)
        .is_some_and(|glance| glance.view.cluster_id.is_none());
    if is_lost {
        ports.etcd.search(&ports.inventory, &name).await;
    }
}

/// Has the agent of a node that is to have a member, and has none, look what is missing, for the plan of its replacement. Takes some seconds at most.
pub(super) async fn invite(ports: &Ports, request: &Request) {
    let Some(name) = cluster(ports, request).filter(|_| request.runbook == Runbook::EtcdMember) else {
        return;
    };
    let Some(glance) = ports.etcd.seen(&name) else {
        return;
    };
    let (on, addresses) = (request.options.on.as_ref(), addresses(ports, &name));
    let wanted = etcd_newcomer::wanted(&glance.view, &request.node, on, &addresses);
    if let Some(wanted) = wanted {
        ports.etcd.invite(&name, wanted).await;
    }
}

/// Where the nodes of a cluster are that may have a member.
fn addresses(ports: &Ports, cluster: &ClusterName) -> BTreeMap<NodeName, IpAddr> {
    let hosts = hosts(&ports.inventory, cluster).into_iter();
    hosts
        .filter_map(|node| Some((ports.inventory.node(&node)?.address, node)))
        .map(|(address, node)| (node, address))
        .collect()
}

/// It looks at API servers, or tells them of another etcd.
const fn tells_api_servers(runbook: Runbook) -> bool {
    matches!(
        runbook,
        Runbook::ControlPlane | Runbook::EtcdMember | Runbook::EtcdQuorum | Runbook::EtcdAll
    )
}

/// Agents are asked about etcd so often while a run needs it.
const ETCD: std::time::Duration = std::time::Duration::from_secs(1);

/// Asks a machine's management controller for what the plan of a request needs. Takes seconds at most.
pub(super) async fn ask_power(ports: &Ports, request: &Request) {
    let view = Arc::clone(&ports.view.borrow());
    let speaks = view.nodes.get(&request.node).is_some_and(|node| node.in_session);
    // Who speaks is not off.
    if request.runbook == Runbook::NodeDown && !speaks {
        ports.bmcs.ask(&request.node, ports.timing.power / 3).await;
    }
}

/// Workloads are asked for so often while a run waits for them.
const WORKLOADS: std::time::Duration = std::time::Duration::from_secs(5);

/// The world of a request: its node's, or that of no node for what is about pods or a cluster, which is `cluster`.
pub(super) fn world(
    ports: &Ports,
    request: &Request,
    plan: Option<&RunbookPlan>,
    known: &Known<'_>,
    cluster: ClusterName,
) -> World {
    let spec = ports.inventory.node(&request.node);
    let view = Arc::clone(&ports.view.borrow());
    let mut world = bare(ports, &request.node, cluster);
    if request.runbook.wants_etcd() {
        world.etcd = ports.etcd.seen(&world.cluster);
        world.found = ports.etcd.found(&world.cluster);
        world.last = ports.etcd.last(&world.cluster);
    }
    if request.runbook == Runbook::EtcdMember {
        world.addresses = addresses(ports, &world.cluster);
        world.newcomer = ports.etcd.newcomer(&world.cluster);
    }
    if tells_api_servers(request.runbook) {
        world.etcd = ports.etcd.seen(&world.cluster);
        world.control_plane = ports.control_plane.seen(&world.cluster);
        let masters = ports.inventory.members(&world.cluster);
        world.masters = masters
            .filter(|spec| matches!(spec.role, Role::ControlPlane | Role::Etcd))
            .filter_map(|spec| Some((spec.name.clone(), agent(view.nodes.get(&spec.name)?))))
            .collect();
    }
    world.around = around(
        ports,
        request,
        plan,
        known,
        (&world.cluster, spec, &view, world.now),
    );
    world
}

/// What is known of a node alone.
fn bare(ports: &Ports, node: &NodeName, cluster: ClusterName) -> World {
    let spec = ports.inventory.node(node);
    let now = Instant::now();
    let view = Arc::clone(&ports.view.borrow());
    let brakes = ports.brakes.of(node);
    let silence = brakes.holds.iter().find(|hold| hold.what == Held::Silence);
    let silence = silence.filter(|_| !node.0.is_empty());
    let api = match ports.clusters.get(&cluster) {
        Some(cluster) => cluster.view(&node.0, now),
        None => Api::Unknown {
            why: no_way(&cluster),
        },
    };
    World {
        timing: ports.timing,
        now,
        unix_ms: unix_ms(),
        node: node.clone(),
        role: spec.map_or(Role::Worker, |spec| spec.role),
        api,
        agent: view.nodes.get(node).map_or(
            Agent::Silent {
                since: None,
                left: false,
            },
            agent,
        ),
        power: ports.bmcs.word(node),
        silence: silence.map(|hold| Silence {
            by: hold.by.clone(),
            own: hold.scope == Scope::Node(node.clone()),
        }),
        around: Around::default(),
        case: None,
        declared: Arc::clone(&ports.declared),
        etcd: None,
        found: None,
        newcomer: None,
        addresses: BTreeMap::new(),
        last: None,
        control_plane: None,
        masters: BTreeMap::new(),
        cluster,
    }
}

fn no_way(cluster: &ClusterName) -> String {
    format!("the coordinator has no way to the API of cluster {cluster} (`clusters` in its configuration)")
}

/// No more than the runbook needs: a cluster has thousands of pods.
fn around(
    ports: &Ports,
    request: &Request,
    plan: Option<&RunbookPlan>,
    known: &Known<'_>,
    (cluster, spec, view, now): (&ClusterName, Option<&NodeSpec>, &FleetView, Instant),
) -> Around {
    let mut to = Around::default();
    let api = ports.clusters.get(cluster);
    let uids: BTreeSet<_> = plan
        .iter()
        .flat_map(|plan| &plan.pods)
        .map(|pod| pod.uid.as_str())
        .collect();
    let room = || match api {
        Some(api) => api.room(now, ports.timing.fresh, &uids),
        None => Err(no_way(cluster)),
    };
    match request.runbook {
        Runbook::Drain
        | Runbook::MaintenanceBegin
        | Runbook::MaintenanceEnd
        | Runbook::PodsHeal
        | Runbook::WorkloadHeal
        | Runbook::NodeComponent
        | Runbook::EtcdSnapshot
        | Runbook::EtcdMember
        | Runbook::EtcdQuorum
        | Runbook::EtcdAll
        | Runbook::ControlPlane => {}
        Runbook::NodeDown => to.neighbours = neighbours(ports, cluster, spec, view),
        Runbook::Overload => {
            to.conditions = findings(ports, &request.node);
            to.room = room();
            if let Some(api) = api {
                to.usage = api.usage();
                to.samples = api.samples(&request.node.0);
            }
        }
        Runbook::ResourceShortage => {
            to.room = room();
            to.pressed = pressed(ports, cluster, view, to.room.as_ref().ok());
        }
        Runbook::NetworkLoss => {
            to.power_event = known.weather.over(cluster).power_event;
            to.neighbours = neighbours(ports, cluster, spec, view);
            if let Some(api) = api {
                to.workloads = api.workloads();
            }
        }
        Runbook::ColdStartVerify => {
            to.room = room();
            to.before.clone_from(&known.readiness);
            if let Some(api) = api {
                to.workloads = api.workloads();
            }
        }
    }
    to
}

fn findings(ports: &Ports, node: &NodeName) -> BTreeMap<String, Finding> {
    let told = ports.conditions.of(node).into_iter();
    told.map(|one| {
        let finding = Finding {
            since: one.since,
            evidence: one.evidence,
            waiting_on: one.waiting_on,
            heaviest: one.heaviest,
        };
        (one.kind, finding)
    })
    .collect()
}

fn pressed(
    ports: &Ports,
    cluster: &ClusterName,
    view: &FleetView,
    room: Option<&crate::kubernetes::view::Room>,
) -> Vec<Pressed> {
    let mut all = Vec::new();
    for spec in ports.inventory.members(cluster) {
        let findings = findings(ports, &spec.name);
        let by_agent = DISKS.iter().find_map(|kind| {
            let finding = findings.get(*kind)?;
            let waiting = match finding.waiting_on.as_str() {
                "" => String::new(),
                why => format!(" (waits for {why})"),
            };
            Some(format!("{kind}, {}{waiting}", finding.evidence))
        });
        let by_kubelet = room
            .and_then(|room| room.nodes.get(&spec.name.0))
            .filter(|here| here.node.disk_pressure)
            .map(|_| "its kubelet says DiskPressure".to_owned());
        let Some(words) = by_agent.or(by_kubelet) else {
            continue;
        };
        let silence = ports.brakes.of(&spec.name);
        let silence = silence.holds.iter().find(|hold| hold.what == Held::Silence);
        all.push(Pressed {
            node: spec.name.clone(),
            speaks: view.nodes.get(&spec.name).is_some_and(|node| node.in_session),
            silenced_by: silence.map(|hold| hold.by.clone()),
            words,
        });
    }
    all
}

fn neighbours(ports: &Ports, cluster: &ClusterName, spec: Option<&NodeSpec>, view: &FleetView) -> Neighbours {
    let mut to = Neighbours::default();
    let Some(own) = spec else { return to };
    for other in ports
        .inventory
        .members(cluster)
        .filter(|other| other.name != own.name)
    {
        let heard = view.nodes.get(&other.name).is_some_and(|node| node.in_session);
        to.all += 1;
        to.heard += usize::from(heard);
        if own.rack.is_some() && other.rack == own.rack {
            to.in_rack += 1;
            to.heard_in_rack += usize::from(heard);
        }
    }
    to
}

/// Reads what a request is about. Waits for the API, for seconds.
pub(super) async fn case(ports: &Ports, request: &Request, depth: Depth) -> Result<Case, String> {
    if let Some(subject) = &request.subject {
        return case_of(ports, subject, depth).await;
    }
    let node = &request.node;
    let spec = ports.inventory.node(node);
    let cluster = spec.and_then(|spec| ports.clusters.get(&spec.cluster));
    let Some(cluster) = cluster else {
        return Err(spec.map_or_else(String::new, |spec| no_way(&spec.cluster)));
    };
    read(cluster, Place::Node(&node.0), depth, &[]).await
}

/// The same, of a subject.
pub(super) async fn case_of(ports: &Ports, subject: &Subject, depth: Depth) -> Result<Case, String> {
    let cluster = ports
        .clusters
        .get(&subject.cluster)
        .ok_or_else(|| no_way(&subject.cluster))?;
    let mut needs: Vec<_> = ports
        .declared
        .iter()
        .filter(|one| {
            depth == Depth::Reasons && one.cluster == subject.cluster && one.namespace == subject.namespace
        })
        .flat_map(|one| one.needs.iter().cloned())
        .collect();
    needs.sort();
    needs.dedup();
    let mut case = read(cluster, Place::Namespace(&subject.namespace), depth, &needs).await?;
    let ending: BTreeSet<_> = case
        .pods
        .iter()
        .filter(|pod| pod.deleted.is_some() && !pod.node.is_empty())
        .map(|pod| pod.node.clone())
        .collect();
    for node in ending {
        let name = NodeName(node.clone());
        let is_ours = ports
            .inventory
            .node(&name)
            .is_some_and(|spec| spec.cluster == subject.cluster);
        if is_ours {
            let world = bare(ports, &name, subject.cluster.clone());
            case.down.insert(node, dead(&world));
        }
    }
    Ok(case)
}

fn agent(node: &NodeView) -> Agent {
    match &node.attestation {
        Some(said) if node.in_session => Agent::Speaks {
            kubelet_active: said.kubelet_active,
            kubelet_healthy: said.kubelet_healthy,
            held: said.gate == GateState::Held,
            observed: said.observed_at,
        },
        Some(_) | None => Agent::Silent {
            since: (node.phase != Phase::Unknown).then_some(node.phase_since),
            left: node.phase == Phase::Stopped,
        },
    }
}

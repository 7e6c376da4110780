//! What operators see and steer. Every call wants an operator's certificate; what changes something is logged with the
//! operator's name, and the run keeps it.

use std::sync::Arc;

use blackstart_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use blackstart_proto::{leader, v1};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Extensions, Request, Response, Status};

use super::convert::{brakes, operator as convert};
use super::door::allowed;
use super::{auth, follow, permits};
use crate::brakes::Scope;
use crate::events::Events;
use crate::execute::status::RunStatus;
use crate::execute::typical::typical;
use crate::execute::{Executor, Refusal};
use crate::fleet::view::Phase;
use crate::fleet::{Fleet, Holds, NodeState};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec, Role};
use crate::permit::PermitsHandle;
use crate::plan::estimate::estimate;
use crate::plan::{Plan, cold_start};
use crate::policy::ColdStartPolicy;
use crate::trust::rights::{Place, Right};

/// An operator's message is no larger.
pub(super) const MAX_MESSAGE: usize = 256 << 10;
/// Bytes of an operator's reason that are kept.
const REASON: usize = 1024;

/// The service that operators call.
#[derive(Debug)]
pub struct Operators {
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// How a cold start is planned.
    pub policy: ColdStartPolicy,
    /// The live picture.
    pub fleet: Fleet,
    /// Runs.
    pub executor: Executor,
    /// What is held and frozen.
    pub holds: super::holds::Holds,
    /// Who may be away.
    pub permits: PermitsHandle,
    /// What happened.
    pub events: Events,
    /// Each stream is one of its tasks…
    pub tasks: TaskTracker,
    /// …and ends when this says so.
    pub stop: CancellationToken,
}

impl Operators {
    /// The service, with its limits.
    pub fn serve(self) -> FleetServiceServer<Self> {
        FleetServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    /// `Some`: the cluster that was asked for. `None`: all.
    fn cluster(&self, name: String) -> Result<Option<ClusterName>, Status> {
        if name.is_empty() {
            return Ok(None);
        }
        let cluster = ClusterName(name);
        match self.inventory.cluster(&cluster) {
            Some(_) => Ok(Some(cluster)),
            None => Err(Status::not_found(format!(
                "cluster {cluster} is not in the inventory"
            ))),
        }
    }

    fn node(&self, name: String) -> Result<&NodeSpec, Status> {
        let name = NodeName(name);
        self.inventory
            .node(&name)
            .ok_or_else(|| Status::not_found(format!("node {name} is not in the inventory")))
    }

    /// The nodes that are asked for, with what is known of each.
    fn look<T>(
        &self,
        cluster: String,
        node: String,
        mut take: impl FnMut(&NodeSpec, &NodeState) -> Option<T>,
    ) -> Result<Vec<T>, Status> {
        let cluster = self.cluster(cluster)?;
        let node = match node.as_str() {
            "" => None,
            _ => Some(self.node(node)?),
        };
        let wanted = |spec: &&NodeSpec| {
            cluster.as_ref().is_none_or(|cluster| spec.cluster == *cluster)
                && node.is_none_or(|node| spec.name == node.name)
        };
        Ok(self.fleet.read(|state| {
            self.inventory
                .nodes
                .values()
                .filter(wanted)
                .filter_map(|spec| take(spec, state.node(&spec.name)?))
                .collect()
        }))
    }

    fn summary(holds: &Holds, spec: &NodeSpec, node: &NodeState, now: Instant) -> v1::NodeSummary {
        convert::node_summary(spec, node, holds.get(&spec.name), now)
    }

    fn run(&self, id: &str) -> Result<Arc<RunStatus>, Status> {
        let run = self.executor.run(id);
        run.ok_or_else(|| Status::not_found(format!("there is no run {id:?}")))
    }

    /// May the caller operate on this run? Its clusters are those of the nodes that it may release.
    fn may_steer(&self, call: &Extensions, id: &str) -> Result<(), Status> {
        let run = self.run(id)?;
        let mut clusters: Vec<_> = run
            .plan
            .releases()
            .filter_map(|name| self.inventory.node(name))
            .map(|spec| &spec.cluster)
            .collect();
        clusters.sort();
        clusters.dedup();
        if clusters.is_empty() {
            return allowed(call, Right::Operate, Place::Everywhere);
        }
        let mut each = clusters.into_iter().map(Place::In);
        each.try_for_each(|place| allowed(call, Right::Operate, place))
    }

    /// May the caller hold what this is about?
    fn may_hold(&self, call: &Extensions, scope: v1::HoldScope, target: &str) -> Result<(), Status> {
        let scope = brakes::scope(scope, target.to_owned())?;
        let place = match &scope {
            Scope::Node(name) => match self.inventory.node(name) {
                Some(spec) => Place::In(&spec.cluster),
                None => Place::Everywhere,
            },
            Scope::Cluster(name) => Place::In(name),
            Scope::Fleet => Place::Everywhere,
        };
        allowed(call, Right::Operate, place)
    }

    fn plan(&self, clusters: Vec<String>) -> Result<Plan, Status> {
        let clusters: Vec<_> = clusters
            .into_iter()
            .map(|name| self.cluster(name))
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        let view = Arc::clone(&self.fleet.view().borrow());
        Ok(cold_start::plan(&self.inventory, &view, &self.policy, &clusters))
    }
}

/// Why the executor did not do it, as a status.
fn refused(refusal: &Refusal) -> Status {
    let why = refusal.to_string();
    match refusal {
        Refusal::Unknown(_) => Status::not_found(why),
        Refusal::Ended { .. }
        | Refusal::Findings(_)
        | Refusal::Overlap { .. }
        | Refusal::Superseded(_)
        | Refusal::Journal(_) => Status::failed_precondition(why),
        Refusal::Stopping => Status::unavailable(why),
    }
}

/// The answer to an operator's word on a run; logged with who said it.
fn steered(
    operator: &str,
    word: &'static str,
    id: &str,
    done: Result<Arc<RunStatus>, Refusal>,
) -> Result<Response<v1::RunSummary>, Status> {
    match done {
        Ok(run) => {
            tracing::info!(operator, word, run = id, state = ?run.state, "an operator steers a run");
            Ok(Response::new(convert::run_summary(&run)))
        }
        Err(refusal) => {
            tracing::info!(operator, word, run = id, why = %refusal, "an operator's word was refused");
            Err(refused(&refusal))
        }
    }
}

#[tonic::async_trait]
impl FleetService for Operators {
    type WatchEventsStream = ReceiverStream<Result<v1::Event, Status>>;
    type WatchRunStream = ReceiverStream<Result<v1::RunDetail, Status>>;

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        auth::require_operator(&request)?;
        let clusters = self.fleet.read(|state| {
            let clusters = self.inventory.clusters.iter().map(|cluster| {
                let mut summary = v1::ClusterSummary {
                    name: cluster.name.0.clone(),
                    after: cluster.after.iter().map(|name| name.0.clone()).collect(),
                    ..v1::ClusterSummary::default()
                };
                for spec in self.inventory.members(&cluster.name) {
                    if let Some(node) = state.node(&spec.name) {
                        count(&mut summary, spec, node);
                    }
                }
                summary
            });
            clusters.collect()
        });
        Ok(Response::new(v1::ListClustersResponse { clusters }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        auth::require_operator(&request)?;
        let holds = self.fleet.holds();
        let holds = holds.borrow();
        let now = Instant::now();
        let nodes = self.look(request.into_inner().cluster, String::new(), |spec, node| {
            Some(Self::summary(&holds, spec, node, now))
        })?;
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::NodeDetail>, Status> {
        auth::require_operator(&request)?;
        let spec = self.node(request.into_inner().name)?;
        let holds = self.fleet.holds();
        let holds = holds.borrow();
        let now = Instant::now();
        let held = self.holds.brakes.of(&spec.name);
        let detail = self.fleet.read(|state| {
            let node = state.node(&spec.name)?;
            let summary = Self::summary(&holds, spec, node, now);
            let mut detail = convert::node_detail(summary, node, now);
            detail
                .holds
                .extend(held.holds.iter().map(|hold| brakes::hold(hold, now)));
            detail.freezes = brakes::freezes(&held, self.holds.term);
            Some(detail)
        });
        detail
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("node {} is not known", spec.name)))
    }

    async fn list_conditions(
        &self,
        request: Request<v1::ListConditionsRequest>,
    ) -> Result<Response<v1::ListConditionsResponse>, Status> {
        auth::require_operator(&request)?;
        let asked = request.into_inner();
        let (of_cluster, of_node) = (asked.cluster.clone(), asked.node.clone());
        let now = Instant::now();
        let of_nodes = self.look(asked.cluster, asked.node, |spec, node| {
            let conditions = node.conditions().iter().map(|condition| v1::NodeCondition {
                node: spec.name.0.clone(),
                cluster: spec.cluster.0.clone(),
                condition: Some(convert::condition(condition, now)),
            });
            Some(conditions.collect::<Vec<_>>())
        })?;
        let mut conditions = of_nodes.concat();
        if of_node.is_empty() {
            let storms = self.holds.storms(&self.inventory, &self.fleet);
            let wanted = |storm: &v1::Storm| of_cluster.is_empty() || storm.cluster == of_cluster;
            conditions.extend(storms.into_iter().filter(wanted).map(convert::storm_condition));
        }
        Ok(Response::new(v1::ListConditionsResponse { conditions }))
    }

    async fn list_remedies(
        &self,
        request: Request<v1::ListRemediesRequest>,
    ) -> Result<Response<v1::ListRemediesResponse>, Status> {
        auth::require_operator(&request)?;
        let asked = request.into_inner();
        let of_nodes = self.look(asked.cluster, asked.node, |spec, node| {
            let remedies = node.remedies().map(|remedy| v1::NodeRemedy {
                node: spec.name.0.clone(),
                cluster: spec.cluster.0.clone(),
                remedy: Some(convert::remedy(remedy)),
            });
            Some(remedies.collect::<Vec<_>>())
        })?;
        let remedies = of_nodes.concat();
        Ok(Response::new(v1::ListRemediesResponse { remedies }))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        auth::require_operator(&request)?;
        let runs = self.executor.runs();
        let runs = runs.iter().map(|run| convert::run_summary(run)).collect();
        Ok(Response::new(v1::ListRunsResponse { runs }))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::RunDetail>, Status> {
        auth::require_operator(&request)?;
        let run = self.run(&request.into_inner().id)?;
        Ok(Response::new(convert::run_detail(&run, &self.inventory)))
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        auth::require_operator(&request)?;
        let asked = request.into_inner();
        let node = match asked.node.as_str() {
            "" => None,
            _ => Some(self.node(asked.node)?.name.clone()),
        };
        let (reader, stream) = mpsc::channel(follow::BACKLOG);
        let events = follow::events(self.events.clone(), asked.follow, node, reader, self.stop.clone());
        self.tasks.spawn(events);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn watch_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        auth::require_operator(&request)?;
        let id = request.into_inner().id;
        let runs = self.executor.watch();
        self.run(&id)?;
        // One at a time: a slow reader gets the newest when it is ready.
        let (reader, stream) = mpsc::channel(1);
        let inventory = Arc::clone(&self.inventory);
        let run = follow::run(id, runs, inventory, reader, self.stop.clone());
        self.tasks.spawn(run);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn plan_cold_start(
        &self,
        request: Request<v1::ColdStartRequest>,
    ) -> Result<Response<v1::Plan>, Status> {
        auth::require_operator(&request)?;
        let plan = self.plan(request.into_inner().clusters)?;
        let view = Arc::clone(&self.fleet.view().borrow());
        let typical = typical(&self.executor.runs(), &self.policy.typical);
        let estimate = estimate(&plan, &view, &typical, &self.policy.wave);
        Ok(Response::new(convert::estimated(
            &plan,
            &estimate,
            &self.inventory,
        )))
    }

    async fn start_cold_start(
        &self,
        request: Request<v1::ColdStartRequest>,
    ) -> Result<Response<v1::RunSummary>, Status> {
        let auth::Caller { operator, by_way_of } = auth::caller_of(&request)?;
        let named = leader::request(request.metadata().as_ref()).map(str::to_owned);
        if request.get_ref().clusters.is_empty() {
            allowed(request.extensions(), Right::Operate, Place::Everywhere)?;
        }
        for cluster in &request.get_ref().clusters {
            let cluster = ClusterName(cluster.clone());
            allowed(request.extensions(), Right::Operate, Place::In(&cluster))?;
        }
        let asked = request.into_inner();
        let plan = self.plan(asked.clusters)?;
        let runs = self.executor.runs();
        // Asked again because its answer was lost, perhaps of the leader before.
        let begun = runs
            .iter()
            .find(|run| run.request.is_some() && run.request == named);
        if let Some(run) = begun {
            return steered(&operator, "start", &run.id, Ok(Arc::clone(run)));
        }
        let other = runs
            .iter()
            .find(|run| run.state.is_active() && run.plan.runbook == cold_start::RUNBOOK);
        if let Some(other) = other {
            return Err(Status::failed_precondition(format!(
                "{} is active; follow it, or abort it first",
                other.id
            )));
        }
        let reason: String = asked.reason.chars().take(REASON).collect();
        let way = by_way_of.map_or_else(String::new, |follower| format!(" by way of {follower}"));
        let reason = match reason.trim() {
            "" => format!("operator {operator}{way}"),
            why => format!("operator {operator}{way}: {why}"),
        };
        let started = self.executor.start_once(plan, reason, named).await;
        let id = started
            .as_ref()
            .map_or_else(|_| String::new(), |run| run.id.clone());
        steered(&operator, "start", &id, started)
    }

    async fn pause_run(
        &self,
        request: Request<v1::RunControlRequest>,
    ) -> Result<Response<v1::RunSummary>, Status> {
        let operator = auth::require_operator(&request)?;
        self.may_steer(request.extensions(), &request.get_ref().id)?;
        let id = request.into_inner().id;
        steered(&operator, "pause", &id, self.executor.pause(&id).await)
    }

    async fn resume_run(
        &self,
        request: Request<v1::RunControlRequest>,
    ) -> Result<Response<v1::RunSummary>, Status> {
        let operator = auth::require_operator(&request)?;
        self.may_steer(request.extensions(), &request.get_ref().id)?;
        let id = request.into_inner().id;
        steered(&operator, "resume", &id, self.executor.resume(&id).await)
    }

    async fn abort_run(
        &self,
        request: Request<v1::RunControlRequest>,
    ) -> Result<Response<v1::RunSummary>, Status> {
        let operator = auth::require_operator(&request)?;
        self.may_steer(request.extensions(), &request.get_ref().id)?;
        let id = request.into_inner().id;
        steered(&operator, "abort", &id, self.executor.abort(&id).await)
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        auth::require_operator(&request)?;
        let holds = self.holds.list(&self.inventory, &request.into_inner());
        Ok(Response::new(v1::ListHoldsResponse { holds }))
    }

    async fn set_hold(
        &self,
        request: Request<v1::SetHoldRequest>,
    ) -> Result<Response<v1::HoldDetail>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = request.get_ref();
        self.may_hold(request.extensions(), asked.scope(), &asked.target)?;
        let asked = request.into_inner();
        let set = self.holds.set(&self.inventory, &self.events, operator, asked);
        set.await.map(Response::new)
    }

    async fn lift_hold(
        &self,
        request: Request<v1::LiftHoldRequest>,
    ) -> Result<Response<v1::HoldDetail>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = request.get_ref();
        self.may_hold(request.extensions(), asked.scope(), &asked.target)?;
        let asked = request.into_inner();
        let lift = self.holds.lift(&self.inventory, &self.events, operator, asked);
        lift.await.map(Response::new)
    }

    async fn list_storms(
        &self,
        request: Request<v1::ListStormsRequest>,
    ) -> Result<Response<v1::ListStormsResponse>, Status> {
        auth::require_operator(&request)?;
        let storms = self.holds.storms(&self.inventory, &self.fleet);
        Ok(Response::new(v1::ListStormsResponse { storms }))
    }

    async fn thaw_storm(
        &self,
        request: Request<v1::ThawStormRequest>,
    ) -> Result<Response<v1::ListStormsResponse>, Status> {
        let operator = auth::require_operator(&request)?;
        let cluster = ClusterName(request.get_ref().cluster.clone());
        allowed(request.extensions(), Right::Operate, Place::In(&cluster))?;
        let storms = self.holds.thaw(operator, request.into_inner()).await?;
        Ok(Response::new(v1::ListStormsResponse { storms }))
    }

    async fn list_permits(
        &self,
        request: Request<v1::ListPermitsRequest>,
    ) -> Result<Response<v1::ListPermitsResponse>, Status> {
        auth::require_operator(&request)?;
        let permits = permits::list(&self.permits, &self.inventory, &request.into_inner());
        Ok(Response::new(v1::ListPermitsResponse { permits }))
    }

    async fn release_permit(
        &self,
        request: Request<v1::ReleasePermitRequest>,
    ) -> Result<Response<v1::ListPermitsResponse>, Status> {
        let operator = auth::require_operator(&request)?;
        let cluster = &self.node(request.get_ref().node.clone())?.cluster;
        allowed(request.extensions(), Right::Operate, Place::In(cluster))?;
        let (asked, to) = (request.into_inner(), &self.permits);
        let permits = permits::release(to, &self.inventory, &self.events, operator, asked).await?;
        Ok(Response::new(v1::ListPermitsResponse { permits }))
    }
}

/// Counts one node into its cluster.
fn count(summary: &mut v1::ClusterSummary, spec: &NodeSpec, node: &NodeState) {
    let phase = node.view().phase;
    let ready = u32::from(phase == Phase::Ready);
    match spec.role {
        Role::ControlPlane => {
            summary.control_planes += 1;
            summary.control_planes_ready += ready;
        }
        Role::Worker => {
            summary.workers += 1;
            summary.workers_ready += ready;
        }
        // It runs no kubelet that is waited for by name; it counts where its trouble is.
        Role::Etcd => {}
    }
    summary.silent += u32::from(phase == Phase::Silent);
    summary.held += u32::from(phase == Phase::Held);
    summary.conditions += convert::count(node.conditions().len());
}

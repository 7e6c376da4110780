//! What operators hold, silence and thaw: the answers behind [`super::fleet_service`].

use std::time::Duration;

use blackstart_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::Status;

use super::convert::brakes as convert;
use crate::brakes::{BrakesError, BrakesHandle, Hold, Scope};
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::fleet::Fleet;
use crate::inventory::{ClusterName, Inventory};
use crate::storm::guard::ThawRequest;

/// Bytes of an operator's reason that are kept.
const REASON: usize = 256;

/// What they are answered from.
#[derive(Debug, Clone)]
pub struct Holds {
    /// What is held and frozen.
    pub brakes: BrakesHandle,
    /// To the storm guard.
    pub thaws: mpsc::Sender<ThawRequest>,
    /// How long a freeze lasts on a node without being said again.
    pub term: Duration,
}

impl Holds {
    pub(super) async fn set(
        &self,
        inventory: &Inventory,
        events: &Events,
        operator: String,
        asked: v1::SetHoldRequest,
    ) -> Result<v1::HoldDetail, Status> {
        let scope = declared(inventory, convert::scope(asked.scope(), asked.target)?)?;
        let what = convert::held(&asked.remedy, asked.silence)?;
        let reason: String = asked.reason.trim().chars().take(REASON).collect();
        if reason.is_empty() {
            return Err(Status::invalid_argument(
                "a hold needs a reason: whoever finds it has to know what for",
            ));
        }
        let length = (asked.ends_in_ms != 0).then(|| Duration::from_millis(asked.ends_in_ms));
        let brakes = self.brakes.clone();
        let by = operator.clone();
        let hold = spawn_blocking(move || brakes.set(scope, what, by, reason, length))
            .await
            .map_err(|_| Status::internal("the hold was broken off"))?
            .map_err(|error| failed(&error))?;
        let detail = convert::detail(&hold, Instant::now());
        tracing::info!(operator, ?hold, "an operator holds");
        tell(
            events,
            inventory,
            &hold,
            EventKind::HoldSet,
            &format!("by {operator}: {}", hold.reason),
        );
        Ok(detail)
    }

    pub(super) async fn lift(
        &self,
        inventory: &Inventory,
        events: &Events,
        operator: String,
        asked: v1::LiftHoldRequest,
    ) -> Result<v1::HoldDetail, Status> {
        let scope = convert::scope(asked.scope(), asked.target)?;
        let what = convert::held(&asked.remedy, asked.silence)?;
        let brakes = self.brakes.clone();
        let lifted = spawn_blocking(move || brakes.lift(&scope, what))
            .await
            .map_err(|_| Status::internal("it was broken off"))?
            .map_err(|error| failed(&error))?
            .ok_or_else(|| Status::not_found("nothing like that is held"))?;
        tracing::info!(operator, hold = ?lifted, "an operator lifts a hold");
        tell(
            events,
            inventory,
            &lifted,
            EventKind::HoldLifted,
            &format!("by {operator}"),
        );
        Ok(convert::detail(&lifted, Instant::now()))
    }

    /// Those that concern this node, or this cluster, or all.
    pub(super) fn list(&self, inventory: &Inventory, asked: &v1::ListHoldsRequest) -> Vec<v1::HoldDetail> {
        let now = Instant::now();
        let book = self.brakes.book();
        let concerns = |hold: &&Hold| {
            let nodes = inventory.nodes.values().filter(|spec| {
                (asked.node.is_empty() || spec.name.0 == asked.node)
                    && (asked.cluster.is_empty() || spec.cluster.0 == asked.cluster)
            });
            let all = asked.node.is_empty() && asked.cluster.is_empty();
            all || nodes.into_iter().any(|spec| hold.scope.has(spec))
        };
        book.standing(now)
            .filter(concerns)
            .map(|hold| convert::detail(hold, now))
            .collect()
    }

    pub(super) fn storms(&self, inventory: &Inventory, fleet: &Fleet) -> Vec<v1::Storm> {
        let now = Instant::now();
        let book = self.brakes.book();
        let standing = |cluster: &ClusterName, condition: &str| {
            fleet.read(|state| {
                let nodes = inventory.members(cluster);
                let nodes = nodes.filter_map(|spec| state.node(&spec.name));
                nodes
                    .filter(|node| node.view().in_session)
                    .filter(|node| node.conditions().iter().any(|one| one.kind == condition))
                    .count()
            })
        };
        let storms = book.storms.iter().map(|((cluster, condition), frozen)| {
            convert::storm(cluster, condition, frozen, standing(cluster, condition), now)
        });
        storms.collect()
    }

    pub(super) async fn thaw(
        &self,
        operator: String,
        asked: v1::ThawStormRequest,
    ) -> Result<Vec<v1::Storm>, Status> {
        let (answer, ended) = oneshot::channel();
        let request = ThawRequest {
            cluster: ClusterName(asked.cluster),
            condition: (!asked.condition.is_empty()).then_some(asked.condition),
            by: operator,
            answer,
        };
        let stopping = || Status::unavailable("this coordinator is stopping");
        self.thaws.send(request).await.map_err(|_| stopping())?;
        let ended = ended.await.map_err(|_| stopping())?;
        if ended.is_empty() {
            return Err(Status::not_found("nothing like that is frozen"));
        }
        let now = Instant::now();
        let storm = |(cluster, condition, frozen): (_, String, _)| {
            convert::storm(&cluster, &condition, &frozen, 0, now)
        };
        Ok(ended.into_iter().map(storm).collect())
    }
}

fn declared(inventory: &Inventory, scope: Scope) -> Result<Scope, Status> {
    let missing = match &scope {
        Scope::Node(name) if inventory.node(name).is_none() => format!("node {name}"),
        Scope::Cluster(name) if inventory.cluster(name).is_none() => format!("cluster {name}"),
        Scope::Node(_) | Scope::Cluster(_) | Scope::Fleet => return Ok(scope),
    };
    Err(Status::not_found(format!("{missing} is not in the inventory")))
}

fn failed(error: &BrakesError) -> Status {
    Status::failed_precondition(error.to_string())
}

fn tell(events: &Events, inventory: &Inventory, hold: &Hold, kind: EventKind, how: &str) {
    use crate::brakes::Held;
    let what = match hold.what {
        Held::Remedy(remedy) => remedy.as_str(),
        Held::Every => "every remedy",
        Held::Silence => "silence",
    };
    let event = NewEvent::new(Severity::Info, kind, format!("{what} {how}"));
    events.emit(match &hold.scope {
        Scope::Node(name) => match inventory.node(name) {
            Some(spec) => event.node(name).cluster(&spec.cluster),
            None => event.node(name),
        },
        Scope::Cluster(name) => event.cluster(name),
        Scope::Fleet => event,
    });
}

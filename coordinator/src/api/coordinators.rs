//! Who there is and who leads: the one thing that every coordinator tells.

use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::coordinator_service_server::{CoordinatorService, CoordinatorServiceServer};
use tonic::{Request, Response, Status};

use super::auth;
use crate::leader::{Candidate, Card};

/// etcd is asked for the others; without an answer we still say what we know of ourselves.
const PATIENCE: Duration = Duration::from_secs(2);

/// The service.
#[derive(Debug)]
pub(crate) struct Coordinators {
    card: Card,
    /// Among others.
    candidate: Option<Candidate>,
    leads: bool,
}

impl Coordinators {
    pub(crate) fn new(
        card: Card,
        candidate: Option<Candidate>,
        leads: bool,
    ) -> CoordinatorServiceServer<Self> {
        CoordinatorServiceServer::new(Self {
            card,
            candidate,
            leads,
        })
    }
}

#[tonic::async_trait]
impl CoordinatorService for Coordinators {
    async fn list_coordinators(
        &self,
        request: Request<v1::ListCoordinatorsRequest>,
    ) -> Result<Response<v1::ListCoordinatorsResponse>, Status> {
        auth::require_operator(&request)?;
        let all = match &self.candidate {
            None => vec![(self.card.clone(), true)],
            Some(candidate) => match candidate.all(PATIENCE).await {
                Ok(all) => all,
                Err(error) => {
                    tracing::warn!(%error, "the other coordinators are not known");
                    vec![(self.card.clone(), self.leads)]
                }
            },
        };
        let coordinators = all.into_iter().map(|(card, leads)| v1::Coordinator {
            name: card.name,
            addresses: card.addresses.iter().map(ToString::to_string).collect(),
            version: card.version,
            leads,
        });
        Ok(Response::new(v1::ListCoordinatorsResponse {
            coordinators: coordinators.collect(),
            leads: self.leads,
        }))
    }
}

//! One connection to the fleet's service. Answers come as views; every failure becomes a [`Failure`] that says which
//! address, why, and what to try.

mod audit;
mod find;
mod line;
mod runbooks;
mod trust;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use blackstart_proto::leader::LEADER;
use blackstart_proto::tls::TlsFileError;
use blackstart_proto::v1;
use blackstart_proto::v1::audit_service_client::AuditServiceClient;
use blackstart_proto::v1::coordinator_service_client::CoordinatorServiceClient;
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use blackstart_proto::v1::runbook_service_client::RunbookServiceClient;
use blackstart_proto::v1::trust_service_client::TrustServiceClient;
use rustls::{AlertDescription, CertificateError};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub(crate) use self::line::Via;
use self::line::{Bearer, Line};
use crate::failure::{Attempt, Failure, Unreached};
use crate::settings::Connection;
use crate::view::{
    Cluster, Condition, Coordinator, Event, Hold, Node, NodeDetail, Permit, Plan, Remedy, Run, RunDetail,
    Storm,
};

/// Larger answers are refused: 10,000 nodes with some conditions each are about 5 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Which part of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) cluster: Option<String>,
    pub(crate) node: Option<String>,
}

/// A connection to one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    coordinators: CoordinatorServiceClient<InterceptedService<Channel, Bearer>>,
    service: FleetServiceClient<Line>,
    runbooks: RunbookServiceClient<Line>,
    trust: TrustServiceClient<Line>,
    audit: AuditServiceClient<Line>,
    address: SocketAddr,
    patience: Duration,
}

impl Fleet {
    /// Who answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn coordinators(&mut self) -> Result<Vec<Coordinator>, Failure> {
        let answer = self
            .coordinators
            .list_coordinators(v1::ListCoordinatorsRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.coordinators.into_iter().map(Coordinator::from).collect())
    }

    pub(crate) async fn clusters(&mut self) -> Result<Vec<Cluster>, Failure> {
        let answer = self.service.list_clusters(v1::ListClustersRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.clusters.into_iter().map(Cluster::from).collect())
    }

    pub(crate) async fn nodes(&mut self, cluster: Option<&str>) -> Result<Vec<Node>, Failure> {
        let cluster = cluster.unwrap_or_default().to_owned();
        let answer = self.service.list_nodes(v1::ListNodesRequest { cluster });
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.nodes.into_iter().map(Node::from).collect())
    }

    pub(crate) async fn node(&mut self, name: &str) -> Result<NodeDetail, Failure> {
        let answer = self.service.get_node(v1::GetNodeRequest {
            name: name.to_owned(),
        });
        let answer = within(self.patience, self.address, answer).await;
        answer
            .map(NodeDetail::from)
            .map_err(|failure| failure.of("node", name))
    }

    pub(crate) async fn conditions(&mut self, scope: &Scope) -> Result<Vec<Condition>, Failure> {
        let request = v1::ListConditionsRequest {
            node: scope.node.clone().unwrap_or_default(),
            cluster: scope.cluster.clone().unwrap_or_default(),
        };
        let answer = within(self.patience, self.address, self.service.list_conditions(request)).await?;
        Ok(answer.conditions.into_iter().map(Condition::from).collect())
    }

    pub(crate) async fn remedies(&mut self, scope: &Scope) -> Result<Vec<Remedy>, Failure> {
        let request = v1::ListRemediesRequest {
            node: scope.node.clone().unwrap_or_default(),
            cluster: scope.cluster.clone().unwrap_or_default(),
        };
        let answer = within(self.patience, self.address, self.service.list_remedies(request)).await?;
        Ok(answer.remedies.into_iter().map(Remedy::from).collect())
    }

    pub(crate) async fn runs(&mut self) -> Result<Vec<Run>, Failure> {
        let answer = self.service.list_runs(v1::ListRunsRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.runs.into_iter().map(Run::from).collect())
    }

    pub(crate) async fn run(&mut self, id: &str) -> Result<RunDetail, Failure> {
        let answer = self.service.get_run(v1::GetRunRequest { id: id.to_owned() });
        let answer = within(self.patience, self.address, answer).await;
        answer
            .map(RunDetail::from)
            .map_err(|failure| failure.of("run", id))
    }

    /// The events that the coordinator keeps, then with `follow` each as it comes. Ends with the first failure.
    pub(crate) async fn events(
        &mut self,
        follow: bool,
        node: Option<&str>,
    ) -> Result<impl Stream<Item = Result<Event, Failure>> + use<>, Failure> {
        let request = v1::WatchEventsRequest {
            follow,
            node: node.unwrap_or_default().to_owned(),
        };
        let stream = within(self.patience, self.address, self.service.watch_events(request)).await;
        // Only a node can be asked for, so only a node can be missing.
        let stream = stream.map_err(|failure| {
            let mut failure = failure.of("node", node.unwrap_or_default());
            if let Failure::NotFound { advice, .. } = &mut failure {
                *advice = Some("blackstart get nodes".to_owned());
            }
            failure
        })?;
        let address = self.address;
        Ok(stream.map(move |event| event.map(Event::from).map_err(|status| failure(address, &status))))
    }

    /// The run as it stands, then again at every change until it ends.
    pub(crate) async fn watch_run(
        &mut self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<RunDetail, Failure>> + use<>, Failure> {
        let request = v1::GetRunRequest { id: id.to_owned() };
        let stream = within(self.patience, self.address, self.service.watch_run(request)).await;
        let stream = stream.map_err(|failure| failure.of("run", id))?;
        let address = self.address;
        Ok(stream.map(move |run| {
            run.map(RunDetail::from)
                .map_err(|status| failure(address, &status))
        }))
    }

    pub(crate) async fn plan_cold_start(&mut self, clusters: &[String]) -> Result<Plan, Failure> {
        let request = v1::ColdStartRequest {
            clusters: clusters.to_vec(),
            reason: String::new(),
        };
        let answer = within(self.patience, self.address, self.service.plan_cold_start(request)).await?;
        Ok(answer.into())
    }

    pub(crate) async fn start_cold_start(
        &mut self,
        clusters: &[String],
        reason: &str,
    ) -> Result<Run, Failure> {
        let request = v1::ColdStartRequest {
            clusters: clusters.to_vec(),
            reason: reason.to_owned(),
        };
        let answer = within(
            self.patience,
            self.address,
            self.service.start_cold_start(request),
        )
        .await?;
        Ok(answer.into())
    }

    pub(crate) async fn holds(&mut self, scope: &Scope) -> Result<Vec<Hold>, Failure> {
        let request = v1::ListHoldsRequest {
            node: scope.node.clone().unwrap_or_default(),
            cluster: scope.cluster.clone().unwrap_or_default(),
        };
        let answer = within(self.patience, self.address, self.service.list_holds(request)).await?;
        Ok(answer.holds.into_iter().map(Hold::from).collect())
    }

    pub(crate) async fn set_hold(&mut self, hold: v1::SetHoldRequest) -> Result<Hold, Failure> {
        let answer = within(self.patience, self.address, self.service.set_hold(hold)).await?;
        Ok(answer.into())
    }

    pub(crate) async fn lift_hold(&mut self, hold: v1::LiftHoldRequest) -> Result<Hold, Failure> {
        let answer = within(self.patience, self.address, self.service.lift_hold(hold)).await?;
        Ok(answer.into())
    }

    pub(crate) async fn storms(&mut self) -> Result<Vec<Storm>, Failure> {
        let answer = self.service.list_storms(v1::ListStormsRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.storms.into_iter().map(Storm::from).collect())
    }

    pub(crate) async fn thaw(
        &mut self,
        cluster: &str,
        condition: Option<&str>,
    ) -> Result<Vec<Storm>, Failure> {
        let request = v1::ThawStormRequest {
            cluster: cluster.to_owned(),
            condition: condition.unwrap_or_default().to_owned(),
        };
        let answer = within(self.patience, self.address, self.service.thaw_storm(request)).await;
        let answer = answer.map_err(|failure| {
            let mut failure = failure.of("storm of cluster", cluster);
            if let Failure::NotFound { advice, .. } = &mut failure {
                *advice = Some("blackstart get storms".to_owned());
            }
            failure
        })?;
        Ok(answer.storms.into_iter().map(Storm::from).collect())
    }

    pub(crate) async fn permits(&mut self, scope: &Scope) -> Result<Vec<Permit>, Failure> {
        let request = v1::ListPermitsRequest {
            node: scope.node.clone().unwrap_or_default(),
            cluster: scope.cluster.clone().unwrap_or_default(),
        };
        let answer = within(self.patience, self.address, self.service.list_permits(request)).await?;
        Ok(answer.permits.into_iter().map(Permit::from).collect())
    }

    pub(crate) async fn release_permit(&mut self, node: &str, reason: &str) -> Result<Vec<Permit>, Failure> {
        let request = v1::ReleasePermitRequest {
            node: node.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = within(self.patience, self.address, self.service.release_permit(request)).await;
        let answer = answer.map_err(|failure| {
            let mut failure = failure.of("permit of node", node);
            if let Failure::NotFound { advice, .. } = &mut failure {
                *advice = Some("blackstart get permits".to_owned());
            }
            failure
        })?;
        Ok(answer.permits.into_iter().map(Permit::from).collect())
    }

    pub(crate) async fn pause(&mut self, id: &str) -> Result<Run, Failure> {
        let answer = self
            .service
            .pause_run(v1::RunControlRequest { id: id.to_owned() });
        let answer = within(self.patience, self.address, answer).await;
        answer.map(Run::from).map_err(|failure| failure.of("run", id))
    }

    pub(crate) async fn resume(&mut self, id: &str) -> Result<Run, Failure> {
        let answer = self
            .service
            .resume_run(v1::RunControlRequest { id: id.to_owned() });
        let answer = within(self.patience, self.address, answer).await;
        answer.map(Run::from).map_err(|failure| failure.of("run", id))
    }

    pub(crate) async fn abort(&mut self, id: &str) -> Result<Run, Failure> {
        let answer = self
            .service
            .abort_run(v1::RunControlRequest { id: id.to_owned() });
        let answer = within(self.patience, self.address, answer).await;
        answer.map(Run::from).map_err(|failure| failure.of("run", id))
    }
}

impl Failure {
    /// Names what a call was about, for a coordinator that only says that it is not there.
    fn of(self, what: &'static str, name: &str) -> Self {
        match self {
            Self::NotFound { advice, .. } => Self::NotFound {
                what,
                name: name.to_owned(),
                advice,
            },
            other @ (Self::Usage { .. }
            | Self::Unreachable(_)
            | Self::Refused(_)
            | Self::PermissionDenied(_)
            | Self::Absent { .. }
            | Self::RunDidNotSucceed(_)
            | Self::Interrupted
            | Self::ClosedPipe
            | Self::Other { .. }) => other,
        }
    }
}

/// Waits for an answer, no longer than `patience`.
async fn within<T>(
    patience: Duration,
    address: SocketAddr,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match timeout(patience, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failure(address, &status)),
        Err(_) => Err(Failure::Unreachable(vec![Attempt {
            address,
            why: Unreached::TimedOut,
        }])),
    }
}

/// A status with a source was made on this side: the connection broke. One without came from the coordinator.
fn failure(address: SocketAddr, status: &Status) -> Failure {
    if let Some(source) = status.source() {
        return Failure::Unreachable(vec![Attempt {
            address,
            why: why_unreached(source),
        }]);
    }
    let said = status.message().to_owned();
    if status.metadata().contains_key(LEADER) {
        return Failure::Unreachable(vec![Attempt {
            address,
            why: Unreached::NotLed(said),
        }]);
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Failure::PermissionDenied(said),
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Failure::Refused(said),
        Code::NotFound => Failure::NotFound {
            what: "object",
            name: said,
            advice: None,
        },
        Code::InvalidArgument | Code::OutOfRange => {
            Failure::usage(format!("the coordinator does not take this: {said}"))
        }
        Code::Unimplemented => Failure::Other {
            what: "the coordinator does not know this call".to_owned(),
            advice: Some("is it an older version than this command? (blackstart version)".to_owned()),
        },
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Failure::Unreachable(vec![Attempt {
            address,
            why: Unreached::Lost(said),
        }]),
        Code::Unknown => Failure::Other {
            what: said,
            advice: Some(
                "look before you repeat it: blackstart get runs, blackstart get holds, blackstart events"
                    .to_owned(),
            ),
        },
        Code::Ok | Code::ResourceExhausted | Code::Internal | Code::DataLoss => Failure::other(format!(
            "the coordinator at {address} failed: {said} ({:?})",
            status.code()
        )),
    }
}

fn unreadable(error: &TlsFileError) -> Failure {
    Failure::Usage {
        what: format!("{error}: {}", error.source),
        advice: Some(
            "blackstart pki issue operator NAME makes a certificate and its key beside ca.crt".to_owned(),
        ),
    }
}

/// The certificates were read, and nothing could be made of them.
fn bad_material(connection: &Connection, error: &tonic::transport::Error) -> Failure {
    let files = connection.shows.certificates();
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let why = chain(error).last().map(ToString::to_string).unwrap_or_default();
    Failure::Usage {
        what: format!("cannot use {} with their key: {why}", files.join(" and ")),
        advice: Some("each is PEM; the key must be the certificate's own".to_owned()),
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An `io::Error` does not give the error that it wraps as its source, but that one's source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// Looks through an error's causes for the one that an operator can do something about.
fn why_unreached(error: &(dyn Error + 'static)) -> Unreached {
    for cause in chain(error) {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(error);
        }
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return Unreached::Refused,
            Some(io::ErrorKind::TimedOut) => return Unreached::TimedOut,
            Some(_) | None => {}
        }
    }
    let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
    // TLS 1.3 tells a client that its certificate was refused only after the handshake, when HTTP/2 already speaks; h2
    // keeps the cause as text alone.
    if let Some((_, alert)) = last.split_once("received fatal alert: ") {
        return Unreached::OurCertificateRefused(alert.trim().to_owned());
    }
    match chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(error) if is_broken(error.kind()) => Unreached::Lost(error.to_string()),
        _ if last.contains("broken pipe") || last.contains("reset") || last.contains("closed") => {
            Unreached::Lost(last)
        }
        _ => Unreached::Other(last),
    }
}

const fn is_broken(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
    )
}

#[allow(clippy::wildcard_enum_match_arm, reason = "rustls' own open enums")]
fn of_tls(error: &rustls::Error) -> Unreached {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Unreached::UnknownAuthority,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Unreached::CertificateNotValidNow,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Unreached::NotACoordinator,
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied
            | AlertDescription::UnsupportedCertificate),
        ) => Unreached::OurCertificateRefused(format!("{alert:?}")),
        rustls::Error::InvalidMessage(_) => Unreached::NotTls,
        other => Unreached::Other(other.to_string()),
    }
}

//! What every call passes before its service: who shows what, whether that is revoked, and whether it may.
//!
//! ```text
//!  call ─► is there such a call, and whom is it for? (trust/rights)
//!       ─► a certificate, unless it is for anybody ─► revoked? (trust/gate)
//!       ─► an operator: the right, somewhere          the service asks again with the cluster: [`allowed`]
//!       ─► the service ─► its answer; a command is noted with it (audit/)
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::leader::{self, OPERATOR};
use http_body_util::{BodyExt, Full, Limited};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Extensions, Status};
use tower::Layer;

use super::asked::asked;
use super::auth::{self, Caller};
use super::fleet_service::MAX_MESSAGE;
use crate::audit::Audit;
use crate::audit::chain::What;
use crate::trust::book::Revocation;
use crate::trust::gate::Gate;
use crate::trust::rights::{For, Grants, Place, Right, Roles, is_command, of_call};

/// What the door knows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// Who may do what.
    pub roles: Arc<Roles>,
    /// What is revoked.
    pub gate: Arc<Gate>,
    /// Where commands are kept; `None`: nowhere.
    pub audit: Option<Audit>,
}

/// Has the operator who calls this right there? Every service that knows the cluster asks, since the door does not.
///
/// # Errors
/// `PERMISSION_DENIED`: not, or the call did not come by the door.
pub(crate) fn allowed(extensions: &Extensions, right: Right, place: Place<'_>) -> Result<(), Status> {
    match extensions.get::<Grants>() {
        Some(grants) => grants.require(right, place),
        None => Err(Status::permission_denied("nobody has looked at who calls")),
    }
}

impl Door {
    /// Whether the call may go on, and what the caller may do.
    fn look<T>(&self, call: &http::Request<T>) -> Result<Option<Grants>, Status> {
        let path = call.uri().path();
        let whom = of_call(path);
        if whom == Some(For::Anybody) {
            return Ok(None);
        }
        let shown = auth::shown(call.extensions())?;
        if let Some(revocation) = self.gate.why_not(&shown) {
            return Err(revoked(&revocation));
        }
        let right = match whom {
            Some(For::Operators(right)) => right,
            Some(For::Nodes | For::Anybody) => return Ok(None),
            // Also one that a service has and that nobody has given a right: it is nobody's.
            None => return Err(Status::unimplemented("this coordinator has no such call")),
        };
        let claimed = call.headers().get(OPERATOR);
        let claimed = claimed.map(|claimed| claimed.to_str().unwrap_or_default());
        let Caller { operator, by_way_of } = auth::caller(call.extensions(), claimed)?;
        if by_way_of.is_some()
            && let Some(revocation) = self.gate.why_not_peer(&PeerIdentity::Operator(operator.clone()))
        {
            return Err(revoked(&revocation));
        }
        let grants = self.roles.of(&operator);
        grants.require(right, Place::Anywhere)?;
        Ok(Some(grants))
    }
}

/// What the audit says of a command before it is looked at; `None`: nobody who could command.
fn command<T>(call: &http::Request<T>) -> Option<What> {
    let shown = auth::shown(call.extensions()).ok()?;
    let claimed = call.headers().get(OPERATOR);
    let claimed = claimed.map(|claimed| claimed.to_str().unwrap_or_default());
    let Caller { operator, by_way_of } = auth::caller(call.extensions(), claimed).ok()?;
    let path = call.uri().path();
    Some(What {
        who: format!("operator {operator}"),
        by_way_of: by_way_of.unwrap_or_default(),
        certificate: shown.serial,
        what: path.rsplit('/').next().unwrap_or_default().to_owned(),
        // Its two records know each other by this, whatever the operator calls it.
        matter: format!(
            "{}#{:08x}",
            leader::request(call.headers()).unwrap_or_default(),
            rand::random::<u32>()
        ),
        ..What::default()
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "of all codes these are refusals")]
/// How a command ended, as far as its answer begins with that.
fn outcome(answer: &http::HeaderMap) -> (&'static str, String) {
    match Status::from_header_map(answer) {
        None => ("done", String::new()),
        Some(status) if status.code() == Code::Ok => ("done", String::new()),
        Some(status) => {
            let outcome = match status.code() {
                Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::NotFound
                | Code::Unimplemented => "refused",
                _ => "failed",
            };
            (outcome, format!("{:?}: {}", status.code(), status.message()))
        }
    }
}

/// A command: written down before it is done, and before it is answered.
async fn audited<S>(
    door: Door,
    audit: Audit,
    what: What,
    mut service: S,
    call: http::Request<Body>,
) -> Answer<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    let (head, body) = call.into_parts();
    let body = match Limited::new(body, MAX_MESSAGE).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let why = format!("the request could not be read: {error}");
            return Ok(Status::invalid_argument(why).into_http());
        }
    };
    let what = What {
        asked: asked(head.uri.path(), &body),
        ..what
    };
    let mut call = http::Request::from_parts(head, Body::new(Full::new(body)));
    let looked = door.look(&call);
    if looked.is_ok() {
        audit
            .write(What {
                outcome: "asked".to_owned(),
                ..what.clone()
            })
            .await;
    }
    let answer = match looked {
        Ok(grants) => {
            if let Some(grants) = grants {
                call.extensions_mut().insert(grants);
            }
            service.call(call).await?
        }
        Err(status) => status.into_http(),
    };
    let (outcome, evidence) = outcome(answer.headers());
    audit
        .write(What {
            outcome: outcome.to_owned(),
            evidence,
            ..what
        })
        .await;
    Ok(answer)
}

type Answer<S> = Result<http::Response<Body>, <S as Service<http::Request<Body>>>::Error>;

pub(super) fn revoked(revocation: &Revocation) -> Status {
    Status::permission_denied(format!(
        "{} was revoked by {}: {}",
        revocation.subject, revocation.by, revocation.reason
    ))
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, service: S) -> Guarded<S> {
        Guarded {
            door: self.clone(),
            service,
        }
    }
}

/// All services, behind the door.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    door: Door,
    service: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut call: http::Request<Body>) -> Self::Future {
        if let Some(audit) = &self.door.audit
            && is_command(call.uri().path())
            && let Some(what) = command(&call)
        {
            let (door, audit) = (self.door.clone(), audit.clone());
            return Box::pin(audited(door, audit, what, self.service.clone(), call));
        }
        match self.door.look(&call) {
            Ok(grants) => {
                if let Some(grants) = grants {
                    call.extensions_mut().insert(grants);
                }
                Box::pin(self.service.call(call))
            }
            Err(status) => {
                tracing::info!(
                    path = call.uri().path(),
                    why = status.message(),
                    "a call is refused"
                );
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

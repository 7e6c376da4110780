//! What every call passes before its service: who shows what, whether that is revoked, and whether it may.
//!
//! ```text
//!  call ─► is there such a call, and whom is it for? (trust/rights)
//!       ─► a certificate, or an operator's token (trust/oidc), unless it is for anybody ─► revoked? (trust/gate)
//!       ─► an operator: the right, somewhere          the service asks again with the cluster: [`allowed`]
//!       ─► the service ─► its answer; a command is noted with it (audit/)
//! ```

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::leader::{self, OPERATOR};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::{Service, http};
use tonic::{Code, Extensions, Status};
use tower::Layer;

use super::asked::asked;
use super::auth::{self, Caller};
use super::fleet_service::MAX_MESSAGE;
use super::visits::{Visits, Vouched};
use crate::audit::Audit;
use crate::audit::chain::What;
use crate::trust::book::Revocation;
use crate::trust::gate::Gate;
use crate::trust::oidc::Oidc;
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
    /// Whose tokens are taken; `None`: nobody's.
    pub tokens: Option<Tokens>,
    /// Who has shown no certificate.
    pub visits: Arc<Visits>,
}

/// How tokens are looked at.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The provider that has made them.
    pub provider: Arc<Oidc>,
    /// By which their times are measured.
    pub clock: Arc<ClockFloor>,
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
    /// Notes on the call whom its token is of. Whoever shows a certificate is whom that names.
    fn take_token<T>(&self, call: &mut http::Request<T>) -> Result<(), Status> {
        let Some(header) = call.headers_mut().remove(AUTHORIZATION) else {
            return Ok(());
        };
        let Some(from) = auth::visitor(call.extensions()) else {
            return Ok(());
        };
        let denied = |why: String| Status::permission_denied(why);
        let tokens = self.tokens.as_ref().ok_or_else(|| {
            denied(
                "this coordinator takes no tokens (`oidc` in its configuration): show an operator's certificate"
                    .to_owned(),
            )
        })?;
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let token =
            token.ok_or_else(|| denied("what came as authorization is no bearer token".to_owned()))?;
        let now = tokens.clock.now();
        let holder = tokens.provider.verify(token, now).map_err(denied)?;
        let peer = PeerIdentity::Operator(holder.operator.clone());
        // Who is revoked stays a visitor, who hears why and no more.
        if self.gate.why_not_peer(&peer).is_none() {
            let left = Duration::from_secs(holder.until.saturating_sub(now));
            let vouched = Vouched {
                operator: holder.operator.clone(),
                until: Instant::now() + left,
            };
            self.visits.vouch(from, vouched);
        }
        call.extensions_mut().insert(holder);
        Ok(())
    }

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
            Some(For::Known | For::Nodes | For::Anybody) => return Ok(None),
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
        if let Err(status) = self.door.take_token(&mut call) {
            return refuse(&call, status);
        }
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
            Err(status) => refuse(&call, status),
        }
    }
}

fn refuse<T, E: Send + 'static>(
    call: &http::Request<T>,
    status: Status,
) -> Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>> {
    let path = call.uri().path();
    tracing::info!(path, why = status.message(), "a call is refused");
    Box::pin(ready(Ok(status.into_http())))
}

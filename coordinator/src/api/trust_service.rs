//! Tokens, certificates and revocations, for operators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::trust_service_server::{TrustService, TrustServiceServer};
use tonic::{Extensions, Request, Response, Status};

use super::auth;
use super::door::allowed;
use super::enrolment_service::{at_the_desk, refused};
use crate::inventory::{ClusterName, Inventory, NodeName, NodeSpec};
use crate::pki::CertificateRequest;
use crate::trust::book::{Issued, Revocation, Subject, Token};
use crate::trust::desk::{Desk, NewToken};
use crate::trust::oidc::Holder;
use crate::trust::rights::{Place, Right};

/// An operator's message is no larger.
const MAX_MESSAGE: usize = 16 << 10;
/// Characters of an operator's reason that are kept.
const REASON: usize = 1024;

/// The service that operators call.
#[derive(Debug)]
pub struct Trust {
    desk: Arc<Desk>,
    inventory: Arc<Inventory>,
    addresses: Vec<SocketAddr>,
}

impl Trust {
    /// The service, with its limits. `addresses`: where nodes are told to join.
    pub fn serve(
        desk: Arc<Desk>,
        inventory: Arc<Inventory>,
        addresses: Vec<SocketAddr>,
    ) -> TrustServiceServer<Self> {
        TrustServiceServer::new(Self {
            desk,
            inventory,
            addresses,
        })
        .max_decoding_message_size(MAX_MESSAGE)
    }

    fn node(&self, name: &str) -> Result<&NodeSpec, Status> {
        let name = NodeName(name.to_owned());
        self.inventory
            .node(&name)
            .ok_or_else(|| Status::not_found(format!("node {name} is not in the inventory")))
    }

    /// Is the caller an admin where this concerns?
    fn admin(
        &self,
        call: &Extensions,
        node: Option<&NodeName>,
        cluster: Option<&ClusterName>,
    ) -> Result<(), Status> {
        let of_node = node
            .and_then(|node| self.inventory.node(node))
            .map(|spec| &spec.cluster);
        let place = of_node.or(cluster).map_or(Place::Everywhere, Place::In);
        allowed(call, Right::Admin, place)
    }

    fn certificate(&self, node: &NodeName, issued: &Issued) -> v1::NodeCertificate {
        v1::NodeCertificate {
            node: node.0.clone(),
            cluster: self
                .inventory
                .node(node)
                .map(|spec| spec.cluster.0.clone())
                .unwrap_or_default(),
            serial: issued.serial.clone(),
            issued_unix_s: issued.issued_at,
            ends_unix_s: issued.ends_at,
            bound: true,
            renewable_until_unix_s: issued.renewable_until.unwrap_or_default(),
            behind: self.desk.is_behind(node),
        }
    }

    fn tokens(&self) -> v1::ListTokensResponse {
        let now = self.desk.now();
        let tokens = self.desk.tokens();
        v1::ListTokensResponse {
            tokens: tokens.into_iter().map(|of| token(of, now)).collect(),
        }
    }
}

fn token(token: Token, now: u64) -> v1::Token {
    v1::Token {
        over: token.over(now).unwrap_or_default().to_owned(),
        id: token.id,
        node: token.node.map(|node| node.0).unwrap_or_default(),
        cluster: token.cluster.map(|cluster| cluster.0).unwrap_or_default(),
        count: token.count,
        left: token.left,
        made_unix_s: token.made_at,
        ends_unix_s: token.ends_at,
        by: token.by,
        reason: token.reason,
    }
}

fn revocation(revocation: &Revocation, cut: usize) -> v1::Revocation {
    v1::Revocation {
        subject: revocation.subject.to_string(),
        by: revocation.by.clone(),
        reason: revocation.reason.clone(),
        at_unix_s: revocation.at,
        cut: u32::try_from(cut).unwrap_or(u32::MAX),
        joined_anew: revocation.except.is_some(),
    }
}

fn words(text: &str) -> String {
    text.trim().chars().take(REASON).collect()
}

/// A reason that must be given.
pub(super) fn reason(text: &str, what: &str) -> Result<String, Status> {
    let reason = words(text);
    if reason.is_empty() {
        return Err(Status::invalid_argument(format!("{what} needs a reason")));
    }
    Ok(reason)
}

#[tonic::async_trait]
impl TrustService for Trust {
    async fn create_token(
        &self,
        call: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let by = auth::require_operator(&call)?;
        let asked = call.get_ref();
        let node = match asked.node.as_str() {
            "" => None,
            name => Some(self.node(name)?.name.clone()),
        };
        let cluster = match asked.cluster.as_str() {
            "" => None,
            name => {
                let name = ClusterName(name.to_owned());
                if self.inventory.cluster(&name).is_none() {
                    return Err(Status::not_found(format!(
                        "cluster {name} is not in the inventory"
                    )));
                }
                Some(name)
            }
        };
        self.admin(call.extensions(), node.as_ref(), cluster.as_ref())?;
        let new = NewToken {
            ttl: Duration::from_secs(asked.ttl_s),
            count: asked.count.max(1),
            reason: words(&asked.reason),
            node,
            cluster,
            by,
        };
        let made = at_the_desk(&self.desk, move |desk| {
            let ca_hash = desk.ca_hash()?;
            let (text, token) = desk.create_token(new)?;
            Ok((text, token, ca_hash))
        });
        let (text, made, ca_hash) = made.await?;
        tracing::info!(operator = made.by, token = made.id, "an operator makes a token");
        Ok(Response::new(v1::CreateTokenResponse {
            token: text,
            made: Some(token(made, self.desk.now())),
            ca_hash,
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_tokens(
        &self,
        call: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        auth::require_operator(&call)?;
        Ok(Response::new(self.tokens()))
    }

    async fn revoke_token(
        &self,
        call: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let by = auth::require_operator(&call)?;
        let token = self
            .desk
            .token(&call.get_ref().id)
            .map_err(|error| refused(&error))?;
        self.admin(call.extensions(), token.node.as_ref(), token.cluster.as_ref())?;
        let id = call.into_inner().id;
        tracing::info!(operator = by, token = id, "an operator takes a token back");
        at_the_desk(&self.desk, move |desk| desk.revoke_token(&id, &by)).await?;
        Ok(Response::new(self.tokens()))
    }

    async fn list_certificates(
        &self,
        call: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::ListCertificatesResponse>, Status> {
        auth::require_operator(&call)?;
        let of = call.into_inner().node;
        let issued = self.desk.issued();
        let certificates = issued
            .iter()
            .filter(|(node, _)| of.is_empty() || node.0 == of)
            .map(|(node, issued)| self.certificate(node, issued));
        let revoked = self.desk.revocations();
        let subject = format!("blackstart://node/{of}");
        let revocations = revoked
            .0
            .values()
            .filter(|revocation| of.is_empty() || revocation.subject.to_string() == subject)
            .map(|of| revocation(of, 0));
        Ok(Response::new(v1::ListCertificatesResponse {
            certificates: certificates.collect(),
            revocations: revocations.collect(),
        }))
    }

    async fn revoke(&self, call: Request<v1::RevokeRequest>) -> Result<Response<v1::Revocation>, Status> {
        let by = auth::require_operator(&call)?;
        let asked = call.get_ref();
        let why = reason(&asked.reason, "revoking")?;
        let subject: Subject = asked
            .subject
            .parse()
            .map_err(|error: crate::trust::book::NotASubject| Status::invalid_argument(error.to_string()))?;
        let node = match &subject {
            Subject::Peer(uri) => uri.strip_prefix("blackstart://node/"),
            Subject::Serial(_) => None,
        };
        let node = node.map(|name| NodeName(name.to_owned()));
        self.admin(call.extensions(), node.as_ref(), None)?;
        let done = at_the_desk(&self.desk, move |desk| desk.revoke(&subject, &by, &why));
        let (done, cut) = done.await?;
        Ok(Response::new(revocation(&done, cut)))
    }

    async fn renew_operator(
        &self,
        call: Request<v1::RenewOperatorRequest>,
    ) -> Result<Response<v1::RenewedOperator>, Status> {
        let caller = auth::caller_of(&call)?;
        if caller.by_way_of.is_some() || call.extensions().get::<Holder>().is_some() {
            return Err(Status::permission_denied(
                "a certificate is renewed by itself alone: show it to the coordinator that leads, and no token",
            ));
        }
        let shown = auth::shown(call.extensions())?;
        let request = CertificateRequest::read(&call.get_ref().request).map_err(Status::invalid_argument)?;
        let renewed = at_the_desk(&self.desk, move |desk| desk.renew_operator(&shown, &request));
        let (certified, authority) = renewed.await?;
        Ok(Response::new(v1::RenewedOperator {
            certificate: certified.certificate.into_bytes().into(),
            authority: authority.into(),
        }))
    }

    async fn allow_renewal(
        &self,
        call: Request<v1::AllowRenewalRequest>,
    ) -> Result<Response<v1::NodeCertificate>, Status> {
        let by = auth::require_operator(&call)?;
        let asked = call.get_ref();
        let why = reason(&asked.reason, "letting a node renew")?;
        let node = self.node(&asked.node)?.name.clone();
        self.admin(call.extensions(), Some(&node), None)?;
        let of = node.clone();
        let issued = at_the_desk(&self.desk, move |desk| desk.allow_renewal(&of, &by, &why)).await?;
        Ok(Response::new(self.certificate(&node, &issued)))
    }
}

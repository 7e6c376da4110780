//! Who calls: mutual TLS, and the one name in the caller's certificate; or, without one, an operator's token that the door has looked at.
//!
//! TLS proves that the authority issued the certificate; [`peer`] reads from it who that is, and every service decides
//! with [`require_node`] or [`require_operator`]. A node may speak only for itself: its name comes from here, never from
//! a message. Only a coordinator may speak for another: it forwards what operators ask of it, and says for whom.

use std::net::SocketAddr;

use blackstart_proto::identity::{PeerIdentity, valid_name};
use blackstart_proto::leader::OPERATOR;
use rustls::pki_types::CertificateDer;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Extensions, Request, Status};

use crate::inventory::NodeName;
use crate::pki::Shown;
use crate::trust::oidc::Holder;

/// Who is at the other end of the connection that these extensions of a request came by.
///
/// # Errors
/// `PERMISSION_DENIED`: no certificate, or one that does not name exactly one of us.
pub fn peer(extensions: &Extensions) -> Result<PeerIdentity, Status> {
    shown(extensions).map(|shown| shown.peer)
}

/// The certificate of whoever is at the other end.
///
/// # Errors
/// As [`peer`].
pub(crate) fn shown(extensions: &Extensions) -> Result<Shown, Status> {
    if let Some(holder) = extensions.get::<Holder>() {
        return Ok(Shown {
            peer: PeerIdentity::Operator(holder.operator.clone()),
            serial: format!("token {}", holder.token),
            key: String::new(),
            machine: None,
            ends: holder.until,
        });
    }
    let certificates = connection(extensions).and_then(TlsConnectInfo::peer_certs);
    first_of(certificates.as_deref().map_or(&[], Vec::as_slice))
}

/// The connection that a call came by, if its other end has shown no certificate.
pub(super) fn visitor(extensions: &Extensions) -> Option<SocketAddr> {
    let connection = connection(extensions)?;
    let is_visitor = connection.peer_certs().is_none_or(|chain| chain.is_empty());
    is_visitor.then(|| connection.get_ref().remote_addr()).flatten()
}

fn connection(extensions: &Extensions) -> Option<&TlsConnectInfo<TcpConnectInfo>> {
    extensions.get()
}

/// The certificate of whoever showed this chain.
///
/// # Errors
/// As [`peer`].
pub(super) fn first_of(chain: &[CertificateDer<'_>]) -> Result<Shown, Status> {
    // The first is its own; what follows is who vouches for it.
    match chain.first() {
        Some(certificate) => Shown::read(certificate).map_err(Status::permission_denied),
        None => Err(Status::permission_denied(
            "no certificate was shown, and no token",
        )),
    }
}

/// The node that calls.
///
/// # Errors
/// `PERMISSION_DENIED`: as [`peer`], or somebody who is not a node.
pub fn require_node<T>(request: &Request<T>) -> Result<NodeName, Status> {
    node(peer(request.extensions())?)
}

/// This peer, who must be a node.
///
/// # Errors
/// `PERMISSION_DENIED`: it is not.
pub(super) fn node(peer: PeerIdentity) -> Result<NodeName, Status> {
    match peer {
        PeerIdentity::Node(name) => Ok(NodeName(name)),
        other @ (PeerIdentity::Operator(_) | PeerIdentity::Coordinator(_)) => Err(Status::permission_denied(
            format!("only nodes may call this, and the certificate is {other}'s"),
        )),
    }
}

/// An operator, and how the call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) operator: String,
    /// The coordinator that forwarded it, by its certificate.
    pub(crate) by_way_of: Option<String>,
}

/// The operator who calls, or for whom a coordinator calls.
///
/// # Errors
/// As [`require_operator`].
pub(crate) fn caller(extensions: &Extensions, claimed: Option<&str>) -> Result<Caller, Status> {
    let denied = |why: String| Err(Status::permission_denied(why));
    match (peer(extensions)?, claimed) {
        (PeerIdentity::Operator(operator), None) => Ok(Caller {
            operator,
            by_way_of: None,
        }),
        (PeerIdentity::Coordinator(name), Some(operator)) if valid_name(operator) => Ok(Caller {
            operator: operator.to_owned(),
            by_way_of: Some(name),
        }),
        (PeerIdentity::Coordinator(_), Some(_)) => {
            denied(format!("{OPERATOR} does not name an operator who could exist"))
        }
        (other @ (PeerIdentity::Operator(_) | PeerIdentity::Node(_)), Some(_)) => denied(format!(
            "only a coordinator may speak for an operator ({OPERATOR}), and the certificate is {other}'s"
        )),
        (other @ (PeerIdentity::Node(_) | PeerIdentity::Coordinator(_)), None) => denied(format!(
            "only operators may call this, and the certificate is {other}'s"
        )),
    }
}

/// [`caller`] of a request.
///
/// # Errors
/// As [`require_operator`].
pub(crate) fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
    // What cannot be read claims nobody who could exist.
    let claimed = request
        .metadata()
        .get(OPERATOR)
        .map(|claimed| claimed.to_str().unwrap_or_default());
    caller(request.extensions(), claimed)
}

/// The operator who calls; by way of a coordinator that follows, the one whom that has identified.
///
/// # Errors
/// `PERMISSION_DENIED`: as [`peer`], or somebody who is not an operator and may not speak for one.
pub fn require_operator<T>(request: &Request<T>) -> Result<String, Status> {
    caller_of(request).map(|caller| caller.operator)
}

#[cfg(test)]
mod tests;

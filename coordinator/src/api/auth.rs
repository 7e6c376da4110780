//! Who calls: mutual TLS, and the one name in the caller's certificate.
//!
//! TLS proves that the authority issued the certificate; [`peer`] reads from it who that is, and every service decides
//! with [`require_node`] or [`require_operator`]. A node may speak only for itself: its name comes from here, never from
//! a message.

use blackstart_proto::identity::PeerIdentity;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Extensions, Request, Status};

use crate::inventory::NodeName;
use crate::pki::identity;

/// Who is at the other end of the connection that these extensions of a request came by.
///
/// # Errors
/// `PERMISSION_DENIED`: no certificate, or one that does not name exactly one of us.
pub fn peer(extensions: &Extensions) -> Result<PeerIdentity, Status> {
    let certificates = extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .and_then(TlsConnectInfo::peer_certs);
    // The first is the caller's own; what follows is its chain.
    match certificates.as_deref().and_then(|chain| chain.first()) {
        Some(certificate) => identity(certificate).map_err(Status::permission_denied),
        None => Err(Status::permission_denied("no certificate was shown")),
    }
}

/// The node that calls.
///
/// # Errors
/// `PERMISSION_DENIED`: as [`peer`], or somebody who is not a node.
pub fn require_node<T>(request: &Request<T>) -> Result<NodeName, Status> {
    match peer(request.extensions())? {
        PeerIdentity::Node(name) => Ok(NodeName(name)),
        other @ (PeerIdentity::Operator(_) | PeerIdentity::Coordinator(_)) => Err(Status::permission_denied(
            format!("only nodes may call this, and the certificate is {other}'s"),
        )),
    }
}

/// The operator who calls.
///
/// # Errors
/// `PERMISSION_DENIED`: as [`peer`], or somebody who is not an operator.
pub fn require_operator<T>(request: &Request<T>) -> Result<String, Status> {
    match peer(request.extensions())? {
        PeerIdentity::Operator(name) => Ok(name),
        other @ (PeerIdentity::Node(_) | PeerIdentity::Coordinator(_)) => Err(Status::permission_denied(
            format!("only operators may call this, and the certificate is {other}'s"),
        )),
    }
}

#[cfg(test)]
mod tests;

//! Calls of the service for tokens and certificates.

use std::time::Duration;

use blackstart_proto::v1;

use super::{Fleet, within};
use crate::failure::Failure;
use crate::view::{NewToken, NodeCertificate, Revocation, Token};

impl Fleet {
    pub(crate) async fn create_token(
        &mut self,
        ttl: Duration,
        node: Option<String>,
        cluster: Option<String>,
        count: u32,
        reason: String,
    ) -> Result<NewToken, Failure> {
        let request = v1::CreateTokenRequest {
            ttl_s: ttl.as_secs(),
            node: node.clone().unwrap_or_default(),
            cluster: cluster.unwrap_or_default(),
            count,
            reason,
        };
        let answer = within(self.patience, self.address, self.trust.create_token(request)).await;
        let answer = answer.map_err(as_it_was_said)?;
        let addresses = if answer.addresses.is_empty() {
            // It listens on every address, and by this one it was reached.
            vec![self.address.to_string()]
        } else {
            answer.addresses
        };
        Ok(NewToken {
            join: join(&addresses, &answer.token, &answer.ca_hash, node.as_deref()),
            token: answer.token,
            ca_hash: answer.ca_hash,
            addresses,
            made: answer.made.unwrap_or_default().into(),
        })
    }

    pub(crate) async fn tokens(&mut self) -> Result<Vec<Token>, Failure> {
        let answer = self.trust.list_tokens(v1::ListTokensRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.tokens.into_iter().map(Token::from).collect())
    }

    pub(crate) async fn revoke_token(&mut self, id: &str) -> Result<Vec<Token>, Failure> {
        let request = v1::RevokeTokenRequest { id: id.to_owned() };
        let answer = within(self.patience, self.address, self.trust.revoke_token(request)).await;
        let answer = answer.map_err(|failure| failure.of("token", id))?;
        Ok(answer.tokens.into_iter().map(Token::from).collect())
    }

    /// What nodes were given, each with why it counts no more; and all that is revoked.
    pub(crate) async fn certificates(
        &mut self,
        node: Option<&str>,
    ) -> Result<(Vec<NodeCertificate>, Vec<Revocation>), Failure> {
        let request = v1::ListCertificatesRequest {
            node: node.unwrap_or_default().to_owned(),
        };
        let answer = within(self.patience, self.address, self.trust.list_certificates(request)).await?;
        let revocations: Vec<_> = answer.revocations.into_iter().map(Revocation::from).collect();
        let certificates = answer.certificates.into_iter().map(|certificate| {
            let mut certificate = NodeCertificate::from(certificate);
            let of_node = format!("blackstart://node/{}", certificate.node);
            let of_this = format!("serial:{}", certificate.serial);
            let revocation = revocations.iter().find(|revocation| {
                revocation.subject == of_this || (revocation.subject == of_node && !revocation.joined_anew)
            });
            certificate.revoked =
                revocation.map(|revocation| format!("by {}: {}", revocation.by, revocation.reason));
            certificate
        });
        Ok((certificates.collect(), revocations))
    }

    pub(crate) async fn revoke(&mut self, subject: &str, reason: &str) -> Result<Revocation, Failure> {
        let request = v1::RevokeRequest {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = within(self.patience, self.address, self.trust.revoke(request)).await;
        answer.map(Revocation::from).map_err(as_it_was_said)
    }

    /// A certificate for another key of whoever calls, and the authorities, PEM.
    pub(crate) async fn renew_operator(&mut self, request: &[u8]) -> Result<(String, String), Failure> {
        let request = v1::RenewOperatorRequest {
            request: request.to_vec().into(),
        };
        let answer = within(self.patience, self.address, self.trust.renew_operator(request)).await?;
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        Ok((text(&answer.certificate), text(&answer.authority)))
    }

    pub(crate) async fn allow_renewal(
        &mut self,
        node: &str,
        reason: &str,
    ) -> Result<NodeCertificate, Failure> {
        let request = v1::AllowRenewalRequest {
            node: node.to_owned(),
            reason: reason.to_owned(),
        };
        let answer = within(self.patience, self.address, self.trust.allow_renewal(request)).await;
        answer.map(NodeCertificate::from).map_err(as_it_was_said)
    }
}

/// What is typed on the node.
fn join(addresses: &[String], token: &str, ca_hash: &str, node: Option<&str>) -> String {
    let node = node.map_or_else(String::new, |node| format!(" --node {node}"));
    format!(
        "blackstart-agent join {} --token {token} --ca-hash {ca_hash}{node}",
        addresses.join(" ")
    )
}

/// A node or a cluster may be what is not there: the coordinator says which.
fn as_it_was_said(failure: Failure) -> Failure {
    if let Failure::NotFound { name, .. } = failure {
        return Failure::Absent {
            what: name,
            advice: "blackstart get nodes; blackstart certificate list".to_owned(),
        };
    }
    failure
}

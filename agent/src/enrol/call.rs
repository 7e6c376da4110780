//! Asks coordinators for certificates, and knows them by their authority: by its certificate, or, before a node has that, by the digest
//! of its key. Whoever is not known is told nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::leader::leader_at;
use blackstart_proto::machine::hex;
use blackstart_proto::tls::VERSIONS;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::EnrolError;
use crate::causes::causes;
use crate::link::secure::{self, roots};

/// For one coordinator's answer: it may have to wait for its disk, and for others.
const PATIENCE: Duration = Duration::from_secs(20);
/// So often one coordinator sends on to another.
const SENT_ON: usize = 3;

/// By what coordinators are known.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// By the digest of the authority's key, lower-case hexadecimal.
    ByHash(String),
    /// By the authority's certificate, PEM.
    ByAuthority(Vec<u8>),
}

/// What is asked. Not to be shown: there may be a token in it.
#[derive(Clone)]
pub(super) enum Asked {
    Join(wire::JoinRequest),
    Renew(wire::RenewRequest),
}

/// The digest of a certificate's key, as `sha256:HEX` names it.
pub(super) fn key_hash(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(hex(digest(&SHA256, certificate.public_key().raw).as_ref()))
}

/// Asks one after the other, and where they send to.
pub(super) async fn ask(
    addresses: &[SocketAddr],
    known: &Known,
    clock: &Arc<ClockFloor>,
    asked: &Asked,
) -> Result<wire::Enrolled, EnrolError> {
    let mut troubles = Vec::new();
    for &first in addresses {
        let mut address = first;
        for _ in 0..SENT_ON {
            match ask_at(address, known, clock, asked).await {
                Err(Trouble::Elsewhere(leader)) if leader != address => address = leader,
                Err(Trouble::Elsewhere(_)) => break,
                // Another may be of the authority; this one is looked into all the same if none is.
                Err(Trouble::Cannot(why)) => {
                    troubles.push(format!("{address}: {why}"));
                    break;
                }
                Err(Trouble::Said(error)) => return Err(error),
                Ok(enrolled) => return Ok(enrolled),
            }
        }
    }
    if troubles.is_empty() {
        troubles.push("none of them leads".to_owned());
    }
    Err(EnrolError::Unreachable(troubles.join("; ")))
}

enum Trouble {
    /// The leader is there.
    Elsewhere(SocketAddr),
    /// Perhaps another can.
    Cannot(String),
    /// It is answered.
    Said(EnrolError),
}

async fn ask_at(
    address: SocketAddr,
    known: &Known,
    clock: &Arc<ClockFloor>,
    asked: &Asked,
) -> Result<wire::Enrolled, Trouble> {
    let (config, stranger) = client(known, clock).map_err(Trouble::Cannot)?;
    let channel = secure::connect(address, config).await;
    let channel = match (channel, stranger.and_then(|stranger| stranger.take())) {
        (_, Some((wanted, why))) => {
            return Err(Trouble::Said(EnrolError::Stranger { address, wanted, why }));
        }
        (Ok(channel), None) => channel,
        (Err(why), None) => return Err(Trouble::Cannot(why)),
    };
    let mut client = EnrolmentServiceClient::<Channel>::new(channel);
    let answer = async {
        match asked.clone() {
            Asked::Join(request) => client.join(request).await,
            Asked::Renew(request) => client.renew(request).await,
        }
    };
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(|status| said(&status)),
        Err(_) => Err(Trouble::Cannot(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "of all codes these")]
fn said(status: &Status) -> Trouble {
    let why = status.message().to_owned();
    match status.code() {
        Code::FailedPrecondition => match leader_at(status).first() {
            Some(leader) => Trouble::Elsewhere(*leader),
            None => Trouble::Cannot(why),
        },
        Code::PermissionDenied | Code::InvalidArgument | Code::NotFound => {
            Trouble::Said(EnrolError::Refused(why))
        }
        Code::Unimplemented => Trouble::Said(EnrolError::NotServed(why)),
        _ => Trouble::Cannot(causes(status)),
    }
}

/// How coordinators are spoken to without a certificate; and where it is told that one is a stranger.
fn client(known: &Known, clock: &Arc<ClockFloor>) -> Result<(ClientConfig, Option<Arc<Strangers>>), String> {
    match known {
        Known::ByAuthority(pem) => {
            let config = ClientConfig::builder_with_protocol_versions(VERSIONS)
                .with_root_certificates(roots(pem)?)
                .with_no_client_auth();
            Ok((secure::timed(config, clock), None))
        }
        Known::ByHash(hash) => {
            let strangers = Arc::new(Strangers::default());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = ByHash {
                hash: hash.clone(),
                strangers: Arc::clone(&strangers),
                provider,
            };
            let config = ClientConfig::builder_with_protocol_versions(VERSIONS)
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            Ok((secure::timed(config, clock), Some(strangers)))
        }
    }
}

/// Why somebody was taken for a stranger: TLS would only say that its certificate is bad.
#[derive(Debug, Default)]
struct Strangers(Mutex<Option<(String, String)>>);

impl Strangers {
    fn take(&self) -> Option<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes whoever shows a certificate for a coordinator by the authority of this digest, whose certificate it shows as well.
#[derive(Debug)]
struct ByHash {
    hash: String,
    strangers: Arc<Strangers>,
    provider: Arc<CryptoProvider>,
}

impl ByHash {
    fn stranger(&self, why: &str) -> rustls::Error {
        let mut told = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some((format!("sha256:{}", self.hash), why.to_owned()));
        rustls::Error::General(why.to_owned())
    }
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| key_hash(certificate).as_ref() == Some(&self.hash));
        let Some(authority) = authority else {
            return Err(self.stranger(if intermediates.is_empty() {
                "it shows no authority's certificate; does it serve enrolment?"
            } else {
                "its authority has another key"
            }));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| self.stranger(&error.to_string()))?;
        verifier
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
            .map_err(|error| self.stranger(&error.to_string()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

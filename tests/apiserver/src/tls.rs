//! Certificates: who a client's speaks for, and an authority that makes some for tests.

use crate::access::User;
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What a server needs to speak TLS, as PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate, and what it was signed by if clients need that too.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities whose client certificates are believed; empty for none.
    pub client_authorities: String,
}

impl Tls {
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificates =
            |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?;
        let builder = if self.client_authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in certificates(&self.client_authorities).context("read the client authorities")? {
                roots.add(authority).context("take a client authority")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().context("trust the client authorities")?)
        };
        let chain = certificates(&self.certificate).context("read the server's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("read the server's key")?;
        let config = builder
            .with_single_cert(chain, key)
            .context("take the server's certificate and key")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Who a client certificate speaks for: the common name is the user, the organizations are the groups
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>).
pub(crate) fn user(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<_> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .collect();
    Some(User::new(name, &groups))
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A certificate authority for one test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM.
    pub certificate: String,
}

impl Authority {
    /// Makes a new one.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate().context("make the authority's key")?;
        let certificate = params
            .self_signed(&key)
            .context("sign the authority's certificate")?
            .pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// What a server at an address needs, which believes this authority's clients.
    pub fn server(&self, addresses: &[IpAddr]) -> Result<Tls> {
        let mut names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        names.extend(["kubernetes".to_owned(), "localhost".to_owned()]);
        let mut params = CertificateParams::new(names).context("name the server")?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let made = self.sign(&params)?;
        Ok(Tls {
            certificate: made.certificate,
            key: made.key,
            client_authorities: self.certificate.clone(),
        })
    }

    /// A client certificate for a user in a group; `system:masters` may do everything.
    pub fn client(&self, user: &str, group: &str) -> Result<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Certificate> {
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a certificate")?
            .pem();
        Ok(Certificate {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

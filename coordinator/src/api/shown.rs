//! The certificate that a coordinator shows, which may be replaced while it serves.

use std::sync::{Arc, PoisonError, RwLock};

use blackstart_proto::tls::TlsMaterial;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::handshake::TlsError;

/// Shown to everybody who connects. Cheap to read.
#[derive(Debug)]
pub struct ShownCertificate {
    now: RwLock<Arc<CertifiedKey>>,
    /// The authorities' certificates go with it, for whoever knows them by their digest.
    with_authorities: bool,
}

impl ShownCertificate {
    /// That of `material`.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn new(material: &TlsMaterial, with_authorities: bool) -> Result<Self, TlsError> {
        Ok(Self {
            now: RwLock::new(Arc::new(certified(material, with_authorities)?)),
            with_authorities,
        })
    }

    /// From the next connection on that of `material`.
    ///
    /// # Errors
    /// It cannot be used; what was shown before still is.
    pub fn replace(&self, material: &TlsMaterial) -> Result<(), TlsError> {
        let next = Arc::new(certified(material, self.with_authorities)?);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for ShownCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.now.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// The certificates of a PEM text.
pub(super) fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.map_err(|source| TlsError::Pem { what, source })
}

fn certified(material: &TlsMaterial, with_authorities: bool) -> Result<CertifiedKey, TlsError> {
    let mut chain = certificates("the certificate", &material.certificate)?;
    if with_authorities {
        chain.extend(certificates("the authority's certificate", &material.ca)?);
    }
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| TlsError::Pem {
        what: "the key",
        source,
    })?;
    Ok(CertifiedKey::from_der(
        chain,
        key,
        &rustls::crypto::ring::default_provider(),
    )?)
}

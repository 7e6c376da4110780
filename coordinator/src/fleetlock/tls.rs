//! The listener's own certificate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::FleetLockTls;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of that kind.
    #[error("read fleetlock.tls.{what} {}: {why}", path.display())]
    File {
        /// Which of them.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: PemError,
    },
    /// They were read, and nothing can be made of them.
    #[error("use the certificate and key of fleetlock.tls: {0}")]
    Unusable(String),
}

/// What connections are accepted with.
///
/// # Errors
/// A file cannot be used.
pub fn acceptor(files: &FleetLockTls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |why: &dyn std::fmt::Display| TlsError::Unusable(why.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("ca", path)? {
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates("certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(file("key", &files.key))?;
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(file(what, path))?;
    if found.is_empty() {
        let why = PemError::Io(io::Error::other("it has no certificate"));
        return Err(file(what, path)(why));
    }
    Ok(found)
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(PemError) -> TlsError {
    let path = path.to_owned();
    move |why| TlsError::File { what, path, why }
}

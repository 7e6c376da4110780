//! The three PEM files that every part of Blackstart has, and the client side of the mutual TLS made of them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::SupportedProtocolVersion;
use rustls::version::TLS13;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use zeroize::Zeroizing;

use crate::identity::COORDINATOR_DNS_NAME;

/// What coordinators speak on their own port, and agents with them: both ends are ours, so nothing older is there to be fallen back to.
pub static VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// Where certificate, key and authority are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read {what} {}", path.display())]
pub struct TlsFileError {
    /// Which of the three.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The contents of [`TlsFiles`].
#[derive(Clone)]
pub struct TlsMaterial {
    /// The authority's certificate, PEM.
    pub ca: Vec<u8>,
    /// Our certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM; wiped when it is dropped.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// The files of `name` in a directory as `blackstart pki` lays it out: `ca.crt`, `NAME.crt`, `NAME.key`.
    pub fn in_dir(dir: &Path, name: &str) -> Self {
        Self {
            ca: dir.join("ca.crt"),
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        }
    }

    /// Reads all three.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read(&self) -> Result<TlsMaterial, TlsFileError> {
        let read = |what, path: &Path| {
            fs::read(path).map_err(|source| TlsFileError {
                what,
                path: path.to_owned(),
                source,
            })
        };
        Ok(TlsMaterial {
            ca: read("the authority's certificate", &self.ca)?,
            certificate: read("the certificate", &self.certificate)?,
            key: Zeroizing::new(read("the key", &self.key)?),
        })
    }
}

/// The mode of a key's file, if others than its owner can do something with it.
pub fn exposed(key: &Path) -> Option<u32> {
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// How a client without a certificate speaks to a coordinator, which it verifies as everybody does; `ca` in PEM.
pub fn visitor_config(ca: &[u8]) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name(COORDINATOR_DNS_NAME)
}

/// How a client speaks to a coordinator: shows its own certificate, and verifies the coordinator by
/// [`COORDINATOR_DNS_NAME`] whatever its address.
pub fn client_config(material: &TlsMaterial) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&material.ca))
        .identity(Identity::from_pem(&material.certificate, &material.key))
        .domain_name(COORDINATOR_DNS_NAME)
}

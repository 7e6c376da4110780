//! Reads certificates: whose one is, how long it is valid, and who issued it.

use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::machine::hex;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_SERIALNUMBER;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;

/// Whose a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The authority itself.
    Authority,
    /// One of us.
    Peer(PeerIdentity),
    /// Nobody that we know; why.
    Unknown(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("an authority"),
            Self::Peer(peer) => peer.fmt(f),
            Self::Unknown(why) => write!(f, "nobody known ({why})"),
        }
    }
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The file.
    pub path: PathBuf,
    /// Whose it is.
    pub holder: Holder,
    /// Its number, hexadecimal.
    pub serial: String,
    /// Valid from.
    pub begins: Timestamp,
    /// Valid until.
    pub ends: Timestamp,
    /// Names the authority that issued it: the beginning of its key's digest, in hex; empty if it does not say.
    pub authority: String,
    /// The key that it is for, as a bit string.
    pub(super) public_key: Vec<u8>,
}

impl Seen {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or is no certificate.
    pub fn read(path: &Path) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Io {
            action: "read certificate",
            path: path.to_owned(),
            source,
        };
        let invalid = |why: String| failed(io::Error::new(io::ErrorKind::InvalidData, why));
        let bytes = fs::read(path).map_err(failed)?;
        let (_, pem) = parse_x509_pem(&bytes).map_err(|error| invalid(format!("not PEM: {error}")))?;
        let certificate = pem
            .parse_x509()
            .map_err(|error| invalid(format!("not a certificate: {error}")))?;
        let time = |seconds: i64| {
            Timestamp::from_second(seconds)
                .map_err(|error| invalid(format!("valid at no time that there is: {error}")))
        };
        let validity = certificate.validity();
        let holder = if certificate.is_ca() {
            Holder::Authority
        } else {
            identity_in(&certificate).map_or_else(Holder::Unknown, Holder::Peer)
        };
        Ok(Self {
            path: path.to_owned(),
            holder,
            serial: serial(&certificate),
            begins: time(validity.not_before.timestamp())?,
            ends: time(validity.not_after.timestamp())?,
            authority: authority(&certificate),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }
}

/// One of the authorities in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trusted {
    /// By which nodes know it: `sha256:HEX` of its key.
    pub(crate) hash: String,
    /// PEM.
    pub(crate) pem: String,
    /// Its key, as a bit string.
    pub(super) public_key: Vec<u8>,
    /// Seconds since the Unix epoch.
    pub(super) begins: i64,
    /// Seconds since the Unix epoch.
    pub(super) ends: i64,
}

impl Trusted {
    /// All in a PEM text, in its order.
    ///
    /// # Errors
    /// There is none, or one of them is no authority.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Self>, String> {
        const END: &str = "-----END CERTIFICATE-----";
        let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
        let trusted: Vec<_> = blocks.map(Self::read).collect::<Result<_, _>>()?;
        if trusted.is_empty() {
            return Err("holds no certificate".to_owned());
        }
        Ok(trusted)
    }

    fn read(block: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(block.as_bytes()).map_err(|error| format!("not PEM: {error}"))?;
        let certificate = pem
            .parse_x509()
            .map_err(|error| format!("not a certificate: {error}"))?;
        if !certificate.is_ca() {
            return Err("not an authority's certificate".to_owned());
        }
        let key = certificate.public_key();
        Ok(Self {
            hash: format!("sha256:{}", hex(digest(&SHA256, key.raw).as_ref())),
            pem: format!("{}\n", block.trim()),
            public_key: key.subject_public_key.data.to_vec(),
            begins: certificate.validity().not_before.timestamp(),
            ends: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Every certificate in a directory, the authority's first, then by name.
///
/// # Errors
/// The directory or one of them cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Seen>, PkiError> {
    let failed = |source| PkiError::Io {
        action: "list",
        path: dir.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut seen = paths
        .iter()
        .map(|path| Seen::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    seen.sort_by_key(|seen| seen.holder != Holder::Authority);
    Ok(seen)
}

/// What a certificate says that was shown, whoever issued it: TLS, or [`super::Authority::vouches_for`], tells that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Whose it is.
    pub(crate) peer: PeerIdentity,
    /// Its number, hexadecimal.
    pub(crate) serial: String,
    /// The digest of its key, hexadecimal.
    pub(crate) key: String,
    /// The machine that it is bound to.
    pub(crate) machine: Option<String>,
    /// Seconds since the Unix epoch.
    pub(crate) ends: u64,
}

impl Shown {
    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, or does not name exactly one of us.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let machine = certificate
            .subject()
            .iter_attributes()
            .find(|attribute| *attribute.attr_type() == OID_X509_SERIALNUMBER)
            .and_then(|attribute| attribute.as_str().ok());
        Ok(Self {
            peer: identity_in(&certificate)?,
            serial: serial(&certificate),
            key: key_digest(&certificate.public_key().subject_public_key.data),
            machine: machine.map(str::to_owned),
            ends: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default(),
        })
    }
}

/// The number of a certificate, hexadecimal.
fn serial(certificate: &X509Certificate<'_>) -> String {
    // A leading zero only says that it is positive.
    let bytes = certificate.raw_serial();
    hex(bytes.strip_prefix(&[0]).unwrap_or(bytes))
}

/// How keys are known again.
pub(crate) fn key_digest(public_key: &[u8]) -> String {
    hex(digest(&SHA256, public_key).as_ref())
}

/// `sha256:HEX` of the public key (as in a certificate, with its kind) of the first certificate in `pem`: by which a node that joins
/// knows the authority.
///
/// # Errors
/// There is no certificate in it.
pub(crate) fn authority_hash(pem: &[u8]) -> Result<String, String> {
    let (_, pem) = parse_x509_pem(pem).map_err(|error| format!("not PEM: {error}"))?;
    let certificate = pem
        .parse_x509()
        .map_err(|error| format!("not a certificate: {error}"))?;
    Ok(format!(
        "sha256:{}",
        hex(digest(&SHA256, certificate.public_key().raw).as_ref())
    ))
}

fn identity_in(certificate: &X509Certificate<'_>) -> Result<PeerIdentity, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| format!("the names in the certificate cannot be read: {error}"))?;
    let ours: Vec<_> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        })
        .filter(|uri| uri.starts_with("blackstart:"))
        .collect();
    match ours[..] {
        [only] => only
            .parse()
            .map_err(|error| format!("in the certificate, {error}")),
        [] => Err(
            "the certificate names no blackstart:// identity; issue one with: blackstart pki issue"
                .to_owned(),
        ),
        [..] => Err(format!(
            "the certificate names several identities: {}",
            ours.join(", ")
        )),
    }
}

/// The first eight digits of the issuing key's identifier; of its own for an authority.
fn authority(certificate: &X509Certificate<'_>) -> String {
    let mut issuer = None;
    let mut own = None;
    for extension in certificate.extensions() {
        if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
            issuer = id.key_identifier.as_ref().map(|id| id.0);
        } else if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            own = Some(id.0);
        }
    }
    let id = if certificate.is_ca() { own } else { issuer };
    let mut text = String::new();
    for byte in id.into_iter().flatten().take(4) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

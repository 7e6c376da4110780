//! A small private authority: one directory, no service, nothing to be down when it is needed.
//!
//! ```text
//!  create ──► ca.crt, ca.key ──issue──► NAME.crt, NAME.key   with the URI name blackstart://ROLE/NAME
//! ```
//!
//! What is issued is valid from a day ago: after a power loss clocks lie, and a certificate that is not valid yet keeps a
//! node out. Nothing that exists is replaced unless told to, and never by a certificate of somebody else.

mod files;
pub mod own;
pub mod rotation;
mod seen;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blackstart_proto::identity::{COORDINATOR_DNS_NAME, PeerIdentity, valid_name};
use blackstart_proto::tls::TlsFiles;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKey, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

pub use seen::{Holder, Seen, list};

pub(crate) use seen::{Shown, Trusted, authority_hash, key_digest};

/// Days that an authority is valid: ten years.
pub const AUTHORITY_DAYS: u32 = 3653;
/// Days that an issued certificate is valid unless told otherwise.
pub const DEFAULT_DAYS: u32 = 365;
/// Clocks may be wrong by so much.
const BACKDATED: Duration = Duration::days(1);
/// The serial number of a certificate's subject, which is no certificate's number but a thing's: here the machine's.
/// X.520, 2.5.4.5.
const SUBJECT_SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
/// The authority's own files are called so, and nobody else's.
const AUTHORITY: &str = "ca";

/// Why nothing was made or read. What was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// It would have been replaced.
    #[error("{} exists already; {advice}", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// Replacing was allowed, but it is somebody else's.
    #[error("{} is the certificate of {holder}, not of {wanted}; choose another name or directory", path.display())]
    SomebodyElses {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        holder: String,
        /// Whose it was to be.
        wanted: PeerIdentity,
    },
    /// The name cannot stand in a certificate.
    #[error(
        "{0:?} cannot be a name: 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit, and not \"ca\""
    )]
    Name(String),
    /// The time asked for is none, or reaches beyond the authority's own.
    #[error("{days} days is no lifetime for it; from 1 to {most}, when the authority itself ends")]
    Lifetime {
        /// What was asked for.
        days: u32,
        /// What is left of the authority.
        most: i64,
    },
    /// There is no authority, or what is there is none.
    #[error("{} holds no authority: {why}; make one with: blackstart pki init --dir {}", dir.display(), dir.display())]
    NoAuthority {
        /// Where it was looked for.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// One authority is taking another's place already.
    #[error("in {} two authorities are trusted already, or were to be; how that stands: blackstart-coordinator ca status", .0.display())]
    Rotating(PathBuf),
    /// There is one authority, and nothing to bring to an end.
    #[error("in {} there is one authority, and no other takes its place; begin with: blackstart-coordinator ca rotate", .0.display())]
    NotRotating(PathBuf),
    /// Reading or writing failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The cryptography failed.
    #[error("make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// How a certificate is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueOptions {
    /// How long it is valid from now.
    pub days: u32,
    /// A certificate of the same holder may be replaced.
    pub replace: bool,
}

impl Default for IssueOptions {
    fn default() -> Self {
        Self {
            days: DEFAULT_DAYS,
            replace: false,
        }
    }
}

/// What was made for one holder, PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// What a node asked to have certified: its key, which it has shown that it holds.
#[derive(Debug)]
pub(crate) struct CertificateRequest {
    key: PublicKey,
}

impl CertificateRequest {
    /// Reads PKCS#10. Of what stands in it only the key counts.
    ///
    /// # Errors
    /// It cannot be read, is of a kind of key that is not known, or is not signed by its own key.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let der = CertificateSigningRequestDer::from(der);
        let request = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| format!("the request for a certificate cannot be taken: {error}"))?;
        Ok(Self {
            key: request.public_key,
        })
    }

    /// The digest of its key.
    pub(crate) fn key(&self) -> String {
        key_digest(self.key.der_bytes())
    }
}

/// A certificate for a key that its holder made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certified {
    /// PEM.
    pub(crate) certificate: String,
    /// Its number, hexadecimal.
    pub(crate) serial: String,
    /// Valid until, seconds since the Unix epoch.
    pub(crate) ends: u64,
}

/// An authority that can issue.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    begins: OffsetDateTime,
    ends: OffsetDateTime,
    /// Its own certificate, PEM.
    own: String,
    /// All that are trusted, PEM: its own, and one whose place it takes ([`rotation`]).
    all: String,
}

impl Authority {
    /// Makes a new authority in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// There is one already, which is never replaced: every certificate would be void. Or the files cannot be written.
    pub fn create(dir: &Path) -> Result<Self, PkiError> {
        for file in ["ca.crt", "ca.key"] {
            let path = dir.join(file);
            if path.symlink_metadata().is_ok() {
                return Err(PkiError::Exists {
                    path,
                    advice: "an authority is never replaced, since every certificate of it would be void: move the whole directory away",
                });
            }
        }
        files::make_directory(dir)?;
        let (certificate, key) = Self::generate(OffsetDateTime::now_utc() - BACKDATED)?;
        // The key last: a certificate without a key is no authority, and is told so.
        files::write_certificate(&dir.join("ca.crt"), &certificate)?;
        files::write_key(&dir.join("ca.key"), &key)?;
        files::sync_directory(dir)?;
        Self::open(dir)
    }

    /// The certificate and the key of a new authority, PEM.
    fn generate(begins: OffsetDateTime) -> Result<(String, Zeroizing<String>), PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Numbered, so that two authorities are told apart by eye.
        let number = rand::random::<u32>();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("blackstart authority {number:08x}"));
        params.not_before = begins;
        params.not_after = OffsetDateTime::now_utc() + Duration::days(AUTHORITY_DAYS.into());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    }

    /// The authority in `dir`.
    ///
    /// # Errors
    /// There is none, its key is not its certificate's, or it has ended.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let none = |why: String| PkiError::NoAuthority {
            dir: dir.to_owned(),
            why,
        };
        let read = |file: &str| {
            fs::read_to_string(dir.join(file))
                .map_err(|error| none(format!("{file} cannot be read: {error}")))
        };
        let (all, key) = (read("ca.crt")?, Zeroizing::new(read("ca.key")?));
        let trusted = Trusted::read_all(&all).map_err(|why| none(format!("ca.crt: {why}")))?;
        let key = KeyPair::from_pem(&key).map_err(|error| none(format!("ca.key is not a key: {error}")))?;
        let Some(own) = rotation::issuing(&trusted, key.public_key_raw()) else {
            return Err(none("ca.key is not the key of ca.crt".to_owned()));
        };
        let time = |seconds: i64| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .map_err(|error| none(format!("ca.crt is valid at no time: {error}")))
        };
        let (begins, ends) = (time(own.begins)?, time(own.ends)?);
        if ends <= OffsetDateTime::now_utc() {
            return Err(none(format!(
                "its certificate ended at {ends} (if this machine's clock is right)"
            )));
        }
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::from_ca_cert_pem(&own.pem, key)?,
            begins,
            ends,
            own: own.pem.clone(),
            all,
        })
    }

    /// Every authority that is trusted, in the order of `ca.crt`.
    pub(crate) fn trusted(&self) -> Vec<Trusted> {
        // It was read when this was made.
        Trusted::read_all(&self.all).unwrap_or_default()
    }

    /// All of them, PEM.
    fn pem(&self) -> &str {
        &self.all
    }

    /// Its own certificate, PEM.
    fn own_pem(&self) -> &str {
        &self.own
    }

    fn begins(&self) -> OffsetDateTime {
        self.begins
    }

    fn days_left(&self) -> i64 {
        (self.ends - OffsetDateTime::now_utc()).whole_days()
    }

    /// [`Self::issue`] for a node's agent, with the defaults.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_node(&self, name: &str) -> Result<TlsFiles, PkiError> {
        self.issue(&PeerIdentity::Node(name.to_owned()), IssueOptions::default())
    }

    /// [`Self::issue`] for a coordinator, with the defaults.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_coordinator(&self, name: &str) -> Result<TlsFiles, PkiError> {
        self.issue(
            &PeerIdentity::Coordinator(name.to_owned()),
            IssueOptions::default(),
        )
    }

    /// [`Self::issue`] for a person, with the defaults.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_operator(&self, name: &str) -> Result<TlsFiles, PkiError> {
        self.issue(&PeerIdentity::Operator(name.to_owned()), IssueOptions::default())
    }

    /// Issues a certificate and its key to `whose`, as `NAME.crt` and `NAME.key` beside the authority's.
    ///
    /// # Errors
    /// The name or the lifetime cannot be, a file exists that may not be replaced, or the files cannot be written.
    pub fn issue(&self, whose: &PeerIdentity, options: IssueOptions) -> Result<TlsFiles, PkiError> {
        let name = whose.name();
        if !valid_name(name) || name.eq_ignore_ascii_case(AUTHORITY) {
            return Err(PkiError::Name(name.to_owned()));
        }
        let to = TlsFiles::in_dir(&self.dir, name);
        may_write(&to, whose, options.replace)?;
        let issued = self.certify(whose, options.days)?;
        files::write_key(&to.key, &issued.key)?;
        files::write_certificate(&to.certificate, &issued.certificate)?;
        files::sync_directory(&self.dir)?;
        Ok(to)
    }

    /// Gives the coordinator whose certificate was `seen` in `files` a new one for the same key, with the same beginning: who thinks that it is
    /// earlier than it is does not take it for one of the future. Nothing is done about one that another authority has issued.
    ///
    /// # Errors
    /// It is nobody's of ours or its key is another's, another authority takes this one's place, or the file cannot be written.
    pub(crate) fn renew(&self, files: &TlsFiles, seen: &Seen) -> Result<(), PkiError> {
        let own = Seen::read(&self.dir.join("ca.crt"))?;
        if own.authority != seen.authority {
            return Ok(());
        }
        if self.trusted().len() > 1 {
            return Err(PkiError::Rotating(self.dir.clone()));
        }
        let Holder::Peer(whose @ PeerIdentity::Coordinator(_)) = &seen.holder else {
            return Ok(());
        };
        let failed = |action: &'static str, source: io::Error| PkiError::Io {
            action,
            path: files.key.clone(),
            source,
        };
        let pem = fs::read_to_string(&files.key).map_err(|source| failed("read", source))?;
        let key = KeyPair::from_pem(&Zeroizing::new(pem))?;
        if key.public_key_raw() != seen.public_key {
            let other = io::Error::new(io::ErrorKind::InvalidData, "it is another certificate's");
            return Err(failed("use", other));
        }
        let days = DEFAULT_DAYS.min(u32::try_from(self.days_left()).unwrap_or(1));
        let mut params = self.params(whose, days, OffsetDateTime::now_utc())?;
        params.not_before = OffsetDateTime::from_unix_timestamp(seen.begins.as_second())
            .unwrap_or(params.not_before)
            .min(params.not_before);
        if params.not_after.unix_timestamp() <= seen.ends.as_second() {
            return Ok(());
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        files::write_certificate(&files.certificate, &certificate.pem())
    }

    /// Makes a key and a certificate for `whose`, and writes nothing.
    ///
    /// # Errors
    /// The lifetime cannot be.
    pub fn certify(&self, whose: &PeerIdentity, days: u32) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let params = self.params(whose, days, OffsetDateTime::now_utc())?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Certifies a node's own key, bound to one machine, from `now` (seconds since the Unix epoch) for `lifetime`, or until the
    /// authority itself ends.
    ///
    /// # Errors
    /// There is nothing left of the authority, or the cryptography failed.
    pub(crate) fn certify_node(
        &self,
        name: &str,
        machine: &str,
        request: &CertificateRequest,
        now: u64,
        lifetime: std::time::Duration,
    ) -> Result<Certified, PkiError> {
        let whose = PeerIdentity::Node(name.to_owned());
        self.certify_key(&whose, Some(machine), request, now, lifetime)
    }

    /// The same for an operator's own key.
    ///
    /// # Errors
    /// As [`Self::certify_node`].
    pub(crate) fn certify_operator(
        &self,
        name: &str,
        request: &CertificateRequest,
        now: u64,
        lifetime: std::time::Duration,
    ) -> Result<Certified, PkiError> {
        let whose = PeerIdentity::Operator(name.to_owned());
        self.certify_key(&whose, None, request, now, lifetime)
    }

    fn certify_key(
        &self,
        whose: &PeerIdentity,
        machine: Option<&str>,
        request: &CertificateRequest,
        now: u64,
        lifetime: std::time::Duration,
    ) -> Result<Certified, PkiError> {
        let begins = i64::try_from(now).unwrap_or(i64::MAX);
        let begins = OffsetDateTime::from_unix_timestamp(begins).unwrap_or(self.ends);
        let ends = Duration::try_from(lifetime)
            .ok()
            .and_then(|lifetime| begins.checked_add(lifetime))
            .map_or(self.ends, |ends| ends.min(self.ends));
        let mut params = self.params(whose, 1, begins)?;
        params.not_after = ends;
        if let Some(machine) = machine {
            params
                .distinguished_name
                .push(DnType::CustomDnType(SUBJECT_SERIAL_NUMBER.to_vec()), machine);
        }
        // Two certificates of one key are two certificates. Positive: its first bit is not set.
        let mut number = rand::random::<[u8; 16]>();
        number[0] = (number[0] & 0x7f) | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&number));
        let certificate = params.signed_by(&request.key, &self.issuer)?;
        Ok(Certified {
            certificate: certificate.pem(),
            serial: blackstart_proto::machine::hex(&number),
            ends: u64::try_from(ends.unix_timestamp()).unwrap_or_default(),
        })
    }

    /// Did this authority issue the certificate to a client? Whether it is still valid is another question: `at` is the time,
    /// seconds since the Unix epoch, that it is asked for.
    ///
    /// # Errors
    /// It did not; why that is thought.
    pub(crate) fn vouches_for(&self, certificate: &[u8], at: u64) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| format!("it is not of this authority: {error}");
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.all.as_bytes()) {
            roots
                .add(root.map_err(|error| text(&error))?)
                .map_err(|error| text(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| text(&error))?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        verifier
            .verify_client_cert(&CertificateDer::from(certificate), &[], at)
            .map(drop)
            .map_err(|error| text(&error))
    }

    /// The authorities that whoever is given a certificate is to trust, PEM.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.all.clone().into_bytes()
    }

    fn params(
        &self,
        whose: &PeerIdentity,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<CertificateParams, PkiError> {
        let not_after = now
            .checked_add(Duration::days(days.into()))
            .filter(|ends| days > 0 && *ends <= self.ends)
            .ok_or_else(|| PkiError::Lifetime {
                days,
                most: (self.ends - now).whole_days(),
            })?;
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = not_after;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, whose.name());
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(whose.to_string())?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match whose {
            PeerIdentity::Node(_) | PeerIdentity::Operator(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
            PeerIdentity::Coordinator(_) => {
                // What clients verify. No address and no other name: those may change.
                let dns = Ia5String::try_from(COORDINATOR_DNS_NAME)?;
                params.subject_alt_names.push(SanType::DnsName(dns));
                // One that follows is the leader's client.
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
        };
        Ok(params)
    }
}

/// May these files be written for `whose`?
fn may_write(to: &TlsFiles, whose: &PeerIdentity, replace: bool) -> Result<(), PkiError> {
    for path in [&to.certificate, &to.key] {
        if path.symlink_metadata().is_err() {
            continue;
        }
        if !replace {
            return Err(PkiError::Exists {
                path: path.clone(),
                advice: "--force replaces it by a new one of the same holder",
            });
        }
    }
    if to.certificate.exists() {
        let holder = Seen::read(&to.certificate)?.holder;
        if holder != Holder::Peer(whose.clone()) {
            return Err(PkiError::SomebodyElses {
                path: to.certificate.clone(),
                holder: holder.to_string(),
                wanted: whose.clone(),
            });
        }
    }
    Ok(())
}

//! An operator's own certificate, renewed where it lies: the key is made there, and nobody else ever has it.
//!
//! ```text
//!  make ──► NAME.key.next                          what is not taken is removed; a crash leaves the old two
//!  take ──► NAME.crt.next ─► NAME.key ─► NAME.crt  …or, between the last two, what `finish` goes on from
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use blackstart_proto::tls::TlsFiles;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use zeroize::Zeroizing;

use super::{PkiError, Seen, Trusted, files};

/// A key that is to take the place of another.
#[derive(Debug)]
pub struct NextKey {
    /// Where it lies until it is taken.
    path: PathBuf,
    public_key: Vec<u8>,
    request: Vec<u8>,
}

impl NextKey {
    /// Makes a key beside that of `files`, and what asks for a certificate of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn make(files: &TlsFiles) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Whose it is, the coordinator knows by the certificate that is shown; a request names somebody, if only for form's sake.
        params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from("operator.blackstart")?)];
        let request = params.serialize_request(&key)?.der().to_vec();
        let pem = Zeroizing::new(key.serialize_pem());
        files::write_key(&next(&files.key), &pem)?;
        Ok(Self {
            path: next(&files.key),
            public_key: key.public_key_raw().to_vec(),
            request,
        })
    }

    /// PKCS#10, DER.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Puts the key and its certificate (PEM) in the place of what is there, and the authorities (PEM) where they are others. Tells whether they
    /// were.
    ///
    /// # Errors
    /// It is no certificate of this key, or cannot be written; what is there is as it was then.
    pub fn take(self, files: &TlsFiles, certificate: &str, authorities: &str) -> Result<bool, PkiError> {
        let crt = next(&files.certificate);
        let invalid = |why: &str| PkiError::Io {
            action: "use what was given as",
            path: files.certificate.clone(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned()),
        };
        Trusted::read_all(authorities).map_err(|why| invalid(&why))?;
        files::write_certificate(&crt, certificate)?;
        if Seen::read(&crt)?.public_key != self.public_key {
            return Err(invalid("it is for another key"));
        }
        rename(&next(&files.key), &files.key)?;
        rename(&crt, &files.certificate)?;
        let others = fs::read_to_string(&files.ca).is_ok_and(|known| known.trim() != authorities.trim());
        if others {
            files::write_certificate(&files.ca, authorities)?;
        }
        Ok(others)
    }
}

impl Drop for NextKey {
    fn drop(&mut self) {
        // One that was taken is not there any more.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Goes on where a crash between the two files broke [`NextKey::take`] off.
///
/// # Errors
/// The file cannot be put in its place.
pub fn finish(files: &TlsFiles) -> Result<(), PkiError> {
    let crt = next(&files.certificate);
    let key = fs::read_to_string(&files.key).map(Zeroizing::new);
    let (Ok(seen), Ok(key)) = (Seen::read(&crt), key) else {
        return Ok(());
    };
    if KeyPair::from_pem(&key).is_ok_and(|key| key.public_key_raw() == seen.public_key) {
        rename(&crt, &files.certificate)?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    fs::rename(from, to).map_err(|source| PkiError::Io {
        action: "write",
        path: to.to_owned(),
        source,
    })?;
    match to.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => files::sync_directory(dir),
        None => files::sync_directory(Path::new(".")),
    }
}

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::pki::{Authority, CertificateRequest};

    fn given(authority: &Authority, key: &NextKey) -> String {
        let request = CertificateRequest::read(key.request()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let now = u64::try_from(now).unwrap();
        let given = authority.certify_operator("ann", &request, now, Duration::from_hours(24));
        given.unwrap().certificate
    }

    #[test]
    fn key_and_certificate_are_replaced_together_and_the_key_is_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let files = authority.issue_operator("ann").unwrap();
        let before = files.read().unwrap();
        let other = NextKey::make(&files).unwrap();
        let certificate = given(&authority, &other);
        // A certificate of somebody else's key, and something that is none: nothing changes.
        let key = NextKey::make(&files).unwrap();
        let ca = fs::read_to_string(&files.ca).unwrap();
        assert!(key.take(&files, &certificate, &ca).is_err());
        assert!(NextKey::make(&files).unwrap().take(&files, "", &ca).is_err());
        assert_eq!(*files.read().unwrap().key, *before.key);

        let key = NextKey::make(&files).unwrap();
        let certificate = given(&authority, &key);
        assert!(!key.take(&files, &certificate, &ca).unwrap());
        let after = files.read().unwrap();
        assert_ne!(*after.key, *before.key);
        assert_eq!(after.certificate, certificate.into_bytes());
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_a_crash_between_the_two_left_is_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let files = authority.issue_operator("ann").unwrap();
        let key = NextKey::make(&files).unwrap();
        // A crash before: nothing is done.
        finish(&files).unwrap();
        let certificate = given(&authority, &key);
        fs::write(next(&files.certificate), &certificate).unwrap();
        let old = files.read().unwrap();
        finish(&files).unwrap();
        assert_eq!(
            files.read().unwrap().certificate,
            old.certificate,
            "its key is not there yet"
        );
        fs::rename(next(&files.key), &files.key).unwrap();
        finish(&files).unwrap();
        assert_eq!(files.read().unwrap().certificate, certificate.into_bytes());
    }
}

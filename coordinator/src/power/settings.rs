//! What is told of management controllers: in the configuration for all, in the inventory for each.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ring::digest::{SHA256, digest};

/// The port of HTTPS, which DSP0266 has services listen on.
pub const PORT: u16 = 443;

/// What is told of all management controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcSettings {
    /// The file with their users and passwords, for nobody else to read.
    pub credentials: PathBuf,
    /// The authority that signed their certificates; for those without a fingerprint.
    pub ca: Option<PathBuf>,
    /// A question has its answer within this, connection and all.
    pub timeout: Duration,
}

impl BmcSettings {
    /// With a file of credentials and defaults.
    pub fn new(credentials: PathBuf) -> Self {
        Self {
            credentials,
            ca: None,
            // Controllers are slow: a handshake and an answer take the better part of a second each.
            timeout: Duration::from_secs(5),
        }
    }
}

/// The management controller of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BmcSpec {
    /// Where it is reached; never resolved by name.
    pub address: SocketAddr,
    /// The path of the machine; `None`: the only one behind it.
    pub system: Option<String>,
    /// Of its certificate; `None`: an authority signed it.
    pub fingerprint: Option<Fingerprint>,
}

/// SHA-256 of a certificate, DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(bytes)
    }

    /// 64 hexadecimal digits, with colons as `openssl x509 -fingerprint -sha256` writes them or without, after `sha256:` or not.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let digits: String = text
            .strip_prefix("sha256:")
            .unwrap_or(&text)
            .chars()
            .filter(|one| *one != ':')
            .collect();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_writes_it() {
        let of = Fingerprint::of(b"a certificate");
        let plain = of.to_string();
        let pairs: Vec<_> = plain.as_bytes()["sha256:".len()..]
            .chunks(2)
            .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
            .collect();
        for text in [
            plain.clone(),
            plain["sha256:".len()..].to_owned(),
            pairs.join(":"),
        ] {
            assert_eq!(Fingerprint::parse(&text), Some(of), "{text}");
        }
        for wrong in ["", "sha256:", &plain[..plain.len() - 1], "sha1:00"] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }
}

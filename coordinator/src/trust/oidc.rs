//! Operators who come with a token of an identity provider (`OpenID` Connect Core 1.0) in place of a certificate.
//!
//! ```text
//!  authorization: Bearer TOKEN ─► signed by a key of the file? ─► issuer, audience, times ─► a claim ─► the operator's name
//! ```
//! The provider itself is never asked: after a power loss it may be down, or one of those who wait to be brought back. Its public keys are in
//! a file, a JSON Web Key Set (RFC 7517), which is read again whenever it changes; while it cannot be read, the keys that were read last count.
//!
//! Only signatures with a public key count (RFC 8725, 3.1 and 3.2): no `none`, and no secret that both would know. Times are measured as those of
//! certificates are, by the later of the clock and its floor. What an operator may do stands in `operators`, as for one with a certificate of
//! the same name: it is the same person.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blackstart_proto::identity::valid_name;
use blackstart_proto::machine::hex;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The provider, and what it says of operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// As its tokens name it: `iss`.
    pub issuer: String,
    /// Whom its tokens are for: one of `aud`.
    pub audience: String,
    /// Its public keys, a JSON Web Key Set.
    pub keys: PathBuf,
    /// The claim that has the operator's name.
    pub claim: String,
    /// What every such name ends with and an operator's does not; empty: nothing. `@example.com`, where the claim is an address.
    pub suffix: String,
}

/// A longer token is none.
const LONGEST: usize = 8 << 10;
/// A larger file is none of keys.
const LARGEST: u64 = 256 << 10;
/// So many keys are looked at; a provider has two or three.
const KEYS: usize = 64;
/// Clocks differ; so much is let pass, seconds.
const LEEWAY: u64 = 60;
/// A token is good for no longer, whatever it says, seconds.
const LONGEST_STAY: u64 = 24 * 3600;

/// Whom a token is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) operator: String,
    /// Names the token: the beginning of its digest.
    pub(crate) token: String,
    /// It counts until then, seconds since the Unix epoch.
    pub(crate) until: u64,
}

/// A provider whose tokens are taken.
#[derive(Debug)]
pub struct Oidc {
    settings: OidcSettings,
    keys: Mutex<Kept>,
}

/// The keys as they were read last.
#[derive(Default)]
struct Kept {
    /// Of the file then.
    stamp: Option<Stamp>,
    keys: Arc<Vec<Key>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// Device, inode, size and the time of its last change: a file that is another one differs in one of them.
type Stamp = (u64, u64, u64, i64, i64);

struct Key {
    id: Option<String>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Oidc {
    /// Reads the keys. That they cannot be read is told, and keeps no coordinator from its work: no token counts until they can.
    pub fn open(settings: OidcSettings) -> Self {
        let oidc = Self {
            settings,
            keys: Mutex::default(),
        };
        if oidc.keys().is_empty() {
            let file = oidc.settings.keys.display();
            tracing::error!(%file, "without the identity provider's keys no token counts; operators' certificates do");
        }
        oidc
    }

    /// Whom this token is of. `now`: seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it does not count, for whoever sent it.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Holder, String> {
        if token.len() > LONGEST {
            return Err(format!("the token is longer than {LONGEST} bytes"));
        }
        let claims = self.claims(token, &self.keys())?;
        read(&claims, &self.settings, now).map(|(operator, until)| Holder {
            operator,
            token: hex(&digest(&SHA256, token.as_bytes()).as_ref()[..8]),
            until,
        })
    }

    fn claims(&self, token: &str, keys: &[Key]) -> Result<Map<String, Value>, String> {
        let header = decode_header(token).map_err(|error| format!("the token is none: {error}"))?;
        if is_secret(header.alg) {
            return Err(format!("the token is signed with a secret ({:?})", header.alg));
        }
        let mut rules = Validation::new(header.alg);
        // By our own time, below.
        rules.validate_exp = false;
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.set_issuer(&[&self.settings.issuer]);
        rules.set_audience(&[&self.settings.audience]);
        let named = |key: &&Key| header.kid.is_none() || key.id.is_none() || header.kid == key.id;
        let mut why = format!(
            "no key of {} has signed the token (kid {:?}); has the provider new keys?",
            self.settings.keys.display(),
            header.kid.as_deref().unwrap_or_default()
        );
        for key in keys.iter().filter(named) {
            match decode::<Map<String, Value>>(token, &key.key, &rules) {
                Ok(read) => return Ok(read.claims),
                Err(error) => why = self.why_not(&error).unwrap_or(why),
            }
        }
        Err(why)
    }

    /// `None`: another key may have signed it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's list grows, and whatever else it says is no token"
    )]
    fn why_not(&self, error: &Error) -> Option<String> {
        match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => None,
            ErrorKind::InvalidIssuer => Some(format!("the token is not of {}", self.settings.issuer)),
            ErrorKind::InvalidAudience => Some(format!("the token is not for {}", self.settings.audience)),
            _ => Some(format!("the token does not count: {error}")),
        }
    }

    /// Those of the file as it is now.
    fn keys(&self) -> Arc<Vec<Key>> {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fs::metadata(&self.settings.keys).map(|seen| stamp(&seen)).ok();
        if now.is_some() && now != kept.stamp {
            match load(&self.settings.keys) {
                Ok((stamp, keys)) => {
                    tracing::info!(file = %self.settings.keys.display(), keys = keys.len(), "the identity provider's keys are read again");
                    kept.stamp = Some(stamp);
                    kept.keys = Arc::new(keys);
                }
                Err(why) => {
                    tracing::error!(
                        why,
                        "the identity provider's keys have changed and cannot be read; those of before count"
                    );
                    kept.stamp = now;
                }
            }
        }
        Arc::clone(&kept.keys)
    }
}

/// Name and end, from what the token says. Pure.
fn read(claims: &Map<String, Value>, settings: &OidcSettings, now: u64) -> Result<(String, u64), String> {
    let seconds = |name: &str| -> Result<Option<u64>, String> {
        match claims.get(name) {
            None => Ok(None),
            // Both may have a fraction (RFC 7519, 2: NumericDate).
            Some(value) => {
                let at = value.as_f64().and_then(|at| Duration::try_from_secs_f64(at).ok());
                let at = at.ok_or_else(|| format!("the token's {name} is no time"))?;
                Ok(Some(at.as_secs()))
            }
        }
    };
    let ends = seconds("exp")?.ok_or("the token has no end (exp)")?;
    let until = ends.saturating_add(LEEWAY);
    if until <= now {
        return Err(format!("the token has ended {} s ago: get a new one", now - ends));
    }
    if let Some(begins) = seconds("nbf")?.filter(|begins| *begins > now.saturating_add(LEEWAY)) {
        return Err(format!(
            "the token begins in {} s: is a clock wrong?",
            begins - now
        ));
    }
    let claim = &settings.claim;
    let told = claims
        .get(claim)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("the token has no claim {claim:?}, which is to have the operator's name"))?;
    let name = match told.strip_suffix(settings.suffix.as_str()) {
        Some(name) if valid_name(name) => name,
        Some(_) => {
            let told: String = told.chars().take(64).collect();
            return Err(format!(
                "the token's {claim:?} is {told:?}, which is no operator's name (1 to 63 of a-z A-Z 0-9 . _ -): `oidc.claim` and `oidc.suffix` of the coordinator's configuration say what is"
            ));
        }
        None => {
            return Err(format!(
                "the token's {claim:?} does not end with {:?}",
                settings.suffix
            ));
        }
    };
    Ok((name.to_owned(), until.min(now.saturating_add(LONGEST_STAY))))
}

const fn is_secret(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn load(path: &Path) -> Result<(Stamp, Vec<Key>), String> {
    let failed = |error: std::io::Error| format!("read {}: {error}", path.display());
    let file = fs::File::open(path).map_err(failed)?;
    let seen = file.metadata().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("{} is larger than {LARGEST} bytes", path.display()));
    }
    let keys = understand(&bytes).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok((stamp(&seen), keys))
}

/// The public keys of a set that can sign. Those of other kinds are passed over, as RFC 7517, 5 wants it.
fn understand(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON Web Key Set: {error}"))?;
    let mut keys = Vec::new();
    for value in set.keys.into_iter().take(KEYS) {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            continue;
        };
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        if signs
            && is_public
            && let Ok(key) = DecodingKey::from_jwk(&jwk)
        {
            let id = jwk.common.key_id;
            keys.push(Key { id, key });
        }
    }
    if keys.is_empty() {
        return Err("it has no public key that signs (RSA, EC or Ed25519)".to_owned());
    }
    Ok(keys)
}

/// For the fuzzer: a set of keys, and a token that the set's keys are to have signed.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(keys: &[u8], token: &str) {
    let Ok(keys) = understand(keys) else { return };
    let settings = OidcSettings {
        issuer: "https://sso.example".to_owned(),
        audience: "blackstart".to_owned(),
        keys: "keys.json".into(),
        claim: "sub".to_owned(),
        suffix: String::new(),
    };
    let oidc = Oidc {
        settings,
        keys: Mutex::default(),
    };
    if let Ok(claims) = oidc.claims(token, &keys)
        && let Ok((operator, until)) = read(&claims, &oidc.settings, 1_800_000_000)
    {
        assert!(valid_name(&operator) && until > 1_799_999_000);
    }
}

fn stamp(seen: &fs::Metadata) -> Stamp {
    (
        seen.dev(),
        seen.ino(),
        seen.size(),
        seen.mtime(),
        seen.mtime_nsec(),
    )
}

#[cfg(test)]
mod tests;

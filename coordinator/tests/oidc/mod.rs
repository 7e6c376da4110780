//! An identity provider for tests: a key, its public half in a file, and tokens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;

pub(crate) const ISSUER: &str = "https://sso.example";
pub(crate) const AUDIENCE: &str = "blackstart";

pub(crate) struct Provider(KeyPair);

impl Provider {
    pub(crate) fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    pub(crate) fn publish(&self, path: &Path) {
        // SEC 1, 2.3.3: a byte that says that both coordinates follow.
        let (x, y) = self.0.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| BASE64URL_NOPAD.encode(part));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]});
        std::fs::write(path, keys.to_string()).unwrap();
    }

    /// For an operator; it lasts so many seconds, or has ended so many ago.
    pub(crate) fn token(&self, operator: &str, lasts: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims =
            json!({"iss": ISSUER, "aud": AUDIENCE, "sub": operator, "exp": now.saturating_add_signed(lasts)});
        let key = EncodingKey::from_ec_der(&self.0.serialize_der());
        encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    }
}

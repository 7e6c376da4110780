use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

/// A key of a provider, and how it is told to others.
struct Signer {
    key: KeyPair,
    id: &'static str,
    algorithm: Algorithm,
}

impl Signer {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let of = if algorithm == Algorithm::EdDSA {
            &rcgen::PKCS_ED25519
        } else {
            &rcgen::PKCS_ECDSA_P256_SHA256
        };
        Self {
            key: KeyPair::generate_for(of).unwrap(),
            id,
            algorithm,
        }
    }

    fn told(&self) -> Value {
        let raw = self.key.der_bytes();
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        if self.algorithm == Algorithm::EdDSA {
            return json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.id, "x": text(raw)});
        }
        // SEC 1, 2.3.3: a byte that says that both coordinates follow.
        let (x, y) = raw[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": text(x), "y": text(y)})
    }

    fn signs(&self, claims: &Value) -> String {
        let der = self.key.serialize_der();
        let key = if self.algorithm == Algorithm::EdDSA {
            EncodingKey::from_ed_der(&der)
        } else {
            EncodingKey::from_ec_der(&der)
        };
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(self.algorithm)
        };
        encode(&header, claims, &key).unwrap()
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://sso.example", "aud": ["other", "blackstart"], "sub": "0d1f",
        "email": "ann@example.com", "iat": NOW, "exp": NOW + 300,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn write(path: &Path, keys: &[Value]) {
    let next = path.with_extension("new");
    fs::write(&next, json!({"keys": keys}).to_string()).unwrap();
    fs::rename(next, path).unwrap();
}

fn provider(path: &Path) -> Oidc {
    Oidc::open(OidcSettings {
        issuer: "https://sso.example".to_owned(),
        audience: "blackstart".to_owned(),
        keys: path.to_owned(),
        claim: "email".to_owned(),
        suffix: "@example.com".to_owned(),
    })
}

#[test]
fn a_token_of_the_provider_names_its_operator_until_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let signers = [
        Signer::new("a", Algorithm::ES256),
        Signer::new("b", Algorithm::EdDSA),
    ];
    write(
        &path,
        &[signers[0].told(), json!({"kty": "new"}), signers[1].told()],
    );
    let oidc = provider(&path);
    for signer in &signers {
        let holder = oidc.verify(&signer.signs(&claims()), NOW).unwrap();
        assert_eq!(
            (holder.operator.as_str(), holder.until),
            ("ann", NOW + 300 + LEEWAY)
        );
        assert_eq!(holder.token.len(), 16);
    }
    // However long it says that it lasts.
    let forever = oidc
        .verify(&signers[0].signs(&with("exp", json!(NOW * 2))), NOW)
        .unwrap();
    assert_eq!(forever.until, NOW + LONGEST_STAY);
}

#[test]
fn what_does_not_count_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let ours = Signer::new("a", Algorithm::ES256);
    let theirs = Signer::new("a", Algorithm::ES256);
    write(&path, &[ours.told()]);
    let oidc = provider(&path);
    let good = ours.signs(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    let payload = head.split_once('.').unwrap().1;
    // The public key as a secret, which a verifier that believes the header would take.
    let secret = encode(
        &Header::new(Algorithm::HS256),
        &claims(),
        &EncodingKey::from_secret(ours.key.der_bytes()),
    );
    for (token, why) in [
        (theirs.signs(&claims()), "no key of"),
        (format!("{none}.{payload}."), "the token is none"),
        (secret.unwrap(), "signed with a secret"),
        (format!("{head}.{}", &signature[..20]), "no key of"),
        ("x".to_owned(), "the token is none"),
        (format!("{head}.{}", "a".repeat(LONGEST)), "longer than"),
        (
            ours.signs(&with("iss", json!("https://evil"))),
            "not of https://sso.example",
        ),
        (ours.signs(&with("aud", json!("other"))), "not for blackstart"),
        (ours.signs(&with("exp", json!(NOW - 61))), "has ended 61 s ago"),
        (ours.signs(&with("exp", json!("soon"))), "does not count"),
        (ours.signs(&with("nbf", json!(NOW + 90))), "begins in 90 s"),
        (ours.signs(&with("email", json!(7))), "no claim \"email\""),
        (
            ours.signs(&with("email", json!("ann@evil.com"))),
            "does not end with",
        ),
        (
            ours.signs(&with("email", json!("a b@example.com"))),
            "no operator's name",
        ),
        (
            ours.signs(&with("email", json!("@example.com"))),
            "no operator's name",
        ),
    ] {
        let told = oidc.verify(&token, NOW).unwrap_err();
        assert!(told.contains(why), "{why:?} in {told:?}");
    }
    // A minute is let pass.
    assert!(
        oidc.verify(&ours.signs(&with("exp", json!(NOW - 59))), NOW)
            .is_ok()
    );
}

#[test]
fn new_keys_count_as_soon_as_they_are_there_and_the_old_ones_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let (old, new) = (
        Signer::new("1", Algorithm::ES256),
        Signer::new("2", Algorithm::ES256),
    );
    // There are none yet.
    let oidc = provider(&path);
    assert!(oidc.verify(&old.signs(&claims()), NOW).is_err());
    write(&path, &[old.told()]);
    oidc.verify(&old.signs(&claims()), NOW).unwrap();
    // A provider that was asked while it was down.
    fs::write(&path, "<html>502</html>").unwrap();
    oidc.verify(&old.signs(&claims()), NOW).unwrap();
    fs::remove_file(&path).unwrap();
    oidc.verify(&old.signs(&claims()), NOW).unwrap();
    write(&path, &[new.told()]);
    oidc.verify(&new.signs(&claims()), NOW).unwrap();
    assert!(
        oidc.verify(&old.signs(&claims()), NOW)
            .unwrap_err()
            .contains("has the provider new keys?")
    );
}

#[test]
fn only_public_keys_that_sign_are_taken() {
    let secret = json!({"kty": "oct", "k": "c2VjcmV0"});
    let mut encrypts = Signer::new("a", Algorithm::ES256).told();
    encrypts["use"] = json!("enc");
    for keys in [
        json!({"keys": [secret, encrypts]}),
        json!({"keys": []}),
        json!([]),
    ] {
        assert!(understand(keys.to_string().as_bytes()).is_err(), "{keys}");
    }
    // RFC 7517, appendix A.1.
    let rsa = r#"{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}]}"#;
    assert_eq!(understand(rsa.as_bytes()).unwrap().len(), 1);
}

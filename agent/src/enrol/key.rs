//! The node's key, ECDSA on P-256, and requests (PKCS#10) for certificates of it.
//!
//! A request says next to nothing: the coordinator takes its key, and that it is signed by it, and nothing else. So it is put together
//! here, from parts of fixed length, rather than by a library for certificates.

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// `SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING, no unused bits` (RFC 5480); the point's 65 bytes follow.
const P256_KEY: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// `SEQUENCE { ecdsa-with-SHA256 }` (RFC 5758).
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
/// Version 0 (RFC 2986).
const VERSION: [u8; 3] = [0x02, 0x01, 0x00];
/// No name, and no attributes.
const NOBODY: [u8; 2] = [0x30, 0x00];
const NOTHING: [u8; 2] = [0xa0, 0x00];
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// Characters of base64 in a line of PEM (RFC 7468).
const LINE: usize = 64;

/// The key. Its numbers are ring's, which does not show them.
pub(super) struct NodeKey(EcdsaKeyPair);

impl NodeKey {
    /// Makes one, and its file's content. That is wiped when it is dropped, as far as it is ours.
    pub(super) fn make() -> Result<(Self, Zeroizing<String>), String> {
        let random = SystemRandom::new();
        let failed = |error: &dyn std::fmt::Display| format!("a key could not be made: {error}");
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|error| failed(&error))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random)
            .map_err(|error| failed(&error))?;
        let base64 = Zeroizing::new(BASE64.encode(document.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(base64.len() * 2));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for start in (0..base64.len()).step_by(LINE) {
            pem.push_str(&base64[start..base64.len().min(start + LINE)]);
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok((Self(key), pem))
    }

    /// Reads one.
    pub(super) fn read(pem: &[u8]) -> Result<Self, String> {
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| format!("is no PKCS#8 key: {error}"))?;
        EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            key.secret_pkcs8_der(),
            &SystemRandom::new(),
        )
        .map(Self)
        .map_err(|error| {
            format!("is no key on P-256, which are the only ones that renew themselves: {error}")
        })
    }

    /// The public key, as a certificate has it: an uncompressed point.
    pub(super) fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// A request for a certificate of this key, DER.
    pub(super) fn request(&self) -> Result<Vec<u8>, String> {
        let key = [&P256_KEY, self.public()].concat();
        let info = tagged(SEQUENCE, &[&VERSION, &NOBODY, &key, &NOTHING]);
        let signature = self
            .0
            .sign(&SystemRandom::new(), &info)
            .map_err(|error| format!("the request could not be signed: {error}"))?;
        let signature = tagged(BIT_STRING, &[&[0], signature.as_ref()]);
        Ok(tagged(SEQUENCE, &[&info, &ECDSA_SHA256, &signature]))
    }
}

/// One element of DER. None of ours is longer than 65,535 bytes.
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut element = vec![tag];
    match (high, low) {
        (0, 0..0x80) => element.push(low),
        (0, _) => element.extend([0x81, low]),
        (_, _) => element.extend([0x82, high, low]),
    }
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateSigningRequestDer;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_request_is_what_others_take_for_one_and_is_signed_by_its_key() {
        let (made, pem) = NodeKey::make().unwrap();
        let key = NodeKey::read(pem.as_bytes()).unwrap();
        assert_eq!(key.public(), made.public());
        let der = key.request().unwrap();
        // rcgen verifies the signature.
        let der = CertificateSigningRequestDer::from(der);
        rcgen::CertificateSigningRequestParams::from_der(&der).unwrap();
        let (rest, read) = X509CertificationRequest::from_der(&der).unwrap();
        let told = &read.certification_request_info.subject_pki.subject_public_key;
        assert_eq!((rest.len(), &*told.data), (0, made.public()));
        let mut torn = der.to_vec();
        let last = torn.len() - 1;
        torn[last] ^= 1;
        assert!(rcgen::CertificateSigningRequestParams::from_der(&torn.into()).is_err());
    }

    #[test]
    fn what_is_no_key_is_told() {
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(NodeKey::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_as_der_wants_them() {
        for (length, header) in [
            (0, vec![4, 0]),
            (0x7f, vec![4, 0x7f]),
            (0x80, vec![4, 0x81, 0x80]),
            (0xff, vec![4, 0x81, 0xff]),
            (0x100, vec![4, 0x82, 1, 0]),
        ] {
            let element = tagged(4, &[&vec![7; length]]);
            assert_eq!(element[..header.len()], header, "{length}");
            assert_eq!(element.len(), header.len() + length);
        }
    }
}

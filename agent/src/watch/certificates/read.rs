//! One file → the certificates in it: PEM, or a kubeconfig that has them inside.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use data_encoding::BASE64;
use x509_parser::pem::Pem;

use crate::signal::Certificate;

/// Larger files are not read, bytes: a bundle of every public authority is a quarter of this.
const MAX_FILE: u64 = 1 << 20;
/// What a kubeconfig calls the certificates inside it: base64 of PEM.
const EMBEDDED: [&str; 2] = ["client-certificate-data:", "certificate-authority-data:"];
/// Files with these endings hold PEM and nothing else; others may hold none.
const PEM: [&str; 3] = ["crt", "pem", "cer"];

/// Every certificate in the file; none for a file of keys, or a kubeconfig that only points to others.
///
/// # Errors
/// Why it cannot be read, for people.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    let pem_only = path
        .extension()
        .is_some_and(|ending| PEM.iter().any(|known| ending == *known));
    parse(&bytes, pem_only)
}

pub(crate) fn parse(bytes: &[u8], pem_only: bool) -> Result<Vec<Certificate>, String> {
    let (blocks, certificates) = pem(bytes)?;
    if blocks > 0 {
        return Ok(certificates);
    }
    let text = str::from_utf8(bytes).map_err(|_| no_pem(bytes))?;
    if pem_only || text.chars().all(|c| c == '\0') {
        return Err(no_pem(bytes));
    }
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['-', ' ', '\t']);
        let Some((key, encoded)) = EMBEDDED
            .iter()
            .find_map(|key| Some((key, line.strip_prefix(key)?)))
        else {
            continue;
        };
        let encoded = encoded.trim().trim_matches('"');
        let inside = BASE64
            .decode(encoded.as_bytes())
            .map_err(|error| format!("{key} is not base64: {error}"))?;
        all.extend(pem(&inside)?.1);
    }
    Ok(all)
}

fn no_pem(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "it is empty".to_owned()
    } else if bytes.iter().all(|byte| *byte == 0) {
        "it is full of zeroes, as a power loss leaves files that were not synced".to_owned()
    } else {
        "there is no PEM in it".to_owned()
    }
}

/// How many PEM blocks there are, and the certificates among them.
fn pem(bytes: &[u8]) -> Result<(usize, Vec<Certificate>), String> {
    let mut blocks = 0;
    let mut certificates = Vec::new();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|error| format!("damaged PEM: {error}"))?;
        blocks += 1;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let parsed = block
            .parse_x509()
            .map_err(|error| format!("not a certificate: {error}"))?;
        let validity = parsed.validity();
        certificates.push(Certificate {
            subject: parsed.subject().to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        });
    }
    Ok((blocks, certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_called_so() {
        for (bytes, why) in [
            (&b""[..], "empty"),
            (&[0; 4096], "zeroes"),
            (b"\xff\xfe", "no PEM"),
            (b"hello", "no PEM"),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "not a certificate",
            ),
            (
                b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "damaged",
            ),
            (
                b"kind: Config\nusers:\n- user:\n    client-certificate-data: ?\n",
                "not base64",
            ),
        ] {
            let error = parse(bytes, !bytes.starts_with(b"kind")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        parse(b"-----BEGIN CERTIFICATE-----\nAAAA\n", true).unwrap_err();
        assert!(
            parse(b"apiVersion: v1\nkind: Config\n", false)
                .unwrap()
                .is_empty()
        );
        parse(&[0; 4096], false).unwrap_err();
        parse(b"", false).unwrap_err();
    }

    #[test]
    fn certificates_beside_a_key_and_inside_a_kubeconfig_are_found() {
        let made = rcgen::generate_simple_self_signed(vec!["node".into()]).unwrap();
        let both = made.signing_key.serialize_pem() + &made.cert.pem();
        let found = parse(both.as_bytes(), true).unwrap();
        assert_eq!(found.len(), 1);
        let inside = BASE64.encode(made.cert.pem().as_bytes());
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {inside}\n\
             users:\n- name: u\n  user:\n    client-certificate-data: \"{inside}\"\n    client-key-data: AAAA\n"
        );
        assert_eq!(
            parse(kubeconfig.as_bytes(), false).unwrap(),
            [found.clone(), found].concat()
        );
        assert!(
            parse(made.signing_key.serialize_pem().as_bytes(), true)
                .unwrap()
                .is_empty()
        );
    }
}

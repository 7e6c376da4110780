//! The first certificate: a key that is made here, a token that an operator made, and the digest by which the authority is known.
//!
//! A key that has been asked for lies beside its place until the answer is here. So whoever is interrupted, or gets no answer, asks again
//! with the same key, which a token is good for as often as it takes; and a certificate is never replaced by nothing.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::valid_name;
use blackstart_proto::machine;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1 as wire;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::EnrolError;
use super::call::{Asked, Known, ask, key_hash};
use super::files::{failed, give_to_owner_of, make_directory, write};
use super::key::NodeKey;
use super::renew::{Own, read_own};
use crate::watch::clock::FLOOR_FILE;

/// What is known before.
#[derive(Clone)]
pub struct Join {
    /// Coordinators, tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// `ID.SECRET`
    pub token: String,
    /// `sha256:HEX` of the authority's key.
    pub ca_hash: String,
    /// This node's name in the inventory.
    pub node: String,
    /// The agent's state directory: certificate and key go to `pki` in it, where the agent may replace them.
    pub state_dir: PathBuf,
    /// The configuration to write, if there is none.
    pub config: PathBuf,
    /// Where the machine's id is.
    pub machine_id: PathBuf,
    /// In place of a certificate that is there, with a new key.
    pub anew: bool,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the token.
        f.debug_struct("Join")
            .field("addresses", &self.addresses)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// As the inventory has it.
    pub cluster: String,
    /// As the inventory has it: `control-plane`, `worker` or `etcd`.
    pub role: String,
    /// Where certificate, key and authority are.
    pub files: TlsFiles,
    /// When the certificate ends, seconds since the Unix epoch.
    pub ends: u64,
    /// What was written; `None`: there is a configuration, which stays as it is.
    pub config: Option<String>,
}

/// Where the files of an agent that has joined are.
pub fn files(state_dir: &Path) -> TlsFiles {
    TlsFiles::in_dir(&state_dir.join("pki"), "node")
}

/// Joins.
///
/// # Errors
/// Something that was given cannot be, no coordinator of the authority could be asked, it refused, or a file cannot be written. A key that
/// was made is used again by the next attempt.
pub async fn join(join: Join) -> Result<Joined, EnrolError> {
    let hash = parse_hash(&join.ca_hash)?;
    if !valid_name(&join.node) {
        return Err(EnrolError::Usage(format!(
            "{:?} is no name of a node; give the one in the inventory with --node",
            join.node
        )));
    }
    let machine =
        machine::name(&join.machine_id).map_err(failed("read the machine's id", &join.machine_id))?;
    let files = files(&join.state_dir);
    if files.certificate.exists() && !join.anew {
        return Err(EnrolError::Usage(format!(
            "this node has joined already: {}; --anew takes its place, with a new key",
            files.certificate.display()
        )));
    }
    let dir = join.state_dir.join("pki");
    make_directory(&dir)?;
    let pending = dir.join("node.key.joining");
    let key = key(&pending, &files, join.anew)?;
    let asked = Asked::Join(wire::JoinRequest {
        token: join.token.clone(),
        node: join.node.clone(),
        request: key.request().map_err(EnrolError::Usage)?.into(),
        machine,
    });
    let clock = Arc::new(ClockFloor::open(&join.state_dir.join(FLOOR_FILE)));
    let enrolled = ask(&join.addresses, &Known::ByHash(hash.clone()), &clock, &asked).await?;
    let own = read_own(&enrolled.certificate).map_err(EnrolError::Answer)?;
    check(&own, &key, &join.node)?;
    // The connection was one to this authority; what comes by it is to be the same.
    let authority = CertificateDer::from_pem_slice(&enrolled.authority).ok();
    if authority.and_then(|authority| key_hash(&authority)) != Some(hash) {
        return Err(EnrolError::Answer(
            "it names another authority than was given".to_owned(),
        ));
    }
    write(&files.ca, &enrolled.authority)?;
    if pending.exists() {
        fs::rename(&pending, &files.key).map_err(failed("write", &files.key))?;
    }
    write(&files.certificate, &enrolled.certificate)?;
    let written = [dir.as_path(), &files.ca, &files.key, &files.certificate];
    give_to_owner_of(&join.state_dir, &written)?;
    let config = configure(&join, &enrolled.role, &files)?;
    Ok(Joined {
        cluster: enrolled.cluster,
        role: enrolled.role,
        ends: own.ends,
        files,
        config,
    })
}

fn parse_hash(text: &str) -> Result<String, EnrolError> {
    let hash = text.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    hash.filter(|hash| hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()))
        .ok_or_else(|| {
            EnrolError::Usage(format!(
                "{text:?} is no digest of an authority; `blackstart token create` tells it: sha256: and 64 hexadecimal digits"
            ))
        })
}

/// The key of an attempt before this one, or a new one.
fn key(pending: &Path, files: &TlsFiles, anew: bool) -> Result<NodeKey, EnrolError> {
    // A key without a certificate is what an attempt leaves that was cut off between the two.
    let left = [
        (pending, true),
        (files.key.as_path(), !anew && !files.certificate.exists()),
    ];
    for (path, _) in left.into_iter().filter(|(_, counts)| *counts) {
        match fs::read(path).map(zeroize::Zeroizing::new) {
            Ok(pem) => {
                return NodeKey::read(&pem).map_err(|what| EnrolError::Unusable {
                    path: path.to_owned(),
                    what,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
    let (key, pem) = NodeKey::make().map_err(EnrolError::Usage)?;
    write(pending, pem.as_bytes())?;
    Ok(key)
}

/// Is that a certificate of this key for this node?
pub(super) fn check(own: &Own, key: &NodeKey, node: &str) -> Result<(), EnrolError> {
    if own.public != key.public() {
        return Err(EnrolError::Answer(
            "the certificate is for another key".to_owned(),
        ));
    }
    if own.node != node {
        return Err(EnrolError::Answer(format!(
            "the certificate is for node {}",
            own.node
        )));
    }
    Ok(())
}

/// Writes a configuration that works, if there is none.
fn configure(join: &Join, role: &str, files: &TlsFiles) -> Result<Option<String>, EnrolError> {
    if join.config.exists() {
        return Ok(None);
    }
    let text = configuration(join, role, files);
    if let Some(dir) = join.config.parent() {
        fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
    }
    // Nothing in it is secret; others than root may read it.
    fs::write(&join.config, &text).map_err(failed("write", &join.config))?;
    Ok(Some(text))
}

/// What an agent has to be told that it does not take for granted.
fn configuration(join: &Join, role: &str, files: &TlsFiles) -> String {
    let addresses: Vec<_> = join
        .addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let mut text = format!(
        "# Written by `blackstart-agent join`. Everything else has its default; `deploy/agent.yaml` shows all there is.\nnode: {}\n",
        join.node
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "coordinator:\n  addresses: [{}]\n  ca: {}\n  certificate: {}\n  key: {}\n",
        addresses.join(", "),
        files.ca.display(),
        files.certificate.display(),
        files.key.display()
    );
    if join.state_dir != Path::new("/var/lib/blackstart") {
        let _ = writeln!(text, "state_dir: {}", join.state_dir.display());
    }
    if role == "control-plane" {
        text.push_str("gate:\n  role: control-plane\n");
        text.push_str(
            "api_server: {address: \"127.0.0.1:6443\", path: /readyz, https: true, interval: 2s, deadline: 2s, failures_to_raise: 3}\n",
        );
    } else {
        text.push_str("gate:\n  role: worker\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GateRole, parse};

    fn asked(state_dir: &str) -> Join {
        Join {
            addresses: vec!["10.0.0.1:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()],
            token: "1.secret".to_owned(),
            ca_hash: String::new(),
            node: "10.0.0.7".to_owned(),
            state_dir: state_dir.into(),
            config: PathBuf::new(),
            machine_id: PathBuf::new(),
            anew: false,
        }
    }

    #[test]
    fn what_is_written_is_a_configuration_that_says_what_was_given() {
        for (role, gate) in [
            ("control-plane", GateRole::ControlPlane),
            ("worker", GateRole::Worker),
            ("etcd", GateRole::Worker),
        ] {
            for state_dir in ["/var/lib/blackstart", "/srv/blackstart"] {
                let join = asked(state_dir);
                let files = files(&join.state_dir);
                let text = configuration(&join, role, &files);
                let settings = parse("agent.yaml", &text).unwrap();
                let coordinator = settings.coordinator.unwrap();
                assert_eq!(coordinator.addresses, join.addresses);
                assert_eq!(coordinator.tls, files);
                assert_eq!(settings.node, join.node);
                assert_eq!(settings.state_dir, join.state_dir);
                assert_eq!(settings.gate.role, gate);
                assert_eq!(settings.api_server.is_some(), role == "control-plane");
                assert!(!text.contains("secret"));
            }
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", asked("/x")).contains("secret"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let hex = "Ab".repeat(32);
        assert_eq!(parse_hash(&format!("sha256:{hex}")).unwrap(), "ab".repeat(32));
        for text in ["", "sha256:", &hex, "sha256:xyz", "sha1:00"] {
            assert!(parse_hash(text).is_err(), "{text}");
        }
    }
}

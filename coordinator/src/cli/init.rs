//! `init`: everything that a first coordinator needs, in one directory: authority, its certificate, an operator, a configuration.
//!
//! Nothing that is there is replaced: what an attempt before this one has made is gone on from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use blackstart_proto::identity::{PeerIdentity, valid_name};
use blackstart_proto::tls::TlsFiles;

use super::say;
use crate::config::{self, PORT};
use crate::pki::{Authority, IssueOptions, Seen, authority_hash};

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Init {
    /// Where.
    pub(super) dir: PathBuf,
    /// The first operator.
    pub(super) operator: String,
    /// Where the coordinator is to be found; empty: on every address.
    pub(super) listen: Vec<SocketAddr>,
}

pub(super) fn init(wanted: &Init) -> anyhow::Result<()> {
    if !valid_name(&wanted.operator) {
        bail!("{:?} cannot be an operator's name", wanted.operator);
    }
    let pki = wanted.dir.join("pki");
    let authority = if pki.join("ca.crt").exists() {
        say(&format!(
            "{}: goes on with the authority that is there",
            pki.display()
        ))?;
        Authority::open(&pki)?
    } else {
        Authority::create(&pki)?
    };
    let coordinator = issue(
        &authority,
        &pki,
        &PeerIdentity::Coordinator("coordinator".to_owned()),
    )?;
    let operator = issue(&authority, &pki, &PeerIdentity::Operator(wanted.operator.clone()))?;
    let config = wanted.dir.join("coordinator.yaml");
    let text = configuration(wanted, &pki, &coordinator);
    // What is written is what is meant, or it is our fault.
    config::parse("the configuration that was made", &text)
        .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    match write_new(&config, &text) {
        Ok(()) => say(&format!("{}: written", config.display()))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => say(&format!(
            "{}: there already, and left as it is; it needs `enrolment: {{authority: {}}}` for nodes to join",
            config.display(),
            pki.display()
        ))?,
        Err(error) => return Err(error).with_context(|| format!("write {}", config.display())),
    }
    let ca = fs::read(pki.join("ca.crt")).context("read the authority's certificate")?;
    let hash = authority_hash(&ca).map_err(|why| anyhow::anyhow!("the authority's certificate: {why}"))?;
    let inventory = wanted.dir.join("inventory.yaml");
    let context = wanted.dir.join("cli.yaml");
    match write_new(&context, &for_the_command(wanted, &operator)) {
        Ok(()) => say(&format!(
            "{}: written; `blackstart` on this machine is operator {}",
            context.display(),
            wanted.operator
        ))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            say(&format!(
                "{}: there already, and left as it is",
                context.display()
            ))?;
        }
        Err(error) => return Err(error).with_context(|| format!("write {}", context.display())),
    }
    say(&format!("authority {hash}"))?;
    if !inventory.exists() {
        say(&format!(
            "write the fleet into {}, and check it: blackstart inventory lint {}",
            inventory.display(),
            inventory.display()
        ))?;
    }
    say("start it: systemctl enable --now blackstart-coordinator")?;
    say("then, for each node: blackstart token create --node NAME")?;
    say(&format!(
        "{} can make anybody: keep a copy offline, and nobody else's eyes on it",
        pki.join("ca.key").display()
    ))
}

/// The configuration of `blackstart` on this machine.
fn for_the_command(wanted: &Init, operator: &TlsFiles) -> String {
    let first = wanted
        .listen
        .iter()
        .find(|address| !address.ip().is_unspecified());
    // Without an address of its own it listens on all of them.
    let address = first.map_or_else(|| format!("127.0.0.1:{PORT}"), ToString::to_string);
    format!(
        "\
# Written by `blackstart-coordinator init`. On another machine: the same with its address, in ~/.config/blackstart/config.yaml.
contexts:
  - name: fleet
    addresses: [\"{address}\"]
    ca: {}
    certificate: {}
    key: {}
",
        operator.ca.display(),
        operator.certificate.display(),
        operator.key.display()
    )
}

/// Issues it, unless it is there.
fn issue(authority: &Authority, pki: &Path, whose: &PeerIdentity) -> anyhow::Result<TlsFiles> {
    let files = TlsFiles::in_dir(pki, whose.name());
    if files.certificate.exists() && files.key.exists() {
        let seen = Seen::read(&files.certificate)?;
        say(&format!(
            "{}: there already, of {}",
            files.certificate.display(),
            seen.holder
        ))?;
        return Ok(files);
    }
    let files = authority.issue(whose, IssueOptions::default())?;
    say(&format!("{}: made, of {whose}", files.certificate.display()))?;
    Ok(files)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn configuration(wanted: &Init, pki: &Path, tls: &TlsFiles) -> String {
    let listen = if wanted.listen.is_empty() {
        format!("\"0.0.0.0:{PORT}\"")
    } else {
        let listen: Vec<_> = wanted
            .listen
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        listen.join(", ")
    };
    format!(
        "\
# Written by `blackstart-coordinator init`. Everything else has its default; `deploy/coordinator.yaml` shows all there is.
listen: [{listen}]
tls:
  ca: {}
  certificate: {}
  key: {}
inventory: {}

# Nodes join by tokens: blackstart token create.
enrolment:
  authority: {}

# Who may do what: view, operate, approve or admin; in all clusters, or those of `clusters`.
operators:
  - {{name: {}, role: admin}}
",
        tls.ca.display(),
        tls.certificate.display(),
        tls.key.display(),
        wanted.dir.join("inventory.yaml").display(),
        pki.display(),
        wanted.operator,
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::trust::rights::{Place, Right};

    #[test]
    fn what_it_makes_can_be_used_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Init {
            dir: dir.path().to_owned(),
            operator: "ann".to_owned(),
            listen: vec!["10.0.0.1:7443".parse().unwrap()],
        };
        init(&wanted).unwrap();
        let settings = config::load(&dir.path().join("coordinator.yaml")).unwrap();
        assert_eq!(settings.listen, wanted.listen);
        assert!(settings.roles.of("ann").has(Right::Admin, Place::Everywhere));
        assert!(!settings.roles.of("ben").has(Right::View, Place::Anywhere));
        let enrolment = settings.enrolment.unwrap();
        Authority::open(&enrolment.authority).unwrap();
        settings.tls.read().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for key in ["ca.key", "coordinator.key", "ann.key"] {
            assert_eq!(mode(&dir.path().join("pki").join(key)), 0o600, "{key}");
        }
        let all = || {
            let mut all: Vec<_> = fs::read_dir(dir.path().join("pki"))
                .unwrap()
                .map(|entry| fs::read(entry.unwrap().path()).unwrap())
                .collect();
            for file in ["coordinator.yaml", "cli.yaml"] {
                all.push(fs::read(dir.path().join(file)).unwrap());
            }
            all.sort();
            all
        };
        let before = all();
        init(&wanted).unwrap();
        assert_eq!(all(), before);
        // Broken off between two of its files, it goes on.
        fs::remove_file(dir.path().join("pki/ann.crt")).unwrap();
        fs::remove_file(dir.path().join("pki/ann.key")).unwrap();
        init(&wanted).unwrap();
        assert!(dir.path().join("pki/ann.crt").exists());
    }
}

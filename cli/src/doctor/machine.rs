//! The coordinator's machine: its configuration, its store, and what both name. Looked at only where that is this machine.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_coordinator::config::{self, ConfigError, Settings, StoreSettings};
use blackstart_coordinator::inventory;
use blackstart_coordinator::kubernetes::access::Identity;
use blackstart_coordinator::pki::Seen;
use jiff::Timestamp;

use super::{Check, Finding, ends_soon};
use crate::output::words::count;
use crate::view::Certificate;

/// Where a coordinator has its configuration.
pub(crate) const CONFIG: &str = "/etc/blackstart/coordinator.yaml";
/// A member that does not take a connection by then is told as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// The store needs little; a disk that is fuller than this is about to refuse it.
const FREE_PERCENT: u64 = 10;

/// What is there.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Its configuration.
    pub(crate) file: PathBuf,
    /// What it names; or why it cannot be used.
    pub(crate) named: Result<Named, String>,
}

/// What a configuration names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// Nodes of the inventory; or why it cannot be used.
    pub(crate) nodes: Result<usize, String>,
    /// The coordinator's certificate and its authority's.
    pub(crate) certificates: Vec<Result<Certificate, String>>,
    /// Where nodes' certificates are issued from, and whether its key is there; `None`: it issues none.
    pub(crate) authority: Option<(PathBuf, Result<(), String>)>,
    /// The embedded store's file.
    pub(crate) store: Option<(PathBuf, Result<(), String>)>,
    /// The state directory, and how full its file system is: (available, total), bytes.
    pub(crate) disk: (PathBuf, Result<(u64, u64), String>),
    /// Per cluster, its kubeconfig.
    pub(crate) kubeconfigs: Vec<(String, PathBuf, Result<(), String>)>,
    /// Members of etcd, and whether they take a connection.
    pub(crate) etcd: Vec<(String, Result<(), String>)>,
}

/// Looks; `None`: there is no such file, and this is not the coordinator's machine. Blocks.
pub(crate) fn look(file: &Path) -> Option<Machine> {
    let named = match config::load(file) {
        Ok(settings) => Ok(named(&settings)),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Machine {
        file: file.to_owned(),
        named,
    })
}

fn named(settings: &Settings) -> Named {
    let certificate = |path: &Path| {
        Seen::read(path)
            .map(Certificate::from)
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let (store, etcd) = match &settings.store {
        StoreSettings::Embedded => (
            Some((settings.store_file(), opens(&settings.store_file()))),
            Vec::new(),
        ),
        StoreSettings::Etcd(etcd) => {
            let members = etcd.endpoints.iter();
            (
                None,
                members.map(|member| (member.clone(), connects(member))).collect(),
            )
        }
    };
    Named {
        nodes: inventory::load(&settings.inventory)
            .map(|loaded| loaded.inventory.nodes.len())
            .map_err(|error| error.to_string()),
        certificates: vec![
            certificate(&settings.tls.certificate),
            certificate(&settings.tls.ca),
        ],
        authority: settings.enrolment.as_ref().map(|enrolment| {
            let key = enrolment.authority.join("ca.key");
            (key.clone(), opens(&key))
        }),
        store,
        disk: (settings.state_dir.clone(), space(&settings.state_dir)),
        kubeconfigs: settings
            .clusters
            .iter()
            .filter_map(|cluster| match &cluster.access.identity {
                Identity::Kubeconfig(path) => Some((cluster.name.0.clone(), path.clone(), opens(path))),
                Identity::Pod(_) => None,
            })
            .collect(),
        etcd,
    }
}

fn opens(path: &Path) -> Result<(), String> {
    fs::File::open(path).map(drop).map_err(|error| error.to_string())
}

fn space(dir: &Path) -> Result<(u64, u64), String> {
    let seen = rustix::fs::statvfs(dir).map_err(|error| error.to_string())?;
    let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
    Ok((bytes(seen.f_bavail), bytes(seen.f_blocks)))
}

fn connects(endpoint: &str) -> Result<(), String> {
    let address = endpoint.rsplit('/').next().unwrap_or(endpoint);
    let address: SocketAddr = address
        .parse()
        .map_err(|_| "it is no address and port".to_owned())?;
    TcpStream::connect_timeout(&address, PATIENCE)
        .map(drop)
        .map_err(|error| error.to_string())
}

pub(super) fn examine(machine: &Machine, now: Timestamp) -> Vec<Finding> {
    let file = machine.file.display().to_string();
    let named = match &machine.named {
        Ok(named) => named,
        Err(why) => {
            return vec![Finding::wrong(
                Check::Configuration,
                &file,
                why,
                format!("correct it, and check it with: blackstart-coordinator config check {file}"),
            )];
        }
    };
    [
        configuration(named, &file),
        certificates(named, now),
        store(named),
        kubeconfigs(named),
        etcd(named),
    ]
    .concat()
}

fn configuration(named: &Named, file: &str) -> Vec<Finding> {
    vec![match &named.nodes {
        Ok(nodes) => Finding::ok(
            Check::Configuration,
            format!("{file}: valid, with {}", count(*nodes, "declared node")),
        ),
        Err(why) => Finding::wrong(
            Check::Configuration,
            "",
            why,
            "correct it, check it with `blackstart inventory lint FILE`, and restart the coordinator",
        ),
    }]
}

fn certificates(named: &Named, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<_> = named
        .certificates
        .iter()
        .filter_map(|certificate| match certificate {
            Ok(certificate) => ends_soon(certificate, now),
            Err(why) => Some(Finding::wrong(
                Check::Certificates,
                "",
                why,
                "run this as root on the coordinator's machine; `tls` in its configuration names the files",
            )),
        })
        .collect();
    if let Some((key, Err(why))) = &named.authority {
        findings.push(Finding::wrong(
            Check::Certificates,
            &key.display().to_string(),
            format!("nodes can neither join nor renew: {why}"),
            "put the authority's key back from the copy that is kept offline",
        ));
    }
    findings
}

fn store(named: &Named) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((file, Err(why))) = &named.store {
        findings.push(Finding::wrong(
            Check::Store,
            &file.display().to_string(),
            why,
            "is the coordinator started, and this root? systemctl status blackstart-coordinator",
        ));
    }
    let dir = named.disk.0.display().to_string();
    match &named.disk.1 {
        Err(why) => findings.push(Finding::wrong(
            Check::Store,
            &dir,
            why,
            "the unit makes it: systemctl start blackstart-coordinator",
        )),
        Ok((available, total)) if available.saturating_mul(100) < total.saturating_mul(FREE_PERCENT) => {
            findings.push(Finding::warning(
                Check::Store,
                &dir,
                format!("less than {FREE_PERCENT} % of its file system is free"),
                "free some: a full disk refuses what a cold start has to write",
            ));
        }
        Ok(_) if findings.is_empty() => {
            findings.push(Finding::ok(Check::Store, "there, with room on its disk"));
        }
        Ok(_) => {}
    }
    findings
}

fn kubeconfigs(named: &Named) -> Vec<Finding> {
    let findings: Vec<_> = named
        .kubeconfigs
        .iter()
        .filter_map(|(cluster, path, read)| {
            let why = read.as_ref().err()?;
            Some(Finding::wrong(
                Check::Kubeconfigs,
                &path.display().to_string(),
                format!("cluster {cluster} has no runbooks: {why}"),
                "put it there, readable for the coordinator; deploy/kubernetes/coordinator-rbac.yaml says what it must be allowed",
            ))
        })
        .collect();
    if findings.is_empty() && !named.kubeconfigs.is_empty() {
        return vec![Finding::ok(
            Check::Kubeconfigs,
            format!("{} can be read", count(named.kubeconfigs.len(), "file")),
        )];
    }
    findings
}

fn etcd(named: &Named) -> Vec<Finding> {
    let away = named
        .etcd
        .iter()
        .filter_map(|(member, answer)| Some((member, answer.as_ref().err()?)));
    let mut findings: Vec<_> = away
        .map(|(member, why)| {
            Finding::warning(
                Check::Etcd,
                member,
                format!("it takes no connection: {why}"),
                "systemctl status etcd there; without a majority nobody can lead",
            )
        })
        .collect();
    let up = named.etcd.len() - findings.len();
    if !named.etcd.is_empty() && up * 2 <= named.etcd.len() {
        findings.push(Finding::wrong(
            Check::Etcd,
            "",
            format!("{up} of {} members can be reached: no majority", named.etcd.len()),
            "start the others; docs/operations.md, \"When etcd is away\"",
        ));
    } else if findings.is_empty() && up > 0 {
        findings.push(Finding::ok(
            Check::Etcd,
            format!("{} can be reached", count(up, "member")),
        ));
    }
    findings
}

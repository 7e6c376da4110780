//! A member on a node that has none: its manifest, made of that of another member, and what is missing for it here. Changes nothing.
//!
//! Certificates and keys are made by whoever sets a master up. Whether those that are there will do is looked at before a member is taken out of
//! a cluster for this one: one that its peers refuse would leave the cluster with a member less.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::v1 as wire;
use bollard::errors::Error;
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::look::{manifest, out_for_a_bounce};
use super::pod::{EtcdPod, ServerTls, host};
use super::rewrite::moved;
use super::snapshot::room;
use super::trouble::{out_of_time, unix_seconds};
use crate::config::{RuntimeEndpoint, Settings};
use crate::watch::runtime::docker;
use crate::watch::static_pods::directory::Places;
use crate::watch::static_pods::manifest::is_pod_name;

/// Docker tells by then whether it has an image.
const IMAGE_WITHIN: Duration = Duration::from_secs(3);
/// The container's path is that of the node where no volume says otherwise, and its directory has to be private (etcd, `CheckDirPermission`).
const MAKE: &str = "mkdir -m 700";

/// The manifest of the member on this node.
pub(super) async fn template(settings: &Settings) -> wire::EtcdTemplateTold {
    let places = Places::of(&settings.static_pods);
    let read = spawn_blocking(move || {
        let found = manifest(&places.manifests).map_err(|trouble| trouble.to_string())?;
        let authorities = authorities(&found.pod)?;
        Ok::<_, String>(wire::EtcdTemplateTold {
            file: found.file,
            text: found.text,
            authorities,
            trouble: String::new(),
        })
    });
    let told = read.await.unwrap_or_else(|_| Err("it was broken off".to_owned()));
    told.unwrap_or_else(|trouble| wire::EtcdTemplateTold {
        trouble,
        ..wire::EtcdTemplateTold::default()
    })
}

/// Whether a member may be here, and with which manifest.
pub(super) async fn look(settings: &Settings, asked: wire::EtcdNewcomer) -> wire::EtcdNewcomerTold {
    let mut told = wire::EtcdNewcomerTold::default();
    let like = asked.like.unwrap_or_default();
    let text = moved(&like.text, &asked.name, &asked.address, &asked.initial_cluster);
    let text = match text {
        Ok(text) => text,
        Err(why) => {
            told.missing
                .push(format!("a manifest that can be changed: {why}"));
            return told;
        }
    };
    told.changed = changed(&like.text, &text);
    let Ok(pod) = EtcdPod::parse(&text) else {
        return told;
    };
    told.text = text;
    told.notes
        .extend(image(&pod.image, &settings.runtime.docker).await);
    let places = Places::of(&settings.static_pods);
    let looked = spawn_blocking(move || {
        let mut missing = of_directories(&places, &pod, &like.file, asked.needs_bytes);
        missing.extend(of_addresses(&pod));
        missing.extend(of_files(&pod, &asked.address, &like.authorities));
        missing
    });
    match looked.await {
        Ok(missing) => told.missing = missing,
        Err(_) => told.missing.push("a look that is not broken off".to_owned()),
    }
    told
}

/// Lines of one that the other has not, as a person reads a difference.
fn changed(before: &str, after: &str) -> Vec<String> {
    let lines = |of: &str, other: &str, sign| -> Vec<String> {
        let other: Vec<_> = other.lines().collect();
        let own = of.lines().filter(|line| !other.contains(line));
        own.map(|line| format!("{sign} {}", line.trim().trim_start_matches("- ")))
            .collect()
    };
    let (gone, come) = (lines(before, after, '-'), lines(after, before, '+'));
    // Each with what takes its place.
    let both = gone.len().min(come.len());
    let (more_gone, more_come) = (gone[both..].to_vec(), come[both..].to_vec());
    let pairs = gone.into_iter().zip(come).flat_map(|(gone, come)| [gone, come]);
    pairs.chain(more_gone).chain(more_come).collect()
}

fn of_directories(places: &Places, pod: &EtcdPod, file: &str, needs_bytes: u64) -> Vec<String> {
    let mut missing = Vec::new();
    let dir = &places.manifests;
    if !dir.is_dir() {
        missing.push(format!(
            "{}, where the kubelet looks for manifests",
            dir.display()
        ));
    } else if let Ok(found) = manifest(dir) {
        missing.push(format!(
            "a node without a member: {} is there",
            dir.join(found.file).display()
        ));
    } else if let Some(trouble) = out_for_a_bounce(places) {
        missing.push(format!("a node without a member: {trouble}"));
    } else if !is_pod_name(file) {
        missing.push(format!(
            "a name for its manifest that is safe: that of the other is {file:?}"
        ));
    } else if dir.join(file).exists() {
        missing.push(format!(
            "room for {file}: {} is something else",
            dir.join(file).display()
        ));
    }
    let data = pod.data_dir.display();
    match fs::metadata(&pod.data_dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => missing.push(format!("{data} as a directory")),
        Err(_) => missing.push(format!(
            "{data}, as the agent sees it ({MAKE} {data}; an agent in a container needs it mounted)"
        )),
    }
    if let Some(wal) = &pod.wal_dir {
        missing.push(format!(
            "a manifest without --wal-dir ({}), whose place is not made here: by hand",
            wal.display()
        ));
    }
    if let Ok(free) = room(&pod.data_dir)
        && free < needs_bytes
    {
        missing.push(format!(
            "room in {}: {} MiB are free and {} are needed",
            pod.data_dir.display(),
            free >> 20,
            needs_bytes >> 20
        ));
    }
    missing
}

/// It has the addresses, and nobody listens there.
fn of_addresses(pod: &EtcdPod) -> Vec<String> {
    let all = pod.listen.iter().chain(&pod.listen_peers);
    let missing = all.filter_map(|url| {
        let (_, at) = url.split_once("://")?;
        let at = at.trim_end_matches('/');
        let failed = TcpListener::bind(at).err()?;
        let kind = failed.kind();
        Some(if kind == ErrorKind::AddrInUse {
            format!("{at} for the member: something listens there already")
        } else if kind == ErrorKind::AddrNotAvailable {
            format!(
                "the address {}: this machine has no such one (the inventory says that it is the node's)",
                host(url)
            )
        } else {
            format!("{at} to listen at: {failed}")
        })
    });
    let mut missing: Vec<_> = missing.collect();
    missing.dedup();
    missing
}

fn of_files(pod: &EtcdPod, address: &str, authorities: &[String]) -> Vec<String> {
    let address = address.trim_matches(['[', ']']);
    let mut missing = Vec::new();
    for (tls, phase) in [(&pod.tls, "etcd-server"), (&pod.peer_tls, "etcd-peer")] {
        let Some(tls) = tls else { continue };
        if let Err(why) = of_tls(tls, address) {
            missing.push(format!(
                "{why} (kubeadm init phase certs {phase}, with the cluster's etcd/ca.crt and ca.key)"
            ));
        }
    }
    match self::authorities(pod) {
        // Why is told of already.
        Err(_) if !missing.is_empty() => {}
        Err(why) => missing.push(why),
        Ok(here) if here != authorities => missing.push(
            "the authority of this cluster's etcd: the ca.crt here is another one, and its members would refuse each other".to_owned(),
        ),
        Ok(_) => {}
    }
    missing
}

/// A certificate of this address that is good now, with its key.
fn of_tls(tls: &ServerTls, address: &str) -> Result<(), String> {
    let path = tls.certificate.display();
    let chain = chain(&tls.certificate)?;
    let first = chain.first().ok_or_else(|| format!("a certificate in {path}"))?;
    let (_, certificate) = parse_x509_certificate(first).map_err(|error| format!("{path}: {error}"))?;
    let valid = certificate.validity();
    let (from, to) = (valid.not_before.timestamp(), valid.not_after.timestamp());
    if let Some(why) = out_of_time(&tls.certificate, from, to, unix_seconds()) {
        return Err(format!("a certificate that is good: {why}"));
    }
    if !names(&certificate, address) {
        return Err(format!(
            "a certificate for {address}: that in {path} is for another"
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| format!("the key {}: {error}", tls.key.display()))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| format!("the key of {path}: {} is another: {error}", tls.key.display()))?;
    Ok(())
}

fn names(certificate: &x509_parser::certificate::X509Certificate<'_>, address: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let octets = match address.parse() {
        Ok(std::net::IpAddr::V4(address)) => address.octets().to_vec(),
        Ok(std::net::IpAddr::V6(address)) => address.octets().to_vec(),
        Err(_) => return false,
    };
    let is = |name: &GeneralName<'_>| matches!(name, GeneralName::IPAddress(found) if *found == octets);
    names.value.general_names.iter().any(is)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// Whom a member trusts.
fn authorities(pod: &EtcdPod) -> Result<Vec<String>, String> {
    let files = [&pod.tls, &pod.peer_tls].into_iter().flatten().map(|tls| &tls.ca);
    let mut all = Vec::new();
    for file in files.collect::<std::collections::BTreeSet<&PathBuf>>() {
        let found = chain(file)?;
        all.extend(
            found
                .iter()
                .map(|one| HEXLOWER.encode(digest(&SHA256, one).as_ref())),
        );
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// What a person should know of the image: a registry may be down, and nothing but a pull brings it then.
async fn image(image: &str, runtime: &RuntimeEndpoint) -> Option<String> {
    let unknown = |why: &str| Some(format!("whether the image {image} is there is not known: {why}"));
    if !runtime.socket.exists() {
        return unknown("this agent asks docker alone");
    }
    let client = match docker::connect(&runtime.socket, IMAGE_WITHIN) {
        Ok(client) => client,
        Err(error) => return unknown(&error.to_string()),
    };
    match timeout(IMAGE_WITHIN, client.inspect_image(image)).await {
        Ok(Ok(_)) => None,
        Ok(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Some(format!(
            "the image {image} is not there, and the kubelet pulls it from its registry; where that is down: docker save {image} on another master, docker load here"
        )),
        Ok(Err(error)) => unknown(&error.to_string()),
        Err(_) => unknown("docker did not answer in time"),
    }
}

#[cfg(test)]
mod tests;

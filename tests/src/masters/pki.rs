//! Certificates of etcd, under the names that kubeadm gives them, by an authority of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::TlsFiles;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd};

use super::GOOD_UNTIL;
use crate::node::Node;
use crate::topology::Declared;

/// Where they are on a node.
const DIR: &str = "/etc/kubernetes/pki/etcd";
/// What a member shows to clients, to its peers, and what agents show to it.
const NAMES: [&str; 3] = ["server", "peer", "healthcheck-client"];

/// The authority of one etcd.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// A new one, with the files of a client.
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        Authority::create(dir).context("make the authority of etcd")?;
        let own = Self { dir: dir.to_owned() };
        let (certificate, key) = own.issue(Ipv4Addr::LOCALHOST, GOOD_UNTIL)?;
        let client = own.client();
        fs::write(&client.certificate, certificate)?;
        fs::write(&client.key, key)?;
        Ok(own)
    }

    /// What a client of this machine shows.
    pub(super) fn client(&self) -> TlsFiles {
        TlsFiles::in_dir(&self.dir, "client")
    }

    /// Everything that a node has of it.
    pub(super) fn lay_out(&self, declared: &Declared, node: &Node) -> anyhow::Result<()> {
        let ca = fs::read_to_string(self.dir.join("ca.crt"))?;
        node.write(&format!("{DIR}/ca.crt"), &ca)?;
        for name in NAMES {
            self.put(name, declared, node, GOOD_UNTIL)?;
        }
        Ok(())
    }

    /// A new one of this name, which ends with the beginning of this year.
    pub(super) fn put(&self, name: &str, declared: &Declared, node: &Node, until: i32) -> anyhow::Result<()> {
        let (certificate, key) = self.issue(declared.address, until)?;
        node.write(&format!("{DIR}/{name}.crt"), &certificate)?;
        node.write(&format!("{DIR}/{name}.key"), &key)
    }

    /// One for both directions, as kubeadm makes them.
    fn issue(&self, address: Ipv4Addr, until: i32) -> anyhow::Result<(String, String)> {
        let read = |name: &str| fs::read_to_string(self.dir.join(name));
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt")?, KeyPair::from_pem(&read("ca.key")?)?)?;
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        let addresses = [Ipv4Addr::LOCALHOST, address];
        params
            .subject_alt_names
            .extend(addresses.map(|address| SanType::IpAddress(address.into())));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

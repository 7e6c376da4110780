//! Everything that such a fleet needs, in one directory: authority, inventory, configuration; and the coordinator beside it.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use blackstart_coordinator::pki::Authority;
use blackstart_proto::tls::{TlsFiles, client_config};
use blackstart_proto::v1::fleet_service_client::FleetServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::{CLUSTER, is_master, name};
use crate::coordinator::Coordinator;
use crate::settings::{self, Yaml};

/// Nodes of one rack.
const RACK: usize = 40;
/// An answer about ten thousand nodes is no larger.
const ANSWER_BYTES: usize = 64 << 20;

/// A fleet's directory and its coordinator.
#[derive(Debug)]
pub struct Stage {
    dir: tempfile::TempDir,
    coordinator: Coordinator,
}

impl Stage {
    /// Sets everything up, and starts the coordinator with its defaults: only paths and address are its own.
    ///
    /// # Errors
    /// The coordinator does not start.
    pub async fn set(nodes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("make a directory")?;
        let pki = dir.path().join("pki");
        let authority = Authority::create(&pki)?;
        authority.issue_coordinator("coordinator")?;
        authority.issue_operator("operator")?;
        fs::write(dir.path().join("inventory.yaml"), inventory(nodes)).context("write the inventory")?;
        // An address for each stage: other fleets may be beside it.
        let own: u16 = rand::random();
        let [high, low] = own.to_be_bytes();
        let coordinator = Coordinator::at(dir.path(), Ipv4Addr::new(127, 77, high, low.clamp(1, 254)));
        let defaults = Yaml::default()
            .with("silent_after", "6s")
            .with("cold_start", "{trigger: auto}");
        let yaml = settings::coordinator(dir.path(), coordinator.address()).render(&defaults);
        fs::write(dir.path().join("coordinator.yaml"), yaml).context("write the configuration")?;
        coordinator.start().await?;
        Ok(Self { dir, coordinator })
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// The authority's directory.
    pub fn pki(&self) -> PathBuf {
        self.dir.path().join("pki")
    }

    /// A connection of an operator.
    ///
    /// # Errors
    /// There is none.
    pub async fn operator(&self) -> anyhow::Result<FleetServiceClient<Channel>> {
        let material = TlsFiles::in_dir(&self.pki(), "operator").read()?;
        let channel = Endpoint::from_shared(format!("https://{}", self.coordinator.address()))?
            .tls_config(client_config(&material))?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .connect()
            .await
            .context("connect as an operator")?;
        Ok(FleetServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(pid) = self.coordinator.pid() {
            // Whoever did not stop it in order has failed already.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn inventory(nodes: usize) -> String {
    let mut text = "clusters:\n".to_owned();
    for number in 0..nodes {
        if number % CLUSTER == 0 {
            let _ = writeln!(text, "  - name: c{}\n    nodes:", number / CLUSTER);
        }
        let role = if is_master(number) {
            "role: control-plane, "
        } else {
            ""
        };
        let (high, low) = (number >> 8, number & 0xff);
        let _ = writeln!(
            text,
            "      - {{name: {}, address: 10.7.{high}.{low}, {role}rack: r{}}}",
            name(number),
            number / RACK
        );
    }
    text
}

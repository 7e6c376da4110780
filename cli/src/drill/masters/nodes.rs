//! Masters that are nodes of the testbed: containers with systemd and a disk of their own, agents as the hardened unit, static pods as kubeadm lays
//! them out, etcd with TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use blackstart_proto::part::Part;
use blackstart_proto::tls::TlsFiles;
use blackstart_tests::coordinator::program;
use blackstart_tests::docker::Docker;
use blackstart_tests::masters::{self, ETCD, Etcd, MANIFESTS, MOODS, Masters};
use blackstart_tests::node::Node;
use blackstart_tests::topology::CLUSTER;

use super::super::testbed::{BED, LEDGER, PROGRAMS};
use super::bed::{Asked, Bed, Files, Ground, Master};
use crate::failure::Failure;
use crate::output::note;
use crate::settings::{Connection, Shows};

const AGENT: &str = "blackstart-agent.service";

/// They stay until whoever has raised them takes them down.
#[derive(Debug)]
pub(super) struct Nodes(Arc<Masters>);

fn on_nodes(error: anyhow::Error) -> Failure {
    Failure::other(format!("hold the drill on nodes: {error:#}"))
}

/// Raises them.
///
/// # Errors
/// Says what is missing.
pub(super) async fn raise(docker: &Docker, etcd: Option<&Path>) -> anyhow::Result<Masters> {
    for name in PROGRAMS.into_iter().chain(["stand-in-component"]) {
        program(name)?;
    }
    note(format_args!(
        "testbed: raising 3 masters: containers with systemd, on network blackstart-{BED}"
    ));
    let etcd = etcd.map(Etcd::at).transpose()?;
    let masters = Masters::raise(docker, BED, etcd.as_ref()).await?;
    note("testbed: 3 nodes have booted");
    Ok(masters)
}

impl Nodes {
    /// What a drill sees of them.
    pub(super) fn bed(masters: &Arc<Masters>) -> Result<Bed, Failure> {
        let nodes = Self(Arc::clone(masters));
        let seen = nodes.masters().map_err(on_nodes)?;
        let connections = nodes.connections().map_err(on_nodes)?;
        Ok(Bed::new(Ground::Nodes(nodes), CLUSTER, seen, connections))
    }

    fn masters(&self) -> anyhow::Result<Vec<Master>> {
        let members = self.0.members();
        let has_etcd = self.0.has_etcd();
        let declared = self.0.bed().declared().iter().zip(self.0.nodes());
        declared
            .zip(members)
            .map(|((declared, node), member)| {
                let pods = Part::ALL.map(Part::pod).into_iter();
                let asked = pods.chain(has_etcd.then_some(ETCD)).map(|pod| {
                    let (at, path) = masters::health(declared, pod);
                    let pod = pod.to_owned();
                    Asked { pod, at, path }
                });
                Ok(Master {
                    name: declared.name.clone(),
                    files: files(node)?,
                    asked: asked.collect(),
                    etcd: has_etcd.then_some(member),
                })
            })
            .collect()
    }

    /// Of the bed's operator, and of another one.
    fn connections(&self) -> anyhow::Result<[Connection; 2]> {
        let coordinator = self.0.bed().coordinator()?;
        let operator = TlsFiles::in_dir(&self.0.bed().dir().join("pki"), "operator");
        Ok([operator, self.0.second_operator()?].map(|tls| Connection {
            coordinators: vec![coordinator.address()],
            shows: Shows::Certificate(tls),
            timeout: Duration::from_secs(10),
        }))
    }

    fn node(&self, at: usize) -> Result<&Node, Failure> {
        let node = self.0.nodes().nth(at);
        node.ok_or_else(|| Failure::other(format!("there is no master {at}")))
    }

    /// The process of a static pod, by its node's own number.
    pub(super) fn process(&self, at: usize, pod: &str) -> Result<u32, Failure> {
        let own = masters::process(self.node(at)?, pod).map_err(on_nodes)?;
        Ok(u32::try_from(own).unwrap_or_default())
    }

    /// Kills it.
    pub(super) fn kill(&self, at: usize, pod: &str) -> Result<(), Failure> {
        masters::kill_pod(self.node(at)?, pod).map_err(on_nodes)
    }

    /// Why its coordinator runs no more although nobody killed it.
    pub(super) fn failed(&self) -> Option<Failure> {
        let coordinator = self.0.bed().coordinator().ok()?;
        if coordinator.pid().is_some() {
            return None;
        }
        let log = coordinator.log();
        let last = log.floor_char_boundary(log.len().saturating_sub(1000));
        Some(Failure::Other {
            what: format!("the drill's coordinator ended; its last words:\n{}", &log[last..]),
            advice: Some("--keep DIR keeps its whole log".to_owned()),
        })
    }

    /// SIGKILL.
    pub(super) async fn kill_coordinator(&self) -> Result<(), Failure> {
        let coordinator = self.0.bed().coordinator().map_err(on_nodes)?;
        coordinator.kill().await.map_err(on_nodes)
    }

    /// In order, as for an upgrade.
    pub(super) async fn stop_agents(&self) -> Result<(), Failure> {
        for node in self.0.nodes() {
            let stopped = node.exec(&["systemctl", "stop", AGENT]).await;
            stopped.map_err(on_nodes)?;
        }
        Ok(())
    }
}

/// Where a node's files are, as this machine reaches them.
fn files(node: &Node) -> anyhow::Result<Files> {
    let manifests = node.path(MANIFESTS)?;
    let etc = manifests.parent().context("manifests have a directory")?;
    Ok(Files {
        root: node.path("/")?,
        etc: etc.to_owned(),
        moods: node.path(MOODS)?,
        data: node.path(masters::DATA)?,
        snapshots: node.path(masters::SNAPSHOTS)?,
        ledger: node.path(LEDGER)?,
    })
}

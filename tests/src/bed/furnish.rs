//! What is put on the nodes of a bed: units, configuration, certificates, programs.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use anyhow::Context;
use blackstart_agent::config;
use blackstart_coordinator::pki::Authority;

use super::{ApiServers, Bed, Runs, Wish};
use crate::coordinator::{Coordinator, program};
use crate::node::{self, NodeSpec};
use crate::settings;
use crate::topology::{Declared, Role, inventory};

const AGENT_UNIT: &str = include_str!("../../../deploy/systemd/blackstart-agent.service");
const GATE_UNIT: &str = include_str!("../../../deploy/systemd/blackstart-gate.service");
const GATE_DROP_IN: &str = include_str!("../../../deploy/systemd/kubelet.service.d/10-blackstart-gate.conf");
const POLKIT_RULE: &str = include_str!("../../../deploy/polkit/50-blackstart.rules");
const TMPFILES: &str = include_str!("../../../deploy/tmpfiles.d/blackstart.conf");
/// Where the rule is on a node.
pub const POLKIT_RULE_PATH: &str = "/etc/polkit-1/rules.d/50-blackstart.rules";
/// As operators do for logs that are not where the shipped unit has them.
const LOGS_DROP_IN: &str = "[Service]\nReadWritePaths=/var/lib/node-disk\n";
/// Where the API servers of masters are.
const API_SERVER_PORT: u16 = 6443;
/// Where static pods' manifests are.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

impl Bed {
    /// Writes the files of all nodes and of the coordinator.
    pub(super) fn furnish(&self, wish: &Wish) -> anyhow::Result<()> {
        let pki = self.dir.join("pki");
        let authority = match &self.coordinator {
            None => None,
            Some(coordinator) => {
                let authority = Authority::create(&pki).context("make the bed's authority")?;
                authority.issue_coordinator("coordinator")?;
                authority.issue_operator("operator")?;
                fs::write(self.dir.join("inventory.yaml"), inventory(&self.declared))?;
                let yaml = settings::coordinator(&self.dir, coordinator.address()).render(&wish.coordinator);
                fs::write(self.dir.join("coordinator.yaml"), yaml)?;
                Some(authority)
            }
        };
        for declared in &self.declared {
            let dir = node::directory(&self.dir, &declared.name);
            let (etc, units) = (dir.join("etc"), dir.join("units"));
            fs::create_dir_all(etc.join("pki"))?;
            fs::create_dir_all(units.join("multi-user.target.wants"))?;
            let address = self.coordinator.as_ref().map(Coordinator::address);
            let yaml = settings::agent(declared, address).render(&(wish.agent)(declared));
            fs::write(etc.join("agent.yaml"), &yaml)?;
            if let Some(authority) = &authority {
                let issued = authority.issue_node(&declared.name)?;
                fs::copy(&issued.ca, etc.join("pki/ca.crt"))?;
                fs::copy(&issued.certificate, etc.join("pki/node.crt"))?;
                fs::copy(&issued.key, etc.join("pki/node.key"))?;
            }
            for (name, text) in self.units(wish, declared) {
                fs::write(units.join(name), text)?;
                symlink(
                    format!("../{name}"),
                    units.join("multi-user.target.wants").join(name),
                )?;
            }
            if wish.runs.has_agents() {
                fs::create_dir(units.join("kubelet.service.d"))?;
                fs::write(
                    units.join("kubelet.service.d/10-blackstart-gate.conf"),
                    GATE_DROP_IN,
                )?;
                fs::create_dir(units.join("blackstart-agent.service.d"))?;
                fs::write(
                    units.join("blackstart-agent.service.d/50-logs.conf"),
                    LOGS_DROP_IN,
                )?;
                fs::write(dir.join("tmpfiles.conf"), TMPFILES)?;
                fs::write(dir.join("polkit.rules"), polkit_rule(&yaml, wish)?)?;
            }
        }
        Ok(())
    }

    fn units(&self, wish: &Wish, declared: &Declared) -> Vec<(&'static str, String)> {
        let mut units = wish.units.clone();
        if wish.runs != Runs::Nothing {
            units.push((
                "kubelet.service",
                kubelet(declared, &self.declared, wish.api_servers),
            ));
        }
        if wish.runs.has_agents() {
            units.push(("blackstart-agent.service", AGENT_UNIT.to_owned()));
            units.push(("blackstart-gate.service", GATE_UNIT.to_owned()));
        }
        units
    }

    /// What a node is made of.
    pub(super) fn spec(&self, wish: &Wish, declared: &Declared) -> anyhow::Result<NodeSpec> {
        let dir = node::directory(&self.dir, &declared.name);
        let mut mounts = vec![(dir.join("units"), "/usr/local/lib/systemd/system".to_owned())];
        let mut programs = wish.programs.clone();
        if wish.runs != Runs::Nothing {
            programs.push("stand-in-kubelet");
        }
        if wish.runs.has_agents() {
            programs.push("blackstart-agent");
            mounts.push((dir.join("etc"), "/etc/blackstart".to_owned()));
            mounts.push((dir.join("polkit.rules"), POLKIT_RULE_PATH.to_owned()));
            mounts.push((
                dir.join("tmpfiles.conf"),
                "/usr/lib/tmpfiles.d/blackstart.conf".to_owned(),
            ));
        }
        mounts.extend(wish.mounts.iter().cloned());
        for name in programs {
            mounts.push((program(name)?, format!("/usr/bin/{name}")));
        }
        Ok(NodeSpec {
            name: declared.name.clone(),
            address: declared.address,
            disk_bytes: wish.disk_bytes,
            mounts,
            volumes: wish.volumes.clone(),
            devices: wish.devices.clone(),
        })
    }
}

/// The shipped rule, with the units of this node's configuration in place of its own, as operators do.
fn polkit_rule(yaml: &str, wish: &Wish) -> anyhow::Result<String> {
    let settings = config::parse("agent.yaml", yaml)?;
    let units: Vec<_> = settings
        .units
        .iter()
        .chain(settings.helpers())
        .map(String::as_str)
        // What a test adds is there to be restarted.
        .chain(wish.units.iter().map(|(name, _)| *name))
        .chain(["system.slice"])
        .collect();
    let (head, rest) = POLKIT_RULE
        .split_once("var units = [")
        .context("the rule lists units")?;
    let (_, tail) = rest.split_once("];").context("the list ends")?;
    Ok(format!(
        "{head}var units = {};{tail}",
        serde_json::to_string(&units)?
    ))
}

impl Runs {
    fn has_agents(self) -> bool {
        match self {
            Self::Nothing | Self::Kubelets => false,
            Self::Agents | Self::Fleet => true,
        }
    }
}

/// The kubelet's unit. It does not restart itself: that is the agent's to do. Its pods outlive it.
fn kubelet(own: &Declared, all: &[Declared], api_servers: ApiServers) -> String {
    let peers: Vec<_> = all
        .iter()
        .filter(|other| other.role == Role::Master && other.name != own.name)
        .map(|other| SocketAddr::from((other.address, API_SERVER_PORT)).to_string())
        .collect();
    let args = match (own.role, api_servers, peers.join(",")) {
        (Role::Worker, ..) | (Role::Master, ApiServers::StaticPods, _) => String::new(),
        (Role::Master, ApiServers::Kubelets, peers) if peers.is_empty() => {
            format!(" --api-server 0.0.0.0:{API_SERVER_PORT}")
        }
        (Role::Master, ApiServers::Kubelets, peers) => {
            format!(" --api-server 0.0.0.0:{API_SERVER_PORT} --peers {peers}")
        }
    };
    format!(
        "[Unit]\nDescription=kubelet (a stand-in)\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart=/usr/bin/stand-in-kubelet --manifests {MANIFESTS}{args}\nRestart=no\nKillMode=process\n"
    )
}

//! Configuration as a bed's agents and coordinator are given it: the shipped defaults, with times for people who wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::node::DISK;
use crate::topology::{Declared, Role};

/// Top-level keys of a YAML file, each with its value on one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Yaml(BTreeMap<String, String>);

impl Yaml {
    /// Sets a key; a value that was set before is replaced.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// The file, with the keys of `over` in place of its own.
    pub fn render(&self, over: &Self) -> String {
        let mut keys = self.0.clone();
        keys.extend(over.0.clone());
        let lines: Vec<_> = keys
            .iter()
            .map(|(key, value)| format!("{key}: {value}\n"))
            .collect();
        lines.concat()
    }
}

/// An agent's `agent.yaml`. Times are short: probes and reports twice a second.
pub fn agent(node: &Declared, coordinator: Option<SocketAddr>) -> Yaml {
    let mut yaml = Yaml::default()
        .with("node", &node.name)
        .with("units", "[kubelet.service]")
        // The node's init binds it over the kernel's, and a hardened unit has a `/proc` without such binds.
        .with("boot_id_file", "/run/boot_id")
        .with("kubelet", "{interval: 500ms, deadline: 1s, failures_to_raise: 3}")
        .with("disks", format!("[{{mount_point: {DISK}}}]"))
        .with(
            "logs",
            format!("{{globs: [\"{DISK}/app/**\"], keep_tail: 16MiB}}"),
        )
        // Nodes have neither.
        .with("preflight", "{container_runtimes: [], etcd_data: []}")
        // The machine's load is every node's, and none of what most tests ask for.
        .with("load", "{protect: false}")
        .with("gate", gate(node, "3m", "10m"));
    if node.role == Role::Master {
        yaml = yaml.with("api_server", "{https: false, interval: 500ms, deadline: 1s}");
    }
    if let Some(address) = coordinator {
        let pki = "/etc/blackstart/pki";
        yaml = yaml.with(
            "coordinator",
            format!(
                "{{addresses: [\"{address}\"], ca: {pki}/ca.crt, certificate: {pki}/node.crt, key: {pki}/node.key, \
                 report_interval: 500ms}}"
            ),
        );
    }
    yaml
}

/// The `gate` of an agent's configuration, with dead-man times for masters and for workers.
pub fn gate(node: &Declared, masters: &str, workers: &str) -> String {
    format!(
        "{{role: {}, dead_man_control_plane: {masters}, dead_man_worker: {workers}, jitter: 2s}}",
        node.role.word()
    )
}

/// The coordinator's `coordinator.yaml`; all its files are in `dir`.
pub fn coordinator(dir: &Path, listen: SocketAddr) -> Yaml {
    let file = |name: &str| dir.join(name).display().to_string();
    Yaml::default()
        .with("listen", format!("[\"{listen}\"]"))
        .with(
            "tls",
            format!(
                "{{ca: {}, certificate: {}, key: {}}}",
                file("pki/ca.crt"),
                file("pki/coordinator.crt"),
                file("pki/coordinator.key")
            ),
        )
        .with("state_dir", file("coordinator-state"))
        .with("runtime_dir", file("coordinator-run"))
        .with("boot_id_file", file("coordinator-boot-id"))
        .with("inventory", file("inventory.yaml"))
        .with("silent_after", "2s")
        .with(
            "cold_start",
            "{trigger: auto, fresh: 5s, release_deadline: 30s, return_deadline: 60s, control_plane_deadline: 2m}",
        )
}

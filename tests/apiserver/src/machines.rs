//! The machines of a simulated cluster: adding them, cutting their power, stopping their kubelets.

use crate::clock;
use crate::controllers::kubelet::Machine;
use crate::json::{object, put};
use crate::resources::named;
use crate::world::World;
use serde_json::{Value, json};

/// A node to add, with a machine behind it.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// The node's name.
    pub name: String,
    /// Whether it is one of the control plane, with the taint that keeps workloads off it.
    pub control_plane: bool,
    /// Labels beside those that every node has.
    pub labels: Vec<(String, String)>,
    /// Cores.
    pub cpu: u32,
    /// Memory, GiB.
    pub memory_gib: u32,
    /// How many pods it takes.
    pub pods: u32,
    /// Names of the static pods that its kubelet runs and mirrors in `kube-system`, such as `etcd`.
    pub static_pods: Vec<String>,
}

impl NodeSpec {
    /// A worker with 4 cores, 16 GiB and room for 110 pods.
    pub fn worker(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            control_plane: false,
            labels: Vec::new(),
            cpu: 4,
            memory_gib: 16,
            pods: 110,
            static_pods: Vec::new(),
        }
    }

    /// A master.
    pub fn master(name: &str) -> Self {
        Self {
            control_plane: true,
            ..Self::worker(name)
        }
    }

    /// With the static pods of a control plane as kubeadm sets it up.
    #[must_use]
    pub fn static_control_plane(mut self) -> Self {
        let names = [
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
        ];
        self.static_pods = names.map(str::to_owned).to_vec();
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    fn object(&self, number: usize, minor: u8) -> Value {
        let memory = format!("{}Gi", self.memory_gib);
        let room = json!({"cpu": self.cpu.to_string(), "memory": memory, "pods": self.pods.to_string(), "ephemeral-storage": "100Gi"});
        let mut node = json!({
            "metadata": {"name": self.name, "labels": {
                "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            }},
            "spec": {"podCIDR": format!("10.244.{number}.0/24"), "podCIDRs": [format!("10.244.{number}.0/24")]},
            "status": {
                "capacity": room, "allocatable": room,
                "addresses": [
                    {"type": "InternalIP", "address": format!("10.0.{}.{}", number / 250, number % 250 + 1)},
                    {"type": "Hostname", "address": self.name},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "nodeInfo": {
                    "machineID": format!("{number:032x}"), "systemUUID": format!("{number:032x}"), "bootID": "",
                    "kernelVersion": "6.1.0-30-amd64", "osImage": "Debian GNU/Linux 12 (bookworm)",
                    "containerRuntimeVersion": "containerd://1.7.24", "kubeletVersion": format!("v1.{minor}.2"),
                    "kubeProxyVersion": format!("v1.{minor}.2"), "operatingSystem": "linux", "architecture": "amd64",
                },
            },
        });
        let labels = object(&mut node, "/metadata/labels");
        labels.extend(self.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        if self.control_plane {
            let role = if minor >= 24 {
                "node-role.kubernetes.io/control-plane"
            } else {
                "node-role.kubernetes.io/master"
            };
            labels.insert(role.into(), json!(""));
            put(
                &mut node,
                "/spec/taints",
                "key",
                json!({"key": role, "effect": "NoSchedule"}),
            );
        }
        node
    }
}

impl World {
    /// Adds a node whose machine is on and whose kubelet runs.
    pub fn add_node(&mut self, spec: &NodeSpec) {
        self.add_nodes(std::slice::from_ref(spec));
    }

    /// Adds many, whose kubelets look at the world once.
    pub fn add_nodes(&mut self, specs: &[NodeSpec]) {
        for spec in specs {
            let number = self.machines.len() + 1;
            let node = spec.object(number, self.release.minor);
            // A node that exists already gets a machine.
            let _ = self.create(named("nodes"), "", node);
            let machine = Machine {
                static_pods: spec.static_pods.clone(),
                ..Machine::started(self.now)
            };
            self.machines.insert(spec.name.clone(), machine);
        }
        crate::controllers::kubelet::pass(self);
    }

    /// Cuts a machine's power: its kubelet says nothing more, its containers are gone, what the API says of them stays.
    pub fn power_off(&mut self, node: &str) {
        if let Some(machine) = self.machines.get_mut(node) {
            machine.powered = false;
            machine.kubelet = false;
            machine.pods.clear();
        }
    }

    /// Whether a machine has power; one that is not there has none.
    pub fn is_powered(&self, node: &str) -> bool {
        self.machines.get(node).is_some_and(|machine| machine.powered)
    }

    /// Gives a machine power: a new boot, whose kubelet starts its containers again.
    pub fn power_on(&mut self, node: &str) {
        let now = self.now;
        if let Some(machine) = self.machines.get_mut(node).filter(|machine| !machine.powered) {
            let (boots, static_pods) = (machine.boots + 1, std::mem::take(&mut machine.static_pods));
            *machine = Machine {
                boots,
                static_pods,
                ..Machine::started(now)
            };
        }
    }

    /// Stops a kubelet; its containers run on.
    pub fn stop_kubelet(&mut self, node: &str) {
        if let Some(machine) = self.machines.get_mut(node) {
            machine.kubelet = false;
        }
    }

    /// Starts a kubelet on a machine that has power.
    pub fn start_kubelet(&mut self, node: &str) {
        let now = self.now;
        if let Some(machine) = self
            .machines
            .get_mut(node)
            .filter(|machine| machine.powered && !machine.kubelet)
        {
            machine.kubelet = true;
            machine.since = now;
            machine.beat = None;
        }
    }

    /// The age of a node's lease in seconds, if it has one.
    pub fn lease_age(&self, node: &str) -> Option<i64> {
        let lease = self.store.get("leases", "kube-node-lease", node)?;
        Some(clock::elapsed(
            clock::parse(&lease["spec"]["renewTime"])?,
            self.now,
        ))
    }
}

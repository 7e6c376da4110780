//! Amounts of resources: what pods ask for, and what nodes have to give.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::super::quantity::{thousandths, up};

/// Amounts, by resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the nodes' own disks (`ephemeral-storage`).
    pub storage: i64,
    /// Every other, in whole units: `nvidia.com/gpu`, huge pages in bytes.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// As an object lists them; what is no amount counts for nothing.
    pub fn read(listed: &Value) -> Self {
        let mut to = Self::default();
        for (name, amount) in listed.as_object().into_iter().flatten() {
            let Some(amount) = thousandths(amount) else {
                continue;
            };
            match name.as_str() {
                "cpu" => to.cpu = amount,
                "memory" => to.memory = up(amount),
                "ephemeral-storage" => to.storage = up(amount),
                // Told of nodes beside them, and counted as pods.
                "pods" => {}
                _ => {
                    to.other.insert(name.clone(), up(amount));
                }
            }
        }
        to
    }

    /// Adds another's to these.
    pub fn add(&mut self, more: &Self) {
        let sum = |own: &mut i64, more: i64| *own = own.saturating_add(more);
        sum(&mut self.cpu, more.cpu);
        sum(&mut self.memory, more.memory);
        sum(&mut self.storage, more.storage);
        for (name, amount) in &more.other {
            sum(self.other.entry(name.clone()).or_default(), *amount);
        }
    }

    /// Of each the larger one.
    fn at_least(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        for (name, amount) in &other.other {
            let own = self.other.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }

    /// What of `wanted` does not fit beside what is taken of these; by resource, only what is asked for.
    pub fn short(&self, taken: &Self, wanted: &Self) -> BTreeMap<String, i64> {
        let own = [
            ("cpu", self.cpu.saturating_sub(taken.cpu), wanted.cpu),
            ("memory", self.memory.saturating_sub(taken.memory), wanted.memory),
            (
                "ephemeral-storage",
                self.storage.saturating_sub(taken.storage),
                wanted.storage,
            ),
        ];
        let of = |all: &Self, name: &String| all.other.get(name).copied().unwrap_or_default();
        let other = wanted.other.iter().map(|(name, wanted)| {
            (
                name.as_str(),
                of(self, name).saturating_sub(of(taken, name)),
                *wanted,
            )
        });
        own.into_iter()
            .chain(other)
            .filter(|(_, free, wanted)| *wanted > 0 && wanted > free)
            .map(|(name, free, wanted)| (name.to_owned(), wanted.saturating_sub(free)))
            .collect()
    }

    /// What a pod makes the scheduler set aside: the larger of what its containers want together and what each of its init containers
    /// wants beside the sidecars that are started before it, and the overhead of its runtime class
    /// (k8s.io/kubernetes pkg/api/v1/resource, `PodRequests`).
    pub fn of_pod(spec: &Value) -> Self {
        let each = |list: &str| spec[list].as_array().cloned().unwrap_or_default();
        let wants = |container: &Value| Self::read(&container["resources"]["requests"]);
        let mut sum = Self::default();
        for container in each("containers") {
            sum.add(&wants(&container));
        }
        let (mut sidecars, mut peak) = (Self::default(), Self::default());
        for container in each("initContainers") {
            let wanted = wants(&container);
            if container["restartPolicy"] == "Always" {
                sidecars.add(&wanted);
                peak.at_least(&sidecars);
            } else {
                let mut beside = sidecars.clone();
                beside.add(&wanted);
                peak.at_least(&beside);
            }
        }
        sum.add(&sidecars);
        sum.at_least(&peak);
        sum.add(&Self::read(&spec["overhead"]));
        sum
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.storage),
        ];
        let other = self.other.iter().map(|(name, amount)| (name.as_str(), *amount));
        let mut comma = "";
        for (name, amount) in own.into_iter().chain(other).filter(|(_, amount)| *amount != 0) {
            write!(f, "{comma}{name} {}", shown(name, amount))?;
            comma = ", ";
        }
        if comma.is_empty() {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

/// An amount of a resource as a manifest would have it.
pub fn shown(resource: &str, amount: i64) -> String {
    const MI: i64 = 1 << 20;
    match resource {
        "cpu" if amount % 1000 == 0 => (amount / 1000).to_string(),
        "cpu" => format!("{amount}m"),
        "memory" | "ephemeral-storage" if amount >= MI => format!("{}Mi", amount.saturating_add(MI - 1) / MI),
        _ => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_wants_the_larger_of_its_containers_and_each_of_its_init_containers() {
        let container =
            |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let mut sidecar = container("100m", "10Mi");
        sidecar["restartPolicy"] = json!("Always");
        let pod = Resources::of_pod(&json!({
            "containers": [container("500m", "100Mi"), container("1", "1Mi")],
            "initContainers": [sidecar, container("2", "1Mi")],
            "overhead": {"cpu": "50m"},
        }));
        assert_eq!((pod.cpu, pod.memory), (2100 + 50, 111 << 20));
        assert_eq!(pod.to_string(), "cpu 2150m, memory 111Mi");
    }

    #[test]
    fn what_is_short_is_named_by_resource_and_amount() {
        let read = |value: serde_json::Value| Resources::read(&value);
        let node = read(json!({"cpu": "4", "memory": "16Gi", "pods": "110"}));
        let taken = read(json!({"cpu": "3500m", "memory": "1Gi"}));
        let wanted = read(json!({"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"}));
        let short = node.short(&taken, &wanted);
        assert_eq!(
            short,
            BTreeMap::from([("cpu".to_owned(), 500), ("nvidia.com/gpu".to_owned(), 1)])
        );
    }
}

//! Amounts of resources: what pods ask for, and what nodes have to give.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

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
        self.cpu += more.cpu;
        self.memory += more.memory;
        self.storage += more.storage;
        for (name, amount) in &more.other {
            *self.other.entry(name.clone()).or_default() += amount;
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
            ("cpu", self.cpu - taken.cpu, wanted.cpu),
            ("memory", self.memory - taken.memory, wanted.memory),
            ("ephemeral-storage", self.storage - taken.storage, wanted.storage),
        ];
        let of = |all: &Self, name: &String| all.other.get(name).copied().unwrap_or_default();
        let other = wanted
            .other
            .iter()
            .map(|(name, wanted)| (name.as_str(), of(self, name) - of(taken, name), *wanted));
        own.into_iter()
            .chain(other)
            .filter(|(_, free, wanted)| *wanted > 0 && wanted > free)
            .map(|(name, free, wanted)| (name.to_owned(), wanted - free))
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
        "memory" | "ephemeral-storage" if amount >= MI => format!("{}Mi", (amount + MI - 1) / MI),
        _ => amount.to_string(),
    }
}

fn up(thousandths: i64) -> i64 {
    (thousandths + 999) / 1000
}

/// A quantity in thousandths, rounded up: `1500m`, `2`, `0.5`, `128Mi`, `1e3`
/// (k8s.io/apimachinery pkg/api/resource). `None`: it is none.
pub fn thousandths(value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_negative = whole.starts_with('-');
    let whole = whole.trim_start_matches(['+', '-']);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let ten = |power: u32| 10_i128.checked_pow(power);
    let two = |power: u32| 2_i128.checked_pow(power);
    // As thousandths: a numerator and a denominator.
    let (by, per) = match suffix {
        "n" => (1, ten(6)?),
        "u" => (1, ten(3)?),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (ten(6)?, 1),
        "M" => (ten(9)?, 1),
        "G" => (ten(12)?, 1),
        "T" => (ten(15)?, 1),
        "P" => (ten(18)?, 1),
        "E" => (ten(21)?, 1),
        "Ki" => (1000 * two(10)?, 1),
        "Mi" => (1000 * two(20)?, 1),
        "Gi" => (1000 * two(30)?, 1),
        "Ti" => (1000 * two(40)?, 1),
        "Pi" => (1000 * two(50)?, 1),
        "Ei" => (1000 * two(60)?, 1),
        _ => {
            let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = ten(power.unsigned_abs())?;
            if power < 0 {
                (1000, size)
            } else {
                (1000_i128.checked_mul(size)?, 1)
            }
        }
    };
    let per = ten(places)?.checked_mul(per)?;
    let amount = digits.checked_mul(by)?;
    let amount = (amount + per - 1) / per;
    let amount = i64::try_from(amount).unwrap_or(i64::MAX);
    Some(if is_negative { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_as_the_api_writes_them() {
        for (text, expected) in [
            ("2", Some(2000)),
            ("1500m", Some(1500)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("128Mi", Some(128 * 1024 * 1024 * 1000)),
            ("1k", Some(1_000_000)),
            ("1e3", Some(1_000_000)),
            ("12e-3", Some(12)),
            ("1n", Some(1)),
            ("2500000n", Some(3)),
            ("9Ei", Some(i64::MAX)),
            ("", None),
            ("many", None),
            ("1x", None),
        ] {
            assert_eq!(thousandths(&json!(text)), expected, "{text}");
        }
        assert_eq!(thousandths(&json!(3)), Some(3000));
    }

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

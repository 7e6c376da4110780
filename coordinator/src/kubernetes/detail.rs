//! Objects as they are read when somebody asks: more of each than caches keep. What an object lacks becomes the reading that allows least.

mod pod;
mod workload;

pub use self::pod::{Condition, Container, ContainerState, Event, PodDetail, Termination};
pub use self::workload::{ContainerMemory, RESTARTED_AT, Room, Workload, restarted_at};

use serde::Deserialize;
use serde_json::Value;

use super::objects::{Key, Metadata};
use super::quantity;

/// Which container of a limit range's, in bytes of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBound {
    /// Its limit range.
    pub range: String,
    /// Of each container (or of a whole pod).
    pub whole_pod: bool,
    /// No limit may be larger.
    pub max: Option<u64>,
    /// A limit may be so many thousandths of its request.
    pub ratio: Option<i64>,
}

/// The bounds of memory that a `LimitRange` sets.
pub fn memory_bounds(range: &Value) -> Vec<MemoryBound> {
    let name = text(&range["metadata"]["name"]);
    let items = range["spec"]["limits"].as_array();
    let of = |item: &Value| {
        let whole_pod = match item["type"].as_str() {
            Some("Container") => false,
            Some("Pod") => true,
            Some(_) | None => return None,
        };
        let bound = MemoryBound {
            range: name.clone(),
            whole_pod,
            max: quantity::bytes(&item["max"]["memory"]),
            ratio: quantity::thousandths(&item["maxLimitRequestRatio"]["memory"]),
        };
        (bound.max.is_some() || bound.ratio.is_some()).then_some(bound)
    };
    items.into_iter().flatten().filter_map(of).collect()
}

/// What is left of a `ResourceQuota`'s memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRoom {
    /// Its name.
    pub quota: String,
    /// Bytes of limits that may still be asked for; `None`: it bounds none.
    pub limits: Option<u64>,
    /// Bytes of requests.
    pub requests: Option<u64>,
}

/// What a quota leaves.
pub fn quota_room(quota: &Value) -> QuotaRoom {
    let left = |names: &[&str]| {
        names.iter().find_map(|name| {
            let hard = quantity::bytes(&quota["status"]["hard"][*name])
                .or_else(|| quantity::bytes(&quota["spec"]["hard"][*name]))?;
            let used = quantity::bytes(&quota["status"]["used"][*name]).unwrap_or_default();
            Some(hard.saturating_sub(used))
        })
    };
    QuotaRoom {
        quota: text(&quota["metadata"]["name"]),
        limits: left(&["limits.memory"]),
        requests: left(&["requests.memory", "memory"]),
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// `Pending`, `Bound`, `Lost`.
    pub phase: String,
    /// Its storage class.
    pub class: String,
}

/// A claim by what the API says of it.
pub fn claim(object: &Value) -> Claim {
    Claim {
        name: text(&object["metadata"]["name"]),
        phase: text(&object["status"]["phase"]),
        class: text(&object["spec"]["storageClassName"]),
    }
}

/// Whether a service has an address that is ready, by its `Endpoints`.
pub fn has_ready_address(endpoints: &Value) -> bool {
    let subsets = endpoints["subsets"].as_array();
    subsets.into_iter().flatten().any(|subset| {
        subset["addresses"]
            .as_array()
            .is_some_and(|addresses| !addresses.is_empty())
    })
}

fn metadata(object: &Value) -> Metadata {
    Metadata::deserialize(&object["metadata"]).unwrap_or_default()
}

fn key(metadata: &Metadata) -> Key {
    Key {
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

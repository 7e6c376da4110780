//! What a run mends, pod by pod and template by template, written whole into its plan: the values that were there before are in the
//! journal, and in an annotation of the workload as well. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kubernetes::detail::{ContainerMemory, MemoryBound, QuotaRoom, Room, Workload};
use crate::kubernetes::objects::Key;
use crate::kubernetes::objects::scheduling::Toleration;
use crate::kubernetes::objects::workload::WorkloadName;
use crate::kubernetes::quantity::text;

/// Which run changed or restarted a workload last.
pub const CHANGED_BY: &str = "blackstart.io/changed-by";
/// What its template was before the first change that stands: JSON of [`Before`].
pub const BEFORE: &str = "blackstart.io/template-before";

/// Memory is asked for in steps of this, bytes.
const MI: u64 = 1 << 20;

/// What a run is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mends {
    /// Pods that are deleted so that they are made again.
    pub pods: Vec<Chosen>,
    /// Pods of nodes that are off, whose end nobody reports.
    pub stuck: Vec<Chosen>,
    /// Templates that are changed.
    pub templates: Vec<TemplateMend>,
    /// Workloads that are restarted.
    pub restarts: Vec<Restart>,
    /// What has to be well at the end.
    pub awaited: Vec<Awaited>,
}

/// A pod, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Which.
    pub pod: Key,
    /// This one and no later one of its name.
    pub uid: String,
    /// Where it is.
    #[serde(default)]
    pub node: String,
    /// Who makes it again.
    pub controller: String,
    /// Why.
    pub why: String,
}

/// A workload that is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Which.
    pub workload: WorkloadName,
    /// This one and no later one of its name.
    pub uid: String,
}

/// Whose pods have to be well: those that it controls, itself or by its replica sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Awaited {
    /// `Deployment`, ...
    pub kind: String,
    /// In which namespace, and its name.
    pub key: Key,
    /// Those of this node alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A template that is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateMend {
    /// Whose.
    pub workload: WorkloadName,
    /// This one and no later one of its name.
    pub uid: String,
    /// Containers, as they are and as they are going to be.
    #[serde(default)]
    pub memory: Vec<MemoryMend>,
    /// What its pods tolerate.
    #[serde(default)]
    pub tolerations: Option<TolerationMend>,
    /// [`BEFORE`] as it stood.
    #[serde(default)]
    pub before: Option<String>,
    /// [`CHANGED_BY`] as it stood.
    #[serde(default)]
    pub changed_by: Option<String>,
}

/// A container's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMend {
    /// Which.
    pub container: String,
    /// As it is.
    pub from: Memory,
    /// As it is going to be.
    pub to: Memory,
}

/// What a container asks for, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the scheduler counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// What it is killed above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Tolerations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TolerationMend {
    /// As they are.
    pub from: Vec<Toleration>,
    /// As they are going to be.
    pub to: Vec<Toleration>,
}

/// A template as it was before Blackstart changed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// By container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub memory: BTreeMap<String, Memory>,
    /// What its pods tolerated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
}

impl Before {
    /// What a workload's annotation tells; `None`: nothing of ours stands.
    pub fn of(workload: &Workload) -> Option<Self> {
        serde_json::from_str(workload.annotations.get(BEFORE)?).ok()
    }
}

impl Memory {
    /// What a template says of a container.
    pub fn of(workload: &Workload, container: &str) -> Option<Self> {
        let found = workload.memory.iter().find(|one| one.container == container)?;
        Some(Self {
            request: found.request,
            limit: found.limit,
        })
    }

    fn words(self) -> String {
        let told = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), text);
        format!("request {}, limit {}", told(self.request), told(self.limit))
    }
}

impl TemplateMend {
    /// Nothing yet, of this workload.
    pub fn new(workload: &Workload) -> Self {
        Self {
            workload: workload.name.clone(),
            uid: workload.uid.clone(),
            memory: Vec::new(),
            tolerations: None,
            before: workload.annotations.get(BEFORE).cloned(),
            changed_by: workload.annotations.get(CHANGED_BY).cloned(),
        }
    }

    /// The oldest values that stand: of what an earlier run changed too, its.
    pub fn before_with(&self) -> Before {
        let mut before: Before = self
            .before
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        for mend in &self.memory {
            before.memory.entry(mend.container.clone()).or_insert(mend.from);
        }
        if let Some(mend) = &self.tolerations {
            before.tolerations.get_or_insert_with(|| mend.from.clone());
        }
        before
    }

    /// What the API is asked for: the new values, or the old.
    pub fn containers(&self, back: bool) -> Vec<ContainerMemory> {
        let of = |mend: &MemoryMend| {
            let memory = if back { mend.from } else { mend.to };
            ContainerMemory {
                container: mend.container.clone(),
                request: memory.request,
                limit: memory.limit,
            }
        };
        self.memory.iter().map(of).collect()
    }

    /// For people.
    pub fn words(&self) -> String {
        let memory = self.memory.iter().map(|mend| {
            format!(
                "container {}: {} → {}",
                mend.container,
                mend.from.words(),
                mend.to.words()
            )
        });
        let tolerations = self.tolerations.iter().map(|mend| {
            let more = mend.to.iter().filter(|one| !mend.from.contains(one));
            let less = mend.from.iter().filter(|one| !mend.to.contains(one));
            let name = |one: &Toleration| format!("{}={}:{}", one.key, one.value, one.effect);
            let told: Vec<_> = more
                .map(|one| format!("tolerates {} as well", name(one)))
                .chain(less.map(|one| format!("tolerates {} no more", name(one))))
                .collect();
            told.join(", ")
        });
        let all: Vec<_> = memory.chain(tolerations).collect();
        format!("{}: {}", self.workload, all.join("; "))
    }
}

/// By how much memory is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raise {
    /// The plan's rule for pods that are killed for their memory (上浮50%).
    Half,
    /// So many bytes, requests and limits alike: the plan's rule for components of the platform.
    Add(u64),
}

/// What bounds it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Limit ranges of the namespace.
    pub ranges: &'a [MemoryBound],
    /// Quotas of the namespace.
    pub quotas: &'a [QuotaRoom],
    /// The nodes of the cluster.
    pub rooms: &'a [Room],
}

/// The memory of a container of a template, raised as far as it may be.
///
/// # Errors
/// What keeps it from being raised at all, and what would have to be given.
pub fn raised(
    workload: &Workload,
    container: &str,
    by: Raise,
    bounds: Bounds<'_>,
) -> Result<MemoryMend, String> {
    let name = &workload.name;
    let Some(from) = Memory::of(workload, container) else {
        return Err(format!("the template of {name} has no container {container}"));
    };
    let Some(limit) = from.limit else {
        return Err(format!(
            "container {container} of {name} has no memory limit that could be raised: its node was short of memory (blackstart runbook \
             plan overload, or move it)"
        ));
    };
    let more = match by {
        Raise::Half => limit.div_ceil(2),
        Raise::Add(bytes) => bytes,
    };
    let wanted = limit.saturating_add(more).div_ceil(MI) * MI;
    let mut to = Memory {
        limit: Some(wanted),
        request: match (by, from.request) {
            (_, None) => None,
            // Its quality of service stays what it is.
            (_, Some(request)) if request == limit => Some(wanted),
            (Raise::Half, Some(request)) => Some(request),
            (Raise::Add(bytes), Some(request)) => Some(request.saturating_add(bytes)),
        },
    };
    let others: u64 = workload
        .memory
        .iter()
        .filter(|one| one.container != container)
        .filter_map(|one| one.limit)
        .sum();
    let mut caps: Vec<(u64, String)> = Vec::new();
    for bound in bounds.ranges {
        if let Some(max) = bound.max {
            let (most, what) = if bound.whole_pod {
                (max.saturating_sub(others), "pod")
            } else {
                (max, "container")
            };
            caps.push((
                most,
                format!("LimitRange {} allows a {what} {} at most", bound.range, text(max)),
            ));
        }
    }
    let largest = bounds.rooms.iter().filter_map(|room| room.memory).max();
    if let Some(largest) = largest {
        caps.push((
            largest.saturating_sub(others),
            format!("the largest node has {} for pods", text(largest)),
        ));
    }
    for (most, why) in &caps {
        let most = most / MI * MI;
        if to.limit.is_some_and(|limit| limit > most) {
            to.limit = Some(most);
            to.request = to.request.map(|request| request.min(most));
            if most <= limit {
                return Err(format!(
                    "{why}, and the limit of container {container} of {name} is {} already",
                    text(limit)
                ));
            }
        }
    }
    for bound in bounds.ranges.iter().filter(|bound| !bound.whole_pod) {
        if let (Some(ratio), Some(limit), Some(request)) = (bound.ratio, to.limit, to.request)
            && let Ok(ratio) = u64::try_from(ratio)
            && ratio > 0
        {
            let least = limit.saturating_mul(1000).div_ceil(ratio).div_ceil(MI) * MI;
            to.request = Some(request.max(least).min(limit));
        }
    }
    let grown = |to: Option<u64>, from: Option<u64>| {
        to.unwrap_or_default()
            .saturating_sub(from.unwrap_or_default())
            .saturating_mul(workload.desired)
    };
    for quota in bounds.quotas {
        for (what, left, grown) in [
            ("limits", quota.limits, grown(to.limit, from.limit)),
            ("requests", quota.requests, grown(to.request, from.request)),
        ] {
            if let Some(left) = left.filter(|left| *left < grown) {
                return Err(format!(
                    "ResourceQuota {} leaves {} of {what} of memory, and {} pods would take {} more: raise the quota",
                    quota.quota,
                    text(left),
                    workload.desired,
                    text(grown)
                ));
            }
        }
    }
    Ok(MemoryMend {
        container: container.to_owned(),
        from,
        to,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::detail::{memory_bounds, quota_room};
    use crate::kubernetes::objects::workload::WorkloadKind;

    fn workload(request: Option<&str>, limit: Option<&str>) -> Workload {
        let mut resources = json!({});
        if let Some(request) = request {
            resources["requests"] = json!({ "memory": request });
        }
        if let Some(limit) = limit {
            resources["limits"] = json!({ "memory": limit });
        }
        let object = json!({
            "metadata": {"name": "web", "namespace": "biz", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [
                {"name": "c", "resources": resources},
                {"name": "side", "resources": {"limits": {"memory": "100Mi"}}},
            ]}}},
        });
        Workload::read(WorkloadKind::Deployment, &object)
    }

    fn bound(kind: &str, what: serde_json::Value) -> Vec<MemoryBound> {
        let mut item = what;
        item["type"] = json!(kind);
        memory_bounds(&json!({"metadata": {"name": "lr"}, "spec": {"limits": [item]}}))
    }

    fn room(memory: &str) -> Room {
        Room::read(&json!({"metadata": {"name": "n"}, "status": {"allocatable": {"memory": memory}}}))
    }

    fn mib(value: Option<u64>) -> Option<u64> {
        value.map(|bytes| bytes >> 20)
    }

    #[test]
    fn memory_is_raised_by_half_and_no_further_than_bounds_and_nodes_allow() {
        let max = |most: &str| bound("Container", json!({"max": {"memory": most}}));
        let pod = |most: &str| bound("Pod", json!({"max": {"memory": most}}));
        let ratio = |most: &str| bound("Container", json!({"maxLimitRequestRatio": {"memory": most}}));
        let half = Raise::Half;
        let add = Raise::Add(500 << 20);
        // Request and limit as they are; by how much; bounds; the largest node; request and limit as they become (MiB).
        let table = [
            (
                (Some("50Mi"), Some("100Mi")),
                half,
                vec![],
                "8Gi",
                (Some(50), Some(150)),
            ),
            // A guaranteed pod stays one.
            (
                (Some("100Mi"), Some("100Mi")),
                half,
                vec![],
                "8Gi",
                (Some(150), Some(150)),
            ),
            ((None, Some("101Mi")), half, vec![], "8Gi", (None, Some(152))),
            (
                (Some("50Mi"), Some("100Mi")),
                half,
                max("120Mi"),
                "8Gi",
                (Some(50), Some(120)),
            ),
            // The other container has 100 MiB of it.
            (
                (Some("50Mi"), Some("100Mi")),
                half,
                pod("230Mi"),
                "8Gi",
                (Some(50), Some(130)),
            ),
            (
                (Some("50Mi"), Some("100Mi")),
                half,
                vec![],
                "240Mi",
                (Some(50), Some(140)),
            ),
            (
                (Some("50Mi"), Some("100Mi")),
                half,
                ratio("2"),
                "8Gi",
                (Some(75), Some(150)),
            ),
            (
                (Some("50Mi"), Some("100Mi")),
                add,
                vec![],
                "8Gi",
                (Some(550), Some(600)),
            ),
            ((None, Some("100Mi")), add, vec![], "8Gi", (None, Some(600))),
        ];
        for ((request, limit), by, ranges, node, expected) in table {
            let bounds = Bounds {
                ranges: &ranges,
                quotas: &[],
                rooms: &[room(node)],
            };
            let mend = raised(&workload(request, limit), "c", by, bounds).unwrap();
            assert_eq!(
                (mib(mend.to.request), mib(mend.to.limit)),
                expected,
                "{request:?} {limit:?} {by:?} {ranges:?} {node}"
            );
        }
    }

    #[test]
    fn what_cannot_be_raised_says_what_would_have_to_be_given() {
        let quota = quota_room(&json!({
            "metadata": {"name": "q"},
            "status": {"hard": {"limits.memory": "1Gi"}, "used": {"limits.memory": "1000Mi"}},
        }));
        let full = bound("Container", json!({"max": {"memory": "100Mi"}}));
        let table = [
            (workload(None, None), "c", &[][..], &[][..], "has no memory limit"),
            (
                workload(None, Some("100Mi")),
                "other",
                &[][..],
                &[][..],
                "no container other",
            ),
            (
                workload(None, Some("100Mi")),
                "c",
                &full[..],
                &[][..],
                "LimitRange lr allows a container 100Mi at most",
            ),
            (
                workload(None, Some("100Mi")),
                "c",
                &[][..],
                std::slice::from_ref(&quota),
                "ResourceQuota q leaves 24Mi of limits of memory, and 2 pods would take 100Mi more",
            ),
        ];
        for (workload, container, ranges, quotas, why) in table {
            let bounds = Bounds {
                ranges,
                quotas,
                rooms: &[],
            };
            let refused = raised(&workload, container, Raise::Half, bounds).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn the_oldest_values_are_kept_over_several_changes() {
        let mut first = TemplateMend::new(&workload(Some("50Mi"), Some("100Mi")));
        let bounds = Bounds {
            ranges: &[],
            quotas: &[],
            rooms: &[],
        };
        first.memory =
            vec![raised(&workload(Some("50Mi"), Some("100Mi")), "c", Raise::Half, bounds).unwrap()];
        let told = serde_json::to_string(&first.before_with()).unwrap();
        let mut again = workload(Some("50Mi"), Some("150Mi"));
        again.annotations.insert(BEFORE.to_owned(), told);
        let mut second = TemplateMend::new(&again);
        second.memory = vec![raised(&again, "c", Raise::Half, bounds).unwrap()];
        assert_eq!(mib(second.memory[0].to.limit), Some(225));
        assert_eq!(mib(second.before_with().memory["c"].limit), Some(100));
        assert_eq!(Before::of(&again).unwrap().memory["c"].request, Some(50 << 20));
    }
}

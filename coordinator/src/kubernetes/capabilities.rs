//! What a cluster can do: pure, from its version and the groups that it serves. Clusters of 1.13 and 1.36 stand side by side.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Of the server, as `/version` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// 13.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A version of a group that the cluster serves, as it stands in paths: `policy/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVersion(pub String);

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a cluster can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Of the server that answered.
    pub version: Version,
    /// The body of an eviction: `policy/v1` from 1.22, `policy/v1beta1` before (gone in 1.25).
    pub eviction: Option<GroupVersion>,
    /// Where budgets are read.
    pub budgets: Option<GroupVersion>,
    /// Where nodes' leases are read (from 1.14); without them the heartbeat in the node's status is all there is.
    pub leases: Option<GroupVersion>,
    /// Where volume attachments are read.
    pub attachments: Option<GroupVersion>,
    /// Where workloads are read.
    pub workloads: Option<GroupVersion>,
    /// Where the real usage of nodes and pods is read (metrics-server, or what stands in for it).
    pub metrics: Option<GroupVersion>,
    /// The out-of-service taint does something: beta and on in 1.26, GA in 1.28.
    pub out_of_service: bool,
}

/// The answer of `/version`.
#[derive(Debug, Clone, Deserialize)]
pub struct VersionInfo {
    major: String,
    minor: String,
}

/// The answer of `/apis`.
#[derive(Debug, Clone, Deserialize)]
pub struct GroupList {
    groups: Vec<Group>,
}

#[derive(Debug, Clone, Deserialize)]
struct Group {
    name: String,
    versions: Vec<Served>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    group_version: String,
}

impl VersionInfo {
    /// As a number; providers write `13+`.
    pub fn version(&self) -> Option<Version> {
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some(Version {
            major: number(&self.major)?,
            minor: number(&self.minor)?,
        })
    }
}

impl Capabilities {
    /// From what the server said.
    pub fn new(version: Version, groups: &GroupList) -> Self {
        let served: BTreeMap<&str, Vec<&str>> = groups
            .groups
            .iter()
            .map(|group| {
                let versions = group.versions.iter().map(|one| one.group_version.as_str());
                (group.name.as_str(), versions.collect())
            })
            .collect();
        // The first of these that it serves.
        let first = |group: &str, wanted: &[&str]| {
            let served = served.get(group)?;
            let found = wanted
                .iter()
                .map(|version| format!("{group}/{version}"))
                .find(|one| served.contains(&one.as_str()))?;
            Some(GroupVersion(found))
        };
        let policy = first("policy", &["v1", "v1beta1"]);
        Self {
            // policy/v1 came with 1.21 for budgets, and with 1.22 for the body of an eviction.
            eviction: if version < (Version { major: 1, minor: 22 }) {
                first("policy", &["v1beta1"])
            } else {
                policy.clone()
            },
            budgets: policy,
            // 1.13 serves them as well, and no kubelet of it makes one.
            leases: first("coordination.k8s.io", &["v1", "v1beta1"])
                .filter(|_| version >= Version { major: 1, minor: 14 }),
            attachments: first("storage.k8s.io", &["v1", "v1beta1"]),
            workloads: first("apps", &["v1"]),
            metrics: first("metrics.k8s.io", &["v1", "v1beta1"]),
            out_of_service: version >= (Version { major: 1, minor: 26 }),
            version,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(minor: &str, groups: &[&str]) -> Capabilities {
        let version: VersionInfo = serde_json::from_value(json!({"major": "1", "minor": minor})).unwrap();
        let mut list: BTreeMap<&str, Vec<serde_json::Value>> = BTreeMap::new();
        for served in groups {
            let (group, version) = served.split_once('/').unwrap();
            list.entry(group)
                .or_default()
                .push(json!({"groupVersion": served, "version": version}));
        }
        let groups: Vec<_> = list
            .into_iter()
            .map(|(name, versions)| json!({"name": name, "versions": versions}))
            .collect();
        let groups = serde_json::from_value(json!({ "groups": groups })).unwrap();
        Capabilities::new(version.version().unwrap(), &groups)
    }

    #[test]
    fn each_version_is_used_by_what_it_serves() {
        let told = |version: Option<GroupVersion>| version.map_or("-".to_owned(), |it| it.0);
        let table = [
            (
                of(
                    "13+",
                    &["policy/v1beta1", "apps/v1", "coordination.k8s.io/v1beta1"],
                ),
                "policy/v1beta1",
                "-",
                false,
            ),
            (
                of(
                    "14",
                    &[
                        "policy/v1beta1",
                        "apps/v1",
                        "coordination.k8s.io/v1beta1",
                        "coordination.k8s.io/v1",
                    ],
                ),
                "policy/v1beta1",
                "coordination.k8s.io/v1",
                false,
            ),
            // Both are served, but only 1.22 takes the newer body.
            (
                of("21", &["policy/v1", "policy/v1beta1", "coordination.k8s.io/v1"]),
                "policy/v1beta1",
                "coordination.k8s.io/v1",
                false,
            ),
            (
                of("22", &["policy/v1", "policy/v1beta1", "coordination.k8s.io/v1"]),
                "policy/v1",
                "coordination.k8s.io/v1",
                false,
            ),
            (
                of("36", &["policy/v1", "apps/v1", "coordination.k8s.io/v1"]),
                "policy/v1",
                "coordination.k8s.io/v1",
                true,
            ),
        ];
        for (can, eviction, leases, out_of_service) in table {
            let version = can.version;
            assert_eq!(told(can.eviction), eviction, "{version}");
            assert_eq!(told(can.leases), leases, "{version}");
            assert_eq!(can.out_of_service, out_of_service, "{version}");
        }
    }

    #[test]
    fn a_cluster_without_a_group_has_none() {
        let can = of("36", &[]);
        assert_eq!((can.eviction, can.budgets, can.attachments), (None, None, None));
    }
}

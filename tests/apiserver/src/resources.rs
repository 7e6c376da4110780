//! The table of what the API server serves, and in which release under which group and version.
//!
//! From the API reference of 1.13 and of the current releases, and the deprecation guide
//! (<https://kubernetes.io/docs/reference/using-api/deprecation-guide/>).

/// A release of Kubernetes, by which the double serves the APIs and words its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The minor version: 13 for 1.13.
    pub minor: u8,
}

impl Release {
    /// 1.13: evictions by `policy/v1beta1`, workloads in `extensions/v1beta1` too, no `coordination.k8s.io/v1`.
    pub const V1_13: Self = Self { minor: 13 };
    /// 1.33, whose words and APIs the double knows best.
    pub const CURRENT: Self = Self { minor: 33 };

    /// How long the node lifecycle controller waits for a heartbeat, in seconds: 40, since 1.32 50
    /// (`--node-monitor-grace-period`).
    pub fn monitor_grace_seconds(self) -> i64 {
        if self.minor >= 32 { 50 } else { 40 }
    }

    /// Whether kubelets renew leases; before, their node's status alone was the heartbeat (beta in 1.14).
    pub fn has_leases(self) -> bool {
        self.minor >= 14
    }
}

/// A group and version under which a resource is served, from one minor release until before another.
#[derive(Debug)]
pub struct Served {
    /// The API group, empty for the core.
    pub group: &'static str,
    /// The version in it.
    pub version: &'static str,
    since: u8,
    until: u8,
}

impl Served {
    /// Whether `release` has it.
    pub fn is_in(&self, release: Release) -> bool {
        (self.since..self.until).contains(&release.minor)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }
}

/// `v1` or `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// A kind of object and the path it is served under.
#[derive(Debug)]
pub struct Resource {
    /// The group it belongs to.
    pub group: &'static str,
    /// Where it is served, the preferred one first.
    pub served: &'static [Served],
    /// `Pod`.
    pub kind: &'static str,
    /// `pods`: the name in paths, and what it is stored under.
    pub plural: &'static str,
    /// Names that `kubectl` takes as well.
    pub short: &'static [&'static str],
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// `status`, `scale`, `eviction` …
    pub subresources: &'static [&'static str],
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Resource {
    /// Whether there is a subresource of that name.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }

    /// The group and version that a release prefers.
    pub fn preferred(&self, release: Release) -> Option<&'static Served> {
        self.served.iter().find(|served| served.is_in(release))
    }
}

/// The resource stored under a plural name.
pub fn named(plural: &str) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.plural == plural)
        .expect("the double names only resources of its table")
}

/// What a release serves at a group, a version and a plural name.
pub fn served(release: Release, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    in_version(release, group, version).find(|resource| resource.plural == plural)
}

/// What a release serves in a group's version.
pub fn in_version<'a>(
    release: Release,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'static Resource> + 'a {
    RESOURCES.iter().filter(move |resource| {
        resource
            .served
            .iter()
            .any(|served| served.group == group && served.version == version && served.is_in(release))
    })
}

/// The groups of a release with their versions, the preferred version first; the core is not among them.
pub fn groups(release: Release) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let all = RESOURCES.iter().flat_map(|resource| resource.served);
    for served in all.filter(|served| !served.group.is_empty() && served.is_in(release)) {
        match groups.iter_mut().find(|(group, _)| *group == served.group) {
            Some((_, versions)) if versions.contains(&served.version) => {}
            Some((_, versions)) => versions.push(served.version),
            None => groups.push((served.group, vec![served.version])),
        }
    }
    groups
}

const EVER: u8 = u8::MAX;

const fn from(group: &'static str, version: &'static str, since: u8, until: u8) -> Served {
    Served {
        group,
        version,
        since,
        until,
    }
}

const fn core(
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    subresources: &'static [&'static str],
) -> Resource {
    Resource {
        group: "",
        served: CORE,
        kind,
        plural,
        short,
        namespaced,
        subresources,
    }
}

const fn grouped(
    group: &'static str,
    served: &'static [Served],
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    subresources: &'static [&'static str],
) -> Resource {
    Resource {
        group,
        served,
        kind,
        plural,
        short,
        namespaced: true,
        subresources,
    }
}

const CORE: &[Served] = &[from("", "v1", 0, EVER)];
const WORKLOAD: &[Served] = &[from("apps", "v1", 9, EVER), from("extensions", "v1beta1", 0, 16)];
const RBAC: &[Served] = &[from("rbac.authorization.k8s.io", "v1", 8, EVER)];
const STATUS: &[&str] = &["status"];
const SCALE: &[&str] = &["status", "scale"];

/// Everything that is stored.
pub static RESOURCES: &[Resource] = &[
    core("Node", "nodes", &["no"], false, STATUS),
    core(
        "Pod",
        "pods",
        &["po"],
        true,
        &["status", "eviction", "binding", "log", "resize"],
    ),
    core("Namespace", "namespaces", &["ns"], false, &["status", "finalize"]),
    Resource {
        served: &[
            from("", "v1", 0, EVER),
            from("events.k8s.io", "v1", 19, EVER),
            from("events.k8s.io", "v1beta1", 8, 25),
        ],
        ..core("Event", "events", &["ev"], true, &[])
    },
    core("ConfigMap", "configmaps", &["cm"], true, &[]),
    core("Secret", "secrets", &[], true, &[]),
    core(
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        true,
        STATUS,
    ),
    core("PersistentVolume", "persistentvolumes", &["pv"], false, STATUS),
    core("Service", "services", &["svc"], true, STATUS),
    core("Endpoints", "endpoints", &["ep"], true, &[]),
    core("ServiceAccount", "serviceaccounts", &["sa"], true, &[]),
    core("LimitRange", "limitranges", &["limits"], true, &[]),
    core("ResourceQuota", "resourcequotas", &["quota"], true, STATUS),
    core(
        "ReplicationController",
        "replicationcontrollers",
        &["rc"],
        true,
        SCALE,
    ),
    grouped("apps", WORKLOAD, "Deployment", "deployments", &["deploy"], SCALE),
    grouped("apps", WORKLOAD, "ReplicaSet", "replicasets", &["rs"], SCALE),
    grouped(
        "apps",
        &[from("apps", "v1", 9, EVER)],
        "StatefulSet",
        "statefulsets",
        &["sts"],
        SCALE,
    ),
    grouped("apps", WORKLOAD, "DaemonSet", "daemonsets", &["ds"], STATUS),
    grouped(
        "apps",
        &[from("apps", "v1", 9, EVER)],
        "ControllerRevision",
        "controllerrevisions",
        &[],
        &[],
    ),
    grouped(
        "batch",
        &[from("batch", "v1", 2, EVER)],
        "Job",
        "jobs",
        &[],
        STATUS,
    ),
    grouped(
        "batch",
        &[from("batch", "v1", 21, EVER), from("batch", "v1beta1", 8, 25)],
        "CronJob",
        "cronjobs",
        &["cj"],
        STATUS,
    ),
    grouped(
        "policy",
        &[from("policy", "v1", 21, EVER), from("policy", "v1beta1", 5, 25)],
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        &["pdb"],
        STATUS,
    ),
    grouped(
        "coordination.k8s.io",
        &[
            from("coordination.k8s.io", "v1", 14, EVER),
            from("coordination.k8s.io", "v1beta1", 12, 22),
        ],
        "Lease",
        "leases",
        &[],
        &[],
    ),
    Resource {
        namespaced: false,
        ..grouped(
            "storage.k8s.io",
            &[from("storage.k8s.io", "v1", 13, EVER)],
            "VolumeAttachment",
            "volumeattachments",
            &[],
            STATUS,
        )
    },
    Resource {
        namespaced: false,
        ..grouped(
            "storage.k8s.io",
            &[from("storage.k8s.io", "v1", 6, EVER)],
            "StorageClass",
            "storageclasses",
            &["sc"],
            &[],
        )
    },
    Resource {
        namespaced: false,
        ..grouped(
            "rbac.authorization.k8s.io",
            RBAC,
            "ClusterRole",
            "clusterroles",
            &[],
            &[],
        )
    },
    Resource {
        namespaced: false,
        ..grouped(
            "rbac.authorization.k8s.io",
            RBAC,
            "ClusterRoleBinding",
            "clusterrolebindings",
            &[],
            &[],
        )
    },
    grouped("rbac.authorization.k8s.io", RBAC, "Role", "roles", &[], &[]),
    grouped(
        "rbac.authorization.k8s.io",
        RBAC,
        "RoleBinding",
        "rolebindings",
        &[],
        &[],
    ),
];

//! The causes that are told apart: the closed list, and what to do about each.

/// Why a pod does not run as it should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// No node has enough of something free.
    Insufficient {
        /// `cpu`, `memory`, `ephemeral-storage`, `nvidia.com/gpu`, ...
        resource: String,
    },
    /// Nodes have a taint that it does not tolerate.
    Taint {
        /// `key: value`, or in the words of old schedulers that do not name it.
        taint: String,
    },
    /// No node is as its selector or affinity wants.
    Affinity,
    /// Nodes are cordoned.
    Cordoned,
    /// A port of the node that it wants is taken.
    HostPortTaken {
        /// Which: `TCP 8080`; empty if it is not known.
        port: String,
    },
    /// Nodes have as many pods as they may.
    TooManyPods,
    /// Its claim has no volume.
    ClaimUnbound {
        /// Which.
        claim: String,
    },
    /// Its claim is not there.
    ClaimMissing {
        /// Which.
        claim: String,
    },
    /// Its volume can be had on other nodes alone.
    VolumeElsewhere,
    /// No scheduler has looked at it.
    NotScheduled,
    /// A `ConfigMap` is not there.
    ConfigMapMissing {
        /// Which.
        name: String,
    },
    /// A `Secret` is not there.
    SecretMissing {
        /// Which.
        name: String,
    },
    /// A `ConfigMap` or `Secret` lacks a key.
    KeyMissing,
    /// A volume is not mounted.
    MountFailed,
    /// A volume is still attached to another node.
    VolumeHeld,
    /// The network plugin gives it no address.
    AddressesExhausted,
    /// The network plugin does not work on its node.
    NetworkPlugin,
    /// Its sandbox is not made.
    SandboxFailed,
    /// The image is not there.
    ImageNotFound {
        /// Which.
        image: String,
    },
    /// The registry does not let it in.
    ImageUnauthorized {
        /// Which.
        image: String,
    },
    /// The registry does not answer.
    RegistryUnreachable {
        /// Which image was wanted.
        image: String,
    },
    /// The name of the image is none.
    ImageNameInvalid {
        /// Which.
        image: String,
    },
    /// The image may not be pulled, and is not on the node.
    ImageNeverPulled {
        /// Which.
        image: String,
    },
    /// The image cannot be had, for a reason that is not recognised.
    ImagePullFailed {
        /// Which.
        image: String,
    },
    /// The node's disk has no room for it.
    NodeDiskFull,
    /// Killed for its memory.
    OomKilled,
    /// Killed since its liveness probe failed.
    LivenessFailed,
    /// Killed since its startup probe failed.
    StartupFailed,
    /// Its readiness probe fails.
    ReadinessFailed,
    /// Its command is not there or cannot be run.
    CommandBroken,
    /// It touched memory that is not its own (exit code 139).
    Segfault,
    /// Killed (137), and not for its memory as far as is told.
    Killed,
    /// Asked to end (143), by somebody else than its own failure.
    AskedToEnd,
    /// It ends well, and is to run for ever.
    EndsByItself,
    /// It ends with an error of its own.
    ExitCode {
        /// Which.
        code: i64,
    },
    /// The API refuses the pod: a quota is used up.
    QuotaExceeded {
        /// Which.
        quota: String,
    },
    /// The API refuses the pod: a limit range does not allow what it asks for.
    LimitRangeExceeded,
    /// The API refuses the pod, or the kubelet its container: a security policy does not allow it.
    PolicyViolated,
    /// Its service account is not there.
    ServiceAccountMissing,
    /// The API refuses the pod: somebody lacks a right.
    Forbidden,
    /// The API refuses the pod: a webhook that is to be asked does not answer.
    WebhookDown,
    /// Its node threw it out for want of something.
    Evicted {
        /// Which.
        node: String,
    },
    /// Its node was shut down.
    NodeWentDown {
        /// Which.
        node: String,
    },
    /// Its node did not take it.
    NodeRefused {
        /// Which.
        node: String,
    },
    /// It had a time, and that is over.
    DeadlineExceeded,
    /// Its node is not ready: nobody starts or ends it.
    NodeSilent {
        /// Which.
        node: String,
    },
    /// The API has not heard of its node.
    NodeLost {
        /// Which.
        node: String,
    },
    /// Its node is short of something.
    NodeUnderPressure {
        /// Which.
        node: String,
        /// `MemoryPressure`, ...
        pressure: String,
    },
    /// Somebody has to agree to its end, and does not.
    Finalizers {
        /// Who.
        names: Vec<String>,
    },
    /// Its node is ready, and does not end it.
    KubeletHolds {
        /// Which.
        node: String,
    },
    /// It is a static pod.
    StaticPod {
        /// Of which node.
        node: String,
    },
    /// Nothing that is recognised.
    Unexplained,
}

impl Cause {
    /// Its name on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Insufficient { .. } => "insufficient-resource",
            Self::Taint { .. } => "taint",
            Self::Affinity => "affinity",
            Self::Cordoned => "cordoned",
            Self::HostPortTaken { .. } => "host-port-taken",
            Self::TooManyPods => "too-many-pods",
            Self::ClaimUnbound { .. } => "claim-unbound",
            Self::ClaimMissing { .. } => "claim-missing",
            Self::VolumeElsewhere => "volume-elsewhere",
            Self::NotScheduled => "not-scheduled",
            Self::ConfigMapMissing { .. } => "configmap-missing",
            Self::SecretMissing { .. } => "secret-missing",
            Self::KeyMissing => "key-missing",
            Self::MountFailed => "mount-failed",
            Self::VolumeHeld => "volume-held",
            Self::AddressesExhausted => "addresses-exhausted",
            Self::NetworkPlugin => "network-plugin",
            Self::SandboxFailed => "sandbox-failed",
            Self::ImageNotFound { .. } => "image-not-found",
            Self::ImageUnauthorized { .. } => "image-unauthorized",
            Self::RegistryUnreachable { .. } => "registry-unreachable",
            Self::ImageNameInvalid { .. } => "image-name-invalid",
            Self::ImageNeverPulled { .. } => "image-never-pulled",
            Self::ImagePullFailed { .. } => "image-pull-failed",
            Self::NodeDiskFull => "node-disk-full",
            Self::OomKilled => "oom-killed",
            Self::LivenessFailed => "liveness-failed",
            Self::StartupFailed => "startup-failed",
            Self::ReadinessFailed => "readiness-failed",
            Self::CommandBroken => "command-broken",
            Self::Segfault => "segfault",
            Self::Killed => "killed",
            Self::AskedToEnd => "asked-to-end",
            Self::EndsByItself => "ends-by-itself",
            Self::ExitCode { .. } => "exit-code",
            Self::QuotaExceeded { .. } => "quota-exceeded",
            Self::LimitRangeExceeded => "limit-range-exceeded",
            Self::PolicyViolated => "policy-violated",
            Self::ServiceAccountMissing => "service-account-missing",
            Self::Forbidden => "forbidden",
            Self::WebhookDown => "webhook-down",
            Self::Evicted { .. } => "evicted",
            Self::NodeWentDown { .. } => "node-went-down",
            Self::NodeRefused { .. } => "node-refused",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::NodeSilent { .. } => "node-silent",
            Self::NodeLost { .. } => "node-lost",
            Self::NodeUnderPressure { .. } => "node-under-pressure",
            Self::Finalizers { .. } => "finalizers",
            Self::KubeletHolds { .. } => "kubelet-holds",
            Self::StaticPod { .. } => "static-pod",
            Self::Unexplained => "unexplained",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::Insufficient { resource } => {
                format!("ask for less {resource}, free some (move pods away), or add a node")
            }
            Self::Taint { taint } => format!(
                "have its pods tolerate {taint} if they may run there (blackstart workload heal proposes it), or remove the taint"
            ),
            Self::Affinity => "give a node the labels that it selects, or change its nodeSelector or affinity".to_owned(),
            Self::Cordoned => "uncordon a node: blackstart maintenance end NODE, or kubectl uncordon NODE".to_owned(),
            Self::HostPortTaken { port } => {
                format!("free the port {port} on a node, or use a Service in place of a hostPort")
            }
            Self::TooManyPods => "move pods away, add a node, or raise maxPods of the kubelet".to_owned(),
            Self::ClaimUnbound { claim } => {
                format!("see why claim {claim} is not bound: its storage class, its provisioner, a volume that fits")
            }
            Self::ClaimMissing { claim } => format!("create the claim {claim}"),
            Self::VolumeElsewhere => "its volume is bound to another zone or node: free room there".to_owned(),
            Self::NotScheduled => {
                "see whether a scheduler runs and leads, and whether its schedulerName is one that there is".to_owned()
            }
            Self::ConfigMapMissing { name } => format!("create the ConfigMap {name}; its kubelet tries again by itself"),
            Self::SecretMissing { name } => format!("create the Secret {name}; its kubelet tries again by itself"),
            Self::KeyMissing => "add the key to the ConfigMap or Secret; its kubelet tries again by itself".to_owned(),
            Self::MountFailed => "see what the volume's driver says on its node".to_owned(),
            Self::VolumeHeld => {
                "the volume is attached to another node: if that is off, blackstart runbook plan node-down NODE".to_owned()
            }
            Self::AddressesExhausted => "the range of the node's pods is used up: remove stale pods, or widen it".to_owned(),
            Self::NetworkPlugin => "blackstart node heal-cni NODE has the node's CNI pod made again".to_owned(),
            Self::SandboxFailed => "see what the container runtime says on its node".to_owned(),
            Self::ImageNotFound { image } => format!("put right the name or tag of {image}, or push it"),
            Self::ImageUnauthorized { image } => {
                format!("put right the imagePullSecrets for {image}, or its name: registries call both the same")
            }
            Self::RegistryUnreachable { image } => {
                format!("see whether the registry of {image} answers from the node; once it does, --skip-back-off has it tried at once")
            }
            Self::ImageNameInvalid { image } => format!("put right the name {image:?}"),
            Self::ImageNeverPulled { image } => format!("load {image} on the node, or change its imagePullPolicy"),
            Self::ImagePullFailed { image } => format!("see what its node says of {image}"),
            Self::NodeDiskFull => "free its node's disk: blackstart describe node NODE".to_owned(),
            Self::OomKilled => "blackstart pods heal raises its memory limit by half".to_owned(),
            Self::LivenessFailed | Self::StartupFailed | Self::ReadinessFailed => {
                "see its log, and whether what the probe asks works and is given the time that it needs".to_owned()
            }
            Self::CommandBroken => "put right its command, its arguments, or its image".to_owned(),
            Self::Segfault | Self::ExitCode { .. } => "see its log: kubectl logs --previous".to_owned(),
            Self::Killed => "see the kernel's log of its node: blackstart describe node NODE".to_owned(),
            Self::AskedToEnd => "see who ends it: a probe, its node, or its own parent".to_owned(),
            Self::EndsByItself => "it is to run for ever and ends: put right its command, or make it a Job".to_owned(),
            Self::QuotaExceeded { quota } => format!("raise the quota {quota}, or ask for less"),
            Self::LimitRangeExceeded => "ask for what the LimitRange allows, or change it".to_owned(),
            Self::PolicyViolated => "give its pods a securityContext that the policy allows, or change the policy".to_owned(),
            Self::ServiceAccountMissing => "create its service account".to_owned(),
            Self::Forbidden => "give its service account the role that it lacks".to_owned(),
            Self::WebhookDown => "mend the webhook, or its failurePolicy".to_owned(),
            Self::Evicted { node } | Self::NodeUnderPressure { node, .. } => {
                format!("see what {node} is short of: blackstart describe node {node}")
            }
            Self::NodeWentDown { .. } | Self::NodeRefused { .. } => {
                "its controller makes another; what is left can be deleted".to_owned()
            }
            Self::DeadlineExceeded => "it had activeDeadlineSeconds: see whether that is enough".to_owned(),
            Self::NodeSilent { node } | Self::NodeLost { node } => {
                format!("blackstart runbook plan node-down {node}")
            }
            Self::Finalizers { names } => {
                format!("see why {} is not removed by whom it belongs to; removing it by hand may leave something behind", names.join(", "))
            }
            Self::KubeletHolds { node } => format!("see why {node} does not end it: blackstart describe node {node}"),
            Self::StaticPod { node } => {
                format!("its manifest on {node} makes it: blackstart describe node {node}; deleting its shadow does nothing")
            }
            Self::Unexplained => "kubectl describe and kubectl logs tell more".to_owned(),
        }
    }
}

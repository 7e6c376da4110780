//! What a step of a runbook does: the closed list, and what each of them is undone by and leaves behind.
//!
//! Names are written into the journal and into ids of steps, so they stay as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a step does. The closed list; each is carried out by a look at the world and calls that may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Its agent mends nothing, and it counts for no storm and no outage.
    Silence,
    /// Ends the silence that a maintenance began.
    Unsilence,
    /// No new pods are scheduled to it.
    Cordon,
    /// Ends a cordon of ours.
    Uncordon,
    /// Evicts its pods, as budgets allow.
    Drain,
    /// Deletes the pods that could not be evicted in time, past their budgets.
    DeleteRemaining,
    /// Its agent stops the kubelet.
    StopKubelet,
    /// Its agent starts the kubelet.
    StartKubelet,
    /// Its agent restarts the kubelet.
    RestartKubelet,
    /// It is ready: the agent's word, `Ready`, and a lease renewed since.
    AwaitReady,
    /// Tells the cluster that it is off.
    TaintOutOfService,
    /// Takes that back.
    RemoveTaint,
    /// Its pods and volumes are gone from it.
    AwaitMoved,
    /// Deletes its pods without their kubelet's word, and its volume attachments.
    ForceDelete,
    /// Its management controller cuts its power, and says that it is off.
    PowerOff,
    /// Evicts its heaviest pods, one after the other, until its load is low.
    Relieve,
    /// Its agent, or those of all nodes whose disks are short, have given space back.
    AwaitReclaim,
    /// The pods that the plan names run.
    AwaitRunning,
    /// The pods of the chosen workloads leave a node that is not reached soon.
    ShortenTolerations,
    /// The cluster reaches it again.
    AwaitReachable,
    /// Takes that back.
    RestoreTolerations,
    /// As many pods of each workload are ready as before.
    AwaitWorkloads,
    /// Deletes pods that do not serve, so that their controllers make them again.
    Recreate,
    /// Deletes pods of a node that is off without their kubelet's word.
    FinishTermination,
    /// Raises the memory of workloads' templates.
    RaiseMemory,
    /// Has workloads' pods tolerate more taints.
    AddTolerations,
    /// Puts workloads' templates back as they were.
    RestoreTemplates,
    /// Makes a workload's pods anew, as its own strategy goes.
    RolloutRestart,
    /// Every pod of the workloads is of their newest template, and serves.
    AwaitRollout,
    /// Pods run, and none was started again for a while.
    AwaitSteady,
    /// Its agent takes a snapshot of the etcd member there.
    SnapshotEtcd,
    /// Its agent moves the manifest of etcd out and back.
    BounceEtcd,
    /// A member that is well takes the lost one out of the cluster.
    RemoveEtcdMember,
    /// A member that is well adds it anew.
    AddEtcdMember,
    /// Its agent sets the member's data aside, and has it join anew.
    RebuildEtcdMember,
    /// It has nearly all that the leader has.
    AwaitEtcdSync,
    /// It votes from now on.
    PromoteEtcdMember,
    /// Every member of the cluster is well.
    AwaitEtcdHealthy,
    /// Its agent brings what the manifest of a member says of the others up to date.
    SetInitialCluster,
    /// Its agent takes etcd out of the kubelet's sight, and is sure that it has ended.
    FenceEtcd,
    /// The same of the API server, the controller manager and the scheduler.
    StopControlPlane,
    /// Its agent makes a cluster of one out of the data there.
    RestoreEtcd,
    /// Puts the control plane back.
    StartControlPlane,
    /// Its agent moves the manifest of one static pod of the control plane out and back.
    BouncePart,
    /// The same, with another `--etcd-servers`.
    SetEtcdServers,
    /// All static pods that the run has touched are well.
    AwaitControlPlane,
}

impl Action {
    /// Its name. A step is named by it and by whose agent does it ([`super::plan::Step::id`]): no run does the same twice there.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Unsilence => "unsilence",
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Drain => "drain",
            Self::DeleteRemaining => "delete-remaining",
            Self::StopKubelet => "stop-kubelet",
            Self::StartKubelet => "start-kubelet",
            Self::RestartKubelet => "restart-kubelet",
            Self::AwaitReady => "await-ready",
            Self::TaintOutOfService => "taint-out-of-service",
            Self::RemoveTaint => "remove-taint",
            Self::AwaitMoved => "await-moved",
            Self::ForceDelete => "force-delete",
            Self::PowerOff => "power-off",
            Self::Relieve => "relieve",
            Self::AwaitReclaim => "await-reclaim",
            Self::AwaitRunning => "await-running",
            Self::ShortenTolerations => "shorten-tolerations",
            Self::AwaitReachable => "await-reachable",
            Self::RestoreTolerations => "restore-tolerations",
            Self::AwaitWorkloads => "await-workloads",
            Self::Recreate => "recreate",
            Self::FinishTermination => "finish-termination",
            Self::RaiseMemory => "raise-memory",
            Self::AddTolerations => "add-tolerations",
            Self::RestoreTemplates => "restore-templates",
            Self::RolloutRestart => "rollout-restart",
            Self::AwaitRollout => "await-rollout",
            Self::AwaitSteady => "await-steady",
            Self::SnapshotEtcd => "snapshot-etcd",
            Self::BounceEtcd => "bounce-etcd",
            Self::RemoveEtcdMember => "remove-etcd-member",
            Self::AddEtcdMember => "add-etcd-member",
            Self::RebuildEtcdMember => "rebuild-etcd-member",
            Self::AwaitEtcdSync => "await-etcd-sync",
            Self::PromoteEtcdMember => "promote-etcd-member",
            Self::AwaitEtcdHealthy => "await-etcd-healthy",
            Self::SetInitialCluster => "set-initial-cluster",
            Self::FenceEtcd => "fence-etcd",
            Self::StopControlPlane => "stop-control-plane",
            Self::RestoreEtcd => "restore-etcd",
            Self::StartControlPlane => "start-control-plane",
            Self::BouncePart => "bounce",
            Self::SetEtcdServers => "set-etcd-servers",
            Self::AwaitControlPlane => "await-control-plane",
        }
    }

    /// What puts back what it changed; `None`: it changed nothing, or it cannot be put back.
    pub const fn undo(self) -> Option<Self> {
        match self {
            Self::Silence => Some(Self::Unsilence),
            Self::Cordon => Some(Self::Uncordon),
            Self::StopKubelet => Some(Self::StartKubelet),
            Self::TaintOutOfService => Some(Self::RemoveTaint),
            Self::ShortenTolerations => Some(Self::RestoreTolerations),
            Self::RaiseMemory | Self::AddTolerations => Some(Self::RestoreTemplates),
            Self::Relieve
            | Self::AwaitReclaim
            | Self::AwaitRunning
            | Self::AwaitReachable
            | Self::RestoreTolerations
            | Self::AwaitWorkloads
            | Self::Unsilence
            | Self::Uncordon
            | Self::Drain
            | Self::DeleteRemaining
            | Self::StartKubelet
            | Self::RestartKubelet
            | Self::AwaitReady
            | Self::RemoveTaint
            | Self::AwaitMoved
            | Self::ForceDelete
            | Self::PowerOff
            | Self::Recreate
            | Self::FinishTermination
            | Self::RestoreTemplates
            | Self::RolloutRestart
            | Self::AwaitRollout
            | Self::AwaitSteady
            | Self::SnapshotEtcd
            | Self::BounceEtcd
            | Self::RemoveEtcdMember
            | Self::AddEtcdMember
            | Self::RebuildEtcdMember
            | Self::AwaitEtcdSync
            | Self::PromoteEtcdMember
            | Self::AwaitEtcdHealthy
            | Self::SetInitialCluster
            | Self::FenceEtcd
            | Self::StopControlPlane
            | Self::RestoreEtcd
            | Self::StartControlPlane
            | Self::BouncePart
            | Self::SetEtcdServers
            | Self::AwaitControlPlane => None,
        }
    }

    /// What it leaves behind for good, if a run is aborted after it.
    pub const fn leaves(self) -> Option<&'static str> {
        match self {
            Self::Drain | Self::Relieve => Some("the pods that were evicted run elsewhere"),
            Self::DeleteRemaining => Some("the pods that were deleted run elsewhere"),
            Self::ForceDelete => Some("pods and volume attachments that were deleted stay so"),
            Self::PowerOff => Some("the machine's power was cut: it stays off until somebody switches it on"),
            Self::Unsilence => Some("the silence was ended"),
            Self::Uncordon => Some("the node was uncordoned"),
            Self::StartKubelet => Some("the kubelet was started"),
            Self::RestartKubelet => Some("the kubelet was restarted"),
            Self::RemoveTaint => Some("the out-of-service taint was removed"),
            Self::Recreate => Some("the pods that were deleted are made again by their controllers"),
            Self::FinishTermination => Some("the pods that were deleted by force stay so"),
            Self::RestoreTemplates => Some("templates were put back as they were before earlier runs"),
            Self::RolloutRestart => Some("the pods that were restarted run anew"),
            Self::SnapshotEtcd => Some("the snapshots are kept"),
            Self::RemoveEtcdMember => {
                Some("the member was taken out of the cluster, which goes on with the others")
            }
            Self::AddEtcdMember => Some(
                "a member was added; one that never starts is taken out with etcdctl member remove; blackstart runbook run etcd-member, for the node that it is on, goes on with it",
            ),
            Self::RebuildEtcdMember => Some(
                "the member's data, if there was some, was set aside (member.set-aside.RUN), and its manifest written: it runs",
            ),
            Self::PromoteEtcdMember => Some("the member votes"),
            Self::SetInitialCluster => Some(
                "manifests of etcd that were brought up to date stay so; the old ones are in blackstart-edits beside the manifests that are out",
            ),
            Self::FenceEtcd => Some(
                "members whose manifests were set aside stay so: blackstart runbook run etcd-member NODE, or by hand from blackstart-etcd beside the manifests",
            ),
            Self::StopControlPlane => Some(
                "control planes whose manifests were set aside stay so: they are in blackstart-etcd beside the manifests",
            ),
            Self::SetEtcdServers => Some(
                "API servers whose manifests were written anew keep them; the old ones are in blackstart-edits beside the manifests that are out",
            ),
            Self::RestoreEtcd => Some("the data was restored; the old data is kept as member.set-aside.RUN"),
            Self::ShortenTolerations
            | Self::RestoreTolerations
            | Self::AwaitReclaim
            | Self::AwaitRunning
            | Self::AwaitReachable
            | Self::AwaitWorkloads
            | Self::Silence
            | Self::Cordon
            | Self::StopKubelet
            | Self::AwaitReady
            | Self::TaintOutOfService
            | Self::AwaitMoved
            | Self::RaiseMemory
            | Self::AddTolerations
            | Self::AwaitRollout
            | Self::AwaitSteady
            | Self::BounceEtcd
            | Self::AwaitEtcdSync
            | Self::AwaitEtcdHealthy
            | Self::StartControlPlane
            | Self::BouncePart
            | Self::AwaitControlPlane => None,
        }
    }

    /// It is decided on pods and workloads as they are read for it, and not on caches alone.
    pub const fn wants_case(self) -> bool {
        match self {
            Self::Recreate
            | Self::FinishTermination
            | Self::RaiseMemory
            | Self::AddTolerations
            | Self::RestoreTemplates
            | Self::RolloutRestart
            | Self::AwaitRollout
            | Self::AwaitSteady => true,
            Self::Silence
            | Self::Unsilence
            | Self::Cordon
            | Self::Uncordon
            | Self::Drain
            | Self::DeleteRemaining
            | Self::StopKubelet
            | Self::StartKubelet
            | Self::RestartKubelet
            | Self::AwaitReady
            | Self::TaintOutOfService
            | Self::RemoveTaint
            | Self::AwaitMoved
            | Self::ForceDelete
            | Self::PowerOff
            | Self::Relieve
            | Self::AwaitReclaim
            | Self::AwaitRunning
            | Self::ShortenTolerations
            | Self::AwaitReachable
            | Self::RestoreTolerations
            | Self::AwaitWorkloads
            | Self::SnapshotEtcd
            | Self::BounceEtcd
            | Self::RemoveEtcdMember
            | Self::AddEtcdMember
            | Self::RebuildEtcdMember
            | Self::AwaitEtcdSync
            | Self::PromoteEtcdMember
            | Self::AwaitEtcdHealthy
            | Self::SetInitialCluster
            | Self::FenceEtcd
            | Self::StopControlPlane
            | Self::RestoreEtcd
            | Self::StartControlPlane
            | Self::BouncePart
            | Self::SetEtcdServers
            | Self::AwaitControlPlane => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Runbooks: the chapters of the operators' plan, one file each.
//!
//! ```text
//!  Request ─► observe ─► maintenance, node_down: plan (pure) ─► steps with evidence, refusals, approvals
//!               ▲ World: API caches, agent, silences              │ start: lanes let it
//!               │                                                 ▼
//!               └───────────────── driver, one task a run ◄─── journal (store)
//!                    look (pure): done? what next? what for? ─► intent durable ─► API call, command, silence ─► outcome durable
//! ```
//!
//! Beside [`crate::execute`] and not in it: a cold start is a DAG over thousands of nodes that is decided in one look at the fleet; a
//! runbook is a few steps on one node, some of which call an API server that may take seconds. They share the store, the agents'
//! commands with their epochs, and the lanes.
//!
//! Runbooks on pods and workloads (`pods_heal`, `workload_heal`, `node_component`) are decided on a `case` as well: what is read of them for
//! each look, since caches keep too little. `diagnosis` says what is wrong with it.
//!
//! A step is decided by a look at the world, before and after a crash alike; so a run resumes by looking, and nothing that was done is
//! done again. An abort puts back, last change first, what the journal says that the run may have changed, and says what it leaves.

pub mod action;
pub mod around;
pub mod call;
pub mod conditions;
pub mod control_plane;
mod driver;
pub mod etcd_all;
mod etcd_keeper;
mod etcd_lists;
pub mod etcd_member;
mod etcd_newcomer;
pub mod etcd_quorum;
pub mod etcd_snapshot;
mod handle;
pub mod journal;
mod kept;
pub mod lanes;
pub mod look;
pub mod lost_quorum;
pub mod maintenance;
pub mod network_loss;
pub mod node_down;
mod observe;
pub mod options;
pub mod overload;
pub mod plan;
pub mod pods;
pub mod policy;
mod ports;
pub mod proof;
pub mod readiness;
pub mod record;
mod refusal;
mod shared;
pub mod shortage;
pub mod status;
pub mod trigger;
pub mod verify;
pub mod waiting;
mod watchman;
pub mod weather;
mod work;
pub mod world;

pub mod case;
pub mod declared;
pub mod diagnosis;
pub mod mends;
pub mod node_component;
pub mod pods_heal;
pub mod subject;
pub mod workload_heal;

pub use self::handle::{Runbooks, remembered};
pub use self::ports::Ports;
pub use self::refusal::{OpenError, Refusal};
pub use self::work::Work;

use self::handle::{Told, Word, unix_ms};
use self::plan::{Request, Runbook, RunbookPlan};
use self::shared::Shared;
use self::world::World;

/// One line on each runbook: what it is for, and the chapter of the operators' plan.
pub const fn describe(runbook: Runbook) -> (&'static str, &'static str) {
    match runbook {
        Runbook::Drain => (
            "cordon a node and evict its pods as their budgets allow",
            "硬件维修",
        ),
        Runbook::MaintenanceBegin => (
            "silence a node's agent, cordon and drain it, and stop its kubelet",
            "硬件维修",
        ),
        Runbook::MaintenanceEnd => (
            "start its kubelet, await Ready with a fresh lease, uncordon, end the silence",
            "硬件维修",
        ),
        Runbook::NodeDown => (
            "restart the kubelet of a node that does not answer, or move its pods once it is proved dead",
            "操作系统宕机",
        ),
        Runbook::ResourceShortage => (
            "say why pods find no node and what would help, await that agents give disk space back and that the pods run",
            "节点资源空间不足",
        ),
        Runbook::NetworkLoss => (
            "let the pods of chosen workloads leave a node that its cluster cannot reach, until it is reached again",
            "节点网络异常",
        ),
        Runbook::Overload => (
            "move the heaviest pods of a node away, one after the other, until its load is low",
            "节点负载过高",
        ),
        Runbook::ColdStartVerify => (
            "await that as many pods of each workload are ready as before a power loss, and name what did not start",
            "机房断电",
        ),
        Runbook::PodsHeal => (
            "mend pods that do not run: made again, memory raised, a stuck end finished with proof",
            "Pod 故障恢复",
        ),
        Runbook::WorkloadHeal => (
            "make a workload whole: rolling restart, memory, tolerations, with rollback",
            "GatewayProxy / NSF 故障恢复",
        ),
        Runbook::NodeComponent => (
            "restart a node's kubelet, make its CNI pod again, and verify both",
            "节点组件异常恢复",
        ),
        Runbook::EtcdSnapshot => (
            "have the agents of two masters take a verified snapshot of etcd",
            "etcd 节点故障",
        ),
        Runbook::EtcdMember => (
            "bring an etcd member back in place, or replace it on its node: snapshot, remove, learner, in sync, promote",
            "etcd 节点故障",
        ),
        Runbook::EtcdQuorum => (
            "bring an etcd without a quorum back in place, or restore it from the member that has most, as a cluster of one",
            "etcd 节点故障",
        ),
        Runbook::EtcdAll => (
            "bring an etcd of which no member answers back in place, or restore it from what loses least: data on any master, or a snapshot",
            "etcd 节点故障",
        ),
        Runbook::ControlPlane => (
            "name what is wrong with the static pods of a control plane, and bounce them one at a time; --restart, --etcd-servers",
            "静态 Pod 故障",
        ),
    }
}

/// The plan for a request, from what is known now. Pure.
pub fn plan(request: Request, world: &World) -> RunbookPlan {
    match request.runbook {
        Runbook::Drain => maintenance::drain(request, world),
        Runbook::MaintenanceBegin => maintenance::begin(request, world),
        Runbook::MaintenanceEnd => maintenance::end(request, world),
        Runbook::NodeDown => node_down::plan(request, world),
        Runbook::ResourceShortage => shortage::plan(request, world),
        Runbook::NetworkLoss => network_loss::plan(request, world),
        Runbook::Overload => overload::plan(request, world),
        Runbook::ColdStartVerify => verify::plan(request, world),
        Runbook::PodsHeal => pods_heal::plan(request, world),
        Runbook::WorkloadHeal => workload_heal::plan(request, world),
        Runbook::NodeComponent => node_component::plan(request, world),
        Runbook::EtcdSnapshot => etcd_snapshot::plan(request, world),
        Runbook::EtcdMember => etcd_member::plan(request, world),
        Runbook::EtcdQuorum => etcd_quorum::plan(request, world),
        Runbook::EtcdAll => etcd_all::plan(request, world),
        Runbook::ControlPlane => control_plane::plan(request, world),
    }
}

#[cfg(test)]
mod tests;

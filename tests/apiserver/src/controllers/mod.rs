//! What keeps a cluster going beside its API server, each behind a switch: passes over the world that look at everything again, and
//! do what is due by its clock.

pub mod attach;
pub mod conditions;
mod config;
pub mod containers;
pub mod daemonsets;
pub mod deployments;
pub mod disruption;
pub mod garbage;
pub mod jobs;
pub mod kubelet;
pub mod lifecycle;
pub mod pods;
pub mod replicasets;
pub mod scheduler;
pub mod statefulsets;
pub mod taints;

use crate::world::World;

/// A switch. The disruption controller has none: evictions would hang on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// The kubelets of the machines: heartbeats, and pods that start, fail and end.
    Kubelet,
    /// The scheduler.
    Scheduler,
    /// Heartbeats that stop: conditions, taints, and evictions by taint.
    NodeLifecycle,
    /// Deployments, replica sets, stateful sets, daemon sets, jobs; what quotas count.
    Workloads,
    /// Volume attachments.
    Attach,
    /// Dependents whose owners are gone, namespaces that end, pods that nobody else ends.
    Garbage,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Kubelet,
        Self::Scheduler,
        Self::NodeLifecycle,
        Self::Workloads,
        Self::Attach,
        Self::Garbage,
    ];

    /// Whether there may be something to do although nothing was written since the last pass.
    fn goes_by_time(self) -> bool {
        match self {
            Self::Kubelet | Self::NodeLifecycle | Self::Attach => true,
            Self::Scheduler | Self::Workloads | Self::Garbage => false,
        }
    }

    fn pass(self, world: &mut World) {
        match self {
            Self::Kubelet => kubelet::pass(world),
            Self::Scheduler => scheduler::pass(world),
            Self::NodeLifecycle => {
                lifecycle::pass(world);
                taints::pass(world);
            }
            Self::Workloads => {
                deployments::pass(world);
                replicasets::pass(world);
                statefulsets::pass(world);
                daemonsets::pass(world);
                jobs::pass(world);
                crate::verbs::admission::count(world);
            }
            Self::Attach => attach::pass(world),
            Self::Garbage => garbage::pass(world),
        }
    }
}

/// No more rounds than this at one moment: controllers that undo each other's work must not hang a test.
const ROUNDS: usize = 50;

/// Lets the controllers work until none has anything left to do at this moment.
pub fn settle(world: &mut World) {
    for _ in 0..ROUNDS {
        let before = world.store.revision();
        for controller in world.running.clone() {
            let present = world.store.revision();
            let seen = world.looked_at.insert(controller, present);
            if controller.goes_by_time() || seen != Some(present) {
                controller.pass(world);
            }
        }
        disruption::pass(world);
        if world.store.revision() == before {
            return;
        }
    }
}

//! What operators may tune of runbooks: plain values with their defaults.

use std::time::Duration;

use crate::kubernetes::objects::workload::WorkloadName;
use crate::policy::Trigger;

use super::plan::Runbook;

/// What operators may tune of runbooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunbookPolicy {
    /// With so many nodes of a cluster not well at once…
    pub storm_nodes: usize,
    /// …and so many percent of them, no runbook changes anything in it.
    pub storm_share_percent: u32,
    /// What is done when a condition calls for a runbook.
    pub triggers: Triggers,
    /// A node that is not reached for so long is lost.
    pub lost_for: Duration,
    /// An overload that its agent has told for so long calls for a runbook.
    pub overloaded_for: Duration,
    /// A pod that has no node for so long calls for one.
    pub pending_for: Duration,
    /// In a cold start the members of an etcd have so long to form a quorum from their disks, once all that are waited for are back. A member
    /// that crashed since the others were not there is started again by its kubelet after five minutes at most (`MaxContainerBackOff`), and
    /// then has to read its log.
    pub quorum_chance: Duration,
    /// After a run that did not succeed nothing is begun for the same subject for so long; twice that after the next, and so on.
    pub back_off: Duration,
    /// Whose pods are to leave a node that is not reached, unless an operator names others.
    pub workloads: Vec<WorkloadName>,
    /// So long their pods stay.
    pub tolerate: Duration,
    /// How ready a cluster that is well is, is kept so often.
    pub readiness_every: Duration,
    /// So many workers of a cluster may be in runs of `node-down` at once while a power event is declared.
    pub power_event_workers: usize,
    /// Whether the power of a machine that is not off may be cut, to have proof that it is.
    pub fence: Fence,
}

/// Whether a machine's power may be cut, to have proof that it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// In a plan, once an operator approves of it.
    Propose,
    /// Never.
    Off,
}

/// By runbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// A node that is lost.
    pub node_down: Trigger,
    /// A node that lives and does not reach its cluster.
    pub network_loss: Trigger,
    /// A node that has too much to do.
    pub overload: Trigger,
    /// Pods that have no node.
    pub resource_shortage: Trigger,
    /// A cold start that has ended.
    pub cold_start_verify: Trigger,
    /// An etcd that a cold start waits for in vain. Never by itself.
    pub etcd: Trigger,
}

impl Triggers {
    /// Of one runbook; those that only an operator begins have none.
    pub const fn of(&self, runbook: Runbook) -> Trigger {
        match runbook {
            Runbook::NodeDown => self.node_down,
            Runbook::NetworkLoss => self.network_loss,
            Runbook::Overload => self.overload,
            Runbook::ResourceShortage => self.resource_shortage,
            Runbook::ColdStartVerify => self.cold_start_verify,
            // Data is given up by an operator's word alone.
            Runbook::EtcdMember | Runbook::EtcdQuorum | Runbook::EtcdAll => match self.etcd {
                Trigger::Off => Trigger::Off,
                Trigger::Propose | Trigger::Auto => Trigger::Propose,
            },
            Runbook::Drain
            | Runbook::MaintenanceBegin
            | Runbook::MaintenanceEnd
            | Runbook::PodsHeal
            | Runbook::WorkloadHeal
            | Runbook::NodeComponent
            | Runbook::EtcdSnapshot
            | Runbook::ControlPlane => Trigger::Off,
        }
    }
}

impl Default for RunbookPolicy {
    fn default() -> Self {
        Self {
            storm_nodes: 3,
            storm_share_percent: 20,
            triggers: Triggers {
                node_down: Trigger::Propose,
                network_loss: Trigger::Propose,
                overload: Trigger::Propose,
                resource_shortage: Trigger::Propose,
                // It changes nothing.
                cold_start_verify: Trigger::Auto,
                etcd: Trigger::Propose,
            },
            // What the drill plan waits for services to come back by themselves.
            lost_for: Duration::from_mins(5),
            overloaded_for: Duration::from_mins(5),
            pending_for: Duration::from_mins(10),
            quorum_chance: Duration::from_mins(6),
            back_off: Duration::from_mins(30),
            workloads: Vec::new(),
            tolerate: Duration::from_secs(3),
            readiness_every: Duration::from_mins(10),
            power_event_workers: 20,
            fence: Fence::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_data_up_never_begins_by_itself() {
        let triggers = |etcd| Triggers {
            etcd,
            ..RunbookPolicy::default().triggers
        };
        for runbook in [Runbook::EtcdMember, Runbook::EtcdQuorum, Runbook::EtcdAll] {
            for (said, expected) in [
                (Trigger::Auto, Trigger::Propose),
                (Trigger::Propose, Trigger::Propose),
                (Trigger::Off, Trigger::Off),
            ] {
                assert_eq!(triggers(said).of(runbook), expected, "{runbook} {said:?}");
            }
        }
        assert_eq!(triggers(Trigger::Auto).of(Runbook::EtcdSnapshot), Trigger::Off);
    }
}

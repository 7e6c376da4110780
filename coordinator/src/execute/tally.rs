//! How nodes stand, and whether a gate's evidence is there. Pure.
//!
//! Only what an agent attests in a present session, and attested lately, counts: after a power event old state is the state of machines
//! that no longer exist.

use std::time::Duration;

use tokio::time::Instant;

use super::waiting::{NAMED, Stand, WaitingOn};
use crate::fleet::view::{FleetView, GateState, Phase};
use crate::inventory::{ClusterName, NodeName};

/// How a node stands now.
pub fn stand(view: &FleetView, node: &NodeName, now: Instant, fresh: Duration) -> Stand {
    let Some(node) = view.nodes.get(node) else {
        return Stand::NotBack(Phase::Unknown);
    };
    let Some(word) = node.attestation.as_ref().filter(|_| node.in_session) else {
        return Stand::NotBack(node.phase);
    };
    if now.saturating_duration_since(word.observed_at) > fresh {
        Stand::Stale
    } else if word.gate == GateState::Held {
        Stand::Held
    } else if !word.kubelet_healthy {
        Stand::KubeletNotHealthy(word.gate)
    } else if word.apiserver_ready {
        Stand::ApiServerReady(word.gate)
    } else {
        Stand::KubeletHealthy(word.gate)
    }
}

/// Those of a gate's candidates that attest what it takes, and the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What is counted.
    pub of: Of,
    /// Whose.
    pub cluster: ClusterName,
    /// So many it takes.
    pub need: usize,
    /// Those that attest it.
    pub have: Vec<NodeName>,
    /// Those that do not.
    pub missing: Vec<(NodeName, Stand)>,
}

/// What a gate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Masters with a healthy kubelet and a ready API server.
    Masters,
    /// Workers with a healthy kubelet.
    Workers,
    /// Nodes with a healthy kubelet.
    Kubelets,
}

impl Tally {
    /// Counts the candidates of a gate, each standing as `stand` says.
    pub fn count(
        of: Of,
        cluster: &ClusterName,
        need: usize,
        candidates: &[NodeName],
        stand: impl Fn(&NodeName) -> Stand,
    ) -> Self {
        let mut tally = Self {
            of,
            cluster: cluster.clone(),
            need,
            have: Vec::new(),
            missing: Vec::new(),
        };
        for node in candidates {
            let stand = stand(node);
            let counts = match stand {
                Stand::ApiServerReady(_) => true,
                Stand::KubeletHealthy(_) => of != Of::Masters,
                Stand::NotBack(_) | Stand::Stale | Stand::Held | Stand::KubeletNotHealthy(_) => false,
            };
            if counts {
                tally.have.push(node.clone());
            } else {
                tally.missing.push((node.clone(), stand));
            }
        }
        tally
    }

    /// There is enough of it.
    pub const fn passes(&self) -> bool {
        self.have.len() >= self.need
    }

    /// What it passes on, for people.
    pub fn evidence(&self) -> String {
        let of = self.have.len() + self.missing.len();
        let what = match self.of {
            Of::Masters => "masters attest a healthy kubelet and a ready API server",
            Of::Workers if of == 0 => return "has no workers; its control plane serves".to_owned(),
            Of::Workers => "workers attest a healthy kubelet",
            Of::Kubelets => "nodes attest a healthy kubelet",
        };
        let some: Vec<_> = self.have.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match self.have.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = if some.is_empty() {
            String::new()
        } else {
            format!(": {}{more}", some.join(", "))
        };
        format!("{} of {of} {what} ({} needed){names}", self.have.len(), self.need)
    }

    /// What is missing.
    pub fn waiting_on(&self) -> WaitingOn {
        let (cluster, have, need) = (self.cluster.clone(), self.have.len(), self.need);
        let missing = self.missing.clone();
        match self.of {
            Of::Masters => WaitingOn::ControlPlane {
                cluster,
                have,
                need,
                missing,
                etcd: None,
            },
            Of::Workers => WaitingOn::Serving {
                cluster,
                have,
                need,
                missing,
            },
            Of::Kubelets => WaitingOn::Kubelets {
                cluster,
                have,
                need,
                missing,
            },
        }
    }
}

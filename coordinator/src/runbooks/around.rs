//! What is known beyond one node, for the runbooks that need it: room in the whole cluster, usage, workloads, power events.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::readiness::Readiness;
use crate::fleet::message::HeavyPod;
use crate::inventory::NodeName;
use crate::kubernetes::asked::{Sample, Told, Usage};
use crate::kubernetes::objects::workload::Workload;
use crate::kubernetes::view::{Controllers, Room};

/// See the module. What a runbook does not need is not looked at.
#[derive(Debug, Clone)]
pub struct Around {
    /// What tells of a power event in its cluster, if it is in one.
    pub power_event: Option<String>,
    /// What the node's agent finds wrong, by kind.
    pub conditions: BTreeMap<String, Finding>,
    /// Nodes of the cluster whose disks are short.
    pub pressed: Vec<Pressed>,
    /// What its nodes have and carry, or why that is not known.
    pub room: Result<Room, String>,
    /// Its workloads.
    pub workloads: Told<Vec<Workload>>,
    /// What nodes and pods use.
    pub usage: Told<Usage>,
    /// What the node used lately.
    pub samples: Vec<Sample>,
    /// How ready the cluster was in better days.
    pub before: Option<Readiness>,
    /// The other nodes of its cluster.
    pub neighbours: Neighbours,
}

/// A condition that an agent has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Since when it stands.
    pub since: Instant,
    /// What was seen.
    pub evidence: String,
    /// Why nothing is done about it at present; empty when something is.
    pub waiting_on: String,
    /// Of an overload: the pods that weigh most, by the agent's figures; none from older agents.
    pub heaviest: Vec<HeavyPod>,
}

/// A node whose disk is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pressed {
    /// Which.
    pub node: NodeName,
    /// Its agent is in session.
    pub speaks: bool,
    /// Its agent mends nothing, by this one's word.
    pub silenced_by: Option<String>,
    /// What its agent, or its kubelet, says.
    pub words: String,
}

/// The other nodes of a cluster, by their agents' sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// All of them.
    pub all: usize,
    /// In session.
    pub heard: usize,
    /// Those of the same rack, where racks are declared.
    pub in_rack: usize,
    /// In session, of the same rack.
    pub heard_in_rack: usize,
}

impl Default for Around {
    fn default() -> Self {
        Self {
            power_event: None,
            conditions: BTreeMap::new(),
            pressed: Vec::new(),
            room: Err("it was not looked at".to_owned()),
            workloads: Told::default(),
            usage: Told::default(),
            samples: Vec::new(),
            before: None,
            neighbours: Neighbours::default(),
        }
    }
}

impl Around {
    /// How the pods of each controller are; none where that is not known.
    pub fn controllers(&self) -> Option<&Controllers> {
        self.room.as_ref().ok().map(|room| &room.controllers)
    }
}

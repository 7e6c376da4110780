//! Holds and storms as they stand in JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::Resource;

/// An operator's word that remedies are not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hold {
    /// `node`, `cluster`, `fleet`, or `local`: made on the node itself.
    pub(crate) scope: &'static str,
    /// The node or cluster.
    pub(crate) target: Option<String>,
    /// `null`: every one.
    pub(crate) remedy: Option<String>,
    pub(crate) silence: bool,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) made_at: Option<Timestamp>,
    /// `null`: until it is lifted.
    pub(crate) ends_in_ms: Option<u64>,
}

impl Hold {
    /// What is held, for people.
    pub(crate) fn what(&self) -> &str {
        match &self.remedy {
            _ if self.silence => "silence",
            Some(remedy) => remedy,
            None => "every remedy",
        }
    }
}

impl Resource for Hold {
    const KIND: &'static str = "Hold";
    const NOUN: &'static str = "hold";

    fn key(&self) -> String {
        let target = self.target.as_deref().unwrap_or_default();
        format!("{}/{target}/{}", self.scope, self.what())
    }

    fn settled(&self) -> Self {
        Self {
            ends_in_ms: self.ends_in_ms.map(|_| 0),
            ..self.clone()
        }
    }
}

/// A condition that is frozen across a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Storm {
    pub(crate) cluster: String,
    pub(crate) condition: String,
    pub(crate) frozen_ms: u64,
    /// It thaws below half of this.
    pub(crate) threshold: u32,
    /// So many nodes have it now.
    pub(crate) standing: u32,
    pub(crate) evidence: String,
}

impl Resource for Storm {
    const KIND: &'static str = "Storm";
    const NOUN: &'static str = "storm";

    fn key(&self) -> String {
        format!("{}/{}", self.cluster, self.condition)
    }

    fn settled(&self) -> Self {
        Self {
            frozen_ms: 0,
            ..self.clone()
        }
    }
}

/// A freeze as a node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Freeze {
    pub(crate) condition: String,
    pub(crate) why: String,
}

//! Why something was not done.

use super::lanes;
use super::plan::Runbook;
use crate::inventory::{ClusterName, NodeName};
use crate::store::StoreError;

/// Why something that was asked of a runbook was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node is not declared.
    #[error("node {0} is not in the inventory")]
    UnknownNode(NodeName),
    /// The cluster is not declared.
    #[error("cluster {0} is not in the inventory")]
    UnknownCluster(ClusterName),
    /// There is no such pod.
    #[error("there is no {0}")]
    UnknownPod(String),
    /// What it is about could not be read.
    #[error("{0}")]
    Read(String),
    /// There is no such run.
    #[error("there is no run {0}; `blackstart runbook status` lists them")]
    UnknownRun(String),
    /// The plan has nothing to do; each line says what is missing.
    #[error("refused: {}", .0.join("; "))]
    Plan(Vec<String>),
    /// Somebody else is at work there.
    #[error(transparent)]
    Lane(#[from] lanes::Busy),
    /// Neither the node nor the cluster that it is to be about is declared.
    #[error(
        "neither node {node:?} nor cluster {cluster:?} is in the inventory, or {runbook} is about a node and none is named"
    )]
    UnknownSubject {
        /// Which runbook.
        runbook: Runbook,
        /// As it was asked for.
        node: String,
        /// As it was asked for.
        cluster: String,
    },
    /// Too much of the cluster is not well at once.
    #[error(
        "{why}: it is not the node, and runbooks change nothing until it is better or a power event is declared; if you know why, say --despite-storm"
    )]
    Storm {
        /// What is not well.
        why: String,
    },
    /// There is one already.
    #[error("run {0} is about the same already")]
    Open(String),
    /// What waits for approval is not what was shown to whoever approves.
    #[error(
        "what waits for approval in run {run} is {waits}, not {named}; see what it is: `blackstart runbook status {run}`"
    )]
    Asks {
        /// The run's id.
        run: String,
        /// What waits.
        waits: String,
        /// What was named.
        named: String,
    },
    /// The run has ended, or nothing of it waits for this word.
    #[error("{0}")]
    State(String),
    /// The journal could not be written, so it was not done. Safe to ask again.
    #[error("the journal could not be written: {0}")]
    Journal(String),
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down")]
    Stopping,
}

/// A journal that cannot be replayed. It was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is damaged, or of another version.
    #[error(
        "replay entry {index} of the journal of run {run}: {why}; it was written by another version or is damaged: start the version \
         that wrote it, or restore the store from a backup"
    )]
    Journal {
        /// Whose.
        run: String,
        /// Which entry, counted from 0.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
}

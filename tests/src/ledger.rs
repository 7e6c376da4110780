//! What a node's agent did, by its own ledger.

use anyhow::Context;
use serde::Deserialize;

use crate::node::Node;

/// One remedy that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// `restart-unit`, `release-kubelet`, …
    pub remedy: String,
    /// What it was done to.
    pub subject: String,
    /// Why it was done.
    pub reason: String,
    /// The coordinator's command it answers, if any.
    pub command_id: Option<String>,
    /// Did it succeed? `None` while it is under way.
    pub succeeded: Option<bool>,
    /// How it ended.
    pub detail: String,
    /// Which boot it was done in.
    pub boot: String,
    /// When it was begun, by the node's wall clock, milliseconds since 1970.
    pub begun_unix_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Contents {
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Record {
    intent: Intent,
    outcome: Option<Outcome>,
    boot: String,
    at_unix_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Intent {
    remedy: String,
    subject: String,
    reason: String,
    command_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Succeeded { detail: String },
    Failed { detail: String },
}

impl Node {
    /// Everything its agent did, oldest first.
    ///
    /// # Errors
    /// It has no power, no agent, or no ledger yet.
    pub async fn ledger(&self) -> anyhow::Result<Vec<Deed>> {
        let text = self
            .exec(&["blackstart-agent", "ledger", "show", "--output=json"])
            .await?;
        let contents: Contents = serde_json::from_str(&text)
            .with_context(|| format!("read the ledger of node {}", self.name()))?;
        Ok(contents.records.into_iter().map(Deed::from).collect())
    }
}

impl From<Record> for Deed {
    fn from(record: Record) -> Self {
        let (succeeded, detail) = match record.outcome {
            None => (None, String::new()),
            Some(Outcome::Succeeded { detail }) => (Some(true), detail),
            Some(Outcome::Failed { detail }) => (Some(false), detail),
        };
        Self {
            remedy: record.intent.remedy,
            subject: record.intent.subject,
            reason: record.intent.reason,
            command_id: record.intent.command_id,
            succeeded,
            detail,
            boot: record.boot,
            begun_unix_ms: record.at_unix_ms,
        }
    }
}

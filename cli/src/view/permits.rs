//! Permits as they stand in JSON.

use serde::Serialize;

use super::Resource;

/// How a permit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PermitState {
    Granted,
    Waiting,
}

impl PermitState {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Granted => "Granted",
            Self::Waiting => "Waiting",
        }
    }
}

/// A permit for a disruptive action, or a request for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Permit {
    pub(crate) node: String,
    pub(crate) cluster: Option<String>,
    /// `control-plane` or `workers`: what goes in turn with it.
    pub(crate) lane: Option<String>,
    /// `control-plane-repair`, `runtime-restart` or `reboot`.
    #[serde(rename = "permit")]
    pub(crate) what: String,
    pub(crate) subject: String,
    pub(crate) state: PermitState,
    /// So long it has stood, or has been waited for.
    pub(crate) age_ms: u64,
    /// After this it is looked into; `null`: that is due, or it is only waited for.
    pub(crate) term_left_ms: Option<u64>,
    pub(crate) waiting_on: Option<String>,
    /// `agent` or `fleetlock`.
    pub(crate) asked_by: String,
    /// In which it was granted.
    pub(crate) epoch: Option<u64>,
    pub(crate) reason: String,
}

impl Resource for Permit {
    const KIND: &'static str = "Permit";
    const NOUN: &'static str = "permit";

    fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.node, self.what, self.subject, self.asked_by)
    }

    fn settled(&self) -> Self {
        Self {
            age_ms: 0,
            term_left_ms: self.term_left_ms.map(|_| 0),
            ..self.clone()
        }
    }
}

//! The three patches of the API
//! (<https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>).

pub(crate) mod json_patch;
pub(crate) mod merge;
pub(crate) mod strategic;

use crate::refusal::Refusal;
use serde_json::Value;

/// Which patch a body is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, which knows lists with keys.
    Strategic,
}

impl Kind {
    /// Reads a content type. Server-side apply is not served, as before 1.16.
    pub(crate) fn parse(content_type: &str) -> Result<Self, Refusal> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(Refusal::unsupported_patch()),
        }
    }

    /// `original` with the patch applied.
    pub(crate) fn apply(self, original: &Value, patch: &Value) -> Result<Value, Refusal> {
        let mut patched = original.clone();
        match self {
            Self::Json => json_patch::apply(&mut patched, patch)?,
            Self::Merge => merge::apply(&mut patched, patch),
            Self::Strategic => strategic::apply(&mut patched, patch)?,
        }
        Ok(patched)
    }
}

//! What the stand-in takes of a static pod's manifest.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// A pod, as far as it is run here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// From the polite stop to the other one.
    pub(crate) grace: Duration,
    pub(crate) containers: Vec<Container>,
}

/// One process of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<Variable>,
    pub(crate) working_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) value: String,
}

#[derive(Debug, Deserialize)]
struct Written {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    containers: Vec<Container>,
    termination_grace_period_seconds: Option<u64>,
}

impl Pod {
    /// Reads a manifest. Volumes need no reading: a process sees the host's paths as they are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let names = written.spec.containers.iter().map(|container| &container.name);
        if let Some(name) = names
            .chain([&written.metadata.name])
            .find(|name| name.is_empty() || name.contains('/') || name.starts_with('.'))
        {
            return Err(format!("{name:?} is no name"));
        }
        for container in &written.spec.containers {
            if container.command.is_empty() {
                return Err(format!(
                    "container {} has no command, and here is no image that has one",
                    container.name
                ));
            }
        }
        let grace = written.spec.termination_grace_period_seconds.unwrap_or(30);
        Ok(Self {
            name: written.metadata.name,
            grace: Duration::from_secs(grace),
            containers: written.spec.containers,
        })
    }

    /// Tells whether a process that an earlier kubelet started is one of this pod as it is now.
    pub(crate) fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

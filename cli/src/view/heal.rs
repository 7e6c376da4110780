//! Diagnoses of pods, and declared workloads, as they stand in JSON.

use blackstart_proto::v1;
use serde::Serialize;

use super::Resource;
use super::convert::given;

/// What is wrong with a pod, or with a workload whose pods cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PodDiagnosis {
    /// `Pod`, `ReplicaSet`, ...
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    /// Who makes it again.
    pub(crate) controller: Option<String>,
    pub(crate) state: String,
    pub(crate) restarts: u64,
    /// The most telling first.
    pub(crate) findings: Vec<PodFinding>,
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PodFinding {
    pub(crate) cause: String,
    pub(crate) container: Option<String>,
    pub(crate) evidence: Vec<String>,
    /// What to do about it.
    pub(crate) advice: String,
}

/// A declared workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) desired: u64,
    pub(crate) updated: u64,
    pub(crate) available: u64,
    pub(crate) restarts: u64,
    /// As many as wanted, of the newest template.
    pub(crate) whole: bool,
    /// A change of Blackstart's stands in its template.
    pub(crate) changed: bool,
    /// Why it is not known.
    pub(crate) trouble: Option<String>,
}

impl Resource for PodDiagnosis {
    const KIND: &'static str = "PodDiagnosis";
    const NOUN: &'static str = "pod";

    fn key(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

impl Resource for Workload {
    const KIND: &'static str = "Workload";
    const NOUN: &'static str = "workload";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn settled(&self) -> Self {
        self.clone()
    }
}

impl From<v1::PodDiagnosis> for PodDiagnosis {
    fn from(wire: v1::PodDiagnosis) -> Self {
        let findings = wire.findings.into_iter().map(|finding| PodFinding {
            cause: finding.cause,
            container: given(finding.container),
            evidence: finding.evidence,
            advice: finding.advice,
        });
        Self {
            findings: findings.collect(),
            kind: wire.kind,
            namespace: wire.namespace,
            name: wire.name,
            node: given(wire.node),
            controller: given(wire.controller),
            state: wire.state,
            restarts: wire.restarts,
        }
    }
}

impl From<v1::WorkloadState> for Workload {
    fn from(wire: v1::WorkloadState) -> Self {
        Self {
            name: wire.name,
            cluster: wire.cluster,
            namespace: wire.namespace,
            kind: wire.kind,
            object: wire.object,
            desired: wire.desired,
            updated: wire.updated,
            available: wire.available,
            restarts: wire.restarts,
            whole: wire.whole,
            changed: wire.changed,
            trouble: given(wire.trouble),
        }
    }
}

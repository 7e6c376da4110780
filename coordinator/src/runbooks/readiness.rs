//! How many pods of each workload are ready: kept from better days, and compared with after a power event. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::kubernetes::objects::workload::{Workload, WorkloadName};

/// So many workloads are named in a sentence.
const NAMED: usize = 12;

/// How ready a cluster was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Wall clock when it was taken, milliseconds since the Unix epoch; for people.
    pub taken_unix_ms: u64,
    /// Every workload that wanted a pod.
    pub workloads: Vec<Ready>,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Which.
    pub workload: WorkloadName,
    /// So many pods it wanted.
    pub desired: u64,
    /// So many were ready.
    pub ready: u64,
}

/// How a cluster stands beside better days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By namespace: ready now, and ready then of what is still wanted.
    pub namespaces: BTreeMap<String, (u64, u64)>,
    /// Workloads that have fewer ready pods than then, though they want them.
    pub missing: Vec<Missing>,
    /// Workloads that are not there any more: somebody deleted them.
    pub gone: Vec<WorkloadName>,
}

/// A workload that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub workload: WorkloadName,
    /// So many pods of it are ready.
    pub ready: u64,
    /// So many are to be.
    pub wanted: u64,
}

impl Readiness {
    /// Of these workloads.
    pub fn of(workloads: &[Workload], taken_unix_ms: u64) -> Self {
        let wanted = workloads.iter().filter(|workload| workload.desired > 0);
        Self {
            taken_unix_ms,
            workloads: wanted
                .map(|workload| Ready {
                    workload: workload.name.clone(),
                    desired: workload.desired,
                    ready: workload.ready,
                })
                .collect(),
        }
    }

    /// Compares with how it is now. What was not ready then is not expected now, nor what is not wanted any more.
    pub fn compare(&self, now: &[Workload]) -> Comparison {
        let now: BTreeMap<_, _> = now.iter().map(|workload| (&workload.name, workload)).collect();
        let mut to = Comparison::default();
        for then in &self.workloads {
            let Some(now) = now.get(&then.workload) else {
                to.gone.push(then.workload.clone());
                continue;
            };
            let wanted = then.ready.min(now.desired);
            let space = to
                .namespaces
                .entry(then.workload.key.namespace.clone())
                .or_default();
            space.0 += now.ready.min(wanted);
            space.1 += wanted;
            if now.ready < wanted {
                to.missing.push(Missing {
                    workload: then.workload.clone(),
                    ready: now.ready,
                    wanted,
                });
            }
        }
        to
    }

    /// Namespaces and pods, for people.
    pub fn words(&self) -> String {
        let ready: u64 = self.workloads.iter().map(|one| one.ready).sum();
        let desired: u64 = self.workloads.iter().map(|one| one.desired).sum();
        let spaces: std::collections::BTreeSet<_> = self
            .workloads
            .iter()
            .map(|one| &one.workload.key.namespace)
            .collect();
        format!(
            "{ready} of {desired} pods of {} workloads in {} namespaces",
            self.workloads.len(),
            spaces.len()
        )
    }
}

impl Comparison {
    /// `default 3/3, gateway-system 1/2`.
    pub fn spaces(&self) -> String {
        let spaces = self.namespaces.iter();
        let spaces: Vec<_> = spaces
            .map(|(space, (ready, wanted))| format!("{space} {ready}/{wanted}"))
            .collect();
        spaces.join(", ")
    }

    /// What did not start, by name.
    pub fn words(&self) -> String {
        let mut text = String::new();
        for (at, one) in self.missing.iter().take(NAMED).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{} {}/{} ready", one.workload, one.ready, one.wanted);
        }
        if self.missing.len() > NAMED {
            let _ = write!(text, " and {} more", self.missing.len() - NAMED);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::objects::workload::WorkloadKind;

    fn workload(name: &str, replicas: u64, ready: u64) -> Workload {
        let item = json!({"metadata": {"name": name, "namespace": "biz"}, "spec": {"replicas": replicas},
            "status": {"readyReplicas": ready}});
        Workload::read(WorkloadKind::Deployment, &item).unwrap()
    }

    #[test]
    fn only_what_was_ready_and_is_still_wanted_is_missed() {
        let then = Readiness::of(
            &[
                workload("web", 3, 3),
                workload("sick", 2, 0),
                workload("small", 4, 4),
                workload("old", 1, 1),
                workload("off", 0, 0),
            ],
            7,
        );
        let again: Readiness = serde_json::from_str(&serde_json::to_string(&then).unwrap()).unwrap();
        assert_eq!(again, then);
        let compared = then.compare(&[
            workload("web", 3, 1),
            workload("sick", 2, 0),
            workload("small", 2, 2),
        ]);
        assert_eq!(compared.words(), "biz/deployment/web 1/3 ready");
        assert_eq!(compared.spaces(), "biz 3/5");
        assert_eq!(compared.gone.len(), 1);
        assert_eq!(then.words(), "8 of 10 pods of 4 workloads in 1 namespaces");
    }
}

//! Diagnoses of pods and declared workloads for people.

use jiff::Timestamp;

use super::lists::Listed;
use super::table::{Cell, Tint};
use crate::view::{PodDiagnosis, Workload};

impl Listed for PodDiagnosis {
    const PLURAL: &'static str = "pods with something wrong";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAMESPACE", "NAME", "STATE", "RESTARTS", "CAUSE", "WHAT TO DO"];
        if wide {
            header.extend(["NODE", "MADE BY", "EVIDENCE"]);
        }
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let optional = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
        let first = self.findings.first();
        let causes: Vec<_> = self
            .findings
            .iter()
            .map(|finding| finding.cause.as_str())
            .collect();
        let name = if self.kind == "Pod" {
            self.name.clone()
        } else {
            format!("{}/{}", self.kind.to_lowercase(), self.name)
        };
        let mut row = vec![
            self.namespace.as_str().into(),
            name.into(),
            Cell::tinted(self.state.as_str(), Tint::Bad),
            self.restarts.to_string().into(),
            if causes.is_empty() {
                "-".into()
            } else {
                causes.join(", ").into()
            },
            Cell::new(first.map_or("kubectl describe tells more", |finding| finding.advice.as_str())),
        ];
        if wide {
            let evidence: Vec<_> = self
                .findings
                .iter()
                .flat_map(|finding| &finding.evidence)
                .cloned()
                .collect();
            row.extend([
                optional(&self.node),
                optional(&self.controller),
                evidence.join("; ").into(),
            ]);
        }
        row
    }
}

impl Listed for Workload {
    const PLURAL: &'static str = "workloads";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "CLUSTER", "AVAILABLE", "UPDATED", "RESTARTS", "STATE"];
        if wide {
            header.extend(["NAMESPACE", "KIND", "OBJECT"]);
        }
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let (state, tint) = match (&self.trouble, self.whole) {
            (Some(trouble), _) => (trouble.clone(), Tint::Warning),
            (None, false) => ("not whole".to_owned(), Tint::Bad),
            (None, true) if self.changed => ("whole; changed by Blackstart".to_owned(), Tint::Good),
            (None, true) => ("whole".to_owned(), Tint::Good),
        };
        let mut row = vec![
            self.name.as_str().into(),
            self.cluster.as_str().into(),
            format!("{}/{}", self.available, self.desired).into(),
            self.updated.to_string().into(),
            self.restarts.to_string().into(),
            Cell::tinted(state, tint),
        ];
        if wide {
            row.extend([
                self.namespace.as_str().into(),
                self.kind.as_str().into(),
                self.object.as_str().into(),
            ]);
        }
        row
    }
}

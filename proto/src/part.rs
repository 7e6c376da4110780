//! The parts of a control plane that run as static pods beside etcd, and can be bounced by a run.
//!
//! A closed list, as [`crate::component`] is: nothing else on a node can be named. etcd has runbooks of its own, since it has data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::v1;

/// A part of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// `kube-apiserver`: the others do nothing without it, so it is the first to be mended.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
}

impl Part {
    /// All of them, in the order in which they are mended.
    pub const ALL: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// The name of its static pod, as kubeadm gives it.
    pub const fn pod(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// As an operator types it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::ApiServer => "API server",
            Self::ControllerManager => "controller manager",
            Self::Scheduler => "scheduler",
        }
    }

    /// The part of this static pod.
    pub fn of_pod(pod: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.pod() == pod)
    }

    /// The part that an operator names, by either name.
    pub fn named(name: &str) -> Option<Self> {
        let of = |part: &Self| part.as_str() == name || part.pod() == name;
        Self::ALL.into_iter().find(of)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pod())
    }
}

impl From<Part> for v1::ControlPlanePart {
    fn from(part: Part) -> Self {
        match part {
            Part::ApiServer => Self::ApiServer,
            Part::ControllerManager => Self::ControllerManager,
            Part::Scheduler => Self::Scheduler,
        }
    }
}

/// The part that the wire names; `None` if it names none that this version knows.
pub fn from_wire(part: v1::ControlPlanePart) -> Option<Part> {
    match part {
        v1::ControlPlanePart::Unspecified => None,
        v1::ControlPlanePart::ApiServer => Some(Part::ApiServer),
        v1::ControlPlanePart::ControllerManager => Some(Part::ControllerManager),
        v1::ControlPlanePart::Scheduler => Some(Part::Scheduler),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_the_name_of_its_pod_by_that_of_an_operator_and_on_the_wire() {
        for part in Part::ALL {
            assert_eq!(Part::named(part.pod()), Some(part));
            assert_eq!(Part::named(part.as_str()), Some(part));
            assert_eq!(from_wire(part.into()), Some(part));
        }
        assert_eq!(Part::named("etcd"), None, "it has runbooks of its own");
        assert_eq!(from_wire(v1::ControlPlanePart::Unspecified), None);
    }
}

//! The parts of a control plane that are set aside in a cold start, and where their manifests are.
//!
//! A closed list: nobody can ask an agent to move the manifest of etcd or of the API server out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::v1;

/// A component that acts on its cluster, and that the cluster can do without for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `kube-controller-manager`: evicts the pods of nodes whose leases are old.
    ControllerManager,
    /// `kube-scheduler`: puts what was evicted onto the nodes that happen to be there.
    Scheduler,
}

impl Component {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::ControllerManager, Self::Scheduler];

    /// The name of its static pod, as kubeadm gives it.
    pub const fn pod(self) -> &'static str {
        match self {
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// The component of this static pod.
    pub fn of_pod(pod: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|component| component.pod() == pod)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pod())
    }
}

/// Where the manifest of a component is on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestState {
    /// The agent has not looked yet, or cannot.
    Unknown,
    /// There is none: the component does not run here, or not as a static pod.
    Absent,
    /// Where the kubelet looks.
    InPlace,
    /// Out, by the coordinator's word.
    SetAside,
}

impl ManifestState {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Absent => "absent",
            Self::InPlace => "in place",
            Self::SetAside => "set aside",
        }
    }
}

impl fmt::Display for ManifestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the manifests of a node are; a component that is missing is not told of.
pub type Manifests = BTreeMap<Component, ManifestState>;

impl From<Component> for v1::Component {
    fn from(component: Component) -> Self {
        match component {
            Component::ControllerManager => Self::ControllerManager,
            Component::Scheduler => Self::Scheduler,
        }
    }
}

/// The component that the wire names; `None` if it names none that this version knows.
pub fn from_wire(component: v1::Component) -> Option<Component> {
    match component {
        v1::Component::Unspecified => None,
        v1::Component::ControllerManager => Some(Component::ControllerManager),
        v1::Component::Scheduler => Some(Component::Scheduler),
    }
}

/// For the wire.
pub fn manifests_to_wire(manifests: &Manifests) -> Vec<v1::ManifestStatus> {
    let status = |(component, state): (&Component, &ManifestState)| v1::ManifestStatus {
        component: v1::Component::from(*component).into(),
        state: match state {
            ManifestState::Unknown => v1::ManifestState::Unspecified,
            ManifestState::Absent => v1::ManifestState::Absent,
            ManifestState::InPlace => v1::ManifestState::InPlace,
            ManifestState::SetAside => v1::ManifestState::SetAside,
        }
        .into(),
    };
    manifests.iter().map(status).collect()
}

/// From the wire. What this version does not know is left out.
pub fn manifests_from_wire(manifests: &[v1::ManifestStatus]) -> Manifests {
    let status = |wire: &v1::ManifestStatus| {
        let state = match wire.state() {
            v1::ManifestState::Unspecified => ManifestState::Unknown,
            v1::ManifestState::Absent => ManifestState::Absent,
            v1::ManifestState::InPlace => ManifestState::InPlace,
            v1::ManifestState::SetAside => ManifestState::SetAside,
        };
        Some((from_wire(wire.component())?, state))
    };
    manifests.iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_manifests_is_what_is_heard() {
        let told: Manifests = [
            (Component::ControllerManager, ManifestState::SetAside),
            (Component::Scheduler, ManifestState::Unknown),
        ]
        .into();
        assert_eq!(manifests_from_wire(&manifests_to_wire(&told)), told);
        let mut later = manifests_to_wire(&told);
        later[0].component = 77;
        assert_eq!(manifests_from_wire(&later).len(), 1, "of a later version");
        assert_eq!(Component::of_pod("etcd"), None);
    }
}

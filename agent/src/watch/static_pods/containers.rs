//! Whether the containers of static pods run, by docker's own list.
//!
//! A static pod's name in the runtime is that of its manifest with the node's behind it, as the kubelet knows the node. Its uid is a
//! digest of the manifest, so it has no dashes, which tells it from a pod of the API server's of a similar name.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptions;
use tokio::time::timeout;
use tracing::debug;

use super::manifest::Manifest;
use crate::signal::PodContainers;
use crate::watch::runtime::docker;

const POD: &str = "io.kubernetes.pod.name";
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const UID: &str = "io.kubernetes.pod.uid";
const CONTAINER: &str = "io.kubernetes.container.name";

/// A pod's container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    pod: String,
    namespace: String,
    container: String,
}

/// All containers of static pods that run now; `None` when nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Containers(Option<Vec<Running>>);

impl Containers {
    /// Asks docker, if it is there.
    pub(crate) async fn look(socket: &Path, deadline: Duration) -> Self {
        if !socket.try_exists().unwrap_or(false) {
            return Self(None);
        }
        let asked = async {
            let client = docker::connect(socket, deadline)?;
            let filters = HashMap::from([("label".to_owned(), vec![CONTAINER.to_owned()])]);
            client
                .list_containers(Some(ListContainersOptions {
                    filters: Some(filters),
                    ..ListContainersOptions::default()
                }))
                .await
        };
        let found = match timeout(deadline, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                debug!(
                    why = docker::explain(&error),
                    "docker does not tell its containers"
                );
                return Self(None);
            }
            Err(_) => return Self(None),
        };
        Self::told(found)
    }

    /// By docker's list of them.
    pub(crate) fn told(found: Vec<ContainerSummary>) -> Self {
        let labels = found.into_iter().filter_map(|container| container.labels);
        Self(Some(
            labels.filter_map(|labels| Running::by_labels(&labels)).collect(),
        ))
    }

    /// Whether those of `manifest` run. `others` are the names of all static pods here, of which one may begin like another.
    pub(crate) fn of(&self, manifest: &Manifest, others: &[&str]) -> PodContainers {
        let Some(running) = &self.0 else {
            return PodContainers::Unknown;
        };
        let runs = |name: &&String| {
            running
                .iter()
                .any(|one| one.container == **name && one.is_of(manifest, others))
        };
        let not: Vec<_> = manifest
            .containers
            .iter()
            .filter(|name| !runs(name))
            .cloned()
            .collect();
        if not.is_empty() {
            PodContainers::Running
        } else {
            PodContainers::NotRunning(not)
        }
    }

    /// Any container of `manifest` still runs; `None` when nobody can tell.
    pub(crate) fn any_of(&self, manifest: &Manifest, others: &[&str]) -> Option<bool> {
        let running = self.0.as_ref()?;
        Some(running.iter().any(|one| one.is_of(manifest, others)))
    }
}

impl Running {
    fn by_labels(labels: &HashMap<String, String>) -> Option<Self> {
        if labels.get(UID).is_none_or(|uid| uid.contains('-')) {
            return None;
        }
        let container = labels.get(CONTAINER)?;
        // The pod's own: of a runtime that gives it a name at all.
        if container == "POD" {
            return None;
        }
        Some(Self {
            pod: labels.get(POD)?.clone(),
            namespace: labels.get(NAMESPACE)?.clone(),
            container: container.clone(),
        })
    }

    fn is_of(&self, manifest: &Manifest, others: &[&str]) -> bool {
        let begins_with = |name: &str| {
            self.pod
                .strip_prefix(name)
                .is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'))
        };
        self.namespace == manifest.namespace
            && begins_with(&manifest.name)
            && !others
                .iter()
                .any(|other| other.len() > manifest.name.len() && begins_with(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> Manifest {
        let text = format!(
            "kind: Pod\nmetadata: {{name: {name}, namespace: kube-system}}\nspec: {{containers: [{{name: main}}]}}\n"
        );
        Manifest::parse(&text).unwrap()
    }

    fn labels(pod: &str, uid: &str, container: &str) -> HashMap<String, String> {
        [
            (POD, pod),
            (NAMESPACE, "kube-system"),
            (UID, uid),
            (CONTAINER, container),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn containers(all: &[HashMap<String, String>]) -> Containers {
        Containers(Some(all.iter().filter_map(Running::by_labels).collect()))
    }

    #[test]
    fn a_pod_is_known_by_its_name_and_node_and_not_by_a_likeness() {
        let uid = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
        let others = ["etcd", "etcd-proxy"];
        let of = |pod: &str, uid: &str, container: &str| {
            containers(&[labels(pod, uid, container)]).of(&manifest("etcd"), &others)
        };
        assert_eq!(of("etcd-master-1", uid, "main"), PodContainers::Running);
        let not = PodContainers::NotRunning(vec!["main".to_owned()]);
        for (pod, uid, container) in [
            ("etcd-proxy-master-1", uid, "main"),
            (
                "etcd-backup-29381",
                "5f2c7b1e-0c1d-4f5a-9b1e-2d3c4b5a6978",
                "main",
            ),
            ("etcd-master-1", uid, "other"),
            ("etcd-master-1", uid, "POD"),
            ("etcd", uid, "main"),
        ] {
            assert_eq!(of(pod, uid, container), not, "{pod} {uid} {container}");
        }
        assert_eq!(
            Containers(None).of(&manifest("etcd"), &others),
            PodContainers::Unknown
        );
    }
}

//! A static pod's manifest, as far as it is needed: who it is, its containers, and where it answers. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::config::{ComponentSettings, HttpTarget};

/// Longer manifests are not read, bytes. A control plane's have a few KiB.
pub(crate) const MAX_BYTES: u64 = 256 << 10;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The pod's name; the kubelet appends the node's.
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Names of its containers; never empty.
    pub(crate) containers: Vec<String>,
    /// Where it says that it answers.
    health: Option<HttpTarget>,
    /// It has the node's own addresses, so that its ports can be reached on them.
    host_network: bool,
}

#[derive(Debug, Deserialize)]
struct Written {
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    host_network: bool,
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    ports: Vec<ContainerPort>,
    liveness_probe: Option<Probe>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
}

#[derive(Debug, Deserialize)]
struct HttpGet {
    host: Option<String>,
    path: Option<String>,
    port: Port,
    scheme: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Name(String),
}

impl Manifest {
    /// Reads a manifest, YAML or JSON. What is not needed here is not looked at: that is for the kubelet to judge.
    ///
    /// # Errors
    /// It is no pod, or something that is needed is missing: a text for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            // The rest is a drawing of the place.
            let message = error.to_string();
            format!("not a pod: {}", message.lines().next().unwrap_or_default())
        })?;
        if written.kind != "Pod" {
            return Err(format!("kind is {:?}; only a Pod can be static", written.kind));
        }
        let name = written.metadata.name;
        if !is_pod_name(&name) {
            return Err(format!("metadata.name {name:?} is no name of a pod"));
        }
        if written.spec.containers.is_empty() {
            return Err("spec.containers is empty".to_owned());
        }
        let health = written.spec.containers.iter().find_map(Container::health);
        Ok(Self {
            name,
            namespace: written.metadata.namespace.unwrap_or_else(|| "default".to_owned()),
            containers: written
                .spec
                .containers
                .into_iter()
                .map(|container| container.name)
                .collect(),
            health,
            host_network: written.spec.host_network,
        })
    }

    /// Where it answers: as its liveness probe says, otherwise as is known of the component. `None` for a pod with a network
    /// of its own, whose ports are not the node's.
    pub(crate) fn health(&self, component: Option<&ComponentSettings>) -> Option<HttpTarget> {
        if !self.host_network {
            return None;
        }
        self.health.clone().or_else(|| {
            let component = component?;
            Some(HttpTarget {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, component.port?)),
                path: component.path.clone(),
                tls: component.tls,
            })
        })
    }
}

impl Container {
    fn health(&self) -> Option<HttpTarget> {
        let get = self.liveness_probe.as_ref()?.http_get.as_ref()?;
        let port = match &get.port {
            Port::Number(port) => *port,
            Port::Name(name) => {
                let named = |port: &&ContainerPort| port.name.as_ref() == Some(name);
                self.ports.iter().find(named)?.container_port
            }
        };
        // Nothing is looked up: a name would need what may be down.
        let host = get.host.as_ref().and_then(|host| host.parse().ok());
        let path = get.path.clone().unwrap_or_default();
        Some(HttpTarget {
            address: SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port),
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            tls: get.scheme.as_deref() == Some("HTTPS"),
        })
    }
}

/// A DNS name of lower-case letters, digits, `-` and `.`: what the API server demands, and safe as a file's name.
pub(crate) fn is_pod_name(name: &str) -> bool {
    name.len() <= 253
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETCD: &str = include_str!("testdata/etcd.yaml");

    fn with_probe(probe: &str, host_network: bool) -> Manifest {
        let text = format!(
            "kind: Pod\nmetadata: {{name: a}}\nspec:\n  hostNetwork: {host_network}\n  containers:\n  - name: c\n    \
             ports: [{{name: probe, containerPort: 81}}]\n    livenessProbe: {{httpGet: {probe}}}\n"
        );
        Manifest::parse(&text).unwrap()
    }

    fn url(manifest: &Manifest) -> Option<String> {
        let target = manifest.health(None)?;
        Some(format!("{} {}{}", target.tls, target.address, target.path))
    }

    #[test]
    fn kubeadms_etcd_is_read() {
        let manifest = Manifest::parse(ETCD).unwrap();
        assert_eq!(
            (manifest.name.as_str(), manifest.namespace.as_str()),
            ("etcd", "kube-system")
        );
        assert_eq!(manifest.containers, ["etcd"]);
        assert_eq!(
            url(&manifest).as_deref(),
            Some("false 127.0.0.1:2381/health?serializable=true")
        );
    }

    #[test]
    fn the_probe_is_asked_where_it_says_and_a_name_is_never_looked_up() {
        for (probe, expected) in [
            (
                "{host: 10.0.0.9, path: /livez, port: 6443, scheme: HTTPS}",
                "true 10.0.0.9:6443/livez",
            ),
            ("{port: 80}", "false 127.0.0.1:80/"),
            ("{path: livez, port: probe}", "false 127.0.0.1:81/livez"),
            (
                "{host: localhost, path: /livez, port: 80}",
                "false 127.0.0.1:80/livez",
            ),
        ] {
            assert_eq!(url(&with_probe(probe, true)).as_deref(), Some(expected));
        }
        assert_eq!(
            url(&with_probe("{port: 80}", false)),
            None,
            "not the node's ports"
        );
    }

    #[test]
    fn without_a_probe_the_component_is_asked_where_it_is_known_to_answer() {
        let text = "kind: Pod\nmetadata: {name: kube-scheduler}\nspec: {hostNetwork: true, containers: [{name: c}]}\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.health(None), None);
        let component = ComponentSettings::new("kube-scheduler", 10259, "/healthz");
        let target = manifest.health(Some(&component)).unwrap();
        assert_eq!(target.address.port(), 10259);
    }

    #[test]
    fn what_is_no_pod_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "not a pod"),
            ("kind: [", "not a pod"),
            (
                "kind: Service\nmetadata: {name: a}\nspec: {containers: [{name: c}]}",
                "only a Pod",
            ),
            (
                "kind: Pod\nmetadata: {name: ../a}\nspec: {containers: [{name: c}]}",
                "no name of a pod",
            ),
            ("kind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "empty"),
            ("kind: Pod\nmetadata: {name: a}\nspec: {}", "containers"),
        ] {
            let error = Manifest::parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn json_is_read_as_well() {
        let text = r#"{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c"}]}}"#;
        assert_eq!(Manifest::parse(text).unwrap().name, "a");
    }

    proptest! {
        #[test]
        fn a_manifest_cut_or_changed_anywhere_is_read_or_refused(at in 0..ETCD.len(), with in any::<char>()) {
            let at = ETCD.floor_char_boundary(at);
            let _read_or_refused = Manifest::parse(&ETCD[..at]);
            let _read_or_refused = Manifest::parse(&format!("{}{with}{}", &ETCD[..at], &ETCD[at..]));
        }
    }
}

//! What a static pod's manifest says of etcd. Pure.
//!
//! etcd takes each flag from its command line, or from `ETCD_` and its name in capitals where the command line has none of it
//! (<https://etcd.io/docs/v3.5/op-guide/configuration/>). Paths are those in the container; the volumes say where they are on the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A manifest that runs etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EtcdPod {
    /// The pod's name.
    pub(crate) pod: String,
    /// The member's name.
    pub(crate) name: String,
    /// The image of its container.
    pub(crate) image: String,
    /// On the node.
    pub(crate) data_dir: PathBuf,
    /// On the node; `None`: within the data directory.
    pub(crate) wal_dir: Option<PathBuf>,
    /// Where it listens for clients.
    pub(crate) listen: Vec<String>,
    /// Where its peers find it.
    pub(crate) peer_urls: Vec<String>,
    /// `name=url,…` as written.
    pub(crate) initial_cluster: String,
    /// `new` or `existing`.
    pub(crate) initial_cluster_state: String,
    /// What it shows to clients, and by whose authority it takes them; on the node.
    pub(crate) tls: Option<ServerTls>,
    /// Where it says that clients find it.
    pub(crate) advertises: Vec<String>,
    /// Where it listens for its peers.
    pub(crate) listen_peers: Vec<String>,
    /// What it shows to its peers, and by whose authority it takes them; on the node.
    pub(crate) peer_tls: Option<ServerTls>,
    /// Every certificate that it is told of, on the node.
    pub(crate) certificates: Vec<PathBuf>,
}

/// How the member speaks TLS with clients, or with its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
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
struct Spec {
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Env>,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
struct Env {
    name: String,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    mount_path: PathBuf,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Debug, Deserialize)]
struct HostPath {
    path: PathBuf,
}

/// Why a manifest is of no use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPod {
    /// It runs something else.
    NotEtcd,
    /// It runs etcd, and something that is needed is not said: for people.
    Unclear(String),
}

impl EtcdPod {
    /// Reads a manifest, YAML or JSON.
    ///
    /// # Errors
    /// It does not run etcd, or does not say what is needed.
    pub(crate) fn parse(text: &str) -> Result<Self, NoPod> {
        // What is no pod at all is for whoever reads all manifests to tell.
        let written: Written = serde_saphyr::from_str(text).map_err(|_| NoPod::NotEtcd)?;
        let found = written.spec.containers.iter().find_map(|container| {
            let words: Vec<_> = container.command.iter().chain(&container.args).collect();
            let at = words.iter().position(|word| is_etcd(word))?;
            Some((container, words, at))
        });
        let Some((container, words, at)) = found else {
            let mentions = |container: &Container| {
                let words = container.command.iter().chain(&container.args);
                words.into_iter().any(|word| word.contains("--initial-cluster"))
            };
            return Err(if written.spec.containers.iter().any(mentions) {
                NoPod::Unclear(
                    "etcd is started through a shell or another program, so its flags cannot be told apart; write them as `command: [etcd, --name=…]`"
                        .to_owned(),
                )
            } else {
                NoPod::NotEtcd
            });
        };
        let flags = Flags::read(&words[at + 1..], &container.env);
        let on_node = |path: &str| on_node(Path::new(path), container, &written.spec.volumes);
        let path = |flag| flags.get(flag).map(on_node);
        let name = flags.get("name").unwrap_or("default").to_owned();
        let data_dir = flags
            .get("data-dir")
            .map(str::to_owned)
            .ok_or_else(|| NoPod::Unclear("--data-dir is missing".to_owned()))?;
        let listen = urls(
            flags
                .get("listen-client-urls")
                .or(flags.get("advertise-client-urls")),
        );
        if listen.is_empty() {
            return Err(NoPod::Unclear(
                "neither --listen-client-urls nor --advertise-client-urls says where it answers".to_owned(),
            ));
        }
        let files = |certificate, key, ca| match (path(certificate), path(key)) {
            (Some(certificate), Some(key)) => Some(ServerTls {
                ca: path(ca).unwrap_or_else(|| certificate.clone()),
                certificate,
                key,
            }),
            _ => None,
        };
        let tls = files("cert-file", "key-file", "trusted-ca-file");
        if tls.is_none() && listen.iter().any(|url| url.starts_with("https:")) {
            return Err(NoPod::Unclear(
                "it listens with https, and --cert-file or --key-file is missing".to_owned(),
            ));
        }
        let certificates = [
            "cert-file",
            "trusted-ca-file",
            "peer-cert-file",
            "peer-trusted-ca-file",
        ];
        let mut certificates: Vec<_> = certificates.into_iter().filter_map(path).collect();
        let mut seen = std::collections::BTreeSet::new();
        certificates.retain(|path| seen.insert(path.clone()));
        Ok(Self {
            pod: written.metadata.name,
            image: container.image.clone(),
            data_dir: on_node(&data_dir),
            wal_dir: path("wal-dir"),
            listen,
            peer_urls: urls(flags.get("initial-advertise-peer-urls")),
            advertises: urls(flags.get("advertise-client-urls")),
            listen_peers: urls(flags.get("listen-peer-urls")),
            peer_tls: files("peer-cert-file", "peer-key-file", "peer-trusted-ca-file"),
            initial_cluster: flags.get("initial-cluster").unwrap_or_default().to_owned(),
            initial_cluster_state: flags.get("initial-cluster-state").unwrap_or("new").to_owned(),
            tls,
            certificates,
            name,
        })
    }

    /// Where it can be reached from its own node, the loopback address first.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .listen
            .iter()
            .map(|url| {
                url.replace("://0.0.0.0:", "://127.0.0.1:")
                    .replace("://[::]:", "://[::1]:")
            })
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .collect();
        all.sort_by_key(|url| !(url.contains("://127.") || url.contains("://[::1]")));
        all.dedup();
        all
    }
}

/// `10.0.0.1` of `https://10.0.0.1:2380`.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => rest,
    }
}

pub(super) fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.replace('-', "_").to_uppercase())
}

fn is_etcd(word: &str) -> bool {
    Path::new(word).file_name().is_some_and(|name| name == "etcd")
}

fn urls(written: Option<&str>) -> Vec<String> {
    let urls = written.unwrap_or_default().split(',').map(str::trim);
    urls.filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// A path in the container, on the node.
fn on_node(path: &Path, container: &Container, volumes: &[Volume]) -> PathBuf {
    let mounts = container.volume_mounts.iter();
    let best = mounts
        .filter(|mount| path.starts_with(&mount.mount_path))
        .max_by_key(|mount| mount.mount_path.components().count());
    let of = |mount: &Mount| {
        let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
        let rest = path.strip_prefix(&mount.mount_path).ok()?;
        let host = &volume.host_path.as_ref()?.path;
        // Joining nothing would leave a slash at the end.
        Some(if rest.as_os_str().is_empty() {
            host.clone()
        } else {
            host.join(rest)
        })
    };
    best.and_then(of).unwrap_or_else(|| path.to_owned())
}

struct Flags<'a> {
    line: BTreeMap<&'a str, &'a str>,
    env: BTreeMap<&'a str, &'a str>,
}

impl<'a> Flags<'a> {
    /// `--flag=value`, `--flag value`, and both with one dash, as Go's `flag` reads them.
    fn read(words: &[&'a String], env: &'a [Env]) -> Self {
        let mut line = BTreeMap::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            if let Some((flag, value)) = flag.split_once('=') {
                line.insert(flag, value);
            } else if let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                line.insert(flag, value.as_str());
            }
        }
        let env = env
            .iter()
            .filter_map(|one| Some((one.name.as_str(), one.value.as_deref()?)))
            .collect();
        Self { line, env }
    }

    fn get(&self, flag: &str) -> Option<&'a str> {
        let written = self
            .line
            .get(flag)
            .or_else(|| self.env.get(variable(flag).as_str()));
        written.copied().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewrite::joining;
    use super::*;

    const KUBEADM: &str = include_str!("testdata/etcd.yaml");

    #[test]
    fn kubeadms_manifest_is_read_with_its_paths_on_the_node() {
        let pod = EtcdPod::parse(KUBEADM).unwrap();
        assert_eq!((pod.pod.as_str(), pod.name.as_str()), ("etcd", "m1"));
        assert_eq!(
            pod.data_dir,
            Path::new("/data/etcd"),
            "where its volume is on the node"
        );
        assert_eq!(
            pod.endpoints(),
            ["https://127.0.0.1:2379", "https://10.0.0.11:2379"]
        );
        assert_eq!(pod.peer_urls, ["https://10.0.0.11:2380"]);
        assert_eq!(pod.initial_cluster_state, "new");
        let tls = pod.tls.unwrap();
        assert_eq!(tls.ca, Path::new("/etc/kubernetes/pki/etcd/ca.crt"));
        assert_eq!(
            pod.certificates.len(),
            3,
            "the authority that stands twice counts once"
        );
    }

    #[test]
    fn flags_are_read_however_they_are_written_and_the_command_line_wins() {
        let text = "kind: Pod\nmetadata: {name: biz-etcd}\nspec:\n  containers:\n  - name: c\n    command: [/usr/local/bin/etcd]\n    \
                    args: [-name, a, --data-dir=/d, '--listen-client-urls', 'http://0.0.0.0:2379']\n    \
                    env:\n    - name: ETCD_NAME\n      value: b\n    - name: ETCD_INITIAL_CLUSTER\n      value: a=http://1:2380\n    - name: ETCD_INITIAL_CLUSTER_STATE\n      value: new\n";
        let pod = EtcdPod::parse(text).unwrap();
        assert_eq!((pod.name.as_str(), pod.pod.as_str()), ("a", "biz-etcd"));
        assert_eq!(pod.initial_cluster, "a=http://1:2380");
        assert_eq!(pod.endpoints(), ["http://127.0.0.1:2379"]);
        let after = joining(text, "a=http://1:2380,b=http://2:2380").unwrap();
        assert_eq!(EtcdPod::parse(&after).unwrap().initial_cluster_state, "existing");
    }

    #[test]
    fn what_cannot_be_told_is_said_and_other_pods_are_none() {
        for (command, expected) in [
            ("[kube-apiserver]", NoPod::NotEtcd),
            (
                "[etcd, --name=a]",
                NoPod::Unclear("--data-dir is missing".to_owned()),
            ),
        ] {
            let text = format!("metadata: {{name: a}}\nspec: {{containers: [{{command: {command}}}]}}\n");
            assert_eq!(EtcdPod::parse(&text), Err(expected));
        }
        let shell = "metadata: {name: a}\nspec: {containers: [{command: [sh, -c, 'exec etcd --initial-cluster=a=b']}]}\n";
        assert!(matches!(EtcdPod::parse(shell), Err(NoPod::Unclear(why)) if why.contains("shell")));
    }
}

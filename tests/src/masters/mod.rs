//! Masters as kubeadm lays them out: a real etcd with TLS and what stands for a control plane, as static pods on nodes.
//!
//! ```text
//!  etcd of this machine ──bind──► /usr/bin/etcd, etcdctl, etcdutl ─┐
//!  certificates ──► /etc/kubernetes/pki                            ├─► kubelet's stand-in ──► etcd, kube-apiserver, …
//!  manifests ──► /etc/kubernetes/manifests ────────────────────────┘        data: /var/lib/etcd, on the node's own disk
//! ```

mod manifests;
mod pki;
pub mod store;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use blackstart_proto::part::Part;
use blackstart_proto::tls::TlsFiles;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::pki::Certificates;
use self::store::Member;
use crate::bed::{ApiServers, Bed, Wish};
use crate::component::Mood;
use crate::docker::{Docker, say};
use crate::node::{DISK, Node};
use crate::settings::Yaml;
use crate::topology::{Declared, Topology};

/// Where the kubelet looks.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// etcd's data, on the node's own disk.
pub const DATA: &str = "/var/lib/etcd";
/// Where agents keep snapshots: their own default.
pub const SNAPSHOTS: &str = "/var/lib/blackstart/etcd-snapshots";
/// How stand-ins of components are: a file of the component's name.
pub const MOODS: &str = "/run/stand-in-moods";
/// So many masters have a member.
const MEMBERS: u8 = 3;
/// The static pod of etcd.
pub const ETCD: &str = "etcd";
/// Where clients find etcd, its peers, and whoever asks for its health: as kubeadm has them.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const METRICS_PORT: u16 = 2381;
/// Debian bookworm's own, 3.4.
const OWN: &str = "/usr/bin/etcd";
/// Where `deploy/ensure-etcd-3.5` unpacks that of trixie.
const NEXT: &str = "/var/cache/blackstart/etcd-3.5/usr/bin/etcd";
/// The year in which certificates of etcd end.
const GOOD_UNTIL: i32 = 2090;
/// So much each node's disk has, bytes: the database with its logs, copies of it, and what an agent keeps free. It is sparse.
const DISK_BYTES: u64 = 4 << 30;
/// The data lies on the node's own disk, which loses what was not synced.
const DATA_MOUNT: &str = "[Unit]\nDescription=etcd's data\n\n[Mount]\nWhat=DISK/lib/etcd\nWhere=/var/lib/etcd\nType=none\nOptions=bind\n\
                          DirectoryMode=0700\n";

/// An etcd of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    program: PathBuf,
}

impl Etcd {
    /// The one of this program, with its tools beside it.
    ///
    /// # Errors
    /// It is not there, or without a tool.
    pub fn at(program: &Path) -> anyhow::Result<Self> {
        let etcd = Self {
            program: program.to_owned(),
        };
        if !program.exists() || etcd.tools().count() == 0 {
            bail!(
                "there is no {} with etcdutl or etcdctl beside it: make needs-testbed brings it",
                program.display()
            );
        }
        Ok(etcd)
    }

    /// The etcd that is on this machine, 3.4 and 3.5; or those alone that `BLACKSTART_ETCD` names (paths with colons between them). For one
    /// that is missing a test says SKIPPED.
    ///
    /// # Panics
    /// One is missing and `CI=true`.
    pub fn all_or_skip() -> Vec<Self> {
        let named = std::env::var("BLACKSTART_ETCD").unwrap_or_else(|_| format!("{OWN}:{NEXT}"));
        let there = named
            .split(':')
            .filter_map(|program| match Self::at(Path::new(program)) {
                Ok(etcd) => Some(etcd),
                Err(why) => {
                    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why:#}");
                    say(&format!("SKIPPED: {why:#}"));
                    None
                }
            });
        there.collect()
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Can its tool raise the revision? Since 3.5.
    pub fn bumps(&self) -> bool {
        self.program.with_file_name("etcdutl").exists()
    }

    fn tools(&self) -> impl Iterator<Item = PathBuf> {
        let tools = ["etcdutl", "etcdctl"].map(|tool| self.program.with_file_name(tool));
        tools.into_iter().filter(|tool| tool.exists())
    }

    /// It and its tools, where nodes have them.
    fn mounts(&self) -> Vec<(PathBuf, String)> {
        let inside = |path: PathBuf| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (path, format!("/usr/bin/{name}"))
        };
        self.tools().chain([self.program.clone()]).map(inside).collect()
    }
}

/// Three masters; with members of this etcd, if there is to be one.
///
/// # Errors
/// A program of this workspace is not built.
pub fn wish(etcd: Option<&Etcd>) -> anyhow::Result<Wish> {
    let mut mounts = etcd.map(Etcd::mounts).unwrap_or_default();
    let component = crate::coordinator::program("stand-in-component")?;
    mounts.extend(Part::ALL.map(|part| (component.clone(), format!("/usr/bin/{}", part.pod()))));
    Ok(Wish {
        disk_bytes: DISK_BYTES,
        agent: settings,
        api_servers: ApiServers::StaticPods,
        mounts,
        units: vec![("var-lib-etcd.mount", DATA_MOUNT.replace("DISK", DISK))],
        ..Wish::fleet(MEMBERS, 0)
    })
}

/// What agents are told of static pods, with times for people who wait: what they do by themselves is not what is rehearsed here.
fn settings(_: &Declared) -> Yaml {
    let etcd = format!(
        "{{name: {ETCD}, port: {METRICS_PORT}, path: \"/health?serializable=true\", https: false, permit: true}}"
    );
    let parts = Part::ALL.map(|part| {
        format!(
            "{{name: {}, port: {}, path: /healthz, https: false, permit: false}}",
            part.pod(),
            manifests::port(part)
        )
    });
    Yaml::default()
        .with(
            "static_pods",
            format!(
                "{{interval: 500ms, deadline: 500ms, failures_to_raise: 100, out_at_least: 1s, gone_deadline: 30s, ready_deadline: 5s, \
                 components: [{etcd}, {}]}}",
                parts.join(", ")
            ),
        )
        .with("etcd", "{snapshots: {min_free: 64MiB}}")
}

/// Masters that stand. Dropped, they are removed.
#[derive(Debug)]
pub struct Masters {
    bed: Bed,
    /// Of etcd; none where there is no etcd.
    certificates: Option<Certificates>,
}

impl Masters {
    /// Raises them and lays everything out; their pods begin.
    ///
    /// # Errors
    /// As [`Bed::raise`].
    pub async fn raise(docker: &Docker, name: &str, etcd: Option<&Etcd>) -> anyhow::Result<Self> {
        Self::raise_as(docker, name, etcd, &wish(etcd)?).await
    }

    /// The same, and a fourth master that has all that a member of etcd needs, but none.
    ///
    /// # Errors
    /// As [`Bed::raise`].
    pub async fn raise_with_spare(docker: &Docker, name: &str, etcd: &Etcd) -> anyhow::Result<Self> {
        let wish = Wish {
            topology: Topology {
                masters: MEMBERS + 1,
                workers: 0,
            },
            ..wish(Some(etcd))?
        };
        Self::raise_as(docker, name, Some(etcd), &wish).await
    }

    async fn raise_as(docker: &Docker, name: &str, etcd: Option<&Etcd>, wish: &Wish) -> anyhow::Result<Self> {
        let bed = Bed::raise(docker, name, wish).await?;
        let certificates = match etcd {
            None => None,
            Some(_) => Some(Certificates::create(&bed.dir().join("etcd-pki"))?),
        };
        let masters = Self { bed, certificates };
        for (declared, node) in masters.bed.declared().iter().zip(masters.bed.nodes_as_declared()) {
            masters
                .lay_out(declared, node)
                .with_context(|| format!("lay out {}", declared.name))?;
        }
        Ok(masters)
    }

    fn lay_out(&self, declared: &Declared, node: &Node) -> anyhow::Result<()> {
        fs::create_dir_all(node.path(MOODS)?)?;
        let own = fs::read_to_string(self.bed.dir().join("pki/coordinator.crt"))?;
        for part in Part::ALL {
            node.write(&certificate(part), &own)?;
        }
        if let Some(certificates) = &self.certificates {
            certificates.lay_out(declared, node)?;
            let members = self.bed.declared().iter().take(MEMBERS.into());
            let members: Vec<_> = members.cloned().collect();
            if members.contains(declared) {
                node.write(&manifest(ETCD), &manifests::etcd(declared, &members))?;
            }
        }
        for part in Part::ALL {
            node.write(&manifest(part.pod()), &manifests::part(part, &certificate(part)))?;
        }
        Ok(())
    }

    /// The nodes and their coordinator.
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Removes them with everything in them.
    ///
    /// # Errors
    /// As [`Bed::take_down`].
    pub async fn take_down(self) -> anyhow::Result<()> {
        self.bed.take_down().await
    }

    /// The nodes, in their order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.bed.nodes_as_declared()
    }

    /// Do they have one?
    pub fn has_etcd(&self) -> bool {
        self.certificates.is_some()
    }

    /// Where each member takes clients, and what they show to it.
    pub fn members(&self) -> Vec<Member> {
        let tls = self.certificates.as_ref().map(Certificates::client);
        let all = self.bed.declared().iter();
        all.map(|declared| Member {
            address: SocketAddr::from((declared.address, CLIENT_PORT)),
            tls: tls.clone(),
        })
        .collect()
    }

    /// Gives the member on a node a new certificate for its peers, which ends with the beginning of this year. etcd reads it at each connection.
    ///
    /// # Errors
    /// There is no etcd, or the node has no power.
    pub fn certify_peer(&self, name: &str, until: i32) -> anyhow::Result<()> {
        let certificates = self.certificates.as_ref().context("there is no etcd here")?;
        let declared = self.bed.declared().iter().find(|declared| declared.name == name);
        let declared = declared.with_context(|| format!("there is no {name}"))?;
        certificates.put("peer", declared, self.bed.node(name)?, until)
    }

    /// The certificates of another operator, with which an approval is another person's.
    ///
    /// # Errors
    /// The bed's authority cannot be read.
    pub fn second_operator(&self) -> anyhow::Result<TlsFiles> {
        let authority = blackstart_coordinator::pki::Authority::open(&self.bed.dir().join("pki"))?;
        Ok(authority.issue_operator("second")?)
    }
}

/// Where the manifest of a pod is.
pub fn manifest(pod: &str) -> String {
    format!("{MANIFESTS}/{pod}.yaml")
}

/// Where the certificate of a part is.
pub fn certificate(part: Part) -> String {
    format!("/etc/kubernetes/pki/{}.crt", part.as_str())
}

/// Where whoever asks for the health of a pod finds it: as its liveness probe, by the node's address.
pub fn health(declared: &Declared, pod: &str) -> (SocketAddr, &'static str) {
    let port = Part::of_pod(pod).map_or(METRICS_PORT, manifests::port);
    let path = if pod == ETCD {
        "/health?serializable=true"
    } else {
        "/healthz"
    };
    (SocketAddr::from((declared.address, port)), path)
}

/// The process that a node's kubelet keeps for a pod, by the node's own number.
///
/// # Errors
/// The node has no power, or the pod no process.
pub fn process(node: &Node, pod: &str) -> anyhow::Result<i32> {
    let kept = node.read(&format!("/run/stand-in-pods/{pod}/{pod}"))?;
    let number = kept.split_whitespace().next();
    number
        .context("read the number of a pod's process")?
        .parse()
        .context("read the number of a pod's process")
}

/// Kills it.
///
/// # Errors
/// As [`process`].
pub fn kill_pod(node: &Node, pod: &str) -> anyhow::Result<()> {
    let outside = node.pid_outside(process(node, pod)?)?;
    // It may end by itself as soon as its data is gone.
    let _ended = outside.map(|pid: Pid| kill(pid, Signal::SIGKILL));
    Ok(())
}

/// How a part is from now on.
///
/// # Errors
/// The node has no power.
pub fn set_mood(node: &Node, part: Part, mood: Mood) -> anyhow::Result<()> {
    let path = node.path(MOODS)?.join(part.pod());
    mood.write(&path)
        .with_context(|| format!("write {}", path.display()))
}

/// As a power loss leaves a file that was not synced: the member's database is full of zeroes. Then its process is killed.
///
/// # Errors
/// There is no such database.
pub fn damage(node: &Node) -> anyhow::Result<()> {
    let database = node.path(DATA)?.join("member/snap/db");
    let size = fs::metadata(&database).context("look at a database")?.len();
    let _none = kill_pod(node, ETCD);
    fs::write(&database, vec![0; usize::try_from(size)?]).context("damage a database")
}

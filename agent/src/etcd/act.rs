//! The closed list of what is done to the member on this node, or through it to its cluster. Only by the coordinator's word.
//!
//! Each begins with a look, so that one that was made before a crash is answered as made and is not made again.

use super::client::Client;
use super::fence;
use super::look::manifest;
use super::rebuild::{Joins, rebuild};
use super::restore::restore;
use super::snapshot;
use super::trouble::Trouble;
use crate::config::{ComponentSettings, EtcdSettings, Settings};
use crate::watch::static_pods::directory::Places;

use std::time::Duration;

use tokio::task::spawn_blocking;

/// A change of who is in the cluster waits for a majority to write it down: etcd's own patience is 5 s and an election.
const AGREED: Duration = Duration::from_secs(15);

/// A change, and of which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The run that asked.
    pub run_id: String,
    /// A member of another cluster refuses; 0: none is known.
    pub cluster_id: u64,
    /// What.
    pub act: Act,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Takes a snapshot of the member on this node.
    TakeSnapshot,
    /// Moves its manifest out and back.
    Bounce,
    /// Takes another member out of the cluster.
    RemoveMember {
        /// Which.
        id: u64,
    },
    /// Adds a member that is still to be started.
    AddMember {
        /// Where it will be.
        peer_urls: Vec<String>,
        /// It does not vote before it is promoted.
        learner: bool,
    },
    /// A learner that is in sync votes from now on.
    PromoteMember {
        /// Which.
        id: u64,
    },
    /// Sets the data of the member on this node aside, and has it join anew.
    Rebuild {
        /// What its manifest says of the members.
        initial_cluster: String,
        /// So many bytes have to be free where its data is.
        needs_bytes: u64,
        /// What is to be its manifest, where there is none.
        manifest: Option<NewManifest>,
    },
    /// Writes what its manifest says of the members anew, though it has its data, and bounces it. One that is not well with it gets the old one back.
    SetInitialCluster {
        /// What it says, or nothing is done.
        from: String,
        /// What it is to say.
        to: String,
    },
    /// Takes its manifest out of the kubelet's sight, and is sure that it has ended.
    Fence,
    /// The same of the API server, the controller manager and the scheduler.
    StopControlPlane,
    /// Puts those back.
    StartControlPlane,
    /// Makes a cluster of one out of what is on this node.
    Restore(Restore),
}

/// A manifest for a node that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewManifest {
    /// Its name in the directory.
    pub file: String,
    /// All of it.
    pub text: String,
}

/// How a cluster of one is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The member's version: the tool has to be of the same.
    pub version: String,
    /// `None`: out of the member's data as it is once it has ended.
    pub out_of: Option<OutOf>,
}

impl Restore {
    /// What was told of it when it was planned.
    pub(super) fn revision(&self) -> Option<i64> {
        match self.out_of {
            Some(OutOf::Data { revision, .. } | OutOf::Snapshot { revision, .. }) => Some(revision),
            None => None,
        }
    }
}

/// Something on this node that has a database in it, with the revision that was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOf {
    /// A directory within the data directory.
    Data {
        /// Its name.
        directory: String,
        /// What was told.
        revision: i64,
    },
    /// A file within that of snapshots.
    Snapshot {
        /// Its name.
        file: String,
        /// What was told.
        revision: i64,
    },
}

impl Act {
    /// Its name in ledger and terminal.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TakeSnapshot => "etcd-snapshot",
            Self::Bounce => "etcd-bounce",
            Self::RemoveMember { .. } => "etcd-remove-member",
            Self::AddMember { .. } => "etcd-add-member",
            Self::PromoteMember { .. } => "etcd-promote-member",
            Self::Rebuild { .. } => "etcd-rebuild",
            Self::SetInitialCluster { .. } => "etcd-set-initial-cluster",
            Self::Fence => "etcd-fence",
            Self::StopControlPlane => "etcd-stop-control-plane",
            Self::StartControlPlane => "etcd-start-control-plane",
            Self::Restore(_) => "etcd-restore",
        }
    }
}

/// What acts are done by.
#[derive(Debug, Clone)]
pub struct EtcdRules {
    pub(super) etcd: EtcdSettings,
    pub(super) places: Places,
    /// Where components answer when their manifests do not say.
    pub(super) components: Vec<ComponentSettings>,
    pub(super) out_at_least: Duration,
    pub(super) gone_deadline: Duration,
    /// After so many steps it is as if the process were killed.
    #[cfg(test)]
    pub(super) killed_after: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl EtcdRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        Self {
            etcd: settings.etcd.clone(),
            places: Places::of(&settings.static_pods),
            components: settings.static_pods.components.clone(),
            out_at_least: settings.static_pods.out_at_least,
            gone_deadline: settings.static_pods.gone_deadline,
            #[cfg(test)]
            killed_after: std::sync::Arc::new(u32::MAX.into()),
        }
    }
}

/// Makes a change, verified; what was done. [`Act::Bounce`] and [`Act::SetInitialCluster`] are what is done to other static pods as well, and are made
/// there.
///
/// # Errors
/// Why not, for people.
pub async fn act(change: &Change, rules: &EtcdRules) -> Result<String, String> {
    match &change.act {
        Act::Bounce | Act::SetInitialCluster { .. } => Err("a bounce is made elsewhere".to_owned()),
        Act::Rebuild {
            initial_cluster,
            needs_bytes,
            manifest,
        } => {
            let joins = Joins {
                initial_cluster,
                needs_bytes: *needs_bytes,
                manifest: manifest.as_ref(),
            };
            rebuild(&change.run_id, &joins, rules).await
        }
        Act::Fence => fence::etcd(&change.run_id, rules).await,
        Act::StopControlPlane => fence::stop(&change.run_id, rules).await,
        Act::StartControlPlane => fence::start(rules).await,
        Act::Restore(asked) => restore(&change.run_id, change.cluster_id, asked, rules).await,
        Act::TakeSnapshot => {
            let (client, member) = connect(change.cluster_id, rules).await?;
            let kept = snapshot::take(&client, &member, change.cluster_id, &rules.etcd).await?;
            Ok(format!(
                "{} of {member}, revision {}, {} bytes, its hash verified",
                kept.file, kept.revision, kept.bytes
            ))
        }
        Act::RemoveMember { id } => {
            let (client, _) = connect(change.cluster_id, rules).await?;
            let status = client.status().await.map_err(told)?;
            if status.header.unwrap_or_default().member_id == *id {
                return Err(format!(
                    "{id:x} is the member on this node: another one has to remove it"
                ));
            }
            let members = client.members().await.map_err(told)?;
            if !members.iter().any(|member| member.id == *id) {
                return Ok(format!("{id:x} is no member any more"));
            }
            let left = client.remove(*id).await.map_err(told)?;
            Ok(format!("{id:x} was removed; {} members are left", left.len()))
        }
        Act::AddMember { peer_urls, learner } => add(change.cluster_id, peer_urls, *learner, rules).await,
        Act::PromoteMember { id } => {
            let (client, _) = connect(change.cluster_id, rules).await?;
            let members = client.members().await.map_err(told)?;
            match members.iter().find(|member| member.id == *id) {
                None => Err(format!("{id:x} is no member")),
                Some(member) if !member.is_learner => Ok(format!("{id:x} votes")),
                Some(_) => {
                    client.promote(*id).await.map_err(told)?;
                    Ok(format!("{id:x} votes from now on"))
                }
            }
        }
    }
}

/// The member on this node is of the cluster that is meant.
///
/// # Errors
/// It is of another one, or does not answer.
pub(crate) async fn of_cluster(cluster_id: u64, rules: &EtcdRules) -> Result<(), String> {
    connect(cluster_id, rules).await.map(drop)
}

async fn add(
    cluster_id: u64,
    peer_urls: &[String],
    learner: bool,
    rules: &EtcdRules,
) -> Result<String, String> {
    let (client, _) = connect(cluster_id, rules).await?;
    let members = client.members().await.map_err(told)?;
    if let Some(member) = members
        .iter()
        .find(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url)))
    {
        return Ok(format!("{:x} is a member with that address", member.id));
    }
    let version = client.status().await.map_err(told)?.version;
    if learner && !has_learners(&version) {
        return Err(format!(
            "etcd {version} has no learners: it would take the new member for a voter at once"
        ));
    }
    let added = client.add(peer_urls.to_vec(), learner).await.map_err(told)?;
    let id = added.map_or(0, |member| member.id);
    Ok(format!(
        "{id:x} was added as a {}",
        if learner { "learner" } else { "voter" }
    ))
}

/// Learners came with etcd 3.4.
pub(crate) fn has_learners(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= (3, 4)
}

/// A connection to the member on this node, if it is of the cluster that is meant; and its name.
async fn connect(cluster_id: u64, rules: &EtcdRules) -> Result<(Client, String), String> {
    let dir = rules.places.manifests.clone();
    let found = spawn_blocking(move || manifest(&dir)).await;
    let found = found
        .map_err(|_| "the look was broken off".to_owned())?
        .map_err(told)?;
    let client = Client::connect(&found.pod, &rules.etcd, AGREED)
        .await
        .map_err(told)?;
    let status = client.status().await.map_err(told)?;
    let here = status.header.unwrap_or_default().cluster_id;
    if cluster_id != 0 && here != cluster_id {
        return Err(format!(
            "the member on this node is of cluster {here:x}, and {cluster_id:x} is meant: nothing was changed"
        ));
    }
    Ok((client, found.pod.name))
}

#[allow(clippy::needless_pass_by_value, reason = "the end of a map_err")]
fn told(trouble: Trouble) -> String {
    trouble.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learners_are_known_from_3_4_on() {
        for (version, expected) in [
            ("3.4.23", true),
            ("3.5.16", true),
            ("3.10.0", true),
            ("4.0.0", true),
            ("3.3.27", false),
            ("2.3.8", false),
            ("", false),
        ] {
            assert_eq!(has_learners(version), expected, "{version}");
        }
    }
}

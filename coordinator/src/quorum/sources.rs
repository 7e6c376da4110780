//! Out of what an etcd could be restored of which no member answers: what agents found, which of it loses least, and what that is. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::judge::{Seen, View};
use crate::inventory::NodeName;

/// What agents found, or why it is not known.
pub type Sources = BTreeMap<NodeName, Result<Vec<Source>, String>>;

/// Something that has a database in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What.
    pub out_of: OutOf,
    /// For people.
    pub path: String,
    /// `None`: nothing there says of which cluster it is.
    pub cluster_id: Option<u64>,
    /// It has all of this.
    pub revision: i64,
    /// The database's size.
    pub bytes: u64,
    /// When it was written, by the node's clock.
    pub written_unix_ms: u64,
    /// How long ago that is, by the same clock.
    pub age_ms: u64,
    /// Of the member that it is of; empty: not known.
    pub version: String,
    /// Why it is of no use.
    pub damage: Option<String>,
}

/// What is restored, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum OutOf {
    /// A directory within the data directory.
    Data {
        /// Its name.
        directory: String,
        /// What was told of it; another one by then is refused.
        revision: i64,
    },
    /// A file within that of snapshots.
    Snapshot {
        /// Its name.
        file: String,
        /// What was told of it.
        revision: i64,
    },
}

/// What was last seen of a cluster while it was well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Which.
    pub cluster_id: u64,
    /// The highest that was seen.
    pub revision: i64,
    /// Its members' version.
    pub version: String,
    /// When, by the coordinator's clock.
    pub at_unix_ms: u64,
    /// Who was in it: names, and where their peers found them. None: an earlier version did not look.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, Vec<String>>,
}

/// What is to be restored, on which node, and of what else there was why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// On its own node.
    pub node: NodeName,
    /// What.
    pub source: Source,
    /// Of which cluster.
    pub cluster_id: u64,
    /// The tool is to be of this.
    pub version: String,
    /// What else there is, what loses less first; each with why it is not taken.
    pub others: Vec<String>,
}

/// Twice what is restored and a copy to work on: as the agent reckons.
const ROOM: u64 = 3;
/// Two files of etcd's log, one of them in advance, which take their room at once (`wal.SegmentSizeBytes`, 64 MB).
const LOG: u64 = 128 << 20;

/// How much has to be free on the disk of the data for a restore of so many bytes.
pub const fn room(database: u64) -> u64 {
    database.saturating_mul(ROOM).saturating_add(LOG)
}

/// For people: what is free there, and how much is missing.
pub fn lacks(free: u64, needed: u64) -> Option<String> {
    let missing = needed.checked_sub(free).filter(|missing| *missing > 0)?;
    Some(format!(
        "{} MiB are free, and {} MiB are needed: {} MiB are missing",
        free >> 20,
        needed.div_ceil(1 << 20),
        missing.div_ceil(1 << 20)
    ))
}

/// The source that loses least, of those that can be restored where they are.
///
/// # Errors
/// There is none; each that there is, with why not.
pub fn choose(sources: &Sources, view: &View, last: Option<&Last>) -> Result<Choice, Vec<String>> {
    let all: Vec<(&NodeName, &Source)> = sources
        .iter()
        .filter_map(|(node, found)| Some((node, found.as_ref().ok()?)))
        .flat_map(|(node, found)| found.iter().map(move |source| (node, source)))
        .collect();
    let cluster_id = meant(&all, last);
    let mut ranked = all;
    // Of two that have the same, data that a member wrote itself, and then the one that was written last.
    ranked.sort_by_key(|(_, source)| {
        let is_data = matches!(source.out_of, OutOf::Data { .. });
        std::cmp::Reverse((source.revision, is_data, source.written_unix_ms))
    });
    let mut taken = None;
    let mut others = Vec::new();
    for (node, source) in ranked {
        let words = source.words(node);
        match usable(node, source, view, cluster_id) {
            Err(why) => others.push(format!("{words}: {why}")),
            Ok(()) if taken.is_none() => taken = Some((node, source)),
            Ok(()) => others.push(format!("{words}: it has no more")),
        }
    }
    for (node, found) in sources {
        if let Err(why) = found {
            others.push(format!("{node}: what is on its disks is not known: {why}"));
        }
    }
    let Some((node, source)) = taken else {
        return Err(others);
    };
    let cluster_id = source.cluster_id.or(cluster_id).unwrap_or_default();
    Ok(Choice {
        version: version(sources, source, cluster_id, last),
        node: node.clone(),
        source: source.clone(),
        cluster_id,
        others,
    })
}

/// The cluster that was lost: the one that was last seen well; otherwise that of the data that members left, the newest of it; otherwise that
/// of the newest snapshot.
fn meant(all: &[(&NodeName, &Source)], last: Option<&Last>) -> Option<u64> {
    if let Some(last) = last {
        return Some(last.cluster_id);
    }
    let rank = |source: &Source| {
        let place = match &source.out_of {
            OutOf::Data { directory, .. } if directory == "member" => 2,
            OutOf::Data { .. } => 1,
            OutOf::Snapshot { .. } => 0,
        };
        (place, source.revision)
    };
    let known = all.iter().filter(|(_, source)| source.cluster_id.is_some());
    let best = known.max_by_key(|(_, source)| rank(source));
    best.and_then(|(_, source)| source.cluster_id)
}

fn usable(node: &NodeName, source: &Source, view: &View, cluster_id: Option<u64>) -> Result<(), String> {
    if let Some(damage) = &source.damage {
        return Err(damage.clone());
    }
    match (source.cluster_id, cluster_id) {
        (Some(its), Some(meant)) if its != meant => {
            return Err(format!("it is of cluster {its:x}, and {meant:x} was lost"));
        }
        _ => {}
    }
    let told = view.on(node).and_then(|seen| seen.told.as_ref());
    let told = told.ok_or("its agent does not speak")?;
    if told.manifest.is_none() {
        return Err(
            "no manifest of etcd is on its node: put it back first (kubeadm init phase etcd local)"
                .to_owned(),
        );
    }
    match lacks(told.data_bytes_available, room(source.bytes)) {
        Some(lacks) => Err(format!("on its disk {lacks} to restore it; make room first")),
        None => Ok(()),
    }
}

/// As the source says, or whoever else knows it of the same cluster.
fn version(sources: &Sources, source: &Source, cluster_id: u64, last: Option<&Last>) -> String {
    let is_snapshot = matches!(source.out_of, OutOf::Snapshot { .. });
    let all = || sources.values().flatten().flatten();
    let of_snapshots = all()
        .filter(|other| matches!(other.out_of, OutOf::Snapshot { .. }))
        .filter(|other| other.cluster_id == Some(cluster_id) && !other.version.is_empty())
        .max_by_key(|other| other.revision);
    if is_snapshot && !source.version.is_empty() {
        return source.version.clone();
    }
    // A tag is what an image is called, and what members said of themselves counts more.
    last.filter(|last| last.cluster_id == cluster_id)
        .map(|last| last.version.clone())
        .filter(|version| !version.is_empty())
        .or_else(|| of_snapshots.map(|other| other.version.clone()))
        .unwrap_or_else(|| source.version.clone())
}

impl Source {
    /// What it is, with what it has and how old it is.
    pub fn words(&self, node: &NodeName) -> String {
        if self.revision == 0 {
            return format!("{} of {node}", self.path);
        }
        format!(
            "{} of {node}, revision {}, {} {} ago",
            self.path,
            self.revision,
            match self.out_of {
                OutOf::Data { .. } => "written",
                OutOf::Snapshot { .. } => "taken",
            },
            Age(self.age_ms)
        )
    }
}

impl Choice {
    /// What is lost, as far as anybody can know.
    pub fn loss(&self, last: Option<&Last>, now_unix_ms: u64) -> String {
        let last = last.filter(|last| last.cluster_id == self.cluster_id);
        let known = match last {
            Some(last) if last.revision > self.source.revision => format!(
                "revision {} was seen {} ago, so at least {} revisions are lost",
                last.revision,
                Age(now_unix_ms.abs_diff(last.at_unix_ms)),
                last.revision - self.source.revision
            ),
            Some(last) => format!(
                "no later revision was ever seen ({} was, {} ago)",
                last.revision,
                Age(now_unix_ms.abs_diff(last.at_unix_ms))
            ),
            None => "what the last revision was is not known".to_owned(),
        };
        let after = match self.source.out_of {
            OutOf::Data { .. } => {
                "what members had acknowledged and only their logs had, a tenth of a second's writes as a rule, is not in it"
            }
            OutOf::Snapshot { .. } => "all that was written after it was taken is lost",
        };
        format!(
            "everything after revision {} is lost for good: {known}; {after}",
            self.source.revision
        )
    }
}

/// The certificates of members that have expired, by name.
pub fn expired(view: &View) -> Vec<String> {
    view.members.iter().flat_map(expired_of).collect()
}

/// Those of one member.
pub fn expired_of(seen: &Seen) -> Vec<String> {
    let told = seen.told.iter().flat_map(|told| &told.certificates);
    told.filter(|certificate| certificate.expired)
        .map(|certificate| {
            let at = jiff::Timestamp::from_second(certificate.not_after_unix);
            let at = at.map_or_else(|_| "some time ago".to_owned(), |at| at.to_string());
            format!("{} of {} (at {at})", certificate.path, seen.words())
        })
        .collect()
}

/// A span for people, milliseconds.
struct Age(u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_millis(self.0).as_secs();
        match seconds {
            0..600 => write!(f, "{seconds} s"),
            600..36_000 => write!(f, "{} min", seconds / 60),
            36_000..864_000 => write!(f, "{} h", seconds / 3600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests;

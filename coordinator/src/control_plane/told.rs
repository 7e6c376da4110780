//! What the agent of one master tells of the static pods of its control plane.

use blackstart_proto::part::Part;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that have a manifest, in place or out.
    pub parts: Vec<PartTold>,
    /// Files where the kubelet looks that are no manifests, each with why.
    pub bad: Vec<(String, String)>,
    /// The node's own addresses.
    pub addresses: Vec<String>,
    /// Why manifests are not known.
    pub trouble: Option<String>,
}

/// One static pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTold {
    /// Which.
    pub part: Part,
    /// Where its manifest is.
    pub manifest: String,
    /// Who has taken it out of the kubelet's sight.
    pub out_by: Option<String>,
    /// Where it was asked; empty: it says nowhere.
    pub url: String,
    /// What it answered.
    pub health: Health,
    /// The same, for people.
    pub health_words: String,
    /// Its containers that do not run.
    pub not_running: Vec<String>,
    /// Those that its command names.
    pub certificates: Vec<Certificate>,
    /// The last lines that it wrote, the oldest first.
    pub log: Vec<String>,
    /// Of an API server: what it is told of etcd.
    pub etcd_servers: String,
}

/// What a health port answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// 200 in time.
    Healthy,
    /// Something else, or nothing.
    Not,
    /// It could not be asked, or says nowhere where.
    Unknown,
}

/// A file with certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Where.
    pub path: String,
    /// Why it is out of its time, with its name.
    pub expired: Option<String>,
    /// Why it cannot be read.
    pub trouble: Option<String>,
}

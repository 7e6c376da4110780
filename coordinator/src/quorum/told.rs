//! What the agent of one node tells of its etcd member.

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The static pod's manifest, if there is one.
    pub manifest: Option<Manifest>,
    /// What the member answered.
    pub status: Option<Status>,
    /// Why it did not.
    pub trouble: Option<Trouble>,
    /// Who is in the cluster, as it has it.
    pub members: Vec<Member>,
    /// Those that its manifest names.
    pub certificates: Vec<Certificate>,
    /// Those on this node, the newest first.
    pub snapshots: Vec<Snapshot>,
    /// Why they are not known.
    pub snapshot_trouble: Option<String>,
    /// A member's data is there.
    pub has_data: bool,
    /// Bytes that are left where it is.
    pub data_bytes_available: u64,
    /// Bytes that are left where snapshots are.
    pub snapshot_bytes_available: u64,
    /// Components of the control plane that runs have stopped.
    pub stopped: Vec<String>,
}

/// What a manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Where it is.
    pub path: String,
    /// The member's name.
    pub name: String,
    /// On the node.
    pub data_dir: String,
    /// Where its log is, on the node, where that is not in the data directory.
    pub wal_dir: Option<String>,
    /// Where the agent asks.
    pub client_url: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// `name=url,…`.
    pub initial_cluster: String,
    /// `new` or `existing`.
    pub initial_cluster_state: String,
    /// The container's.
    pub image: String,
    /// The run that has taken it out of the kubelet's sight.
    pub set_aside_by: Option<String>,
}

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Of which cluster.
    pub cluster_id: u64,
    /// Its own id.
    pub member_id: u64,
    /// `3.5.16`.
    pub version: String,
    /// 0: it knows of none.
    pub leader: u64,
    /// Raft's.
    pub term: u64,
    /// The last entry of its log.
    pub raft_index: u64,
    /// The last entry that it has carried out.
    pub applied_index: u64,
    /// Of its data.
    pub revision: i64,
    /// Bytes that its database takes.
    pub db_bytes: u64,
    /// Bytes of that which are in use.
    pub db_bytes_in_use: u64,
    /// It does not vote.
    pub is_learner: bool,
    /// Whose, and which: `NOSPACE`, `CORRUPT`.
    pub alarms: Vec<(u64, String)>,
}

/// Who is in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Empty: it never started.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// It does not vote.
    pub is_learner: bool,
}

/// Why a member did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// By name.
    pub kind: TroubleKind,
    /// For people.
    pub detail: String,
}

/// See [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// The kubelet's directory has no manifest of etcd.
    NoManifest,
    /// There is one, and it does not say what is needed.
    Manifest,
    /// A certificate has expired, or is not yet valid.
    Expired,
    /// A certificate or key cannot be used.
    Certificate,
    /// Nobody listens.
    Refused,
    /// Nothing came in time.
    Silent,
    /// It answered, and not what was asked.
    Other,
}

/// A certificate that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Where.
    pub path: String,
    /// Seconds since the Unix epoch; 0: it is not known.
    pub not_after_unix: i64,
    /// By the node's clock.
    pub expired: bool,
    /// Why it cannot be read.
    pub trouble: Option<String>,
}

/// A snapshot that was verified when it was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub file: String,
    /// Of which cluster.
    pub cluster_id: u64,
    /// Of which member.
    pub member: String,
    /// It has all of this revision.
    pub revision: i64,
    /// The file's size.
    pub bytes: u64,
    /// By the node's wall clock.
    pub taken_at_unix_ms: u64,
    /// Of the database in it.
    pub sha256: String,
    /// The member's.
    pub version: String,
    /// How old it was, by that clock, when it was told.
    pub age_ms: u64,
}

//! What members write to their logs and databases, and say to each other.
//!
//! Records of the log, entries and hard states have etcd's own fields and numbers (server/storage/wal/walpb, raft/raftpb of etcd 3.5); what
//! an entry has in it, a database's pages and the talk of members are the double's own.

use blackstart_proto::etcd::{Member, TxnRequest};

/// `walpb.Record`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Record {
    #[prost(int64, required, tag = "1")]
    pub(super) kind: i64,
    /// Of all data of the file up to and with this record.
    #[prost(uint32, required, tag = "2")]
    pub(super) crc: u32,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) data: Option<Vec<u8>>,
}

/// `etcdserverpb.Metadata`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Ids {
    #[prost(uint64, required, tag = "1")]
    pub(super) member: u64,
    #[prost(uint64, required, tag = "2")]
    pub(super) cluster: u64,
}

/// `raftpb.HardState`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct HardState {
    #[prost(uint64, required, tag = "1")]
    pub(super) term: u64,
    /// 0: nobody was voted for in this term.
    #[prost(uint64, required, tag = "2")]
    pub(super) vote: u64,
    #[prost(uint64, required, tag = "3")]
    pub(super) commit: u64,
}

/// `walpb.Snapshot`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct SnapshotMark {
    #[prost(uint64, required, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, required, tag = "2")]
    pub(super) term: u64,
}

/// `raftpb.Entry`; its data is a [`Command`], or nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Entry {
    /// [`Entry::NORMAL`] or [`Entry::MEMBERS`].
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(uint64, required, tag = "2")]
    pub(super) term: u64,
    #[prost(uint64, required, tag = "3")]
    pub(super) index: u64,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) data: Option<Vec<u8>>,
}

impl Entry {
    pub(super) const NORMAL: i32 = 0;
    /// Changes who votes; etcd's `EntryConfChange`.
    pub(super) const MEMBERS: i32 = 1;

    pub(super) fn size(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len) + 24
    }
}

/// What an entry has in it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Command {
    /// By whom it is awaited: a number that no other command has.
    #[prost(uint64, tag = "1")]
    pub(super) request: u64,
    #[prost(oneof = "Change", tags = "2, 3, 4, 5, 6")]
    pub(super) change: Option<Change>,
}

/// See [`Command`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Change {
    #[prost(message, tag = "2")]
    Txn(TxnRequest),
    #[prost(message, tag = "3")]
    Add(Member),
    #[prost(uint64, tag = "4")]
    Remove(u64),
    #[prost(uint64, tag = "5")]
    Promote(u64),
    /// A member tells its name and where clients find it.
    #[prost(message, tag = "6")]
    Publish(Member),
}

impl Change {
    /// The kind of the entry that it comes in.
    pub(super) const fn kind(&self) -> i32 {
        match self {
            Self::Add(_) | Self::Remove(_) | Self::Promote(_) => Entry::MEMBERS,
            Self::Txn(_) | Self::Publish(_) => Entry::NORMAL,
        }
    }
}

/// The newest of a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Pair {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(super) create: i64,
    #[prost(int64, tag = "3")]
    pub(super) modified: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) value: Vec<u8>,
}

/// What a database has after this that it had not before.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Batch {
    /// The last entry that is in it.
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
    /// Nothing older is told of.
    #[prost(int64, tag = "4")]
    pub(super) compacted: i64,
    #[prost(message, repeated, tag = "5")]
    pub(super) pairs: Vec<Pair>,
    /// All members, where that has changed.
    #[prost(message, optional, tag = "6")]
    pub(super) members: Option<Members>,
}

/// Who is in the cluster, and who was.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Members {
    #[prost(message, repeated, tag = "1")]
    pub(super) members: Vec<Member>,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) removed: Vec<u64>,
}

/// The first words on a connection between members.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint64, tag = "1")]
    pub(super) cluster: u64,
    #[prost(uint64, tag = "2")]
    pub(super) from: u64,
    #[prost(uint64, tag = "3")]
    pub(super) to: u64,
    #[prost(oneof = "Asks", tags = "4, 5, 6")]
    pub(super) asks: Option<Asks>,
}

/// What the connection is for.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub(super) enum Asks {
    /// [`Message`]s follow.
    #[prost(bool, tag = "4")]
    Talk(bool),
    /// A [`Cluster`] is the answer.
    #[prost(bool, tag = "5")]
    Cluster(bool),
    /// So many bytes of a database follow.
    #[prost(uint64, tag = "6")]
    Database(u64),
}

/// Of which cluster somebody is, and who else.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Cluster {
    #[prost(uint64, tag = "1")]
    pub(super) cluster: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<Member>,
}

/// What members say to each other.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(uint64, tag = "1")]
    pub(super) from: u64,
    #[prost(uint64, tag = "2")]
    pub(super) to: u64,
    #[prost(uint64, tag = "3")]
    pub(super) term: u64,
    #[prost(oneof = "Body", tags = "4, 5, 6, 7, 8, 9, 10, 11")]
    pub(super) body: Option<Body>,
}

/// See [`Message`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Body {
    /// Vote for me, whose log ends there.
    #[prost(message, tag = "4")]
    Canvass(Place),
    /// The answer.
    #[prost(bool, tag = "5")]
    Vote(bool),
    #[prost(message, tag = "6")]
    Append(Append),
    #[prost(message, tag = "7")]
    Appended(Appended),
    /// For the leader: put this into the log.
    #[prost(message, tag = "8")]
    Propose(Proposal),
    /// The leader does not put it into the log.
    #[prost(message, tag = "9")]
    Refused(Refused),
    /// For the leader: how far is it, and does it still lead? A number of the asker's.
    #[prost(uint64, tag = "10")]
    Ask(u64),
    /// The answer.
    #[prost(message, tag = "11")]
    Answer(Answer),
}

/// An entry's place.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Place {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
}

/// What the leader says all the time: also that it leads.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Append {
    /// After this.
    #[prost(message, required, tag = "1")]
    pub(super) after: Place,
    #[prost(message, repeated, tag = "2")]
    pub(super) entries: Vec<Entry>,
    #[prost(uint64, tag = "3")]
    pub(super) commit: u64,
    /// The leader's own count.
    #[prost(uint64, tag = "4")]
    pub(super) round: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Appended {
    #[prost(bool, tag = "1")]
    pub(super) fits: bool,
    /// It has all of the leader's log up to this; if it did not fit, it may begin after this.
    #[prost(uint64, tag = "2")]
    pub(super) upto: u64,
    #[prost(uint64, tag = "3")]
    pub(super) round: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Proposal {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    /// A [`Command`].
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Refused {
    #[prost(uint64, tag = "1")]
    pub(super) request: u64,
    /// A [`Refusal`](super::store::Refusal).
    #[prost(uint32, tag = "2")]
    pub(super) why: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    /// All up to this is agreed.
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
}

//! What members agree on: keys with their newest values, and who is in the cluster. Every member carries out the same entries, and has the same. Pure.
//!
//! Of a key only its newest value is kept, as if a client compacted after each write.

use std::collections::{BTreeMap, BTreeSet};

use blackstart_proto::Message;
use blackstart_proto::etcd::{
    Compare, KeyValue, Member, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse, compare, request_op, response_op,
};

use super::consensus::Voters;
use super::wire::{Batch, Change, Command, Entry, Members, Pair, Place};

/// No larger request is taken, bytes; etcd's `--max-request-bytes`.
const LARGEST: usize = 1536 << 10;

/// Why something is not done, by etcd's own errors (api/v3rpc/rpctypes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    EmptyKey,
    DuplicateKey,
    TooLarge,
    Compacted,
    Future,
    NoLease,
    NotPlayed,
    BadUrls,
    UrlExists,
    TooManyLearners,
    NotFound,
    NotLearner,
    NotReady,
    Unhealthy,
    Learner,
    Stopped,
    TimedOut,
}

impl Refusal {
    pub(super) const ALL: [Self; 17] = [
        Self::EmptyKey,
        Self::DuplicateKey,
        Self::TooLarge,
        Self::Compacted,
        Self::Future,
        Self::NoLease,
        Self::NotPlayed,
        Self::BadUrls,
        Self::UrlExists,
        Self::TooManyLearners,
        Self::NotFound,
        Self::NotLearner,
        Self::NotReady,
        Self::Unhealthy,
        Self::Learner,
        Self::Stopped,
        Self::TimedOut,
    ];

    /// Between members it is a number.
    pub(super) fn of(number: u32) -> Self {
        let found = Self::ALL.into_iter().find(|one| *one as u32 == number);
        found.unwrap_or(Self::TimedOut)
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Txn(TxnResponse),
    Added(Box<Member>),
    Members,
    Published,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Store {
    keys: BTreeMap<Vec<u8>, Pair>,
    revision: i64,
    /// Nothing older than this was ever told of; a restore raises it.
    compacted: i64,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    /// The last entry that was carried out.
    applied: Place,
    /// What the database does not have yet.
    unsaved: Batch,
}

impl Store {
    /// Of a cluster that begins.
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            ..Self::default()
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn applied(&self) -> Place {
        self.applied
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of what is in use.
    pub(super) fn size(&self) -> usize {
        self.keys.values().map(Message::encoded_len).sum()
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    pub(super) fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub(super) fn voters(&self) -> Voters {
        let of = |is_learner| {
            let all = self.members.values();
            all.filter(move |member| member.is_learner == is_learner)
                .map(|member| member.id)
                .collect()
        };
        Voters {
            voters: of(false),
            learners: of(true),
        }
    }

    /// What was not taken yet, for the database.
    pub(super) fn take_unsaved(&mut self) -> Option<Batch> {
        if self.unsaved.index == 0 {
            return None;
        }
        Some(std::mem::take(&mut self.unsaved))
    }

    /// So many bytes are to be taken.
    pub(super) fn unsaved_bytes(&self) -> usize {
        self.unsaved.pairs.iter().map(|pair| pair.value.len()).sum()
    }

    /// A part of a database.
    pub(super) fn absorb(&mut self, batch: Batch) {
        self.applied = Place {
            index: batch.index,
            term: batch.term,
        };
        self.revision = batch.revision;
        self.compacted = batch.compacted;
        for pair in batch.pairs {
            self.keys.insert(pair.key.clone(), pair);
        }
        if let Some(Members { members, removed }) = batch.members {
            self.members = members.into_iter().map(|member| (member.id, member)).collect();
            self.removed = removed.into_iter().collect();
        }
    }

    fn note(&mut self) {
        self.unsaved.index = self.applied.index;
        self.unsaved.term = self.applied.term;
        self.unsaved.revision = self.revision;
        self.unsaved.compacted = self.compacted;
    }

    fn note_members(&mut self) {
        self.unsaved.members = Some(Members {
            members: self.members(),
            removed: self.removed.iter().copied().collect(),
        });
    }

    /// Carries an entry out. Who waits for it, and what came of it.
    pub(super) fn carry_out(&mut self, entry: &Entry) -> Option<(u64, Result<Outcome, Refusal>)> {
        self.applied = Place {
            index: entry.index,
            term: entry.term,
        };
        let command = entry.data.as_deref().and_then(|data| Command::decode(data).ok());
        let done = command.and_then(|Command { request, change }| Some((request, self.change(change?))));
        self.note();
        done
    }

    fn change(&mut self, change: Change) -> Result<Outcome, Refusal> {
        match change {
            Change::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Change::Add(member) => {
                self.may_add(&member)?;
                self.members.insert(member.id, member.clone());
                self.note_members();
                Ok(Outcome::Added(Box::new(member)))
            }
            Change::Remove(id) => {
                self.members.remove(&id).ok_or(Refusal::NotFound)?;
                self.removed.insert(id);
                self.note_members();
                Ok(Outcome::Members)
            }
            Change::Promote(id) => {
                let member = self.members.get_mut(&id).ok_or(Refusal::NotFound)?;
                if !member.is_learner {
                    return Err(Refusal::NotLearner);
                }
                member.is_learner = false;
                self.note_members();
                Ok(Outcome::Members)
            }
            Change::Publish(told) => {
                let member = self.members.get_mut(&told.id).ok_or(Refusal::NotFound)?;
                member.name = told.name;
                member.client_urls = told.client_urls;
                self.note_members();
                Ok(Outcome::Published)
            }
        }
    }

    fn may_add(&self, member: &Member) -> Result<(), Refusal> {
        let is_known = |url: &String| {
            let mut all = self.members.values();
            all.any(|one| one.peer_urls.contains(url))
        };
        if member.peer_urls.iter().any(is_known) {
            return Err(Refusal::UrlExists);
        }
        // etcd's `--max-learners`.
        if member.is_learner && self.members.values().any(|one| one.is_learner) {
            return Err(Refusal::TooManyLearners);
        }
        Ok(())
    }

    /// The header of an answer, but for who gives it.
    fn header(&self) -> ResponseHeader {
        ResponseHeader {
            revision: self.revision,
            ..ResponseHeader::default()
        }
    }

    /// Reads; without a write in between, that is of this revision.
    pub(super) fn range(&self, asked: &RangeRequest) -> Result<RangeResponse, Refusal> {
        if asked.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if asked.revision > self.revision {
            return Err(Refusal::Future);
        }
        if asked.revision > 0 && asked.revision < self.revision {
            return Err(Refusal::Compacted);
        }
        let is_in = |key: &[u8]| match asked.range_end.as_slice() {
            [] => key == asked.key,
            [0] => true,
            end => key < end,
        };
        let limit = usize::try_from(asked.limit).ok().filter(|limit| *limit > 0);
        let mut found = self
            .keys
            .range(asked.key.clone()..)
            .map(|(_, pair)| pair)
            .take_while(|pair| is_in(&pair.key));
        let of = |pair: &Pair| KeyValue {
            key: pair.key.clone(),
            create_revision: pair.create,
            mod_revision: pair.modified,
            value: pair.value.clone(),
            lease: 0,
        };
        let kvs = found.by_ref().take(limit.unwrap_or(usize::MAX)).map(of).collect();
        Ok(RangeResponse {
            header: Some(self.header()),
            kvs,
            more: found.next().is_some(),
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pair = self.keys.get(&compare.key);
        let or_none = |of: fn(&Pair) -> i64| pair.map_or(0, of);
        match &compare.target_union {
            Some(compare::TargetUnion::CreateRevision(revision)) => or_none(|pair| pair.create) == *revision,
            Some(compare::TargetUnion::ModRevision(revision)) => or_none(|pair| pair.modified) == *revision,
            Some(compare::TargetUnion::Value(value)) => pair.is_some_and(|pair| pair.value == *value),
            None => false,
        }
    }

    fn txn(&mut self, txn: TxnRequest) -> Result<TxnResponse, Refusal> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { txn.success } else { txn.failure };
        // Of two writes of one transaction both are of one revision.
        let next = self.revision + 1;
        let mut has_written = false;
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request {
                Some(request_op::Request::RequestPut(put)) => {
                    self.put(put, next);
                    has_written = true;
                    response_op::Response::ResponsePut(PutResponse {})
                }
                Some(request_op::Request::RequestRange(range)) => {
                    response_op::Response::ResponseRange(self.range(&range)?)
                }
                None => continue,
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        if has_written {
            self.revision = next;
        }
        Ok(TxnResponse {
            header: Some(self.header()),
            succeeded,
            responses,
        })
    }

    fn put(&mut self, put: PutRequest, revision: i64) {
        let create = self.keys.get(&put.key).map_or(revision, |pair| pair.create);
        let pair = Pair {
            key: put.key.clone(),
            create,
            modified: revision,
            value: put.value,
        };
        self.unsaved.pairs.push(pair.clone());
        self.keys.insert(put.key, pair);
    }
}

/// What is wrong with a transaction before anybody agrees on it.
pub(super) fn check(txn: &TxnRequest) -> Result<(), Refusal> {
    if txn.encoded_len() > LARGEST {
        return Err(Refusal::TooLarge);
    }
    let is_played = |compare: &Compare| {
        compare.result == compare::CompareResult::Equal as i32
            && compare.target != compare::CompareTarget::Version as i32
            && compare.target_union.is_some()
    };
    if !txn.compare.iter().all(is_played) {
        return Err(Refusal::NotPlayed);
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for ops in [&txn.success, &txn.failure] {
        let mut keys = BTreeSet::new();
        for RequestOp { request } in ops {
            match request {
                Some(request_op::Request::RequestPut(put)) if put.key.is_empty() => {
                    return Err(Refusal::EmptyKey);
                }
                Some(request_op::Request::RequestPut(put)) if put.lease != 0 => {
                    return Err(Refusal::NoLease);
                }
                Some(request_op::Request::RequestPut(put)) if !keys.insert(&put.key) => {
                    return Err(Refusal::DuplicateKey);
                }
                Some(request_op::Request::RequestRange(range)) if range.key.is_empty() => {
                    return Err(Refusal::EmptyKey);
                }
                // What it finds is not known before it is carried out, and what was written then stays.
                Some(request_op::Request::RequestRange(range)) if range.revision != 0 => {
                    return Err(Refusal::NotPlayed);
                }
                Some(request_op::Request::RequestPut(_) | request_op::Request::RequestRange(_)) | None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> RequestOp {
        RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: key.into(),
                value: value.into(),
                lease: 0,
            })),
        }
    }

    fn carried_out(store: &mut Store, change: Change) -> Result<Outcome, Refusal> {
        let index = store.applied().index + 1;
        let command = Command {
            request: index,
            change: Some(change),
        };
        let entry = Entry {
            kind: Entry::NORMAL,
            term: 1,
            index,
            data: Some(command.encode_to_vec()),
        };
        let (request, outcome) = store.carry_out(&entry).unwrap();
        assert_eq!(request, index);
        outcome
    }

    fn member(id: u64, url: &str, is_learner: bool) -> Member {
        Member {
            id,
            peer_urls: vec![url.to_owned()],
            is_learner,
            ..Member::default()
        }
    }

    #[test]
    fn what_the_database_was_given_is_what_there_is() {
        let mut store = Store::new();
        let mut other = Store::default();
        for round in 0..3 {
            let txn = TxnRequest {
                success: vec![put("a", &round.to_string()), put(&format!("b{round}"), "x")],
                ..TxnRequest::default()
            };
            carried_out(&mut store, Change::Txn(txn)).unwrap();
            let added = Change::Add(member(round, &format!("http://127.0.0.1:{round}"), false));
            carried_out(&mut store, added).unwrap();
            other.absorb(store.take_unsaved().unwrap());
        }
        assert_eq!((store.revision(), store.keys()), (4, 4));
        assert_eq!(store.take_unsaved(), None);
        assert_eq!(other, store);
    }

    #[test]
    fn who_is_in_changes_by_what_may_be_and_who_left_is_known() {
        let mut store = Store::new();
        let mut done = |change| carried_out(&mut store, change).map(drop);
        done(Change::Add(member(1, "http://127.0.0.1:1", false))).unwrap();
        let again = member(2, "http://127.0.0.1:1", true);
        assert_eq!(done(Change::Add(again)), Err(Refusal::UrlExists));
        done(Change::Add(member(2, "http://127.0.0.1:2", true))).unwrap();
        let another = member(3, "http://127.0.0.1:3", true);
        assert_eq!(done(Change::Add(another.clone())), Err(Refusal::TooManyLearners));
        assert_eq!(done(Change::Promote(1)), Err(Refusal::NotLearner));
        done(Change::Promote(2)).unwrap();
        done(Change::Add(another)).unwrap();
        done(Change::Remove(2)).unwrap();
        assert_eq!(done(Change::Remove(2)), Err(Refusal::NotFound));
        let who = store.voters();
        assert_eq!(
            (who.voters, who.learners),
            (BTreeSet::from([1]), BTreeSet::from([3]))
        );
        assert!(store.is_removed(2) && !store.is_removed(1));
    }

    #[test]
    fn every_refusal_comes_back_as_itself() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::of(refusal as u32), refusal);
        }
    }
}

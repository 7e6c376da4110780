//! How members agree on one log: Raft, with a leader of a term, as etcd does it (raft/raft.go of etcd 3.5). Pure: no clock, no disk, no network.
//!
//! ```text
//!  message, tick, proposal ──► Core ──► what is to be saved, then what is to be sent, then what is agreed
//! ```
//! Whoever feeds it has to keep that order: nothing is sent before the log and the vote are on the disk, and nothing is carried out before it is
//! agreed. Who votes changes by one member at a time, once the entry that says so is carried out. A leader that hears of no majority steps down; a
//! member that hears of a leader votes for nobody else. Reads ask the leader how far it is, and it answers once a majority has said that it still leads.
//!
//! What etcd has and this has not: a vote before the vote, the handing over of the lead, windows of flow control, joint changes.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::StdRng;

use super::log::Log;
use super::wire::{Answer, Append, Appended, Body, Entry, HardState, Message, Place, Proposal, Refused};

/// A member without a leader waits for so many ticks, or up to twice as many; the leader looks as often whether a majority answers.
pub(super) const ELECTION: u32 = 10;
/// So much is sent to one member at once, bytes.
const AT_ONCE: usize = 1 << 20;

/// Who takes part. Learners have the log and do not vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Voters {
    pub(super) voters: BTreeSet<u64>,
    pub(super) learners: BTreeSet<u64>,
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate { granted: BTreeSet<u64> },
    Leader(Lead),
}

#[derive(Debug, Default)]
struct Lead {
    peers: BTreeMap<u64, Peer>,
    round: u64,
    reads: Vec<Read>,
    /// The newest change of members that was put into the log.
    last_change: u64,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    /// It has everything up to this.
    upto: u64,
    next: u64,
    round: u64,
    /// It was heard of since the last look.
    is_there: bool,
    /// It lacks what the log does not have any more: a database is on its way.
    awaits_database: bool,
}

#[derive(Debug)]
struct Read {
    from: u64,
    number: u64,
    round: u64,
    index: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    id: u64,
    hard: HardState,
    who: Voters,
    pub(super) log: Log,
    role: Role,
    /// 0: none is known.
    leader: u64,
    /// Ticks since a leader was heard of, or since the last look of a leader.
    elapsed: u32,
    patience: u32,
    random: StdRng,
    out: Out,
}

/// What came of it, in the order in which it may be used.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// To be sent once everything is on the disk.
    pub(super) messages: Vec<Message>,
    /// To whom the database is to be sent.
    pub(super) databases: Vec<u64>,
    /// Reads of this member that may go on once so much is carried out.
    pub(super) answers: Vec<Answer>,
}

impl Core {
    pub(super) fn new(id: u64, hard: HardState, who: Voters, log: Log, random: StdRng) -> Self {
        let mut core = Self {
            id,
            hard,
            who,
            log,
            role: Role::Follower,
            leader: 0,
            elapsed: 0,
            patience: 0,
            random,
            out: Out::default(),
        };
        core.wait_anew();
        core
    }

    /// All begin at once, and nobody can have a leader yet.
    pub(super) fn hurry(&mut self) {
        self.patience = self.random.random_range(1..ELECTION);
    }

    pub(super) fn hard(&self) -> HardState {
        self.hard
    }

    pub(super) fn leader(&self) -> u64 {
        self.leader
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub(super) fn take(&mut self) -> Out {
        std::mem::take(&mut self.out)
    }

    fn wait_anew(&mut self) {
        self.elapsed = 0;
        self.patience = self.random.random_range(ELECTION..2 * ELECTION);
    }

    fn majority(&self) -> usize {
        self.who.voters.len() / 2 + 1
    }

    fn votes(&self) -> bool {
        self.who.voters.contains(&self.id)
    }

    fn others(&self) -> Vec<u64> {
        let all = self.who.voters.iter().chain(&self.who.learners);
        all.copied().filter(|id| *id != self.id).collect()
    }

    fn send(&mut self, to: u64, body: Body) {
        self.out.messages.push(Message {
            from: self.id,
            to,
            term: self.hard.term,
            body: Some(body),
        });
    }

    /// Time goes by.
    pub(super) fn tick(&mut self) {
        self.elapsed = self.elapsed.saturating_add(1);
        if self.is_leader() {
            if self.elapsed >= ELECTION {
                self.elapsed = 0;
                if !self.has_majority() {
                    self.follow(self.hard.term, 0);
                    return;
                }
            }
            self.broadcast();
        } else if self.elapsed >= self.patience && self.votes() {
            self.stand();
        }
    }

    /// A majority was heard of since the last look.
    fn has_majority(&mut self) -> bool {
        let (me, majority) = (self.id, self.majority());
        let Role::Leader(lead) = &mut self.role else {
            return false;
        };
        let there = self.who.voters.iter();
        let there = there
            .filter(|id| **id == me || lead.peers.get(id).is_some_and(|peer| peer.is_there))
            .count();
        lead.peers.values_mut().for_each(|peer| peer.is_there = false);
        there >= majority
    }

    /// Stands for election.
    fn stand(&mut self) {
        self.hard.term += 1;
        self.hard.vote = self.id;
        self.leader = 0;
        self.wait_anew();
        self.role = Role::Candidate {
            granted: BTreeSet::from([self.id]),
        };
        if self.majority() == 1 {
            self.lead();
            return;
        }
        let ends = self.log.last();
        let me = self.id;
        let voters: Vec<_> = self.who.voters.iter().copied().collect();
        for to in voters.into_iter().filter(|to| *to != me) {
            self.send(to, Body::Canvass(ends));
        }
    }

    fn lead(&mut self) {
        let next = self.log.last().index + 1;
        let peer = Peer {
            next,
            is_there: true,
            ..Peer::default()
        };
        let peers = self.others().into_iter().map(|id| (id, peer.clone())).collect();
        self.leader = self.id;
        self.elapsed = 0;
        self.role = Role::Leader(Lead {
            peers,
            // One of an earlier leader may not be carried out yet.
            last_change: next - 1,
            ..Lead::default()
        });
        self.append(Entry::NORMAL, None);
    }

    fn follow(&mut self, term: u64, leader: u64) {
        if term > self.hard.term {
            self.hard.term = term;
            self.hard.vote = 0;
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.wait_anew();
    }

    fn append(&mut self, kind: i32, data: Option<Vec<u8>>) {
        let index = self.log.last().index + 1;
        self.log.push(Entry {
            kind,
            term: self.hard.term,
            index,
            data,
        });
        self.agree();
        self.broadcast();
    }

    /// Puts a command into the log, or hands it on to the leader.
    ///
    /// # Errors
    /// There is none: it is given back.
    pub(super) fn propose(&mut self, proposal: Proposal) -> Result<(), Proposal> {
        let index = self.log.last().index + 1;
        if let Role::Leader(lead) = &mut self.role {
            if proposal.kind == Entry::MEMBERS {
                lead.last_change = index;
            }
            self.append(proposal.kind, Some(proposal.data));
            return Ok(());
        }
        if self.leader == 0 {
            return Err(proposal);
        }
        self.send(self.leader, Body::Propose(proposal));
        Ok(())
    }

    /// Tells a member that what it has proposed is not put into the log.
    pub(super) fn refuse(&mut self, to: u64, refused: Refused) {
        self.send(to, Body::Refused(refused));
    }

    /// An earlier change of members is not carried out yet.
    pub(super) fn is_changing(&self, applied: u64) -> bool {
        match &self.role {
            Role::Leader(lead) => lead.last_change > applied,
            Role::Follower | Role::Candidate { .. } => false,
        }
    }

    /// A member has nine tenths of the leader's log; etcd's `isLearnerReady`.
    pub(super) fn is_in_sync(&self, id: u64) -> bool {
        match &self.role {
            Role::Leader(lead) => lead
                .peers
                .get(&id)
                .is_some_and(|peer| peer.upto * 10 >= self.log.last().index * 9),
            Role::Follower | Role::Candidate { .. } => false,
        }
    }

    /// So many voters but for this one have answered of late.
    pub(super) fn heard_of_without(&self, id: u64) -> usize {
        let Role::Leader(lead) = &self.role else {
            return 0;
        };
        let is_there = |voter: &&u64| {
            **voter == self.id
                || lead
                    .peers
                    .get(voter)
                    .is_some_and(|peer| peer.is_there || peer.round + u64::from(ELECTION) >= lead.round)
        };
        let voters = self.who.voters.iter().filter(|voter| **voter != id);
        voters.filter(is_there).count()
    }

    /// Asks how far the log is agreed on; the answer comes with [`Out::answers`], or is lost.
    pub(super) fn read(&mut self, number: u64) {
        self.read_for(self.id, number);
    }

    fn read_for(&mut self, from: u64, number: u64) {
        let agreed = self.hard.commit;
        let is_own_term = self.log.term(agreed) == Some(self.hard.term);
        match &mut self.role {
            // Before it has agreed on something itself it does not know what others had.
            Role::Leader(lead) if is_own_term => {
                lead.round += 1;
                lead.reads.push(Read {
                    from,
                    number,
                    round: lead.round,
                    index: agreed,
                });
                self.broadcast();
                self.answer();
            }
            Role::Follower if self.leader != 0 && from == self.id => {
                self.send(self.leader, Body::Ask(number));
            }
            Role::Leader(_) | Role::Follower | Role::Candidate { .. } => {}
        }
    }

    /// Answers the reads since which a majority has said that this one leads.
    fn answer(&mut self) {
        let (me, majority) = (self.id, self.majority());
        let Role::Leader(lead) = &mut self.role else {
            return;
        };
        let (voters, peers) = (&self.who.voters, &lead.peers);
        let is_sure = |read: &mut Read| {
            let said = voters
                .iter()
                .filter(|id| **id == me || peers.get(id).is_some_and(|peer| peer.round >= read.round));
            said.count() >= majority
        };
        let sure: Vec<_> = lead.reads.extract_if(.., is_sure).collect();
        for read in sure {
            let answer = Answer {
                number: read.number,
                index: read.index,
            };
            if read.from == me {
                self.out.answers.push(answer);
            } else {
                self.send(read.from, Body::Answer(answer));
            }
        }
    }

    fn broadcast(&mut self) {
        for to in self.others() {
            self.send_append(to);
        }
    }

    fn send_append(&mut self, to: u64) {
        let commit = self.hard.commit;
        let Role::Leader(lead) = &mut self.role else {
            return;
        };
        let Some(peer) = lead.peers.get_mut(&to) else {
            return;
        };
        let round = lead.round;
        let before = peer.next - 1;
        let append = match self.log.term(before) {
            Some(term) if !peer.awaits_database => {
                let entries = self.log.from(peer.next, AT_ONCE);
                // What is lost on the way is noticed by what comes next.
                peer.next += entries.len() as u64;
                Append {
                    after: Place { index: before, term },
                    entries,
                    commit,
                    round,
                }
            }
            _ => {
                if !peer.awaits_database && peer.is_there {
                    peer.awaits_database = true;
                    self.out.databases.push(to);
                }
                // That this one leads, and no more: everybody has what comes before the first entry.
                Append {
                    round,
                    ..Append::default()
                }
            }
        };
        self.send(to, Body::Append(append));
    }

    /// Takes what a majority has, of this term, for agreed.
    fn agree(&mut self) {
        let (me, last, majority) = (self.id, self.log.last().index, self.majority());
        let Role::Leader(lead) = &self.role else {
            return;
        };
        let has = |id: &u64| match lead.peers.get(id) {
            _ if *id == me => last,
            Some(peer) => peer.upto,
            None => 0,
        };
        let mut all: Vec<_> = self.who.voters.iter().map(has).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(agreed) = all.get(majority - 1)
            && *agreed > self.hard.commit
            && self.log.term(*agreed) == Some(self.hard.term)
        {
            self.hard.commit = *agreed;
        }
    }

    /// Who takes part, as an entry that was carried out says.
    pub(super) fn set(&mut self, who: Voters) {
        self.who = who;
        let others = self.others();
        let next = self.log.last().index + 1;
        if let Role::Leader(lead) = &mut self.role {
            lead.peers.retain(|id, _| others.contains(id));
            for id in others {
                lead.peers.entry(id).or_insert_with(|| Peer {
                    next,
                    ..Peer::default()
                });
            }
            if self.votes() {
                self.agree();
                self.broadcast();
            } else {
                self.follow(self.hard.term, 0);
            }
        }
    }

    /// A database that came from the leader has everything up to there. Whether it is newer than what was here.
    pub(super) fn install(&mut self, upto: Place, who: Voters) -> bool {
        if upto.index <= self.hard.commit {
            return false;
        }
        self.hard.commit = upto.index;
        if self.log.term(upto.index) != Some(upto.term) {
            self.log.begin_after(upto);
        }
        self.who = who;
        true
    }

    /// A database arrived somewhere and has everything up to there; `None`: it did not arrive.
    pub(super) fn sent_database(&mut self, to: u64, upto: Option<u64>) {
        let last = self.log.last().index;
        if let Role::Leader(lead) = &mut self.role
            && let Some(peer) = lead.peers.get_mut(&to)
        {
            peer.awaits_database = false;
            peer.upto = peer.upto.max(upto.unwrap_or_default().min(last));
            peer.next = peer.next.max(peer.upto + 1);
        }
    }

    /// A message from another member.
    pub(super) fn step(&mut self, message: Message) {
        let Message { from, term, body, .. } = message;
        let Some(body) = body else { return };
        if term > self.hard.term {
            let has_leader = self.is_leader() || self.leader != 0 && self.elapsed < ELECTION;
            match &body {
                Body::Canvass(_) if has_leader => return,
                Body::Append(_) => self.follow(term, from),
                Body::Canvass(_)
                | Body::Vote(_)
                | Body::Appended(_)
                | Body::Propose(_)
                | Body::Refused(_)
                | Body::Ask(_)
                | Body::Answer(_) => self.follow(term, 0),
            }
        }
        if term < self.hard.term {
            // A leader of the past hears of it, and so does not hold up one who has seen a later term.
            if let Body::Append(_) = body {
                self.send(from, Body::Appended(Appended::default()));
            }
            return;
        }
        match body {
            Body::Canvass(ends) => self.canvassed(from, ends),
            Body::Vote(is_granted) => self.voted(from, is_granted),
            Body::Append(append) => self.appends(from, append),
            Body::Appended(appended) => self.appended(from, appended),
            Body::Propose(proposal) => {
                if self.is_leader() {
                    // A leader takes everything.
                    let _taken = self.propose(proposal);
                }
            }
            Body::Ask(number) => self.read_for(from, number),
            Body::Answer(answer) => self.out.answers.push(answer),
            // For whoever waits for it.
            Body::Refused(_) => {}
        }
    }

    fn canvassed(&mut self, from: u64, ends: Place) {
        let last = self.log.last();
        let knows_enough = (ends.term, ends.index) >= (last.term, last.index);
        let is_free = self.hard.vote == from || self.hard.vote == 0 && self.leader == 0;
        let granted = is_free && knows_enough;
        if granted {
            self.hard.vote = from;
            self.wait_anew();
        }
        self.send(from, Body::Vote(granted));
    }

    fn voted(&mut self, from: u64, is_granted: bool) {
        let majority = self.majority();
        if let Role::Candidate { granted } = &mut self.role
            && is_granted
            && self.who.voters.contains(&from)
        {
            granted.insert(from);
            if granted.len() >= majority {
                self.lead();
            }
        }
    }

    fn appends(&mut self, from: u64, append: Append) {
        if !self.is_leader() {
            self.role = Role::Follower;
            self.leader = from;
            self.elapsed = 0;
        }
        let Append {
            after,
            entries,
            commit,
            round,
        } = append;
        let answer = if after.index < self.hard.commit {
            // Agreed, so the same.
            let upto = entries.last().map_or(after.index, |entry| entry.index);
            self.log.accept(entries, self.hard.commit);
            let upto = upto.max(self.hard.commit);
            self.hard.commit = self.hard.commit.max(commit.min(upto));
            Appended {
                fits: true,
                upto,
                round,
            }
        } else if self.log.term(after.index) == Some(after.term) {
            let upto = entries.last().map_or(after.index, |entry| entry.index);
            self.log.accept(entries, self.hard.commit);
            self.hard.commit = self.hard.commit.max(commit.min(upto));
            Appended {
                fits: true,
                upto,
                round,
            }
        } else {
            Appended {
                fits: false,
                upto: self.hard.commit,
                round,
            }
        };
        self.send(from, Body::Appended(answer));
    }

    fn appended(&mut self, from: u64, said: Appended) {
        let last = self.log.last().index;
        let Role::Leader(lead) = &mut self.role else {
            return;
        };
        let Some(peer) = lead.peers.get_mut(&from) else {
            return;
        };
        peer.is_there = true;
        peer.round = peer.round.max(said.round);
        let mut goes_on = false;
        if said.fits {
            peer.upto = peer.upto.max(said.upto.min(last));
            peer.next = peer.next.max(peer.upto + 1);
            goes_on = peer.next <= last && !peer.awaits_database;
        } else {
            let next = peer.upto.max(said.upto) + 1;
            if next < peer.next {
                peer.next = next;
                goes_on = !peer.awaits_database;
            }
        }
        let before = self.hard.commit;
        self.agree();
        if self.hard.commit > before {
            self.broadcast();
        } else if goes_on {
            self.send_append(from);
        }
        self.answer();
    }
}

#[cfg(test)]
mod tests;

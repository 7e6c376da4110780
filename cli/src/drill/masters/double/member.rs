//! A member at work: one thread that has its log, its database and its part in the consensus, and takes one input after the other.
//!
//! ```text
//!  clients (serve) ─┐                    ┌─► the log is on the disk ─► messages go out ─► what is agreed is carried out ─► answers
//!  members (peers) ─┼─► Input ─► Core ──┤
//!  time ────────────┘                    └─► ten times a second, what was carried out goes into the database
//! ```
//! The database may be behind the log: what it lacks is carried out anew at the next start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::Message as _;
use blackstart_proto::etcd::{Member, RangeRequest, RangeResponse};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::consensus::Core;
use super::db::{self, Database, DatabaseError};
use super::peers::Peers;
use super::store::{Outcome, Refusal, Store};
use super::wal::Wal;
use super::wire::{Body, Change, Command, Entry, Ids, Message, Proposal, Refused, SnapshotMark};

/// etcd's `--heartbeat-interval`.
const TICK: Duration = Duration::from_millis(100);
/// What was carried out is in the database after this at the latest; etcd's `--backend-batch-interval`.
const FLUSH: Duration = Duration::from_millis(100);
/// Or once it is so much, bytes.
const FLUSH_AT: usize = 4 << 20;
/// So long a request may wait; etcd's 5 s and two elections.
pub(super) const PATIENCE: Duration = Duration::from_secs(7);
/// A read that got no answer is asked again after this, and so is what a member tells of itself.
const AGAIN: Duration = Duration::from_millis(500);
/// A disk that takes longer is told of; etcd's own limit.
const SLOW: Duration = Duration::from_secs(1);
/// Inputs that are taken before anything is written.
const AT_ONCE: usize = 64;
/// So much of the log stays in memory for those who are behind, bytes.
const REMEMBERED: usize = 16 << 20;

type Reply<T> = oneshot::Sender<T>;

/// What comes to a member.
#[derive(Debug)]
pub(super) enum Input {
    Peer(Message),
    Propose(Change, Reply<Result<Outcome, Refusal>>),
    /// As a majority has it.
    Range(RangeRequest, Reply<Result<RangeResponse, Refusal>>),
    Status(Reply<Told>),
    Members(Reply<Vec<Member>>),
    /// The database as a file, and how many bytes of it count.
    Snapshot(Reply<Result<(File, u64), String>>),
    /// A database came from the leader, in this file; the entry up to which this member has everything now.
    Received(PathBuf, Reply<Result<u64, String>>),
    /// One arrived there, and that has everything up to this entry; or did not.
    SentDatabase(u64, Option<u64>),
    Stop,
}

/// How a member is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) ids: Ids,
    pub(super) leader: u64,
    pub(super) term: u64,
    pub(super) revision: i64,
    /// Agreed up to this entry.
    pub(super) agreed: u64,
    pub(super) applied: u64,
    pub(super) bytes: u64,
    pub(super) bytes_in_use: u64,
    pub(super) is_learner: bool,
}

/// Why a member ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("write its log: {0}")]
    Wal(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the entry {0} is agreed on and not in the log")]
    Gap(u64),
}

#[derive(Debug)]
struct Waiting {
    to: Reply<Result<Outcome, Refusal>>,
    until: Instant,
}

#[derive(Debug)]
struct Reading {
    asked: RangeRequest,
    to: Reply<Result<RangeResponse, Refusal>>,
    until: Instant,
    again: Instant,
    /// May go on once so much is carried out.
    index: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ids: Ids,
    pub(super) core: Core,
    pub(super) wal: Wal,
    pub(super) database: Database,
    pub(super) store: Store,
    pub(super) peers: Peers,
    /// Whom it has heard of before the log tells it: one that joins has to answer the leader.
    pub(super) known: Vec<Member>,
    /// What it tells of itself.
    pub(super) name: String,
    pub(super) client_urls: Vec<String>,
    pub(super) work: Work,
}

/// What a member has to do still.
#[derive(Debug)]
pub(super) struct Work {
    inputs: mpsc::Sender<Input>,
    waiting: BTreeMap<u64, Waiting>,
    reading: BTreeMap<u64, Reading>,
    /// Nobody led when they came.
    unsent: Vec<(u64, Proposal)>,
    next: u64,
    flushed: Instant,
    told: Instant,
    /// The last that was told of.
    leader: u64,
}

impl Work {
    pub(super) fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self {
            inputs,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            unsent: Vec::new(),
            // No other start of any member has the same.
            next: rand::random(),
            flushed: Instant::now(),
            told: Instant::now(),
            leader: 0,
        }
    }
}

impl Node {
    /// Until it is told to stop.
    ///
    /// # Errors
    /// It cannot go on.
    pub(super) fn run(mut self, mut inputs: mpsc::Receiver<Input>, runtime: &Handle) -> Result<(), Ended> {
        self.reach();
        let mut tick = Instant::now() + TICK;
        loop {
            let next = runtime.block_on(timeout_at(tick, inputs.recv()));
            let mut next = next.ok().flatten();
            let mut taken = 0;
            while let Some(input) = next {
                if matches!(input, Input::Stop) {
                    self.settle()?;
                    self.flush()?;
                    return Ok(());
                }
                self.take(input)?;
                taken += 1;
                next = if taken < AT_ONCE {
                    inputs.try_recv().ok()
                } else {
                    None
                };
            }
            if Instant::now() >= tick {
                // One that was held up does not count what it missed.
                tick = Instant::now() + TICK;
                self.core.tick();
                self.look_at_the_clock();
            }
            self.settle()?;
            if self.store.is_removed(self.ids.member) {
                self.flush()?;
                return Err(Ended::Removed);
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), Ended> {
        match input {
            Input::Peer(message) => self.hear(message),
            Input::Propose(change, to) => self.propose(change, Some(to)),
            Input::Range(asked, to) => {
                let number = self.number();
                let now = Instant::now();
                let reading = Reading {
                    asked,
                    to,
                    until: now + PATIENCE,
                    again: now + AGAIN,
                    index: None,
                };
                self.work.reading.insert(number, reading);
                self.core.read(number);
            }
            Input::Status(to) => drop(to.send(self.told())),
            Input::Members(to) => drop(to.send(self.store.members())),
            Input::Snapshot(to) => {
                self.flush()?;
                let file = File::open(self.database.path());
                let file = file.map(|file| (file, self.database.bytes()));
                drop(to.send(file.map_err(|error| error.to_string())));
            }
            Input::Received(file, to) => {
                let installed = self.install(&file)?;
                drop(to.send(installed));
            }
            Input::SentDatabase(to, upto) => self.core.sent_database(to, upto),
            Input::Stop => {}
        }
        Ok(())
    }

    /// Has a way to everybody who is in the cluster, or was when this one came.
    fn reach(&mut self) {
        let mut all = self.store.members();
        let others = self.known.iter().filter(|known| {
            let is_told = self.store.member(known.id).is_some();
            !is_told && !self.store.is_removed(known.id)
        });
        all.extend(others.cloned());
        self.peers.set(&all);
    }

    fn number(&mut self) -> u64 {
        self.work.next = self.work.next.wrapping_add(1);
        self.work.next
    }

    fn told(&self) -> Told {
        let hard = self.core.hard();
        let me = self.store.member(self.ids.member);
        Told {
            ids: self.ids,
            leader: self.core.leader(),
            term: hard.term,
            revision: self.store.revision(),
            agreed: hard.commit,
            applied: self.store.applied().index,
            bytes: self.database.bytes(),
            bytes_in_use: self.store.size() as u64,
            // One that does not know itself yet has just begun to learn.
            is_learner: me.is_none_or(|me| me.is_learner),
        }
    }

    fn hear(&mut self, message: Message) {
        if self.store.is_removed(message.from) {
            return;
        }
        match &message.body {
            Some(Body::Propose(proposal)) if self.core.is_leader() => {
                if let Ok(Command {
                    request,
                    change: Some(change),
                }) = Command::decode(&*proposal.data)
                    && let Err(why) = self.may(&change)
                {
                    let why = why as u32;
                    self.core.refuse(message.from, Refused { request, why });
                    return;
                }
            }
            Some(Body::Refused(refused)) => {
                if let Some(waiting) = self.work.waiting.remove(&refused.request) {
                    drop(waiting.to.send(Err(Refusal::of(refused.why))));
                }
            }
            _ => {}
        }
        self.core.step(message);
    }

    /// What a leader looks at before it puts a change into the log (etcd's `--strict-reconfig-check`).
    fn may(&self, change: &Change) -> Result<(), Refusal> {
        if change.kind() == Entry::MEMBERS && self.core.is_changing(self.store.applied().index) {
            return Err(Refusal::Unhealthy);
        }
        let voters = self.store.voters().voters;
        let enough = |left: usize, without: u64| {
            let is_enough = self.core.heard_of_without(without) > left / 2;
            if is_enough {
                Ok(())
            } else {
                Err(Refusal::Unhealthy)
            }
        };
        match change {
            Change::Add(member) if member.is_learner => Ok(()),
            Change::Add(_) => enough(voters.len() + 1, 0),
            Change::Remove(id) if self.store.member(*id).is_none() => Err(Refusal::NotFound),
            Change::Remove(id) if voters.contains(id) => enough(voters.len() - 1, *id),
            Change::Txn(_) | Change::Publish(_) | Change::Remove(_) => Ok(()),
            Change::Promote(id) => match self.store.member(*id) {
                None => Err(Refusal::NotFound),
                Some(member) if !member.is_learner => Err(Refusal::NotLearner),
                Some(_) if !self.core.is_in_sync(*id) => Err(Refusal::NotReady),
                Some(_) => Ok(()),
            },
        }
    }

    fn propose(&mut self, change: Change, to: Option<Reply<Result<Outcome, Refusal>>>) {
        if self.core.is_leader()
            && let Err(why) = self.may(&change)
        {
            if let Some(to) = to {
                drop(to.send(Err(why)));
            }
            return;
        }
        let request = self.number();
        let kind = change.kind();
        let command = Command {
            request,
            change: Some(change),
        };
        if let Some(to) = to {
            let until = Instant::now() + PATIENCE;
            self.work.waiting.insert(request, Waiting { to, until });
        }
        let data = command.encode_to_vec();
        if let Err(proposal) = self.core.propose(Proposal { kind, data }) {
            self.work.unsent.push((request, proposal));
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let late = self
            .work
            .waiting
            .extract_if(.., |_, waiting| waiting.until <= now);
        for (_, waiting) in late {
            drop(waiting.to.send(Err(Refusal::TimedOut)));
        }
        let late = self
            .work
            .reading
            .extract_if(.., |_, reading| reading.until <= now);
        for (_, reading) in late {
            drop(reading.to.send(Err(Refusal::TimedOut)));
        }
        for (number, reading) in &mut self.work.reading {
            if reading.index.is_none() && reading.again <= now {
                reading.again = now + AGAIN;
                self.core.read(*number);
            }
        }
        let waiting = &self.work.waiting;
        self.work
            .unsent
            .retain(|(request, _)| waiting.contains_key(request));
        if self.core.leader() != 0 {
            for (request, proposal) in std::mem::take(&mut self.work.unsent) {
                if let Err(back) = self.core.propose(proposal) {
                    self.work.unsent.push((request, back));
                }
            }
            self.publish(now);
        }
    }

    /// Tells the others its name and where clients find it, until they know.
    fn publish(&mut self, now: Instant) {
        let me = self.store.member(self.ids.member);
        let is_known = me.is_none_or(|me| me.name == self.name && me.client_urls == self.client_urls);
        if is_known || self.work.told > now {
            return;
        }
        self.work.told = now + AGAIN;
        let me = Member {
            id: self.ids.member,
            name: self.name.clone(),
            client_urls: self.client_urls.clone(),
            ..Member::default()
        };
        self.propose(Change::Publish(me), None);
    }

    /// Saves, sends, carries out, and answers; over and over, until there is nothing to do.
    fn settle(&mut self) -> Result<(), Ended> {
        loop {
            let unsaved = self.core.log.take_unsaved();
            let begun = Instant::now();
            self.wal.save(&unsaved, self.core.hard())?;
            if begun.elapsed() > SLOW {
                say(&format!("slow fdatasync: it took {:?}", begun.elapsed()));
            }
            self.tell_of_the_leader();
            let out = self.core.take();
            let is_idle = unsaved.is_empty() && out.messages.is_empty();
            for message in out.messages {
                self.peers.send(message);
            }
            for to in out.databases {
                self.send_database(to)?;
            }
            for answer in out.answers {
                if let Some(reading) = self.work.reading.get_mut(&answer.number) {
                    reading.index = Some(answer.index);
                }
            }
            let has_carried_out = self.carry_out()?;
            self.answer_reads();
            if is_idle && !has_carried_out {
                break;
            }
        }
        if self.store.unsaved_bytes() >= FLUSH_AT || self.work.flushed.elapsed() >= FLUSH {
            self.flush()?;
        }
        let applied = self.store.applied().index;
        self.core.log.trim(applied, REMEMBERED);
        Ok(())
    }

    fn tell_of_the_leader(&mut self) {
        let leader = self.core.leader();
        if leader == self.work.leader {
            return;
        }
        self.work.leader = leader;
        let (me, term) = (self.ids.member, self.core.hard().term);
        say(&match leader {
            0 => format!("{me:x} knows of no leader at term {term}"),
            leader if leader == me => format!("{me:x} became leader at term {term}"),
            leader => format!("{me:x} follows {leader:x} at term {term}"),
        });
    }

    fn carry_out(&mut self) -> Result<bool, Ended> {
        let agreed = self.core.hard().commit;
        let before = self.store.applied().index;
        while self.store.applied().index < agreed {
            let index = self.store.applied().index + 1;
            let entry = self.core.log.get(index).ok_or(Ended::Gap(index))?;
            let changes_members = entry.kind == Entry::MEMBERS;
            let done = self.store.carry_out(entry);
            if let Some((request, outcome)) = done
                && let Some(waiting) = self.work.waiting.remove(&request)
            {
                drop(waiting.to.send(outcome));
            }
            if changes_members {
                self.core.set(self.store.voters());
                self.reach();
            }
        }
        Ok(self.store.applied().index > before)
    }

    fn answer_reads(&mut self) {
        let applied = self.store.applied().index;
        let may = |_: &u64, reading: &mut Reading| reading.index.is_some_and(|index| index <= applied);
        for (_, reading) in self.work.reading.extract_if(.., may) {
            let found = self.store.range(&reading.asked);
            drop(reading.to.send(found));
        }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.work.flushed = Instant::now();
        if let Some(batch) = self.store.take_unsaved() {
            self.database.append(&batch)?;
        }
        Ok(())
    }

    fn send_database(&mut self, to: u64) -> Result<(), Ended> {
        self.flush()?;
        let inputs = self.work.inputs.clone();
        let (path, bytes) = (self.database.path().to_owned(), self.database.bytes());
        self.peers.send_database(to, path, bytes, inputs);
        Ok(())
    }

    /// Goes on with a database that came from the leader.
    fn install(&mut self, file: &std::path::Path) -> Result<Result<u64, String>, Ended> {
        let (database, store) = match Database::open(file) {
            Ok(opened) => opened,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let upto = store.applied();
        if !self.core.install(upto, store.voters()) {
            return Ok(Ok(self.core.hard().commit));
        }
        let path = self.database.path().to_owned();
        self.database = database.moved(&path)?;
        self.store = store;
        self.wal.mark(SnapshotMark {
            index: upto.index,
            term: upto.term,
        })?;
        self.wal.save(&[], self.core.hard())?;
        self.reach();
        Ok(Ok(upto.index))
    }
}

/// For whoever reads its log.
fn say(what: &str) {
    let _unheard = writeln!(io::stderr(), "{what}");
}

/// Where what comes from the leader is written meanwhile.
pub(super) fn received(database: &std::path::Path) -> PathBuf {
    database.with_extension("received")
}

/// What an earlier start has not finished.
pub(super) fn tidy(database: &std::path::Path) {
    // It may not be there.
    let _gone = fs::remove_file(received(database));
}

/// Writes what comes from the leader.
pub(super) fn receive(database: &std::path::Path) -> io::Result<File> {
    db::receive(&received(database))
}

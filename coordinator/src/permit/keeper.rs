//! The one writer of permits: takes in what is asked, decides, writes, and only then tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::decide::{Verdict, decide, turns};
use super::expire::{Fate, Holder, fate};
use super::handle::{PermitsHandle, Present, Word};
use super::kept::{self, Kept};
use super::look::Eyes;
use super::{Asker, Book, Grant, Line, PermitId, Presence, Request, Standing, Wish};
use crate::brakes::BrakesHandle;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::execute::Executor;
use crate::fleet::Fleet;
use crate::inventory::{Inventory, NodeName};
use crate::policy::{OutagePolicy, PermitPolicy};
use crate::store::{Store, StoreError};

/// Words that wait to be taken in.
const WORDS: usize = 256;
/// It looks no more often, and takes in together what came meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// It looks at least so often while somebody waits or has a permit: time alone changes what stands.
const LOOK: Duration = Duration::from_secs(1);
/// A node has no more wishes at once.
const WISHES: usize = 16;
/// A reboot tool that has not asked again for so long is not waited for: those known ask every five minutes.
const ASKS_AGAIN: Duration = Duration::from_mins(10);
/// An agent without a session keeps its place for so long.
const PLACE: Duration = Duration::from_mins(1);
/// So many requests that are over are remembered.
const OVER: usize = 512;

/// What a keeper is made of.
#[derive(Debug)]
pub struct KeeperParts {
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// Budget and terms.
    pub policy: PermitPolicy,
    /// What makes an outage.
    pub outage: OutagePolicy,
    /// Older words of an agent say nothing.
    pub fresh: Duration,
    /// The live picture.
    pub fleet: Fleet,
    /// Runs, and the epoch.
    pub executor: Executor,
    /// What is held and frozen.
    pub brakes: BrakesHandle,
    /// Nodes in the hands of runbooks that take nodes away: they are away, whatever else is said of them.
    pub in_hand: watch::Receiver<BTreeSet<NodeName>>,
    /// What happens, for people.
    pub events: Events,
}

/// A wish that was not granted, and who it is of.
#[derive(Debug)]
struct Asked {
    request: Request,
    /// The session that it was said in; `None`: by a reboot tool.
    session: Option<u64>,
    /// When it was last said, or its session last seen.
    last: Instant,
    standing: Standing,
    times: u64,
}

/// Who is answered after the look: a reboot tool by how its request stands.
type Later = (Option<PermitId>, oneshot::Sender<Result<(), String>>);

/// Keeps permits.
pub struct Keeper {
    store: Arc<dyn Store>,
    eyes: Eyes,
    policy: PermitPolicy,
    epoch: u64,
    events: Events,
    words: mpsc::Receiver<Word>,
    book: watch::Sender<Arc<Book>>,
    present: Arc<Present>,
    kept: Kept,
    requests: Vec<Asked>,
    /// In which session an agent last said that it has a permit, and how often it said so.
    claims: BTreeMap<PermitId, (u64, u64)>,
    /// Holders without a session, since it was first seen.
    away: BTreeMap<NodeName, Instant>,
    /// What nodes say counts again when it is newer than this.
    ended: BTreeMap<NodeName, Instant>,
    overdue: BTreeSet<PermitId>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// With what the store has. Blocks.
    ///
    /// # Errors
    /// The store does not answer.
    pub fn open(store: Arc<dyn Store>, parts: KeeperParts) -> Result<(Self, PermitsHandle), StoreError> {
        let kept = kept::load(store.as_ref(), Instant::now())?;
        let (say, words) = mpsc::channel(WORDS);
        let epoch = parts.executor.epoch();
        let eyes = Eyes {
            inventory: parts.inventory,
            outage: parts.outage,
            fresh: parts.fresh,
            fleet: parts.fleet,
            in_hand: parts.in_hand,
            executor: parts.executor,
            brakes: parts.brakes,
        };
        let (book, seen) = watch::channel(Arc::default());
        let present = Arc::new(Present::default());
        let keeper = Self {
            store,
            eyes,
            policy: parts.policy,
            epoch,
            events: parts.events,
            words,
            book,
            present: Arc::clone(&present),
            kept,
            requests: Vec::new(),
            claims: BTreeMap::new(),
            away: BTreeMap::new(),
            ended: BTreeMap::new(),
            overdue: BTreeSet::new(),
        };
        keeper.publish();
        let handle = PermitsHandle {
            words: say,
            book: seen,
            present,
        };
        Ok((keeper, handle))
    }

    /// Keeps them until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let present = Arc::clone(&self.present);
        let mut views = self.eyes.fleet.view();
        loop {
            let busy = !self.requests.is_empty() || !self.kept.grants.is_empty();
            let mut words = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                count = self.words.recv_many(&mut words, WORDS) => if count == 0 { return },
                () = present.changed.notified() => {}
                // The view is published at least every second.
                Ok(()) = views.changed(), if busy => {}
                () = sleep(LOOK), if busy => {}
            }
            let mut later = Vec::new();
            for word in words {
                self.take(word, &mut later).await;
            }
            self.pass().await;
            // By now what was asked stands in the book.
            self.answer(later);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn take(&mut self, word: Word, later: &mut Vec<Later>) {
        // Whoever asked may be gone.
        match word {
            Word::Ask { wish, session, reply } => match self.ask(wish, Some(session)) {
                Ok(()) => later.push((None, reply)),
                Err(why) => drop(reply.send(Err(why))),
            },
            Word::Lock { wish, reply } => {
                let id = wish.id.clone();
                match self.ask(wish, None) {
                    Ok(()) => later.push((Some(id), reply)),
                    Err(why) => drop(reply.send(Err(why))),
                }
            }
            Word::GiveBack { id, how, reply } => {
                self.end(&[(id, how)]).await;
                let _gone = reply.send(());
            }
            Word::Release {
                node,
                by,
                reason,
                reply,
            } => {
                let lines = self.lines();
                let lines: Vec<_> = lines
                    .into_iter()
                    .filter(|line| line.wish.id.node == node)
                    .collect();
                let how = format!("taken back by operator {by}: {reason}");
                let ends: Vec<_> = lines
                    .iter()
                    .map(|line| (line.wish.id.clone(), how.clone()))
                    .collect();
                self.end(&ends).await;
                let _gone = reply.send(lines);
            }
        }
    }

    /// Takes a wish in. The same one is the same.
    fn ask(&mut self, wish: Wish, session: Option<u64>) -> Result<(), String> {
        let now = Instant::now();
        let id = &wish.id;
        if self.kept.over.contains(id) {
            return Err("this request is over; a new wish is a new request".to_owned());
        }
        if self.kept.grants.iter().any(|grant| grant.wish.id == *id) {
            let claim = self.claims.entry(id.clone()).or_default();
            *claim = (session.unwrap_or_default(), claim.1 + 1);
            return Ok(());
        }
        if let Some(known) = self
            .requests
            .iter_mut()
            .find(|known| known.request.wish.id == *id)
        {
            (known.session, known.last) = (session, now);
            known.times += 1;
            known.request.presence = Presence::Here;
            return Ok(());
        }
        let of_node = self
            .requests
            .iter()
            .filter(|known| known.request.wish.id.node == id.node);
        if of_node.count() >= WISHES {
            return Err(format!("the node has {WISHES} requests already"));
        }
        self.requests.push(Asked {
            request: Request {
                wish,
                since: now,
                presence: Presence::Here,
            },
            session,
            last: now,
            standing: Standing::Waiting("its first look".to_owned()),
            times: 1,
        });
        Ok(())
    }

    /// Ends permits and requests, durably as far as the store goes, and tells of permits.
    async fn end(&mut self, ends: &[(PermitId, String)]) {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (id, how) in ends {
            self.requests.retain(|known| known.request.wish.id != *id);
            self.claims.remove(id);
            self.overdue.remove(id);
            if let Some(at) = self.kept.grants.iter().position(|grant| grant.wish.id == *id) {
                let grant = self.kept.grants.remove(at);
                self.ended.insert(id.node.clone(), now);
                if grant.wish.asker == Asker::Agent {
                    if self.kept.over.len() == OVER {
                        self.kept.over.pop_front();
                    }
                    self.kept.over.push_back(id.clone());
                }
                ended.push((grant.wish, how));
            }
        }
        if ended.is_empty() {
            return;
        }
        if let Err(error) = self.save().await {
            tracing::error!(
                error,
                "that a permit is over is not kept; a coordinator that restarts finds it standing"
            );
        }
        for (wish, how) in ended {
            let text = format!("{} {}: {how}", wish.kind.as_str(), wish.subject);
            self.tell(&wish, Severity::Info, EventKind::PermitEnded, text);
        }
    }

    async fn pass(&mut self) {
        let now = Instant::now();
        self.see_sessions(now);
        self.expire(now).await;
        if !self.requests.is_empty() {
            self.decide(now).await;
        }
        self.publish();
    }

    /// Who of those that asked is there.
    fn see_sessions(&mut self, now: Instant) {
        let sessions = self.present.sessions();
        self.requests.retain_mut(|known| {
            let Some(session) = known.session else {
                return now.saturating_duration_since(known.last) < ASKS_AGAIN;
            };
            let there = sessions
                .of(&known.request.wish.id.node)
                .is_some_and(|(number, _)| number == session);
            if there {
                (known.last, known.request.presence) = (now, Presence::Here);
            } else {
                known.request.presence = Presence::Gone;
            }
            now.saturating_duration_since(known.last) < PLACE
        });
    }

    /// Permits that nobody gave back.
    async fn expire(&mut self, now: Instant) {
        let mut over = Vec::new();
        let mut overdue = Vec::new();
        let holders: BTreeSet<_> = self
            .kept
            .grants
            .iter()
            .map(|grant| grant.wish.id.node.clone())
            .collect();
        self.away.retain(|node, _| holders.contains(node));
        for grant in &self.kept.grants {
            let id = &grant.wish.id;
            let session = self.present.sessions().of(&id.node);
            if session.is_some() {
                self.away.remove(&id.node);
            }
            let silent_since = match session {
                Some(_) => now,
                None => *self.away.entry(id.node.clone()).or_insert(now),
            };
            let claimed = |(number, _): (u64, Instant)| {
                self.claims.get(id).is_some_and(|(claimed, _)| *claimed == number)
            };
            let holder = Holder {
                session: session.map(|(_, since)| since),
                well: self.eyes.well(&id.node),
                claimed: session.is_some_and(claimed),
                silent_since,
            };
            match fate(grant, &holder, self.policy.silent_for, now) {
                Fate::Stands => {}
                Fate::Overdue => overdue.push(grant.wish.clone()),
                Fate::Over(why) => over.push((id.clone(), format!("expired: {why}"))),
            }
        }
        for wish in overdue {
            if self.overdue.insert(wish.id.clone()) {
                let text = format!(
                    "{} {} has its permit for longer than its term; if it is over: blackstart permit release {}",
                    wish.kind.as_str(),
                    wish.subject,
                    wish.id.node
                );
                self.tell(&wish, Severity::Warning, EventKind::PermitOverdue, text);
            }
        }
        if !over.is_empty() {
            self.end(&over).await;
        }
    }

    async fn decide(&mut self, now: Instant) {
        let fleet = self.eyes.look(&self.ended, now);
        // What is older than a fresh attestation may be says nothing by itself.
        self.ended
            .retain(|_, ended| now.saturating_duration_since(*ended) <= self.eyes.fresh);
        let requests: Vec<_> = self.requests.iter().map(|known| known.request.clone()).collect();
        let verdicts = decide(&requests, &self.kept.grants, &fleet, self.policy.workers);
        let mut granted = Vec::new();
        for (known, verdict) in self.requests.iter_mut().zip(verdicts) {
            known.standing = match verdict {
                Verdict::Grant => {
                    granted.push((known.request.wish.clone(), known.session, known.times));
                    continue;
                }
                Verdict::Wait(on) => Standing::Waiting(on.to_string()),
                Verdict::Refuse(why) => Standing::Refused(why.to_string()),
            };
        }
        if granted.is_empty() {
            return;
        }
        let before = self.kept.grants.len();
        for (wish, ..) in &granted {
            self.kept.grants.push(self.grant(wish.clone(), now));
        }
        if let Err(why) = self.save().await {
            tracing::error!(why, "no permit is given, since none could be kept");
            self.kept.grants.truncate(before);
            for (wish, ..) in &granted {
                let known = self
                    .requests
                    .iter_mut()
                    .find(|known| known.request.wish.id == wish.id);
                if let Some(known) = known {
                    known.standing = Standing::Waiting(format!(
                        "the coordinator's store, which cannot be written ({why})"
                    ));
                }
            }
            return;
        }
        for (wish, session, asked) in granted {
            self.requests.retain(|known| known.request.wish.id != wish.id);
            self.claims
                .insert(wish.id.clone(), (session.unwrap_or_default(), asked));
            let text = format!("{} {} ({})", wish.kind.as_str(), wish.subject, wish.reason);
            self.tell(&wish, Severity::Info, EventKind::PermitGranted, text);
        }
    }

    fn grant(&self, wish: Wish, now: Instant) -> Grant {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Grant {
            term: match wish.asker {
                Asker::Agent => self.policy.term,
                Asker::FleetLock => self.policy.reboot_term,
            },
            wish,
            epoch: self.epoch,
            granted_unix_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            since: now,
        }
    }

    async fn save(&self) -> Result<(), String> {
        let (store, kept) = (Arc::clone(&self.store), self.kept.clone());
        match spawn_blocking(move || kept::save(store.as_ref(), &kept)).await {
            Ok(saved) => saved.map_err(|error| error.to_string()),
            Err(_) => Err("the write was broken off".to_owned()),
        }
    }

    /// Sessions look into the book from now on; reboot tools are told how it stands, since they wait for no later look.
    fn answer(&mut self, later: Vec<Later>) {
        for (id, reply) in later {
            let Some(id) = id else {
                let _gone = reply.send(Ok(()));
                continue;
            };
            let line = self.lines().into_iter().find(|line| line.wish.id == id);
            let answer = match line.map(|line| line.standing) {
                Some(Standing::Granted { .. }) => Ok(()),
                Some(Standing::Waiting(on)) => Err(format!("it waits for {on}")),
                Some(Standing::Refused(why)) => Err(why),
                None => Err("it was taken back".to_owned()),
            };
            // Whoever asked may be gone.
            let _gone = reply.send(answer);
        }
        let here = self.requests.iter_mut().filter(|known| known.session.is_none());
        here.for_each(|known| known.request.presence = Presence::Between);
    }

    fn lines(&self) -> Vec<Line> {
        let granted = self.kept.grants.iter().map(|grant| {
            let claim = self.claims.get(&grant.wish.id);
            grant.line(claim.map_or(0, |(_, asked)| *asked))
        });
        let requests: Vec<_> = self.requests.iter().map(|known| known.request.clone()).collect();
        let waiting = turns(&requests).into_iter().map(|index| {
            let known = &self.requests[index];
            Line {
                wish: known.request.wish.clone(),
                since: known.request.since,
                standing: known.standing.clone(),
                asked: known.times,
            }
        });
        granted.chain(waiting).collect()
    }

    fn publish(&self) {
        let book = Book { lines: self.lines() };
        self.book.send_if_modified(|last| {
            let changed = **last != book;
            if changed {
                *last = Arc::new(book);
            }
            changed
        });
    }

    fn tell(&self, wish: &Wish, severity: Severity, kind: EventKind, text: String) {
        let node = &wish.id.node;
        tracing::info!(%node, text, "{}", kind.as_str());
        let event = NewEvent::new(severity, kind, text).node(node);
        self.events.emit(match self.eyes.inventory.node(node) {
            Some(spec) => event.cluster(&spec.cluster),
            None => event,
        });
    }
}

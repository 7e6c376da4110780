//! Permits on the wire: the requests of one agent's session, and what operators see and take back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::convert::agent::clipped;
use super::convert::milliseconds;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::inventory::{Inventory, NodeName, NodeSpec};
use crate::permit::{
    Asker, Book, Lane, Line, PermitId, PermitKind, PermitsHandle, Standing, Stopping, Ticket, Wish,
};

/// An agent begins what was permitted within this, or gives the permit back.
pub const BEGIN_WITHIN: Duration = Duration::from_mins(1);
/// Bytes of a request's name.
const NAME: usize = 256;
/// Characters of an operator's reason that are kept.
const REASON: usize = 256;

/// The requests of one session.
#[derive(Debug)]
pub(super) struct Asking {
    node: NodeName,
    epoch: u64,
    permits: PermitsHandle,
    ticket: Ticket,
    book: watch::Receiver<Arc<Book>>,
    /// What was asked in this session, and what was told of each: how it stands, and how often it was asked.
    told: BTreeMap<String, Option<(Standing, u64)>>,
}

impl Asking {
    pub(super) fn new(permits: &PermitsHandle, node: &NodeName, epoch: u64) -> Self {
        Self {
            node: node.clone(),
            epoch,
            ticket: permits.opened(node),
            book: permits.watch(),
            permits: permits.clone(),
            told: BTreeMap::new(),
        }
    }

    /// Takes a request in; an answer where it is not.
    pub(super) async fn ask(
        &mut self,
        request: v1::PermitRequest,
    ) -> Result<Option<v1::PermitAnswer>, Status> {
        let kind = match request.kind() {
            v1::PermitKind::ControlPlaneRepair => PermitKind::ControlPlaneRepair,
            v1::PermitKind::RuntimeRestart => PermitKind::RuntimeRestart,
            v1::PermitKind::Reboot => PermitKind::Reboot,
            v1::PermitKind::Unspecified => {
                return Ok(Some(
                    self.refused(request.request_id, "this coordinator knows no such permit"),
                ));
            }
        };
        let name = request.request_id;
        if name.is_empty() || name.len() > NAME {
            return Err(Status::invalid_argument(format!(
                "a request for a permit has a name of 1 to {NAME} bytes"
            )));
        }
        let wish = Wish {
            id: self.id(&name),
            kind,
            asker: Asker::Agent,
            subject: clipped(request.subject),
            reason: clipped(request.reason),
        };
        match self.permits.ask(&self.ticket, wish).await.map_err(stopping)? {
            Ok(()) => {
                self.told.entry(name).or_insert(None);
                // It may have been answered while the session waited for the keeper.
                self.book.mark_changed();
                Ok(None)
            }
            Err(why) => Ok(Some(self.refused(name, &why))),
        }
    }

    /// Takes a return in.
    pub(super) async fn give_back(&mut self, over: v1::PermitReturn) -> Result<v1::PermitAnswer, Status> {
        let outcome = match over.outcome() {
            v1::PermitOutcome::Succeeded => "succeeded",
            v1::PermitOutcome::Failed => "failed",
            v1::PermitOutcome::Unused => "was not needed",
            v1::PermitOutcome::Unspecified => "ended",
        };
        let detail = clipped(over.detail);
        let how = if detail.is_empty() {
            format!("given back: it {outcome}")
        } else {
            format!("given back: it {outcome} ({detail})")
        };
        self.told.remove(&over.request_id);
        let id = self.id(&over.request_id);
        self.permits.give_back(id, how).await.map_err(stopping)?;
        Ok(self.answer(over.request_id, v1::PermitVerdict::Returned, ""))
    }

    /// Answers that changed, once there are any.
    pub(super) async fn news(&mut self) -> Vec<v1::PermitAnswer> {
        loop {
            // The keeper lives longer than the sessions.
            if self.book.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let book = Arc::clone(&self.book.borrow_and_update());
            let news = self.changes(&book);
            if !news.is_empty() {
                return news;
            }
        }
    }

    fn changes(&mut self, book: &Book) -> Vec<v1::PermitAnswer> {
        if self.told.is_empty() {
            return Vec::new();
        }
        let own = |line: &&Line| line.wish.id.node == self.node && line.wish.asker == Asker::Agent;
        let lines: BTreeMap<_, _> = book
            .lines
            .iter()
            .filter(own)
            .map(|line| (&line.wish.id.request, (line.standing.clone(), line.asked)))
            .collect();
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        for (name, told) in &mut self.told {
            match lines.get(name) {
                Some(now) if told.as_ref() != Some(now) => {
                    *told = Some(now.clone());
                    changed.push((name.clone(), now.0.clone()));
                }
                Some(_) => {}
                None => gone.push(name.clone()),
            }
        }
        self.told.retain(|name, _| !gone.contains(name));
        let answers = changed.into_iter().map(|(name, standing)| match standing {
            Standing::Granted { .. } => self.answer(name, v1::PermitVerdict::Granted, ""),
            Standing::Waiting(on) => self.answer(name, v1::PermitVerdict::Wait, &on),
            Standing::Refused(why) => self.answer(name, v1::PermitVerdict::Refused, &why),
        });
        let taken = gone
            .iter()
            .map(|name| self.refused(name.clone(), "it was taken back"));
        answers.chain(taken).collect()
    }

    fn id(&self, name: &str) -> PermitId {
        PermitId {
            node: self.node.clone(),
            request: name.to_owned(),
        }
    }

    fn refused(&self, name: String, why: &str) -> v1::PermitAnswer {
        self.answer(name, v1::PermitVerdict::Refused, why)
    }

    fn answer(&self, request_id: String, verdict: v1::PermitVerdict, reason: &str) -> v1::PermitAnswer {
        v1::PermitAnswer {
            request_id,
            epoch: self.epoch,
            verdict: verdict.into(),
            reason: reason.to_owned(),
            begin_within_ms: milliseconds(BEGIN_WITHIN),
        }
    }
}

fn stopping(stopping: Stopping) -> Status {
    Status::unavailable(stopping.to_string())
}

/// What is asked for and granted, for operators.
pub(super) fn list(
    permits: &PermitsHandle,
    inventory: &Inventory,
    asked: &v1::ListPermitsRequest,
) -> Vec<v1::PermitDetail> {
    let book = permits.book();
    let cluster = |line: &Line| {
        inventory
            .node(&line.wish.id.node)
            .map(|spec| spec.cluster.0.clone())
    };
    let wanted = |line: &&Line| {
        (asked.node.is_empty() || line.wish.id.node.0 == asked.node)
            && (asked.cluster.is_empty() || cluster(line).as_ref() == Some(&asked.cluster))
    };
    details(book.lines.iter().filter(wanted), inventory)
}

/// Takes back everything of a node.
pub(super) async fn release(
    permits: &PermitsHandle,
    inventory: &Inventory,
    events: &Events,
    operator: String,
    asked: v1::ReleasePermitRequest,
) -> Result<Vec<v1::PermitDetail>, Status> {
    let reason: String = asked.reason.trim().chars().take(REASON).collect();
    if reason.is_empty() {
        return Err(Status::invalid_argument(
            "taking a permit back needs a reason: another node may go down at once",
        ));
    }
    let node = NodeName(asked.node);
    let spec = inventory
        .node(&node)
        .ok_or_else(|| Status::not_found(format!("node {node} is not in the inventory")))?;
    let released = permits.release(node.clone(), operator.clone(), reason.clone());
    let released = released.await.map_err(stopping)?;
    if released.is_empty() {
        return Err(Status::not_found(format!(
            "node {node} neither has nor wants a permit"
        )));
    }
    tracing::info!(operator, %node, reason, ?released, "an operator takes permits back");
    let text = format!(
        "operator {operator} takes back {} of the node: {reason}",
        released.len()
    );
    let event = NewEvent::new(Severity::Warning, EventKind::PermitEnded, text);
    events.emit(event.node(&node).cluster(&spec.cluster));
    Ok(details(released.iter(), inventory))
}

fn details<'a>(lines: impl Iterator<Item = &'a Line>, inventory: &Inventory) -> Vec<v1::PermitDetail> {
    let now = Instant::now();
    lines
        .map(|line| detail(line, inventory.node(&line.wish.id.node), now))
        .collect()
}

fn detail(line: &Line, spec: Option<&NodeSpec>, now: Instant) -> v1::PermitDetail {
    let (granted, left, epoch, waiting_on) = match &line.standing {
        Standing::Granted { epoch, until } => {
            (true, until.saturating_duration_since(now), *epoch, String::new())
        }
        Standing::Waiting(on) => (false, Duration::ZERO, 0, on.clone()),
        Standing::Refused(why) => (false, Duration::ZERO, 0, format!("nothing; refused: {why}")),
    };
    v1::PermitDetail {
        node: line.wish.id.node.0.clone(),
        cluster: spec.map(|spec| spec.cluster.0.clone()).unwrap_or_default(),
        lane: spec.map_or_else(String::new, |spec| {
            Lane::of(&spec.cluster, spec.role).as_str().to_owned()
        }),
        kind: line.wish.kind.as_str().to_owned(),
        subject: line.wish.subject.clone(),
        reason: line.wish.reason.clone(),
        granted,
        age_ms: milliseconds(now.saturating_duration_since(line.since)),
        term_left_ms: milliseconds(left),
        waiting_on,
        asked_by: line.wish.asker.as_str().to_owned(),
        epoch,
    }
}

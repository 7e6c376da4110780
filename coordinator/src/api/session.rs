//! An agent's session: one task for each connection, between the wire and the fleet.
//!
//! ```text
//!  agent ══ Hello ═► who is it? (certificate, inventory) ─► fleet.open ─► Welcome
//!        ══ Report ═► fleet ─► Ack {hold, waiting_on}        one each
//!        ══ CommandResult ═► executor                        waits while it is behind
//!        ◄═ Command ══ the session's queue of orders
//!        ◄═ Brakes ══ what is held on the node: in the Welcome, and at each change
//!        ══ PermitRequest, PermitReturn ═► permits.ask, give_back
//!        ◄═ PermitAnswer ══ how each request of this session stands, at each change
//! ```
//!
//! Everything is bounded: a message, the queue of orders, and the queue to the wire. An agent that does not read what it is
//! sent is dropped, and connects anew when it can.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::auth;
use super::convert::{agent as convert, brakes};
use super::permits::Asking;
use crate::brakes::{Book, BrakesHandle, NodeBrakes};
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::fleet::{Fleet, SessionLine};
use crate::inventory::NodeName;
use crate::leader::Tenure;
use crate::permit::PermitsHandle;

/// A message of an agent is no larger.
const MAX_MESSAGE: usize = 1 << 20;
/// So many messages wait for an agent to read them.
const OUTGOING: usize = 64;
/// Who connects says hello within this.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A refused agent tries for ever; people are told this often.
const TELL_REFUSED: Duration = Duration::from_mins(10);

type ToAgent = Result<v1::CoordinatorMessage, Status>;

/// The service that agents call.
#[derive(Debug)]
pub struct Sessions {
    fleet: Fleet,
    events: Events,
    epoch: u64,
    brakes: BrakesHandle,
    /// How long a freeze lasts without being said again.
    term: Duration,
    tenure: Tenure,
    permits: PermitsHandle,
    /// When people were last told that a node was refused. No more nodes than there are certificates.
    refused: Mutex<BTreeMap<NodeName, Instant>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sessions {
    /// `epoch`: the executor's; it sends nothing that is not within `tenure`. `term`: how long a freeze lasts without being said again.
    /// Each session is a task of `tasks`, and ends when `stop` says so.
    pub fn new(
        fleet: Fleet,
        events: Events,
        (epoch, tenure): (u64, Tenure),
        (brakes, term): (BrakesHandle, Duration),
        permits: PermitsHandle,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> AgentServiceServer<Self> {
        AgentServiceServer::new(Self {
            fleet,
            events,
            epoch,
            brakes,
            term,
            tenure,
            permits,
            refused: Mutex::default(),
            tasks,
            stop,
        })
        .max_decoding_message_size(MAX_MESSAGE)
    }

    /// Says that a node was refused, and refuses.
    fn refuse(&self, node: &NodeName, status: Status) -> Status {
        let why = status.message();
        tracing::warn!(%node, why, "session refused");
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.get(node).is_none_or(|told| now - *told >= TELL_REFUSED) {
            refused.insert(node.clone(), now);
            let event = NewEvent::new(Severity::Warning, EventKind::Refused, why);
            self.events.emit(event.node(node));
        }
        status
    }

    /// The session of `node`, whose first message must be its hello.
    async fn greet(
        &self,
        node: &NodeName,
        messages: &mut Streaming<v1::AgentMessage>,
    ) -> Result<SessionLine, Status> {
        let first = timeout(HELLO_WITHIN, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Body::Hello(hello)) = first.and_then(|message| message.body) else {
            return Err(Status::permission_denied("the first message must be a hello"));
        };
        let (named, hello) = convert::hello(hello)?;
        if named != *node {
            return Err(Status::permission_denied(format!(
                "the hello is of node {:?}, and the certificate is node {node}'s",
                named.0
            )));
        }
        self.fleet.open(node, hello).ok_or_else(|| {
            Status::permission_denied(format!(
                "node {node} is not in the inventory; add it there and restart the coordinator"
            ))
        })
    }
}

#[tonic::async_trait]
impl AgentService for Sessions {
    type SessionStream = ReceiverStream<ToAgent>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = auth::require_node(&request)?;
        let mut messages = request.into_inner();
        let line = tokio::select! {
            greeted = self.greet(&node, &mut messages) => {
                greeted.map_err(|status| self.refuse(&node, status))?
            }
            () = self.stop.cancelled() => return Err(stopping()),
        };
        let (to_agent, outgoing) = mpsc::channel(OUTGOING);
        let wire = Wire { to_agent };
        let mut held = HeldHere {
            epoch: self.epoch,
            term: self.term,
            node: node.clone(),
            changes: self.brakes.watch(),
            brakes: self.brakes.clone(),
            told: NodeBrakes::default(),
        };
        let brakes = held.all();
        wire.send(v1::coordinator_message::Body::Welcome(v1::Welcome {
            epoch: self.epoch,
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
            brakes: Some(brakes),
        }))?;
        let stop = self.stop.clone();
        let tenure = self.tenure.clone();
        let mut asking = Asking::new(&self.permits, &node, self.epoch);
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = converse(&node, line, messages, &wire, (&tenure, &mut held, &mut asking)) => ended,
                () = stop.cancelled() => Err(stopping()),
            };
            if let Err(status) = ended {
                tracing::info!(%node, why = status.message(), "session ends");
                // The last word, if the agent still reads.
                let _unread = wire.to_agent.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

fn stopping() -> Status {
    Status::unavailable("this coordinator is stopping")
}

fn in_charge(tenure: &Tenure) -> Result<(), Status> {
    if tenure.holds() {
        return Ok(());
    }
    Err(Status::unavailable("this coordinator does not lead any more"))
}

/// Until the stream ends, the agent leaves, or one of the two is at fault.
async fn converse(
    node: &NodeName,
    mut line: SessionLine,
    mut messages: Streaming<v1::AgentMessage>,
    wire: &Wire,
    (tenure, held, asking): (&Tenure, &mut HeldHere, &mut Asking),
) -> Result<(), Status> {
    loop {
        let message = tokio::select! {
            // Answers before orders: they are what the next order depends on.
            biased;
            message = messages.message() => message?,
            order = line.order() => {
                let order = order.map_err(|over| Status::aborted(over.to_string()))?;
                // The last moment before the wire: this process may have been stopped since the order was made.
                in_charge(tenure)?;
                wire.send(convert::command(order))?;
                continue;
            }
            news = held.news() => {
                in_charge(tenure)?;
                wire.send(v1::coordinator_message::Body::Brakes(news))?;
                continue;
            }
            answers = asking.news() => {
                in_charge(tenure)?;
                for answer in answers {
                    wire.send(v1::coordinator_message::Body::PermitAnswer(answer))?;
                }
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        match message.body {
            Some(Body::Report(report)) => {
                // An acknowledgement may prolong a hold, which is an act as well.
                in_charge(tenure)?;
                let report = convert::report(report, Instant::now())?;
                let ack = line
                    .report(report)
                    .map_err(|over| Status::aborted(over.to_string()))?;
                wire.send(convert::ack(ack))?;
            }
            Some(Body::Result(result)) => {
                let Some(answer) = convert::answer(node, result) else {
                    tracing::warn!(%node, "an answer does not say how its command ended; passed over");
                    continue;
                };
                line.answer(answer)
                    .await
                    .map_err(|over| Status::aborted(over.to_string()))?;
            }
            Some(Body::Goodbye(goodbye)) => {
                line.goodbye(convert::leave(goodbye));
                return Ok(());
            }
            Some(Body::PermitRequest(request)) => {
                if let Some(refused) = asking.ask(request).await? {
                    wire.send(v1::coordinator_message::Body::PermitAnswer(refused))?;
                }
            }
            Some(Body::PermitReturn(over)) => {
                let taken = asking.give_back(over).await?;
                wire.send(v1::coordinator_message::Body::PermitAnswer(taken))?;
            }
            Some(Body::Hello(_)) => return Err(Status::invalid_argument("a second hello in one session")),
            // A newer agent may say what this version does not know.
            None => {}
        }
    }
}

/// What is held on one node, and was told to it.
struct HeldHere {
    epoch: u64,
    term: Duration,
    node: NodeName,
    brakes: BrakesHandle,
    changes: watch::Receiver<Arc<Book>>,
    told: NodeBrakes,
}

impl HeldHere {
    /// All of it.
    fn all(&mut self) -> v1::Brakes {
        self.changes.borrow_and_update();
        self.told = self.brakes.of(&self.node);
        brakes::brakes(self.epoch, &self.told, self.term, Instant::now())
    }

    /// All of it, once it is another than was told, or is to be said again.
    async fn news(&mut self) -> v1::Brakes {
        loop {
            // Its sender lives as long as the handle beside it.
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if self.brakes.of(&self.node) != self.told {
                return self.all();
            }
        }
    }
}

/// The way out to one agent.
struct Wire {
    to_agent: mpsc::Sender<ToAgent>,
}

impl Wire {
    /// Never waits.
    fn send(&self, body: v1::coordinator_message::Body) -> Result<(), Status> {
        let message = v1::CoordinatorMessage { body: Some(body) };
        self.to_agent.try_send(Ok(message)).map_err(|error| match error {
            TrySendError::Full(_) => {
                Status::resource_exhausted("the agent does not read what it is sent; session dropped")
            }
            TrySendError::Closed(_) => Status::cancelled("the connection is gone"),
        })
    }
}

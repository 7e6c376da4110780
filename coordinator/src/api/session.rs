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
//!
//! A session is held on a line ([`super::line`]), or as a gRPC call by whoever does not know of lines. Here they are the same.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use blackstart_proto::line;
use blackstart_proto::v1;
use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::io::ReadHalf;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::auth;
use super::convert::{agent as convert, brakes, control_plane, etcd};
use super::handshake::Secured;
use super::line::LAST_WORD;
use super::permits::Asking;
use crate::brakes::{Book, BrakesHandle, NodeBrakes};
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::fleet::Reply;
use crate::fleet::{Fleet, SessionLine, ToNode};
use crate::inventory::NodeName;
use crate::leader::Tenure;
use crate::permit::PermitsHandle;
use crate::trust::desk::Desk;

/// A message of an agent is no larger.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// So many messages wait for an agent to read them.
pub(super) const OUTGOING: usize = 64;
/// Who connects says hello within this.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A refused agent tries for ever; people are told this often.
const TELL_REFUSED: Duration = Duration::from_mins(10);

pub(super) type ToAgent = Result<v1::CoordinatorMessage, Status>;

/// What is on its way to one agent. Boxed in the queue, which has room for all that may wait and is nearly always empty.
#[derive(Debug)]
pub struct Outgoing(mpsc::Receiver<Box<ToAgent>>);

impl Stream for Outgoing {
    type Item = ToAgent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ToAgent>> {
        self.0
            .poll_recv(cx)
            .map(|message| message.map(|message| *message))
    }
}

/// What an agent says, one message after the other.
#[derive(Debug)]
pub(super) enum Messages {
    /// In a gRPC call.
    Call(Box<Streaming<v1::AgentMessage>>),
    /// On a line.
    Line(line::Incoming<ReadHalf<Secured>>),
}

impl Messages {
    /// The next; `None`: it has said all.
    pub(super) async fn next(&mut self) -> Result<Option<v1::AgentMessage>, Status> {
        match self {
            Self::Call(call) => call.message().await,
            Self::Line(line) => Ok(line.next().await?),
        }
    }

    /// Lets the agent finish. Who closes a connection with something unread in it resets it, and the agent may lose what it was told last.
    pub(super) async fn hear_out(self) {
        match self {
            // The server under it sees to that.
            Self::Call(_) => {}
            Self::Line(line) => {
                let _gone = timeout(LAST_WORD, line.hear_out()).await;
            }
        }
    }
}

/// All sessions of a coordinator that leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fleet: Fleet,
    events: Events,
    epoch: u64,
    brakes: BrakesHandle,
    /// How long a freeze lasts without being said again.
    term: Duration,
    tenure: Tenure,
    permits: PermitsHandle,
    /// Knows whose certificate is to be renewed before it is due.
    desk: Arc<Desk>,
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
        desk: Arc<Desk>,
        (tasks, stop): (TaskTracker, CancellationToken),
    ) -> Self {
        Self(Arc::new(Shared {
            fleet,
            events,
            epoch,
            brakes,
            term,
            tenure,
            permits,
            desk,
            refused: Mutex::default(),
            tasks,
            stop,
        }))
    }

    /// The service that agents call who know of no lines.
    pub fn serve(&self) -> AgentServiceServer<Self> {
        AgentServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Does this with an agent beside everything else. It is cut at a stop that takes too long.
    pub(super) fn spawn(&self, talk: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(talk);
    }

    /// Begins the session of `node`, whose first message must be its hello, and welcomes it.
    pub(super) async fn begin(
        &self,
        node: NodeName,
        messages: &mut Messages,
        to_agent: mpsc::Sender<Box<ToAgent>>,
    ) -> Result<Session, Status> {
        let shared = &self.0;
        let line = tokio::select! {
            greeted = shared.greet(&node, messages) => {
                greeted.map_err(|status| shared.refuse(&node, status))?
            }
            () = shared.stop.cancelled() => return Err(stopping()),
        };
        let mut held = HeldHere {
            epoch: shared.epoch,
            term: shared.term,
            node: node.clone(),
            changes: shared.brakes.watch(),
            brakes: shared.brakes.clone(),
            told: NodeBrakes::default(),
        };
        let wire = Wire { to_agent };
        let brakes = held.all();
        wire.send(v1::coordinator_message::Body::Welcome(v1::Welcome {
            epoch: shared.epoch,
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
            brakes: Some(brakes),
            renew: shared.desk.is_behind(&node),
        }))?;
        Ok(Session {
            asking: Asking::new(&shared.permits, &node, shared.epoch),
            tenure: shared.tenure.clone(),
            stop: shared.stop.clone(),
            node,
            line,
            wire,
            held,
        })
    }
}

impl Shared {
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
    async fn greet(&self, node: &NodeName, messages: &mut Messages) -> Result<SessionLine, Status> {
        let first = timeout(HELLO_WITHIN, messages.next())
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
    type SessionStream = Outgoing;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = auth::require_node(&request)?;
        let mut messages = Messages::Call(Box::new(request.into_inner()));
        let (to_agent, outgoing) = mpsc::channel(OUTGOING);
        let session = self.begin(node, &mut messages, to_agent).await?;
        self.spawn(async move { session.hold(&mut messages).await });
        Ok(Response::new(Outgoing(outgoing)))
    }
}

/// One that has begun.
pub(super) struct Session {
    node: NodeName,
    line: SessionLine,
    wire: Wire,
    tenure: Tenure,
    held: HeldHere,
    asking: Asking,
    stop: CancellationToken,
}

impl Session {
    /// Until it ends. Says why, if the agent still listens.
    pub(super) async fn hold(self, messages: &mut Messages) {
        let (stop, node, to_agent) = (self.stop.clone(), self.node.clone(), self.wire.to_agent.clone());
        let ended = tokio::select! {
            ended = self.converse(messages) => ended,
            () = stop.cancelled() => Err(stopping()),
        };
        if let Err(status) = ended {
            tracing::info!(%node, why = status.message(), "session ends");
            // The last word, if the agent still reads.
            let _unread = to_agent.try_send(Box::new(Err(status)));
        }
    }

    /// Until the stream ends, the agent leaves, or one of the two is at fault.
    async fn converse(self, messages: &mut Messages) -> Result<(), Status> {
        let Self {
            node,
            mut line,
            wire,
            tenure,
            mut held,
            mut asking,
            ..
        } = self;
        loop {
            let message = tokio::select! {
                // Answers before orders: they are what the next order depends on.
                biased;
                message = messages.next() => message?,
                next = line.next() => {
                    let next = next.map_err(|over| Status::aborted(over.to_string()))?;
                    // The last moment before the wire: this process may have been stopped since the order was made.
                    in_charge(&tenure)?;
                    wire.send(match next {
                        ToNode::Order(order) => convert::command(order),
                        ToNode::Ask(question) => etcd::question(&question),
                        ToNode::LookAtControlPlane { id, within } => control_plane::question(id, within),
                    })?;
                    continue;
                }
                news = held.news() => {
                    in_charge(&tenure)?;
                    wire.send(v1::coordinator_message::Body::Brakes(news))?;
                    continue;
                }
                answers = asking.news() => {
                    in_charge(&tenure)?;
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
                    in_charge(&tenure)?;
                    let report = convert::report(report, Instant::now())?;
                    let ack = line
                        .report(report)
                        .map_err(|over| Status::aborted(over.to_string()))?;
                    wire.send(convert::ack(ack))?;
                }
                Some(Body::Result(result)) => {
                    let Some(answer) = convert::answer(&node, result) else {
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
                Some(Body::EtcdAnswer(answer)) => {
                    let id = answer.question_id;
                    if let Some(answer) = etcd::answer(answer) {
                        line.told(id, Reply::Etcd(answer));
                    }
                }
                Some(Body::ControlPlaneAnswer(answer)) => {
                    let id = answer.question_id;
                    if let Some(report) = answer.report {
                        line.told(id, Reply::ControlPlane(Box::new(control_plane::told(report))));
                    }
                }
                Some(Body::Hello(_)) => {
                    return Err(Status::invalid_argument("a second hello in one session"));
                }
                // It asks for a sign of life; or a newer one says what this version does not know.
                None => wire.say(v1::CoordinatorMessage::default())?,
            }
        }
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
    to_agent: mpsc::Sender<Box<ToAgent>>,
}

impl Wire {
    /// Never waits.
    fn send(&self, body: v1::coordinator_message::Body) -> Result<(), Status> {
        self.say(v1::CoordinatorMessage { body: Some(body) })
    }

    /// The same of a whole message.
    fn say(&self, message: v1::CoordinatorMessage) -> Result<(), Status> {
        self.to_agent
            .try_send(Box::new(Ok(message)))
            .map_err(|error| match error {
                TrySendError::Full(_) => {
                    Status::resource_exhausted("the agent does not read what it is sent; session dropped")
                }
                TrySendError::Closed(_) => Status::cancelled("the connection is gone"),
            })
    }
}

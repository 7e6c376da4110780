//! Sessions on lines of their own ([`blackstart_proto::line`]), beside the gRPC server.
//!
//! ```text
//!  handshake ──line──► whose certificate? revoked? ──► leading:   the session (session.rs) ∥ what it says, one after the other
//!                                                  └─► following: who leads
//! ```
//!
//! Whoever is refused is told why by the last word, and only then is the connection closed.

use std::pin::pin;
use std::time::Duration;

use blackstart_proto::line;
use blackstart_proto::v1::line_message::Body;
use blackstart_proto::v1::{LineMessage, SessionEnd};
use tokio::io::WriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::Status;

use super::elsewhere::refusal;
use super::handshake::Secured;
use super::session::{HELLO_WITHIN, MAX_MESSAGE, Messages, OUTGOING, Sessions, ToAgent};
use super::{auth, door};
use crate::inventory::NodeName;
use crate::leader::Seen;
use crate::trust::gate::Gate;

/// What is said at the end is taken within this, and the connection closed after it.
pub(super) const LAST_WORD: Duration = Duration::from_secs(1);

/// Who takes lines.
#[derive(Debug, Clone)]
pub(crate) enum Lines {
    /// Sessions are held.
    Leading(Sessions),
    /// Agents are told who leads.
    Following(watch::Receiver<Seen>),
}

impl Lines {
    /// Takes one, in a task of its own.
    pub(super) fn take(&self, line: Secured, gate: &Gate) {
        let who = admitted(&line, gate);
        match self {
            Self::Leading(sessions) => {
                let held = sessions.clone();
                sessions.spawn(async move { hold(who, line, &held).await });
            }
            Self::Following(seen) => {
                let why = who.map_or_else(|denied| denied, |_| refusal(&seen.borrow()));
                // Bounded in itself; nothing is lost if it is cut with everything else.
                tokio::spawn(refuse(line, why));
            }
        }
    }
}

/// Whose line it is.
fn admitted(line: &Secured, gate: &Gate) -> Result<NodeName, Status> {
    let shown = line.shown()?;
    if let Some(revocation) = gate.why_not(&shown) {
        return Err(door::revoked(&revocation));
    }
    auth::node(shown.peer)
}

async fn hold(who: Result<NodeName, Status>, line: Secured, sessions: &Sessions) {
    let node = match who {
        Ok(node) => node,
        Err(denied) => return refuse(line, denied).await,
    };
    let (read, write) = tokio::io::split(line);
    let mut to_agent = line::Outgoing::new(write);
    let (said, saying) = mpsc::channel(OUTGOING);
    let mut messages = Messages::Line(line::Incoming::new(read, MAX_MESSAGE));
    match sessions.begin(node, &mut messages, said).await {
        Err(denied) => part(&mut to_agent, &denied).await,
        Ok(session) => {
            let mut say = pin!(say(&mut to_agent, saying));
            tokio::select! {
                () = session.hold(&mut messages) => {}
                // The connection broke, and the session ends without a word.
                _ = &mut say => return,
            }
            // What was said last is on its way.
            let _gone = timeout(LAST_WORD, say).await;
        }
    }
    messages.hear_out().await;
}

/// Says one thing after the other, until all is said or the connection breaks.
async fn say(
    to_agent: &mut line::Outgoing<WriteHalf<Secured>>,
    mut saying: mpsc::Receiver<Box<ToAgent>>,
) -> std::io::Result<()> {
    while let Some(said) = saying.recv().await {
        let body = match *said {
            // Empty: a sign of life.
            Ok(message) => message.body.is_some().then_some(Body::Message(message)),
            Err(status) => Some(Body::End(SessionEnd::from(&status))),
        };
        to_agent.send(&LineMessage { body }).await?;
    }
    to_agent.end().await
}

/// Refuses whoever is at the other end, once it has said who it is: what was not read would take the refusal with it.
async fn refuse(line: Secured, why: Status) {
    tracing::info!(why = why.message(), "a session is refused");
    let (read, write) = tokio::io::split(line);
    let mut messages = Messages::Line(line::Incoming::new(read, MAX_MESSAGE));
    let _whoever = timeout(HELLO_WITHIN, messages.next()).await;
    part(&mut line::Outgoing::new(write), &why).await;
    messages.hear_out().await;
}

/// Says why, and that that is all.
async fn part(to_agent: &mut line::Outgoing<WriteHalf<Secured>>, why: &Status) {
    let end = LineMessage {
        body: Some(Body::End(SessionEnd::from(why))),
    };
    let told = async {
        to_agent.send(&end).await?;
        to_agent.end().await
    };
    let _gone = timeout(LAST_WORD, told).await;
}

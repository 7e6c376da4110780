//! One session, from its Hello to its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::leader::leader_at;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_message::Body as Up;
use blackstart_proto::v1::coordinator_message::Body as Down;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, info, warn};

use crate::causes::causes;
use crate::gate;
use crate::permit::Saying;
use crate::picture::Picture;

use super::dial::{Dialled, SIGN_OF_LIFE, keep_alive};
use super::inbound::{Inbound, Refused};
use super::{Link, convert};

/// Messages that wait for the connection to take them.
const OUTBOUND: usize = 16;
/// Changes of the picture are told together, if they come closer than this.
const REPORT_GAP: Duration = Duration::from_millis(100);
/// The coordinator answers a Hello within this.
const OPENING: Duration = Duration::from_secs(5);
/// As long as a goodbye may take.
const LEAVING: Duration = Duration::from_secs(1);
/// A session is dead after so many report intervals without an acknowledgement.
const SILENCE: u32 = 3;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The connection broke, or the coordinator ended it.
    Lost {
        /// It worked: at least one report was acknowledged.
        acknowledged: bool,
        trouble: String,
    },
    /// This coordinator does not lead.
    Elsewhere {
        /// Where the one is that does, if it is known.
        leader: Vec<SocketAddr>,
        trouble: String,
    },
}

fn lost(acknowledged: bool, trouble: impl Into<String>) -> Ended {
    Ended::Lost {
        acknowledged,
        trouble: trouble.into(),
    }
}

/// Speaks with the coordinator at the other end of this connection until one of them ends it.
pub(super) async fn hold(link: &mut Link, dialled: Dialled, stop: &CancellationToken) -> Ended {
    link.desk.new_session();
    let highest_epoch = loop {
        if let Some(ledger) = link.ledger.glance() {
            link.told.new_session(&ledger);
            break ledger.highest_epoch();
        }
        tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            () = sleep(REPORT_GAP) => {}
        }
    };
    let (outbound, messages) = mpsc::channel(OUTBOUND);
    let session = Session {
        outbound,
        heard_at: Instant::now(),
        asked_at: None,
        acknowledged_at: Instant::now(),
        acknowledged: false,
        report_at: Instant::now(),
        reported_at: None,
        reported: None,
        heard_out: true,
        said: BTreeMap::new(),
        wished: true,
        answers: JoinSet::new(),
        looks: JoinSet::new(),
    };
    session.send(Up::Hello(wire::Hello {
        node: link.node.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: Some(convert::boot(&link.boot)),
        highest_epoch,
        report_interval_ms: convert::millis(link.settings.report_interval),
    }));

    let opening = timeout(OPENING, Inbound::open(dialled, messages));
    let inbound = match link.desk.tend(stop, opening).await {
        None => return Ended::Stopped,
        Some(Ok(Ok(inbound))) => inbound,
        Some(Ok(Err(Refused { status, .. }))) if status.code() == Code::FailedPrecondition => {
            return Ended::Elsewhere {
                leader: leader_at(&status),
                trouble: status.message().to_owned(),
            };
        }
        Some(Ok(Err(refused))) => {
            if refused.certificate_ended {
                link.renewal_wanted.notify_one();
            }
            return lost(false, format!("session refused: {}", causes(&refused.status)));
        }
        Some(Err(_)) => return lost(false, format!("no session within {} s", OPENING.as_secs())),
    };
    session.run(link, inbound, stop).await
}

/// What lasts for one session.
struct Session {
    outbound: mpsc::Sender<wire::AgentMessage>,
    /// The last message of any kind.
    heard_at: Instant,
    /// A sign of life was asked for then, and nothing was heard since.
    asked_at: Option<Instant>,
    /// The last acknowledgement, or the beginning.
    acknowledged_at: Instant,
    acknowledged: bool,
    /// The next report is due.
    report_at: Instant,
    reported_at: Option<Instant>,
    /// What the last report said.
    reported: Option<Arc<Picture>>,
    /// Somebody still makes pictures.
    heard_out: bool,
    /// Requests for permits that were said in this session, and whether they were returned.
    said: BTreeMap<String, bool>,
    /// Somebody may still wish for something.
    wished: bool,
    /// Answers to questions about etcd that are being looked for; they end with the session.
    answers: JoinSet<wire::EtcdAnswer>,
    /// The same of the control plane.
    looks: JoinSet<wire::ControlPlaneAnswer>,
}

impl Session {
    async fn run(mut self, link: &mut Link, mut inbound: Inbound, stop: &CancellationToken) -> Ended {
        self.acknowledged_at = Instant::now();
        self.heard_at = self.acknowledged_at;
        let patience = link.settings.report_interval * SILENCE;
        let keep_alive = keep_alive(link.settings.report_interval);
        loop {
            self.send_answers(link);
            self.send_wishes(link);
            if Instant::now() >= self.report_at {
                self.send_report(link);
            }
            let silent_at = self.silent_at(keep_alive);
            tokio::select! {
                () = stop.cancelled() => {
                    self.leave(link, inbound).await;
                    return Ended::Stopped;
                }
                message = inbound.next(), if link.desk.takes_orders() => match message {
                    Ok(Some(message)) => {
                        self.heard_at = Instant::now();
                        self.asked_at = None;
                        self.take(link, message);
                    }
                    Ok(None) => return lost(self.acknowledged, "the coordinator ended the session"),
                    Err(status) => return lost(self.acknowledged, causes(&status)),
                },
                changed = link.picture.changed(), if self.heard_out => match changed {
                    Ok(()) if self.is_told(&link.picture.borrow_and_update()) => {}
                    Ok(()) => self.report_soon(),
                    Err(_) => self.heard_out = false,
                },
                changed = link.wishes.changed(), if self.wished => self.wished = changed.is_ok(),
                () = link.desk.turn() => {}
                Some(answered) = self.answers.join_next() => {
                    // One that finds no room is asked for again.
                    if let Ok(answer) = answered {
                        self.send(Up::EtcdAnswer(answer));
                    }
                }
                Some(looked) = self.looks.join_next() => {
                    if let Ok(answer) = looked {
                        self.send(Up::ControlPlaneAnswer(answer));
                    }
                }
                // HTTP/2 sees to that itself.
                () = sleep_until(silent_at), if inbound.is_line() => {
                    // What waits to be taken is a sign as well.
                    if self.asked_at.is_some() && link.desk.takes_orders() {
                        return lost(self.acknowledged, "no sign of life");
                    }
                    self.asked_at = Some(Instant::now());
                    let _more_to_say = self.outbound.try_send(wire::AgentMessage::default());
                }
                () = sleep_until(self.report_at) => {}
                () = sleep_until(self.acknowledged_at + patience) => {
                    let trouble = format!("nothing acknowledged within {} s", patience.as_secs_f32());
                    return lost(self.acknowledged, trouble);
                }
            }
        }
    }

    /// When nothing has been heard for too long.
    fn silent_at(&self, keep_alive: Duration) -> Instant {
        match self.asked_at {
            Some(asked) => asked + SIGN_OF_LIFE,
            None => self.heard_at + keep_alive,
        }
    }

    /// `false` if there is no room at present.
    fn send(&self, body: Up) -> bool {
        self.outbound
            .try_send(wire::AgentMessage { body: Some(body) })
            .is_ok()
    }

    /// The next report, which goes out anyway, is soon enough.
    fn is_told(&self, picture: &Picture) -> bool {
        self.reported.as_ref().is_some_and(|last| picture.is_like(last))
    }

    /// A report goes out as soon as one may follow the last.
    fn report_soon(&mut self) {
        let soonest = self
            .reported_at
            .map_or_else(Instant::now, |last| last + REPORT_GAP);
        self.report_at = self.report_at.min(soonest);
    }

    fn send_answers(&mut self, link: &mut Link) {
        while let Some(answer) = link.desk.unsent() {
            let sent = self.send(Up::Result(convert::result(answer)));
            // The acknowledgement of a report behind it is the answer's; what finds no room goes after the next report.
            self.report_soon();
            if !sent {
                break;
            }
            link.desk.sent(link.sequence + 1);
        }
    }

    /// What was not said in this session; what finds no room goes after the next report.
    fn send_wishes(&mut self, link: &mut Link) {
        let wishes = link.wishes.borrow_and_update().clone();
        self.said.retain(|id, _| wishes.iter().any(|wish| wish.id == *id));
        for wish in wishes.iter() {
            let returned = matches!(wish.what, Saying::Return(_));
            if self.said.get(&wish.id) == Some(&returned) {
                continue;
            }
            if !self.send(convert::wish(wish)) {
                self.report_soon();
                return;
            }
            self.said.insert(wish.id.clone(), returned);
        }
    }

    fn send_report(&mut self, link: &mut Link) {
        let now = Instant::now();
        let picture = link.picture.borrow_and_update().clone();
        // What is just being written is told with the next report.
        let news = link.ledger.glance().map(|ledger| link.told.news(&ledger));
        let whole = news.is_some();
        let news = news.unwrap_or_default();
        let sequence = link.sequence + 1;
        self.reported_at = Some(now);
        if self.send(Up::Report(convert::report(&picture, &news, sequence, now))) {
            link.sequence = sequence;
            link.told.sent(sequence, &news);
            self.reported = Some(picture);
            self.report_at = if whole {
                link.beat.due(now, link.settings.report_interval)
            } else {
                now + (link.settings.report_interval / 4).max(REPORT_GAP)
            };
        } else {
            self.report_at = now + REPORT_GAP;
        }
    }

    fn take(&mut self, link: &mut Link, message: wire::CoordinatorMessage) {
        match message.body {
            Some(Down::Welcome(welcome)) => {
                let version = welcome.coordinator_version;
                link.up();
                if welcome.renew {
                    link.renewal_wanted.notify_one();
                }
                if let Some(brakes) = welcome.brakes {
                    link.words
                        .send_replace(Some(convert::word(brakes, Instant::now())));
                }
                info!(epoch = welcome.epoch, version, "in session with the coordinator");
            }
            Some(Down::Ack(ack)) => self.take_ack(link, &ack),
            Some(Down::Brakes(brakes)) => {
                link.words
                    .send_replace(Some(convert::word(brakes, Instant::now())));
            }
            Some(Down::PermitAnswer(answer)) => self.take_permit(link, answer),
            Some(Down::EtcdQuestion(question)) => link.etcd.ask(question, &mut self.answers),
            Some(Down::ControlPlaneQuestion(question)) => {
                link.control_plane.ask(question, &mut self.looks);
            }
            Some(Down::Command(command)) if command.command_id.is_empty() => {
                warn!("a command without an id is ignored: it could not be answered");
            }
            Some(Down::Command(command)) => match convert::order(command, Instant::now()) {
                Ok(order) => {
                    info!(command = order.command_id, remedy = %order.remedy, "command of the coordinator");
                    link.desk.order(order);
                }
                Err(refusal) => {
                    warn!(
                        command = refusal.command_id,
                        "unknown command of the coordinator refused"
                    );
                    link.desk.answer(refusal);
                }
            },
            None => debug!("a sign of life, or a message of a later version"),
        }
    }

    fn take_permit(&mut self, link: &mut Link, answer: wire::PermitAnswer) {
        let id = answer.request_id.clone();
        let obeyed = link.ledger.lock().highest_epoch();
        if answer.epoch < obeyed {
            warn!(
                id,
                epoch = answer.epoch,
                obeyed,
                "an answer of an older epoch is no permit"
            );
            return;
        }
        let Some(answer) = convert::permit(answer, Instant::now()) else {
            warn!(
                id,
                "an answer to a request for a permit says nothing that is known"
            );
            return;
        };
        // The loop is far behind: it is asked for again, and answered again.
        if link.permits.try_send(answer).is_err() {
            self.said.remove(&id);
            self.report_soon();
        }
    }

    fn take_ack(&mut self, link: &mut Link, ack: &wire::Ack) {
        self.acknowledged_at = Instant::now();
        self.acknowledged = true;
        // What was not sent cannot be acknowledged.
        let number = ack.sequence.min(link.sequence);
        link.told.acknowledged(number);
        link.desk.acknowledged(number);
        link.set_aside.answered(ack.hold);
        if !ack.hold {
            return;
        }
        let trouble = gate::heard(&link.runtime_dir, &ack.waiting_on)
            .err()
            .map(|error| causes(&error));
        if let Some(trouble) = &trouble
            && link.gate_trouble.as_ref() != Some(trouble)
        {
            warn!(
                trouble,
                "the boot gate could not be told that the coordinator is at work"
            );
        }
        link.gate_trouble = trouble;
    }

    /// Sends what is left and says goodbye. The coordinator ends the session when it has read that.
    async fn leave(self, link: &mut Link, mut inbound: Inbound) {
        let leaving = async {
            while let Some(answer) = link.desk.unsent() {
                let body = Some(Up::Result(convert::result(answer)));
                if self.outbound.send(wire::AgentMessage { body }).await.is_err() {
                    return;
                }
                link.desk.sent(link.sequence + 1);
            }
            let reason = *link.goodbye.borrow();
            let body = Some(Up::Goodbye(convert::goodbye(reason)));
            let said = self.outbound.send(wire::AgentMessage { body }).await.is_ok();
            drop(self.outbound);
            while said && matches!(inbound.next().await, Ok(Some(_))) {}
        };
        if timeout(LEAVING, leaving).await.is_err() {
            warn!("the coordinator did not take the goodbye in time");
        }
    }
}

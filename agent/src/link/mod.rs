//! The one session with the coordinator.
//!
//! ```text
//!  run ──Picture──► report ─┐                        ┌─ ack: what was told is told; the gate hears of it
//!  ledger ─────────► told ──┼─► session ◄─ mTLS ─► ──┤
//!  run ──OrderAnswer─► desk ┘                        └─ command ─► convert ─► desk ──Order──► run
//! ```
//!
//! It never ends by an error. After a power loss everybody comes back at once, so it tries soon, and then with a back-off
//! that is bounded and fully jittered. Everything told is told again until it is acknowledged; nothing that is queued grows
//! without bound. The node needs none of this: it watches and repairs itself all the same.

mod backoff;
pub(crate) mod convert;
mod desk;
mod dial;
#[cfg(test)]
mod fake;
mod inbound;
pub(crate) mod secure;
mod session;
#[cfg(test)]
mod tests;
mod told;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::boot::BootIdentity;
use blackstart_proto::clock_floor::ClockFloor;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::brakes::Word;
use crate::config::CoordinatorSettings;
use crate::control_plane;
use crate::etcd;
use crate::ledger::SharedLedger;
use crate::order::{Order, OrderAnswer};
use crate::permit::{Answer, Said};
use crate::picture::Picture;
use crate::set_aside::SetAside;
use crate::watch::beat::Beat;

use backoff::Backoff;
use desk::Desk;
use session::Ended;
use told::Told;

/// What the coordinator is told when the link stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// Only the agent stops.
    AgentStop,
    /// The machine shuts down in order.
    Shutdown,
}

/// How it stands with the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// No session.
    Down {
        /// Since when.
        since: Instant,
        /// Why.
        trouble: String,
    },
    /// In session.
    Up {
        /// Since when.
        since: Instant,
        /// With this one.
        address: SocketAddr,
    },
}

/// A ledger that is being written is looked at again after this.
const LEDGER_AGAIN: Duration = Duration::from_millis(10);

/// The trouble of a link that has not been tried.
const NOT_TRIED: &str = "not tried yet";

impl LinkState {
    /// The coordinator is in session; `None` before the first attempt has ended.
    pub fn reached(&self) -> Option<bool> {
        match self {
            Self::Up { .. } => Some(true),
            Self::Down { trouble, .. } => (trouble != NOT_TRIED).then_some(false),
        }
    }

    /// Before the first attempt.
    pub fn begun() -> Self {
        Self::Down {
            since: Instant::now(),
            trouble: NOT_TRIED.to_owned(),
        }
    }
}

/// What the link is joined to.
#[derive(Debug)]
pub struct LinkPorts {
    /// Where the coordinator is, and how often it wants a report.
    pub settings: CoordinatorSettings,
    /// By what certificates are measured.
    pub clock: Arc<ClockFloor>,
    /// This node's name.
    pub node: String,
    /// This boot.
    pub boot: BootIdentity,
    /// Read only: the remedies to report, and the highest epoch obeyed.
    pub ledger: SharedLedger,
    /// Where the boot gate's files are.
    pub runtime_dir: PathBuf,
    /// What there is to report.
    pub picture: watch::Receiver<Arc<Picture>>,
    /// To the agent's loop.
    pub orders: mpsc::Sender<Order>,
    /// From the agent's loop.
    pub answers: mpsc::Receiver<OrderAnswer>,
    /// Why the agent stops, as known when it does: read once, at the stop.
    pub goodbye: watch::Receiver<Goodbye>,
    /// Told whether the coordinator claims what is set aside here.
    pub set_aside: SetAside,
    /// What the coordinator holds back on this node, each time it says so.
    pub words: watch::Sender<Option<Word>>,
    /// Told of each change.
    pub state: watch::Sender<LinkState>,
    /// What the coordinator is to know of permits.
    pub wishes: watch::Receiver<Arc<Vec<Said>>>,
    /// What it says of them, to the agent's loop.
    pub permits: mpsc::Sender<Answer>,
    /// When a report is due that says nothing new.
    pub beat: Beat,
    /// Answers what is asked about etcd.
    pub etcd: etcd::Desk,
    /// Told when coordinators do not take this node's certificate any more, or want it renewed.
    pub renewal_wanted: Arc<Notify>,
    /// And about the rest of the control plane.
    pub control_plane: control_plane::Desk,
}

/// What lasts from one session to the next.
#[derive(Debug)]
struct Link {
    settings: CoordinatorSettings,
    clock: Arc<ClockFloor>,
    node: String,
    boot: BootIdentity,
    ledger: SharedLedger,
    runtime_dir: PathBuf,
    picture: watch::Receiver<Arc<Picture>>,
    goodbye: watch::Receiver<Goodbye>,
    desk: Desk,
    told: Told,
    state: watch::Sender<LinkState>,
    words: watch::Sender<Option<Word>>,
    wishes: watch::Receiver<Arc<Vec<Said>>>,
    permits: mpsc::Sender<Answer>,
    beat: Beat,
    etcd: etcd::Desk,
    control_plane: control_plane::Desk,
    set_aside: SetAside,
    renewal_wanted: Arc<Notify>,
    /// The coordinator of this attempt.
    address: Option<SocketAddr>,
    /// The last report's number; goes on rising over sessions.
    sequence: u64,
    /// Why the gate could not be spoken to the last time, so that it is logged once.
    gate_trouble: Option<String>,
}

/// Keeps a session with the coordinator until `stop`, and then says goodbye, for a second at most.
pub async fn run(ports: LinkPorts, stop: CancellationToken) {
    let told = loop {
        if let Some(ledger) = ports.ledger.glance() {
            break Told::new(&ledger);
        }
        tokio::time::sleep(LEDGER_AGAIN).await;
    };
    let mut link = Link {
        settings: ports.settings,
        clock: ports.clock,
        node: ports.node,
        boot: ports.boot,
        ledger: ports.ledger,
        runtime_dir: ports.runtime_dir,
        picture: ports.picture,
        goodbye: ports.goodbye,
        desk: Desk::new(ports.orders, ports.answers),
        told,
        state: ports.state,
        words: ports.words,
        wishes: ports.wishes,
        permits: ports.permits,
        beat: ports.beat,
        etcd: ports.etcd,
        control_plane: ports.control_plane,
        set_aside: ports.set_aside,
        renewal_wanted: ports.renewal_wanted,
        address: None,
        sequence: 0,
        gate_trouble: None,
    };
    if link.settings.addresses.is_empty() {
        link.down("no address of a coordinator is configured");
        error!("no address of a coordinator is configured; this node reports to nobody");
        link.desk.tend(&stop, std::future::pending::<()>()).await;
        return;
    }
    let mut backoff = Backoff::new(link.settings.addresses.len());
    let mut last_trouble = String::new();
    while let Some(trouble) = link.attempt(&mut backoff, &stop).await {
        link.down(&trouble);
        link.set_aside.hung_up();
        let wait = backoff.wait(&mut rand::rng());
        // The same every few seconds for hours says nothing new.
        if trouble == last_trouble {
            debug!(trouble, again_in = ?wait, "no session with the coordinator");
        } else {
            warn!(trouble, again_in = ?wait, "no session with the coordinator");
        }
        last_trouble = trouble;
        if link.desk.tend(&stop, tokio::time::sleep(wait)).await.is_none() {
            break;
        }
    }
    info!("the link to the coordinator has stopped");
}

impl Link {
    fn up(&self) {
        if let Some(address) = self.address {
            let since = Instant::now();
            self.state.send_replace(LinkState::Up { since, address });
        }
    }

    /// Down since it was first so.
    fn down(&self, why: &str) {
        self.state.send_modify(|state| match state {
            LinkState::Down { trouble, .. } => why.clone_into(trouble),
            LinkState::Up { .. } => {
                *state = LinkState::Down {
                    since: Instant::now(),
                    trouble: why.to_owned(),
                };
            }
        });
    }

    /// One attempt and, if it succeeds, one session. Returns why there is none any more; `None` when it was told to stop.
    async fn attempt(&mut self, backoff: &mut Backoff, stop: &CancellationToken) -> Option<String> {
        let mut address = self.settings.addresses[backoff.turn()];
        let mut ended = self.session_at(address, stop).await;
        // One that follows has its leader's word on where that is. Sent on twice, the lead is changing: that takes a while.
        if let Ended::Elsewhere { leader, .. } = &ended
            && let Some(leads) = self.choose(leader, address)
        {
            debug!(follower = %address, leader = %leads, "sent on");
            address = leads;
            if let Some(turn) = self.settings.addresses.iter().position(|known| *known == leads) {
                backoff.sent_on(turn);
            }
            ended = self.session_at(address, stop).await;
        }
        match ended {
            Ended::Stopped => None,
            // A coordinator that takes calls and acknowledges nothing is as good as none.
            Ended::Elsewhere { trouble, .. }
            | Ended::Lost {
                acknowledged: false,
                trouble,
            } => {
                backoff.failed();
                // By a clock that is known to be wrong nobody can tell whether the certificate is still good.
                if !self.clock.behind().is_zero() {
                    self.renewal_wanted.notify_one();
                }
                Some(format!("{address}: {trouble}"))
            }
            Ended::Lost {
                acknowledged: true,
                trouble,
            } => {
                backoff.succeeded();
                Some(format!("{address}: {trouble}"))
            }
        }
    }

    /// Of a leader's addresses one that is configured here, if there is one; not the one that we come from.
    fn choose(&self, leader: &[SocketAddr], from: SocketAddr) -> Option<SocketAddr> {
        let is_known = |address: &&SocketAddr| self.settings.addresses.contains(address);
        let others = || leader.iter().filter(|address| **address != from);
        others().find(is_known).or_else(|| others().next()).copied()
    }

    async fn session_at(&mut self, address: SocketAddr, stop: &CancellationToken) -> Ended {
        self.address = Some(address);
        let dialled = dial::dial(
            address,
            &self.settings.tls,
            &self.clock,
            self.settings.report_interval,
        );
        match self.desk.tend(stop, dialled).await {
            None => Ended::Stopped,
            Some(Ok(dialled)) => session::hold(self, dialled, stop).await,
            Some(Err(trouble)) => Ended::Lost {
                acknowledged: false,
                trouble,
            },
        }
    }
}

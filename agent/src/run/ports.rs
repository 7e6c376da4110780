//! The channels between the loop, the watchers and the link. All of them are bounded.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::brakes::Standing;
use crate::gate::GateState;
use crate::link::LinkState;
use crate::order::{Order, OrderAnswer};
use crate::permit::{Answer, Said};
use crate::picture::{Attestation, Picture};
use crate::privilege::survey::Found;
use crate::report::{Happening, QUEUE, Reports};
use crate::signal::Signal;

/// Signals that are taken in at a time.
pub(super) const BATCH: usize = 1024;
/// Commands, and answers, on their way.
const ORDERS: usize = 16;
/// Answers to requests for permits, on their way.
const PERMITS: usize = 64;

/// The loop's ends of its channels.
#[derive(Debug)]
pub(super) struct MindPorts {
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) answers: mpsc::Sender<OrderAnswer>,
    pub(super) picture: watch::Sender<Arc<Picture>>,
    pub(super) reports: Reports,
    /// What the agent may not do here.
    pub(super) lacks: watch::Receiver<Found>,
    /// What the coordinator is to know of permits, and what it says of them.
    pub(super) wishes: watch::Sender<Arc<Vec<Said>>>,
    pub(super) permits: mpsc::Receiver<Answer>,
    /// Whether it can be asked.
    pub(super) link: watch::Receiver<LinkState>,
}

/// All channels of the loop.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) mind: MindPorts,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) answers: mpsc::Receiver<OrderAnswer>,
    pub(super) picture: watch::Receiver<Arc<Picture>>,
    pub(super) happenings: mpsc::Receiver<Happening>,
    pub(super) lacks: watch::Sender<Found>,
    pub(super) wishes: watch::Receiver<Arc<Vec<Said>>>,
    pub(super) permits: mpsc::Sender<Answer>,
}

/// All of them, with a picture that claims nothing.
pub(super) fn channels(link: watch::Receiver<LinkState>) -> Channels {
    let (signals, seen) = mpsc::channel(BATCH);
    let (orders, ordered) = mpsc::channel(ORDERS);
    let (answered, answers) = mpsc::channel(ORDERS);
    let (told, happenings) = mpsc::channel(QUEUE);
    let (lacks, lacking) = watch::channel(None);
    let (wishes, to_be_said) = watch::channel(Arc::default());
    let (permits, permitted) = mpsc::channel(PERMITS);
    let (published, picture) = watch::channel(Arc::new(Picture {
        attestation: Attestation {
            gate: GateState::Absent,
            kubelet_active: false,
            kubelet_healthy: false,
            apiserver_ready: false,
            api_server: None,
            observed_at: Instant::now(),
            waiting_on: "the agent's first look".to_owned(),
        },
        conditions: Vec::new(),
        units: Vec::new(),
        helpers: Vec::new(),
        disks: Vec::new(),
        brakes: Standing::default(),
        waiting: Vec::new(),
    }));
    Channels {
        mind: MindPorts {
            signals: seen,
            orders: ordered,
            answers: answered,
            picture: published,
            reports: Reports::new(told),
            lacks: lacking,
            wishes,
            permits: permitted,
            link,
        },
        wishes: to_be_said,
        permits,
        lacks,
        signals,
        orders,
        answers,
        picture,
        happenings,
    }
}

/// Waits until the link takes answers again; `false` when it never will.
pub(super) async fn has_room(answers: &mpsc::Sender<OrderAnswer>) -> bool {
    answers.reserve().await.is_ok()
}

//! One coordinator that would lead: campaigns, keeps what it won, gives it back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Keys;
use super::tenure::{Tenure, uptime};
use crate::config::EtcdSettings;
use crate::etcd::wire::TxnRequest;
use crate::etcd::{Etcd, EtcdError, Leased, created_at, found, put, read};

/// After a failed round.
const AGAIN: Duration = Duration::from_millis(500);
/// No less is asked for one renewal, whatever the lease.
const RENEWAL_LEAST: Duration = Duration::from_millis(300);
/// Clocks of two machines run at rates that differ by far less: so much of a lease is not used.
const MARGIN: f64 = 0.1;

/// How a coordinator introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) name: String,
    /// Where agents and operators find it.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) version: String,
}

/// What a follower knows of who leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) leader: Option<Card>,
    /// Why it is not known.
    pub(crate) trouble: Option<String>,
}

/// A tenure that was won.
#[derive(Debug, Clone)]
pub(crate) struct Won {
    pub(crate) tenure: Tenure,
    pub(crate) lease: i64,
    /// The create revision of the leader key: names this tenure, and rises from each to the next.
    pub(crate) revision: i64,
    /// Where the turn stands.
    pub(crate) turn: i64,
    ttl: Duration,
}

/// Until when a lease is ours beyond doubt, as time since boot.
fn sure_until(lease: Leased) -> Duration {
    lease.asked_at + lease.ttl.mul_f64(1.0 - MARGIN)
}

/// One of the coordinators.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    etcd: Etcd,
    keys: Keys,
    card: Arc<Card>,
    ttl: Duration,
    timeout: Duration,
    seen: watch::Sender<Seen>,
}

impl Candidate {
    pub(crate) fn new(etcd: Etcd, settings: &EtcdSettings, card: Card) -> Self {
        Self {
            etcd,
            keys: Keys::new(&settings.prefix),
            card: Arc::new(card),
            ttl: settings.lease_ttl,
            timeout: settings.timeout,
            seen: watch::Sender::default(),
        }
    }

    /// Who leads, as of the last look, and again at every change.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Until this coordinator leads. Never gives up; what keeps it from it is logged when it changes.
    pub(crate) async fn campaign(&self) -> Won {
        self.seen.send_replace(Seen::default());
        loop {
            match self.term().await {
                Ok(won) => return won,
                Err(error) => self.in_trouble(&error),
            }
            sleep(AGAIN).await;
        }
    }

    /// One lease, until it has won or is lost.
    async fn term(&self) -> Result<Won, EtcdError> {
        let mut lease = self.lease().await?;
        loop {
            let standing = match self.stand(lease).await? {
                Ok(won) => return Ok(won),
                Err(revision) => revision,
            };
            let until_renewal = (lease.asked_at + lease.ttl / 3).saturating_sub(uptime());
            let leader = self.keys.leader();
            self.etcd.changed(until_renewal, &leader, standing).await;
            if uptime() >= lease.asked_at + lease.ttl / 3 {
                match self.renew(lease).await? {
                    Some(renewed) => lease = renewed,
                    None => lease = self.lease().await?,
                }
            }
        }
    }

    async fn lease(&self) -> Result<Leased, EtcdError> {
        let ttl = i64::try_from(self.ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        self.etcd.grant(self.timeout, ttl).await
    }

    /// `None`: it is gone.
    async fn renew(&self, lease: Leased) -> Result<Option<Leased>, EtcdError> {
        let within = (lease.ttl / 3).max(RENEWAL_LEAST);
        self.etcd.keep_alive(within, lease.id).await
    }

    /// Leads if nobody does; else the revision as of which somebody else led.
    async fn stand(&self, lease: Leased) -> Result<Result<Won, i64>, EtcdError> {
        let card = serde_json::to_vec(&*self.card).unwrap_or_default();
        let leader = self.keys.leader();
        let member = put(&self.keys.member(lease.id), &card, lease.id);
        // Names this very attempt, for an answer that got lost.
        let turn = format!("lease {:016x}", lease.id);
        let txn = TxnRequest {
            compare: vec![created_at(&leader, 0)],
            success: vec![
                put(&leader, &card, lease.id),
                put(&self.keys.turn(), turn.as_bytes(), 0),
                member.clone(),
            ],
            failure: vec![read(&leader), read(&self.keys.turn()), member],
        };
        let answer = self.etcd.txn(self.timeout, &txn).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let won = |revision, turn| Won {
            tenure: Tenure::until(sure_until(lease)),
            lease: lease.id,
            revision,
            turn,
            ttl: lease.ttl,
        };
        if answer.succeeded {
            self.seen.send_replace(Seen {
                leader: Some((*self.card).clone()),
                trouble: None,
            });
            return Ok(Ok(won(revision, revision)));
        }
        let mut read = found(answer.responses);
        let (stands, turned) = (read.next().flatten(), read.next().flatten());
        let Some(stands) = stands else {
            return Ok(Err(revision));
        };
        if stands.lease == lease.id {
            // An attempt whose answer was lost. Nothing was written since: only a leader writes.
            let turn = turned.map_or(stands.create_revision, |turn| turn.mod_revision);
            return Ok(Ok(won(stands.create_revision, turn)));
        }
        // Our own card is that of a tenure that we have lost, and whose lease has not ended yet.
        let leader = serde_json::from_slice::<Card>(&stands.value).ok();
        let leader = leader.filter(|leader| *leader != *self.card);
        let changed = self.seen.send_if_modified(|seen| {
            let changed = seen.leader != leader || seen.trouble.is_some();
            seen.leader.clone_from(&leader);
            seen.trouble = None;
            changed
        });
        if changed && let Some(leader) = leader {
            tracing::info!(leader = leader.name, addresses = ?leader.addresses, "follows");
        }
        Ok(Err(revision))
    }

    /// Renews what was won until it is over, and sees to it that it is over in time. Ends with it.
    pub(crate) async fn keep(&self, won: &Won) {
        let leader = self.keys.leader();
        let share = won.ttl / 3;
        // At once: some of the lease is used up by the time it has won.
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                _ = won.tenure.ended() => return,
                () = sleep(pause.min(won.tenure.left(uptime()))) => {}
            }
            if !won.tenure.holds() {
                won.tenure
                    .end("the lease could not be renewed in time; is etcd reachable, with a majority of its members?");
                return;
            }
            pause = share;
            let within = || share.min(won.tenure.left(uptime()));
            let renewed = tokio::select! {
                _ = won.tenure.ended() => return,
                renewed = self.etcd.keep_alive(within(), won.lease) => renewed,
            };
            match renewed {
                Ok(Some(lease)) => won.tenure.extend(uptime(), sure_until(lease)),
                Ok(None) => won.tenure.end("etcd says that the lease has ended"),
                Err(error) => {
                    tracing::warn!(%error, left = ?won.tenure.left(uptime()), "the lease was not renewed");
                    pause = Duration::ZERO;
                    continue;
                }
            }
            // By an operator's hand, or in an etcd that was restored.
            if let Ok(stands) = self.etcd.get(within(), &leader).await
                && stands.as_ref().map(|stands| stands.create_revision) != Some(won.revision)
            {
                won.tenure.end("the leader's key is no longer ours");
            }
        }
    }

    /// Gives the lead back at once, so that another need not wait for the lease to end.
    pub(crate) async fn resign(&self, won: &Won) {
        won.tenure.end("resigned");
        if let Err(error) = self.etcd.revoke(self.timeout.min(won.ttl), won.lease).await {
            tracing::warn!(%error, "the lead was not given back; another coordinator leads once the lease has ended");
        }
    }

    /// Every coordinator, and whether it leads.
    pub(crate) async fn all(&self, within: Duration) -> Result<Vec<(Card, bool)>, EtcdError> {
        let leader = self
            .etcd
            .get(within, &self.keys.leader())
            .await?
            .map(|key| key.lease);
        let members = self.etcd.all(within, &self.keys.members()).await?;
        let mut all: Vec<_> = members
            .into_iter()
            .filter_map(|member| {
                let card = serde_json::from_slice(&member.value).ok()?;
                Some((card, leader == Some(member.lease)))
            })
            .collect();
        all.sort_by(|(a, _): &(Card, bool), (b, _)| a.name.cmp(&b.name));
        Ok(all)
    }

    fn in_trouble(&self, error: &EtcdError) {
        let trouble = Some(error.to_string());
        let changed = self.seen.send_if_modified(|seen| {
            let changed = seen.leader.is_some() || seen.trouble.is_none();
            seen.leader = None;
            seen.trouble.clone_from(&trouble);
            changed
        });
        if changed {
            tracing::warn!(%error, "nobody can be made leader");
        }
    }
}

/// Keeps, as a task, until the tenure or `stop` ends it.
pub(crate) async fn keep_until(candidate: Candidate, won: Won, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = candidate.keep(&won) => {}
    }
}

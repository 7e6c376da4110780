//! `blackstart-coordinator store copy`: opens two stores as their only user, and copies one to the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RunError;
use super::several::setup;
use crate::config::{EtcdSettings, Settings, StoreSettings};
use crate::etcd::Etcd;
use crate::leader::{Candidate, Card, Won, keep_until};
use crate::store::copy::{Copied, CopyError, copy};
use crate::store::etcd::EtcdStore;
use crate::store::redb::RedbStore;
use crate::store::{Store, StoreError};

/// An etcd that has just lost its leader has another by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that nobody else writes to.
struct Held {
    store: Arc<dyn Store>,
    /// What is given back afterwards.
    lead: Option<(Candidate, Won)>,
}

/// Copies the store of one configuration to that of another.
///
/// # Errors
/// A coordinator is at work in one of them, or what [`copy`] says.
pub async fn store(from: &Settings, to: &Settings) -> Result<Copied, CopyFailure> {
    let kept = CancellationToken::new();
    let from = hold(from, &kept).await?;
    let to = hold(to, &kept).await?;
    let (source, target) = (Arc::clone(&from.store), Arc::clone(&to.store));
    let copied = spawn_blocking(move || copy(source.as_ref(), target.as_ref())).await;
    kept.cancel();
    for (candidate, won) in [from.lead, to.lead].into_iter().flatten() {
        candidate.resign(&won).await;
    }
    Ok(copied.map_err(RunError::Broke)??)
}

/// Why it was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyFailure {
    /// One of the two could not be opened.
    #[error(transparent)]
    Open(#[from] RunError),
    /// A coordinator is at work.
    #[error("{0} leads; stop every coordinator first")]
    Led(String),
    /// The copy itself.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

async fn hold(settings: &Settings, kept: &CancellationToken) -> Result<Held, CopyFailure> {
    let etcd = match &settings.store {
        StoreSettings::Etcd(etcd) => etcd,
        StoreSettings::Embedded => {
            std::fs::create_dir_all(&settings.state_dir).map_err(|source| RunError::StateDir {
                path: settings.state_dir.clone(),
                source,
            })?;
            let store = RedbStore::open(&settings.store_file()).map_err(RunError::Store)?;
            return Ok(Held {
                store: Arc::new(store),
                lead: None,
            });
        }
    };
    let client = setup(etcd)?;
    let card = Card {
        name: "blackstart-coordinator store copy".to_owned(),
        addresses: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let candidate = Candidate::new(client.clone(), etcd, card);
    let won = lead(&candidate, etcd).await?;
    tokio::spawn(keep_until(candidate.clone(), won.clone(), kept.clone()));
    let store = open(client, etcd.clone(), won.clone()).await?;
    Ok(Held {
        store: Arc::new(store),
        lead: Some((candidate, won)),
    })
}

async fn lead(candidate: &Candidate, settings: &EtcdSettings) -> Result<Won, CopyFailure> {
    let mut seen = candidate.seen();
    let another = async {
        let seen = seen.wait_for(|seen| seen.leader.is_some()).await;
        seen.ok()
            .and_then(|seen| seen.leader.as_ref().map(|leader| leader.name.clone()))
    };
    let campaign = async {
        tokio::select! {
            biased;
            won = candidate.campaign() => Ok(won),
            Some(name) = another => Err(CopyFailure::Led(name)),
        }
    };
    if let Ok(won) = timeout(PATIENCE, campaign).await {
        return won;
    }
    let trouble = candidate.seen().borrow().trouble.clone();
    let why = trouble.unwrap_or_else(|| format!("{} s were not enough", PATIENCE.as_secs()));
    let error = StoreError::Io {
        action: "open",
        path: format!("{} in etcd", settings.prefix).into(),
        why,
    };
    Err(CopyFailure::Open(RunError::Store(error)))
}

async fn open(client: Etcd, settings: EtcdSettings, won: Won) -> Result<EtcdStore, RunError> {
    let runtime = Handle::current();
    let opened = spawn_blocking(move || EtcdStore::open(client, &settings, &won, runtime));
    Ok(opened.await.map_err(RunError::Broke)??)
}

//! New settings for an agent that runs.
//!
//! ```text
//!  SIGHUP ──file, validated──► reloads ─► follow ─┬─ needs a restart: refused whole, field by field
//!                                                 └─ settings in force ──► mind, watchers, window
//! ```
//!
//! All or nothing: a configuration of which a part is in force is one that nobody wrote. Ledger, link and remedies under way go on as
//! they are; those that were begun end by the settings that they were begun with.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use crate::config::{Settings, changes};
use crate::reclaim::Rules;
use crate::reclaim::archive::well_placed;

/// Takes over what comes, until nobody can send any more.
pub(super) async fn follow(mut reloads: mpsc::Receiver<Settings>, in_force: watch::Sender<Arc<Settings>>) {
    while let Some(settings) = reloads.recv().await {
        take_over(settings, &in_force);
    }
}

/// Puts them in force, or says why not.
pub(super) fn take_over(settings: Settings, in_force: &watch::Sender<Arc<Settings>>) {
    let changes = changes(&in_force.borrow(), &settings);
    if changes.is_empty() {
        info!("configuration read again: nothing has changed");
        return;
    }
    let refused: Vec<_> = changes.iter().filter(|change| change.needs_restart).collect();
    if !refused.is_empty() {
        for change in refused {
            error!(%change, "needs a restart");
        }
        error!(
            "the configuration in force stays as it is: systemctl restart blackstart-agent takes over the new one"
        );
        return;
    }
    if let Err(error) = Rules::new(&settings.logs) {
        error!(%error, "logs: their globs cannot be used; the configuration in force stays as it is");
        return;
    }
    if let Err(why) = well_placed(&settings.logs) {
        error!(why, "the configuration in force stays as it is");
        return;
    }
    for change in &changes {
        info!(%change, "configuration");
    }
    in_force.send_replace(Arc::new(settings));
}

//! The task behind [`Runbooks`]: one task for each run at work, and agents' answers on their way to them.

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Runbooks;
use super::driver::{Driver, Heard};
use super::etcd_keeper::Keeper;
use super::watchman::Watchman;
use crate::fleet::OrderResult;

/// What a running coordinator does for runbooks. See [`Work::run`].
#[derive(Debug)]
pub struct Work {
    pub(super) handle: Runbooks,
    pub(super) drivers: Vec<Driver>,
    pub(super) begun: mpsc::Receiver<Driver>,
}

impl Work {
    /// Carries runs out until `stop`; those at work then are taken up again by the next process.
    pub async fn run(mut self, mut results: mpsc::Receiver<OrderResult>, stop: CancellationToken) {
        let mut at_work = JoinSet::new();
        let watchman = Watchman {
            runbooks: self.handle.clone(),
        };
        let told = stop.clone();
        at_work.spawn(async move {
            watchman.run(told).await;
            // It is no run.
            String::new()
        });
        let keeper = Keeper {
            runbooks: self.handle.clone(),
        };
        let told = stop.clone();
        at_work.spawn(async move {
            keeper.run(told).await;
            String::new()
        });
        for driver in self.drivers.drain(..) {
            at_work.spawn(driver.run(stop.clone()));
        }
        let mut open = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(driver) = self.begun.recv() => {
                    at_work.spawn(driver.run(stop.clone()));
                }
                result = results.recv(), if open => match result {
                    Some(result) => self.hear(result),
                    None => open = false,
                },
                Some(ended) = at_work.join_next() => match ended {
                    Ok(id) => {
                        self.handle.shared.lines().remove(&id);
                    }
                    Err(error) => tracing::error!(%error, "a run of a runbook broke; it is taken up again at the next start"),
                },
            }
        }
        while at_work.join_next().await.is_some() {}
    }

    /// An answer that cannot be taken now is lost, and the command is sent again.
    fn hear(&self, result: OrderResult) {
        let run = result.command_id.split('/').next().unwrap_or_default();
        let line = self.handle.shared.lines().get(run).cloned();
        if let Some(line) = line {
            let _full_or_over = line.answers.try_send(Heard(result));
        }
    }
}

//! The network → [`Signal::Network`]: four looks, none of which waits for another.
//!
//! ```text
//!  rtnetlink ──wakes──► path   /proc/net/route, ipv6_route, /sys/class/net/*: the way out
//!  the link's state ──► reach  the coordinator, as its session says; TCP to peers
//!                       cni    files in the configuration directory
//!                       dns    one query over UDP
//! ```
//!
//! | module | story |
//! |---|---|
//! | `events` | the kernel says that links, addresses or routes changed |
//! | `routes` | default routes, read from `/proc/net` |
//! | `path` | routes, links, and what was there in this boot |
//! | `reach` | coordinator and peers |
//! | `cni` | a network configuration that libcni would take |
//! | `dns` | a query, and what its answer says |

pub(crate) mod cni;
pub(crate) mod dns;
mod events;
mod path;
mod reach;
pub(crate) mod routes;

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beat::Beat;
use crate::config::NetworkSettings;
use crate::link;
use crate::signal::{NetworkSignal, Signal};

/// Where the kernel tells of the network.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `route` and `ipv6_route` are here.
    pub proc_net: PathBuf,
    /// A directory for each interface.
    pub sys_net: PathBuf,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            proc_net: "/proc/self/net".into(),
            sys_net: "/sys/class/net".into(),
        }
    }
}

/// What else the watcher has to know.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the kernel tells of the network.
    pub sources: Sources,
    /// Gone after a reboot: what was there in this boot is remembered here.
    pub runtime_dir: PathBuf,
    /// How it stands with the coordinator; `None` without one.
    pub coordinator: Option<watch::Receiver<link::LinkState>>,
    /// When there are looks.
    pub beat: Beat,
}

/// Watches until `stop`. What is off in the settings is not looked at.
pub async fn watch(
    settings: NetworkSettings,
    around: Surroundings,
    signals: mpsc::Sender<Signal>,
    stop: CancellationToken,
) {
    let pace = Pace {
        interval: settings.interval,
        signals,
        beat: around.beat,
    };
    let looks = async {
        tokio::join!(
            async {
                if settings.default_route {
                    path::follow(around.sources, around.runtime_dir, &pace).await;
                }
            },
            async {
                if !settings.peers.is_empty() {
                    reach::follow(&settings.peers, settings.deadline, around.coordinator, &pace).await;
                }
            },
            async {
                if settings.cni.watch {
                    cni::follow(settings.cni.dir, &pace).await;
                }
            },
            async {
                if let Some(settings_of_dns) = settings.dns {
                    dns::follow(settings_of_dns, settings.deadline, &pace).await;
                }
            },
        );
        // All of it may be off; new settings begin it again.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = Box::pin(looks) => {}
    }
}

/// How often is looked, and who is told.
struct Pace {
    interval: Duration,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
}

impl Pace {
    /// Told to whoever listens; when nobody does any more, the agent is about to end.
    async fn tell(&self, seen: NetworkSignal) {
        let _nobody_listens = self.signals.send(Signal::Network(seen)).await;
    }

    /// The pause before the next look: a fifth more or less, so that a fleet that came back together does not ask together.
    async fn pause(&self) {
        let share = rand::rng().random_range(0.8..1.2);
        self.beat
            .pause(Instant::now(), self.interval.mul_f64(share))
            .await;
    }
}

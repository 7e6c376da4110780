//! Builds the agent's parts, runs them, and takes them down in order.
//!
//! ```text
//!  watchers ──signals──► ┌───────────────────────────────────────────┐
//!  link ─────orders────► │ mind: diagnose → decide → begin, publish  │ ──picture──► link
//!  flights ───landed───► │ (one loop; waits for nothing but these)   │ ──answers──► link
//!  time ───────────────► └──────────────────┬────────────────────────┘
//!                                           ▼ flight, one a subject
//!                         intent, durable → remedy, verified → outcome, durable
//! ```
//!
//! | module | story |
//! |---|---|
//! | `mind` | the one loop |
//! | `flight` | what happens to one remedy: ledger, act, ledger |
//! | `orders` | which of the coordinator's commands are begun, and which are answered without |
//! | `ports` | the channels between them |
//! | `watchers` | keeps the watchers running |
//! | `reload` | new settings for an agent that runs |
//! | `publish` | what the agent says of its node |
//! | `notify` | what it says to systemd |
//! | `give_back` | memory that only the start needed |
//!
//! Nothing here is global to the process: many agents run in one for a drill.

mod flight;
mod give_back;
mod mind;
mod notify;
mod orders;
mod ports;
mod publish;
mod reload;
#[cfg(test)]
mod tests;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::boot::{self, BootError, BootIdentity};
use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::machine::MACHINE_ID;
use tokio::sync::{self, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::brakes::{self, SharedBrakes};
use crate::config::Settings;
use crate::control_plane;
use crate::enrol::renew::{self, Renewal};
use crate::etcd;
use crate::host::Host;
use crate::kubernetes;
use crate::ledger::{Ledger, LedgerError, Recovery, SharedLedger};
use crate::link::{self, Goodbye, LinkPorts, LinkState};
use crate::local::{self, window::Window};
use crate::metrics::{self, Meters};
use crate::order::{Order, OrderAnswer};
use crate::permit::{Answer, Said};
use crate::picture::Picture;
use crate::privilege::survey::{self, Found};
use crate::reclaim::Rules;
use crate::reclaim::archive::well_placed;
use crate::report::Happening;
use crate::set_aside::SetAside;
use crate::watch::beat::Beat;
use crate::watch::clock::FLOOR_FILE;

use mind::{Books, Mind};
use watchers::Watchers;

pub use notify::Notify;

/// An agent that is being replaced has so long to let go of the ledger.
const HAND_OVER: Duration = Duration::from_secs(5);
/// Remedies under way have so long to end when the agent stops; what has not ended is looked into at the next start.
const GRACE: Duration = Duration::from_secs(5);
/// systemd is asked for so long whether the machine goes down.
const ASK: Duration = Duration::from_secs(1);
/// The link and the watchers have so long.
const LEAVE: Duration = Duration::from_secs(3);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be told which boot this is, without which neither gate nor budgets mean anything.
    #[error("tell this boot's identity: {0}")]
    Boot(#[source] BootError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Opening the ledger was broken off.
    #[error("open the ledger: it was broken off")]
    BrokenOff,
}

/// [`run_reloading`] with the same settings for ever.
///
/// # Errors
/// The boot's identity or the ledger cannot be had. Nothing else ends it.
pub async fn run<H: Host>(
    settings: Settings,
    host: Arc<H>,
    notify: Notify,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let (_, reloads) = mpsc::channel(1);
    run_reloading(settings, host, notify, Beat::begin(), reloads, stop).await
}

/// Watches and repairs the node behind `host` until `stop`. Dropping the future is what a crash is: nothing of it stays
/// behind but what is on disk. Settings that come by `reloads` are taken over whole, or, if one of their fields needs a restart, not at all.
///
/// # Errors
/// The boot's identity or the ledger cannot be had. Nothing else ends it.
pub async fn run_reloading<H: Host>(
    settings: Settings,
    host: Arc<H>,
    notify: Notify,
    beat: Beat,
    reloads: mpsc::Receiver<Settings>,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let agent = build(settings, host, notify, beat, &stop).await?;
    let (settings, host) = (Arc::clone(&agent.in_force.borrow()), agent.host);
    let (bye, goodbye) = watch::channel(Goodbye::AgentStop);
    let hang_up = CancellationToken::new();
    let (link_state, link_seen) = (agent.link_state, agent.link_seen);
    let window = Window {
        settings: agent.in_force.subscribe(),
        boot: agent.boot.clone(),
        ledger: agent.ledger.clone(),
        picture: agent.picture.clone(),
        link: settings.coordinator.is_some().then_some(link_seen),
        lacks: agent.lacks.subscribe(),
        brakes: agent.brakes.clone(),
        machine: host.machine().is_some(),
        begun: Instant::now(),
    };
    // A simulated machine has no privileges to lack.
    let privileges = host.machine().is_some().then(|| {
        let following = survey::follow(
            Arc::clone(&host),
            agent.in_force.subscribe(),
            agent.lacks,
            hang_up.clone(),
        );
        AbortOnDropHandle::new(tokio::spawn(following))
    });
    // One that shares its process with others leaves the process alone.
    let _giving_back = host.machine().is_some().then(|| {
        let giving_back = give_back::now_and_then(agent.picture.clone(), beat, hang_up.clone());
        AbortOnDropHandle::new(tokio::spawn(giving_back))
    });
    let metrics = settings.metrics.map(|metrics| {
        let serving = metrics::serve(metrics.listen, agent.meters, window.clone(), hang_up.clone());
        AbortOnDropHandle::new(tokio::spawn(serving))
    });
    let kubernetes = AbortOnDropHandle::new(tokio::spawn(kubernetes::follow(
        agent.in_force.subscribe(),
        agent.picture.clone(),
        agent.happenings,
        hang_up.clone(),
    )));
    let local = AbortOnDropHandle::new(tokio::spawn(local::serve(window, hang_up.clone())));
    let (words, heard) = watch::channel(None);
    let keeping = brakes::keep(heard, agent.brakes.clone(), agent.ledger.clone());
    let _keeping = AbortOnDropHandle::new(tokio::spawn(keeping));
    let clock = Arc::new(ClockFloor::open(&settings.state_dir.join(FLOOR_FILE)));
    let renewal_wanted = Arc::new(sync::Notify::new());
    let renewing = renewing(&settings, &clock, &renewal_wanted, hang_up.clone());
    let machine = host.machine().is_some();
    let etcd = etcd::Desk::new(agent.in_force.subscribe(), machine);
    let snapshots = etcd.clone().keep_snapshots(hang_up.clone());
    let _snapshots = AbortOnDropHandle::new(tokio::spawn(snapshots));
    let link = settings.coordinator.clone().map(|coordinator| {
        let ports = LinkPorts {
            settings: coordinator,
            clock,
            node: settings.node.clone(),
            boot: agent.boot,
            ledger: agent.ledger,
            runtime_dir: settings.runtime_dir.clone(),
            picture: agent.picture,
            orders: agent.orders,
            answers: agent.answers,
            goodbye,
            state: link_state,
            control_plane: control_plane::Desk::new(agent.in_force.subscribe(), &agent.set_aside, machine),
            set_aside: agent.set_aside,
            words,
            wishes: agent.wishes,
            permits: agent.permits,
            beat,
            etcd,
            renewal_wanted,
        };
        AbortOnDropHandle::new(tokio::spawn(link::run(ports, hang_up.clone())))
    });
    let _reloading = AbortOnDropHandle::new(tokio::spawn(reload::follow(reloads, agent.in_force)));
    info!(node = settings.node, dry_run = settings.dry_run, "agent runs");
    let leave = async {
        stop.cancelled().await;
        if let Ok(true) = timeout(ASK, host.shutting_down()).await {
            bye.send_replace(Goodbye::Shutdown);
        }
        hang_up.cancel();
    };
    tokio::join!(Box::pin(agent.mind.run(stop.clone())), leave);
    end([
        ("watchers", Some(agent.watchers)),
        ("link", link),
        ("renewal of the certificate", renewing),
        ("local", Some(local)),
        ("metrics", metrics),
        ("kubernetes", Some(kubernetes)),
        ("privileges", privileges),
    ])
    .await;
    info!("agent ends");
    Ok(())
}

/// Waits for what was told to end.
async fn end(tasks: impl IntoIterator<Item = (&'static str, Option<AbortOnDropHandle<()>>)>) {
    for (name, task) in tasks {
        let Some(task) = task else { continue };
        if timeout(LEAVE, task).await.is_err() {
            warn!(name, "did not end in time and is cut off");
        }
    }
}

/// Keeps the certificate valid.
fn renewing(
    settings: &Settings,
    clock: &Arc<ClockFloor>,
    wanted: &Arc<sync::Notify>,
    stop: CancellationToken,
) -> Option<AbortOnDropHandle<()>> {
    let coordinator = settings.coordinator.as_ref()?;
    if let Some(mode) = blackstart_proto::tls::exposed(&coordinator.tls.key) {
        let key = coordinator.tls.key.display();
        warn!(%key, mode = format_args!("{mode:o}"), "others than its owner can read this key; chmod 600");
    }
    let renewal = Renewal {
        addresses: coordinator.addresses.clone(),
        files: coordinator.tls.clone(),
        node: settings.node.clone(),
        clock: Arc::clone(clock),
        machine_id: MACHINE_ID.into(),
        wanted: Arc::clone(wanted),
    };
    Some(AbortOnDropHandle::new(tokio::spawn(renew::follow(renewal, stop))))
}

/// An agent that has not begun to think yet, and the link's ends of its channels.
#[derive(Debug)]
struct Agent<H> {
    /// The settings in force.
    in_force: watch::Sender<Arc<Settings>>,
    host: Arc<H>,
    boot: BootIdentity,
    ledger: SharedLedger,
    watchers: AbortOnDropHandle<()>,
    mind: Mind<H>,
    brakes: SharedBrakes,
    set_aside: SetAside,
    meters: Meters,
    /// How it stands with the coordinator: the link's end, and that of whoever asks.
    link_state: watch::Sender<LinkState>,
    link_seen: watch::Receiver<LinkState>,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<OrderAnswer>,
    picture: watch::Receiver<Arc<Picture>>,
    happenings: mpsc::Receiver<Happening>,
    lacks: watch::Sender<Found>,
    wishes: watch::Receiver<Arc<Vec<Said>>>,
    permits: mpsc::Sender<Answer>,
}

async fn build<H: Host>(
    settings: Settings,
    host: Arc<H>,
    notify: Notify,
    beat: Beat,
    stop: &CancellationToken,
) -> Result<Agent<H>, RunError> {
    let settings = Arc::new(settings);
    let (boot, ledger, brakes, set_aside) = open(&settings, host.machine().is_some()).await?;
    let rules = rules(&settings);
    let (link_state, link_seen) = watch::channel(LinkState::begun());
    let link_watched = settings.coordinator.is_some().then(|| link_seen.clone());
    let in_force = watch::Sender::new(settings);
    let channels = ports::channels(link_seen.clone());
    let watchers = Watchers::new(
        Arc::clone(&host),
        in_force.subscribe(),
        rules.is_some(),
        channels.signals,
        link_watched,
        beat,
        stop.clone(),
    );
    let meters = Meters::default();
    let mind = Mind::new(
        in_force.subscribe(),
        Arc::clone(&host),
        rules,
        notify,
        Books {
            ledger: ledger.clone(),
            brakes: brakes.clone(),
            meters: meters.clone(),
            aside: set_aside.clone(),
        },
        channels.mind,
    );
    Ok(Agent {
        watchers: AbortOnDropHandle::new(tokio::spawn(watchers.run())),
        in_force,
        host,
        boot,
        ledger,
        mind,
        brakes,
        set_aside,
        meters,
        link_state,
        link_seen,
        orders: channels.orders,
        answers: channels.answers,
        picture: channels.picture,
        happenings: channels.happenings,
        lacks: channels.lacks,
        wishes: channels.wishes,
        permits: channels.permits,
    })
}

/// Which logs may be reclaimed, and how; `None` if that cannot be told.
fn rules(settings: &Settings) -> Option<Arc<Rules>> {
    // A node that does not repair itself would be worse than one that does not archive.
    if let Err(why) = well_placed(&settings.logs) {
        error!(why, "what lies there is reclaimed without being archived");
    }
    match Rules::new(&settings.logs) {
        Ok(rules) => Some(Arc::new(rules)),
        Err(error) => {
            warn!(%error, "logs are neither watched nor reclaimed: their globs cannot be used");
            None
        }
    }
}

/// Which boot this is, the ledger, what is held, and what is set aside. `machine`: the node's files are this machine's.
async fn open(
    settings: &Arc<Settings>,
    machine: bool,
) -> Result<(BootIdentity, SharedLedger, SharedBrakes, SetAside), RunError> {
    let deadline = Instant::now() + HAND_OVER;
    loop {
        let ours = Arc::clone(settings);
        let opened = tokio::task::spawn_blocking(move || {
            let boot = boot::establish(&ours.boot_id_file, &ours.state_dir, &ours.runtime_dir)
                .map_err(RunError::Boot)?;
            let (ledger, recovery) = Ledger::open(&ours.ledger(), &boot.nonce)?;
            // Only whoever has the ledger touches the file of holds.
            let brakes = SharedBrakes::open(&ours.state_dir, &boot.nonce);
            let aside = if machine {
                SetAside::open(&ours.state_dir, &boot.nonce, &ours.static_pods)
            } else {
                SetAside::none(&ours.state_dir, &boot.nonce)
            };
            Ok((boot, ledger, brakes, aside, recovery))
        });
        match opened.await.map_err(|_| RunError::BrokenOff)? {
            Ok((boot, ledger, brakes, aside, recovery)) => {
                tell(&recovery, &ledger);
                return Ok((boot, SharedLedger::new(ledger), brakes, aside));
            }
            Err(RunError::Ledger(LedgerError::Busy(_))) if Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn tell(recovery: &Recovery, ledger: &Ledger) {
    let path = ledger.path().display();
    match recovery {
        Recovery::Created => info!(ledger = %path, "new ledger"),
        Recovery::Whole => info!(ledger = %path, "ledger is whole"),
        Recovery::TornTail { bytes, kept_in } => {
            warn!(ledger = %path, bytes, ?kept_in, "the ledger's last record was torn and is cut off");
        }
    }
}

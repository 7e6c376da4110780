//! Container runtimes → [`Signal::Runtime`] and [`Signal::Container`].
//!
//! ```text
//!  docker.sock ──list containers, with a deadline──► Signal::Runtime
//!  containerd.sock ──list namespaces, likewise─────► Signal::Runtime
//!  docker.sock ──/events──► containers: what it adds up to ──► Signal::Container
//! ```
//! A hung daemon answers a ping, and its socket is served by the kernel as long as the process exists: only a call that
//! passes through the daemon's own state says that it works. Calls share a connection, which is made anew at every tenth of them and
//! whenever one fails: a daemon that takes no more connections is found as well.
//!
//! A socket that was never there means that the runtime is not installed: nothing is told. Events that came while the stream was
//! down are asked for again (docker keeps the last 256).

mod containerd;
pub(crate) mod containers;
pub(crate) mod docker;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::join3;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::containers::{Containers, Event};
use super::beat::Beat;
use crate::config::{RuntimeEndpoint, RuntimeSettings};
use crate::signal::{ContainerSignal, Runtime, RuntimeAnswer, RuntimeSignal, Signal};

/// A stream of events that ended, or could not be had, is asked for again after this.
const RETRY: Duration = Duration::from_secs(2);
/// So many calls are made on one connection: half a minute's, by default.
const RENEWED: u32 = 10;

/// Watches both runtimes until `stop`.
pub async fn watch(
    settings: RuntimeSettings,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let watching = join3(
        ask(Runtime::Docker, &settings.docker, &settings, &signals, beat),
        ask(
            Runtime::Containerd,
            &settings.containerd,
            &settings,
            &signals,
            beat,
        ),
        follow(&settings, &signals),
    );
    tokio::select! {
        () = stop.cancelled() => {}
        _nobody_listens = watching => {}
    }
}

/// One real call of a runtime; `None` where its socket is not there.
pub async fn call(runtime: Runtime, socket: &Path, deadline: Duration) -> Option<RuntimeAnswer> {
    Line::to(runtime, socket).call(socket, deadline).await
}

/// Calls of one runtime.
enum Line {
    Docker(docker::Line),
    Containerd(containerd::Line),
}

impl Line {
    fn to(runtime: Runtime, socket: &Path) -> Self {
        match runtime {
            Runtime::Docker => Self::Docker(docker::Line::new(socket)),
            Runtime::Containerd => Self::Containerd(containerd::Line::new(socket)),
        }
    }

    fn is_kept(&self) -> bool {
        match self {
            Self::Docker(line) => line.is_kept(),
            Self::Containerd(line) => line.is_kept(),
        }
    }

    /// One real call; `None` where the socket is not there.
    async fn call(&mut self, socket: &Path, deadline: Duration) -> Option<RuntimeAnswer> {
        let there = if self.is_kept() {
            Ok(true)
        } else {
            socket.try_exists()
        };
        match there {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                let why = format!("look for {}: {error}", socket.display());
                return Some(RuntimeAnswer::Unobservable { why });
            }
        }
        let called = async {
            match self {
                Self::Docker(line) => line.call().await,
                Self::Containerd(line) => line.call().await,
            }
        };
        let answer = timeout(deadline, called).await;
        Some(answer.unwrap_or(RuntimeAnswer::TimedOut { after: deadline }))
    }
}

async fn ask(
    runtime: Runtime,
    endpoint: &RuntimeEndpoint,
    settings: &RuntimeSettings,
    signals: &mpsc::Sender<Signal>,
    beat: Beat,
) {
    let mut seen = false;
    let mut line = Line::to(runtime, &endpoint.socket);
    loop {
        let begun = Instant::now();
        let answer = match line.call(&endpoint.socket, settings.deadline).await {
            Some(answer) => {
                seen = true;
                Some(answer)
            }
            None => seen.then(|| RuntimeAnswer::Unobservable {
                why: format!("{} is gone", endpoint.socket.display()),
            }),
        };
        let period = match &answer {
            None | Some(RuntimeAnswer::Answered) => settings.interval,
            Some(_) => settings.while_failing(),
        };
        if let Some(answer) = answer {
            let told = Signal::Runtime(RuntimeSignal { runtime, answer });
            if signals.send(told).await.is_err() {
                return;
            }
        }
        sleep_until(beat.due(begun, period)).await;
    }
}

async fn follow(settings: &RuntimeSettings, signals: &mpsc::Sender<Signal>) {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut containers = Containers::new(i64::try_from(begun.as_nanos()).unwrap_or(i64::MAX));
    let mut told = false;
    loop {
        match stream(settings, &mut containers, signals, &mut told).await {
            Ok(Ended::NobodyListens) => return,
            Ok(Ended::NotInstalled) => {}
            Err(error) => {
                let why = docker::explain(&error);
                if told {
                    info!(%why, "docker's events ended; asking for them again");
                } else {
                    debug!(%why, "docker's events cannot be had");
                }
                told = false;
            }
        }
        sleep(RETRY).await;
    }
}

enum Ended {
    NobodyListens,
    NotInstalled,
}

async fn stream(
    settings: &RuntimeSettings,
    containers: &mut Containers,
    signals: &mpsc::Sender<Signal>,
    told: &mut bool,
) -> Result<Ended, bollard::errors::Error> {
    let socket = &settings.docker.socket;
    if !socket.try_exists().unwrap_or(false) {
        return Ok(Ended::NotInstalled);
    }
    let client = docker::connect(socket, settings.deadline)?;
    let since = containers.since();
    let unhealthy = docker::unhealthy(&client).await?;
    let mut events = Box::pin(docker::events(&client, since));
    *told = true;
    for changed in containers.only_these_unhealthy(&unhealthy) {
        if !send(signals, changed).await {
            return Ok(Ended::NobodyListens);
        }
    }
    for event in unhealthy {
        if !tell(&client, containers, &event, settings, signals).await {
            return Ok(Ended::NobodyListens);
        }
    }
    while let Some(message) = events.next().await {
        if let Some(event) = containers::parse(message?)
            && containers.is_new(&event)
            && !tell(&client, containers, &event, settings, signals).await
        {
            return Ok(Ended::NobodyListens);
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
}

/// Tells what an event changes; `false` when nobody listens.
async fn tell(
    client: &bollard::Docker,
    containers: &mut Containers,
    event: &Event,
    settings: &RuntimeSettings,
    signals: &mpsc::Sender<Signal>,
) -> bool {
    if containers.asks_for_policy(event) {
        // That it cannot be told now is asked again at the next event.
        let policy = timeout(settings.deadline, docker::has_policy(client, &event.id)).await;
        if let Ok(Ok(has_policy)) = policy {
            containers.policy(&event.id, has_policy);
        }
    }
    match containers.observe(event) {
        Some(changed) => send(signals, changed).await,
        None => true,
    }
}

async fn send(signals: &mpsc::Sender<Signal>, container: ContainerSignal) -> bool {
    signals.send(Signal::Container(container)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_that_is_not_installed_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for runtime in [Runtime::Docker, Runtime::Containerd] {
            let socket = dir.path().join("none.sock");
            assert_eq!(call(runtime, &socket, Duration::from_secs(5)).await, None);
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_accepted_and_never_answered_times_out_and_one_without_a_listener_fails() {
        let dir = tempfile::tempdir().unwrap();
        for runtime in [Runtime::Docker, Runtime::Containerd] {
            let socket = dir.path().join(runtime.as_str());
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let deadline = Duration::from_millis(200);
            assert_eq!(
                call(runtime, &socket, deadline).await,
                Some(RuntimeAnswer::TimedOut { after: deadline })
            );
            drop(listener);
            let answer = call(runtime, &socket, Duration::from_secs(20)).await;
            assert!(
                matches!(&answer, Some(RuntimeAnswer::Failed { why }) if why.contains("refused")),
                "{answer:?}"
            );
        }
    }
}

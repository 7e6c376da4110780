//! Static pods → [`Signal::StaticPods`]: their manifests, whether their containers run, and whether they answer.
//!
//! ```text
//!  manifests, at each look and when something changes there ──► pods ─┐
//!  docker's list of running containers ──────────────────────────────►├─► signal: everything, at each look
//!  a GET of each health port ────────────────────────────────────────►┘
//! ```
//! Where there is no docker the health port alone tells: other runtimes are not asked.
//!
//! | module | story |
//! |---|---|
//! | `directory` | the files, and how one is moved out and back |
//! | `manifest` | what one says |
//! | `containers` | what docker says |
//! | `learned` | which pods had a manifest before |

pub(crate) mod containers;
pub(crate) mod directory;
mod learned;
pub(crate) mod manifest;
mod wake;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::containers::Containers;
use self::directory::{Found, Places};
use self::manifest::Manifest;
use self::wake::Wake;
use super::beat::Beat;
use crate::config::{HttpTarget, StaticPodSettings};
use crate::host::real::http;
use crate::signal::{MissingManifest, ProbeOutcome, Signal, StaticPod, StaticPodsSignal};

/// A node without static pods is looked at so often, besides when something changes.
const IDLE: Duration = Duration::from_secs(10);

/// Watches until `stop`. `docker` is docker's socket.
pub async fn watch(
    settings: StaticPodSettings,
    docker: PathBuf,
    state_dir: PathBuf,
    signals: mpsc::Sender<Signal>,
    beat: Beat,
    stop: CancellationToken,
) {
    let mut wake = Wake::new(settings.manifests.clone());
    let eyes = Eyes::new(&settings, docker);
    loop {
        let begun = Instant::now();
        let signal = tokio::select! {
            () = stop.cancelled() => return,
            signal = look(&eyes, &settings, &state_dir) => signal,
        };
        let pause = pause(&signal, &settings);
        tokio::select! {
            () = stop.cancelled() => return,
            sent = signals.send(Signal::StaticPods(signal)) => if sent.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.wait(beat.due(begun, pause)) => {}
        }
    }
}

/// From the beginning of one look to that of the next.
fn pause(seen: &StaticPodsSignal, settings: &StaticPodSettings) -> Duration {
    if *seen == StaticPodsSignal::default() {
        IDLE.max(settings.interval)
    } else if seen.is_well() {
        settings.interval
    } else {
        settings.while_failing()
    }
}

/// How static pods are looked at.
#[derive(Debug, Clone)]
pub(crate) struct Eyes {
    docker: PathBuf,
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

impl Eyes {
    /// `docker` is docker's socket.
    pub(crate) fn new(settings: &StaticPodSettings, docker: PathBuf) -> Self {
        Self {
            docker,
            tls: http::tls_of_probes(),
            deadline: settings.deadline,
        }
    }

    /// What docker says now.
    pub(crate) async fn containers(&self) -> Containers {
        Containers::look(&self.docker, self.deadline).await
    }

    /// One probe.
    pub(crate) async fn ask(&self, target: &HttpTarget) -> ProbeOutcome {
        http::probe(target, &self.tls, self.deadline).await
    }
}

/// As people write it.
pub(crate) fn url(target: &HttpTarget) -> String {
    let scheme = if target.tls { "https" } else { "http" };
    format!("{scheme}://{}{}", target.address, target.path)
}

/// What lies in the directories.
#[derive(Debug, Default)]
struct Lying {
    found: Vec<Found>,
    missing: Vec<MissingManifest>,
    unseen: Option<String>,
}

async fn look(eyes: &Eyes, settings: &StaticPodSettings, state_dir: &Path) -> StaticPodsSignal {
    let (ours, dir) = (settings.clone(), state_dir.to_owned());
    // The files may lie on a disk that hangs.
    let lying = match tokio::task::spawn_blocking(move || lying(&ours, &dir)).await {
        Ok(lying) => lying,
        Err(error) => Lying {
            unseen: Some(error.to_string()),
            ..Lying::default()
        },
    };
    let mut invalid = Vec::new();
    let mut valid: Vec<(String, u64, Manifest)> = Vec::new();
    for found in lying.found {
        match found.manifest {
            Ok(manifest) => valid.push((found.file, found.version, manifest)),
            Err(why) => invalid.push((found.file, why)),
        }
    }
    valid.sort_by(|(_, _, one), (_, _, other)| one.name.cmp(&other.name));
    let asked = join_all(valid.iter().map(async |(_, _, manifest)| {
        let target = manifest.health(settings.component(&manifest.name))?;
        Some((url(&target), eyes.ask(&target).await))
    }));
    let listed = async {
        if valid.is_empty() {
            return Containers::default();
        }
        eyes.containers().await
    };
    let (asked, containers) = join(asked, listed).await;
    let names: Vec<_> = valid
        .iter()
        .map(|(_, _, manifest)| manifest.name.as_str())
        .collect();
    let pods = valid
        .iter()
        .zip(asked)
        .map(|((file, version, manifest), health)| StaticPod {
            name: manifest.name.clone(),
            manifest: file.clone(),
            version: *version,
            containers: containers.of(manifest, &names),
            health,
        })
        .collect();
    StaticPodsSignal {
        pods,
        invalid,
        missing: lying.missing,
        unseen: lying.unseen,
    }
}

/// Reads the directories. A pod of which an invalid manifest may be is not missing: what it says is not known.
fn lying(settings: &StaticPodSettings, state_dir: &Path) -> Lying {
    let places = Places::of(settings);
    // Before the manifests: one that is moved back in between is then seen twice, and not nowhere.
    let out = places.out().unwrap_or_default();
    let found = match directory::read(&settings.manifests) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Lying {
                unseen: Some(format!("read {}: {error}", settings.manifests.display())),
                ..Lying::default()
            };
        }
    };
    let present: Vec<_> = found
        .iter()
        .filter_map(|found| Some(found.manifest.as_ref().ok()?.name.clone()))
        .collect();
    let expected = match &settings.expected {
        Some(expected) => expected.iter().cloned().collect(),
        None => match learned::learn(state_dir, present.iter().cloned()) {
            Ok(learned) => learned,
            Err(error) => {
                warn!(%error, "which static pods were here before cannot be told: none is missed");
                BTreeSet::new()
            }
        },
    };
    let missing = expected
        .into_iter()
        .filter(|pod| !present.contains(pod))
        .map(|pod| MissingManifest {
            held: out
                .iter()
                .find(|(name, _)| *name == pod)
                .map(|(_, path)| path.clone()),
            pod,
        })
        .collect();
    Lying {
        found,
        missing,
        unseen: None,
    }
}

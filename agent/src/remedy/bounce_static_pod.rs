//! `BounceStaticPod`: a static pod's manifest is moved out, so that the kubelet stops the pod, and back, so that it starts it anew.
//!
//! ```text
//!  move out ──► its containers are gone, and out_at_least has passed ──► move back ──► it runs and answers
//!                  └─ not within gone_deadline ───────────────────────────► move back, and say so
//! ```
//! Whatever happens, the manifest comes back: on every error, when the remedy is broken off with the agent's stop, and after a crash by
//! the next agent, which finds the intent without an outcome in its ledger ([`recover`]).
//!
//! That containers are gone is docker's to say. Where there is no docker, it is a health port that refuses connections: other
//! runtimes are not asked.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::config::{HttpTarget, Settings, StaticPodSettings};
use crate::ledger::Outcome;
use crate::set_aside::SetAside;
use crate::signal::{PodContainers, ProbeOutcome};
use crate::span::Span;
use crate::watch::static_pods::directory::{self, Back, Places};
use crate::watch::static_pods::manifest::Manifest;
use crate::watch::static_pods::{Eyes, url};

/// Between two looks while something is awaited.
const PERIOD: Duration = Duration::from_millis(500);
/// A manifest that cannot be moved back is tried again after this.
const BACK_AGAIN: Duration = Duration::from_secs(1);
/// After a crash the next agent tries so often before it leaves the rest to the one after it.
const RECOVERIES: u32 = 10;

/// What it is done by.
#[derive(Debug, Clone)]
pub struct BounceRules {
    settings: StaticPodSettings,
    pub(super) places: Places,
    eyes: Eyes,
    aside: SetAside,
}

impl BounceRules {
    /// From the configuration.
    pub fn new(settings: &Settings, aside: SetAside) -> Self {
        let pods = settings.static_pods.clone();
        Self {
            places: Places::of(&pods),
            aside,
            eyes: Eyes::new(&pods, settings.runtime.docker.socket.clone()),
            settings: pods,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounced {
    /// Its manifest's file.
    pub file: String,
    /// So long it was out.
    pub out: Duration,
    /// How it was seen to be well; `None`: by its containers alone.
    pub answers: Option<String>,
}

impl fmt::Display for Bounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = Span(Duration::from_secs(self.out.as_secs()));
        write!(f, "{} was out for {out} and is back; ", self.file)?;
        match &self.answers {
            Some(url) => write!(f, "{url} answers"),
            None => f.write_str("its containers run"),
        }
    }
}

/// Why it was not done, or did not help.
#[derive(Debug, thiserror::Error)]
pub enum BounceError {
    /// Not among those that may be bounced.
    #[error("{0} is not among static_pods.components; nothing was changed")]
    NotAComponent(String),
    /// The directories cannot be read.
    #[error("look for the manifest of {pod}: {source}; nothing was changed")]
    Look {
        /// The pod.
        pod: String,
        /// Why not.
        source: io::Error,
    },
    /// No manifest is of this pod.
    #[error("no manifest in {} is of {pod}; nothing was changed", dir.display())]
    NoManifest {
        /// The pod.
        pod: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Never two at once.
    #[error("the manifest of {pod} is out, in {}: move it back first; nothing was changed", path.display())]
    OtherOut {
        /// The other pod.
        pod: String,
        /// Its manifest.
        path: PathBuf,
    },
    /// There is no way to see its end.
    #[error("neither docker nor a health port tells whether {0} has ended; nothing was changed")]
    Blind(String),
    /// It could not be moved.
    #[error("move {file} out: {source}; nothing was changed")]
    MoveOut {
        /// The manifest.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The new one could not be put in its place.
    #[error("put the new {file} in its place: {source}; the old one is back")]
    Exchange {
        /// The manifest.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The kubelet did not stop it.
    #[error("{pod} was still there {} after its manifest was moved out; it is back", Span(*after))]
    NotGone {
        /// The pod.
        pod: String,
        /// The deadline.
        after: Duration,
    },
    /// Somebody else has put a manifest there.
    #[error("another manifest was put there meanwhile and stays; the old one is in {}", .0.display())]
    Superseded(PathBuf),
    /// It did not come up.
    #[error("its manifest is back, and {pod} is not well after {}: {why}", Span(*after))]
    NotReady {
        /// The pod.
        pod: String,
        /// The deadline.
        after: Duration,
        /// What was seen last.
        why: String,
    },
}

/// Does it and verifies it; with `dry_run` says what would be done.
pub async fn bounce_static_pod(pod: &str, rules: &BounceRules, dry_run: bool) -> Outcome {
    if dry_run {
        let detail = format!(
            "dry run: would move the manifest of {pod} to {} until its containers are gone, and back; nothing was changed",
            rules.places.held.join(pod).display()
        );
        return Outcome::Succeeded { detail };
    }
    match bounce(pod, rules).await {
        Ok(bounced) => Outcome::Succeeded {
            detail: bounced.to_string(),
        },
        Err(error) => Outcome::Failed {
            detail: error.to_string(),
        },
    }
}

/// Moves back what a bounce of `pod` that was broken off has left out; what was found, for people. `None`: it is still out.
pub async fn recover(pod: &str, rules: &BounceRules) -> Option<String> {
    if rules.aside.holds(pod) {
        return Some("its manifest was set aside since".to_owned());
    }
    for _ in 0..RECOVERIES {
        let (places, name) = (rules.places.clone(), pod.to_owned());
        match spawn_blocking(move || places.put_back(&name)).await {
            Ok(Ok(Back::Moved)) => return Some("its manifest was out and was moved back".to_owned()),
            Ok(Ok(Back::NoneOut)) => return Some("its manifest was not out".to_owned()),
            Ok(Ok(Back::Superseded(path))) => {
                return Some(BounceError::Superseded(path).to_string());
            }
            Ok(Err(error)) => {
                warn!(pod, %error, "a manifest that a bounce has left out cannot be moved back; trying again");
            }
            Err(error) => warn!(pod, %error, "moving a manifest back was broken off; trying again"),
        }
        sleep(BACK_AGAIN).await;
    }
    None
}

/// What is bounced.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) file: String,
    manifest: Manifest,
    /// All static pods here, for which one may be mistaken.
    names: Vec<String>,
    health: Option<HttpTarget>,
}

/// Does it, and verifies it.
///
/// # Errors
/// It was not done, or it did not help. The manifest is back in either case, unless somebody has put another one there.
pub async fn bounce(pod: &str, rules: &BounceRules) -> Result<Bounced, BounceError> {
    bounce_with(pod, rules, None).await
}

/// The same; with `next`, a file beside [`BounceRules::places`], that comes back in the manifest's place once nothing of the pod is left. A
/// bounce that is broken off brings back one of the two, whole.
pub(super) async fn bounce_with(
    pod: &str,
    rules: &BounceRules,
    next: Option<&Path>,
) -> Result<Bounced, BounceError> {
    if rules.settings.component(pod).is_none() {
        return Err(BounceError::NotAComponent(pod.to_owned()));
    }
    let subject = rules.find(pod).await?;
    if subject.health.is_none() && rules.runs(&subject).await.is_none() {
        return Err(BounceError::Blind(pod.to_owned()));
    }
    let begun = Instant::now();
    let mut out = Out {
        places: rules.places.clone(),
        pod: pod.to_owned(),
        armed: true,
    };
    out.move_out(&subject.file).await?;
    let gone = rules.gone(&subject, begun).await;
    if gone && let Some(next) = next {
        out.exchange(&subject.file, next).await?;
    }
    let long = begun.elapsed();
    let superseded = out.put_back().await;
    if !gone {
        return Err(BounceError::NotGone {
            pod: pod.to_owned(),
            after: rules.settings.gone_deadline,
        });
    }
    if let Some(path) = superseded {
        return Err(BounceError::Superseded(path));
    }
    rules.ready(&subject).await?;
    Ok(Bounced {
        file: subject.file,
        out: long,
        answers: subject.health.as_ref().map(url),
    })
}

impl BounceRules {
    pub(super) async fn find(&self, pod: &str) -> Result<Subject, BounceError> {
        let (places, name) = (self.places.clone(), pod.to_owned());
        let looked = spawn_blocking(move || Ok((places.out()?, directory::read(&places.manifests)?))).await;
        let looked = looked.unwrap_or_else(|error| Err(io::Error::other(error)));
        let (out, found) = looked.map_err(|source| BounceError::Look { pod: name, source })?;
        // What a cold start has set aside is meant to be out.
        if let Some((pod, path)) = out.into_iter().find(|(pod, _)| !self.aside.holds(pod)) {
            return Err(BounceError::OtherOut { pod, path });
        }
        let valid: Vec<_> = found
            .into_iter()
            .filter_map(|found| Some((found.file, found.manifest.ok()?)))
            .collect();
        let names = valid.iter().map(|(_, manifest)| manifest.name.clone()).collect();
        let own = valid.into_iter().find(|(_, manifest)| manifest.name == pod);
        let (file, manifest) = own.ok_or_else(|| BounceError::NoManifest {
            pod: pod.to_owned(),
            dir: self.places.manifests.clone(),
        })?;
        Ok(Subject {
            health: manifest.health(self.settings.component(pod)),
            file,
            manifest,
            names,
        })
    }

    /// Any of its containers runs, as far as docker tells.
    async fn runs(&self, subject: &Subject) -> Option<bool> {
        let names: Vec<_> = subject.names.iter().map(String::as_str).collect();
        self.eyes.containers().await.any_of(&subject.manifest, &names)
    }

    async fn asked(&self, subject: &Subject) -> Option<ProbeOutcome> {
        match &subject.health {
            Some(target) => Some(self.eyes.ask(target).await),
            None => None,
        }
    }

    /// Waits until nothing of it is left, for as long as it may take.
    async fn gone(&self, subject: &Subject, begun: Instant) -> bool {
        loop {
            let answer = self.asked(subject).await;
            let gone = match self.runs(subject).await {
                Some(runs) => !runs && answer != Some(ProbeOutcome::Healthy),
                None => answer == Some(ProbeOutcome::Refused),
            };
            let waited = begun.elapsed();
            if gone && waited >= self.settings.out_at_least {
                return true;
            }
            if waited >= self.settings.gone_deadline {
                return false;
            }
            sleep(PERIOD).await;
        }
    }

    pub(super) async fn ready(&self, subject: &Subject) -> Result<(), BounceError> {
        let begun = Instant::now();
        let names: Vec<_> = subject.names.iter().map(String::as_str).collect();
        loop {
            let why = match self.asked(subject).await {
                Some(ProbeOutcome::Healthy) => return Ok(()),
                Some(outcome) => format!("its health port: {outcome:?}"),
                None => match self.eyes.containers().await.of(&subject.manifest, &names) {
                    PodContainers::Running => return Ok(()),
                    PodContainers::NotRunning(not) => format!("not running: {}", not.join(", ")),
                    PodContainers::Unknown => "docker does not tell".to_owned(),
                },
            };
            if begun.elapsed() >= self.settings.ready_deadline {
                return Err(BounceError::NotReady {
                    pod: subject.manifest.name.clone(),
                    after: self.settings.ready_deadline,
                    why,
                });
            }
            sleep(PERIOD).await;
        }
    }
}

/// A manifest that is out, or about to be. Dropped, it comes back.
#[derive(Debug)]
struct Out {
    places: Places,
    pod: String,
    armed: bool,
}

impl Out {
    async fn move_out(&mut self, file: &str) -> Result<(), BounceError> {
        let (places, pod, name) = (self.places.clone(), self.pod.clone(), file.to_owned());
        let moved = spawn_blocking(move || places.move_out(&pod, &name)).await;
        match moved.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(_) => Ok(()),
            Err(source) => Err(BounceError::MoveOut {
                file: file.to_owned(),
                source,
            }),
        }
    }

    /// While it is out: another one in its place, in one step.
    async fn exchange(&self, file: &str, next: &Path) -> Result<(), BounceError> {
        let dir = self.places.held.join(&self.pod);
        let (from, to) = (next.to_owned(), dir.join(file));
        let work = move || {
            fs::rename(&from, &to)?;
            File::open(&dir)?.sync_all()
        };
        let done = spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| BounceError::Exchange {
                file: file.to_owned(),
                source,
            })
    }

    /// Tries until it is back; where it is instead, if somebody has put another one there.
    async fn put_back(mut self) -> Option<PathBuf> {
        loop {
            let (places, pod) = (self.places.clone(), self.pod.clone());
            match spawn_blocking(move || places.put_back(&pod)).await {
                Ok(Ok(back)) => {
                    self.armed = false;
                    return match back {
                        Back::Moved | Back::NoneOut => None,
                        Back::Superseded(path) => Some(path),
                    };
                }
                Ok(Err(error)) => {
                    warn!(pod = self.pod, %error, "the manifest cannot be moved back; trying again");
                }
                Err(error) => warn!(pod = self.pod, %error, "moving it back was broken off; trying again"),
            }
            sleep(BACK_AGAIN).await;
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.places.put_back(&self.pod)
        {
            warn!(pod = self.pod, %error, "the manifest cannot be moved back now; the next start tries again");
        }
    }
}

#[cfg(test)]
mod tests;

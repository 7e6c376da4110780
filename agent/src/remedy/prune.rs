//! `Prune`: what docker can do without is removed, one thing after the other, until the disk has enough.
//!
//! ```text
//!  stopped containers, the longest first ─► dangling images ─► unused images, the least recently created first
//!      └───────────────┴── after each: does the disk still need more? ──┴────────────────┘
//! ```
//! What may go is [`select`]'s to say. Never: volumes, what any container uses that stays, protected images, and an image that was pulled a
//! moment ago. Before each image docker is asked anew which are in use, and what is in use it refuses to remove by itself: nothing is forced.
//!
//! After a power loss the containers that it stopped are what the node will start again, and pulling their images may be impossible:
//! a container counts as stopped only since this boot, and as long as it stays so does its image.

mod select;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State, ImageSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListImagesOptions, RemoveContainerOptions,
    RemoveImageOptions,
};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, timeout};

use self::select::{Candidate, Container, Image, Kind, Protect, Snapshot};
use crate::bytes::Bytes;
use crate::config::{DiskSettings, Settings};
use crate::diagnose::disk::{bytes_percent, inodes_percent};
use crate::host::Host;
use crate::ledger::Outcome;
use crate::signal::DiskSignal;
use crate::watch::runtime::docker::{connect, explain, is_conflict, is_gone, restarts};

/// No call may take longer: images of several GiB take half a minute on a slow disk.
const CALL_DEADLINE: Duration = Duration::from_mins(2);
/// One pass ends after this; the next one goes on.
const PASS: Duration = Duration::from_mins(10);
/// So many names are told.
const NAMES: usize = 8;

/// What it is done by.
#[derive(Debug, Clone)]
pub struct PruneRules {
    socket: PathBuf,
    stopped_for: Duration,
    unused_for: Duration,
    protect: Protect,
    disks: Vec<DiskSettings>,
}

impl PruneRules {
    /// From the configuration.
    ///
    /// # Errors
    /// A pattern is no glob.
    pub fn new(settings: &Settings) -> Result<Self, globset::Error> {
        Ok(Self {
            socket: settings.runtime.docker.socket.clone(),
            stopped_for: settings.prune.stopped_for,
            unused_for: settings.prune.unused_for,
            protect: Protect::new(&settings.prune.protect)?,
            disks: settings.disks.clone(),
        })
    }
}

/// One thing that is gone, or would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its name, or its id where it has none.
    pub name: String,
    /// `stopped container`, `dangling image` or `unused image`.
    pub what: &'static str,
    /// By how much the disk grew meanwhile; in a dry run its size, layers shared with others included. Bytes.
    pub freed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Nothing was changed.
    pub dry_run: bool,
    /// In this order.
    pub removed: Vec<Removed>,
    /// What could have gone and stays, and why.
    pub kept: Vec<String>,
    /// The disk has enough now.
    pub enough: bool,
    /// How full it is now, for people.
    pub usage: String,
}

impl Pruned {
    /// Bytes in all.
    pub fn freed(&self) -> u64 {
        self.removed.iter().map(|removed| removed.freed).sum()
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.removed.is_empty() {
            f.write_str(if self.enough {
                "nothing has to go"
            } else {
                "nothing is left that may go"
            })?;
        } else {
            let (did, freed) = if self.dry_run {
                ("would remove", "at most ")
            } else {
                ("removed", "")
            };
            write!(
                f,
                "{did} {} and free {freed}{}: ",
                self.removed.len(),
                Bytes(self.freed())
            )?;
            for (at, removed) in self.removed.iter().take(NAMES).enumerate() {
                let comma = if at > 0 { ", " } else { "" };
                write!(f, "{comma}{} {}", removed.what, removed.name)?;
            }
            if self.removed.len() > NAMES {
                f.write_str(", …")?;
            }
        }
        write!(f, "; {}", self.usage)?;
        for kept in self.kept.iter().take(NAMES) {
            write!(f, "; {kept}")?;
        }
        Ok(())
    }
}

/// Why it was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// No such disk is watched.
    #[error("{} is not one of the watched disks", .0.display())]
    NotWatched(PathBuf),
    /// docker is not there.
    #[error("docker is not installed: {} is not there", .0.display())]
    NotInstalled(PathBuf),
    /// docker's data are not on the disk that is short.
    #[error("docker's data in {} are not on the disk at {}", root.display(), mount_point.display())]
    Elsewhere {
        /// Where docker's data are.
        root: PathBuf,
        /// The disk.
        mount_point: PathBuf,
    },
    /// A directory could not be looked at.
    #[error("look at {}", path.display())]
    Look {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// docker did not do it.
    #[error("{action}: {why}")]
    Docker {
        /// What was asked.
        action: String,
        /// What it said.
        why: String,
    },
}

/// Does it, and says in one line what came of it; with `dry_run` says what would go.
pub async fn prune<H: Host>(host: &H, mount_point: &Path, rules: &PruneRules, dry_run: bool) -> Outcome {
    match remove(host, mount_point, rules, dry_run).await {
        Ok(pruned) if pruned.removed.is_empty() && !pruned.enough => Outcome::Failed {
            detail: pruned.to_string(),
        },
        Ok(pruned) => Outcome::Succeeded {
            detail: pruned.to_string(),
        },
        Err(error) => Outcome::Failed {
            detail: crate::causes::causes(&error),
        },
    }
}

/// Does it, and verifies that what was removed is gone.
///
/// # Errors
/// docker or the disk cannot be asked. What docker refuses to remove is passed over.
pub async fn remove<H: Host>(
    host: &H,
    mount_point: &Path,
    rules: &PruneRules,
    dry_run: bool,
) -> Result<Pruned, PruneError> {
    let disk = rules
        .disks
        .iter()
        .find(|disk| disk.mount_point == mount_point)
        .ok_or_else(|| PruneError::NotWatched(mount_point.to_owned()))?;
    let look = |path: &Path| {
        std::fs::metadata(path).map_err(|source| PruneError::Look {
            path: path.to_owned(),
            source,
        })
    };
    if !rules.socket.exists() {
        return Err(PruneError::NotInstalled(rules.socket.clone()));
    }
    let engine = Engine(connect(&rules.socket, CALL_DEADLINE).map_err(|error| refused("connect", &error))?);
    let root = engine.root().await?;
    if look(&root)?.dev() != look(mount_point)?.dev() {
        return Err(PruneError::Elsewhere {
            root,
            mount_point: mount_point.to_owned(),
        });
    }
    let usage = || {
        host.disk_usage(mount_point).map_err(|source| PruneError::Look {
            path: mount_point.to_owned(),
            source,
        })
    };
    let begun = Instant::now();
    let mut snapshot = Snapshot {
        containers: engine.containers(&[]).await?,
        images: engine.images().await?,
    };
    let mut passed_over = BTreeSet::new();
    let mut pruned = Pruned {
        dry_run,
        removed: Vec::new(),
        kept: Vec::new(),
        enough: false,
        usage: String::new(),
    };
    let mut now = usage()?;
    loop {
        let mut seen = now.clone();
        if dry_run {
            // As if docker's sizes were all its own.
            seen.bytes_available = seen.bytes_available.saturating_add(pruned.freed());
        }
        pruned.enough = enough(&seen, disk);
        if pruned.enough || begun.elapsed() >= PASS {
            break;
        }
        let next = snapshot.next(rules.stopped_for, &rules.protect, &passed_over);
        let Some(candidate) = next else { break };
        let done = if dry_run {
            engine.would_remove(&candidate, rules).await?
        } else {
            engine.remove(&candidate, rules).await?
        };
        match done {
            Done::Removed => snapshot.forget(&candidate.id),
            Done::Kept(why) => {
                pruned.kept.push(format!("{} stays: {why}", candidate.name()));
                passed_over.insert(candidate.id);
                continue;
            }
        }
        let before = std::mem::replace(&mut now, usage()?);
        pruned.removed.push(Removed {
            name: candidate.name(),
            what: candidate.kind.as_str(),
            freed: if dry_run {
                candidate.size
            } else {
                now.bytes_available.saturating_sub(before.bytes_available)
            },
        });
        if !dry_run && candidate.kind == Kind::StoppedContainer {
            continue;
        }
        if !dry_run {
            snapshot.containers = engine.containers(&snapshot.containers).await?;
        }
    }
    pruned.usage = format!(
        "{} is {}% full, to be below {}%",
        mount_point.display(),
        bytes_percent(&now).max(inodes_percent(&now)),
        disk.clear_percent
    );
    Ok(pruned)
}

fn enough(seen: &DiskSignal, disk: &DiskSettings) -> bool {
    bytes_percent(seen) < disk.clear_percent && inodes_percent(seen) < disk.clear_percent
}

enum Done {
    Removed,
    Kept(String),
}

/// docker, with a deadline for each call.
struct Engine(Docker);

impl Engine {
    async fn root(&self) -> Result<PathBuf, PruneError> {
        let action = "ask docker where its data are";
        let info = within(action, self.0.info()).await?;
        info.docker_root_dir
            .map(PathBuf::from)
            .ok_or_else(|| PruneError::Docker {
                action: action.to_owned(),
                why: "it did not say".to_owned(),
            })
    }

    /// All containers, those that are stopped with how long they have been, within this boot. What is `known` of one that is
    /// still stopped is not asked again.
    async fn containers(&self, known: &[Container]) -> Result<Vec<Container>, PruneError> {
        let all = ListContainersOptions {
            all: true,
            ..ListContainersOptions::default()
        };
        let listed = within("list containers", self.0.list_containers(Some(all))).await?;
        let mut containers = Vec::new();
        for seen in listed {
            let Some(id) = seen.id.clone() else { continue };
            let ended = match seen.state {
                Some(State::EXITED | State::DEAD | State::CREATED) => {
                    match known.iter().find(|container| container.id == id) {
                        Some(container) => container.stopped_for,
                        None => self.ended(&id, &seen).await?,
                    }
                }
                Some(
                    State::EMPTY
                    | State::RUNNING
                    | State::PAUSED
                    | State::RESTARTING
                    | State::REMOVING
                    | State::STOPPING,
                )
                | None => None,
            };
            let name = seen.names.unwrap_or_default().into_iter().next();
            containers.push(Container {
                name: name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned()),
                id,
                image: seen.image_id.unwrap_or_default(),
                stopped_for: ended,
            });
        }
        Ok(containers)
    }

    /// How long a container has been stopped; `None` for one that docker starts again by itself, or that is gone.
    async fn ended(&self, id: &str, seen: &ContainerSummary) -> Result<Option<Duration>, PruneError> {
        let found = self.0.inspect_container(id, None::<InspectContainerOptions>);
        let found = match timeout(CALL_DEADLINE, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if is_gone(&error) => return Ok(None),
            Ok(Err(error)) => return Err(refused("inspect a container", &error)),
            Err(_) => return Err(late("inspect a container")),
        };
        let policy = found.host_config.and_then(|config| config.restart_policy);
        if restarts(policy.and_then(|policy| policy.name)) {
            return Ok(None);
        }
        let finished = found.state.and_then(|state| state.finished_at);
        let finished = finished
            .and_then(|at| at.parse::<Timestamp>().ok())
            // docker's zero time: it never ran.
            .filter(|at| at.as_second() > 0)
            .map_or_else(|| seen.created.unwrap_or(i64::MAX), Timestamp::as_second);
        Ok(Some(age(finished)))
    }

    async fn images(&self) -> Result<Vec<Image>, PruneError> {
        let all = ListImagesOptions {
            all: true,
            ..ListImagesOptions::default()
        };
        let listed = within("list images", self.0.list_images(Some(all))).await?;
        Ok(listed.into_iter().map(image).collect())
    }

    async fn would_remove(&self, candidate: &Candidate, rules: &PruneRules) -> Result<Done, PruneError> {
        match candidate.kind {
            Kind::StoppedContainer => Ok(Done::Removed),
            Kind::DanglingImage | Kind::UnusedImage => self.pulled_long_ago(candidate, rules).await,
        }
    }

    async fn remove(&self, candidate: &Candidate, rules: &PruneRules) -> Result<Done, PruneError> {
        let names = match candidate.kind {
            Kind::StoppedContainer => {
                // Neither volumes nor force: one that was started meanwhile stays.
                let options = Some(RemoveContainerOptions::default());
                let removed = timeout(CALL_DEADLINE, self.0.remove_container(&candidate.id, options));
                return done("remove a container", removed.await);
            }
            Kind::DanglingImage => vec![candidate.id.clone()],
            Kind::UnusedImage => candidate.names.clone(),
        };
        if let Done::Kept(why) = self.pulled_long_ago(candidate, rules).await? {
            return Ok(Done::Kept(why));
        }
        for name in names {
            let options = Some(RemoveImageOptions::default());
            let removed = timeout(CALL_DEADLINE, self.0.remove_image(&name, options, None)).await;
            if let Done::Kept(why) = done("remove an image", removed)? {
                return Ok(Done::Kept(why));
            }
        }
        // Removing the last name of an image that another one builds on only takes its name.
        match timeout(CALL_DEADLINE, self.0.inspect_image(&candidate.id)).await {
            Ok(Ok(_)) => Ok(Done::Kept("docker still has it".to_owned())),
            Ok(Err(error)) if is_gone(&error) => Ok(Done::Removed),
            Ok(Err(error)) => Err(refused("inspect an image", &error)),
            Err(_) => Err(late("inspect an image")),
        }
    }

    /// It was not pulled or tagged a moment ago.
    async fn pulled_long_ago(&self, candidate: &Candidate, rules: &PruneRules) -> Result<Done, PruneError> {
        let found = match timeout(CALL_DEADLINE, self.0.inspect_image(&candidate.id)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if is_gone(&error) => return Ok(Done::Removed),
            Ok(Err(error)) => return Err(refused("inspect an image", &error)),
            Err(_) => return Err(late("inspect an image")),
        };
        let tagged = found
            .metadata
            .and_then(|metadata| metadata.last_tag_time)
            .and_then(|at| at.parse::<Timestamp>().ok())
            .map(Timestamp::as_second);
        // docker's zero time: it never had a name here.
        Ok(match tagged.filter(|at| *at > 0).map(since) {
            Some(age) if age < rules.unused_for => {
                Done::Kept(format!("it was pulled {}s ago", age.as_secs()))
            }
            Some(_) | None => Done::Removed,
        })
    }
}

fn image(seen: ImageSummary) -> Image {
    let names = seen.repo_tags.into_iter().chain(seen.repo_digests);
    Image {
        id: seen.id,
        parent: seen.parent_id,
        names: names.filter(|name| !name.starts_with("<none>")).collect(),
        created: seen.created,
        size: u64::try_from(seen.size).unwrap_or(0),
        pinned: seen.labels.contains_key("io.cri-containerd.pinned"),
    }
}

/// How long ago, by the wall clock; nothing for what lies ahead.
fn since(unix_seconds: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0));
    now.saturating_sub(at)
}

/// The same, and not longer than this boot: after a power loss the wall clock may lie, and what it stopped is not old.
fn age(unix_seconds: i64) -> Duration {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    since(unix_seconds).min(boot)
}

/// What came of a removal. Gone already is gone; in use is kept.
fn done<T>(
    action: &str,
    removed: Result<Result<T, bollard::errors::Error>, tokio::time::error::Elapsed>,
) -> Result<Done, PruneError> {
    match removed {
        Ok(Ok(_)) => Ok(Done::Removed),
        Ok(Err(error)) if is_gone(&error) => Ok(Done::Removed),
        Ok(Err(error)) if is_conflict(&error) => Ok(Done::Kept(explain(&error))),
        Ok(Err(error)) => Err(refused(action, &error)),
        Err(_) => Err(late(action)),
    }
}

async fn within<T>(
    action: &str,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, PruneError> {
    match timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| refused(action, &error)),
        Err(_) => Err(late(action)),
    }
}

fn refused(action: &str, error: &bollard::errors::Error) -> PruneError {
    PruneError::Docker {
        action: action.to_owned(),
        why: explain(error),
    }
}

fn late(action: &str) -> PruneError {
    PruneError::Docker {
        action: action.to_owned(),
        why: format!("no answer within {CALL_DEADLINE:?}"),
    }
}

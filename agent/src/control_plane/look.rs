//! Everything that is told of the static pods of the control plane on this node. Changes nothing.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use blackstart_proto::part::Part;
use blackstart_proto::v1 as wire;
use futures_util::future::join_all;
use nix::ifaddrs::getifaddrs;
use tokio::task::spawn_blocking;

use super::log::last_lines;
use super::pod::CommandLine;
use crate::config::{HttpTarget, Settings, StaticPodSettings};
use crate::etcd::ways;
use crate::set_aside::SetAside;
use crate::signal::{PodContainers, ProbeOutcome};
use crate::watch::certificates::read::certificates;
use crate::watch::static_pods::directory::{self, Places};
use crate::watch::static_pods::manifest::Manifest;
use crate::watch::static_pods::{Eyes, url};

/// Where API servers from 1.16 on say whether they serve; older ones are asked where their manifest says.
const READY: &str = "/readyz";
/// Who has taken a manifest out that no run has.
const AGENT: &str = "a bounce";

/// What was found on the disk of one part.
#[derive(Debug)]
struct Lying {
    part: Part,
    manifest: Manifest,
    report: wire::PartReport,
}

/// Looks, for `within` at most and a little for the disk.
pub async fn look(settings: &Settings, aside: &SetAside, within: Duration) -> wire::ControlPlaneReport {
    let mut pods = settings.static_pods.clone();
    pods.deadline = pods.deadline.min(within);
    let eyes = Eyes::new(&pods, settings.runtime.docker.socket.clone());
    let (places, runs) = (Places::of(&pods), holders(aside));
    let logs = pods.logs.clone();
    // The files may lie on a disk that hangs.
    let looked = spawn_blocking(move || on_disk(&places, &logs, &runs)).await;
    let (lying, names, mut report) = looked.unwrap_or_else(|error| {
        let report = wire::ControlPlaneReport {
            trouble: format!("the look was broken off: {error}"),
            ..wire::ControlPlaneReport::default()
        };
        (Vec::new(), Vec::new(), report)
    });
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (asked, containers) = tokio::join!(
        join_all(lying.iter().map(|one| asked(&eyes, &pods, one))),
        eyes.containers()
    );
    for (one, health) in lying.into_iter().zip(asked) {
        let mut told = one.report;
        if let Some((target, outcome)) = health {
            told.url = url(&target);
            let (kind, detail) = health_words(&outcome);
            told.health = kind.into();
            told.health_detail = detail;
        }
        match containers.of(&one.manifest, &names) {
            PodContainers::Running => {}
            PodContainers::NotRunning(not) => told.not_running = not,
            PodContainers::Unknown => told.containers_unknown = true,
        }
        report.parts.push(told);
    }
    report.addresses = addresses();
    report
}

/// Which run holds which part out by a cold start.
fn holders(aside: &SetAside) -> Vec<(String, String)> {
    let held = aside.held();
    let of = |held: &crate::set_aside::Held| (held.component.pod().to_owned(), held.run_id.clone());
    held.iter().map(of).collect()
}

/// Manifests in place and out, with all names that are in place. Blocks.
fn on_disk(
    places: &Places,
    logs: &Path,
    runs: &[(String, String)],
) -> (Vec<Lying>, Vec<String>, wire::ControlPlaneReport) {
    let mut report = wire::ControlPlaneReport::default();
    let mut lying: Vec<Lying> = Vec::new();
    let mut names = Vec::new();
    match directory::read(&places.manifests) {
        Ok(found) => {
            for one in found {
                match one.manifest {
                    Ok(manifest) => {
                        names.push(manifest.name.clone());
                        if let Some(part) = Part::of_pod(&manifest.name) {
                            lying.push(told(part, manifest, &places.manifests, &one.file, logs, ""));
                        }
                    }
                    Err(why) => report.bad.push(wire::BadManifest {
                        path: places.manifests.join(&one.file).display().to_string(),
                        why,
                    }),
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => report.trouble = format!("read {}: {error}", places.manifests.display()),
    }
    let mut add = |dir: &Path, by: &str| {
        for one in directory::read(dir).unwrap_or_default() {
            let Ok(manifest) = one.manifest else { continue };
            let Some(part) = Part::of_pod(&manifest.name) else {
                continue;
            };
            if !lying.iter().any(|there| there.part == part) {
                lying.push(told(part, manifest, dir, &one.file, logs, by));
            }
        }
    };
    for (pod, path) in places.out().unwrap_or_default() {
        let by = runs.iter().find(|(name, _)| *name == pod);
        if let Some(dir) = path.parent() {
            add(dir, by.map_or(AGENT, |(_, run)| run.as_str()));
        }
    }
    for (run, dir) in ways::dirs(places) {
        add(&dir, &run);
    }
    lying.sort_by_key(|one| one.part);
    (lying, names, report)
}

fn told(part: Part, manifest: Manifest, dir: &Path, file: &str, logs: &Path, out_by: &str) -> Lying {
    let text = directory::text(dir, file).unwrap_or_default();
    let line = CommandLine::parse(&text).ok();
    let files = line.as_ref().map(CommandLine::certificates).unwrap_or_default();
    let flag = |name: &str| {
        line.as_ref()
            .and_then(|line| line.flag(name))
            .unwrap_or_default()
            .to_owned()
    };
    Lying {
        part,
        report: wire::PartReport {
            part: wire::ControlPlanePart::from(part).into(),
            manifest: dir.join(file).display().to_string(),
            out_by: out_by.to_owned(),
            certificates: files.iter().map(|path| certificate(path)).collect(),
            log: last_lines(logs, &manifest),
            etcd_servers: flag("etcd-servers"),
            ..wire::PartReport::default()
        },
        manifest,
    }
}

/// A file that is not there, or has no certificates, is told only if it should have some.
fn certificate(path: &Path) -> wire::PartCertificate {
    use crate::etcd::trouble::{out_of_time, unix_seconds};

    let mut told = wire::PartCertificate {
        path: path.display().to_string(),
        ..wire::PartCertificate::default()
    };
    match certificates(path) {
        Ok(found) => {
            let now = unix_seconds();
            told.not_after_unix = found.iter().map(|one| one.not_after).min().unwrap_or_default();
            told.expired = found
                .iter()
                .find_map(|one| out_of_time(path, one.not_before, one.not_after, now))
                .unwrap_or_default();
        }
        Err(why) => told.trouble = why,
    }
    told
}

/// How a part answers where it says that it does; an API server where it says that it serves.
async fn asked(eyes: &Eyes, pods: &StaticPodSettings, one: &Lying) -> Option<(HttpTarget, ProbeOutcome)> {
    if !one.report.out_by.is_empty() {
        return None;
    }
    let target = one.manifest.health(pods.component(&one.manifest.name))?;
    if one.part == Part::ApiServer && target.path != READY {
        let ready = HttpTarget {
            path: READY.to_owned(),
            ..target.clone()
        };
        let outcome = eyes.ask(&ready).await;
        if outcome != (ProbeOutcome::Unhealthy { status: 404 }) {
            return Some((ready, outcome));
        }
    }
    let outcome = eyes.ask(&target).await;
    Some((target, outcome))
}

fn health_words(outcome: &ProbeOutcome) -> (wire::PartHealth, String) {
    match outcome {
        ProbeOutcome::Healthy => (wire::PartHealth::Healthy, "answers 200".to_owned()),
        ProbeOutcome::Unhealthy { status } => (wire::PartHealth::Unhealthy, format!("answers {status}")),
        ProbeOutcome::TimedOut => (wire::PartHealth::TimedOut, "does not answer in time".to_owned()),
        ProbeOutcome::Refused => (wire::PartHealth::Refused, "refuses connections".to_owned()),
        ProbeOutcome::Unobservable { why } => (wire::PartHealth::Unknown, why.clone()),
    }
}

/// The node's own addresses but for those of the loopback interface.
fn addresses() -> Vec<String> {
    let mut all: Vec<_> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|v4| std::net::IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect();
    all.sort();
    all.dedup();
    all
}

//! Takes etcd, or the rest of a control plane, out of the kubelet's sight, and is sure that it has ended before it says so.
//!
//! Manifests stay where the run has put them until they are asked back: neither the agent's start nor a new boot brings back what is fenced, since
//! a member of the old cluster that came back would make a second one beside the new.

use std::fs;
use std::path::Path;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::act::EtcdRules;
use super::look::manifest;
use super::trouble::Kind;
use super::ways::{PERIOD, Ways, gone, off, rename, runs, sync};
use crate::config::HttpTarget;
use crate::watch::static_pods::directory;
use crate::watch::static_pods::manifest::Manifest;

/// What acts on a cluster by what it has read from etcd. In the order in which they are put back.
pub(super) const CONTROL_PLANE: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Fences etcd.
pub(super) async fn etcd(run: &str, rules: &EtcdRules) -> Result<String, String> {
    let ways = Ways::of(run, rules)?;
    let at = ways.clone();
    let found = off(move || {
        at.make()?;
        match manifest(&at.manifests) {
            Ok(found) => {
                at.take_out(&found.file)?;
                Ok(Some(found))
            }
            Err(trouble) if trouble.kind == Kind::NoManifest => Ok(manifest(&at.kept).ok()),
            Err(trouble) => Err(trouble.to_string()),
        }
    })
    .await?;
    let Some(found) = found else {
        return Ok("there was no manifest of etcd".to_owned());
    };
    gone(&found.pod, Instant::now(), rules)
        .await
        .map_err(|why| format!("{why}; its manifest stays out, in {}", ways.kept.display()))?;
    Ok(format!(
        "etcd has ended; its manifest is in {}",
        ways.kept.join(&found.file).display()
    ))
}

/// Stops the API server, the controller manager and the scheduler.
pub(super) async fn stop(run: &str, rules: &EtcdRules) -> Result<String, String> {
    let ways = Ways::of(run, rules)?;
    let (at, components) = (ways.clone(), rules.components.clone());
    let targets = off(move || {
        at.make()?;
        let mut targets = Vec::new();
        // Those of an earlier attempt first, or what is taken out now would be found twice.
        for dir in [&at.kept, &at.manifests] {
            for (file, manifest) in components_in(dir)? {
                let component = components.iter().find(|one| one.name == manifest.name);
                let target = manifest.health(component).ok_or_else(|| {
                    format!(
                        "{} names no port on the node by which it could be told that {} has ended; nothing more was changed",
                        dir.join(&file).display(),
                        manifest.name
                    )
                })?;
                if dir == &at.manifests {
                    at.take_out(&file)?;
                }
                targets.push((manifest.name, target));
            }
        }
        Ok(targets)
    })
    .await?;
    let since = Instant::now();
    loop {
        let mut runs = Vec::new();
        for (name, target) in &targets {
            if listens(target).await {
                runs.push(name.as_str());
            }
        }
        if runs.is_empty() && since.elapsed() >= rules.out_at_least {
            break;
        }
        if since.elapsed() >= rules.gone_deadline.max(rules.out_at_least) {
            return Err(format!(
                "{} still there {} s after their manifests were moved out: does the kubelet run? They stay out, in {}",
                runs.join(", "),
                since.elapsed().as_secs(),
                ways.kept.display()
            ));
        }
        sleep(PERIOD).await;
    }
    let names: Vec<_> = targets.iter().map(|(name, _)| name.as_str()).collect();
    Ok(if names.is_empty() {
        "there was no control plane".to_owned()
    } else {
        format!(
            "{} have ended; their manifests are in {}",
            names.join(", "),
            ways.kept.display()
        )
    })
}

/// Puts back what any run has stopped.
pub(super) async fn start(rules: &EtcdRules) -> Result<String, String> {
    let places = rules.places.clone();
    off(move || {
        let mut back = Vec::new();
        for name in CONTROL_PLANE {
            for dir in run_dirs(&runs(&places)) {
                for (file, manifest) in components_in(&dir)? {
                    if manifest.name != name {
                        continue;
                    }
                    let to = places.manifests.join(&file);
                    rename(&dir.join(&file), &to)
                        .and_then(|()| sync(&places.manifests))
                        .map_err(|error| format!("move {file} back: {error}; it is in {}", dir.display()))?;
                    back.push(name);
                }
            }
        }
        Ok(if back.is_empty() {
            "nothing of it was out".to_owned()
        } else {
            format!("{} are back where the kubelet looks", back.join(", "))
        })
    })
    .await
}

/// Components of a control plane that runs have stopped.
pub(super) fn stopped(runs: &Path) -> Vec<String> {
    let all = run_dirs(runs).into_iter();
    let found = all.filter_map(|dir| components_in(&dir).ok()).flatten();
    found.map(|(_, manifest)| manifest.name).collect()
}

fn run_dirs(runs: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    dirs.sort();
    dirs
}

/// Manifests of the control plane in a directory.
fn components_in(dir: &Path) -> Result<Vec<(String, Manifest)>, String> {
    let found = directory::read(dir).map_err(|error| format!("read {}: {error}", dir.display()))?;
    let of = |found: directory::Found| {
        let manifest = found.manifest.ok()?;
        CONTROL_PLANE
            .contains(&manifest.name.as_str())
            .then_some((found.file, manifest))
    };
    Ok(found.into_iter().filter_map(of).collect())
}

async fn listens(target: &HttpTarget) -> bool {
    TcpStream::connect(target.address).await.is_ok()
}

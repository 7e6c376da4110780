//! `RestartContainer`: an unhealthy container that the configuration names is restarted, and has to become healthy.
//!
//! ```text
//!  named, no pod's? ─► still unhealthy? ── no ─► nothing to do
//!                              │ yes
//!                              ▼ restart (SIGTERM, then SIGKILL) ─► its own health check says healthy, by a deadline
//! ```
//! A container of a pod is never touched, whatever its name: the kubelet would take its end for a failure, and count it.

use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, HealthStatusEnum as Health};
use bollard::query_parameters::{InspectContainerOptions, RestartContainerOptions};
use globset::Glob;
use tokio::time::{Instant, sleep, timeout};

use crate::config::Settings;
use crate::ledger::Outcome;
use crate::span::Span;
use crate::watch::runtime::docker::{connect, explain};

/// A container gets so long to end by itself, seconds; docker's own default.
const TO_END: i32 = 10;
/// docker answers within this; ending a container comes on top.
const CALL: Duration = Duration::from_secs(30);
/// How often the health is asked for.
const LOOK: Duration = Duration::from_millis(500);
/// What the kubelet's containers have (`pkg/kubelet/types/labels.go`).
const OF_A_POD: &str = "io.kubernetes.";

/// What it is done by.
#[derive(Debug, Clone)]
pub struct ContainerRules {
    socket: PathBuf,
    permitted: Vec<String>,
    healthy_within: Duration,
}

impl ContainerRules {
    /// From the configuration.
    pub fn new(settings: &Settings) -> Self {
        let runtime = &settings.runtime;
        Self {
            socket: runtime.docker.socket.clone(),
            permitted: runtime.may_restart_containers.clone(),
            healthy_within: runtime.container_healthy_within,
        }
    }
}

/// One of the globs names it, and it is no pod's (those are called `namespace/pod/container`).
pub(crate) fn permitted(globs: &[String], name: &str) -> bool {
    let matches = |glob: &String| Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(name));
    !name.contains('/') && globs.iter().any(matches)
}

/// Does it, and says in one line what came of it; with `dry_run` says what would be done.
pub async fn restart_container(name: &str, rules: &ContainerRules, dry_run: bool) -> Outcome {
    match restart(name, rules, dry_run).await {
        Ok(detail) => Outcome::Succeeded { detail },
        Err(detail) => Outcome::Failed { detail },
    }
}

async fn restart(name: &str, rules: &ContainerRules, dry_run: bool) -> Result<String, String> {
    if !permitted(&rules.permitted, name) {
        return Err(format!(
            "{name} is not among the containers that may be restarted (`runtime.may_restart_containers` in the configuration)"
        ));
    }
    let docker = connect(&rules.socket, CALL).map_err(|error| format!("connect: {}", explain(&error)))?;
    let found = inspect(&docker, name).await?;
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    if labels.is_some_and(|labels| labels.keys().any(|label| label.starts_with(OF_A_POD))) {
        return Err(format!("{name} is of a pod: the kubelet looks after it"));
    }
    match health(&found) {
        Some(Health::UNHEALTHY) => {}
        Some(Health::EMPTY | Health::NONE | Health::STARTING | Health::HEALTHY) | None => {
            return Ok(format!("{name} is unhealthy no more: nothing was done"));
        }
    }
    if dry_run {
        return Ok(format!(
            "dry run: would restart container {name}; nothing was changed"
        ));
    }
    // By its id: what has taken its name meanwhile is another one.
    let id = found.id.unwrap_or_else(|| name.to_owned());
    let options = RestartContainerOptions {
        t: Some(TO_END),
        ..RestartContainerOptions::default()
    };
    let begun = Instant::now();
    within(
        &format!("restart {name}"),
        docker.restart_container(&id, Some(options)),
    )
    .await?;
    loop {
        let found = inspect(&docker, &id).await?;
        let healthy = health(&found) == Some(Health::HEALTHY);
        let took = Duration::from_millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        if healthy {
            return Ok(format!(
                "restarted; its own health check passes again after {}",
                Span(took)
            ));
        }
        if took >= rules.healthy_within {
            let status = health(&found).map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            return Err(format!(
                "restarted, and its health is {status} after {}",
                Span(rules.healthy_within)
            ));
        }
        sleep(LOOK).await;
    }
}

async fn inspect(docker: &Docker, name: &str) -> Result<ContainerInspectResponse, String> {
    let options = None::<InspectContainerOptions>;
    within(
        &format!("look at {name}"),
        docker.inspect_container(name, options),
    )
    .await
}

fn health(found: &ContainerInspectResponse) -> Option<Health> {
    found.state.as_ref()?.health.as_ref()?.status
}

async fn within<T>(action: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(CALL, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("{action}: {}", explain(&error))),
        Err(_) => Err(format!("{action}: docker did not answer within {CALL:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_permitted_and_never_a_pods() {
        let globs = ["shop-*".to_owned(), "*".to_owned()];
        assert!(permitted(&globs[..1], "shop-1"));
        assert!(!permitted(&globs[..1], "other"));
        assert!(!permitted(&[], "shop-1"));
        assert!(!permitted(&globs, "default/web-0/web"));
    }
}

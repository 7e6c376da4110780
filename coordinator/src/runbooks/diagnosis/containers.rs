//! Pods that have a node, and whose containers do not run: by their states, their ends, and what kubelets say.

use jiff::Timestamp;

use super::{Cause, Finding, LATELY, QUOTED, RESTARTS, State, finding, quoted, said};
use crate::kubernetes::detail::{Container, ContainerState, Event, PodDetail, Termination};
use crate::runbooks::case::Case;

/// What the containers of a pod show; `None`: nothing that is wrong by itself.
pub(super) fn look(
    pod: &PodDetail,
    _case: &Case,
    events: &[&Event],
    now: Timestamp,
) -> Option<(State, Vec<Finding>)> {
    let mut worst: Option<(State, Vec<Finding>)> = None;
    for container in &pod.containers {
        let Some((state, found)) = one(container, events, now) else {
            continue;
        };
        match &mut worst {
            Some((known, findings)) if *known == state => findings.extend(found),
            Some(_) => {}
            None => worst = Some((state, found)),
        }
    }
    worst
}

fn one(container: &Container, events: &[&Event], now: Timestamp) -> Option<(State, Vec<Finding>)> {
    match &container.state {
        ContainerState::Waiting { reason, message } => match reason.as_str() {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "ErrRegistryUnavailable" => {
                Some((State::ImagePull, vec![image(container, reason, message, events)]))
            }
            "CrashLoopBackOff" => {
                let ended = container.last.as_ref();
                let found = ended.map_or_else(
                    || finding(Cause::Unexplained, Some(&container.name), [said(reason, message)]),
                    |ended| self::ended(container, ended, events),
                );
                Some((State::CrashLoop, vec![found]))
            }
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PreStartHookError"
            | "PostStartHookError" => Some((State::Error, vec![not_started(container, reason, message)])),
            _ => None,
        },
        ContainerState::Running => {
            let ended = container.last.as_ref()?;
            let lately = ended
                .finished
                .is_none_or(|finished| now.duration_since(finished) < LATELY);
            // Who was killed for its memory once is going to be again.
            let often = container.restarts >= RESTARTS || ended.reason == "OOMKilled";
            (often && lately).then(|| (State::Restarting, vec![self::ended(container, ended, events)]))
        }
        ContainerState::Terminated(ended) if container.is_init && ended.code == 0 => None,
        ContainerState::Terminated(ended) => (ended.code != 0).then(|| {
            // Between its end and its back-off it looks like this.
            let state = if container.restarts > 0 {
                State::CrashLoop
            } else {
                State::Error
            };
            (state, vec![self::ended(container, ended, events)])
        }),
    }
}

/// Why a container ended.
pub(super) fn ended(container: &Container, ended: &Termination, events: &[&Event]) -> Finding {
    let words = format!(
        "container {} ended with {} ({}), {} restarts",
        container.name,
        ended.code,
        said(&ended.reason, &ended.message),
        container.restarts
    );
    let probe = |word: &str| {
        events
            .iter()
            .find(|event| event.reason == "Unhealthy" && event.message.contains(word))
            .map(|event| quoted(event))
    };
    let killed = matches!(ended.code, 137 | 143);
    let (cause, more) = if ended.reason == "OOMKilled" {
        (Cause::OomKilled, None)
    } else if let Some(told) = probe("Liveness probe failed").filter(|_| killed) {
        (Cause::LivenessFailed, Some(told))
    } else if let Some(told) = probe("Startup probe failed").filter(|_| killed) {
        (Cause::StartupFailed, Some(told))
    } else if ended.reason == "ContainerCannotRun"
        || ended.reason == "StartError"
        || matches!(ended.code, 126 | 127)
        || ended.message.contains("executable file not found")
    {
        (Cause::CommandBroken, None)
    } else {
        let cause = match ended.code {
            0 => Cause::EndsByItself,
            137 => Cause::Killed,
            139 => Cause::Segfault,
            143 => Cause::AskedToEnd,
            code => Cause::ExitCode { code },
        };
        (cause, None)
    };
    finding(cause, Some(&container.name), [words].into_iter().chain(more))
}

/// Why an image cannot be had.
fn image(container: &Container, reason: &str, message: &str, events: &[&Event]) -> Finding {
    let told = events.iter().filter(|event| {
        matches!(
            event.reason.as_str(),
            "Failed" | "InspectFailed" | "ErrImageNeverPull"
        ) && (event.message.contains(&container.image) || event.message.contains("image"))
    });
    let told: Vec<String> = told.take(QUOTED).map(|event| quoted(event)).collect();
    let all = format!("{message} {}", told.join(" ")).to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let image = container.image.clone();
    let cause = if reason == "InvalidImageName" || has(&["couldn't parse image", "invalid reference format"])
    {
        Cause::ImageNameInvalid { image }
    } else if reason == "ErrImageNeverPull" {
        Cause::ImageNeverPulled { image }
    } else if has(&[
        "unauthorized",
        "authentication required",
        "access denied",
        "access forbidden",
        "no basic auth",
        "403 forbidden",
    ]) {
        Cause::ImageUnauthorized { image }
    } else if has(&["not found", "manifest unknown", "does not exist", "no such image"]) {
        Cause::ImageNotFound { image }
    } else if has(&[
        "i/o timeout",
        "no such host",
        "connection refused",
        "no route to host",
        "handshake timeout",
        "deadline exceeded",
        "x509",
        "dial tcp",
        "unexpected eof",
        "registry is unavailable",
    ]) {
        Cause::RegistryUnreachable { image }
    } else if has(&["no space left"]) {
        Cause::NodeDiskFull
    } else {
        Cause::ImagePullFailed { image }
    };
    let words = [said(reason, message)];
    finding(cause, Some(&container.name), words.into_iter().chain(told))
}

/// Why a container was not started.
fn not_started(container: &Container, reason: &str, message: &str) -> Finding {
    let cause = missing(message).unwrap_or_else(|| {
        if message.contains("runAsNonRoot") || message.contains("non-root") || message.contains("seccomp") {
            Cause::PolicyViolated
        } else if message.contains("executable file not found") || message.contains("permission denied") {
            Cause::CommandBroken
        } else {
            Cause::Unexplained
        }
    });
    finding(cause, Some(&container.name), [said(reason, message)])
}

/// A `ConfigMap`, a `Secret` or a key that is not there, by a kubelet's words. Nobody has to read secrets for it.
fn missing(message: &str) -> Option<Cause> {
    let lower = message.to_lowercase();
    if lower.contains("couldn't find key")
        || lower.contains("non-existent config key")
        || lower.contains("references non-existent")
    {
        return Some(Cause::KeyMissing);
    }
    if !lower.contains("not found") {
        return None;
    }
    let named = |what: &str| {
        let at = lower.find(what)? + what.len();
        let rest = message.get(at..)?;
        let name: String = rest.chars().take_while(|c| !matches!(c, '"' | ' ')).collect();
        (!name.is_empty()).then_some(name)
    };
    if let Some(name) = named("configmap \"").or_else(|| named("configmaps \"")) {
        return Some(Cause::ConfigMapMissing { name });
    }
    if let Some(name) = named("secret \"").or_else(|| named("secrets \"")) {
        return Some(Cause::SecretMissing { name });
    }
    None
}

/// What keeps the containers of a pod from being made.
pub(super) fn creating(events: &[&Event]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for event in events.iter().filter(|event| event.is_warning) {
        let message = event.message.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let cause = match event.reason.as_str() {
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume"
                if has(&["multi-attach", "already exclusively attached"]) =>
            {
                Cause::VolumeHeld
            }
            "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => {
                missing(&event.message).unwrap_or(Cause::MountFailed)
            }
            "FailedCreatePodSandBox"
                if has(&[
                    "no ip addresses available",
                    "failed to allocate",
                    "no available ip",
                    "address pool",
                    "ipam",
                ]) =>
            {
                Cause::AddressesExhausted
            }
            "FailedCreatePodSandBox" | "NetworkNotReady"
                if has(&["cni", "network plugin", "networkplugin"]) =>
            {
                Cause::NetworkPlugin
            }
            "NetworkNotReady" => Cause::NetworkPlugin,
            "FailedCreatePodSandBox" => Cause::SandboxFailed,
            "Failed" => match missing(&event.message) {
                Some(cause) => cause,
                None => continue,
            },
            _ => continue,
        };
        if findings.iter().all(|one| one.cause != cause) && findings.len() < QUOTED {
            findings.push(finding(cause, None, [quoted(event)]));
        }
    }
    findings
}

/// Probes that fail.
pub(super) fn probes(events: &[&Event]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for event in events.iter().filter(|event| event.reason == "Unhealthy") {
        let cause = if event.message.contains("Readiness probe") {
            Cause::ReadinessFailed
        } else if event.message.contains("Startup probe") {
            Cause::StartupFailed
        } else if event.message.contains("Liveness probe") {
            Cause::LivenessFailed
        } else {
            continue;
        };
        if findings.iter().all(|one| one.cause != cause) {
            findings.push(finding(cause, None, [quoted(event)]));
        }
    }
    findings
}

//! Containers: how they start, fail by script, are restarted and end, by the time alone.

use crate::clock::{self, elapsed};
use crate::json::{name, namespace, text, uid};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// What it takes until an image is there, and until its container is ready, or has ended by itself; seconds.
pub(crate) const STEP: i64 = 1;
/// How long the first error of an image that cannot be had is shown before its back-off, seconds.
const PULLS: i64 = 10;

/// How a pod fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It becomes ready and stays so.
    #[default]
    Runs,
    /// It runs and is never ready.
    NeverReady,
    /// Its image cannot be had.
    ImagePullBackOff,
    /// It ends with an error as soon as it has started, over and over.
    CrashLoopBackOff,
    /// The same, killed for its memory.
    OomKilled,
    /// It ends well.
    Completes,
    /// It ends with an error, for good.
    Fails,
    /// It runs, and takes its whole grace period to end.
    IgnoresTermination,
    /// Its liveness probe fails as soon as it has started, over and over.
    LivenessFails,
}

impl Outcome {
    /// How a pod fares by the annotation `apiserver-double/outcome`; `oom-below=150Mi`: killed for its memory unless its limit is that.
    pub(crate) fn of(text: &str, pod: &Value) -> Option<Self> {
        let Some(least) = text.strip_prefix("oom-below=") else {
            return Self::parse(text);
        };
        let limit =
            crate::quantity::millis(crate::json::at(pod, "/spec/containers/0/resources/limits/memory"));
        let enough = limit == 0 || limit >= crate::quantity::millis(&json!(least));
        Some(if enough { Self::Runs } else { Self::OomKilled })
    }

    /// Reads the annotation `apiserver-double/outcome`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "runs" => Self::Runs,
            "never-ready" => Self::NeverReady,
            "image-pull-back-off" => Self::ImagePullBackOff,
            "crash-loop-back-off" => Self::CrashLoopBackOff,
            "oom-killed" => Self::OomKilled,
            "completes" => Self::Completes,
            "fails" => Self::Fails,
            "ignores-termination" => Self::IgnoresTermination,
            "liveness-fails" => Self::LivenessFails,
            _ => return None,
        })
    }
}

/// The containers of a pod; they fare alike.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) seen: Timestamp,
    pub(crate) started: Option<Timestamp>,
    /// When it is started, or started again.
    pub(crate) next: Option<Timestamp>,
    pub(crate) restarts: i64,
    pub(crate) last: Option<Value>,
    pub(crate) ended: bool,
    /// The revision of the pod at which it was told to be ready.
    pub(crate) told: String,
}

/// What a container does by the time.
pub(crate) fn go_on(container: &mut Container, fate: Outcome, now: Timestamp) {
    let due = container.next.is_some_and(|next| now >= next);
    let Some(started) = container.started.filter(|_| !container.ended) else {
        if due {
            container.restarts += i64::from(container.ended);
            container.started = Some(now);
            (container.ended, container.next) = (false, None);
        }
        return;
    };
    let (code, reason, again) = match fate {
        Outcome::Completes => (0, "Completed", false),
        Outcome::Fails => (1, "Error", false),
        Outcome::CrashLoopBackOff => (1, "Error", true),
        Outcome::OomKilled => (137, "OOMKilled", true),
        Outcome::LivenessFails => (137, "Error", true),
        Outcome::Runs | Outcome::NeverReady | Outcome::ImagePullBackOff | Outcome::IgnoresTermination => {
            return;
        }
    };
    if elapsed(started, now) < STEP {
        return;
    }
    container.last = Some(json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": clock::seconds(started), "finishedAt": clock::seconds(now),
    }}));
    container.ended = true;
    container.next = again.then(|| now + SignedDuration::from_secs(back_off(container.restarts)));
}

/// 10 s, doubled with each restart, 300 s at most (`MaxContainerBackOff`).
fn back_off(restarts: i64) -> i64 {
    (10 << restarts.clamp(0, 5)).min(300)
}

/// The state of a container, and its phase: `Pending`, `Running`, `Succeeded`, `Failed`.
pub(crate) fn status(
    container: &Container,
    fate: Outcome,
    pod: &Value,
    now: Timestamp,
) -> (Value, &'static str) {
    let image = text(pod, "/spec/containers/0/image");
    if fate == Outcome::ImagePullBackOff {
        let waiting = if elapsed(container.seen, now) < PULLS {
            json!({"reason": "ErrImagePull", "message": format!("failed to pull and unpack image \"{image}\": not found")})
        } else {
            json!({"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\"")})
        };
        return (json!({"waiting": waiting}), "Pending");
    }
    let Some(started) = container.started else {
        let phase = if container.restarts > 0 {
            "Running"
        } else {
            "Pending"
        };
        return (json!({"waiting": {"reason": "ContainerCreating"}}), phase);
    };
    if !container.ended {
        return (
            json!({"running": {"startedAt": clock::seconds(started)}}),
            "Running",
        );
    }
    let ended = container.last.clone().unwrap_or_default();
    match fate {
        Outcome::Completes => (ended, "Succeeded"),
        Outcome::Fails => (ended, "Failed"),
        Outcome::Runs
        | Outcome::NeverReady
        | Outcome::ImagePullBackOff
        | Outcome::CrashLoopBackOff
        | Outcome::OomKilled
        | Outcome::LivenessFails
        | Outcome::IgnoresTermination => {
            let main = text(pod, "/spec/containers/0/name");
            let message = format!(
                "back-off {}s restarting failed container={main} pod={}_{}({})",
                back_off(container.restarts),
                name(pod),
                namespace(pod),
                uid(pod)
            );
            (
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}),
                "Running",
            )
        }
    }
}

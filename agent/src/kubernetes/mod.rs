//! Tells the API server what the agent finds: node conditions, and events. Off unless `kubernetes` is set.
//!
//! ```text
//!  picture ────► conditions: one status an area, changed or due again ──► PATCH nodes/NAME/status
//!  happenings ─► events: the same again is a count, few requests ───────► POST, PATCH events
//! ```
//!
//! Never on the way of a recovery: one request at a time with a deadline, and the loop waits for none of it. An API server that is
//! away is told of once; what is to be said meanwhile is kept in a short list. It needs no DNS when the kubeconfig has an address.

mod client;
mod conditions;
mod events;
mod kubeconfig;

/// For the fuzzer: a node as the API server tells it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(node: &[u8]) {
    let mut book = conditions::Book::default();
    assert_eq!(book.adopt(node).is_ok(), !book.is_new());
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::causes::causes;
use crate::config::{KubernetesSettings, Settings};
use crate::picture::Picture;
use crate::report::Happening;

use client::{Call, Client, Verb};
use conditions::{Area, Book, Status};
use events::{Due, Events};

/// The wait after a first failure; each further one doubles it…
const FIRST: Duration = Duration::from_secs(1);
/// …up to this.
const CAP: Duration = Duration::from_mins(2);
/// No server is obeyed that wants to be left alone for longer.
const LONGEST_AFTER: Duration = Duration::from_mins(5);
/// What the API server does not allow, or a node that it does not know, is tried again after this.
const REFUSED: Duration = Duration::from_mins(5);
/// The last word has so long.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Tells until `stop`, as long as the settings in force say so.
pub async fn follow(
    mut in_force: watch::Receiver<Arc<Settings>>,
    mut picture: watch::Receiver<Arc<Picture>>,
    mut happenings: mpsc::Receiver<Happening>,
    stop: CancellationToken,
) {
    // The first picture claims nothing.
    tokio::select! {
        () = stop.cancelled() => return,
        looked = picture.changed() => if looked.is_err() { return },
    }
    loop {
        let settings = in_force.borrow_and_update().kubernetes.clone();
        let Some(settings) = settings else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = in_force.changed() => if changed.is_err() { return },
                // For nobody.
                happening = happenings.recv() => if happening.is_none() { return },
            }
            continue;
        };
        let mut reporter = Reporter::new(settings.clone());
        let ended = tokio::select! {
            () = stop.cancelled() => true,
            changed = in_force.wait_for(|now| now.kubernetes.as_ref() != Some(&settings)) => changed.is_err(),
            () = reporter.run(&mut picture, &mut happenings) => true,
        };
        // Whatever it is in the middle of: the next to come tells everything anew.
        let _ = timeout(LAST_WORD, reporter.last_word()).await;
        if ended {
            return;
        }
    }
}

/// Why a request was not granted.
#[derive(Debug)]
enum Denial {
    /// The object is not there.
    Missing,
    /// It is there already, or was changed meanwhile.
    Conflict,
    /// It will not be granted by being said again soon.
    Refused(StatusCode),
    /// The server is not there, or has too much to do.
    Later,
}

struct Reporter {
    settings: KubernetesSettings,
    client: Client,
    book: Book,
    events: Events,
    failures: u32,
    /// Nothing is sent before…
    not_before: Instant,
    /// …and no conditions before.
    conditions_after: Instant,
    /// It was told that the API server is away.
    told: bool,
    /// It was told that something is refused.
    told_refused: bool,
}

impl Reporter {
    fn new(settings: KubernetesSettings) -> Self {
        let now = Instant::now();
        Self {
            client: Client::new(settings.access.clone(), settings.deadline),
            book: Book::default(),
            events: Events::new(&settings.node, now),
            failures: 0,
            not_before: now,
            conditions_after: now,
            told: false,
            told_refused: false,
            settings,
        }
    }

    /// Ends when nobody is left who could say anything.
    async fn run(
        &mut self,
        picture: &mut watch::Receiver<Arc<Picture>>,
        happenings: &mut mpsc::Receiver<Happening>,
    ) {
        loop {
            while let Ok(happening) = happenings.try_recv() {
                self.take(&happening);
            }
            let statuses = conditions::statuses(&picture.borrow_and_update().conditions);
            let now = Instant::now();
            let tell = self.settings.node_conditions.then(|| {
                let due = self.book.due(&statuses, self.settings.heartbeat, now);
                due.max(self.conditions_after).max(self.not_before)
            });
            let write = self.events.due(now).map(|due| due.max(self.not_before));
            if tell.is_some_and(|due| due <= now) {
                self.tell(statuses).await;
                continue;
            }
            if write.is_some_and(|due| due <= now) {
                self.write().await;
                continue;
            }
            let wake = tell.into_iter().chain(write).min();
            tokio::select! {
                happening = happenings.recv() => match happening {
                    Some(happening) => self.take(&happening),
                    None => return,
                },
                changed = picture.changed() => if changed.is_err() { return },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    fn take(&mut self, happening: &Happening) {
        if self.settings.events {
            self.events.add(happening, Instant::now(), Timestamp::now());
        }
    }

    /// Conditions.
    async fn tell(&mut self, statuses: BTreeMap<Area, Status>) {
        let node = format!("/api/v1/nodes/{}", self.settings.node);
        if self.book.is_new() {
            let call = Call {
                verb: Verb::Get,
                path: node.clone(),
            };
            match self.ask(&call).await {
                Ok(body) => {
                    if let Err(error) = self.book.adopt(&body) {
                        warn!(%error, "the API server's answer is no node");
                        self.conditions_after = Instant::now() + REFUSED;
                        return;
                    }
                }
                Err(denial) => return self.not_told(&denial),
            }
        }
        let (patch, since) = self.book.patch(&statuses, Timestamp::now());
        let call = Call {
            verb: Verb::Patch(patch),
            path: format!("{node}/status"),
        };
        match self.ask(&call).await {
            Ok(_) => self.book.told(statuses, since, Instant::now()),
            Err(denial) => self.not_told(&denial),
        }
    }

    fn not_told(&mut self, denial: &Denial) {
        let what = match denial {
            Denial::Conflict => return self.back_off(None),
            Denial::Later => return,
            Denial::Missing => StatusCode::NOT_FOUND,
            Denial::Refused(status) => *status,
        };
        self.conditions_after = Instant::now() + REFUSED;
        self.refused("nodes/status", what);
    }

    /// An event.
    async fn write(&mut self) {
        let Some(due) = self.events.next(Instant::now()) else {
            return;
        };
        let Err(denial) = self.ask(&due.call).await else {
            return self.events.sent(&due, Instant::now());
        };
        match (denial, &due.call.verb) {
            (Denial::Later, _) => {}
            // Written the last time, of which no answer came.
            (Denial::Conflict, Verb::Create(_)) => self.events.sent(&due, Instant::now()),
            (Denial::Conflict, Verb::Patch(_) | Verb::Get) => self.back_off(None),
            (Denial::Missing, Verb::Patch(_)) => self.events.gone(&due),
            (Denial::Missing, Verb::Create(_) | Verb::Get) => self.event_refused(&due, StatusCode::NOT_FOUND),
            (Denial::Refused(status), _) => self.event_refused(&due, status),
        }
    }

    /// Not said again.
    fn event_refused(&mut self, due: &Due, status: StatusCode) {
        self.events.sent(due, Instant::now());
        self.refused("events", status);
    }

    async fn ask(&mut self, call: &Call) -> Result<Bytes, Denial> {
        let answer = match self.client.call(call).await {
            Ok(answer) => answer,
            Err(error) => {
                self.away(&causes(&error), None);
                return Err(Denial::Later);
            }
        };
        let status = answer.status;
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT
        ) || status.is_server_error()
        {
            self.away(&format!("it answers {status}"), answer.retry_after);
            return Err(Denial::Later);
        }
        self.failures = 0;
        if self.told {
            info!("the API server is told again");
            self.told = false;
        }
        if status.is_success() {
            Ok(answer.body)
        } else if status == StatusCode::NOT_FOUND {
            Err(Denial::Missing)
        } else if status == StatusCode::CONFLICT {
            Err(Denial::Conflict)
        } else {
            Err(Denial::Refused(status))
        }
    }

    fn away(&mut self, why: &str, retry_after: Option<Duration>) {
        if self.told {
            debug!(why, "the API server is still not told");
        } else {
            warn!(
                why,
                "the API server cannot be told of conditions and events: tried again, and not logged until it can"
            );
            self.told = true;
        }
        self.back_off(retry_after);
    }

    /// Half of the wait is random, so that a fleet does not come back in step.
    fn back_off(&mut self, retry_after: Option<Duration>) {
        let longest = FIRST.saturating_mul(1 << self.failures.min(10)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let wait = longest.mul_f64(rand::rng().random_range(0.5..1.0));
        let asked = retry_after.unwrap_or_default().min(LONGEST_AFTER);
        self.not_before = Instant::now() + asked + wait;
    }

    fn refused(&mut self, what: &str, status: StatusCode) {
        if self.told_refused {
            debug!(what, %status, "the API server refuses");
            return;
        }
        self.told_refused = true;
        warn!(
            what,
            %status,
            node = self.settings.node,
            "the API server refuses: `kubernetes.node` has to be its name there, and deploy/kubernetes/rbac.yaml says what the agent must be allowed"
        );
    }

    /// Nobody looks any more.
    async fn last_word(&mut self) {
        if self.book.is_new() || !self.settings.node_conditions || self.told {
            return;
        }
        let (patch, _) = self.book.patch(&conditions::unknown(), Timestamp::now());
        let call = Call {
            verb: Verb::Patch(patch),
            path: format!("/api/v1/nodes/{}/status", self.settings.node),
        };
        if let Err(error) = self.client.call(&call).await {
            debug!(error = causes(&error), "the API server was not told of the end");
        }
    }
}

//! What goes wrong with an API server, by switches.

use crate::refusal::Refusal;
use crate::request::Asked;
use jiff::Timestamp;
use std::time::Duration;

/// A way to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers come this much later (real time).
    Slow(Duration),
    /// Requests are taken and never answered; those that hang are cut off when the faults change.
    Hang,
    /// An answer with this status: 500, 503, 504, or 429 with `Retry-After: 1`.
    Status(u16),
    /// The connection is closed without an answer.
    Reset,
    /// etcd elects a leader: writes and quorum reads fail with 500 `etcdserver: leader changed`.
    EtcdLeaderChanged,
    /// etcd is gone: writes and quorum reads fail with 500 `etcdserver: request timed out`, `/readyz` fails; lists at
    /// `resourceVersion=0` and watches are answered from the watch cache.
    EtcdDown,
}

/// A fault, and which requests it meets.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// Only this verb.
    pub verb: Option<String>,
    /// Only this resource, `pods` or `pods/eviction`.
    pub resource: Option<String>,
    /// Only so many requests.
    pub times: Option<u32>,
}

impl Rule {
    /// A fault of every request.
    pub fn all(fault: Fault) -> Self {
        Self {
            fault,
            verb: None,
            resource: None,
            times: None,
        }
    }

    /// Narrowed to a verb and a resource.
    #[must_use]
    pub fn on(mut self, verb: &str, resource: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self.resource = Some(resource.to_owned());
        self
    }

    /// Narrowed to the next requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn meets(&self, asked: &Asked) -> bool {
        let whole = match asked.subresource.as_str() {
            "" => asked.resource.clone(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        self.times != Some(0)
            && self.verb.as_deref().is_none_or(|verb| verb == asked.verb)
            && self.resource.as_deref().is_none_or(|resource| resource == whole)
    }
}

/// How many requests are let through, by the double's clock; others are answered with 429.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Requests a second.
    pub per_second: u32,
    /// How many may come at once.
    pub burst: u32,
    /// Seconds of the `Retry-After` header.
    pub retry_after: u32,
    /// So many requests were refused so far.
    pub refused: u32,
    left: f64,
    since: Option<Timestamp>,
}

impl Budget {
    /// A budget that is full.
    pub fn new(per_second: u32, burst: u32, retry_after: u32) -> Self {
        Self {
            per_second,
            burst,
            retry_after,
            refused: 0,
            left: f64::from(burst),
            since: None,
        }
    }

    fn take(&mut self, now: Timestamp) -> bool {
        let since = self.since.replace(now).unwrap_or(now);
        let passed = now.duration_since(since).as_secs_f64().max(0.0);
        self.left = (self.left + passed * f64::from(self.per_second)).min(f64::from(self.burst));
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        } else {
            self.refused += 1;
        }
        granted
    }
}

/// The switches.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The faults; the first that meets a request happens to it.
    pub rules: Vec<Rule>,
    /// The request budget.
    pub budget: Option<Budget>,
    /// Whether answers carry the headers of API priority and fairness (`X-Kubernetes-PF-FlowSchema-UID`,
    /// `X-Kubernetes-PF-PriorityLevel-UID`).
    pub fairness_headers: bool,
}

/// What is done with a request instead of answering it, or before.
#[derive(Clone, Debug)]
pub(crate) enum Disturbance {
    Wait(Duration),
    Hang,
    Reset,
    Refuse(Refusal),
}

impl Faults {
    /// What happens to a request, if anything does. `/healthz`, `/livez` and `/readyz` cost no budget (flow schema `probes`).
    pub(crate) fn meet(&mut self, asked: &Asked, now: Timestamp) -> Option<Disturbance> {
        let probe = ["/healthz", "/livez", "/readyz"]
            .iter()
            .any(|path| asked.path.starts_with(path));
        let cached = asked.verb == "watch" || asked.verb == "list" && asked.param("resourceVersion") == "0";
        let etcd = |fault: &Fault| matches!(fault, Fault::EtcdLeaderChanged | Fault::EtcdDown);
        let of_etcd = asked.is_resource && !cached
            || asked.path.starts_with("/readyz")
            || asked.path.starts_with("/healthz");
        let rule = self
            .rules
            .iter_mut()
            .find(|rule| rule.meets(asked) && (!etcd(&rule.fault) || of_etcd));
        if let Some(rule) = rule {
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            return Some(match &rule.fault {
                Fault::Slow(wait) => Disturbance::Wait(*wait),
                Fault::Hang => Disturbance::Hang,
                Fault::Reset => Disturbance::Reset,
                Fault::Status(429) => Disturbance::Refuse(Refusal::too_many_requests(1)),
                Fault::Status(503) => Disturbance::Refuse(Refusal::unavailable()),
                Fault::Status(504) => Disturbance::Refuse(Refusal::timeout()),
                Fault::Status(code) => {
                    let message = "Internal error occurred: the double was told to fail";
                    Disturbance::Refuse(Refusal {
                        code: *code,
                        reason: "InternalError",
                        ..Refusal::internal(message)
                    })
                }
                Fault::EtcdLeaderChanged if probe => return None,
                Fault::EtcdLeaderChanged => {
                    Disturbance::Refuse(Refusal::internal("etcdserver: leader changed"))
                }
                Fault::EtcdDown if probe => {
                    let check = asked.path.split('/').nth(1).unwrap_or_default();
                    let body = format!(
                        "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n{check} check failed\n"
                    );
                    Disturbance::Refuse(Refusal::plain(500, &body))
                }
                Fault::EtcdDown => Disturbance::Refuse(Refusal::internal("etcdserver: request timed out")),
            });
        }
        let budget = self.budget.as_mut().filter(|_| !probe)?;
        if budget.take(now) {
            None
        } else {
            Some(Disturbance::Refuse(Refusal::too_many_requests(
                budget.retry_after,
            )))
        }
    }
}

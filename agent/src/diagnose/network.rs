//! [`Signal::Network`] → `NetworkIsolated`, `CniMissing` and `DnsFailing`. Pure.
//!
//! | seen | raised when it lasts |
//! |---|---|
//! | no default route, where there was one in this boot | `NetworkIsolated` |
//! | a default route, and no interface of one has carrier | `NetworkIsolated` |
//! | coordinator and all peers out of reach together, two of them at least | `NetworkIsolated` |
//! | no CNI configuration that can be used | `CniMissing` |
//! | no name server knows the configured name | `DnsFailing` |
//!
//! One witness alone is none: a coordinator that nobody answers for may itself be gone. What could not be looked at leaves everything as it
//! was.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::NetworkSettings;
use crate::signal::{
    CniFound, CniSignal, DnsSignal, Link, LinkState, NetworkSignal, PathSignal, ReachSignal, Signal,
};

/// So many peers are named in evidence.
const NAMED: usize = 3;

/// The node's network.
#[derive(Debug, Clone)]
pub struct Network {
    settings: NetworkSettings,
    /// The way out is cut.
    cut: Option<Fault>,
    /// Nobody can be reached.
    alone: Option<Fault>,
    cni: Option<Fault>,
    /// The CNI directory was there: from then on it has to be.
    cni_seen: bool,
    dns: Option<Fault>,
}

/// What is wrong, and since when.
#[derive(Debug, Clone)]
struct Fault {
    since: Instant,
    evidence: String,
}

impl Network {
    /// Nothing seen yet.
    pub fn new(settings: NetworkSettings) -> Self {
        Self {
            settings,
            cut: None,
            alone: None,
            cni: None,
            cni_seen: false,
            dns: None,
        }
    }

    /// Judges by other settings from now on, and forgets what is not watched any more, or was seen of something else.
    pub fn retune(&mut self, settings: NetworkSettings) {
        let old = std::mem::replace(&mut self.settings, settings);
        let new = &self.settings;
        if !new.default_route {
            self.cut = None;
        }
        if new.peers != old.peers {
            self.alone = None;
        }
        if !new.cni.watch || new.cni.dir != old.cni.dir {
            self.cni = None;
            self.cni_seen = false;
        }
        let name = |settings: &NetworkSettings| settings.dns.as_ref().map(|dns| dns.name.clone());
        if name(new) != name(&old) {
            self.dns = None;
        }
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Network(seen) = signal else { return };
        match seen {
            NetworkSignal::Path(path) => {
                if let Some(wrong) = judge_path(path) {
                    set(&mut self.cut, wrong, now);
                }
            }
            NetworkSignal::Reach(reach) => {
                if let Some(wrong) = judge_reach(reach) {
                    set(&mut self.alone, wrong, now);
                }
            }
            NetworkSignal::Cni(cni) => {
                self.cni_seen |= cni.found != CniFound::NoDirectory;
                let must = self.cni_seen || self.settings.cni.required;
                set(&mut self.cni, judge_cni(cni, must), now);
            }
            NetworkSignal::Dns(DnsSignal { resolved, .. }) => {
                set(&mut self.dns, resolved.as_ref().err().cloned(), now);
            }
        }
    }

    /// What stands at `now`.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let lasts = |fault: &Option<Fault>, hold| fault.clone().filter(|fault| fault.since + hold <= now);
        let hold = self.settings.hold;
        let (cut, alone) = (lasts(&self.cut, hold), lasts(&self.alone, hold));
        let mut standing = Vec::new();
        if cut.is_some() || alone.is_some() {
            let severity = if cut.is_some() {
                Severity::Critical
            } else {
                Severity::Warning
            };
            let both: Vec<_> = cut.into_iter().chain(alone).collect();
            let evidence: Vec<_> = both.iter().map(|fault| fault.evidence.as_str()).collect();
            let since = both.iter().map(|fault| fault.since).min().unwrap_or(now);
            let kind = ConditionKind::NetworkIsolated;
            standing.push(finding(
                kind,
                "network",
                severity,
                since,
                evidence.join("; "),
                true,
            ));
        }
        let cni = &self.settings.cni;
        if let Some(fault) = lasts(&self.cni, cni.hold) {
            let ask = match &cni.unit {
                Some(_) => String::new(),
                None => "; no unit is known to write it: ask for the CNI pod's recreation".to_owned(),
            };
            standing.push(finding(
                ConditionKind::CniMissing,
                &cni.dir.display().to_string(),
                Severity::Critical,
                fault.since,
                fault.evidence + &ask,
                cni.unit.is_none(),
            ));
        }
        if let Some(dns) = &self.settings.dns
            && let Some(fault) = lasts(&self.dns, dns.hold)
        {
            let kind = ConditionKind::DnsFailing;
            standing.push(finding(
                kind,
                &dns.name,
                Severity::Warning,
                fault.since,
                fault.evidence,
                true,
            ));
        }
        standing
    }

    /// When something changes with no signal coming.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let (isolated, cni) = (self.settings.hold, self.settings.cni.hold);
        let dns = self.settings.dns.as_ref().map_or(Duration::ZERO, |dns| dns.hold);
        let ends = [
            (&self.cut, isolated),
            (&self.alone, isolated),
            (&self.cni, cni),
            (&self.dns, dns),
        ];
        ends.into_iter()
            .filter_map(|(fault, hold)| Some(fault.as_ref()?.since + hold))
            .filter(|end| *end > now)
            .min()
    }
}

/// What goes on goes on since it began, by its newest evidence.
fn set(fault: &mut Option<Fault>, wrong: Option<String>, now: Instant) {
    let since = fault.as_ref().map_or(now, |fault| fault.since);
    *fault = wrong.map(|evidence| Fault { since, evidence });
}

/// What is wrong with the way out, if anything; `None`: that cannot be told.
#[expect(
    clippy::option_option,
    reason = "not known, known to be well, known to be wrong"
)]
fn judge_path(path: &PathSignal) -> Option<Option<String>> {
    let links: Vec<_> = path.links.iter().map(described).collect();
    let links = links.join(", ");
    if path.routes.is_empty() {
        return Some(
            path.had_route
                .then(|| format!("no default route; the last one was by {links}")),
        );
    }
    // A link of which nothing is known may have one.
    let without = |link: &Link| {
        matches!(
            link.state,
            LinkState::NoCarrier | LinkState::Down | LinkState::Gone
        )
    };
    if path.links.iter().any(|link| link.state == LinkState::Carrier) {
        Some(None)
    } else if !path.links.is_empty() && path.links.iter().all(without) {
        Some(Some(format!("no carrier under the default route: {links}")))
    } else {
        None
    }
}

fn described(link: &Link) -> String {
    let state = match link.state {
        LinkState::Carrier => "has carrier",
        LinkState::NoCarrier => "has no carrier",
        LinkState::Down => "is set down",
        LinkState::Gone => "is gone",
        LinkState::Unknown => "cannot be looked at",
    };
    format!("{}, which {state}", link.name)
}

/// As [`judge_path`], of who can be reached.
#[expect(
    clippy::option_option,
    reason = "not known, known to be well, known to be wrong"
)]
fn judge_reach(reach: &ReachSignal) -> Option<Option<String>> {
    let witnesses = || {
        let peers = reach.peers.iter().map(|(_, reached)| *reached);
        std::iter::once(reach.coordinator).chain(peers).flatten()
    };
    if witnesses().any(|reached| reached) {
        return Some(None);
    }
    // All of those that were tried are silent; those that could not be tried say nothing.
    if witnesses().count() < 2 {
        return None;
    }
    let mut evidence = String::new();
    if reach.coordinator.is_some() {
        evidence += "no session with the coordinator, and ";
    }
    let silent: Vec<_> = reach
        .peers
        .iter()
        .filter(|(_, reached)| reached.is_some())
        .map(|(peer, _)| peer.to_string())
        .collect();
    let _infallible = write!(
        evidence,
        "none of {} peers can be reached: {}",
        silent.len(),
        silent[..silent.len().min(NAMED)].join(", ")
    );
    if silent.len() > NAMED {
        evidence += ", …";
    }
    Some(Some(evidence))
}

fn judge_cni(cni: &CniSignal, must: bool) -> Option<String> {
    let dir = cni.dir.display();
    match &cni.found {
        CniFound::Usable => None,
        CniFound::Empty => Some(format!("{dir} has no CNI configuration: no pod gets an address")),
        CniFound::Broken { file, why } => Some(format!("{dir}/{file} cannot be used: {why}")),
        CniFound::NoDirectory => must.then(|| format!("{dir} is not there: no pod gets an address")),
    }
}

fn finding(
    kind: ConditionKind,
    subject: &str,
    severity: Severity,
    since: Instant,
    evidence: String,
    escalated: bool,
) -> Condition {
    Condition {
        key: ConditionKey {
            kind,
            subject: subject.to_owned(),
        },
        severity,
        since,
        evidence,
        escalated,
        log: None,
        heaviest: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

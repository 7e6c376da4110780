//! Of each part of a control plane: is it well, and if not, what is the cause? Pure.
//!
//! Causes that a bounce does not mend come first: who has taken the manifest out, a manifest that is gone or cannot be read, a certificate out
//! of its time, an etcd that has lost its quorum. What is left is a part that does not answer, which a bounce may mend.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use blackstart_proto::part::Part;

use super::told::{Health, PartTold, Told};
use crate::inventory::NodeName;
use crate::quorum;

/// So many of the last lines of a log stand in the evidence.
const LINES: usize = 2;

/// How a cluster's masters are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// What the agent of each said, or why it said nothing.
    pub masters: BTreeMap<NodeName, Result<Told, String>>,
    /// The address that keepalived moves between them, if the inventory has one.
    pub vip: Option<IpAddr>,
}

/// How a part on a master is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It answers: where and how, for people.
    Well(String),
    /// No master has it: it runs elsewhere, or under another name.
    Nowhere,
    /// It is not.
    Ill(Cause),
}

/// Why a part is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its agent says nothing.
    Unseen(String),
    /// A run has its manifest.
    Out {
        /// Which, or "a bounce".
        by: String,
        /// Where.
        manifest: String,
    },
    /// Its manifest is gone, and others have theirs.
    NoManifest,
    /// What may be its manifest cannot be read: file, and why.
    BadManifest(String, String),
    /// A certificate is out of its time: in words that name it.
    Expired(String),
    /// etcd does not serve it.
    Etcd(String),
    /// It does not answer as it should, with what is known of it.
    Down(String),
}

impl Cause {
    /// A bounce may mend it.
    pub const fn is_mendable(&self) -> bool {
        matches!(self, Self::Down(_))
    }

    /// What is missing, and what to do.
    pub fn words(&self, part: Part, node: &NodeName) -> String {
        match self {
            Self::Unseen(why) => {
                format!("the word of its agent ({why}); blackstart runbook plan node-down {node}")
            }
            Self::Out { by, manifest } => format!(
                "its manifest, which is out by {by}, in {manifest}: that run puts it back (blackstart runbook status, blackstart get runs); \
                 after etcd-quorum, blackstart runbook run etcd-member {node} does"
            ),
            Self::NoManifest => format!(
                "its manifest, which is gone: kubeadm init phase control-plane {} writes it anew, or take another master's and change its addresses",
                part.as_str()
            ),
            Self::BadManifest(file, why) => {
                format!("a manifest that can be read: {file}: {why}; the kubelet runs nothing of it")
            }
            Self::Expired(what) => format!(
                "certificates that are good: {what}; a bounce would show the same ones (kubeadm certs renew all, then --restart)"
            ),
            Self::Etcd(why) => format!("an etcd that serves it: {why}"),
            Self::Down(evidence) => evidence.clone(),
        }
    }
}

impl View {
    /// How a part on a master is, with an eye on etcd where that is known.
    pub fn state(&self, node: &NodeName, part: Part, etcd: Option<&quorum::judge::View>) -> State {
        let told = match self.masters.get(node) {
            Some(Ok(told)) => told,
            Some(Err(why)) => return State::Ill(Cause::Unseen(why.clone())),
            None => return State::Ill(Cause::Unseen("it was not asked".to_owned())),
        };
        if let Some(why) = &told.trouble {
            return State::Ill(Cause::Unseen(why.clone()));
        }
        let Some(here) = told.parts.iter().find(|one| one.part == part) else {
            return self.without_manifest(told, part);
        };
        if let Some(by) = &here.out_by {
            return State::Ill(Cause::Out {
                by: by.clone(),
                manifest: here.manifest.clone(),
            });
        }
        if let Some(expired) = here.certificates.iter().find_map(|one| one.expired.clone()) {
            return State::Ill(Cause::Expired(expired));
        }
        match here.health {
            Health::Healthy => return State::Well(format!("{} {}", here.url, here.health_words)),
            // Nobody says where it answers: its containers tell.
            Health::Unknown if here.url.is_empty() && here.not_running.is_empty() => {
                return State::Well("its containers run, and its manifest names no health port".to_owned());
            }
            Health::Not | Health::Unknown => {}
        }
        if part == Part::ApiServer
            && let Some(why) = etcd.and_then(|etcd| unserved(node, here, etcd))
        {
            return State::Ill(Cause::Etcd(why));
        }
        State::Ill(Cause::Down(evidence(here)))
    }

    fn without_manifest(&self, told: &Told, part: Part) -> State {
        if let Some((file, why)) = told.bad.first() {
            return State::Ill(Cause::BadManifest(file.clone(), why.clone()));
        }
        let has = |told: &Result<Told, String>| {
            told.as_ref()
                .is_ok_and(|told| told.parts.iter().any(|one| one.part == part))
        };
        if self.masters.values().any(has) {
            State::Ill(Cause::NoManifest)
        } else {
            State::Nowhere
        }
    }

    /// Which masters have the virtual address; none without one.
    pub fn holders(&self) -> Vec<&NodeName> {
        let Some(vip) = self.vip.map(|vip| vip.to_string()) else {
            return Vec::new();
        };
        let has = |told: &(&NodeName, &Result<Told, String>)| {
            told.1.as_ref().is_ok_and(|told| told.addresses.contains(&vip))
        };
        self.masters.iter().filter(has).map(|(node, _)| node).collect()
    }

    /// Who has the virtual address, and what is wrong with that; `None` without one.
    pub fn vip_words(&self, etcd: Option<&quorum::judge::View>) -> Option<String> {
        let vip = self.vip?;
        Some(match self.holders().as_slice() {
            [] => format!(
                "the virtual address {vip} is on no master whose agent answers: look at keepalived there (systemctl status keepalived)"
            ),
            [one] => match self.state(one, Part::ApiServer, etcd) {
                State::Well(_) => format!("the virtual address {vip} is on {one}, whose API server is well"),
                State::Ill(_) | State::Nowhere => format!(
                    "the virtual address {vip} is on {one}, whose API server is not well: keepalived does not see that (its check script)"
                ),
            },
            many => {
                let names: Vec<_> = many.iter().map(|node| node.0.as_str()).collect();
                format!(
                    "the virtual address {vip} is on {} at once: their keepalived do not hear each other (VRRP, IP protocol 112)",
                    names.join(", ")
                )
            }
        })
    }

    /// What an agent told of a part.
    pub fn told(&self, node: &NodeName, part: Part) -> Option<&PartTold> {
        let told = self.masters.get(node)?.as_ref().ok()?;
        told.parts.iter().find(|one| one.part == part)
    }

    /// Another master whose part is not well, and why: while one is, none that is well is taken away.
    pub fn other_ill(
        &self,
        node: &NodeName,
        part: Part,
        etcd: Option<&quorum::judge::View>,
    ) -> Option<(&NodeName, Cause)> {
        self.masters
            .keys()
            .filter(|other| *other != node)
            .find_map(|other| match self.state(other, part, etcd) {
                State::Ill(cause) => Some((other, cause)),
                State::Well(_) | State::Nowhere => None,
            })
    }
}

/// Why etcd does not serve an API server; `None`: it does, or nothing is known of it.
fn unserved(node: &NodeName, here: &PartTold, etcd: &quorum::judge::View) -> Option<String> {
    let is_known = etcd
        .members
        .iter()
        .any(|seen| seen.told.as_ref().is_some_and(|told| told.manifest.is_some()));
    if !is_known {
        return None;
    }
    if !etcd.has_quorum() {
        return Some(format!(
            "it has no quorum ({}); blackstart runbook plan etcd-quorum --cluster CLUSTER",
            etcd.words()
        ));
    }
    // One that asks its own member alone is served by no other.
    let own = here.etcd_servers.split(',').all(|url| {
        ["://127.", "://localhost", "://[::1]"]
            .iter()
            .any(|loopback| url.contains(loopback))
    });
    let member = etcd.on(node)?;
    let why = member.health.as_ref().err().filter(|_| own)?;
    Some(format!(
        "it asks its own member alone, which is not well ({why}); blackstart runbook plan etcd-member {node}"
    ))
}

/// What is known of a part that does not answer.
fn evidence(here: &PartTold) -> String {
    let mut words = if here.url.is_empty() {
        "its containers do not run".to_owned()
    } else {
        format!("{} {}", here.url, here.health_words)
    };
    if !here.not_running.is_empty() {
        let _infallible = write!(words, "; not running: {}", here.not_running.join(", "));
    }
    for one in &here.certificates {
        if let Some(why) = &one.trouble {
            let _infallible = write!(words, "; {}: {why}", one.path);
        }
    }
    let last = here.log.len().saturating_sub(LINES);
    if let Some(lines) = here.log.get(last..).filter(|lines| !lines.is_empty()) {
        let _infallible = write!(words, "; its log ends: {}", lines.join(" | "));
    }
    words
}

#[cfg(test)]
mod tests;

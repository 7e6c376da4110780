//! (requests, permits that stand, clusters) → grant, wait, refuse. Pure.
//!
//! Requests are looked at by their kind, and within a kind by their age. What is granted counts at once for those behind it.
//!
//! | lane | rule |
//! |---|---|
//! | control plane | one node at a time; and one that is up, or that nobody knows to be down, only while enough others of its role are up |
//! | workers | fewer than the budget away: with a permit, or not known to be up; silenced ones do not count |
//!
//! Enough is the quorum of the declared ones. Of two it is the other one, and a single one needs nobody: no wait would bring a
//! quorum without it, and it would never be mended. A node that is down itself costs nothing, so a control plane that has lost its quorum is
//! mended one by one.

use std::collections::BTreeSet;
use std::fmt;

use super::{Budget, ClusterState, FleetState, Grant, Health, Lane, Member, PermitKind, Presence, Request};
use crate::inventory::{ClusterName, NodeName, Role};

/// So many nodes are named in a reason.
const NAMED: usize = 4;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is granted.
    Grant,
    /// Not yet.
    Wait(WaitingOn),
    /// Never.
    Refuse(Refusal),
}

/// What a request waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitingOn {
    /// Another node of the lane has a permit.
    Lane {
        /// Which.
        holder: NodeName,
        /// What for.
        kind: PermitKind,
    },
    /// Another comes first.
    Turn {
        /// Which.
        before: NodeName,
    },
    /// As many workers are away as may be.
    Away {
        /// They.
        away: Vec<NodeName>,
        /// So many may be.
        budget: usize,
    },
    /// Too few others are up.
    Quorum {
        /// So many are.
        up: usize,
        /// So many have to be.
        needed: usize,
        /// Of so many, without the one that asks.
        others: usize,
    },
    /// Somebody holds it.
    Held(String),
    /// The cluster is in a power event.
    PowerEvent,
    /// A run brings the cluster back.
    Run(String),
    /// Conditions of the cluster are frozen.
    Storm(String),
    /// Whoever asked, who is not there to be told.
    Asker,
}

/// Why a request is never granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody declared the node.
    Undeclared,
    /// There is no control plane on a worker.
    NoControlPlane,
}

/// A verdict on each request, in the order of `requests`.
pub fn decide(requests: &[Request], grants: &[Grant], fleet: &FleetState, workers: Budget) -> Vec<Verdict> {
    let mut taken: Vec<Taken<'_>> = grants
        .iter()
        .map(|grant| Taken::of(&grant.wish.id.node, grant.wish.kind, false))
        .collect();
    let mut verdicts = vec![Verdict::Wait(WaitingOn::Asker); requests.len()];
    for index in turns(requests) {
        let request = &requests[index];
        let node = &request.wish.id.node;
        let Some((cluster, state, member)) = member(fleet, node) else {
            verdicts[index] = Verdict::Refuse(Refusal::Undeclared);
            continue;
        };
        let asking = Asking {
            request,
            member,
            cluster,
            state,
            fleet,
            workers,
        };
        let verdict = asking.judge(&taken);
        let verdict = match (verdict, request.presence) {
            (Verdict::Grant, Presence::Here) => {
                taken.push(Taken::of(node, request.wish.kind, false));
                Verdict::Grant
            }
            (Verdict::Grant, Presence::Between) => {
                taken.push(Taken::of(node, request.wish.kind, true));
                Verdict::Wait(WaitingOn::Asker)
            }
            (Verdict::Grant, Presence::Gone) => Verdict::Wait(WaitingOn::Asker),
            (other @ (Verdict::Wait(_) | Verdict::Refuse(_)), _) => other,
        };
        verdicts[index] = verdict;
    }
    verdicts
}

/// The requests' places, in the order of their turns.
pub fn turns(requests: &[Request]) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..requests.len()).collect();
    turns.sort_by_key(|index| {
        let request = &requests[*index];
        (request.wish.kind, request.since, &request.wish.id)
    });
    turns
}

/// A node that is away, or is about to be.
#[derive(Debug, Clone, Copy)]
struct Taken<'a> {
    node: &'a NodeName,
    kind: PermitKind,
    /// Its turn is kept for it.
    kept: bool,
}

impl<'a> Taken<'a> {
    const fn of(node: &'a NodeName, kind: PermitKind, kept: bool) -> Self {
        Self { node, kind, kept }
    }
}

/// The cluster of a node, and the node in it.
pub fn member<'a>(
    fleet: &'a FleetState,
    node: &NodeName,
) -> Option<(&'a ClusterName, &'a ClusterState, &'a Member)> {
    fleet
        .iter()
        .find_map(|(name, cluster)| Some((name, cluster, cluster.members.get(node)?)))
}

/// One request, and all that it is judged by.
struct Asking<'a> {
    request: &'a Request,
    member: &'a Member,
    cluster: &'a ClusterName,
    state: &'a ClusterState,
    fleet: &'a FleetState,
    workers: Budget,
}

impl Asking<'_> {
    fn judge(&self, taken: &[Taken<'_>]) -> Verdict {
        let kind = self.request.wish.kind;
        if kind == PermitKind::ControlPlaneRepair && self.member.role == Role::Worker {
            return Verdict::Refuse(Refusal::NoControlPlane);
        }
        if let Some(by) = self.member.held.get(&kind) {
            return Verdict::Wait(WaitingOn::Held(by.clone()));
        }
        if kind == PermitKind::Reboot
            && let Some(waiting) = self.unrest()
        {
            return Verdict::Wait(waiting);
        }
        let lane = Lane::of(self.cluster, self.member.role);
        let others: Vec<_> = taken
            .iter()
            .filter(|other| *other.node != self.request.wish.id.node)
            .filter(|other| {
                member(self.fleet, other.node)
                    .is_some_and(|(cluster, _, member)| Lane::of(cluster, member.role) == lane)
            })
            .collect();
        let waiting = match lane {
            Lane::ControlPlane(_) => self.control_plane(&others),
            Lane::Workers(_) => self.worker(&others),
        };
        waiting.map_or(Verdict::Grant, Verdict::Wait)
    }

    /// What nobody reboots in. Repairs go on: they are what ends it.
    fn unrest(&self) -> Option<WaitingOn> {
        if self.state.power_event {
            return Some(WaitingOn::PowerEvent);
        }
        if let Some(run) = &self.state.run {
            return Some(WaitingOn::Run(run.clone()));
        }
        self.state.storm.clone().map(WaitingOn::Storm)
    }

    fn control_plane(&self, others: &[&Taken<'_>]) -> Option<WaitingOn> {
        if let Some(other) = others.first() {
            return Some(waits_for(other));
        }
        // It takes nothing away.
        if self.member.health == Health::Down {
            return None;
        }
        let peers: Vec<_> = self
            .state
            .members
            .iter()
            .filter(|(name, member)| member.role == self.member.role && **name != self.request.wish.id.node)
            .collect();
        let up = peers
            .iter()
            .filter(|(_, member)| member.health == Health::Up)
            .count();
        let needed = needed(peers.len() + 1);
        (up < needed).then_some(WaitingOn::Quorum {
            up,
            needed,
            others: peers.len(),
        })
    }

    fn worker(&self, others: &[&Taken<'_>]) -> Option<WaitingOn> {
        let counts = |member: &Member| member.role == Role::Worker && !member.silenced;
        let workers = self
            .state
            .members
            .values()
            .filter(|member| counts(member))
            .count();
        let budget = self.workers.of(workers);
        let unwell = self.state.members.iter().filter(|(name, member)| {
            counts(member) && member.health != Health::Up && **name != self.request.wish.id.node
        });
        let away: BTreeSet<_> = others
            .iter()
            .map(|other| other.node)
            .chain(unwell.map(|(name, _)| name))
            .collect();
        if away.len() < budget {
            return None;
        }
        if let Some(first) = others.iter().find(|other| other.kept)
            && away.len() == budget
        {
            return Some(waits_for(first));
        }
        Some(WaitingOn::Away {
            away: away.into_iter().cloned().collect(),
            budget,
        })
    }
}

fn waits_for(other: &Taken<'_>) -> WaitingOn {
    if other.kept {
        let before = other.node.clone();
        return WaitingOn::Turn { before };
    }
    WaitingOn::Lane {
        holder: other.node.clone(),
        kind: other.kind,
    }
}

/// So many others of `members` have to be up for one to go.
pub const fn needed(members: usize) -> usize {
    match members {
        0..=2 => members.saturating_sub(1),
        3.. => members / 2 + 1,
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane { holder, kind } => {
                write!(
                    f,
                    "{holder}, which has the lane of the control plane for its {}",
                    kind.as_str()
                )
            }
            Self::Turn { before } => write!(f, "{before}, whose turn it is"),
            Self::Away { away, budget } => {
                let named: Vec<_> = away.iter().take(NAMED).map(|node| node.0.as_str()).collect();
                let more = match away.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                write!(
                    f,
                    "workers to be back: {} away ({}{more}), at most {budget} may be",
                    away.len(),
                    named.join(", ")
                )
            }
            Self::Quorum { up, needed, others } => write!(
                f,
                "others to be up: {up} of the {others} others are known to be, and {needed} have to be"
            ),
            Self::Held(by) => write!(f, "a hold to be lifted ({by})"),
            Self::PowerEvent => f.write_str("the cluster's power event to be over"),
            Self::Run(run) => write!(f, "run {run}, which brings the cluster back"),
            Self::Storm(what) => write!(f, "a storm to pass ({what})"),
            Self::Asker => f.write_str("whoever asked to ask again"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undeclared => "the node is not in the inventory; add it there and restart the coordinator",
            Self::NoControlPlane => "the node is a worker by the inventory, and has no control plane to mend",
        })
    }
}

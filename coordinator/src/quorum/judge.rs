//! What follows from what the agents of a cluster tell of etcd: who is in it, who is well, whether there is a quorum. Pure.
//!
//! A member is healthy when its agent reached it, it is of the cluster that most are of, it is in the list of members, it knows the leader,
//! and its data is not corrupt. The list is the leader's; without one, that of whoever has seen the highest term and index.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::findings;
use super::told::{Member, Status, Told};
use crate::inventory::NodeName;

/// The alarm of data that differs between members.
pub(super) const CORRUPT: &str = "CORRUPT";

/// What the agent of each node said, or why it said nothing.
pub type Answers = BTreeMap<NodeName, Result<Told, String>>;

/// How a cluster's etcd is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Of whoever answered; `None`: nobody did.
    pub cluster_id: Option<u64>,
    /// Whom all who are well hold for the leader.
    pub leader: Option<u64>,
    /// By node, then those of no node.
    pub members: Vec<Seen>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// One member, or a node that should have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// On which node; `None`: no node of the inventory has it.
    pub node: Option<NodeName>,
    /// `None`: it is in no list of members.
    pub id: Option<u64>,
    /// Its name.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// It does not vote.
    pub is_learner: bool,
    /// Why it is not well.
    pub health: Result<(), String>,
    /// What its agent told.
    pub told: Option<Told>,
    /// So far it is behind the highest revision.
    pub revisions_behind: u64,
    /// So far what it has carried out is behind the end of the longest log.
    pub indices_behind: u64,
}

/// How much it hurts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Now.
    Critical,
    /// Soon.
    Warning,
}

/// What a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it hurts.
    pub level: Level,
    /// `None`: it is about the cluster.
    pub node: Option<NodeName>,
    /// What, and what to do.
    pub text: String,
}

/// So many voters make a quorum of these.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Seen {
    /// What the member answered.
    pub fn status(&self) -> Option<&Status> {
        self.told.as_ref()?.status.as_ref()
    }

    /// It counts for the quorum.
    pub fn votes(&self) -> bool {
        self.id.is_some() && !self.is_learner
    }

    /// Its node, or its name where it has none.
    pub fn words(&self) -> String {
        match (&self.node, self.name.as_str()) {
            (Some(node), _) => node.to_string(),
            (None, "") => format!("member {:x}", self.id.unwrap_or_default()),
            (None, name) => format!("member {name}"),
        }
    }
}

impl View {
    /// Members that vote.
    pub fn voters(&self) -> usize {
        self.members.iter().filter(|member| member.votes()).count()
    }

    /// Those of them that are well.
    pub fn healthy(&self) -> usize {
        let well = |member: &&Seen| member.votes() && member.health.is_ok();
        self.members.iter().filter(well).count()
    }

    /// So many of them make a quorum.
    pub fn quorum(&self) -> usize {
        majority(self.voters())
    }

    /// Enough are well, and they agree on who leads.
    pub fn has_quorum(&self) -> bool {
        self.leader.is_some() && self.voters() > 0 && self.healthy() >= self.quorum()
    }

    /// The member on a node.
    pub fn on(&self, node: &NodeName) -> Option<&Seen> {
        self.members.iter().find(|seen| seen.node.as_ref() == Some(node))
    }

    /// The member of this id.
    pub fn member(&self, id: u64) -> Option<&Seen> {
        self.members.iter().find(|seen| seen.id == Some(id))
    }

    /// The numbers, for people: `2 of 3 voters are well, 2 make a quorum`.
    pub fn words(&self) -> String {
        format!(
            "{} of {} voters are well, {} make a quorum, {}",
            self.healthy(),
            self.voters(),
            self.quorum(),
            match self.leader.and_then(|leader| self.member(leader)) {
                Some(leader) => format!("{} leads", leader.words()),
                None => "nobody leads".to_owned(),
            }
        )
    }
}

/// See the module. `now` is the wall clock, seconds since the Unix epoch, and decides only how soon a certificate expires.
pub fn judge(answers: &Answers, now: i64) -> View {
    let statuses: BTreeMap<_, _> = answers
        .iter()
        .filter_map(|(node, told)| Some((node, told.as_ref().ok()?.status.as_ref()?)))
        .collect();
    let cluster_id = cluster(statuses.values().copied());
    let ours = || {
        statuses
            .iter()
            .filter(|(_, status)| Some(status.cluster_id) == cluster_id)
    };
    let leaders: BTreeSet<_> = ours()
        .map(|(_, status)| status.leader)
        .filter(|id| *id != 0)
        .collect();
    let leader = leaders.first().copied().filter(|_| leaders.len() == 1);
    let list = list(answers, ours().map(|(node, status)| (*node, *status)), leader);
    let revision = ours()
        .map(|(_, status)| status.revision)
        .max()
        .unwrap_or_default();
    let index = ours()
        .map(|(_, status)| status.raft_index)
        .max()
        .unwrap_or_default();

    let mut members = Vec::new();
    let mut taken = BTreeSet::new();
    for (node, told) in answers {
        let told = told.as_ref();
        let in_list = told.ok().and_then(|told| find(told, &list));
        taken.extend(in_list.map(|member| member.id));
        let status = told.ok().and_then(|told| told.status.as_ref());
        // Another cluster's numbers are no measure.
        let status = status.filter(|status| Some(status.cluster_id) == cluster_id);
        members.push(Seen {
            node: Some(node.clone()),
            id: in_list.map(|member| member.id),
            name: told
                .ok()
                .and_then(|told| told.manifest.as_ref())
                .map(|manifest| manifest.name.clone())
                .or_else(|| in_list.map(|member| member.name.clone()))
                .unwrap_or_default(),
            peer_urls: in_list.map(|member| member.peer_urls.clone()).unwrap_or_default(),
            is_learner: in_list.is_some_and(|member| member.is_learner),
            health: health(told, in_list, cluster_id, leader, &list),
            revisions_behind: status.map_or(0, |status| revision.abs_diff(status.revision)),
            indices_behind: status.map_or(0, |status| index.saturating_sub(status.applied_index)),
            told: told.ok().cloned(),
        });
    }
    // An agent that says nothing may still be known by its node's name or address.
    for member in list.iter().filter(|member| !taken.contains(&member.id)) {
        let silent = members.iter_mut().find(|seen| {
            let node = seen.node.as_ref().map(|node| node.0.as_str());
            seen.id.is_none() && seen.told.is_none() && node == Some(member.name.as_str())
        });
        if let Some(silent) = silent {
            silent.id = Some(member.id);
            silent.name.clone_from(&member.name);
            silent.peer_urls.clone_from(&member.peer_urls);
            silent.is_learner = member.is_learner;
            continue;
        }
        members.push(Seen {
            node: None,
            id: Some(member.id),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            is_learner: member.is_learner,
            health: Err("it is a member, and no node of the inventory says that it has it".to_owned()),
            told: None,
            revisions_behind: 0,
            indices_behind: 0,
        });
    }
    let mut view = View {
        cluster_id,
        leader,
        members,
        findings: Vec::new(),
    };
    view.findings = findings(&view, &leaders, now);
    view
}

/// The cluster that most are of; of two with as many, that of the higher revision.
fn cluster<'a>(statuses: impl Iterator<Item = &'a Status>) -> Option<u64> {
    let mut count: BTreeMap<u64, (usize, i64)> = BTreeMap::new();
    for status in statuses {
        let (members, revision) = count.entry(status.cluster_id).or_default();
        *members += 1;
        *revision = status.revision.max(*revision);
    }
    let most = count.into_iter().max_by_key(|(_, weight)| *weight);
    most.map(|(id, _)| id)
}

/// Who is in the cluster, by the leader's word, or by that of whoever knows most.
fn list<'a>(
    answers: &Answers,
    ours: impl Iterator<Item = (&'a NodeName, &'a Status)>,
    leader: Option<u64>,
) -> Vec<Member> {
    // A learner does not tell.
    let best = ours
        .filter(|(_, status)| !status.is_learner)
        .max_by_key(|(_, status)| {
            let leads = Some(status.member_id) == leader;
            (leads, status.term, status.applied_index, status.revision)
        });
    best.and_then(|(node, _)| answers.get(node)?.as_ref().ok())
        .map(|told| told.members.clone())
        .unwrap_or_default()
}

/// The member on a node: by its own word, or by what its manifest says.
fn find<'a>(told: &Told, list: &'a [Member]) -> Option<&'a Member> {
    if let Some(status) = &told.status {
        return list.iter().find(|member| member.id == status.member_id);
    }
    let manifest = told.manifest.as_ref()?;
    let by_address = |member: &&Member| {
        member
            .peer_urls
            .iter()
            .any(|url| manifest.peer_urls.contains(url))
    };
    let by_name = |member: &&Member| !member.name.is_empty() && member.name == manifest.name;
    list.iter().find(by_address).or_else(|| list.iter().find(by_name))
}

fn health(
    told: Result<&Told, &String>,
    in_list: Option<&Member>,
    cluster_id: Option<u64>,
    leader: Option<u64>,
    list: &[Member],
) -> Result<(), String> {
    let told = told.map_err(Clone::clone)?;
    let Some(status) = &told.status else {
        let trouble = told.trouble.as_ref();
        return Err(trouble.map_or_else(|| "it did not answer".to_owned(), |told| told.detail.clone()));
    };
    if Some(status.cluster_id) != cluster_id {
        return Err(format!(
            "it is of another cluster, {:x}: it was started as a new one, or restored apart from the others",
            status.cluster_id
        ));
    }
    if status.leader == 0 {
        return Err("it knows of no leader: it does not reach enough of the others".to_owned());
    }
    if leader.is_some_and(|leader| leader != status.leader) {
        return Err(format!("it holds {:x} for the leader", status.leader));
    }
    if in_list.is_none() && !list.is_empty() {
        return Err(format!(
            "{:x} is not in the list of members: it was removed",
            status.member_id
        ));
    }
    let corrupt = |(member, alarm): &&(u64, String)| *member == status.member_id && alarm == CORRUPT;
    if status.alarms.iter().any(|alarm| corrupt(&alarm)) {
        return Err("its data differs from that of the others (alarm CORRUPT)".to_owned());
    }
    Ok(())
}

/// Of those that answer, the one that has seen most: the highest term, then the highest index, then revision.
pub fn survivor(view: &View) -> Option<&Seen> {
    let ours = |seen: &&Seen| {
        seen.node.is_some()
            && !seen.is_learner
            && seen
                .status()
                .is_some_and(|status| Some(status.cluster_id) == view.cluster_id)
    };
    view.members.iter().filter(ours).max_by_key(|seen| {
        let status = seen.status();
        status.map(|status| (status.term, status.applied_index, status.revision))
    })
}

/// The age of the youngest verified snapshot of this cluster, milliseconds.
pub fn newest(view: &View) -> Option<u64> {
    let snapshots = view.members.iter().filter_map(|seen| seen.told.as_ref());
    snapshots
        .flat_map(|told| &told.snapshots)
        .filter(|snapshot| view.cluster_id.is_none_or(|id| id == snapshot.cluster_id))
        .map(|snapshot| snapshot.age_ms)
        .min()
}

#[cfg(test)]
mod tests;

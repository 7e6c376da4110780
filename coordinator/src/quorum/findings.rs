//! What a person should know of a cluster's etcd, the worst first. Pure.

use std::collections::BTreeSet;

use super::judge::{CORRUPT, Finding, Level, Seen, View, newest};
use super::spare::is_spare;
use super::told::Told;
use crate::inventory::NodeName;

/// A member that is so many revisions behind is told of. Members answer within the same second, so of a cluster that is busy the numbers
/// differ by what is written in that time.
const REVISIONS_BEHIND: u64 = 1000;
/// The same of Raft's log: half of what etcd keeps in memory for those who are behind (`--snapshot-catchup-entries`, 5000 in 3.4 and 3.5).
const INDICES_BEHIND: u64 = 2500;
/// A certificate that expires sooner is told of, seconds.
const EXPIRES_SOON: i64 = 30 * 86_400;
/// Without a younger snapshot it is told, milliseconds.
const SNAPSHOT_OLD: u64 = 24 * 3600 * 1000;
/// The alarm after which etcd takes no writes.
const NO_SPACE: &str = "NOSPACE";

/// All of it. `leaders`: whom members hold for the leader.
pub(super) fn findings(view: &View, leaders: &BTreeSet<u64>, now: i64) -> Vec<Finding> {
    let mut all = List::default();
    all.of_quorum(view, leaders);
    // Nothing is wrong with a node that is to have none.
    for seen in &view.members {
        let is_spare = is_spare(view, seen, None);
        if !is_spare {
            all.of_member(seen, view.has_quorum());
        }
        if let Some(told) = &seen.told {
            all.of_node(seen, told, now, is_spare);
        }
    }
    all.of_statuses(view);
    all.of_voters(view);
    all.of_snapshots(view);
    all.0.sort_by_key(|finding| finding.level);
    all.0
}

#[derive(Default)]
struct List(Vec<Finding>);

impl List {
    fn tell(&mut self, level: Level, node: Option<&NodeName>, text: impl Into<String>) {
        self.0.push(Finding {
            level,
            node: node.cloned(),
            text: text.into(),
        });
    }

    fn of_quorum(&mut self, view: &View, leaders: &BTreeSet<u64>) {
        let hex = |ids: &BTreeSet<u64>| {
            let ids: Vec<_> = ids.iter().map(|id| format!("{id:x}")).collect();
            ids.join(", ")
        };
        if view.cluster_id.is_none() {
            let text = "no member answers: nothing is known of who is in the cluster";
            self.tell(Level::Critical, None, text);
        } else if !view.has_quorum() {
            let text = format!("there is no quorum ({}): writes stand still", view.words());
            self.tell(Level::Critical, None, text);
        }
        if leaders.len() > 1 {
            let text = format!("members do not agree on who leads: {}", hex(leaders));
            self.tell(Level::Critical, None, text);
        }
        let ids = view
            .members
            .iter()
            .filter_map(|seen| Some(seen.status()?.cluster_id));
        let ids: BTreeSet<_> = ids.collect();
        if ids.len() > 1 {
            let text = format!("members are of different clusters: {}", hex(&ids));
            self.tell(Level::Critical, None, text);
        }
    }

    fn of_member(&mut self, seen: &Seen, has_quorum: bool) {
        let node = seen.node.as_ref();
        if let Err(why) = &seen.health {
            let level = if has_quorum {
                Level::Warning
            } else {
                Level::Critical
            };
            let whose = match node {
                Some(_) => String::new(),
                None => format!("{}: ", seen.words()),
            };
            self.tell(level, node, format!("{whose}{why}"));
        }
        if seen.revisions_behind > REVISIONS_BEHIND || seen.indices_behind > INDICES_BEHIND {
            let (revisions, indices) = (seen.revisions_behind, seen.indices_behind);
            let text = format!("it is {revisions} revisions and {indices} entries behind");
            self.tell(Level::Warning, node, text);
        }
    }

    fn of_node(&mut self, seen: &Seen, told: &Told, now: i64, is_spare: bool) {
        let node = seen.node.as_ref();
        certificates(told, now, |level, text| self.tell(level, node, text));
        let manifest = told.manifest.as_ref();
        let set_aside = manifest.and_then(|manifest| manifest.set_aside_by.as_ref());
        if let Some(run) = set_aside.filter(|_| !is_spare) {
            let text = format!(
                "its manifest of etcd is set aside by run {run}: blackstart runbook plan etcd-member brings it back into the cluster"
            );
            self.tell(Level::Warning, node, text);
        }
        if !told.stopped.is_empty() {
            let text = format!("set aside by a run: {}", told.stopped.join(", "));
            self.tell(Level::Warning, node, text);
        }
        if let Some(why) = &told.snapshot_trouble {
            self.tell(
                Level::Warning,
                node,
                format!("its snapshots are not known: {why}"),
            );
        }
    }

    fn of_statuses(&mut self, view: &View) {
        let statuses = || view.members.iter().filter_map(Seen::status);
        let alarms: BTreeSet<_> = statuses().flat_map(|status| &status.alarms).collect();
        for (member, alarm) in alarms {
            let seen = view.member(*member);
            let whose = seen.map_or_else(|| format!("member {member:x}"), Seen::words);
            let help = match alarm.as_str() {
                NO_SPACE => {
                    ": writes are refused; compact, defragment each member, then etcdctl alarm disarm (or raise --quota-backend-bytes)"
                }
                CORRUPT => {
                    ": its data differs from the others'; replace it (blackstart runbook plan etcd-member NODE)"
                }
                _ => "",
            };
            self.tell(Level::Critical, None, format!("alarm {alarm} of {whose}{help}"));
        }
        let versions: BTreeSet<_> = statuses().map(|status| status.version.as_str()).collect();
        if versions.len() > 1 {
            let versions: Vec<_> = versions.into_iter().collect();
            let text = format!("members are of different versions: {}", versions.join(", "));
            self.tell(Level::Warning, None, text);
        }
    }

    fn of_voters(&mut self, view: &View) {
        let voters = view.voters();
        if voters > 0 && voters.is_multiple_of(2) {
            let text = format!(
                "{voters} voters bear the loss of no more than {} would",
                voters - 1
            );
            self.tell(Level::Warning, None, text);
        }
        for learner in view.members.iter().filter(|seen| seen.is_learner) {
            let text = format!("{} is a learner: it does not vote yet", learner.words());
            self.tell(Level::Warning, None, text);
        }
    }

    fn of_snapshots(&mut self, view: &View) {
        match newest(view) {
            None if view.cluster_id.is_some() => {
                let text = "no agent has a snapshot of this cluster: blackstart etcd snapshot take";
                self.tell(Level::Warning, None, text);
            }
            Some(age) if age > SNAPSHOT_OLD => {
                let hours = age / 3_600_000;
                let text = format!("the last snapshot is {hours} h old: blackstart etcd snapshot take");
                self.tell(Level::Warning, None, text);
            }
            Some(_) | None => {}
        }
    }
}

fn certificates(told: &Told, now: i64, mut tell: impl FnMut(Level, String)) {
    for certificate in &told.certificates {
        let (path, left) = (&certificate.path, certificate.not_after_unix - now);
        if let Some(why) = &certificate.trouble {
            tell(Level::Critical, format!("{path} cannot be used: {why}"));
        } else if certificate.expired {
            let at = jiff::Timestamp::from_second(certificate.not_after_unix);
            let at = at.map_or_else(|_| "some time ago".to_owned(), |at| at.to_string());
            tell(
                Level::Critical,
                format!(
                    "{path} has expired, at {at}: renew it (kubeadm certs renew all, then bounce etcd), and compare the clocks first"
                ),
            );
        } else if certificate.not_after_unix != 0 && left < EXPIRES_SOON {
            tell(
                Level::Warning,
                format!("{path} expires in {} days", left.max(0) / 86_400),
            );
        }
    }
}

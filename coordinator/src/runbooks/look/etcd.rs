//! The steps that are about etcd: each begins with what the agents of the masters tell now, and asks for no change that is made already or
//! may not be made.

use std::time::Duration;

use super::super::call::Call;
use super::super::etcd_newcomer;
use super::super::plan::{Replaced, Runbook};
use super::super::waiting::WaitingOn;
use super::super::world::{Agent, seconds};
use super::{At, Look};
use crate::fleet::{Answer, EtcdAct};
use crate::inventory::NodeName;
use crate::quorum::change::{in_sync, may_add, may_promote, may_remove};
use crate::quorum::judge::{Seen, View, newest};

/// What was told longer ago is not acted on. Agents are asked each second, and answer within five.
const FRESH: Duration = Duration::from_secs(10);
/// A snapshot of this run is no older, milliseconds: long enough for a large one to be written.
const TAKEN_LATELY: u64 = 30 * 60 * 1000;
/// Nobody is taken out of a cluster whose youngest snapshot is older than this, milliseconds: an approval may come late.
const SAFE: u64 = 60 * 60 * 1000;

impl At<'_> {
    /// By what is told now.
    pub(super) fn of_etcd(&self, look: impl FnOnce(&Self, &View) -> Look) -> Look {
        match &self.world.etcd {
            Some(glance) if self.world.now.saturating_duration_since(glance.at) <= FRESH => {
                look(self, &glance.view)
            }
            Some(_) | None => Look::Wait(WaitingOn::Etcd(
                "what the agents of the masters tell of etcd".to_owned(),
            )),
        }
    }

    /// The same, about the member that the plan replaces, while a quorum of its cluster is seen: who is not in a list that nobody vouches for may
    /// be a member all the same.
    pub(super) fn of_member(&self, look: impl FnOnce(&Self, &View, &Replaced) -> Look) -> Look {
        self.of_planned(|at, view, replaced| {
            if view.has_quorum() && view.cluster_id == Some(replaced.cluster_id) {
                return look(at, view, replaced);
            }
            Look::Wait(WaitingOn::Etcd(format!(
                "a quorum of cluster {:x} whose agents answer: {}",
                replaced.cluster_id,
                view.words()
            )))
        })
    }

    /// The same, unless the member was well again and was kept: then nothing is put in its place on another node.
    pub(super) fn of_successor(&self, look: impl FnOnce(&Self, &View, &Replaced) -> Look) -> Look {
        self.of_member(|at, view, replaced| match at.was_kept() {
            Some(kept) => Look::Done(kept),
            None => look(at, view, replaced),
        })
    }

    /// That the member which was to be replaced on another node is one still, in words.
    pub(super) fn was_kept(&self) -> Option<String> {
        let replaced = self.context.plan.etcd.as_ref();
        let replaced = replaced.filter(|replaced| replaced.newcomer.is_some())?;
        let kept = kept(&self.world.etcd.as_ref()?.view, replaced)?;
        Some(format!("{} was kept: nothing takes its place", kept.words()))
    }

    /// Whatever stands.
    fn of_planned(&self, look: impl FnOnce(&Self, &View, &Replaced) -> Look) -> Look {
        match &self.context.plan.etcd {
            Some(replaced) => self.of_etcd(|at, view| look(at, view, replaced)),
            None => Look::Failed("the plan does not say which member it is about".to_owned()),
        }
    }

    /// Why the node that is to have the member from now on is not as it was planned on, if it is another one: an approval may come late.
    fn is_unready(&self, view: &View) -> Option<String> {
        self.context.plan.etcd.as_ref()?.newcomer.as_ref()?;
        let own = &self.context.request.node;
        let on = self.context.request.options.on.as_ref().unwrap_or(own);
        let seen = view.on(on)?;
        if on == own {
            let is_gone = etcd_newcomer::is_gone(seen);
            return (!is_gone).then(|| {
                format!("{on} to have no manifest of etcd, as when this was planned: abort, and plan anew")
            });
        }
        if let Some(Agent::Speaks {
            kubelet_healthy: false,
            ..
        }) = self.world.masters.get(on)
        {
            return Some(format!("the kubelet of {on} to be healthy"));
        }
        etcd_newcomer::takes(view, seen, self.world.addresses.get(on).copied()).err()
    }

    /// The agents were asked before it was this step's turn.
    fn is_older_than_turn(&self) -> bool {
        let glance = self.world.etcd.as_ref();
        glance.is_some_and(|glance| glance.at < self.turn)
    }

    /// On which node the step is done.
    fn on(&self) -> &NodeName {
        self.step.on.as_ref().unwrap_or(&self.world.node)
    }

    pub(super) fn snapshot(&self, view: &View) -> Look {
        if let Some((Answer::Done, detail, _)) = &self.progress.heard {
            return Look::Done(detail.clone());
        }
        let kept = view
            .on(self.on())
            .and_then(|seen| seen.told.as_ref())
            .and_then(|told| told.snapshots.first());
        if let Some(kept) = kept
            && self.progress.begun
            && Some(kept.cluster_id) == view.cluster_id
            && kept.age_ms < TAKEN_LATELY
        {
            return Look::Done(format!("{}, revision {}", kept.file, kept.revision));
        }
        self.tell(EtcdAct::TakeSnapshot, "take a snapshot")
    }

    pub(super) fn bounce(&self, view: &View) -> Look {
        if let Some(seen) = view.on(self.on())
            && seen.health.is_ok()
        {
            return Look::Done(format!("{} is well", seen.words()));
        }
        match &self.progress.heard {
            // Whether it helped is seen above, once the member was asked after the bounce; one that is well may need a leader first.
            Some((answer @ (Answer::Done | Answer::Failed | Answer::Refused), detail, at)) => {
                let since = self.world.now.saturating_duration_since(*at);
                let is_asked = self.world.etcd.as_ref().is_some_and(|glance| glance.at > *at);
                if !is_asked || (*answer == Answer::Done && since < FRESH) {
                    Look::Wait(WaitingOn::Etcd(
                        "the member to be well after the bounce".to_owned(),
                    ))
                } else {
                    Look::Done(format!("it is not back in place: {detail}"))
                }
            }
            Some((Answer::RefusedEpoch, ..)) | None => self.tell(EtcdAct::Bounce, "bounce etcd"),
        }
    }

    pub(super) fn remove_member(&self, view: &View, replaced: &Replaced) -> Look {
        let lost = replaced.member_id.and_then(|id| view.member(id));
        let Some(lost) = lost else {
            return Look::Done("it is in the list of members no more".to_owned());
        };
        if lost.health.is_ok() {
            return Look::Done(format!("{} is well again, and is kept", lost.words()));
        }
        let Some(id) = lost.id else {
            return Look::Done("it is in the list of members no more".to_owned());
        };
        if let Some(why) = self.is_unready(view) {
            return Look::Wait(WaitingOn::Etcd(why));
        }
        match newest(view) {
            Some(age) if age <= SAFE => {}
            // The steps before this one may have taken one since.
            Some(_) | None if self.is_older_than_turn() => {
                return Look::Wait(WaitingOn::Etcd(
                    "what the agents tell of their snapshots".to_owned(),
                ));
            }
            Some(age) => {
                return Look::Failed(format!(
                    "the youngest snapshot is {} old: abort, and begin anew with a fresh one",
                    seconds(Duration::from_millis(age))
                ));
            }
            None => return Look::Failed("no agent has a snapshot of this cluster any more".to_owned()),
        }
        match may_remove(view, id) {
            Err(why) => Look::Wait(WaitingOn::Etcd(why)),
            Ok(_) => self.tell(EtcdAct::RemoveMember { id }, "remove the member"),
        }
    }

    pub(super) fn add_member(&self, view: &View, replaced: &Replaced) -> Look {
        if let Some(seen) = of_address(view, replaced) {
            return Look::Done(format!(
                "{:x} is a {} with its address",
                seen.id.unwrap_or_default(),
                kind(seen)
            ));
        }
        match may_add(view, replaced.learner) {
            Err(why) => Look::Wait(WaitingOn::Etcd(why)),
            Ok(_) => self.tell(
                EtcdAct::AddMember {
                    peer_urls: replaced.peer_urls.clone(),
                    learner: replaced.learner,
                },
                "add the member",
            ),
        }
    }

    pub(super) fn rebuild_member(&self, view: &View, replaced: &Replaced) -> Look {
        let Some(seen) = of_address(view, replaced) else {
            return Look::Failed("no member has its address: it was taken out again meanwhile".to_owned());
        };
        let answers = seen.status().is_some_and(|status| {
            Some(status.member_id) == seen.id && Some(status.cluster_id) == view.cluster_id
        });
        if answers {
            return Look::Done(format!(
                "{} runs as {:x}",
                seen.words(),
                seen.id.unwrap_or_default()
            ));
        }
        // A voter that forgets what it has acknowledged may elect a leader that never knew it. One that has a name has run.
        let has_voted = replaced.learner && seen.votes() && !seen.name.is_empty();
        if seen.id == replaced.member_id || has_voted {
            return Look::Failed(format!(
                "{:x} votes with the data that it had: it is not set aside before it is taken out of the cluster",
                seen.id.unwrap_or_default()
            ));
        }
        self.tell(
            EtcdAct::Rebuild {
                initial_cluster: replaced.initial_cluster.clone(),
                needs_bytes: replaced.needs_bytes,
                manifest: replaced.newcomer.clone(),
            },
            "rebuild the member",
        )
    }

    /// Who was replaced on another node is not to be started again and again: it finds itself removed each time.
    pub(super) fn fence_removed(&self, _view: &View, _replaced: &Replaced) -> Look {
        if let Some((Answer::Done, detail, _)) = &self.progress.heard {
            return Look::Done(detail.clone());
        }
        if let Agent::Silent { .. } = self.world.agent {
            return Look::Done(format!(
                "{}: it finds itself removed when it comes back, and ends",
                self.world.agent_words()
            ));
        }
        self.tell(EtcdAct::Fence, "fence etcd")
    }

    pub(super) fn await_sync(view: &View, replaced: &Replaced) -> Look {
        let Some(seen) = of_address(view, replaced) else {
            return Look::Failed("no member has its address any more".to_owned());
        };
        match in_sync(view, seen) {
            Ok(evidence) => Look::Done(evidence),
            Err(why) => Look::Wait(WaitingOn::Etcd(why)),
        }
    }

    pub(super) fn promote_member(&self, view: &View, replaced: &Replaced) -> Look {
        let Some(seen) = of_address(view, replaced) else {
            return Look::Failed("no member has its address any more".to_owned());
        };
        let Some(id) = seen.id.filter(|_| seen.is_learner) else {
            return Look::Done(format!("{} votes", seen.words()));
        };
        match may_promote(view, id) {
            Err(why) => Look::Wait(WaitingOn::Etcd(why)),
            Ok(_) => self.tell(EtcdAct::PromoteMember { id }, "promote the member"),
        }
    }

    pub(super) fn set_initial_cluster(&self, view: &View, replaced: &Replaced) -> Look {
        let node = self.on();
        let Some(change) = replaced.others.iter().find(|change| change.node == *node) else {
            return Look::Failed("the plan does not say what it is to be".to_owned());
        };
        if let Some(kept) = kept(view, replaced) {
            return Look::Done(format!("{} was kept: the lists are as they were", kept.words()));
        }
        let Some(seen) = view.on(node) else {
            return Look::Failed(format!("{node} has no member any more"));
        };
        let manifest = seen.told.as_ref().and_then(|told| told.manifest.as_ref());
        if manifest.is_some_and(|manifest| manifest.initial_cluster == change.to) && seen.health.is_ok() {
            let said = self
                .progress
                .heard
                .as_ref()
                .map(|(_, detail, _)| format!(": {detail}"));
            return Look::Done(format!("it says so, and is well{}", said.unwrap_or_default()));
        }
        // One that is away already is not missed more.
        let asked = self.progress.attempts > self.progress.forgiven;
        if seen.health.is_ok() && !asked && view.healthy() <= view.quorum() {
            return Look::Wait(WaitingOn::Etcd(format!(
                "one more member to be well, so that {} may be away: {}",
                seen.words(),
                view.words()
            )));
        }
        let act = EtcdAct::SetInitialCluster {
            from: change.from.clone(),
            to: change.to.clone(),
        };
        self.tell(act, "write its manifest anew")
    }

    pub(super) fn await_etcd(&self, view: &View) -> Look {
        if let Some(replaced) = &self.context.plan.etcd
            && let Some(seen) = self.answers_again(view, replaced)
        {
            return Look::Done(seen);
        }
        // Those that were fenced before it came back by itself join anew by another run.
        if self.context.request.runbook == Runbook::EtcdQuorum
            && let Some(replaced) = &self.context.plan.etcd
            && view.has_quorum()
            && view.cluster_id == Some(replaced.cluster_id)
        {
            return Look::Done(format!(
                "the quorum is back: {}; who is not well joins anew by blackstart runbook run etcd-member NODE",
                view.words()
            ));
        }
        if view.has_quorum()
            && view.healthy() == view.voters()
            && view.members.iter().all(|seen| !seen.is_learner)
        {
            return Look::Done(view.words());
        }
        let why = view.members.iter().find_map(|seen| {
            let why = seen.health.as_ref().err()?;
            Some(format!(" ({}: {why})", seen.words()))
        });
        Look::Wait(WaitingOn::Etcd(format!(
            "every member to be well: {}{}",
            view.words(),
            why.unwrap_or_default()
        )))
    }

    /// What is only done while the cluster that was planned for has no quorum: one that came back by itself is left alone.
    pub(super) fn without_quorum(&self, act: EtcdAct, name: &'static str) -> Look {
        self.of_planned(|at, view, replaced| {
            if let Some((Answer::Done, detail, _)) = &at.progress.heard {
                return Look::Done(detail.clone());
            }
            if view.has_quorum() && view.cluster_id == Some(replaced.cluster_id) {
                return Look::Done(format!("the quorum is back: {}", view.words()));
            }
            if let Some(seen) = at.answers_again(view, replaced) {
                return Look::Done(format!("nothing is restored: {seen}"));
            }
            at.tell(act, name)
        })
    }

    /// A member of a cluster of which nobody answered when it was planned.
    fn answers_again(&self, view: &View, replaced: &Replaced) -> Option<String> {
        replaced.out_of.as_ref()?;
        let cluster = view.cluster_id?;
        let is_old =
            cluster == replaced.cluster_id || (replaced.cluster_id == 0 && self.progress.attempts == 0);
        let seen = view.members.iter().find(|seen| seen.status().is_some())?;
        is_old.then(|| {
            format!(
                "{} answers again: blackstart runbook run etcd-quorum --cluster {} goes on from it, if that is not enough",
                seen.words(),
                self.world.cluster
            )
        })
    }

    pub(super) fn restore_etcd(&self) -> Look {
        let replaced = self.context.plan.etcd.as_ref();
        let act = EtcdAct::Restore {
            version: replaced
                .map(|replaced| replaced.version.clone())
                .unwrap_or_default(),
            out_of: replaced.and_then(|replaced| replaced.out_of.clone()),
        };
        self.without_quorum(act, "restore etcd")
    }

    pub(super) fn start_control_plane(&self) -> Look {
        if let Some((Answer::Done, detail, _)) = &self.progress.heard {
            return Look::Done(detail.clone());
        }
        self.tell(EtcdAct::StartControlPlane, "start the control plane")
    }

    /// Sends it to the agent of the step's node.
    #[allow(clippy::needless_pass_by_value, reason = "each is made for the call")]
    fn tell(&self, act: EtcdAct, name: &'static str) -> Look {
        self.command(
            name,
            |attempt| Call::Etcd {
                attempt,
                act: act.clone(),
            },
            |detail| WaitingOn::Etcd(format!("it to be seen: {name} was answered done ({detail})")),
        )
    }
}

/// The member that was to be replaced, where it is one still.
fn kept<'a>(view: &'a View, replaced: &Replaced) -> Option<&'a Seen> {
    replaced.member_id.and_then(|id| view.member(id))
}

/// The member that has the address of the one that the plan replaces.
fn of_address<'a>(view: &'a View, replaced: &Replaced) -> Option<&'a Seen> {
    let has = |seen: &&Seen| seen.peer_urls.iter().any(|url| replaced.peer_urls.contains(url));
    view.members.iter().filter(|seen| seen.id.is_some()).find(has)
}

fn kind(seen: &Seen) -> &'static str {
    if seen.is_learner { "learner" } else { "voter" }
}

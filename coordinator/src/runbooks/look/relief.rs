//! The step that moves the heaviest pods away, one after the other. Pure.
//!
//! What was evicted is known from the journal: each pod is noted before it is asked to go, with how many pods of its controller were
//! ready. So after a crash as before it nothing more is evicted until as many are ready again.

use super::super::call::Call;
use super::super::journal::Memo;
use super::super::overload::{self, Load};
use super::super::waiting::WaitingOn;
use super::super::world::{ApiView, seconds};
use super::{At, Look, NOT_SEEN};
use crate::kubernetes::calls::{ApiCall, Target};

impl At<'_> {
    pub(super) fn relieve(&self, view: &ApiView) -> Look {
        if let Some(waiting) = self.unsettled(view) {
            return Look::Wait(waiting);
        }
        let request = self.context.request;
        let moved = self.moved(view);
        match overload::load(self.world, request) {
            Load::NotKnown(why) => Look::Wait(WaitingOn::Load(why)),
            Load::Under { since: None, words } => Look::Done(format!("{words}; {moved} pods were moved")),
            Load::Under {
                since: Some(since),
                words,
            } => {
                let hold = overload::hold(request);
                // Of what was measured before the last pod went nothing counts.
                let since = self.progress.acted.map_or(since, |acted| since.max(acted));
                if self.world.now.saturating_duration_since(since) >= hold {
                    Look::Done(format!("{words}, for {}; {moved} pods were moved", seconds(hold)))
                } else {
                    Look::Wait(WaitingOn::Load(format!(
                        "the load to stay low: {words}, {}",
                        overload::held_words(since, hold, self.world.now)
                    )))
                }
            }
            Load::Over(over) => {
                let settle = self.world.timing.settle;
                let acted = self
                    .progress
                    .acted
                    .map(|acted| self.world.now.saturating_duration_since(acted));
                if acted.is_some_and(|acted| acted < settle) {
                    return Look::Wait(WaitingOn::Load(format!(
                        "what the last eviction did to the load, {} after it",
                        seconds(settle)
                    )));
                }
                self.evict_one(view, &over, moved)
            }
        }
    }

    /// So many of the noted pods are gone.
    fn moved(&self, view: &ApiView) -> usize {
        let notes = self.progress.notes.iter();
        notes
            .filter(|memo| view.pods.iter().all(|pod| pod.uid != memo.uid))
            .count()
    }

    /// What an earlier eviction still waits for.
    fn unsettled(&self, view: &ApiView) -> Option<WaitingOn> {
        for memo in &self.progress.notes {
            match view.pods.iter().find(|pod| pod.uid == memo.uid) {
                Some(pod) if pod.is_deleting => {
                    return Some(WaitingOn::Pods(format!("pod {} to be gone", memo.pod)));
                }
                // It was asked for and its cache has not seen it; or it was not, and is one of those to choose from.
                Some(_) => {
                    let target = Target::Pod(memo.uid.clone());
                    let refused = self.progress.refused.get(&target);
                    if refused.is_some_and(|(until, why)| *until > self.world.now && why == NOT_SEEN) {
                        return Some(WaitingOn::Pods(format!("pod {} to go", memo.pod)));
                    }
                }
                None => {
                    let Some(all) = self.world.around.controllers() else {
                        return Some(WaitingOn::Api("the pods of the cluster are not known".to_owned()));
                    };
                    let key = (memo.pod.namespace.clone(), memo.controller.clone());
                    let tally = all.get(&key).copied().unwrap_or_default();
                    // A controller that has no pod any more was scaled down or replaced, and by somebody else.
                    if tally.pods > 0 && tally.ready < memo.ready {
                        return Some(WaitingOn::Pods(format!(
                            "{} of namespace {} to be as ready as before pod {} was evicted: {} of {}{}",
                            memo.controller,
                            memo.pod.namespace,
                            memo.pod.name,
                            tally.ready,
                            memo.ready,
                            if tally.waiting > 0 {
                                format!("; {} find no node", tally.waiting)
                            } else {
                                String::new()
                            }
                        )));
                    }
                }
            }
        }
        None
    }

    fn evict_one(&self, view: &ApiView, over: &overload::Over, moved: usize) -> Look {
        let request = self.context.request;
        let Some(version) = &view.can.eviction else {
            return Look::Failed(format!(
                "the cluster ({}) serves no eviction API",
                view.can.version
            ));
        };
        let Some(controllers) = self.world.around.controllers() else {
            return Look::Wait(WaitingOn::Api("the pods of the cluster are not known".to_owned()));
        };
        let most = overload::at_most(request);
        if moved >= most {
            return Look::Failed(format!(
                "{moved} pods were moved, which is all that this run may, and it is still too much: {}; another run may move more",
                over.words
            ));
        }
        let heaviest = overload::heaviest(self.world, view, request, over.presses);
        if heaviest.is_empty() {
            return Look::Failed(format!(
                "no pod is left that may be moved, and it is still too much: {}",
                over.words
            ));
        }
        let mut held = Vec::new();
        for heavy in heaviest {
            let pod = heavy.pod;
            let call = ApiCall::Evict {
                pod: pod.key.clone(),
                uid: pod.uid.clone(),
                version: version.clone(),
            };
            if let Some((until, why)) = self.progress.refused.get(&call.target())
                && *until > self.world.now
            {
                held.push(format!("{}: {why}", pod.key));
                continue;
            }
            let controller = pod.controller.clone().unwrap_or_default();
            let key = (pod.key.namespace.clone(), controller.clone());
            let tally = controllers.get(&key).copied().unwrap_or_default();
            let mut calls = Vec::new();
            if !self.progress.notes.iter().any(|memo| memo.uid == pod.uid) {
                calls.push(Call::Note(Memo {
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                    controller,
                    ready: tally.ready,
                }));
            }
            calls.push(Call::Api(call));
            return Look::Do(
                calls,
                WaitingOn::Pods(format!("pod {} to go: it {}", pod.key, heavy.words)),
            );
        }
        Look::Wait(WaitingOn::Pods(format!(
            "budgets of the pods that may be moved: {}",
            held.join("; ")
        )))
    }
}

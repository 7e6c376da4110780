//! The steps that move pods and volumes away. Pure.

use super::super::call::Call;
use super::super::node_down::{NotDead, dead};
use super::super::pods;
use super::super::waiting::WaitingOn;
use super::super::world::ApiView;
use super::{At, Look};
use crate::kubernetes::calls::ApiCall;

/// So many calls of a step are sent at a time: an API server that has just come back has enough to do.
const AT_ONCE: usize = 10;

impl At<'_> {
    pub(super) fn drain(&self, view: &ApiView) -> Look {
        let here: Vec<_> = pods::going(view, self.context.request).collect();
        if here.is_empty() {
            return Look::Done("none of its pods that were to go is left".to_owned());
        }
        let Some(version) = &view.can.eviction else {
            return Look::Failed(format!(
                "the cluster ({}) serves no eviction API",
                view.can.version
            ));
        };
        let now = self.world.now;
        let (mut calls, mut held) = (Vec::new(), Vec::new());
        for pod in &here {
            if pod.is_deleting {
                continue;
            }
            let call = ApiCall::Evict {
                pod: pod.key.clone(),
                uid: pod.uid.clone(),
                version: version.clone(),
            };
            match self.progress.refused.get(&call.target()) {
                Some((until, why)) if *until > now => held.push(format!("{}: {why}", pod.key)),
                Some(_) | None if calls.len() < AT_ONCE => calls.push(Call::Api(call)),
                Some(_) | None => {}
            }
        }
        let mut words = format!("{} to go", pods::names(here));
        if let Some(first) = held.first() {
            words = format!("{words}; {first}");
        }
        let waiting = WaitingOn::Pods(words);
        if calls.is_empty() {
            Look::Wait(waiting)
        } else {
            Look::Do(calls, waiting)
        }
    }

    pub(super) fn delete_remaining(&self, view: &ApiView) -> Look {
        let here: Vec<_> = pods::going(view, self.context.request).collect();
        if here.is_empty() {
            return Look::Done("nothing remains of its pods".to_owned());
        }
        let calls = here.iter().filter(|pod| !pod.is_deleting);
        let calls = calls.map(|pod| ApiCall::DeletePod {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            force: false,
        });
        self.several(
            calls,
            &format!("{} to be deleted", pods::names(here.iter().copied())),
        )
    }

    pub(super) fn force_delete(&self, view: &ApiView) -> Look {
        let here: Vec<_> = pods::movable(view).collect();
        if here.is_empty() && view.attachments.is_empty() {
            return Look::Done("its pods and volume attachments are gone".to_owned());
        }
        if let Some(look) = self.unless_dead_and_off("nothing is deleted by force") {
            return look;
        }
        let words = format!(
            "{} and {} volumes",
            pods::names(here.iter().copied()),
            view.attachments.len()
        );
        if here.is_empty() {
            // A volume goes only once nothing on the node can be said to use it.
            let calls = view
                .attachments
                .iter()
                .filter(|attachment| !attachment.is_deleting);
            let calls = calls.map(|attachment| ApiCall::DeleteAttachment {
                name: attachment.name.clone(),
                uid: attachment.uid.clone(),
            });
            return self.several(calls, &words);
        }
        let calls = here.iter().map(|pod| ApiCall::DeletePod {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            force: true,
        });
        self.several(calls, &words)
    }

    /// What was planned for a dead node is not done to one that lives; who has just begun to watch waits.
    pub(super) fn unless_dead(&self, what: &str) -> Option<Look> {
        match dead(self.world) {
            Ok(_) => None,
            Err(NotDead::Lives(why)) => Some(Look::Failed(format!("{what}: {why}"))),
            Err(NotDead::NotKnown(why)) => Some(Look::Wait(WaitingOn::Api(why))),
        }
    }

    pub(super) fn several(&self, calls: impl Iterator<Item = ApiCall>, words: &str) -> Look {
        let now = self.world.now;
        let mut held = None;
        let calls = calls.filter(|call| match self.progress.refused.get(&call.target()) {
            Some((until, why)) if *until > now => {
                held.get_or_insert_with(|| why.clone());
                false
            }
            Some(_) | None => true,
        });
        let calls: Vec<_> = calls.take(AT_ONCE).map(Call::Api).collect();
        let waiting = WaitingOn::Pods(held.map_or_else(|| words.to_owned(), |why| format!("{words}: {why}")));
        if calls.is_empty() {
            Look::Wait(waiting)
        } else {
            Look::Do(calls, waiting)
        }
    }
}

pub(super) fn await_moved(view: &ApiView) -> Look {
    let here: Vec<_> = pods::movable(view).collect();
    if here.is_empty() && view.attachments.is_empty() {
        return Look::Done("its pods and volumes are gone from it".to_owned());
    }
    let volumes = view.attachments.len();
    Look::Wait(WaitingOn::Pods(format!(
        "{} and {volumes} volumes to leave it",
        pods::names(here)
    )))
}

//! The steps that wait for pods to run and for space to be given back. They change nothing. Pure.

use super::super::plan::Named;
use super::super::shortage::explain;
use super::super::waiting::WaitingOn;
use super::{At, Look};
use crate::kubernetes::objects::{Pod, PodPhase};
use crate::kubernetes::view::Room;

/// So many are named in what is waited for.
const SHOWN: usize = 3;

impl At<'_> {
    pub(super) fn await_reclaim(&self) -> Look {
        let about = &self.context.request.node;
        let mut words = Vec::new();
        for one in &self.world.around.pressed {
            // Whom nobody can help is told in the plan's refusals, and not waited for.
            if (about.0.is_empty() || one.node == *about) && one.speaks && one.silenced_by.is_none() {
                words.push(format!("{}: {}", one.node, one.words));
            }
        }
        if words.is_empty() {
            return Look::Done("no disk is short any more where an agent can help".to_owned());
        }
        Look::Wait(WaitingOn::Space(format!(
            "space to be given back: {}",
            words.join("; ")
        )))
    }

    pub(super) fn await_running(&self) -> Look {
        let room = match &self.world.around.room {
            Ok(room) => room,
            Err(why) => return Look::Wait(WaitingOn::Api(why.clone())),
        };
        let pods = &self.context.plan.pods;
        let (mut running, mut words) = (0, Vec::new());
        for named in pods {
            match stands(named, room) {
                Stands::Runs => running += 1,
                Stands::Gone => {}
                Stands::Waits(why) => words.push(why),
            }
        }
        if words.is_empty() {
            return Look::Done(match pods.len() - running {
                0 => format!("all of {running} pods run"),
                gone => format!(
                    "{running} pods run; {gone} are gone, and nothing that was made in their place waits for a node"
                ),
            });
        }
        let more = words.len().saturating_sub(SHOWN);
        words.truncate(SHOWN);
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        Look::Wait(WaitingOn::Pods(format!("pods to run: {}", words.join("; "))))
    }

    pub(super) fn await_workloads(&self) -> Look {
        let Some(before) = &self.context.plan.readiness else {
            return Look::Failed("the plan does not say how ready it was".to_owned());
        };
        let told = &self.world.around.workloads;
        match told.within(self.world.timing.fresh, self.world.now) {
            Err(why) => Look::Wait(WaitingOn::Api(why)),
            Ok(now) => {
                let compared = before.compare(now);
                if compared.missing.is_empty() {
                    Look::Done(format!("as many pods are ready as before: {}", compared.spaces()))
                } else {
                    Look::Wait(WaitingOn::Pods(format!(
                        "what did not start: {} ({})",
                        compared.words(),
                        compared.spaces()
                    )))
                }
            }
        }
    }
}

enum Stands {
    Runs,
    /// And nothing in its place waits for a node.
    Gone,
    /// For this.
    Waits(String),
}

fn stands(named: &Named, room: &Room) -> Stands {
    match room.named.get(&named.uid) {
        Some(pod) if pod.phase == PodPhase::Running => return Stands::Runs,
        Some(pod) if !pod.node.is_empty() => {
            return Stands::Waits(format!("{} is {:?} on {}", pod.key, pod.phase, pod.node));
        }
        Some(_) | None => {}
    }
    let is_it = |pod: &Pod| {
        pod.uid == named.uid
            || (named.controller.is_some()
                && pod.controller == named.controller
                && pod.key.namespace == named.pod.namespace)
    };
    match room.waiting.iter().find(|waiting| is_it(&waiting.pod)) {
        Some(waiting) => Stands::Waits(format!(
            "{}: {}",
            waiting.pod.key,
            explain(&waiting.pod, room).words()
        )),
        None => Stands::Gone,
    }
}

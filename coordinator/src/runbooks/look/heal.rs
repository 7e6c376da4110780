//! The steps that mend pods and workloads. Pure.

use super::super::case::{Case, Wellness};
use super::super::mends::{BEFORE, CHANGED_BY, Chosen, Memory, TemplateMend};
use super::super::node_down::NotDead;
use super::super::waiting::WaitingOn;
use super::super::world::seconds;
use super::{At, Look};
use crate::kubernetes::calls::{ApiCall, TemplateChange};
use crate::kubernetes::detail::{Workload, restarted_at};

/// How a template stands, of two ways that it may.
enum Stands {
    /// As it is going to be.
    Done,
    /// As it was.
    Open,
    /// Otherwise: somebody else changed it.
    Otherwise(String),
}

impl At<'_> {
    pub(super) fn of_case(&self, look: impl FnOnce(&Self, &Case) -> Look) -> Look {
        match &self.world.case {
            Some(Ok(case)) => look(self, case),
            Some(Err(why)) => Look::Wait(WaitingOn::Api(why.clone())),
            None => Look::Wait(WaitingOn::Api("its pods are not read yet".to_owned())),
        }
    }

    pub(super) fn recreate(&self, case: &Case) -> Look {
        let here: Vec<_> = self
            .context
            .mends
            .pods
            .iter()
            .filter_map(|chosen| case.pod(&chosen.pod, &chosen.uid).map(|pod| (chosen, pod)))
            // What serves by now is left alone.
            .filter(|(_, pod)| pod.deleted.is_some() || !pod.is_ready)
            .collect();
        if here.is_empty() {
            return Look::Done("each of the pods is gone, or serves by now".to_owned());
        }
        let calls = here.iter().filter(|(_, pod)| pod.deleted.is_none());
        let calls = calls.map(|(chosen, _)| delete(chosen, false));
        self.several(
            calls,
            &format!(
                "{} to be made again",
                names(here.iter().map(|(chosen, _)| *chosen))
            ),
        )
    }

    pub(super) fn finish_termination(&self, case: &Case) -> Look {
        let here: Vec<_> = self
            .context
            .mends
            .stuck
            .iter()
            .filter(|chosen| case.pod(&chosen.pod, &chosen.uid).is_some())
            .collect();
        if here.is_empty() {
            return Look::Done("none of the pods is left".to_owned());
        }
        for chosen in &here {
            match case.down.get(&chosen.node) {
                Some(Ok(_)) => {}
                Some(Err(NotDead::Lives(why))) => {
                    return Look::Failed(format!("pod {} is not deleted by force: {why}", chosen.pod));
                }
                Some(Err(NotDead::NotKnown(why))) => return Look::Wait(WaitingOn::Api(why.clone())),
                None => {
                    return Look::Wait(WaitingOn::Api(format!("nothing is known of {}", chosen.node)));
                }
            }
        }
        let calls = here.iter().map(|chosen| delete(chosen, true));
        self.several(calls, &format!("{} to be gone", names(here.iter().copied())))
    }

    /// Templates as they are going to be; or, going back, as they were.
    pub(super) fn templates(&self, case: &Case, which: fn(&TemplateMend) -> bool) -> Look {
        self.templates_to(case, which, false)
    }

    pub(super) fn restore(&self, case: &Case) -> Look {
        // An undo goes back from what the run changed; a rollback goes on to what was before.
        self.templates_to(case, |_| true, self.context.undoing)
    }

    fn templates_to(&self, case: &Case, which: fn(&TemplateMend) -> bool, back: bool) -> Look {
        let mut calls = Vec::new();
        let mut otherwise = Vec::new();
        for mend in self.context.mends.templates.iter().filter(|mend| which(mend)) {
            let found = case
                .workload(&mend.workload)
                .filter(|workload| workload.uid == mend.uid);
            let Some(workload) = found else {
                if back {
                    continue;
                }
                return Look::Failed(format!("{} is gone, or is another by now", mend.workload));
            };
            let memory = memory_stands(mend, workload, back);
            let tolerations = tolerations_stand(mend, workload, back);
            let whole = matches!((&memory, &tolerations), (Stands::Done, Stands::Done));
            for (stands, change) in [
                (memory, TemplateChange::Memory(mend.containers(back))),
                (
                    tolerations,
                    TemplateChange::Tolerations(
                        mend.tolerations
                            .as_ref()
                            .map(|one| if back { one.from.clone() } else { one.to.clone() })
                            // A template that said nothing says nothing again.
                            .filter(|all| !all.is_empty()),
                    ),
                ),
            ] {
                match stands {
                    Stands::Done => {}
                    Stands::Otherwise(why) => otherwise.push(why),
                    Stands::Open => calls.push(self.change(mend, workload, change, back)),
                }
            }
            // The marks go with the last of it.
            let rolling_back = self.context.rollback() && !back;
            if rolling_back && whole && workload.annotations.contains_key(BEFORE) {
                calls.push(self.change(
                    mend,
                    workload,
                    TemplateChange::Memory(mend.containers(false)),
                    back,
                ));
            }
        }
        if !otherwise.is_empty() {
            return if back {
                Look::Failed(format!(
                    "left as it is, since somebody else changed it: {}",
                    otherwise.join("; ")
                ))
            } else {
                Look::Failed(format!(
                    "it was changed by somebody else meanwhile: {}",
                    otherwise.join("; ")
                ))
            };
        }
        if calls.is_empty() {
            let words: Vec<_> = self
                .context
                .mends
                .templates
                .iter()
                .filter(|mend| which(mend))
                .map(TemplateMend::words)
                .collect();
            return if back {
                self.settled("templates are as they were")
            } else {
                Look::Done(words.join("; "))
            };
        }
        self.several(
            calls.into_iter(),
            "the API server's answer to a change of templates",
        )
    }

    fn change(
        &self,
        mend: &TemplateMend,
        workload: &Workload,
        change: TemplateChange,
        back: bool,
    ) -> ApiCall {
        let marks = if back {
            vec![
                (CHANGED_BY, mend.changed_by.clone()),
                (BEFORE, mend.before.clone()),
            ]
        } else if self.context.rollback() {
            vec![(CHANGED_BY, None), (BEFORE, None)]
        } else {
            vec![
                (CHANGED_BY, Some(self.context.run.to_owned())),
                (BEFORE, serde_json::to_string(&mend.before_with()).ok()),
            ]
        };
        ApiCall::Template {
            workload: workload.name.clone(),
            uid: workload.uid.clone(),
            resource_version: workload.resource_version.clone(),
            change,
            marks,
        }
    }

    pub(super) fn rollout_restart(&self, case: &Case) -> Look {
        let mut calls = Vec::new();
        for restart in &self.context.mends.restarts {
            let found = case
                .workload(&restart.workload)
                .filter(|workload| workload.uid == restart.uid);
            let Some(workload) = found else {
                return Look::Failed(format!("{} is gone, or is another by now", restart.workload));
            };
            // The mark is made in the same write, so a restart is done once whatever happens.
            if workload
                .annotations
                .get(CHANGED_BY)
                .is_some_and(|by| by == self.context.run)
            {
                continue;
            }
            calls.push(ApiCall::Template {
                workload: workload.name.clone(),
                uid: workload.uid.clone(),
                resource_version: workload.resource_version.clone(),
                change: TemplateChange::Restart(restarted_at(self.world.unix_ms)),
                marks: vec![(CHANGED_BY, Some(self.context.run.to_owned()))],
            });
        }
        if calls.is_empty() {
            return Look::Done("restarted, by the annotation kubectl.kubernetes.io/restartedAt".to_owned());
        }
        self.several(calls.into_iter(), "the API server's answer to a restart")
    }

    pub(super) fn await_rollout(&self, case: &Case) -> Look {
        let mends = self.context.mends;
        let templates = mends.templates.iter().map(|mend| &mend.workload);
        let restarts = mends.restarts.iter().map(|restart| &restart.workload);
        let mut whole = Vec::new();
        for name in templates.chain(restarts) {
            let Some(workload) = case.workload(name) else {
                return Look::Failed(format!("{name} is gone"));
            };
            if !workload.is_whole() {
                let why = match (&workload.stuck, case.wellness(&mends.awaited)) {
                    (Some(stuck), _) => format!("; {stuck}"),
                    (None, Wellness::Not(why)) => format!("; {why}"),
                    (None, Wellness::Well(_)) => String::new(),
                };
                return Look::Wait(WaitingOn::Pods(format!("the rollout: {}{why}", workload.words())));
            }
            whole.push(workload.words());
        }
        Look::Done(whole.join("; "))
    }

    pub(super) fn await_steady(&self, case: &Case) -> Look {
        let mends = self.context.mends;
        let window = self.context.request.mending.steady;
        match case.wellness(&mends.awaited) {
            Wellness::Not(why) => Look::Wait(WaitingOn::Pods(why)),
            Wellness::Well(pods) => {
                let since = self.progress.steady.unwrap_or(self.world.now);
                let for_so_long = self.world.now.saturating_duration_since(since);
                if self.progress.steady.is_some() && for_so_long >= window {
                    let restarts: u64 = pods.iter().map(|(_, restarts)| restarts).sum();
                    return Look::Done(format!(
                        "{} pods Running and ready; none was started again for {} ({restarts} restarts before that)",
                        pods.len(),
                        seconds(for_so_long)
                    ));
                }
                Look::Wait(WaitingOn::Pods(format!(
                    "{} pods that are ready to stay so: {} of {}",
                    pods.len(),
                    seconds(for_so_long),
                    seconds(window)
                )))
            }
        }
    }
}

fn delete(chosen: &Chosen, force: bool) -> ApiCall {
    ApiCall::DeletePod {
        pod: chosen.pod.clone(),
        uid: chosen.uid.clone(),
        force,
    }
}

fn names<'a>(chosen: impl Iterator<Item = &'a Chosen>) -> String {
    let names: Vec<_> = chosen.map(|one| one.pod.to_string()).collect();
    match names.as_slice() {
        [one] => format!("pod {one}"),
        many if many.len() > 5 => format!("{} pods: {} and more", many.len(), many[..5].join(", ")),
        many => format!("{} pods: {}", many.len(), many.join(", ")),
    }
}

fn memory_stands(mend: &TemplateMend, workload: &Workload, back: bool) -> Stands {
    let mut open = false;
    for one in &mend.memory {
        let now = Memory::of(workload, &one.container).unwrap_or_default();
        let (from, to) = if back {
            (one.to, one.from)
        } else {
            (one.from, one.to)
        };
        if now == to {
            continue;
        }
        if now != from {
            return Stands::Otherwise(format!("container {} of {}", one.container, mend.workload));
        }
        open = true;
    }
    if open { Stands::Open } else { Stands::Done }
}

fn tolerations_stand(mend: &TemplateMend, workload: &Workload, back: bool) -> Stands {
    let Some(one) = &mend.tolerations else {
        return Stands::Done;
    };
    let (from, to) = if back {
        (&one.to, &one.from)
    } else {
        (&one.from, &one.to)
    };
    if workload.tolerations == *to {
        Stands::Done
    } else if workload.tolerations == *from {
        Stands::Open
    } else {
        Stands::Otherwise(format!("tolerations of {}", mend.workload))
    }
}

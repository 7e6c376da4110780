//! The steps that shorten what the pods of chosen workloads tolerate, and put it back. Pure.

use super::super::call::Call;
use super::super::network_loss::{seconds_of, shortened};
use super::super::plan::Before;
use super::super::waiting::WaitingOn;
use super::{At, Look};
use crate::kubernetes::calls::{ApiCall, TemplateChange};
use crate::kubernetes::objects::Ready;
use crate::kubernetes::objects::scheduling::Toleration;
use crate::kubernetes::objects::workload::{TOLERATIONS_BEFORE, TOLERATIONS_BY, Workload};

impl At<'_> {
    pub(super) fn shorten_tolerations(&self) -> Look {
        if let Some(power) = &self.world.around.power_event {
            return Look::Failed(format!("not in a power event: {power}"));
        }
        let seconds = seconds_of(self.context.request);
        self.each(
            |before, workload| match &workload.tolerations_by {
                Some(run) if run == self.context.run => Ok(None),
                Some(run) => Err(format!("{} was shortened by {run} meanwhile", before.workload)),
                None => {
                    let was = serde_json::to_string(&workload.tolerations).unwrap_or_default();
                    Ok(Some(change(
                        workload,
                        Some(shortened(workload.tolerations.as_deref(), seconds)),
                        Some((self.context.run.to_owned(), was)),
                    )))
                }
            },
            &format!("they tolerate {seconds} s"),
        )
    }

    pub(super) fn restore_tolerations(&self) -> Look {
        let seconds = seconds_of(self.context.request);
        let mut kept = Vec::new();
        let look = self.each(
            |before, workload| {
                if workload.tolerations_by.as_deref() != Some(self.context.run) {
                    return Ok(None);
                }
                let ours = shortened(before.tolerations.as_deref(), seconds);
                let is_ours = workload.tolerations.as_deref() == Some(ours.as_slice());
                // Whoever changed them since knows why: only the mark goes.
                let tolerations = if is_ours {
                    before.tolerations.clone()
                } else {
                    kept.push(before.workload.to_string());
                    workload.tolerations.clone()
                };
                Ok(Some(change(workload, tolerations, None)))
            },
            "they are as they were",
        );
        match look {
            Look::Done(words) if self.progress.unsure => self.settled(&words),
            Look::Do(calls, _) if !kept.is_empty() => Look::Do(
                calls,
                WaitingOn::Pods(format!(
                    "the mark to be gone; the tolerations of {} were changed by somebody else, and stay",
                    kept.join(", ")
                )),
            ),
            other @ (Look::Done(_) | Look::Do(..) | Look::Wait(_) | Look::Failed(_)) => other,
        }
    }

    /// Asks for what `call` wants of each of the chosen workloads that are still there.
    fn each(
        &self,
        mut call: impl FnMut(&Before, &Workload) -> Result<Option<ApiCall>, String>,
        done: &str,
    ) -> Look {
        let told = &self.world.around.workloads;
        let all = match told.within(self.world.timing.fresh, self.world.now) {
            Ok(all) => all,
            Err(why) => return Look::Wait(WaitingOn::Api(why)),
        };
        let (mut calls, mut held, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for before in &self.context.plan.before {
            let found = all.iter().find(|workload| workload.uid == before.uid);
            let Some(workload) = found else { continue };
            names.push(before.workload.to_string());
            let call = match call(before, workload) {
                Ok(Some(call)) => call,
                Ok(None) => continue,
                Err(why) => return Look::Failed(why),
            };
            match self.progress.refused.get(&call.target()) {
                Some((until, why)) if *until > self.world.now => held.push(why.clone()),
                Some(_) | None => calls.push(Call::Api(call)),
            }
        }
        if !calls.is_empty() {
            Look::Do(calls, WaitingOn::Change("the tolerations"))
        } else if let Some(why) = held.into_iter().next() {
            Look::Wait(WaitingOn::Api(why))
        } else {
            Look::Done(format!("{done}: {}", names.join(", ")))
        }
    }

    pub(super) fn await_reachable(&self) -> Look {
        if let Some(power) = &self.world.around.power_event {
            return Look::Done(format!(
                "a power event was declared ({power}): what was changed is put back at once"
            ));
        }
        self.of_node(|at, node| {
            let lease = at.world.lease_words();
            if !at.world.renewed_after(at.turn) {
                return Look::Wait(WaitingOn::Ready(format!("a lease that is renewed: {lease}")));
            }
            match node.ready {
                Ready::True => Look::Done(format!("Ready, {lease}; {}", at.world.agent_words())),
                Ready::False | Ready::Unknown => Look::Wait(WaitingOn::Ready(format!(
                    "Ready, which is {:?} so far",
                    node.ready
                ))),
            }
        })
    }
}

/// Sets what a workload's pods tolerate. `mark`: the run that shortens it, and what it was before as JSON; `None`: it is put back.
fn change(
    workload: &Workload,
    tolerations: Option<Vec<Toleration>>,
    mark: Option<(String, String)>,
) -> ApiCall {
    let (by, before) = mark.unzip();
    ApiCall::Template {
        workload: workload.name.clone(),
        uid: workload.uid.clone(),
        resource_version: workload.resource_version.clone(),
        change: TemplateChange::Tolerations(tolerations),
        marks: vec![(TOLERATIONS_BY, by), (TOLERATIONS_BEFORE, before)],
    }
}

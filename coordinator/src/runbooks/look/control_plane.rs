//! The steps that are about static pods of a control plane: each begins with what the agents of the masters tell now.

use std::time::Duration;

use blackstart_proto::part::Part;

use super::super::call::Call;
use super::super::plan::Runbook;
use super::super::waiting::WaitingOn;
use super::{At, Look};
use crate::control_plane::judge::{Cause, State, View};
use crate::fleet::{Answer, PartAct};
use crate::inventory::NodeName;

/// What was told longer ago is not acted on. Agents are asked each second, and answer within six.
const FRESH: Duration = Duration::from_secs(10);
/// Once a bounce has waited in vain for the part to be well, it has so long to be it all the same.
const AFTER: Duration = Duration::from_secs(10);

impl At<'_> {
    /// By what is told now, of the step's part on the step's node.
    fn of_part(&self, look: impl FnOnce(&Self, &View, &NodeName, Part) -> Look) -> Look {
        let Some(part) = self.step.part else {
            return Look::Failed("the step does not say which part it is about".to_owned());
        };
        let node = self.step.on.as_ref().unwrap_or(&self.world.node);
        self.of_masters(|at, view| look(at, view, node, part))
    }

    fn of_masters(&self, look: impl FnOnce(&Self, &View) -> Look) -> Look {
        match &self.world.control_plane {
            Some(glance) if self.world.now.saturating_duration_since(glance.at) <= FRESH => {
                look(self, &glance.view)
            }
            Some(_) | None => Look::Wait(WaitingOn::ControlPlane(
                "what the agents of the masters tell of it".to_owned(),
            )),
        }
    }

    fn part_state(&self, view: &View, node: &NodeName, part: Part) -> State {
        let etcd = self.world.etcd.as_ref().map(|glance| glance.view.as_ref());
        view.state(node, part, etcd)
    }

    pub(super) fn bounce_part(&self) -> Look {
        self.of_part(|at, view, node, part| {
            let state = at.part_state(view, node, part);
            let restart = at.context.request.options.restart;
            let asked = at.progress.attempts > at.progress.forgiven;
            match (&at.progress.heard, state) {
                (Some((Answer::Done, detail, _)), State::Well(words)) => {
                    Look::Done(format!("{words}; {detail}"))
                }
                (Some((Answer::RefusedEpoch, detail, _)), _) => {
                    Look::Failed(format!("another coordinator is at work: {detail}"))
                }
                (Some((Answer::Failed | Answer::Refused, detail, _)), State::Well(words)) if !restart => {
                    Look::Done(format!("{words}; the bounce said: {detail}"))
                }
                // What was asked for is a restart, and there was none.
                (Some((Answer::Failed | Answer::Refused, detail, _)), State::Well(words)) => {
                    Look::Failed(format!("it was not restarted: {detail}; {words}"))
                }
                (Some((_, detail, told)), state) => at.after_bounce(&state, node, part, (detail, *told)),
                (None, State::Well(words)) if !restart => Look::Done(if asked {
                    words
                } else {
                    format!("{words}: it is left alone")
                }),
                (None, State::Well(_)) => match at.others(view, node, part) {
                    Some(look) if !asked => look,
                    Some(_) | None => at.tell_part(&PartAct::Bounce, part, "bounce it"),
                },
                (None, State::Nowhere) => {
                    Look::Failed(format!("no master has a manifest of {part} any more"))
                }
                // While it is being bounced its manifest is out.
                (None, State::Ill(cause)) if cause.is_mendable() || asked => {
                    at.tell_part(&PartAct::Bounce, part, "bounce it")
                }
                (None, State::Ill(Cause::Unseen(why))) => {
                    Look::Wait(WaitingOn::Agent(format!("{why} ({node})")))
                }
                (None, State::Ill(cause)) => Look::Failed(format!(
                    "a bounce would not mend it; it lacks {}",
                    cause.words(part, node)
                )),
            }
        })
    }

    /// It was bounced, and is not well, or was not yet when it was looked at.
    fn after_bounce(
        &self,
        state: &State,
        node: &NodeName,
        part: Part,
        (detail, told): (&String, tokio::time::Instant),
    ) -> Look {
        if self.world.now.saturating_duration_since(told) < AFTER {
            return Look::Wait(WaitingOn::ControlPlane(format!(
                "the {} of {node} to be well after the bounce",
                part.words()
            )));
        }
        let why = match state {
            State::Ill(cause) => cause.words(part, node),
            State::Well(words) => words.clone(),
            State::Nowhere => "its manifest is gone".to_owned(),
        };
        Look::Failed(format!(
            "the bounce did not help: {detail}; now: {why}. No other is touched while this one is down"
        ))
    }

    /// While another of its kind is not well, one that is well is not taken away.
    fn others(&self, view: &View, node: &NodeName, part: Part) -> Option<Look> {
        let etcd = self.world.etcd.as_ref().map(|glance| glance.view.as_ref());
        let (other, cause) = view.other_ill(node, part, etcd)?;
        Some(Look::Wait(WaitingOn::ControlPlane(format!(
            "the {} of {other} to be well first: {}",
            part.words(),
            cause.words(part, other)
        ))))
    }

    pub(super) fn set_etcd_servers(&self) -> Look {
        self.of_part(|at, view, node, part| {
            let change = at.context.plan.flags.iter().find(|flag| flag.node == *node);
            let Some(change) = change else {
                return Look::Failed("the plan does not say what it is to be".to_owned());
            };
            let has_it = view
                .told(node, part)
                .is_some_and(|told| told.etcd_servers == change.to);
            if let Some(kept) = at.was_kept() {
                return Look::Done(kept);
            }
            let state = at.part_state(view, node, part);
            match (&at.progress.heard, state) {
                (heard, State::Well(words)) if has_it => {
                    let said = heard.as_ref().map(|(_, detail, _)| format!("; {detail}"));
                    Look::Done(format!("{words}{}", said.unwrap_or_default()))
                }
                (Some((Answer::Failed | Answer::Refused | Answer::RefusedEpoch, detail, _)), _) => {
                    Look::Failed(detail.clone())
                }
                (Some((Answer::Done, detail, told)), state) => {
                    at.after_bounce(&state, node, part, (detail, *told))
                }
                (None, state) => {
                    let asked = at.progress.attempts > at.progress.forgiven;
                    // One that is down is not missed more while it is told.
                    // While etcd is restored the others are out, by this run.
                    let restores =
                        matches!(at.context.request.runbook, Runbook::EtcdQuorum | Runbook::EtcdAll);
                    let first = (matches!(state, State::Well(_)) && !restores)
                        .then(|| at.others(view, node, part))
                        .flatten()
                        .filter(|_| !asked);
                    first.unwrap_or_else(|| {
                        at.tell_part(
                            &PartAct::EtcdServers {
                                from: change.from.clone(),
                                to: change.to.clone(),
                            },
                            part,
                            "write its manifest anew",
                        )
                    })
                }
            }
        })
    }

    /// Everything that the run has touched is well.
    pub(super) fn await_control_plane(&self) -> Look {
        self.of_masters(|at, view| {
            let mut well = Vec::new();
            for step in &at.context.plan.steps {
                let (Some(node), Some(part)) = (&step.on, step.part) else {
                    continue;
                };
                match at.part_state(view, node, part) {
                    State::Well(_) => well.push(format!("{} of {node}", part.words())),
                    State::Nowhere => {}
                    State::Ill(cause) => {
                        return Look::Wait(WaitingOn::ControlPlane(format!(
                            "the {} of {node} to be well: {}",
                            part.words(),
                            cause.words(part, node)
                        )));
                    }
                }
            }
            Look::Done(format!("well: {}", well.join(", ")))
        })
    }

    /// Sends it to the agent of the step's node.
    fn tell_part(&self, act: &PartAct, part: Part, name: &'static str) -> Look {
        self.command(
            name,
            |attempt| Call::ControlPlane {
                attempt,
                part,
                act: act.clone(),
            },
            |detail| WaitingOn::ControlPlane(format!("it to be seen: {name} was answered done ({detail})")),
        )
    }
}

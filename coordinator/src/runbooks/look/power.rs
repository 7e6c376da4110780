//! The step that cuts a machine's power, and what is done only while it is seen off. Pure.

use std::time::Duration;

use super::super::call::Call;
use super::super::proof::{Said, bmc, rests_on_bmc};
use super::super::waiting::WaitingOn;
use super::{At, Look};
use crate::kubernetes::objects::Node;
use crate::power::{PowerState, Word};

/// A controller that was asked to cut the power is not asked again before this: it takes its time, and says `On` meanwhile.
const AGAIN: Duration = Duration::from_secs(20);

impl At<'_> {
    pub(super) fn power_off(&self, node: &Node) -> Look {
        if let Some(look) = self.unless_dead("its power is not cut") {
            return look;
        }
        let said = bmc(self.world);
        let is_later = match &self.world.power {
            Word::Told(reading) => self.progress.acted.is_none_or(|acted| reading.asked >= acted),
            Word::None | Word::NotAsked | Word::Failed { .. } => false,
        };
        match said {
            Said::Off(words) => Look::Done(words),
            Said::Nothing(why) => Look::Wait(WaitingOn::Power(why)),
            Said::Not { words, .. } if !is_later => Look::Wait(WaitingOn::Power(words)),
            Said::Not {
                state: PowerState::PoweringOff,
                words,
            } => Look::Wait(WaitingOn::Power(words)),
            Said::Not { words, .. } => {
                let since = self.progress.refused_power.as_ref();
                let acted = self.progress.acted;
                let acted = acted.map(|acted| self.world.now.saturating_duration_since(acted));
                match since {
                    Some((until, why)) if *until > self.world.now => {
                        Look::Wait(WaitingOn::Power(format!("{why}; {words}")))
                    }
                    Some(_) | None if acted.is_some_and(|acted| acted < AGAIN) => Look::Wait(
                        WaitingOn::Power(format!("it was asked to cut the power; {words}")),
                    ),
                    Some(_) | None => Look::Do(
                        vec![Call::PowerOff {
                            uuid: node.system_uuid.clone(),
                        }],
                        WaitingOn::Power(words),
                    ),
                }
            }
        }
    }

    /// What was planned for a machine that is off is not done to one that lives, nor, where only its management controller says that it is
    /// off, to one that has power again.
    pub(super) fn unless_dead_and_off(&self, what: &str) -> Option<Look> {
        self.unless_dead(what).or_else(|| {
            if !rests_on_bmc(self.context.plan) {
                return None;
            }
            match bmc(self.world) {
                Said::Off(_) => None,
                Said::Not { words, .. } => Some(Look::Failed(format!(
                    "{what}: {words}; it was off when this was planned"
                ))),
                Said::Nothing(why) => Some(Look::Wait(WaitingOn::Power(why))),
            }
        })
    }
}

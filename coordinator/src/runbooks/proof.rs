//! Proof that a machine is off, which moving its pods needs: who goes on writing to a volume that is attached elsewhere destroys it. Pure.
//!
//! | operator's word | its management controller (BMC) | |
//! |---|---|---|
//! | given | says nothing, or nothing else | proof |
//! | given | says that it is not off | its pods move only once somebody approves of the contradiction |
//! | none | `Off`, asked just now | proof |
//! | none | `On`, or on its way | none; with `runbooks.fence: propose` its power is cut, once somebody approves, and read again |
//! | none | `On`, of a control plane or a member of etcd | none, and its power is not cut: it may still be one of the quorum |
//! | none | is of another machine, by its UUID | none, whatever it says |
//! | none | does not answer, or there is none | none: a loss of power takes it too |
//!
//! `On` is no sign of life either: a machine that hangs has power, and so does one that is cut off and goes on writing. What its peers say
//! is no proof: who reaches nobody may well reach its disks.

use super::plan::{Action, Proof, RunbookPlan};
use super::world::{World, seconds};
use crate::inventory::Role;
use crate::power::redfish::same_machine;
use crate::power::{PowerState, Reading, Word};

/// What there is to prove that a machine is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proved {
    /// This.
    Yes(Proof),
    /// An operator's word, and another one against it.
    Contradicted(Proof, String),
    /// None, and its management controller can make one: its power is cut.
    Fence(String),
    /// None; what is missing, and how to get it.
    No(String),
}

/// What there is to prove that the node's machine is off; the table of the module. `fence`: its power may be cut for it.
pub fn proved(world: &World, operator: Option<&Proof>, fence: bool) -> Proved {
    let said = bmc(world);
    match (operator, said) {
        (Some(proof), Said::Not { words, .. }) => Proved::Contradicted(proof.clone(), words),
        (Some(proof), Said::Off(_) | Said::Nothing(_)) => Proved::Yes(proof.clone()),
        (None, Said::Off(what)) => Proved::Yes(Proof::Bmc { what }),
        (None, Said::Not { words, .. }) if fence && world.role != Role::Worker => Proved::No(format!(
            "{words}; its power is not cut by a run: a {} that hangs may still be one of its quorum. See that the others are well, power \
             it off yourself, then ask again",
            match world.role {
                Role::Etcd => "member of etcd",
                Role::ControlPlane | Role::Worker => "control plane",
            }
        )),
        (None, Said::Not { words, .. }) if fence => Proved::Fence(words),
        (None, Said::Not { words, state }) => Proved::No(format!("{words}; {}", unlike_off(state))),
        (None, Said::Nothing(why)) => Proved::No(format!(
            "proof that the machine is off: silence is none, it may be cut off and go on writing. {why}. Switch it off, then say how: \
             --proof 'power off at the BMC, seen off'"
        )),
    }
}

/// What a management controller says, as it may be decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Off, by a word that is fresh and of this machine.
    Off(String),
    /// Not off, by such a word.
    Not {
        /// What.
        state: PowerState,
        /// For people.
        words: String,
    },
    /// Nothing that counts; why.
    Nothing(String),
}

pub(super) fn bmc(world: &World) -> Said {
    let reading = match &world.power {
        Word::Told(reading) => reading,
        Word::None => {
            return Said::Nothing(
                "Its management controller could tell, if it is declared (`bmc` in inventory and configuration)".to_owned(),
            );
        }
        Word::NotAsked => {
            return Said::Nothing("Its management controller was not asked yet: ask again".to_owned());
        }
        Word::Failed { source, why } => return Said::Nothing(format!("Of {source}: {why}")),
    };
    let age = world.now.saturating_duration_since(reading.asked);
    if age > world.timing.power {
        return Said::Nothing(format!(
            "What {} said is {} old: ask again",
            reading.source,
            seconds(age)
        ));
    }
    let whose = match whose(world, reading) {
        Ok(whose) => whose,
        Err(other) => return Said::Nothing(other),
    };
    let words = format!(
        "PowerState {} of {}, asked {} ago; {whose}",
        reading.state,
        reading.source,
        seconds(age)
    );
    match reading.state {
        PowerState::Off => Said::Off(words),
        PowerState::NotKnown => Said::Nothing(format!("It tells no power state that is known: {words}")),
        state @ (PowerState::On | PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Paused) => {
            Said::Not {
                state,
                words: format!("its BMC says {words}"),
            }
        }
    }
}

/// Whether a controller is this machine's. A wrong line in an inventory is how the wrong machine loses its power.
fn whose(world: &World, reading: &Reading) -> Result<&'static str, String> {
    let node = match world.api_node() {
        Ok((_, node)) => node.system_uuid.as_str(),
        Err(_) => "",
    };
    match reading.uuid.as_deref().and_then(|bmc| same_machine(bmc, node)) {
        Some(true) => Ok("its UUID is the node's"),
        None => {
            Ok("that it is this machine's BMC is the inventory's word alone, since the UUIDs do not tell")
        }
        Some(false) => Err(format!(
            "{} is of another machine: its UUID is {}, the node's is {node}: mend `bmc` of {} in the inventory",
            reading.source,
            reading.uuid.as_deref().unwrap_or_default(),
            world.node
        )),
    }
}

/// Why a machine that is not off is no dead one, and what to do.
fn unlike_off(state: PowerState) -> &'static str {
    match state {
        PowerState::On | PowerState::Paused | PowerState::NotKnown => {
            "that is no proof of life, since a machine that hangs has power too, and none of death: power it off (at its BMC, or \
             `runbooks.fence: propose` has a run do it once somebody approves), then ask again"
        }
        PowerState::PoweringOn => "it is on its way up: wait for it, or power it off and ask again",
        PowerState::PoweringOff | PowerState::Off => {
            "it is on its way down, and may still write: ask again when it is off"
        }
    }
}

/// A plan that rests on its management controller's word alone has it read again before anything lasting is done.
pub(super) fn rests_on_bmc(plan: &RunbookPlan) -> bool {
    matches!(plan.request.proof, Some(Proof::Bmc { .. }))
        || plan.steps.iter().any(|step| step.action == Action::PowerOff)
}

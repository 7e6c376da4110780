//! What happens to a drill's machines and to its cluster while it is held.

use blackstart_agent::gate;
use serde_json::{Value, json};

use super::ground::Ground;
use super::objects::{APP, OURS, OUTCOME, merge};
use super::script::Event;
use crate::failure::Failure;

impl Ground {
    /// Has something happen to machines, to the way to them, or to the cluster.
    pub(super) fn happen(&mut self, event: &Event) -> Result<(), Failure> {
        let ground = self;
        match event {
            Event::PowerOff(name) => ground.fleet.power_off(name),
            Event::PowerOn(name) => ground.fleet.power_on(name)?,
            Event::LetGo(name) => {
                let settings = ground.fleet.nodes[name].machine.settings();
                gate::release(&settings.runtime_dir, "operator")
                    .map_err(|error| Failure::other(format!("open the gate of {name}: {error}")))?;
            }
            Event::CutOff(name) => {
                ground.cut_off.insert(name.clone());
            }
            Event::Reconnect(name) => {
                ground.cut_off.remove(name);
            }
            Event::Fare(outcome) => ground.double.with(|world| {
                world.outcomes.clear();
                let outcome = outcome.iter();
                world
                    .outcomes
                    .extend(outcome.map(|(image, outcome)| ((*image).to_owned(), *outcome)));
            }),
            Event::Bmc(mood) => {
                if let Some(bmc) = &ground.bmc {
                    bmc.set_mood(*mood);
                }
            }
            Event::Ail(outcome) => ground.double.with(|world| {
                for pod in world.store.all("pods") {
                    if pod["metadata"]["labels"]["app"] == APP {
                        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                        let mark = json!({"metadata": {"annotations": {OUTCOME: outcome}}});
                        world.change("pods", OURS, name, |pod| merge(pod, &mark));
                    }
                }
            }),
            Event::Put(objects) => ground
                .double
                .with(|world| world.apply_manifests(objects))
                .map_err(|refusal| {
                    Failure::other(format!("put objects into the drill's cluster: {refusal:?}"))
                })?,
            Event::Remove { resource, name } => {
                let resource = blackstart_apiserver::resources::named(resource);
                let options = blackstart_apiserver::DeleteOptions::default();
                ground
                    .double
                    .with(|world| world.delete(resource, OURS, name, &options).map(drop))
                    .map_err(|refusal| {
                        Failure::other(format!("take {name} from the drill's cluster: {refusal:?}"))
                    })?;
            }
            Event::Change {
                resource,
                name,
                patch,
            } => ground.double.with(|world| {
                world.change(resource, OURS, name, |object| {
                    merge(object, patch);
                    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
                    object["metadata"]["generation"] = generation.into();
                });
            }),
            Event::Cordon(nodes, on) => ground.double.with(|world| {
                for node in nodes {
                    let unschedulable = if *on { Value::Bool(true) } else { Value::Null };
                    let patch = json!({"spec": {"unschedulable": unschedulable}});
                    world.change("nodes", "", node, |node| merge(node, &patch));
                }
            }),
        }
        ground.mirror();
        Ok(())
    }
}

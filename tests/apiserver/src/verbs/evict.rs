//! Evictions, which disruption budgets may refuse (pkg/registry/core/pod/storage/eviction.go).

use super::DeleteOptions;
use crate::clock;
use crate::json::{condition, is_terminating, name, number, set, text};
use crate::refusal::Refusal;
use crate::resources::named;
use crate::selector::label_selector;
use crate::world::World;
use serde_json::Value;

impl World {
    /// Evicts a pod: deletes it, if every disruption budget that selects it allows that.
    pub fn evict(&mut self, namespace: &str, pod: &str, options: &DeleteOptions) -> Result<(), Refusal> {
        let stored = self
            .get("pods", namespace, pod)
            .ok_or_else(|| Refusal::not_found(named("pods"), pod))?;
        let free = matches!(text(&stored, "/status/phase"), "Succeeded" | "Failed" | "Pending")
            || is_terminating(&stored);
        if !free {
            self.draw_on_budget(namespace, &stored)?;
        }
        self.delete(named("pods"), namespace, pod, options).map(drop)
    }

    fn draw_on_budget(&mut self, namespace: &str, pod: &Value) -> Result<(), Refusal> {
        let mut budgets: Vec<_> = self
            .store
            .list("poddisruptionbudgets", Some(namespace))
            .filter(|budget| label_selector(&budget["spec"]["selector"], pod))
            .cloned()
            .collect();
        let Some(budget) = budgets.pop() else {
            return Ok(());
        };
        if !budgets.is_empty() {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Refusal::internal(message));
        }
        let called = name(&budget);
        let (healthy, wanted) = (
            number(&budget, "/status/currentHealthy"),
            number(&budget, "/status/desiredHealthy"),
        );
        // Pods that are not ready are not what the budget protects (unhealthyPodEvictionPolicy; IfHealthyBudget since 1.22).
        if condition(pod, "Ready") != "True" && self.release.minor >= 22 {
            let always = text(&budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
            if always || healthy >= wanted && wanted > 0 {
                return Ok(());
            }
        }
        if number(&budget, "/status/observedGeneration") < number(&budget, "/metadata/generation") {
            let why = format!("The disruption budget {called} is still being processed by the server.");
            return Err(Refusal::disruption_budget(&why, Some(10)));
        }
        let allowed = number(&budget, "/status/disruptionsAllowed");
        if allowed <= 0 {
            let why = if healthy <= wanted || self.release.minor < 33 {
                format!(
                    "The disruption budget {called} needs {wanted} healthy pods and has {healthy} currently"
                )
            } else {
                format!("The disruption budget {called} does not allow evicting pods currently")
            };
            return Err(Refusal::disruption_budget(&why, None));
        }
        let mut drawn = Value::clone(&budget);
        set(&mut drawn, "/status/disruptionsAllowed", allowed - 1);
        let since = clock::seconds(self.now);
        crate::json::object(&mut drawn, "/status/disruptedPods").insert(name(pod).to_owned(), since.into());
        self.write("poddisruptionbudgets", drawn);
        Ok(())
    }
}

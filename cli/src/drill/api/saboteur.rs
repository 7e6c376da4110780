//! Somebody who breaks one law on purpose, to show that the drill finds it: in the coordinator's name where the API server's record
//! tells, in an agent's ledger where that does.

use blackstart_agent::ledger::{Intent, Ledger, Outcome};
use blackstart_apiserver::User;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::fleet::Fleet;
use super::cast::Cast;
use super::chronicle::Heard;
use super::ground::{COORDINATOR, Ground};
use super::objects::{APP, BYSTANDER, GUARDED, OURS, SYSTEM, THEIRS};
use crate::failure::Failure;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum Sabotage {
    /// Deletes a pod of a live node by force
    ForceDelete,
    /// Deletes a pod whose budget lets none go
    BeyondBudget,
    /// Leaves a cordon behind
    StrayCordon,
    /// Changes something that no plan names
    Unplanned,
    /// Deletes a pod of the system
    SystemPod,
    /// Keeps from the drill what refusals say
    Mute,
    /// Has an agent obey what no run has told it
    RogueAgent,
    /// Takes away what the chapter is for
    Undone,
}

/// What he does in the cluster, once the chapter is through.
pub(super) fn work(what: Sabotage, ground: &Ground, cast: &Cast) {
    let user = User::new(COORDINATOR, &[]);
    let ask = |method: &str, path: String, body: Value| {
        let content_type = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        ground.double.ask(&user, method, &path, content_type, &body);
    };
    let delete = |namespace: &'static str, app: &str, body: Value| {
        if let Some(pod) = pod(ground, namespace, app) {
            ask(
                "DELETE",
                format!("/api/v1/namespaces/{namespace}/pods/{pod}"),
                body,
            );
        }
    };
    let node = format!("/api/v1/nodes/{}", cast.refuge);
    match what {
        Sabotage::ForceDelete => delete(THEIRS, BYSTANDER, json!({"gracePeriodSeconds": 0})),
        Sabotage::BeyondBudget => delete(THEIRS, GUARDED, json!({})),
        Sabotage::SystemPod => delete(SYSTEM, "cni", json!({})),
        Sabotage::StrayCordon => ask("PATCH", node, json!({"spec": {"unschedulable": true}})),
        Sabotage::Unplanned => ask("PATCH", node, json!({"metadata": {"labels": {"left": "behind"}}})),
        Sabotage::Undone => ground.double.with(|world| {
            world.change("deployments", OURS, APP, |app| app["spec"]["replicas"] = json!(0));
            world.change("deployments", OURS, APP, |app| app["status"] = json!({}));
        }),
        Sabotage::Mute | Sabotage::RogueAgent => {}
    }
}

fn pod(ground: &Ground, namespace: &str, app: &str) -> Option<String> {
    ground.double.with(|world| {
        let mut pods = world.store.list("pods", Some(namespace));
        let found = pods.find(|pod| pod["metadata"]["labels"]["app"] == app)?;
        found["metadata"]["name"].as_str().map(str::to_owned)
    })
}

/// What he does to what the drill hears.
pub(super) fn mute(heard: &mut [Heard]) {
    for one in heard {
        for (_, missing) in &mut one.refusals {
            missing.clear();
        }
    }
}

/// What he does on a machine that is off.
pub(super) fn forge(fleet: &Fleet, machine: &str) -> Result<(), Failure> {
    let failed = |error: blackstart_agent::ledger::LedgerError| {
        Failure::other(format!("forge the ledger of {machine}: {error}"))
    };
    let Some(node) = fleet.nodes.get(machine) else {
        return Ok(());
    };
    let (mut ledger, _) = Ledger::open(&node.machine.settings().ledger(), "sabotage").map_err(failed)?;
    let sequence = ledger
        .intent(Intent {
            remedy: "stop-kubelet".to_owned(),
            subject: "kubelet.service".to_owned(),
            reason: "sabotage".to_owned(),
            command_id: Some("node-down-99/0/1".to_owned()),
            dry_run: false,
        })
        .map_err(failed)?;
    let detail = "sabotage".to_owned();
    ledger
        .outcome(sequence, Outcome::Succeeded { detail })
        .map_err(failed)
}

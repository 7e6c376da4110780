//! 操作系统宕机: a node dies with its pods. Without proof that it is off it is cordoned and no more; with proof its pods are moved; it is
//! repaired, comes back, and is taken back.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::super::show::Stage;
use super::cast::Cast;
use super::objects::{APP, OURS, budget, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

const PROOF: &str = "proof that the machine is off";

pub(super) fn script(cast: &Cast) -> Script {
    let victim = &cast.victim;
    let request = |runbook: &str, proof: &str| RunbookRequest {
        runbook: runbook.to_owned(),
        node: victim.clone(),
        reason: "it does not answer".to_owned(),
        proof: proof.to_owned(),
        ..RunbookRequest::default()
    };
    let (moved, back) = (cast.moved_when_off(), cast.taken_back());
    // Enough that each worker has one.
    let replicas = cast.replicas + 4;
    let mut script = Script::new(
        cast,
        vec![
            workload(OURS, APP, replicas, &json!({}), &json!({})),
            budget(OURS, APP, cast.release, &json!({"maxUnavailable": 1})),
        ],
    );
    script
        .at_first
        .extend([Sight::app_ready(replicas), Sight::On(victim.clone())]);
    script.acts = vec![
        Act::Refused {
            request: request("node-down", ""),
            missing: "evidence that it is",
        },
        Act::Trouble(
            format!("{victim} loses its power"),
            Event::PowerOff(victim.clone()),
        ),
        Act::Run(Run::new(request("node-down", ""), &["cordon"]).lacking(PROOF)),
        Act::Until(Sight::Node(victim.clone(), false)),
        Act::Run(Run::new(
            request("node-down", "power cable pulled, seen off"),
            moved,
        )),
        Act::Until(Sight::app_ready(replicas)),
        Act::Happens(
            format!("{victim} is repaired and switched on"),
            Event::PowerOn(victim.clone()),
        ),
        Act::Until(Sight::Machine(victim.clone(), Stage::Held)),
        Act::Happens(
            format!("an operator at {victim} opens its boot gate"),
            Event::LetGo(victim.clone()),
        ),
        Act::Until(Sight::Machine(victim.clone(), Stage::Healthy)),
        Act::Run(Run::new(request("maintenance-end", ""), back)),
    ];
    script.ends.extend([End::whole(), End::Back(victim.clone())]);
    script
}

//! 操作系统宕机 once more: a node dies with its pods, and its management controller (BMC) tells. While that has no power either, nothing is
//! proved and nothing moves; once it answers that the machine is off, the pods move without anybody's word.

use blackstart_apiserver::bmc::Mood;
use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::super::show::Stage;
use super::cast::Cast;
use super::objects::{APP, OURS, budget, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

/// What is said of a controller that does not answer.
const NO_PROOF: &str = "a loss of power takes it too, so this is no proof";

pub(super) fn script(cast: &Cast) -> Script {
    let victim = &cast.victim;
    let request = |runbook: &str| RunbookRequest {
        runbook: runbook.to_owned(),
        node: victim.clone(),
        reason: "it does not answer".to_owned(),
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
    script.has_bmc = true;
    script
        .at_first
        .extend([Sight::app_ready(replicas), Sight::On(victim.clone())]);
    script.acts = vec![
        Act::Refused {
            request: request("node-down"),
            missing: "evidence that it is",
        },
        Act::Happens(
            "the management controllers lose their power".to_owned(),
            Event::Bmc(Mood::Hangs),
        ),
        Act::Trouble(
            format!("{victim} loses its power"),
            Event::PowerOff(victim.clone()),
        ),
        Act::Run(Run::new(request("node-down"), &["cordon"]).lacking(NO_PROOF)),
        Act::Until(Sight::Node(victim.clone(), false)),
        Act::Happens(
            "the management controllers have power again".to_owned(),
            Event::Bmc(Mood::Well),
        ),
        Act::Run(Run::new(request("node-down"), moved)),
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
        Act::Run(Run::new(request("maintenance-end"), back)),
    ];
    script.ends.extend([End::whole(), End::Back(victim.clone())]);
    script
}

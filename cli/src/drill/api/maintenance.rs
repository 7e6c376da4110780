//! 硬件维修: a node is emptied as budgets allow and its kubelet stopped; repaired, it is taken back.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::super::show::Stage;
use super::cast::Cast;
use super::objects::{APP, OURS, budget, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

/// A workload whose pods have an emptyDir.
const SCRATCH: &str = "scratch";

pub(super) fn script(cast: &Cast) -> Script {
    let victim = &cast.victim;
    let request = |runbook: &str, delete_local_data: bool| RunbookRequest {
        runbook: runbook.to_owned(),
        node: victim.clone(),
        reason: "new memory".to_owned(),
        delete_local_data,
        ..RunbookRequest::default()
    };
    let replicas = cast.replicas + 4;
    let scratch = json!({"volumes": [{"name": "scratch", "emptyDir": {}}]});
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
    let elsewhere: Vec<_> = cast.others.iter().chain([&cast.refuge]).cloned().collect();
    script.acts = vec![
        Act::Happens(
            "the other workers are cordoned by somebody".to_owned(),
            Event::Cordon(elsewhere.clone(), true),
        ),
        Act::Happens(
            format!("a workload with data in an emptyDir comes to {victim}"),
            Event::Put(vec![workload(OURS, SCRATCH, 1, &json!({}), &scratch)]),
        ),
        Act::Until(Sight::ready(OURS, SCRATCH, 1)),
        Act::Happens("they take pods again".to_owned(), Event::Cordon(elsewhere, false)),
        Act::Refused {
            request: request("maintenance-begin", false),
            missing: "--delete-local-data says that it may be",
        },
        Act::Trouble(
            format!("{victim} has a broken memory module, and its data may be lost"),
            Event::Fare(None),
        ),
        Act::Run(Run::new(
            request("maintenance-begin", true),
            &["silence", "cordon", "drain", "delete-remaining", "stop-kubelet"],
        )),
        Act::Until(Sight::Machine(victim.clone(), Stage::Down)),
        Act::Until(Sight::app_ready(replicas)),
        Act::Run(Run::new(
            request("maintenance-end", false),
            &["start-kubelet", "await-ready", "uncordon", "unsilence"],
        )),
    ];
    script.ends.extend([
        End::whole(),
        End::Whole {
            namespace: OURS,
            workload: SCRATCH,
        },
        End::Left {
            workload: SCRATCH,
            node: victim.clone(),
        },
        End::Back(victim.clone()),
    ]);
    script
}

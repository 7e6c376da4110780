//! 节点网络异常: a node is cut off from its API servers and lives. The pods of chosen workloads leave it soon, by tolerations that are put back
//! once it is reached again.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::objects::{APP, OURS, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

pub(super) fn script(cast: &Cast) -> Script {
    let victim = &cast.victim;
    let request = || RunbookRequest {
        runbook: "network-loss".to_owned(),
        node: victim.clone(),
        reason: "its switch port flaps".to_owned(),
        workloads: vec![format!("{OURS}/deployment/{APP}")],
        tolerate_seconds: 3,
        ..RunbookRequest::default()
    };
    let before = json!([{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]);
    let replicas = cast.replicas + 4;
    let mut script = Script::new(
        cast,
        vec![workload(
            OURS,
            APP,
            replicas,
            &json!({}),
            &json!({"tolerations": before}),
        )],
    );
    script
        .at_first
        .extend([Sight::app_ready(replicas), Sight::On(victim.clone())]);
    script.acts = vec![
        Act::Refused {
            request: request(),
            missing: "evidence that it is",
        },
        Act::Trouble(
            format!("the kubelet of {victim} does not reach its API servers any more"),
            Event::CutOff(victim.clone()),
        ),
        Act::Run(
            Run::new(
                request(),
                &[
                    "cordon",
                    "shorten-tolerations",
                    "await-reachable",
                    "restore-tolerations",
                    "uncordon",
                ],
            )
            .meanwhile(
                "await-reachable",
                vec![
                    Act::Until(Sight::app_ready(replicas)),
                    Act::Until(Sight::Elsewhere(victim.clone())),
                    Act::Happens(
                        format!("{victim} reaches its API servers again"),
                        Event::Reconnect(victim.clone()),
                    ),
                ],
            ),
        ),
    ];
    script.ends.extend([
        End::whole(),
        End::Template {
            workload: APP,
            at: "/spec/template/spec/tolerations",
            is: before,
        },
        End::Back(victim.clone()),
    ]);
    script
}

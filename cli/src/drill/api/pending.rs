//! 节点资源空间不足, Pending: pods whose request no node can take. Mending them is refused with what would help; the runbook explains, and
//! sees them run once their owner asks for less.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::heal;
use super::objects::{APP, OURS, container, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

pub(super) fn script(cast: &Cast) -> Script {
    let replicas = cast.replicas;
    let asks = |memory: &str| container(&json!({"requests": {"memory": memory}}));
    let mut script = Script::new(cast, Vec::new());
    script.acts = vec![
        Act::Trouble(
            format!("{replicas} pods that ask for 900Gi each are deployed"),
            Event::Put(vec![workload(OURS, APP, replicas, &json!({}), &asks("900Gi"))]),
        ),
        Act::Until(Sight::Unscheduled),
        Act::Refused {
            request: heal("pods-heal"),
            missing: "ask for less memory",
        },
        Act::Run(
            Run::new(
                RunbookRequest {
                    runbook: "resource-shortage".to_owned(),
                    cluster: super::CLUSTER.to_owned(),
                    reason: "pods find no node".to_owned(),
                    ..RunbookRequest::default()
                },
                &["await-running"],
            )
            .meanwhile(
                "await-running",
                vec![Act::Happens(
                    "their owner asks for 200Mi instead".to_owned(),
                    Event::Change {
                        resource: "deployments",
                        name: APP,
                        patch: json!({"spec": {"template": {"spec": asks("200Mi")}}}),
                    },
                )],
            ),
        ),
    ];
    script.ends.push(End::whole());
    script
}

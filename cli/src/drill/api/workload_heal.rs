//! `GatewayProxy` / NSF 故障恢复: a declared workload lacks pods. While it is whole nothing is done; then it is restarted by the standard annotation,
//! and followed until all its pods are of the newest template and none is started again.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::heal;
use super::objects::{APP, OURS, workload};
use super::script::{Act, End, Event, Left, Run, Script, Sight};

pub(super) fn script(cast: &Cast) -> Script {
    let replicas = cast.replicas;
    let request = || RunbookRequest {
        workload: APP.to_owned(),
        ..heal("workload-heal")
    };
    let mut script = Script::new(cast, vec![workload(OURS, APP, replicas, &json!({}), &json!({}))]);
    script.declared = format!(
        "workloads:\n  - {{name: {APP}, cluster: {}, namespace: {OURS}, kind: deployment}}\n",
        super::CLUSTER
    );
    script.at_first.push(Sight::app_ready(replicas));
    let left = |what| Left {
        resource: "deployments",
        name: APP,
        what,
    };
    script.leaves = vec![left("restarted-at"), left("blackstart.io/changed-by")];
    script.acts = vec![
        Act::Refused {
            request: request(),
            missing: "something to mend",
        },
        Act::Trouble(
            format!("the pods of {APP} hang: they run, and answer no probe"),
            Event::Ail("never-ready"),
        ),
        Act::Until(Sight::NotReady),
        Act::Run(Run::new(
            request(),
            &["rollout-restart", "await-rollout", "await-steady"],
        )),
    ];
    script.ends.push(End::whole());
    script
}

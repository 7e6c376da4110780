//! Pod 故障恢复, `OOMKilled`: pods are killed for their memory. A limit range refuses more by name; without it the limit is raised by half, once
//! an operator approves.

use serde_json::json;

use super::cast::Cast;
use super::heal;
use super::objects::{APP, OURS, OUTCOME, container, workload};
use super::script::{Act, End, Event, Left, Run, Script, Sight};

const RANGE: &str = "small";

pub(super) fn script(cast: &Cast) -> Script {
    let needs = json!({OUTCOME: "oom-below=150Mi"});
    let limited = container(&json!({"requests": {"memory": "50Mi"}, "limits": {"memory": "100Mi"}}));
    let mut script = Script::new(
        cast,
        vec![json!({
            "apiVersion": "v1", "kind": "LimitRange",
            "metadata": {"name": RANGE, "namespace": OURS},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]},
        })],
    );
    let left = |what| Left {
        resource: "deployments",
        name: APP,
        what,
    };
    script.leaves = vec![
        left("memory"),
        left("blackstart.io/changed-by"),
        left("blackstart.io/template-before"),
    ];
    script.acts = vec![
        Act::Trouble(
            format!("{APP} is deployed with 100Mi, and takes 150Mi"),
            Event::Put(vec![workload(OURS, APP, cast.replicas, &needs, &limited)]),
        ),
        Act::Until(Sight::Waits {
            reason: "CrashLoopBackOff",
            restarts: 1,
        }),
        Act::Refused {
            request: heal("pods-heal"),
            missing: "LimitRange small",
        },
        Act::Happens(
            format!("an operator takes the limit range {RANGE} away"),
            Event::Remove {
                resource: "limitranges",
                name: RANGE,
            },
        ),
        Act::Run(Run::new(
            heal("pods-heal"),
            &["raise-memory", "await-rollout", "await-steady"],
        )),
    ];
    script.ends.extend([
        End::whole(),
        End::Template {
            workload: APP,
            at: "/spec/template/spec/containers/0/resources/limits/memory",
            is: json!("150Mi"),
        },
    ]);
    script
}

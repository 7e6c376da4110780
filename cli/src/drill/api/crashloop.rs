//! Pod 故障恢复, `CrashLoopBackOff`: a container ends at once for want of its configuration. Nothing tells Blackstart that it is back, so
//! making the pods again is refused until an operator says so.

use blackstart_apiserver::Outcome;
use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::heal;
use super::objects::{APP, OURS, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

const CONFIG: &str = "gateway-proxy-config";

pub(super) fn script(cast: &Cast) -> Script {
    let replicas = cast.replicas;
    let mut script = Script::new(cast, Vec::new());
    script.acts = vec![
        Act::Happens(
            format!("without the ConfigMap {CONFIG} {APP} ends as soon as it has started"),
            Event::Fare(Some((APP, Outcome::CrashLoopBackOff))),
        ),
        Act::Trouble(
            format!("{APP} is deployed, and nobody has made the ConfigMap {CONFIG}"),
            Event::Put(vec![workload(OURS, APP, replicas, &json!({}), &json!({}))]),
        ),
        Act::Until(Sight::Waits {
            reason: "CrashLoopBackOff",
            restarts: 2,
        }),
        Act::Refused {
            request: heal("pods-heal"),
            missing: "--skip-back-off",
        },
        Act::Happens(
            format!("an operator makes the ConfigMap {CONFIG}"),
            Event::Put(vec![json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": CONFIG, "namespace": OURS}, "data": {"routes": "[]"},
            })]),
        ),
        Act::Happens(
            "whoever starts anew finds it; those that wait for their next try do not look before".to_owned(),
            Event::Ail("crash-loop-back-off"),
        ),
        Act::Happens(format!("{APP} runs with it"), Event::Fare(None)),
        Act::Until(Sight::Waits {
            reason: "CrashLoopBackOff",
            restarts: 2,
        }),
        Act::Run(Run::new(
            RunbookRequest {
                skip_back_off: true,
                ..heal("pods-heal")
            },
            &["recreate", "await-steady"],
        )),
    ];
    script.ends.push(End::whole());
    script
}

//! Pod 故障恢复, `ImagePullBackOff`: the registry has no such image. Once it does, pods that wait for their kubelet's next try are made again
//! by an operator's word.

use blackstart_apiserver::Outcome;
use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::heal;
use super::objects::{APP, IMAGE, OURS, workload};
use super::script::{Act, End, Event, Run, Script, Sight};

pub(super) fn script(cast: &Cast) -> Script {
    let replicas = cast.replicas;
    let waits = || {
        Act::Until(Sight::Waits {
            reason: "ImagePullBackOff",
            restarts: 0,
        })
    };
    let mut script = Script::new(cast, Vec::new());
    script.acts = vec![
        Act::Happens(
            format!("the registry has no image {IMAGE}"),
            Event::Fare(Some((APP, Outcome::ImagePullBackOff))),
        ),
        Act::Trouble(
            format!("{APP} is deployed with it"),
            Event::Put(vec![workload(OURS, APP, replicas, &json!({}), &json!({}))]),
        ),
        waits(),
        Act::Refused {
            request: heal("pods-heal"),
            missing: "--skip-back-off",
        },
        Act::Happens(
            "kubelets wait for their next try, five minutes at most".to_owned(),
            Event::Ail("image-pull-back-off"),
        ),
        Act::Happens(format!("an operator pushes {IMAGE}"), Event::Fare(None)),
        waits(),
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

//! 节点负载过高: a node is overloaded by pods that may be moved. The heaviest go, one after the other, as budgets allow, until its load is low; the
//! rest stay, and nothing of the system is moved.

use blackstart_proto::v1::RunbookRequest;
use serde_json::json;

use super::cast::Cast;
use super::objects::{APP, OURS, budget, heavy};
use super::script::{Act, End, Event, Run, Script, Sight};

/// The heaviest, which its budget holds.
const HELD: &str = "held";

pub(super) fn script(cast: &Cast) -> Script {
    let victim = &cast.victim;
    let request = || RunbookRequest {
        runbook: "overload".to_owned(),
        node: victim.clone(),
        reason: "its load is high".to_owned(),
        threshold_percent: 70,
        hold_seconds: 1,
        ..RunbookRequest::default()
    };
    let elsewhere: Vec<_> = cast.others.iter().chain([&cast.refuge]).cloned().collect();
    let mut script = Script::new(cast, Vec::new());
    script.acts = vec![
        Act::Refused {
            request: request(),
            missing: "evidence that it is",
        },
        Act::Happens(
            "the other workers are cordoned by somebody".to_owned(),
            Event::Cordon(elsewhere.clone(), true),
        ),
        Act::Trouble(
            format!("what takes more than {victim} has comes to it"),
            Event::Put(vec![
                heavy(APP, 2, "1500m", &json!({})),
                heavy(HELD, 1, "1600m", &json!({})),
                budget(OURS, HELD, cast.release, &json!({"maxUnavailable": 0})),
            ]),
        ),
        Act::Until(Sight::app_ready(2)),
        Act::Until(Sight::ready(OURS, HELD, 1)),
        Act::Happens("they take pods again".to_owned(), Event::Cordon(elsewhere, false)),
        Act::Run(Run::new(request(), &["cordon", "relieve", "uncordon"])),
    ];
    script.ends.extend([
        End::whole(),
        End::Whole {
            namespace: OURS,
            workload: HELD,
        },
        End::Load {
            node: victim.clone(),
            below: 70,
        },
        End::Back(victim.clone()),
    ]);
    script
}

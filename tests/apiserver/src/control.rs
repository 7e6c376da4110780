//! Switches over HTTP, for trying things by hand: `/double/nodes/NAME/power-off` and the like. Nobody is asked who they are.

use crate::request::Asked;
use crate::shared::Shared;
use crate::{Fault, Rule};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Answers a request for a switch.
pub(crate) fn answer(shared: &Arc<Shared>, asked: &Asked, body: &Bytes) -> io::Result<Value> {
    let parts: Vec<&str> = asked.path.split('/').skip(2).collect();
    match parts.as_slice() {
        ["nodes", node, action] => {
            let known = shared.write(|world| {
                if !world.machines.contains_key(*node) {
                    return false;
                }
                match *action {
                    "power-off" => world.power_off(node),
                    "power-on" => world.power_on(node),
                    "stop-kubelet" => world.stop_kubelet(node),
                    "start-kubelet" => world.start_kubelet(node),
                    _ => return false,
                }
                true
            });
            shared.poke();
            Ok(json!({"done": known}))
        }
        ["advance"] => {
            let seconds = asked.param("seconds").parse().unwrap_or(1);
            shared.advance(Duration::from_secs(seconds));
            Ok(json!({"now": shared.clock.now().to_string()}))
        }
        ["apply"] => {
            let objects: Value = serde_json::from_slice(body).map_err(io::Error::other)?;
            let objects = objects.as_array().cloned().unwrap_or_else(|| vec![objects]);
            let applied = shared.write(|world| world.apply_manifests(&objects));
            Ok(applied.map_or_else(|refusal| refusal.status(), |()| json!({"applied": objects.len()})))
        }
        ["faults", what] => {
            let millis = asked.param("milliseconds").parse().unwrap_or(1000);
            let rules = match *what {
                "slow" => vec![Rule::all(Fault::Slow(Duration::from_millis(millis)))],
                "hang" => vec![Rule::all(Fault::Hang)],
                "reset" => vec![Rule::all(Fault::Reset)],
                "leader-changed" => vec![Rule::all(Fault::EtcdLeaderChanged)],
                "etcd-down" => vec![Rule::all(Fault::EtcdDown)],
                code => code
                    .parse()
                    .map(|code| vec![Rule::all(Fault::Status(code))])
                    .unwrap_or_default(),
            };
            let count = rules.len();
            shared.set_faults(|faults| faults.rules = rules);
            Ok(json!({"rules": count}))
        }
        ["cut-watches"] => {
            shared.cut.send_modify(|cut| *cut += 1);
            Ok(json!({"done": true}))
        }
        ["compact"] => {
            shared.write(|world| world.store.compact());
            Ok(json!({"done": true}))
        }
        ["requests"] => {
            let show = |request: &crate::Recorded| {
                json!({
                    "user": request.user, "verb": request.verb, "group": request.group, "resource": request.resource,
                    "subresource": request.subresource, "namespace": request.namespace, "path": request.path,
                    "code": request.code,
                })
            };
            Ok(shared.requests().iter().map(show).collect())
        }
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such switch")),
    }
}

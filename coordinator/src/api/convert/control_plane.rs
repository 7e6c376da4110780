//! What agents tell of the static pods of control planes, and what they are told to do with them.

use std::time::Duration;

use blackstart_proto::{part, v1};

use super::milliseconds;
use crate::control_plane::told::{Certificate, Health, PartTold, Told};
use crate::fleet::PartAct;

/// A question, for an agent.
pub(in crate::api) fn question(id: u64, within: Duration) -> v1::coordinator_message::Body {
    v1::coordinator_message::Body::ControlPlaneQuestion(v1::ControlPlaneQuestion {
        question_id: id,
        within_ms: milliseconds(within),
    })
}

/// A change, for an agent.
pub(super) fn change(act: PartAct) -> v1::control_plane_change::Change {
    use v1::control_plane_change::Change;
    match act {
        PartAct::Bounce => Change::Bounce(v1::PartBounce {}),
        PartAct::EtcdServers { from, to } => Change::SetFlag(v1::PartSetFlag {
            flag: v1::PartFlag::EtcdServers.into(),
            from,
            to,
        }),
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// What an agent told. Parts that this version does not know are left out.
pub(crate) fn told(wire: v1::ControlPlaneReport) -> Told {
    Told {
        parts: wire.parts.into_iter().filter_map(of_part).collect(),
        bad: wire.bad.into_iter().map(|bad| (bad.path, bad.why)).collect(),
        addresses: wire.addresses,
        trouble: given(wire.trouble),
    }
}

fn of_part(wire: v1::PartReport) -> Option<PartTold> {
    let health = match wire.health() {
        v1::PartHealth::Healthy => Health::Healthy,
        v1::PartHealth::Unhealthy | v1::PartHealth::TimedOut | v1::PartHealth::Refused => Health::Not,
        v1::PartHealth::Unknown | v1::PartHealth::Unspecified => Health::Unknown,
    };
    Some(PartTold {
        part: part::from_wire(wire.part())?,
        manifest: wire.manifest,
        out_by: given(wire.out_by),
        url: wire.url,
        health,
        health_words: wire.health_detail,
        not_running: wire.not_running,
        certificates: wire
            .certificates
            .into_iter()
            .map(|one| Certificate {
                path: one.path,
                expired: given(one.expired),
                trouble: given(one.trouble),
            })
            .collect(),
        log: wire.log,
        etcd_servers: wire.etcd_servers,
    })
}

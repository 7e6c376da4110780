//! What exactly a command asked, in a line for the audit: the message, reason and all. No command has a secret in it.

use std::fmt::Debug;

use blackstart_proto::{Message, v1};

/// Bytes before a message: whether it is compressed, and how long it is. None is compressed: this server offers no way.
const FRAME: usize = 5;

/// Of a call by its path; empty for one without a message, or one that cannot be read, which the service then refuses.
pub(super) fn asked(path: &str, body: &[u8]) -> String {
    let message = body.get(FRAME..).unwrap_or_default();
    let call = path.rsplit('/').next().unwrap_or_default();
    let read = match call {
        "StartColdStart" => read::<v1::ColdStartRequest>,
        "PauseRun" | "ResumeRun" | "AbortRun" => read::<v1::RunControlRequest>,
        "SetHold" => read::<v1::SetHoldRequest>,
        "LiftHold" => read::<v1::LiftHoldRequest>,
        "ThawStorm" => read::<v1::ThawStormRequest>,
        "ReleasePermit" => read::<v1::ReleasePermitRequest>,
        "StartRunbook" => read::<v1::RunbookRequest>,
        "ApproveRunbook" => read::<v1::ApproveRunbookRequest>,
        "AbortRunbook" => read::<v1::RunbookRunRequest>,
        "FetchEtcdSnapshot" => read::<v1::FetchEtcdSnapshotRequest>,
        "CreateToken" => read::<v1::CreateTokenRequest>,
        "RevokeToken" => read::<v1::RevokeTokenRequest>,
        "Revoke" => read::<v1::RevokeRequest>,
        "RenewOperator" => read::<v1::RenewOperatorRequest>,
        "AllowRenewal" => read::<v1::AllowRenewalRequest>,
        _ => return String::new(),
    };
    read(message)
}

fn read<M: Message + Default + Debug>(message: &[u8]) -> String {
    M::decode(message).map_or_else(|_| String::new(), |message| format!("{message:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::rights::is_command;

    const PROTOS: [&str; 3] = [
        include_str!("../../../proto/proto/blackstart/v1/fleet.proto"),
        include_str!("../../../proto/proto/blackstart/v1/runbook.proto"),
        include_str!("../../../proto/proto/blackstart/v1/enrolment.proto"),
    ];

    #[test]
    fn every_command_says_what_it_asked() {
        let mut commands = 0;
        for line in PROTOS.iter().flat_map(|proto| proto.lines()) {
            let Some(rest) = line.trim().strip_prefix("rpc ") else {
                continue;
            };
            let call = rest.split('(').next().unwrap();
            let services = ["FleetService", "RunbookService", "TrustService"];
            let mut paths = services
                .iter()
                .map(|service| format!("/blackstart.v1.{service}/{call}"));
            let Some(path) = paths.find(|path| is_command(path)) else {
                continue;
            };
            // A message without fields can be read as any, and its name is told.
            assert!(
                asked(&path, &[0; FRAME]).contains("Request"),
                "{path}: say in asked() what it asks"
            );
            commands += 1;
        }
        assert!(commands > 12, "{commands}");
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        assert_eq!(
            asked("/blackstart.v1.FleetService/SetHold", b"\0\0\0\0\x01\xff"),
            ""
        );
        assert_eq!(asked("/blackstart.v1.FleetService/ListNodes", b""), "");
    }
}

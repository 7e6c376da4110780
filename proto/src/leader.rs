//! How a coordinator that follows says who leads: in the metadata of the status by which it refuses.

use std::net::SocketAddr;

use tonic::Status;
use tonic::metadata::AsciiMetadataValue;

/// `IP:PORT,…`
const LEADER: &str = "blackstart-leader";

/// The refusal of a coordinator that follows the one at `addresses`.
pub fn elsewhere(message: impl Into<String>, addresses: &[SocketAddr]) -> Status {
    let mut status = Status::failed_precondition(message);
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if let Ok(list) = AsciiMetadataValue::try_from(list.join(",")) {
        status.metadata_mut().insert(LEADER, list);
    }
    status
}

/// Where the leader is, if that is why a coordinator refused. What is no address is passed over.
pub fn leader_at(status: &Status) -> Vec<SocketAddr> {
    let list = status.metadata().get(LEADER).and_then(|list| list.to_str().ok());
    let addresses = list.unwrap_or_default().split(',');
    addresses.filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let addresses = [
            "10.0.0.1:7443".parse().unwrap(),
            "[fd00::1]:7443".parse().unwrap(),
        ];
        assert_eq!(leader_at(&elsewhere("a leads", &addresses)), addresses);
        assert_eq!(leader_at(&elsewhere("nobody leads", &[])), []);
        assert_eq!(leader_at(&Status::failed_precondition("no")), []);
    }
}

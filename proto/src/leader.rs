//! What coordinators that follow say in the metadata of calls: who leads, by which way an answer came, and for whom they ask.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::metadata::AsciiMetadataValue;

use crate::identity::valid_name;

/// `IP:PORT,…`
pub const LEADER: &str = "blackstart-leader";
/// Of a forwarded call: the operator whom the coordinator that forwards it has identified.
pub const OPERATOR: &str = "blackstart-operator";
/// Names a command, so that one that is given twice is carried out once.
pub const REQUEST: &str = "blackstart-request";

/// The name of the coordinator that took the call and does not lead.
const FOLLOWER: &str = "blackstart-follower";
/// The name of the one that answered.
const ANSWERED_BY: &str = "blackstart-answered-by";
/// Milliseconds since what the answer was made from was certainly all that there was.
const STORE_AGE: &str = "blackstart-store-age-ms";

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

/// How an answer came about that was not asked of the leader itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The coordinator that was asked, which follows.
    pub follower: String,
    /// What it did.
    pub way: Way,
}

/// What a coordinator that follows did with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It asked the leader of this name.
    Forwarded(String),
    /// It answered from the store, as of so long ago: what only the leader knows is not in it.
    Store(Duration),
}

impl Route {
    /// Says so in the headers of an answer.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(FOLLOWER, name(&self.follower));
        match &self.way {
            Way::Forwarded(leader) => headers.insert(ANSWERED_BY, name(leader)),
            Way::Store(age) => headers.insert(
                STORE_AGE,
                HeaderValue::from(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            ),
        };
    }

    /// What the headers of an answer say; `None`: whoever answered leads.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |key| {
            headers
                .get(key)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let age = text(STORE_AGE).and_then(|age| age.parse().ok());
        let way = match (age, text(ANSWERED_BY)) {
            (Some(age), _) => Way::Store(Duration::from_millis(age)),
            (None, Some(leader)) => Way::Forwarded(leader.to_owned()),
            (None, None) => return None,
        };
        Some(Self {
            follower: text(FOLLOWER)?.to_owned(),
            way,
        })
    }
}

/// A coordinator may be called whatever its machine is called.
fn name(name: &str) -> HeaderValue {
    HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("another"))
}

/// The name of a command, if the headers have one that can be kept.
pub fn request(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(REQUEST)?.to_str().ok()?;
    valid_name(name).then_some(name)
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

    #[test]
    fn the_way_of_an_answer_is_understood() {
        for way in [
            Way::Forwarded("coordinator-1".to_owned()),
            Way::Store(Duration::from_millis(1234)),
        ] {
            let route = Route {
                follower: "coordinator-2".to_owned(),
                way,
            };
            let mut headers = HeaderMap::new();
            route.write(&mut headers);
            assert_eq!(Route::read(&headers), Some(route));
        }
        assert_eq!(Route::read(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_is_named_by_what_can_be_kept() {
        let mut headers = HeaderMap::new();
        assert_eq!(request(&headers), None);
        headers.insert(REQUEST, HeaderValue::from_static("4f2a"));
        assert_eq!(request(&headers), Some("4f2a"));
        headers.insert(REQUEST, HeaderValue::from_static("rm -rf"));
        assert_eq!(request(&headers), None);
    }
}

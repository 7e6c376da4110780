//! What the fuzzer feeds: one function for each file and message that the coordinator parses. Each must return whatever the
//! bytes are, and says what else must hold. The fuzzer itself lives in `tests/fuzz`; its corpora are read by the test here as well.

use std::sync::LazyLock;

use blackstart_proto::Message as _;
use blackstart_proto::identity::{PeerIdentity, valid_name};
use blackstart_proto::line;
use blackstart_proto::part::Part;
use blackstart_proto::v1;
use blackstart_proto::v1::agent_message::Body;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::api::convert::{agent as convert, control_plane as parts, etcd};
use crate::control_plane::judge::State;
use crate::execute::record::Run;
use crate::fleet::EtcdAnswer;
use crate::inventory::{ClusterName, NodeName};
use crate::pki::{CertificateRequest, Shown};
use crate::power::redfish;
use crate::quorum::judge::{self, Answers, View};
use crate::quorum::sources;
use crate::store::backup;
use crate::trust::book::secret_digest;
use crate::trust::oidc;
use crate::upkeep::check;
use crate::{api, config, control_plane, fleetlock, inventory, kubernetes, store};

/// What a fuzzer feeds.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("agent_lines", agent_lines),
    ("agent_messages", agent_messages),
    ("backup", read_backup),
    ("bmc_answers", bmc_answers),
    ("certificate_requests", certificate_requests),
    ("control_plane_answers", control_plane_answers),
    ("coordinator_config", coordinator_config),
    ("enrolment_requests", enrolment_requests),
    ("etcd_answers", etcd_answers),
    ("fleetlock_requests", fleetlock_requests),
    ("inventory", read_inventory),
    ("journal", journal),
    ("kube_answers", kube_answers),
    ("operator_requests", operator_requests),
    ("store_answers", store_answers),
    ("tokens", tokens),
];

/// What comes on an agent's line. Nothing larger than is allowed is a message.
pub fn agent_lines(bytes: &[u8]) {
    const MOST: usize = 1 << 10;
    let mut line = line::Incoming::new(bytes, MOST);
    // Bytes in memory are there at once, and so is what they come to.
    while let Some(Ok(Some(message))) = line.next::<v1::AgentMessage>().now_or_never() {
        assert!(message.encoded_len() <= MOST);
    }
}

/// What an agent says. Whatever is kept of a report is bounded.
pub fn agent_messages(bytes: &[u8]) {
    let Ok(message) = v1::AgentMessage::decode(bytes) else {
        return;
    };
    let now = Instant::now();
    match message.body {
        Some(Body::Hello(hello)) => {
            let _hello = convert::hello(hello);
        }
        Some(Body::Report(report)) => {
            if let Ok(report) = convert::report(report, now) {
                assert!(report.conditions.len() <= 256 && report.remedies.len() <= 256);
                assert!(
                    report
                        .conditions
                        .iter()
                        .all(|one| one.evidence.len() <= 2048 && one.since <= now)
                );
            }
        }
        Some(Body::Result(result)) => {
            let _answer = convert::answer(&NodeName("n".to_owned()), result);
        }
        Some(Body::Goodbye(goodbye)) => {
            let _leave = convert::leave(goodbye);
        }
        // Their names and texts are bounded, and go no further than the keeper.
        Some(
            Body::PermitRequest(_)
            | Body::PermitReturn(_)
            | Body::EtcdAnswer(_)
            | Body::ControlPlaneAnswer(_),
        )
        | None => {}
    }
}

/// A backup of the store; and a body that a checksum vouches for, which is read, checked, and comes back as it was.
pub fn read_backup(bytes: &[u8]) {
    let body = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes, |at| &bytes[at + 1..]);
    for form in [bytes, &backup::framed(body)] {
        if let Ok(snapshot) = backup::decode(form) {
            let report = check::check(&snapshot);
            let broken = report
                .problems
                .iter()
                .filter(|problem| problem.of.starts_with("run "));
            assert_eq!(report.runs.len() + broken.count(), snapshot.runs.len());
            assert_eq!(backup::decode(&backup::encode(&snapshot)), Ok(snapshot));
        }
    }
}

/// What the management controller of a machine answers. Credentials go only to its own paths, and what is shown of it is short.
pub fn bmc_answers(bytes: &[u8]) {
    match redfish::only_system(bytes) {
        Ok(path) => assert!(redfish::is_path(&path), "{path:?}"),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
    if let Ok(system) = redfish::system("/redfish/v1/Systems/1", bytes) {
        match system.reset {
            Ok(path) => assert!(redfish::is_path(&path), "{path:?}"),
            Err(why) => assert!(!why.is_empty() && why.len() < 4096),
        }
        if let Some(uuid) = system.uuid {
            assert_ne!(redfish::same_machine(&uuid, &uuid), Some(false));
        }
    }
}

/// What a node that joins wants to have certified: whoever reaches the port can send it. What is known of a key that is taken is its digest.
pub fn certificate_requests(bytes: &[u8]) {
    match CertificateRequest::read(bytes) {
        // SHA-256, in hexadecimal digits.
        Ok(request) => {
            let key = request.key();
            assert!(key.len() == 64 && key.bytes().all(|one| one.is_ascii_hexdigit()));
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// What somebody without a certificate says who joins, or renews one: names, a token, and two documents in DER.
pub fn enrolment_requests(bytes: &[u8]) {
    let request = |der: &[u8]| {
        if let Ok(request) = CertificateRequest::read(der) {
            assert_eq!(request.key().len(), 64);
        }
    };
    if let Ok(asked) = v1::JoinRequest::decode(bytes) {
        if valid_name(&asked.node) {
            let peer = PeerIdentity::Node(asked.node);
            assert_eq!(peer.to_string().parse(), Ok(peer));
        }
        if let Some((_, secret)) = asked.token.trim().split_once('.') {
            assert_eq!(secret_digest(secret).len(), 64);
        }
        request(&asked.request);
    }
    if let Ok(asked) = v1::RenewRequest::decode(bytes) {
        if let Ok(shown) = Shown::read(&asked.certificate) {
            assert!(!shown.serial.is_empty() && !shown.key.is_empty());
        }
        request(&asked.request);
    }
}

/// A request of an operator: the first byte says of which call, the rest is the message.
pub fn operator_requests(bytes: &[u8]) {
    api::fuzz::request(bytes);
}

/// What the API server of a cluster answers, in JSON.
pub fn kube_answers(bytes: &[u8]) {
    kubernetes::fuzz::answers(bytes);
}

/// What etcd tells of the store of several coordinators.
pub fn store_answers(bytes: &[u8]) {
    store::etcd::fuzz::answers(bytes);
}

/// What a reboot tool says: the path on the first line, and a body. A node that is found is one of the cluster that was named.
pub fn fleetlock_requests(bytes: &[u8]) {
    static FLEET: LazyLock<inventory::Inventory> = LazyLock::new(|| {
        let text = "clusters:\n- name: a\n  nodes:\n  - {name: a-1, address: 10.0.0.1, role: control-plane, machine_id: e0f3745b108f471cbd4883c6fbed8cdd}\n\
                    - name: b\n  nodes:\n  - {name: b-1, address: 10.0.0.3, role: control-plane}\n";
        let loaded = inventory::parse("inventory.yaml", text);
        loaded.unwrap_or_else(|problems| panic!("{problems}")).inventory
    });
    let at = bytes.iter().position(|byte| *byte == b'\n');
    let (path, body) = bytes.split_at(at.unwrap_or_default());
    let _operation = str::from_utf8(path).map(fleetlock::Operation::at);
    match fleetlock::node(&FLEET, body) {
        Ok(node) => assert!(FLEET.node(&node).is_some()),
        Err(refused) => assert!((400..500).contains(&refused.status) && !refused.value.is_empty()),
    }
}

/// What agents tell of their etcd members: of one, of two that contradict each other, and of one that says nothing. Whoever is said to be well
/// votes, and numbers that cannot be do no harm.
pub fn etcd_answers(bytes: &[u8]) {
    let half = bytes.len() / 2;
    let told = |bytes| {
        let answer = etcd::answer(v1::EtcdAnswer::decode(bytes).ok()?)?;
        match answer {
            EtcdAnswer::Told(told) => Some(*told),
            EtcdAnswer::Verified(checks) => {
                assert!(checks.len() <= 256);
                None
            }
            EtcdAnswer::Found(sources, _) => {
                assert!(sources.len() <= 256);
                let found = [(NodeName("m1".to_owned()), Ok(sources))].into();
                if let Ok(choice) = sources::choose(&found, &View::default(), None) {
                    assert!(choice.source.damage.is_none());
                }
                None
            }
            EtcdAnswer::Template(template) => {
                assert!(template.map_or(0, |template| template.text.len()) <= 64 << 10);
                None
            }
            EtcdAnswer::Newcomer(prepared) => {
                assert!(prepared.text.len() <= 64 << 10 && prepared.missing.len() <= 257);
                None
            }
            EtcdAnswer::Piece(_) => None,
        }
    };
    let mut answers = Answers::new();
    for (node, bytes) in [("m1", bytes), ("m2", &bytes[..half]), ("m3", &bytes[half..])] {
        let told = told(bytes).ok_or_else(|| "its agent is not connected".to_owned());
        answers.insert(NodeName(node.to_owned()), told);
    }
    let view = judge::judge(&answers, 1_800_000_000);
    assert!(view.healthy() <= view.voters());
    assert!(!view.has_quorum() || view.healthy() >= view.quorum());
    if let Some(survivor) = judge::survivor(&view) {
        assert!(survivor.node.is_some());
    }
    let _age = judge::newest(&view);
    let shown = etcd::view(&ClusterName("c".to_owned()), &view);
    assert_eq!(shown.members.len(), view.members.len());
}

/// What agents tell of the static pods of their masters: of one, of two that contradict each other, and of one that says nothing. Every part is
/// well, or there is a cause that can be told.
pub fn control_plane_answers(bytes: &[u8]) {
    let half = bytes.len() / 2;
    let masters = [("m1", bytes), ("m2", &bytes[..half]), ("m3", &bytes[half..])];
    let told = |bytes| {
        let report = v1::ControlPlaneReport::decode(bytes);
        report
            .map(parts::told)
            .map_err(|_| "its agent is not connected".to_owned())
    };
    let view = control_plane::judge::View {
        masters: masters
            .into_iter()
            .map(|(node, bytes)| (NodeName(node.to_owned()), told(bytes)))
            .collect(),
        vip: "10.0.0.100".parse().ok(),
    };
    let holders = view.holders();
    assert!(holders.len() <= 3);
    let _vip = view.vip_words(None);
    for node in view.masters.keys() {
        for part in Part::ALL {
            match view.state(node, part, None) {
                State::Well(words) => assert!(!words.is_empty()),
                State::Nowhere => {}
                State::Ill(cause) => assert!(!cause.words(part, node).is_empty()),
            }
        }
    }
}

/// The configuration.
pub fn coordinator_config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Err(problems) = config::parse("coordinator.yaml", text) {
        assert!(!problems.to_string().is_empty());
    }
}

/// The declared fleet, read and linted.
pub fn read_inventory(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Err(problems) = inventory::parse("inventory.yaml", text) {
        assert!(!problems.to_string().is_empty());
    }
}

/// The journal of a run, an entry a line.
pub fn journal(bytes: &[u8]) {
    let entries: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if let Err(why) = Run::replay("run", &entries, Instant::now()) {
        assert!(why.index <= entries.len() as u64);
    }
}

/// An identity provider's keys, and on the last line an operator's token.
pub fn tokens(bytes: &[u8]) {
    let at = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (keys, token) = bytes.split_at(at);
    if let Ok(token) = str::from_utf8(token) {
        oidc::fuzz(keys, token.trim_start());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_corpus_is_survived() {
        let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let dir = corpora.join(name);
            let mut files = 0;
            for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
                target(&fs::read(entry.unwrap().path()).unwrap());
                files += 1;
            }
            assert!(files > 0, "{} is empty", dir.display());
        }
    }
}

//! What the fuzzer feeds: one function for each file and stream that the agent parses. Each must return whatever the bytes
//! are, and says what else must hold. The fuzzer itself lives in `tests/fuzz`; its corpora are read by the tests here as well, so
//! what it once found stays mended.

use std::path::Path;
use std::time::Duration;

use blackstart_proto::boot::BootIdentity;
use blackstart_proto::etcd::StatusResponse;
use blackstart_proto::v1::coordinator_message::Body;
use blackstart_proto::{Message as _, line, v1, yaml};
use bollard::models::{ContainerSummary, EventMessage};
use futures_util::FutureExt;

use tokio::time::Instant;

use crate::etcd::look;
use crate::etcd::pod::EtcdPod;
use crate::etcd::rewrite;
use crate::gate::files::{Heard, Record, Release, understand};
use crate::ledger::Ledger;
use crate::local::Question;
use crate::local::answer::Answer;
use crate::watch::{certificates, cgroup, kernel, load, memory, mounts, pleg, psi, runtime};
use crate::watch::{network as net, static_pods as pods};
use crate::{config, control_plane, kubernetes, link, reclaim, remedy};

/// What a fuzzer feeds.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 13] = [
    ("agent_config", agent_config),
    ("ledger", ledger),
    ("kernel_log", kernel_log),
    ("proc_files", proc_files),
    ("static_pods", static_pods),
    ("network", network),
    ("docker_answers", docker_answers),
    ("node_answers", node_answers),
    ("commands", commands),
    ("coordinator_lines", coordinator_lines),
    ("etcd_manifests", etcd_manifests),
    ("certificates", certificates),
    ("state_files", state_files),
];

/// The configuration. One that is accepted is accepted again, and gives the same settings.
pub fn agent_config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match config::parse("agent.yaml", text) {
        Ok(settings) => assert_eq!(config::parse("agent.yaml", text).ok(), Some(settings)),
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
    let _duration = yaml::parse_duration(text);
}

/// The ledger. What follows the last whole record, cut or not, changes nothing of those before it.
pub fn ledger(bytes: &[u8]) {
    let path = Path::new("ledger");
    if let Ok(contents) = Ledger::understand(path, bytes) {
        let mut padded = bytes.to_owned();
        padded.extend([0; 64]);
        if let Ok(again) = Ledger::understand(path, &padded) {
            assert!(again.records.len() >= contents.records.len());
            assert!(again.highest_epoch >= contents.highest_epoch);
        }
    }
}

/// Records of `/dev/kmsg`, line by line. What is told of a message is short, however long that is.
pub fn kernel_log(bytes: &[u8]) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(record) = kernel::record::parse(line) {
            assert!(record.level <= 7);
            let told = format!("{:?}", kernel::message::classify(record.text));
            assert!(told.len() < 4096, "{} bytes", told.len());
        }
    }
}

/// Files of `/proc` and of control groups.
pub fn proc_files(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        let _maps = reclaim::writers::maps_for_writing(line, 0x0700, 12);
    }
    let _mount = mounts::state(Path::new("/var"), bytes, bytes);
    let Ok(text) = str::from_utf8(bytes) else { return };
    for version in [cgroup::Version::One, cgroup::Version::Two] {
        let _stat = cgroup::stat_of(text, version);
    }
    let _anonymous = cgroup::rss_anon(text);
    let _pleg = pleg::read(text);
    if let Some((total, available)) = memory::files::meminfo(text) {
        assert!(available <= total);
    }
    for over in [psi::Over::TenSeconds, psi::Over::OneMinute] {
        let Some(pressure) = psi::parse(text, over) else {
            continue;
        };
        assert!(pressure.some.is_finite() && pressure.full.is_finite());
    }
    if let Some((one, five)) = load::loadavg(text) {
        assert!(one.is_finite() && five.is_finite());
    }
    let _pages = memory::files::resident_pages(text);
    let _state = load::state(text);
    let _access = reclaim::writers::parse_access(text);
    let _ended = remedy::vacuum_journal::ended(text);
}

/// Manifests of static pods. What is asked of one is on this machine, and a pod's name is one.
pub fn static_pods(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match pods::manifest::Manifest::parse(text) {
        Ok(manifest) => {
            assert!(pods::manifest::is_pod_name(&manifest.name), "{:?}", manifest.name);
            let _health = manifest.health(None);
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Answers of name servers, their list, routes and CNI configurations.
pub fn network(bytes: &[u8]) {
    let _answer = net::dns::read(1, bytes);
    for list in [true, false] {
        let _usable = net::cni::understand(bytes, list);
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(servers) = net::dns::servers(Ok(text.to_owned())) {
        assert!(!servers.is_empty() && servers.len() <= 16);
    }
    for line in text.lines() {
        let _route = net::routes::of_v4(line);
        let _route = net::routes::of_v6(line);
    }
}

/// Docker's events.
pub fn docker_answers(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<EventMessage>(bytes) {
        let _event = runtime::containers::parse(message);
    }
}

/// What else answers on the node: docker's list of containers, the API server's word on the node, the status of the etcd member, and the last
/// lines of a pod's log. What is told of a line is short, and is one line.
pub fn node_answers(bytes: &[u8]) {
    if let Ok(list) = serde_json::from_slice::<Vec<ContainerSummary>>(bytes) {
        let text =
            "kind: Pod\nmetadata: {name: etcd, namespace: kube-system}\nspec: {containers: [{name: etcd}]}";
        let manifest = pods::manifest::Manifest::parse(text).expect("a manifest");
        let many = list.len();
        let containers = pods::containers::Containers::told(list);
        let runs = containers.any_of(&manifest, &["etcd-events"]);
        assert!(runs.is_some() && (runs == Some(false) || many > 0));
        let _of = containers.of(&manifest, &[]);
    }
    kubernetes::fuzz(bytes);
    if let Ok(said) = StatusResponse::decode(bytes) {
        assert!(look::status(&said).alarms.len() <= said.errors.len());
    }
    for line in control_plane::log::lines(&String::from_utf8_lossy(bytes)) {
        assert!(line.chars().count() <= 300 && !line.contains(char::is_control));
    }
}

/// What the coordinator says. No order outlives the longest that one may wait.
pub fn commands(bytes: &[u8]) {
    let Ok(message) = v1::CoordinatorMessage::decode(bytes) else {
        return;
    };
    let now = Instant::now();
    match message.body {
        Some(Body::Command(command)) => {
            if let Ok(order) = link::convert::order(command, now) {
                assert!(order.expires_at <= now + Duration::from_hours(24));
            }
        }
        Some(Body::Brakes(brakes)) => {
            let _word = link::convert::word(brakes, now);
        }
        Some(Body::PermitAnswer(answer)) => {
            let _answer = link::convert::permit(answer, now);
        }
        _ => {}
    }
}

/// What comes on the line of a session from a coordinator, message by message.
pub fn coordinator_lines(bytes: &[u8]) {
    const MOST: usize = 1 << 10;
    let mut line = line::Incoming::new(bytes, MOST);
    // Bytes in memory are there at once, and so is what they come to.
    while let Some(Ok(Some(message))) = line.next::<v1::LineMessage>().now_or_never() {
        assert!(message.encoded_len() <= MOST);
    }
}

/// Manifests of etcd, and the same made to join an existing cluster: everything else stays as it was written.
pub fn etcd_manifests(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(pod) = EtcdPod::parse(text) else { return };
    assert!(pod.endpoints().len() <= pod.listen.len());
    let members = "m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380";
    if let Ok(moved) = rewrite::moved(text, "m4", "10.0.0.4", members) {
        let read = EtcdPod::parse(&moved).expect("what was written can be read");
        assert_eq!((read.name.as_str(), &read.data_dir), ("m4", &pod.data_dir));
    }
    if let Ok(joining) = rewrite::joining(text, members) {
        let read = EtcdPod::parse(&joining).expect("what was written can be read");
        let expected = EtcdPod {
            initial_cluster: members.to_owned(),
            initial_cluster_state: "existing".to_owned(),
            ..pod
        };
        assert_eq!(read, expected);
    }
}

/// PEM files and kubeconfigs.
pub fn certificates(bytes: &[u8]) {
    for pem_only in [true, false] {
        if let Err(why) = certificates::read::parse(bytes, pem_only) {
            assert!(!why.is_empty());
        }
    }
}

/// What the agent, its gate and its command write for one another: files of the state directory and lines of the socket.
pub fn state_files(bytes: &[u8]) {
    let _record = understand::<Record>(bytes, None);
    let _release = understand::<Release>(bytes, Some("nonce"));
    let _heard = understand::<Heard>(bytes, Some("nonce"));
    let _boot = serde_json::from_slice::<BootIdentity>(bytes);
    let _question = serde_json::from_slice::<Question>(bytes);
    let _answer = serde_json::from_slice::<Answer>(bytes);
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

//! Each state that the plan lists, and each cause, by objects as API servers tell them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::case::Case;
use super::super::node_down::NotDead;
use super::scheduling::reasons;
use super::{Cause, Diagnosis, State, all};
use crate::kubernetes::detail::{Claim, Event, PodDetail, Room, Workload};
use crate::kubernetes::objects::workload::WorkloadKind;

fn now() -> Timestamp {
    "2026-11-28T08:00:00Z".parse().unwrap()
}

/// A pod of a replica set on a node, an hour old, with these fields beside.
fn pod(status: impl Into<Value>) -> Value {
    let status: Value = status.into();
    json!({
        "metadata": {
            "name": "web-1", "namespace": "biz", "uid": "u", "creationTimestamp": "2026-11-28T07:00:00Z",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d", "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "registry.lan/web:1"}]},
        "status": status,
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    let phase = if reason == "CrashLoopBackOff" {
        "Running"
    } else {
        "Pending"
    };
    pod(json!({"phase": phase, "containerStatuses": [
        {"name": "c", "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}},
    ]}))
}

fn crashed(code: i64, reason: &str) -> Value {
    pod(json!({"phase": "Running", "containerStatuses": [{
        "name": "c", "restartCount": 7,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": code, "reason": reason}},
    }]}))
}

fn unscheduled(message: &str) -> Value {
    let mut pod = pod(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
    ]}));
    pod["spec"]["nodeName"] = json!(null);
    pod
}

fn event(reason: &str, message: &str) -> Event {
    Event::read(&json!({
        "involvedObject": {"kind": "Pod", "name": "web-1", "uid": "u"}, "type": "Warning",
        "reason": reason, "message": message, "count": 2,
    }))
}

fn room(ready: &str) -> Room {
    Room::read(
        &json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
    )
}

fn case(pod: &Value, events: Vec<Event>) -> Case {
    Case {
        pods: vec![PodDetail::read(pod).unwrap()],
        events,
        rooms: vec![room("True")],
        ..Case::default()
    }
}

fn only(case: &Case) -> Diagnosis {
    let mut found = all(case, now());
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

#[test]
fn what_runs_as_it_should_is_not_told() {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let well = pod(
        json!({"phase": "Running", "conditions": ready, "containerStatuses": [
            {"name": "c", "restartCount": 4, "ready": true, "state": {"running": {}}, "lastState": {"terminated": {
                "exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T08:00:00Z"}}},
        ]}),
    );
    let done = pod(json!({"phase": "Succeeded"}));
    let mut young = waiting("ContainerCreating", "");
    young["metadata"]["creationTimestamp"] = json!("2026-11-28T07:59:30Z");
    let mut going = well.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-11-28T07:59:45Z");
    for pod in [well, done, young, going] {
        assert_eq!(all(&case(&pod, Vec::new()), now()), [], "{pod:#}");
    }
}

#[test]
fn a_container_that_ends_over_and_over_is_told_by_how_it_ended() {
    let liveness = || {
        vec![event(
            "Unhealthy",
            "Liveness probe failed: HTTP probe failed with statuscode: 500",
        )]
    };
    let startup = || {
        vec![event(
            "Unhealthy",
            "Startup probe failed: dial tcp 10.0.0.1:80: connect: connection refused",
        )]
    };
    let table = [
        (crashed(137, "OOMKilled"), vec![], Cause::OomKilled),
        // Its probe failed as well, and that was not why.
        (crashed(137, "OOMKilled"), liveness(), Cause::OomKilled),
        (crashed(137, "Error"), liveness(), Cause::LivenessFailed),
        (crashed(143, "Error"), startup(), Cause::StartupFailed),
        // A probe that failed once says nothing of a container that ended by itself.
        (crashed(1, "Error"), liveness(), Cause::ExitCode { code: 1 }),
        (crashed(137, "Error"), vec![], Cause::Killed),
        (crashed(143, "Error"), vec![], Cause::AskedToEnd),
        (crashed(139, "Error"), vec![], Cause::Segfault),
        (crashed(127, "Error"), vec![], Cause::CommandBroken),
        (crashed(128, "ContainerCannotRun"), vec![], Cause::CommandBroken),
        (crashed(0, "Completed"), vec![], Cause::EndsByItself),
    ];
    for (pod, events, cause) in table {
        let found = only(&case(&pod, events));
        assert_eq!(found.state, State::CrashLoop);
        assert_eq!(found.findings[0].cause, cause, "{pod:#}");
        assert_eq!(found.findings[0].container.as_deref(), Some("c"));
        assert_eq!(found.controller.as_deref(), Some("ReplicaSet web-5d"));
    }
}

#[test]
fn a_container_that_was_started_again_often_and_lately_is_told_though_it_runs() {
    let restarted = |count: u64, reason: &str, finished: &str| {
        pod(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                {"name": "c", "restartCount": count, "ready": true, "state": {"running": {}}, "lastState": {"terminated": {
                    "exitCode": 137, "reason": reason, "finishedAt": finished}}},
            ]}),
        )
    };
    let soon = "2026-11-28T07:55:00Z";
    for (count, reason, cause) in [(3, "Error", Cause::Killed), (1, "OOMKilled", Cause::OomKilled)] {
        let found = only(&case(&restarted(count, reason, soon), Vec::new()));
        assert_eq!(
            (found.state, &found.findings[0].cause),
            (State::Restarting, &cause)
        );
    }
    for (count, finished) in [(2, soon), (9, "2026-11-28T07:45:00Z")] {
        assert_eq!(
            all(&case(&restarted(count, "Error", finished), Vec::new()), now()),
            []
        );
    }
}

#[test]
fn an_image_that_cannot_be_had_is_told_by_the_words_of_runtimes() {
    let image = || "registry.lan/web:1".to_owned();
    let failed = |words: &str| {
        vec![event(
            "Failed",
            &format!("Failed to pull image \"registry.lan/web:1\": {words}"),
        )]
    };
    let back_off = || {
        waiting(
            "ImagePullBackOff",
            "Back-off pulling image \"registry.lan/web:1\"",
        )
    };
    let table = [
        (
            back_off(),
            failed("rpc error: code = NotFound desc = failed to pull and unpack image: not found"),
            Cause::ImageNotFound { image: image() },
        ),
        (
            back_off(),
            failed("manifest for registry.lan/web:1 not found: manifest unknown"),
            Cause::ImageNotFound { image: image() },
        ),
        (
            back_off(),
            failed(
                "pull access denied for registry.lan/web, repository does not exist or may require 'docker login'",
            ),
            Cause::ImageUnauthorized { image: image() },
        ),
        (
            back_off(),
            failed("unexpected status code 401 Unauthorized"),
            Cause::ImageUnauthorized { image: image() },
        ),
        (
            back_off(),
            failed("Get https://registry.lan/v2/: dial tcp 10.0.0.9:443: i/o timeout"),
            Cause::RegistryUnreachable { image: image() },
        ),
        (
            back_off(),
            failed("dial tcp: lookup registry.lan: no such host"),
            Cause::RegistryUnreachable { image: image() },
        ),
        (
            back_off(),
            failed("write /var/lib/containerd/x: no space left on device"),
            Cause::NodeDiskFull,
        ),
        (back_off(), vec![], Cause::ImagePullFailed { image: image() }),
        (
            waiting("ErrImageNeverPull", "not present with pull policy of Never"),
            vec![],
            Cause::ImageNeverPulled { image: image() },
        ),
        (
            waiting("InvalidImageName", "couldn't parse image reference"),
            vec![],
            Cause::ImageNameInvalid { image: image() },
        ),
    ];
    for (pod, events, cause) in table {
        let found = only(&case(&pod, events.clone()));
        assert_eq!(
            (found.state, &found.findings[0].cause),
            (State::ImagePull, &cause),
            "{events:?}"
        );
        assert!(!found.findings[0].evidence.is_empty());
    }
}

#[test]
fn a_container_that_is_not_made_is_told_by_what_is_missing() {
    let secret = |name: &str| Cause::SecretMissing { name: name.into() };
    let table = [
        (
            waiting("CreateContainerConfigError", "configmap \"app\" not found"),
            vec![],
            State::Error,
            Cause::ConfigMapMissing { name: "app".into() },
        ),
        (
            waiting("CreateContainerConfigError", "secret \"key\" not found"),
            vec![],
            State::Error,
            secret("key"),
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "couldn't find key a in ConfigMap biz/app",
            ),
            vec![],
            State::Error,
            Cause::KeyMissing,
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root",
            ),
            vec![],
            State::Error,
            Cause::PolicyViolated,
        ),
        (
            waiting(
                "RunContainerError",
                "exec: \"/app\": executable file not found in $PATH",
            ),
            vec![],
            State::Error,
            Cause::CommandBroken,
        ),
    ];
    for (pod, events, state, cause) in table {
        let found = only(&case(&pod, events));
        assert_eq!(
            (found.state, &found.findings[0].cause),
            (state, &cause),
            "{pod:#}"
        );
    }
}

#[test]
fn a_pod_whose_volumes_or_network_are_not_there_is_told_by_its_events() {
    let creating = || waiting("ContainerCreating", "");
    let secret = |name: &str| Cause::SecretMissing { name: name.into() };
    let table = [
        (
            creating(),
            vec![event(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"v\" : secret \"tls\" not found",
            )],
            State::ContainerCreating,
            secret("tls"),
        ),
        (
            creating(),
            vec![event(
                "FailedAttachVolume",
                "Multi-Attach error for volume \"pvc-1\" Volume is already exclusively attached to one node",
            )],
            State::ContainerCreating,
            Cause::VolumeHeld,
        ),
        (
            creating(),
            vec![event(
                "FailedMount",
                "Unable to attach or mount volumes: timed out waiting for the condition",
            )],
            State::ContainerCreating,
            Cause::MountFailed,
        ),
        (
            creating(),
            vec![event(
                "FailedCreatePodSandBox",
                "plugin type=\"calico\" failed (add): no IP addresses available in range set",
            )],
            State::ContainerCreating,
            Cause::AddressesExhausted,
        ),
        (
            creating(),
            vec![event(
                "FailedCreatePodSandBox",
                "networkPlugin cni failed to set up pod \"web-1\" network: dial unix",
            )],
            State::ContainerCreating,
            Cause::NetworkPlugin,
        ),
        (
            creating(),
            vec![event(
                "NetworkNotReady",
                "network is not ready: runtime network not ready: cni config uninitialized",
            )],
            State::ContainerCreating,
            Cause::NetworkPlugin,
        ),
        (
            creating(),
            vec![event(
                "FailedCreatePodSandBox",
                "rpc error: code = Unknown desc = failed to start sandbox container",
            )],
            State::ContainerCreating,
            Cause::SandboxFailed,
        ),
    ];
    for (pod, events, state, cause) in table {
        let found = only(&case(&pod, events.clone()));
        assert_eq!(
            (found.state, &found.findings[0].cause),
            (state, &cause),
            "{pod:#} {events:?}"
        );
    }
    let mut lost = case(&creating(), Vec::new());
    lost.rooms = vec![room("Unknown")];
    assert_eq!(
        only(&lost).findings[0].cause,
        Cause::NodeSilent { node: "n1".into() }
    );
}

#[test]
fn a_pod_without_a_node_is_told_by_the_words_of_schedulers_old_and_new() {
    let insufficient = |resource: &str| Cause::Insufficient {
        resource: resource.into(),
    };
    let taint = |taint: &str| Cause::Taint { taint: taint.into() };
    let table: Vec<(&str, Vec<Cause>)> = vec![
        (
            "0/10 nodes are available: 10 Insufficient memory.",
            vec![insufficient("memory")],
        ),
        (
            "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: gateway}, 2 Insufficient cpu. preemption: 0/3 nodes are \
             available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.",
            vec![taint("dedicated: gateway"), insufficient("cpu")],
        ),
        (
            "0/3 nodes are available: 3 node(s) had taint {node-role.kubernetes.io/master: }, that the pod didn't tolerate.",
            vec![taint("node-role.kubernetes.io/master")],
        ),
        (
            "0/3 nodes are available: 3 node(s) had taints that the pod didn't tolerate.",
            vec![taint("a taint of the nodes")],
        ),
        (
            "0/2 nodes are available: 2 node(s) were unschedulable.",
            vec![Cause::Cordoned],
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match node selector.",
            vec![Cause::Affinity],
        ),
        (
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match pod anti-affinity rules.",
            vec![Cause::Affinity],
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.",
            vec![Cause::HostPortTaken { port: String::new() }],
        ),
        (
            "0/2 nodes are available: 2 Too many pods.",
            vec![Cause::TooManyPods],
        ),
        (
            "persistentvolumeclaim \"data\" not found",
            vec![Cause::ClaimMissing { claim: "data".into() }],
        ),
        (
            "0/2 nodes are available: 2 pod has unbound immediate PersistentVolumeClaims.",
            vec![Cause::ClaimUnbound { claim: String::new() }],
        ),
        (
            "0/2 nodes are available: 2 node(s) had volume node affinity conflict.",
            vec![Cause::VolumeElsewhere],
        ),
        (
            "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
            vec![insufficient("nvidia.com/gpu")],
        ),
        ("something new", vec![Cause::Unexplained]),
    ];
    for (message, causes) in table {
        let found = only(&case(&unscheduled(message), Vec::new()));
        assert_eq!(found.state, State::Pending);
        let told: Vec<_> = found
            .findings
            .iter()
            .map(|finding| finding.cause.clone())
            .collect();
        assert_eq!(told, causes, "{message}");
    }
    assert_eq!(
        reasons(
            "0/3 nodes are available: 1 node(s) had taint {a: b}, that the pod didn't tolerate, 2 Insufficient cpu."
        ),
        ["1 node(s) had taint {a: b}", "2 Insufficient cpu"]
    );
    let mut unseen = unscheduled("");
    unseen["status"]["conditions"] = json!([]);
    assert_eq!(
        only(&case(&unseen, Vec::new())).findings[0].cause,
        Cause::NotScheduled
    );
}

#[test]
fn who_holds_a_port_and_which_claim_is_missing_is_named() {
    let port = json!([{"name": "c", "image": "i", "ports": [{"hostPort": 8080, "protocol": "TCP"}]}]);
    let mut wants =
        unscheduled("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
    wants["spec"]["containers"] = port.clone();
    let mut holder = pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
    holder["metadata"]["name"] = json!("other");
    holder["metadata"]["namespace"] = json!("kube-system");
    holder["metadata"]["uid"] = json!("v");
    holder["spec"]["containers"] = port;
    let mut ports = case(&wants, Vec::new());
    ports.holders = vec![PodDetail::read(&holder).unwrap()];
    let found = only(&ports);
    assert_eq!(
        found.findings[0].cause,
        Cause::HostPortTaken {
            port: "TCP 8080".into()
        }
    );
    assert!(
        found.findings[0]
            .evidence
            .iter()
            .any(|words| words == "pod kube-system/other has it on n1"),
        "{found:?}"
    );

    let mut wants =
        unscheduled("0/1 nodes are available: 1 pod has unbound immediate PersistentVolumeClaims.");
    wants["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    let mut unbound = case(&wants, Vec::new());
    unbound.claims = vec![Claim {
        name: "data".into(),
        phase: "Pending".into(),
        class: "local".into(),
    }];
    let found = only(&unbound);
    assert_eq!(found.findings.len(), 1, "{found:#?}");
    assert_eq!(
        found.findings[0].cause,
        Cause::ClaimUnbound { claim: "data".into() }
    );
    unbound.claims.clear();
    assert_eq!(
        only(&unbound).findings[0].cause,
        Cause::ClaimMissing { claim: "data".into() }
    );
    // Who may not list claims says nothing of them.
    unbound.lacks = vec!["persistent volume claims: forbidden".into()];
    assert_eq!(
        only(&unbound).findings[0].cause,
        Cause::ClaimUnbound { claim: String::new() }
    );
}

#[test]
fn a_pod_that_has_failed_or_is_lost_or_does_not_end_is_told() {
    let failed = |reason: &str| pod(json!({"phase": "Failed", "reason": reason, "message": "m"}));
    let node = || "n1".to_owned();
    for (reason, cause) in [
        ("Evicted", Cause::Evicted { node: node() }),
        ("NodeShutdown", Cause::NodeWentDown { node: node() }),
        ("OutOfmemory", Cause::NodeRefused { node: node() }),
        ("DeadlineExceeded", Cause::DeadlineExceeded),
        ("", Cause::Unexplained),
    ] {
        let found = only(&case(&failed(reason), Vec::new()));
        assert_eq!((found.state, &found.findings[0].cause), (State::Error, &cause));
    }
    let lost = pod(
        json!({"phase": "Running", "reason": "NodeLost", "message": "Node n1 which was running pod web-1 is unresponsive"}),
    );
    let found = only(&case(&lost, Vec::new()));
    assert_eq!(
        (found.state, &found.findings[0].cause),
        (State::Unknown, &Cause::NodeLost { node: node() })
    );

    let mut going = pod(json!({"phase": "Running"}));
    going["metadata"]["deletionTimestamp"] = json!("2026-11-28T07:50:00Z");
    let found = only(&case(&going, Vec::new()));
    assert_eq!(
        (found.state, &found.findings[0].cause),
        (State::Terminating, &Cause::KubeletHolds { node: node() })
    );
    let mut silent = case(&going, Vec::new());
    silent.rooms = vec![room("Unknown")];
    silent.down = [(
        node(),
        Err(NotDead::Lives("its lease was renewed 3 s ago".into())),
    )]
    .into();
    let found = only(&silent);
    assert_eq!(found.findings[0].cause, Cause::NodeSilent { node: node() });
    assert_eq!(found.findings[0].evidence[0], "its lease was renewed 3 s ago");
    going["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let found = only(&case(&going, Vec::new()));
    assert_eq!(
        found.findings[0].cause,
        Cause::Finalizers {
            names: vec!["example.com/wait".into()]
        }
    );
}

#[test]
fn a_pod_that_runs_and_is_not_ready_is_told_by_its_probes_and_its_node() {
    let unready =
        pod(json!({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]}));
    let found = only(&case(
        &unready,
        vec![event("Unhealthy", "Readiness probe failed: connection refused")],
    ));
    assert_eq!(
        (found.state, &found.findings[0].cause),
        (State::NotReady, &Cause::ReadinessFailed)
    );
    let mut silent = case(&unready, Vec::new());
    silent.rooms = vec![room("Unknown")];
    assert_eq!(
        only(&silent).findings[0].cause,
        Cause::NodeSilent { node: "n1".into() }
    );
}

#[test]
fn pods_that_the_api_refuses_are_told_of_the_workload_that_lacks_them() {
    let quota = "Error creating: pods \"web-x\" is forbidden: exceeded quota: team, requested: limits.memory=1Gi, used: limits.memory=1Gi, \
                 limited: limits.memory=1Gi";
    let table = [
        (quota, Cause::QuotaExceeded { quota: "team".into() }),
        (
            "Error creating: pods \"web-x\" is forbidden: failed quota: team: must specify limits.memory for: c",
            Cause::QuotaExceeded { quota: "team".into() },
        ),
        (
            "Error creating: pods \"web-x\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            Cause::LimitRangeExceeded,
        ),
        (
            "Error creating: pods \"web-x\" is forbidden: unable to validate against any pod security policy: []",
            Cause::PolicyViolated,
        ),
        (
            "Error creating: pods \"web-x\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
            Cause::PolicyViolated,
        ),
        (
            "Error creating: pods \"web-x\" is forbidden: error looking up service account biz/app: serviceaccount \"app\" not found",
            Cause::ServiceAccountMissing,
        ),
        (
            "Error creating: Internal error occurred: failed calling webhook \"v.example.com\": no endpoints available",
            Cause::WebhookDown,
        ),
        (
            "Error creating: pods \"web-x\" is forbidden: User \"system:serviceaccount:biz:app\" cannot create",
            Cause::Forbidden,
        ),
    ];
    let set = Workload::read(
        WorkloadKind::ReplicaSet,
        &json!({"metadata": {"name": "web-5d", "namespace": "biz", "uid": "s"}, "spec": {"replicas": 2}, "status": {"replicas": 1}}),
    );
    for (message, cause) in table {
        let refused = Event::read(&json!({
            "involvedObject": {"kind": "ReplicaSet", "name": "web-5d", "uid": "s"}, "type": "Warning", "reason": "FailedCreate",
            "message": message,
        }));
        let mut case = Case {
            workloads: vec![set.clone()],
            events: vec![refused],
            ..Case::default()
        };
        let found = only(&case);
        assert_eq!(
            (found.state, &found.findings[0].cause),
            (State::NotMade, &cause),
            "{message}"
        );
        // Once it has its pods, what was refused is over.
        case.workloads[0].replicas = 2;
        assert_eq!(all(&case, now()), []);
    }
}

#[test]
fn a_static_pod_is_sent_to_its_node() {
    let mut pod = crashed(1, "Error");
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "h"});
    let found = only(&case(&pod, Vec::new()));
    assert!(found.has(|cause| matches!(cause, Cause::StaticPod { .. })));
}

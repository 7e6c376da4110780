//! Agents that say what a test wants, and do what commands say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_apiserver::Double;
use blackstart_proto::part::Part;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::super::conditions::Conditions;
use crate::control_plane::Eyes;
use crate::control_plane::told::{Health, PartTold, Told};
use crate::events::Severity;
use crate::fleet::message::{Condition, HeavyPod};
use crate::fleet::view::{Attestation, FleetView, GateState, NodeView, Phase};
use crate::fleet::{Action, Answer, Order, OrderResult, PartAct};
use crate::inventory::NodeName;

/// The agents of all nodes.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// All of them, by node.
    pub(super) names: Vec<String>,
    /// Whose agents say nothing.
    pub(super) silent: BTreeSet<String>,
    /// Whose kubelets do not answer, and run.
    pub(super) hung: BTreeSet<String>,
    /// Whose agents have not probed the kubelet's health since it was stopped.
    pub(super) unprobed: BTreeSet<String>,
    /// Whose kubelets are stopped.
    pub(super) stopped: BTreeSet<String>,
    /// Whose kubelets were healthy when they were last asked, which was before they were stopped.
    pub(super) stale: BTreeSet<String>,
    /// What they find wrong: node, kind, evidence.
    pub(super) findings: Vec<(String, &'static str, String)>,
    /// The pods that they find the heaviest, with every finding.
    pub(super) heaviest: Vec<HeavyPod>,
    /// Static pods of control planes that do not answer.
    pub(super) ill: BTreeSet<(String, Part)>,
    /// Those that a bounce does not mend.
    pub(super) stuck: BTreeSet<(String, Part)>,
    /// What API servers are told of etcd.
    pub(super) etcd_servers: BTreeMap<String, String>,
    /// So many commands fail before one is done.
    pub(super) fail: u32,
    /// What was done, each command once.
    pub(super) done: Vec<String>,
    pub(super) answered: BTreeSet<String>,
}

pub(super) fn picture(agents: &Agents, since: &BTreeMap<String, Instant>) -> FleetView {
    let now = Instant::now();
    let node = |name: &str| {
        let silent = agents.silent.contains(name);
        let active = !agents.stopped.contains(name);
        let stale = agents.stale.contains(name);
        let healthy = stale || agents.unprobed.contains(name) || active && !agents.hung.contains(name);
        let asked = now
            .checked_sub(Duration::from_secs(if stale { 30 } else { 0 }))
            .unwrap_or(now);
        let phase = match (silent, healthy) {
            (true, _) => Phase::Silent,
            (false, true) => Phase::Ready,
            (false, false) => Phase::NotReady,
        };
        NodeView {
            phase,
            phase_since: since.get(name).copied().unwrap_or(now),
            in_session: !silent,
            attestation: (!silent).then(|| Attestation {
                gate: GateState::Passed,
                kubelet_active: active,
                kubelet_healthy: healthy,
                apiserver_ready: true,
                apiserver: None,
                observed_at: asked,
                waiting_on: String::new(),
                manifests: BTreeMap::new(),
            }),
            ..NodeView::unknown(now)
        }
    };
    FleetView {
        at: now,
        nodes: agents
            .names
            .iter()
            .map(|name| (NodeName(name.clone()), node(name)))
            .collect(),
        own_unclean_boot: false,
        began_at: now,
    }
}

/// What API servers are told of etcd before anything is changed.
pub(super) const OLD_ETCD: &str = "https://127.0.0.1:2379";

/// What they tell of the static pods of control planes.
pub(super) fn control_plane(agents: &Arc<Mutex<Agents>>) -> Eyes {
    let agents = Arc::clone(agents);
    Eyes::new(move |node, _| {
        let agents = agents.lock().unwrap();
        let told = if agents.silent.contains(&node.0) {
            Err("its agent is not in session".to_owned())
        } else {
            Ok(Told {
                parts: Part::ALL.map(|part| told(&agents, &node, part)).into(),
                ..Told::default()
            })
        };
        Box::pin(async { told })
    })
}

fn told(agents: &Agents, node: &NodeName, part: Part) -> PartTold {
    let ill = agents.ill.contains(&(node.0.clone(), part));
    let servers = agents.etcd_servers.get(&node.0);
    PartTold {
        part,
        manifest: format!("/etc/kubernetes/manifests/{part}.yaml"),
        out_by: None,
        url: "https://127.0.0.1:6443/readyz".to_owned(),
        health: if ill { Health::Not } else { Health::Healthy },
        health_words: if ill { "refuses connections" } else { "answers 200" }.to_owned(),
        not_running: Vec::new(),
        certificates: Vec::new(),
        log: vec!["panic: as a test wants it".to_owned()],
        etcd_servers: servers.cloned().unwrap_or_else(|| OLD_ETCD.to_owned()),
    }
}

/// What they find wrong.
pub(super) fn conditions(agents: &Arc<Mutex<Agents>>) -> Conditions {
    let agents = Arc::clone(agents);
    Conditions::new(move |node| {
        let agents = agents.lock().unwrap();
        let here = agents.findings.iter().filter(|(name, ..)| *name == node.0);
        here.map(|(_, kind, evidence)| Condition {
            kind: (*kind).to_owned(),
            subject: "as a test wants it".to_owned(),
            severity: Severity::Warning,
            since: Instant::now()
                .checked_sub(Duration::from_secs(10))
                .unwrap_or_else(Instant::now),
            evidence: evidence.clone(),
            escalated: false,
            silenced: false,
            waiting_on: String::new(),
            heaviest: agents.heaviest.clone(),
        })
        .collect()
    })
}

/// Reports, several a second.
pub(super) async fn look(agents: Arc<Mutex<Agents>>, view: watch::Sender<Arc<FleetView>>) {
    let mut silent = BTreeMap::new();
    loop {
        let seen = {
            let agents = agents.lock().unwrap();
            silent.retain(|name, _| agents.silent.contains(name));
            for name in &agents.silent {
                silent.entry(name.clone()).or_insert_with(Instant::now);
            }
            picture(&agents, &silent)
        };
        view.send_replace(Arc::new(seen));
        sleep(Duration::from_millis(100)).await;
    }
}

/// Commands are done once each, and answered.
pub(super) async fn agents(
    agents: Arc<Mutex<Agents>>,
    double: Arc<tokio::sync::Mutex<Double>>,
    mut orders: mpsc::Receiver<Order>,
    results: mpsc::Sender<OrderResult>,
) {
    while let Some(order) = orders.recv().await {
        let Order {
            node,
            command_id,
            action,
            ..
        } = order;
        let double = double.lock().await;
        let answer = {
            let mut agents = agents.lock().unwrap();
            if agents.silent.contains(&node.0) {
                continue;
            }
            if agents.answered.contains(&command_id) {
                Answer::Done
            } else if agents.fail > 0 {
                agents.fail -= 1;
                Answer::Failed
            } else {
                agents.answered.insert(command_id.clone());
                let mut mended = Answer::Done;
                let what = match action {
                    Action::StopKubelet { .. } => {
                        agents.stopped.insert(node.0.clone());
                        double.with(|world| world.stop_kubelet(&node.0));
                        "stop".to_owned()
                    }
                    Action::StartKubelet { .. } | Action::RestartUnit { .. } => {
                        agents.stopped.remove(&node.0);
                        agents.hung.remove(&node.0);
                        double.with(|world| world.start_kubelet(&node.0));
                        "start".to_owned()
                    }
                    Action::ReleaseKubelet { .. } => "release".to_owned(),
                    Action::HoldManifest { .. } => "hold".to_owned(),
                    Action::ReleaseManifest { .. } => "put back".to_owned(),
                    Action::Etcd { .. } => "etcd".to_owned(),
                    Action::ControlPlane { part, act, .. } => {
                        let it = (node.0.clone(), part);
                        let helps = !agents.stuck.contains(&it);
                        if helps {
                            agents.ill.remove(&it);
                        }
                        let what = match act {
                            PartAct::Bounce => format!("bounce {part} of {node}"),
                            PartAct::EtcdServers { from, to } => {
                                let told = agents.etcd_servers.insert(node.0.clone(), to.clone());
                                assert_eq!(told.unwrap_or_else(|| OLD_ETCD.to_owned()), from);
                                format!("{to} for {part} of {node}")
                            }
                        };
                        if !helps {
                            mended = Answer::Failed;
                        }
                        what
                    }
                };
                agents.done.push(what);
                mended
            }
        };
        drop(double);
        let result = OrderResult {
            node,
            command_id,
            answer,
            detail: "as a test wants it".to_owned(),
        };
        // The coordinator may be gone by now.
        let _gone = results.send(result).await;
    }
}

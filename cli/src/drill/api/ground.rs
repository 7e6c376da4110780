//! Where these drills are held: the API server double as the cluster's API, a real coordinator, real agents over simulated machines.
//!
//! ```text
//! machine (SimHost) ──power, kubelet──► double's machine ──heartbeats, pods──► API ◄──TLS── coordinator ◄──mTLS── agents
//! ```
//!
//! A kubelet of the double runs while the machine's own does and reaches the API; so what an agent does to a kubelet is seen in the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use blackstart_agent::host::sim::{SimEvent, SimRecord};
use blackstart_apiserver::bmc::{Bmc, PASSWORD, USER};
use blackstart_apiserver::{Authority, Clock, Credentials, Double, NodeSpec, Options, User, World};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::coordinator::Coordinator;
use super::super::fleet::{Fleet, ledger};
use super::super::follow;
use super::super::power_loss::{Place, UP_WITHIN, issue};
use super::super::seen::{millis, ticker};
use super::super::show::{Scene, Show};
use super::super::topology::{Role, Topology};
use super::SPEED;
use super::cast::Cast;
use super::chronicle::{Call, MachineStory, Proof};
use super::deed::Deed;
use super::script::Script;
use crate::failure::Failure;
use crate::output::Output;
use crate::settings::{Connection, Shows};

/// Who the coordinator is to the API, as the shipped manifest has it.
pub(super) const COORDINATOR: &str = "blackstart-coordinator";
/// By this token.
const TOKEN: &str = "drill";

/// What it may do there: what is shipped, and no more.
const RIGHTS: &str = include_str!("../../../../deploy/kubernetes/coordinator-rbac.yaml");

fn rights() -> Result<Vec<Value>, serde_saphyr::Error> {
    let documents = RIGHTS.split("\n---\n").map(serde_saphyr::from_str);
    // What stands before the first is a comment alone.
    documents
        .filter(|read| !matches!(read, Ok(Value::Null)))
        .collect()
}

/// The cluster, and everybody in it.
pub(super) struct Ground {
    pub(super) cluster: String,
    pub(super) double: Double,
    pub(super) fleet: Fleet,
    pub(super) coordinator: Coordinator,
    pub(super) connection: Connection,
    /// The machines' management controllers, where the drill has some.
    pub(super) bmc: Option<Bmc>,
    /// Kubelets that do not reach their API servers.
    pub(super) cut_off: BTreeSet<String>,
    /// Power and kubelet of each machine as the double was last told.
    told: BTreeMap<String, (bool, bool)>,
    /// The drill's clock and the cluster's at the same instant.
    began: (Instant, Timestamp),
    topology: Topology,
}

impl Ground {
    /// Lays everything out below `place`; nothing runs yet but the API. What the coordinator's configuration says beside, and who is
    /// there, is the script's.
    pub(super) async fn prepare(
        place: &Place,
        topology: &Topology,
        cast: &Cast,
        script: &Script,
    ) -> Result<Self, Failure> {
        let dir = place.dir();
        let failed = |error: std::io::Error| {
            Failure::other(format!("lay out the drill below {}: {error}", dir.display()))
        };
        let of_api =
            |error: anyhow::Error| Failure::other(format!("start the drill's API server: {error:#}"));
        let authority = Authority::new().map_err(of_api)?;
        let clock = Clock::running(SPEED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let double = Double::start(Options {
            tls: Some(authority.server(&[loopback]).map_err(of_api)?),
            release: cast.release,
            clock: clock.clone(),
            ..Options::default()
        });
        let double = double.await.map_err(of_api)?;
        double.set_access(|access| {
            access
                .tokens
                .insert(TOKEN.to_owned(), User::new(COORDINATOR, &[]));
            access.rbac = true;
        });
        let rights =
            rights().map_err(|error| Failure::other(format!("read the coordinator's rights: {error}")))?;
        let put = double.with(|world| world.apply_manifests(&rights));
        put.map_err(|refusal| Failure::other(format!("give the coordinator its rights: {refusal:?}")))?;
        let pki = dir.join("pki");
        let tls = issue(&pki, topology)
            .map_err(|error| Failure::other(format!("make the drill's certificates: {error}")))?;
        let kubeconfig = dir.join("kubeconfig");
        let text = double.kubeconfig(Some(&authority.certificate), &Credentials::Token(TOKEN));
        fs::write(&kubeconfig, text).map_err(failed)?;
        let cluster = topology
            .clusters
            .first()
            .map_or("", |cluster| cluster.name.as_str());
        let declared = &script.declared;
        let (bmc, controllers) = if script.has_bmc {
            let (bmc, config) = manage(dir, &double).await?;
            (Some(bmc), config)
        } else {
            (None, String::new())
        };
        // Its own address once more: by default the masters' would be tried, which are no machines of this network.
        let more = format!(
            "\
clusters:
  - {{name: {cluster}, kubeconfig: {}, addresses: [\"{}\"], requests_per_second: 200}}
runbooks:
  triggers: {{node_down: off, network_loss: off, overload: off, resource_shortage: off, cold_start_verify: off}}
{controllers}{declared}",
            kubeconfig.display(),
            double.address()
        );
        let at = bmc.as_ref().map(Bmc::address);
        let coordinator =
            Coordinator::new(&dir.join("coordinator"), &pki, (topology, at), &more).map_err(failed)?;
        let fleet = Fleet::new(
            &place.nodes(),
            &pki,
            coordinator.address(),
            topology,
            &cast.kubelet_start,
        )
        .map_err(failed)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            connection: Connection {
                coordinators: vec![coordinator.address()],
                shows: Shows::Certificate(tls),
                timeout: Duration::from_secs(5),
            },
            double,
            fleet,
            coordinator,
            bmc,
            cut_off: BTreeSet::new(),
            told: BTreeMap::new(),
            began: (Instant::now(), clock.now()),
            topology: topology.clone(),
        })
    }

    /// Coordinator and machines start, and are healthy; then the cluster knows its nodes.
    pub(super) async fn bring_up(
        &mut self,
        title: &str,
        show: &mut Show,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let start = |error| Failure::other(format!("start the drill's coordinator: {error}"));
        self.coordinator.power_on().map_err(start)?;
        for name in self.fleet.order.clone() {
            self.fleet.power_on(&name)?;
        }
        let (to, mut ready) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::all_ready(self.connection.clone(), to));
        let mut have = 0;
        let mut tick = ticker();
        loop {
            tokio::select! {
                count = ready.recv() => match count {
                    Some(count) => have = count,
                    None => break,
                },
                _ = tick.tick() => {
                    if let Some(failure) = self.coordinator.failed() {
                        return Err(failure);
                    }
                    let at_ms = self.now_ms();
                    let scene = Scene {
                        title,
                        act: "the cluster comes up",
                        at_ms,
                        seats: self.fleet.seats(),
                        runs: &[],
                        pods: "",
                    };
                    show.now(&scene, output)?;
                    if at_ms > millis(UP_WITHIN) {
                        return Err(Failure::other(format!(
                            "bring the cluster up before the drill: after {}s the coordinator knows {have} of {} nodes ready",
                            UP_WITHIN.as_secs(),
                            self.fleet.order.len()
                        )));
                    }
                }
            }
        }
        self.double.with(|world| {
            for (_, machine) in self.topology.machines() {
                world.add_node(&match machine.role {
                    Role::Master => NodeSpec::master(&machine.name).static_control_plane(),
                    Role::Worker => NodeSpec::worker(&machine.name),
                });
            }
        });
        self.told = self
            .fleet
            .order
            .iter()
            .map(|name| (name.clone(), (true, true)))
            .collect();
        Ok(())
    }

    /// The drill's clock.
    pub(super) fn now_ms(&self) -> u64 {
        millis(self.began.0.elapsed())
    }

    fn ms_of(&self, instant: Instant) -> u64 {
        millis(instant.saturating_duration_since(self.began.0))
    }

    /// A time of the cluster on the drill's clock.
    fn ms_of_cluster(&self, at: Timestamp) -> u64 {
        let passed = at.duration_since(self.began.1).as_millis() / i128::from(SPEED);
        u64::try_from(passed).unwrap_or_default()
    }

    /// The API server's machines do as the simulated ones.
    pub(super) fn mirror(&mut self) {
        let now = Instant::now();
        let mut changed = Vec::new();
        for (name, told) in &mut self.told {
            let node = &self.fleet.nodes[name];
            let powered = node.machine.is_on();
            let kubelet =
                powered && node.machine.host().kubelet_is_healthy(now) && !self.cut_off.contains(name);
            if *told != (powered, kubelet) {
                changed.push((name.clone(), *told, (powered, kubelet)));
                *told = (powered, kubelet);
            }
        }
        if changed.is_empty() {
            return;
        }
        self.double.with(|world| {
            for (name, before, after) in &changed {
                follow_machine(world, name, *before, *after);
            }
        });
    }

    /// The coordinator's requests that would have changed something.
    pub(super) fn calls(&self) -> Vec<Call> {
        let asked = self.double.requests();
        let own = asked.iter().filter(|asked| asked.user == COORDINATOR);
        own.filter_map(|asked| {
            Some(Call {
                at_ms: self.ms_of_cluster(asked.at),
                revision: asked.revision,
                deed: Deed::of(asked)?,
                code: asked.code,
            })
        })
        .collect()
    }

    /// What the management controllers said of machines that are off.
    pub(super) fn told_off(&self) -> Vec<Proof> {
        let told = self.bmc.iter().flat_map(Bmc::said_off);
        told.map(|(machine, at)| Proof {
            machine,
            at_ms: self.ms_of_cluster(at),
            by: "management controller",
        })
        .collect()
    }

    /// What each machine recorded of itself, and its agent's ledger.
    pub(super) fn machines(&self) -> Result<Vec<MachineStory>, Failure> {
        self.fleet
            .order
            .iter()
            .map(|name| {
                let node = &self.fleet.nodes[name];
                let mut story = MachineStory {
                    name: name.clone(),
                    ledger: ledger(name, &node.machine.settings().ledger())?,
                    ..MachineStory::default()
                };
                for SimRecord { at, event } in node.machine.host().record() {
                    match event {
                        SimEvent::PowerCut => story.dark.push((self.ms_of(at), None)),
                        SimEvent::PoweredOn => {
                            if let Some((_, until)) = story.dark.last_mut() {
                                *until = Some(self.ms_of(at));
                            }
                        }
                        SimEvent::AgentEnded(why) => story.agent_failed = Some(why),
                        SimEvent::GateOpened(_)
                        | SimEvent::KubeletStarted { .. }
                        | SimEvent::KubeletStopped
                        | SimEvent::Fault(_) => {}
                    }
                }
                Ok(story)
            })
            .collect()
    }
}

/// Management controllers of the double's machines, and what the coordinator's configuration says of them.
async fn manage(dir: &Path, double: &Double) -> Result<(Bmc, String), Failure> {
    let failed =
        |error: anyhow::Error| Failure::other(format!("start the drill's management controllers: {error:#}"));
    let authority = Authority::new().map_err(failed)?;
    let mut tls = authority
        .server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])
        .map_err(failed)?;
    tls.client_authorities.clear();
    let bmc = double.bmc(&tls).await.map_err(failed)?;
    let (credentials, ca) = (dir.join("bmc.yaml"), dir.join("bmc-ca.crt"));
    let write = |path: &Path, text: &str| {
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write(&credentials, &format!("user: {USER}\npassword: \"{PASSWORD}\"\n"))
        .and_then(|()| write(&ca, &authority.certificate))
        .map_err(|error| failed(error.into()))?;
    let config = format!(
        "bmc: {{credentials: {}, ca: {}, timeout: 1s, fresh: 5s}}\n",
        credentials.display(),
        ca.display()
    );
    Ok((bmc, config))
}

fn follow_machine(world: &mut World, name: &str, before: (bool, bool), (powered, kubelet): (bool, bool)) {
    if before.0 && !powered {
        world.power_off(name);
    }
    if !before.0 && powered {
        world.power_on(name);
    }
    if powered && !kubelet {
        world.stop_kubelet(name);
    }
    if powered && kubelet {
        world.start_kubelet(name);
    }
}

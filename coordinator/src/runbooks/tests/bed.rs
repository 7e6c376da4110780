//! One cluster `biz` behind a double of its API server; agents that do what commands say; a coordinator's runbooks over a store in memory.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blackstart_apiserver::bmc::{Bmc, PASSWORD, USER};
use blackstart_apiserver::{
    Authority, Clock, Controller, Credentials, Double, NodeSpec, Options as DoubleOptions, Release, User,
    World,
};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::declared::Declared;
use super::super::options::Options;
use super::super::plan::{Request, Runbook, RunbookPlan};
use super::super::policy::{RunbookPolicy, Triggers};
use super::super::record::{Phase as StepPhase, RunState};
use super::super::status::RunbookStatus;
use super::super::subject::Mending;
use super::super::world::Timing;
use super::super::{Ports, Refusal, Runbooks};
use super::agents::{Agents, agents, conditions, look, picture};
use crate::brakes::BrakesHandle;
use crate::events::Events;
use crate::execute::tests::memory::MemoryStore;
use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::kubernetes::Clusters;
use crate::kubernetes::connection::{Access, Identity};
use crate::leader::Tenure;
use crate::permit::Book;
use crate::policy::{OutagePolicy, Trigger};
use crate::power::Bmcs;
use crate::power::settings::{BmcSettings, BmcSpec};
use crate::store::Store;

/// Nothing that these tests wait for takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_mins(2);
/// So many times as fast goes the cluster: a lease is renewed every half second.
const SPEED: u32 = 20;

/// How large a cluster is, and how fast its time goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) masters: usize,
    pub(super) workers: usize,
    pub(super) speed: u32,
    /// What is at work in it.
    pub(super) controllers: &'static [Controller],
}

const SMALL: Size = Size {
    masters: 2,
    workers: 2,
    speed: SPEED,
    controllers: &Controller::ALL,
};

/// As an operator declares them.
fn inventory(masters: &[String], workers: &[String]) -> Arc<Inventory> {
    use std::fmt::Write;
    let mut text = "clusters:\n  - name: biz\n    nodes:\n".to_owned();
    for (number, name) in masters.iter().chain(workers).enumerate() {
        let role = if number < masters.len() {
            ", role: control-plane"
        } else {
            ""
        };
        let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        writeln!(text, "      - {{name: {name}, address: {address}{role}}}").unwrap();
    }
    Arc::new(crate::inventory::parse("f", &text).unwrap().inventory)
}

pub(super) const NODE: &str = "worker-1";

/// Waits for it, and says what for when it does not come.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("waited for {what} in vain"))
}

/// A coordinator at work.
struct Running {
    runbooks: Runbooks,
    tasks: JoinSet<()>,
}

pub(super) struct Bed {
    pub(super) double: Arc<tokio::sync::Mutex<Double>>,
    dir: tempfile::TempDir,
    pub(super) store: Arc<MemoryStore>,
    inventory: Arc<Inventory>,
    pub(super) agents: Arc<Mutex<Agents>>,
    pub(super) policy: RunbookPolicy,
    pub(super) timing: Timing,
    pub(super) requests_per_second: u32,
    pub(super) permits: watch::Sender<Arc<Book>>,
    running: Option<Running>,
    pub(super) declared: Arc<Vec<Declared>>,
    pub(super) bmcs: Bmcs,
}

impl Bed {
    /// With a coordinator whose caches are whole.
    pub(super) async fn new(release: Release) -> Self {
        let mut bed = Self::cold(release).await;
        bed.start().await;
        bed
    }

    /// Without a coordinator.
    pub(super) async fn cold(release: Release) -> Self {
        Self::metered(release, true).await
    }

    /// Without a coordinator, and without metrics where they are not wanted.
    pub(super) async fn metered(release: Release, metrics: bool) -> Self {
        Self::sized(release, metrics, SMALL).await
    }

    /// So large a cluster, without a coordinator.
    pub(super) async fn sized(release: Release, metrics: bool, size: Size) -> Self {
        let names = |role: &str, count: usize| -> Vec<String> {
            (1..=count).map(|number| format!("{role}-{number}")).collect()
        };
        let (masters, workers) = (names("master", size.masters), names("worker", size.workers));
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let authority = Authority::new().unwrap();
        let double = Double::start(DoubleOptions {
            tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
            release,
            clock: Clock::running(size.speed),
            controllers: size.controllers.to_vec(),
            metrics,
            // Nothing more than the manifest that we ship is allowed in any of these tests.
            access: blackstart_apiserver::Access {
                rbac: true,
                tokens: BTreeMap::from([(
                    "coordinator".to_owned(),
                    User::new("blackstart-coordinator", &[]),
                )]),
            },
            ..DoubleOptions::default()
        });
        let double = double.await.unwrap();
        double.with(|world| {
            world.apply_manifests(&super::rights::manifest()).unwrap();
            let masters = masters.iter().map(|name| NodeSpec::master(name));
            let workers = workers.iter().map(|name| NodeSpec::worker(name));
            world.add_nodes(&masters.chain(workers).collect::<Vec<_>>());
        });
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = double.kubeconfig(Some(&authority.certificate), &Credentials::Token("coordinator"));
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
        Self {
            double: Arc::new(tokio::sync::Mutex::new(double)),
            dir,
            store: Arc::new(MemoryStore::default()),
            inventory: inventory(&masters, &workers),
            agents: Arc::new(Mutex::new(Agents {
                names: [masters, workers].concat(),
                ..Agents::default()
            })),
            timing: Timing {
                lease_old: Duration::from_secs(6),
                renewal: Duration::from_secs(1),
                usage: Duration::from_millis(200),
                settle: Duration::from_millis(400),
                ..Timing::default()
            },
            requests_per_second: 200,
            policy: RunbookPolicy {
                triggers: Triggers {
                    node_down: Trigger::Off,
                    network_loss: Trigger::Off,
                    overload: Trigger::Off,
                    resource_shortage: Trigger::Off,
                    cold_start_verify: Trigger::Off,
                    etcd: Trigger::Off,
                },
                ..RunbookPolicy::default()
            },
            permits: watch::Sender::default(),
            running: None,
            declared: Arc::default(),
            bmcs: Bmcs::default(),
        }
    }

    /// The way to the API of its cluster, which nobody goes yet.
    pub(super) fn clusters(&self) -> Clusters {
        let access = Access {
            identity: Identity::Kubeconfig(self.dir.path().join("kubeconfig")),
            addresses: Vec::new(),
            masters: Vec::new(),
            requests_per_second: self.requests_per_second,
        };
        Clusters::new([(ClusterName("biz".into()), access)])
    }

    /// Starts a coordinator, and waits until it knows the cluster. `false`: its store died on the way.
    pub(super) async fn start(&mut self) -> bool {
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let (Ok(epoch), Ok(brakes)) = (
            store.next_epoch(),
            BrakesHandle::open(Arc::clone(&store), Arc::clone(&self.inventory)),
        ) else {
            return false;
        };
        let clusters = self.clusters();
        let (orders, to_nodes) = mpsc::channel(64);
        let (results, from_nodes) = mpsc::channel(64);
        let view = watch::Sender::new(Arc::new(picture(&self.agents.lock().unwrap(), &BTreeMap::new())));
        let ports = Ports {
            store,
            inventory: Arc::clone(&self.inventory),
            clusters: clusters.clone(),
            view: view.subscribe(),
            orders,
            brakes,
            cold_starts: watch::Sender::new(Arc::default()).subscribe(),
            stalls: watch::Sender::default(),
            events: Events::default(),
            epoch,
            tenure: Tenure::alone(),
            timing: self.timing,
            conditions: conditions(&self.agents),
            policy: self.policy.clone(),
            outage: OutagePolicy::default(),
            permits: self.permits.subscribe(),
            in_hand: watch::Sender::default(),
            declared: Arc::clone(&self.declared),
            bmcs: self.bmcs.clone(),
            etcd: crate::quorum::Eyes::default(),
            control_plane: super::agents::control_plane(&self.agents),
        };
        let Ok((runbooks, work)) = Runbooks::open(ports) else {
            return false;
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run(from_nodes, stop.clone()));
        tasks.spawn(clusters.clone().run(stop));
        tasks.spawn(agents(
            Arc::clone(&self.agents),
            Arc::clone(&self.double),
            to_nodes,
            results,
        ));
        tasks.spawn(look(Arc::clone(&self.agents), view));
        let cluster = Arc::clone(clusters.get(&ClusterName("biz".into())).unwrap());
        self.running = Some(Running { runbooks, tasks });
        within("the caches", async {
            while !matches!(
                cluster.view(NODE, Instant::now()),
                crate::kubernetes::view::Api::Known(_)
            ) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        true
    }

    /// Gives the coordinator that is started next the way to the management controller of the node's machine.
    pub(super) async fn manage(&mut self) -> Bmc {
        let authority = Authority::new().unwrap();
        let mut tls = authority.server(&["127.0.0.1".parse().unwrap()]).unwrap();
        tls.client_authorities.clear();
        let bmc = self.double.lock().await.bmc(&tls).await.unwrap();
        let (credentials, ca) = (
            self.dir.path().join("bmc.yaml"),
            self.dir.path().join("bmc-ca.crt"),
        );
        std::fs::write(&credentials, format!("user: {USER}\npassword: \"{PASSWORD}\"\n")).unwrap();
        std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&ca, &authority.certificate).unwrap();
        let mut inventory = Inventory::clone(&self.inventory);
        let node = inventory.nodes.get_mut(&NodeName(NODE.into())).unwrap();
        node.bmc = Some(BmcSpec {
            address: bmc.address(),
            system: Some(Bmc::system(NODE)),
            fingerprint: None,
        });
        let settings = BmcSettings {
            ca: Some(ca),
            ..BmcSettings::new(credentials)
        };
        self.bmcs = Bmcs::new(&settings, &inventory).unwrap();
        bmc
    }

    /// As if its machine had lost its power: nothing more is done, wherever it stands.
    pub(super) async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.tasks.shutdown().await;
        }
    }

    pub(super) fn runbooks(&self) -> &Runbooks {
        &self.running.as_ref().unwrap().runbooks
    }

    pub(super) async fn begin(&self, runbook: Runbook) -> Result<Arc<RunbookStatus>, Refusal> {
        self.runbooks().start(request(runbook)).await
    }

    /// Until what is known makes such a plan.
    pub(super) async fn plans(&self, request: &Request, like: impl Fn(&RunbookPlan) -> bool) {
        within("a plan", async {
            while !like(&self.runbooks().plan(request.clone()).await.unwrap()) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Until the run stands so.
    pub(super) async fn until(
        &self,
        run: &str,
        what: &str,
        like: impl Fn(&RunbookStatus) -> bool,
    ) -> Arc<RunbookStatus> {
        let mut runs = self.runbooks().watch();
        let seen = timeout(DEADLINE, async {
            loop {
                let found = runs.borrow_and_update().get(run).map(Arc::clone);
                if let Some(found) = found.filter(|found| like(found)) {
                    return found;
                }
                runs.changed().await.unwrap();
            }
        });
        let seen = seen.await;
        seen.unwrap_or_else(|_| panic!("{run} was never {what}: {:#?}", self.runbooks().run(run)))
    }

    pub(super) async fn ends(&self, run: &str) -> Arc<RunbookStatus> {
        self.until(run, "at its end", |run| !run.state.is_active()).await
    }

    /// What the API has of the node.
    pub(super) async fn node(&self) -> serde_json::Value {
        let double = self.double.lock().await;
        double.with(|world| serde_json::Value::clone(&world.get("nodes", "", NODE).unwrap()))
    }

    pub(super) async fn is_cordoned(&self) -> bool {
        self.node().await["spec"]["unschedulable"] == true
    }

    /// The names of the pods on the node.
    pub(super) async fn pods(&self) -> Vec<String> {
        let double = self.double.lock().await;
        double.with(|world| {
            let pods = world.store.all("pods");
            let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE);
            here.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        })
    }

    /// A deployment, pinned to the node if it is there, whose pods end at once.
    pub(super) async fn deploy(&self, name: &str, replicas: u32) {
        let labels = json!({ "app": name });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "c", "image": "registry.lan/web:1"}],
                },
            }},
        });
        let double = self.double.lock().await;
        double.with(|world| world.apply_manifests(&[deployment]).unwrap());
        drop(double);
        within("its pods", async {
            loop {
                let double = self.double.lock().await;
                let ready = double.with(|world| {
                    let deployment = world.get("deployments", "default", name).unwrap();
                    deployment["status"]["readyReplicas"].as_u64().unwrap_or_default()
                });
                drop(double);
                if ready == u64::from(replicas) {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// A deployment whose pods want, and use, so much of a processor, and which are there once they are ready.
    pub(super) async fn deploy_heavy(&self, name: &str, replicas: u32, wants: &str, uses: &str) {
        self.put(heavy(name, replicas, wants, uses)).await;
        self.ready(name, u64::from(replicas)).await;
    }

    /// Puts an object into the cluster.
    pub(super) async fn put(&self, object: serde_json::Value) {
        let double = self.double.lock().await;
        double.with(|world| world.apply_manifests(&[object]).unwrap());
    }

    /// Changes the world behind the API.
    pub(super) async fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.double.lock().await.with(change)
    }

    /// A cordon of somebody else.
    pub(super) async fn cordon(&self, node: &str, on: bool) {
        self.world(|world| {
            world.change("nodes", "", node, |node| {
                if on {
                    node["spec"]["unschedulable"] = true.into();
                } else if let Some(spec) = node["spec"].as_object_mut() {
                    spec.remove("unschedulable");
                }
            });
        })
        .await;
    }

    /// Until so many pods of the deployment are ready.
    pub(super) async fn ready(&self, name: &str, replicas: u64) {
        within("its pods", async {
            while self.deployment(name).await["status"]["readyReplicas"]
                .as_u64()
                .unwrap_or_default()
                != replicas
            {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// What the API has of a deployment.
    pub(super) async fn deployment(&self, name: &str) -> serde_json::Value {
        self.world(|world| serde_json::Value::clone(&world.get("deployments", "default", name).unwrap()))
            .await
    }

    /// The deployments that have pods on the node; one name for each pod.
    pub(super) async fn apps(&self) -> Vec<String> {
        let pods = self.pods().await;
        let mut apps: Vec<_> = pods
            .iter()
            .filter_map(|pod| pod.split('-').next().map(str::to_owned))
            .collect();
        apps.sort();
        apps
    }

    /// A budget that lets none of its pods go.
    pub(super) async fn protect(&self, name: &str) {
        let double = self.double.lock().await;
        let minor = double.with(|world| world.release.minor);
        let version = if minor >= 21 {
            "policy/v1"
        } else {
            "policy/v1beta1"
        };
        let budget = json!({
            "apiVersion": version, "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": name}}},
        });
        double.with(|world| world.apply_manifests(&[budget]).unwrap());
    }
}

/// See [`Bed::deploy_heavy`].
pub(super) fn heavy(name: &str, replicas: u32, wants: &str, uses: &str) -> serde_json::Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels, "annotations": {"apiserver-double/cpu": uses, "apiserver-double/memory": "1Mi"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": "registry.lan/web:1", "resources": {"requests": {"cpu": wants}}}],
            },
        }},
    })
}

pub(super) fn request(runbook: Runbook) -> Request {
    Request {
        runbook,
        node: NodeName(NODE.into()),
        by: "ann".into(),
        reason: "new memory".into(),
        drain_within: Duration::from_mins(1),
        delete_local_data: false,
        delete_unmanaged: false,
        proof: None,
        options: Options::default(),
        subject: None,
        mending: Mending::default(),
    }
}

/// How a step of a run ended.
pub(super) fn phase(run: &RunbookStatus, id: &str) -> Option<StepPhase> {
    run.steps
        .iter()
        .find(|step| step.id() == id)
        .map(|step| step.phase)
}

pub(super) fn wants(run: &RunbookStatus) -> bool {
    run.wants_approval()
}

pub(super) fn halted(run: &RunbookStatus) -> bool {
    run.state == RunState::Halted
}

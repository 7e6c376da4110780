//! Real agents of masters whose container runtimes die at once: they are killed and restarted one after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blackstart_agent::config::{CoordinatorSettings, GateRole, PERMIT_WAIT, ProbeSettings, Settings};
use blackstart_agent::host::sim::{SimCluster, SimFault, SimHost, SimMachine, SimSpec};
use blackstart_agent::ledger::{Ledger, Outcome, Record};
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1::{ListClustersRequest, ListConditionsRequest, WatchEventsRequest};
use tokio::time::{sleep, timeout};

use crate::permits::MASTERS;
use crate::support::{NODES, World, within};

const DOCKER: &str = "docker.service";
/// Two restarts, one after the other, take no longer on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A master of a simulated machine, with a real agent.
pub(crate) fn master(world: &World, name: &'static str, cluster: &Arc<SimCluster>) -> SimMachine {
    master_with(world, name, cluster, world.files(name))
}

/// The same with certificates of its own.
pub(crate) fn master_with(
    world: &World,
    name: &'static str,
    cluster: &Arc<SimCluster>,
    tls: TlsFiles,
) -> SimMachine {
    master_at(world, name, cluster, tls, world.address())
}

/// The same, which finds its coordinator there.
pub(crate) fn master_at(
    world: &World,
    name: &'static str,
    cluster: &Arc<SimCluster>,
    tls: TlsFiles,
    at: SocketAddr,
) -> SimMachine {
    let dir = world.path(name);
    std::fs::create_dir_all(&dir).unwrap();
    let spec = SimSpec {
        name: name.to_owned(),
        is_master: true,
        kubelet_start: Duration::from_millis(100),
        disks: Vec::new(),
    };
    let probe = |port, path| ProbeSettings {
        interval: Duration::from_millis(300),
        ..ProbeSettings::new(port, path)
    };
    let mut settings = Settings::for_node(name);
    settings.state_dir = dir.join("state");
    settings.runtime_dir = dir.join("run");
    settings.boot_id_file = dir.join("boot_id");
    settings.coordinator = Some(CoordinatorSettings {
        addresses: vec![at],
        tls,
        report_interval: Duration::from_millis(300),
        permit_wait: PERMIT_WAIT,
    });
    settings.gate.role = GateRole::ControlPlane;
    settings.kubelet = probe(10248, "/healthz");
    settings.api_server = Some(probe(6443, "/readyz"));
    settings.disks.clear();
    settings.logs.globs.clear();
    settings.preflight.certificates.clear();
    settings.preflight.container_runtimes.clear();
    settings.preflight.etcd_data.clear();
    // At once to what needs a permit.
    settings.restart.restarts = 0;
    SimMachine::new(settings, Arc::new(SimHost::new(spec, Arc::clone(cluster))))
}

/// The kill of the runtime that succeeded.
fn restarted(machine: &SimMachine) -> Option<Record> {
    let records = records(&machine.settings().ledger());
    let is = |record: &Record| {
        record.intent.remedy == "kill-restart-unit"
            && record.intent.subject == DOCKER
            && matches!(record.outcome, Some(Outcome::Succeeded { .. }))
    };
    records.into_iter().find(is)
}

fn records(ledger: &Path) -> Vec<Record> {
    Ledger::read(ledger)
        .map(|contents| contents.records)
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_masters_whose_runtimes_die_at_once_are_mended_one_after_the_other() {
    let mut world = World::of(MASTERS, |_| {}).await;
    let cluster = Arc::new(SimCluster::new(2, Duration::from_millis(100)));
    let mut masters = NODES.map(|name| master(&world, name, &cluster));
    for master in &mut masters {
        master.power_on().unwrap();
    }
    let mut operator = world.operator().await;
    within("three masters that are up", async {
        loop {
            let listed = operator.list_clusters(ListClustersRequest {}).await;
            if listed.unwrap().into_inner().clusters[0].control_planes_ready == 3 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for master in &masters[..2] {
        master.host().inject(SimFault::Kill(DOCKER));
    }
    let mut spans = Vec::new();
    for master in &masters[..2] {
        let mended = timeout(PATIENCE, async {
            loop {
                if let Some(record) = restarted(master) {
                    return record;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        let Ok(record) = mended.await else {
            let conditions = operator.list_conditions(ListConditionsRequest::default()).await;
            let records = records(&master.settings().ledger());
            panic!("never mended: {records:#?}\n{conditions:#?}");
        };
        spans.push((record.at_unix_ms, record.at_unix_ms + record.took_ms));
    }
    spans.sort_unstable();
    assert!(spans[0].1 <= spans[1].0, "both at once: {spans:?}");

    // By the coordinator's own account: one permit ends before the other begins.
    let mut said = Vec::new();
    let follow = WatchEventsRequest {
        follow: true,
        node: String::new(),
    };
    let mut events = operator.watch_events(follow).await.unwrap().into_inner();
    within("two permits and their ends", async {
        while said.len() < 4 {
            let event = events.message().await.unwrap().unwrap();
            if event.kind.starts_with("Permit") {
                said.push((event.kind, event.node));
            }
        }
    })
    .await;
    let kinds: Vec<_> = said.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["PermitGranted", "PermitEnded", "PermitGranted", "PermitEnded"]
    );
    assert!(
        said[0].1 == said[1].1 && said[2].1 == said[3].1 && said[0].1 != said[2].1,
        "{said:?}"
    );
    for master in &mut masters {
        master.cut_power();
    }
    world.stop().await;
}

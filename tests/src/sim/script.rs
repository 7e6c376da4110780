//! What a seed decides before anything happens: the fleet, how patient everybody is, and when which misfortune strikes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use blackstart_agent::config::{GateRole, GateSettings};
use blackstart_coordinator::inventory::{Cluster, ClusterName, Inventory, NodeName, NodeSpec, Role};
use blackstart_coordinator::policy::{
    ColdStartPolicy, OutagePolicy, SetAsidePolicy, Trigger, Typical, WavePolicy,
};
use rand::Rng;
use rand::rngs::SmallRng;

use super::Ms;
use super::store::Chances;

/// How often an agent reports.
pub(super) const REPORT: Ms = 4_000;
/// An agent that is not answered for so long dials anew.
pub(super) const PATIENCE: Ms = 3 * REPORT;
/// A message takes no longer.
pub(super) const LONGEST_DELAY: Ms = 6_000;

/// The world of one seed.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) inventory: Inventory,
    pub(super) policy: ColdStartPolicy,
    pub(super) outage: OutagePolicy,
    pub(super) silent_after: Duration,
    pub(super) gates: BTreeMap<Role, GateSettings>,
    /// Of a hundred messages so many are slow.
    pub(super) slow_messages: u32,
    /// Of a hundred orders so many come twice.
    pub(super) doubled_orders: u32,
    /// Of a hundred kubelets that start so many take long, or fail.
    pub(super) bad_kubelets: u32,
    pub(super) chances: Chances,
    /// Of a hundred writes of an agent's ledger so many fail.
    pub(super) bad_ledgers: u32,
    /// When the last misfortune may strike.
    pub(super) quiet_at: Ms,
    pub(super) strokes: Vec<(Ms, Stroke)>,
}

/// A misfortune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stroke {
    /// A node's power fails; it comes back after a while, or never.
    Cut { node: usize, back_after: Option<Ms> },
    /// A node is restarted in order.
    Restart { node: usize },
    /// An agent is killed.
    AgentCrash { node: usize },
    /// A kubelet is ill for a while.
    KubeletIll { node: usize, for_ms: Ms },
    /// Nodes cannot be reached.
    Partition { nodes: Vec<usize>, for_ms: Ms },
    /// Every coordinator is killed. `for_good`: and none comes back.
    CoordinatorCrash { host: bool, for_good: bool },
    /// The coordinator freezes and another takes its place, then it goes on.
    Freeze { for_ms: Ms, own_disk: bool },
    /// The coordinator's disk is full.
    DiskFull { for_ms: Ms },
    /// The coordinator's wall clock jumps.
    WallJump { to: u64 },
    /// An operator pauses the newest run, and resumes it.
    Pause { for_ms: Ms },
    /// An operator aborts the newest run.
    Abort,
}

/// Draws the world.
pub(super) fn write(rng: &mut SmallRng) -> Script {
    let inventory = inventory(rng);
    let wild = [0, 1, 2, 4][rng.random_range(0..4)];
    let policy = ColdStartPolicy {
        trigger: Trigger::Auto,
        fresh: Duration::from_secs(10),
        release_deadline: Duration::from_secs(rng.random_range(45..=120)),
        return_deadline: Duration::from_secs(rng.random_range(60..=180)),
        control_plane_deadline: Duration::from_secs(rng.random_range(150..=400)),
        serving_percent: [50, 50, 34, 100][rng.random_range(0..4)],
        wave: WavePolicy {
            initial: rng.random_range(1..=2),
            max: rng.random_range(2..=4),
            ..WavePolicy::default()
        },
        set_aside: SetAsidePolicy {
            enabled: true,
            release_share: [50, 80, 100][rng.random_range(0..3)],
            max_hold: Duration::from_secs(rng.random_range(60..=240)),
        },
        typical: Typical::default(),
    };
    let gate = |role| GateSettings {
        role,
        dead_man_control_plane: Duration::from_mins(2),
        dead_man_worker: Duration::from_mins(5),
        preflight_hold: Duration::ZERO,
        jitter: Duration::from_secs(30),
    };
    let mut script = Script {
        policy,
        outage: OutagePolicy {
            share_percent: 50,
            window: Duration::from_mins(15),
        },
        silent_after: Duration::from_secs(9),
        gates: [
            (Role::ControlPlane, gate(GateRole::ControlPlane)),
            (Role::Worker, gate(GateRole::Worker)),
        ]
        .into(),
        slow_messages: 3 * wild,
        doubled_orders: 10 * wild,
        bad_kubelets: 4 * wild,
        chances: Chances {
            crash: 400 * wild,
            fail: 400 * wild,
        },
        bad_ledgers: wild,
        quiet_at: 0,
        strokes: Vec::new(),
        inventory,
    };
    let first = rng.random_range(6_000..15_000);
    power_event(rng, &mut script, first);
    if rng.random_ratio(2, 5) {
        let second = first + rng.random_range(20_000..300_000);
        power_event(rng, &mut script, second);
    }
    misfortunes(rng, &mut script, first, wild);
    let last = script.strokes.iter().map(|(at, _)| *at).max().unwrap_or(first);
    script.quiet_at = last + 30_000;
    script
}

fn power_event(rng: &mut SmallRng, script: &mut Script, at: Ms) {
    let nodes: Vec<NodeSpec> = script.inventory.nodes.values().cloned().collect();
    let cluster = &script.inventory.clusters[rng.random_range(0..script.inventory.clusters.len())].name;
    let scope = rng.random_range(0..10);
    let hit: Vec<_> = (0..nodes.len())
        .filter(|node| match scope {
            0..=5 => true,
            6 | 7 => nodes[*node].cluster == *cluster,
            _ => nodes[*node].rack.as_deref() == Some("r0"),
        })
        .collect();
    for node in hit {
        let back_after = match rng.random_range(0..100) {
            0..75 => Some(rng.random_range(15_000..80_000)),
            75..90 => Some(rng.random_range(80_000..300_000)),
            90..95 => Some(rng.random_range(300_000..700_000)),
            _ => None,
        };
        let cut = at + rng.random_range(0..2_000);
        script.strokes.push((cut, Stroke::Cut { node, back_after }));
    }
    if rng.random_bool(0.5) {
        let host = Stroke::CoordinatorCrash {
            host: true,
            for_good: rng.random_ratio(1, 8),
        };
        script.strokes.push((at + rng.random_range(0..2_000), host));
    }
}

fn misfortunes(rng: &mut SmallRng, script: &mut Script, from: Ms, wild: u32) {
    let count = script.inventory.nodes.len();
    let until = from + 400_000;
    let mut strokes = Vec::new();
    for _ in 0..wild * 4 {
        let at = rng.random_range(from..until);
        let node = rng.random_range(0..count);
        let for_ms = rng.random_range(2_000..60_000);
        let stroke = match rng.random_range(0..13) {
            0 | 1 => Stroke::Cut {
                node,
                back_after: Some(rng.random_range(15_000..60_000)),
            },
            2 => Stroke::Restart { node },
            3 | 4 => Stroke::AgentCrash { node },
            5 => Stroke::KubeletIll { node, for_ms },
            6 | 7 => Stroke::Partition {
                nodes: (0..count).filter(|_| rng.random_bool(0.3)).collect(),
                for_ms,
            },
            8 | 9 => Stroke::CoordinatorCrash {
                host: rng.random_bool(0.3),
                for_good: false,
            },
            10 => {
                quarrel(rng, &mut strokes, count, at);
                continue;
            }
            11 => Stroke::DiskFull { for_ms },
            _ => match rng.random_range(0..4) {
                0 => Stroke::Abort,
                1 => Stroke::Pause { for_ms },
                _ => Stroke::WallJump {
                    to: rng.random_range(0..4_000_000_000_000),
                },
            },
        };
        strokes.push((at, stroke));
    }
    if wild > 0 && rng.random_ratio(1, 4) {
        let at = rng.random_range(from..until);
        quarrel(rng, &mut strokes, count, at);
    }
    script.strokes.extend(strokes);
    if rng.random_ratio(1, 12) {
        let at = rng.random_range(from..until);
        let gone = Stroke::CoordinatorCrash {
            host: false,
            for_good: true,
        };
        script.strokes.push((at, gone));
    }
}

/// Two coordinators that both believe they lead, and nodes that fall again for them to quarrel about.
fn quarrel(rng: &mut SmallRng, strokes: &mut Vec<(Ms, Stroke)>, count: usize, at: Ms) {
    let for_ms = rng.random_range(5_000..60_000);
    let own_disk = rng.random_bool(0.5);
    strokes.push((at, Stroke::Freeze { for_ms, own_disk }));
    for node in 0..count {
        if rng.random_bool(0.5) {
            let cut = at + for_ms + rng.random_range(0..60_000);
            let back_after = Some(rng.random_range(15_000..40_000));
            strokes.push((cut, Stroke::Cut { node, back_after }));
        }
    }
}

/// Two or three clusters: one that the others depend on.
fn inventory(rng: &mut SmallRng) -> Inventory {
    let mut inventory = Inventory {
        clusters: Vec::new(),
        nodes: BTreeMap::new(),
    };
    let names = &["base", "biz", "paas"][..rng.random_range(2..=3)];
    for (index, name) in names.iter().enumerate() {
        let cluster = ClusterName((*name).to_owned());
        let masters = [3, 3, 1][rng.random_range(0..3)];
        let workers = rng.random_range(1..=4);
        let mut nodes = Vec::new();
        for number in 0..masters + workers {
            let (letter, role) = if number < masters {
                ('m', Role::ControlPlane)
            } else {
                ('w', Role::Worker)
            };
            let spec = NodeSpec {
                name: NodeName(format!("{name}-{letter}{number}")),
                cluster: cluster.clone(),
                role,
                address: IpAddr::V4(Ipv4Addr::from_bits(
                    0x0a00_0000 + u32::try_from(index * 256).unwrap_or(0) + number,
                )),
                rack: Some(format!("r{}", number % 2)),
                machine_id: None,
                bmc: None,
            };
            nodes.push(spec.name.clone());
            inventory.nodes.insert(spec.name.clone(), spec);
        }
        // The third depends on the second as often as on the first.
        let after = match index {
            0 => Vec::new(),
            1 => vec![ClusterName(names[0].to_owned())],
            _ => vec![ClusterName(names[rng.random_range(0..2)].to_owned())],
        };
        inventory.clusters.push(Cluster {
            name: cluster,
            vip: None,
            after,
            nodes,
        });
    }
    inventory
}

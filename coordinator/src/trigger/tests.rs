//! The table: what happened to a fleet of two clusters, and what is begun for it.

use std::net::{IpAddr, Ipv4Addr};

use blackstart_proto::boot::{BootIdentity, PreviousShutdown};
use tokio::time::Instant;

use super::*;
use crate::execute::status::StepStatus;
use crate::fleet::view::NodeView;
use crate::inventory::{Cluster, NodeSpec, Role};
use crate::outage;

/// The coordinator has been running for so long.
const UPTIME: Duration = Duration::from_hours(1);
const NOW_UNIX_MS: u64 = 1_800_000_000_000;

fn node(name: &str) -> NodeName {
    NodeName(name.to_owned())
}

fn cluster(name: &str) -> ClusterName {
    ClusterName(name.to_owned())
}

/// `infra` and, after it, `biz`: a master and three workers each.
fn inventory() -> Inventory {
    let mut inventory = Inventory {
        clusters: Vec::new(),
        nodes: BTreeMap::new(),
    };
    for (name, after) in [("infra", vec![]), ("biz", vec![cluster("infra")])] {
        let nodes: Vec<_> = (1..=4).map(|index| node(&format!("{name}-{index}"))).collect();
        for (index, node) in nodes.iter().enumerate() {
            let spec = NodeSpec {
                name: node.clone(),
                cluster: cluster(name),
                role: if index == 0 {
                    Role::ControlPlane
                } else {
                    Role::Worker
                },
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                rack: None,
                machine_id: None,
                bmc: None,
            };
            inventory.nodes.insert(node.clone(), spec);
        }
        inventory.clusters.push(Cluster {
            name: cluster(name),
            vip: None,
            after,
            nodes,
        });
    }
    inventory
}

/// A fleet in which something happened, and what is decided on it.
struct Story {
    inventory: Inventory,
    view: FleetView,
    runs: Vec<Arc<RunStatus>>,
    attended: BTreeSet<NodeName>,
    policy: ColdStartPolicy,
    outage: OutagePolicy,
}

fn boot(id: &str) -> BootIdentity {
    BootIdentity {
        boot_id: id.to_owned(),
        nonce: id.to_owned(),
        previous_shutdown: PreviousShutdown::Unclean,
    }
}

impl Story {
    /// Everything is ready.
    fn calm() -> Self {
        let inventory = inventory();
        let began_at = Instant::now();
        let ready = NodeView {
            phase: Phase::Ready,
            in_session: true,
            boot: Some(boot("a")),
            ..NodeView::unknown(began_at)
        };
        Self {
            view: FleetView {
                at: began_at + UPTIME,
                nodes: inventory
                    .nodes
                    .keys()
                    .map(|name| (name.clone(), ready.clone()))
                    .collect(),
                own_unclean_boot: false,
                began_at,
            },
            inventory,
            runs: Vec::new(),
            attended: BTreeSet::new(),
            policy: ColdStartPolicy::default(),
            outage: OutagePolicy::default(),
        }
    }

    fn change(&mut self, names: &[&str], change: impl Fn(&mut NodeView, Instant)) {
        let now = self.view.at;
        for name in names {
            change(self.view.nodes.get_mut(&node(name)).unwrap(), now);
        }
    }

    fn lost(mut self, names: &[&str]) -> Self {
        self.change(names, |view, now| {
            view.phase = Phase::Silent;
            view.phase_since = now;
            view.in_session = false;
            view.lost_at = Some(now);
        });
        self
    }

    /// Back in a new boot after an unclean end, and held for so many seconds.
    fn held(mut self, names: &[&str], seconds: u64) -> Self {
        self.change(names, |view, now| {
            view.phase = Phase::Held;
            view.phase_since = now - Duration::from_secs(seconds);
            view.lost_at = None;
            view.previous_boot = view.boot.replace(boot("b"));
            view.new_boot_at = Some(view.phase_since);
        });
        for name in names {
            self.attended.remove(&node(name));
        }
        self
    }

    /// The coordinator lost its own power with them, and has heard of none since.
    fn dark(mut self, names: &[&str]) -> Self {
        self.view.own_unclean_boot = true;
        self.view.began_at = self.view.at;
        self.change(names, |view, now| {
            view.phase = Phase::Silent;
            view.phase_since = now;
            view.in_session = false;
        });
        self
    }

    fn attended(mut self, names: &[&str]) -> Self {
        self.attended.extend(names.iter().map(|name| node(name)));
        self
    }

    /// A run of a runbook that ended (or was looked at) so many minutes ago; each node with how its release stands.
    fn run(
        mut self,
        runbook: &str,
        state: RunState,
        minutes_ago: u64,
        steps: &[(&[&str], StepState)],
    ) -> Self {
        let steps: Vec<_> = steps
            .iter()
            .flat_map(|(names, state)| names.iter().map(|name| (node(name), *state)))
            .collect();
        let plan = crate::plan::Plan {
            runbook: runbook.to_owned(),
            steps: steps
                .iter()
                .map(|(node, _)| crate::plan::Step {
                    id: crate::plan::StepId(format!("release/{node}")),
                    kind: crate::plan::StepKind::ReleaseKubelet { node: node.clone() },
                    after: Vec::new(),
                    lane: None,
                    deadline: Duration::from_mins(1),
                    on_failure: crate::plan::OnFailure::Residue,
                })
                .collect(),
            lanes: Vec::new(),
            notes: Vec::new(),
        };
        let steps = plan
            .steps
            .iter()
            .zip(&steps)
            .map(|(step, (_, state))| StepStatus {
                id: step.id.clone(),
                state: *state,
                waiting_on: String::new(),
                evidence: String::new(),
                attempts: 0,
                started_ms: None,
                ended_ms: None,
            })
            .collect();
        self.runs.push(Arc::new(RunStatus {
            request: None,
            id: format!("{runbook}-{}", self.runs.len() + 1),
            state,
            reason: String::new(),
            started_unix_ms: NOW_UNIX_MS - minutes_ago * 60_000 - 1000,
            elapsed_ms: 1000,
            at: self.view.at,
            plan: Arc::new(plan),
            steps,
            residue: Vec::new(),
            waiting_on: Vec::new(),
            lanes: Vec::new(),
        }));
        self
    }

    fn trigger(mut self, trigger: Trigger) -> Self {
        self.policy.trigger = trigger;
        self
    }

    /// What is decided, in short.
    fn decided(&self) -> Vec<String> {
        let decisions = decide(&Input {
            inventory: &self.inventory,
            view: &self.view,
            outages: &outage::assess(&self.view, &self.inventory, &self.outage),
            runs: &self.runs,
            attended: &self.attended,
            policy: &self.policy,
            outage: &self.outage,
            now_unix_ms: NOW_UNIX_MS,
        });
        let list = |clusters: &[ClusterName]| {
            let names: Vec<_> = clusters.iter().map(|name| name.0.as_str()).collect();
            names.join(" ")
        };
        decisions
            .iter()
            .map(|decision| match decision {
                Decision::Start { clusters, evidence } => {
                    assert!(!evidence.is_empty());
                    format!("start {}", list(clusters))
                }
                Decision::Propose { clusters, .. } => format!("propose {}", list(clusters)),
                Decision::Rejoin { node, .. } => format!("rejoin {node}"),
            })
            .collect()
    }
}

const BIZ: &[&str] = &["biz-1", "biz-2", "biz-3", "biz-4"];
const INFRA: &[&str] = &["infra-1", "infra-2", "infra-3", "infra-4"];

fn assert_table(table: Vec<(&str, Story, &[&str])>) {
    for (what, story, expected) in table {
        assert_eq!(story.decided(), expected, "{what}");
    }
}

#[tokio::test]
async fn a_power_event_begins_a_cold_start_of_the_clusters_that_it_took() {
    assert_table(vec![
        ("nothing happened", Story::calm(), &[]),
        (
            "a partition: nobody is back to say why",
            Story::calm().lost(BIZ),
            &[],
        ),
        (
            "the first node is back",
            Story::calm().lost(BIZ).held(&["biz-3"], 0),
            &["start biz"],
        ),
        (
            "another cluster was lost with it",
            Story::calm().lost(BIZ).lost(INFRA).held(&["biz-3"], 0),
            &["start biz infra"],
        ),
        (
            "the coordinator lost its power too: one event is one run",
            Story::calm().dark(BIZ).dark(INFRA).held(&["biz-3"], 0),
            &["start biz infra"],
        ),
        (
            "it did, and the other cluster kept running",
            Story::calm().dark(BIZ).held(&["biz-3"], 0),
            &["start biz"],
        ),
        (
            "both have somebody back",
            Story::calm().lost(BIZ).lost(INFRA).held(&["biz-3", "infra-1"], 0),
            &["start biz infra"],
        ),
        (
            "an operator shall say so",
            Story::calm()
                .lost(BIZ)
                .held(&["biz-3"], 99)
                .trigger(Trigger::Propose),
            &["propose biz"],
        ),
        (
            "nothing is done by itself",
            Story::calm().lost(BIZ).held(&["biz-3"], 99).trigger(Trigger::Off),
            &[],
        ),
        (
            "an old run of another event does not count",
            Story::calm()
                .run("cold-start", RunState::Succeeded, 600, &[(BIZ, StepState::Done)])
                .lost(BIZ)
                .held(&["biz-3"], 0),
            &["start biz"],
        ),
        (
            "nor does one that was aborted long ago",
            Story::calm()
                .run(
                    "cold-start",
                    RunState::Aborted,
                    600,
                    &[(BIZ, StepState::Cancelled)],
                )
                .lost(BIZ)
                .held(&["biz-3"], 0),
            &["start biz"],
        ),
    ]);
}

#[tokio::test]
async fn what_a_run_has_or_had_in_charge_is_not_begun_again() {
    let at_work = |story: Story| {
        story.run(
            "cold-start",
            RunState::Running,
            0,
            &[(&["biz-1"], StepState::Started), (&BIZ[1..], StepState::Pending)],
        )
    };
    assert_table(vec![
        (
            "its run is at work",
            at_work(Story::calm().lost(&BIZ[1..]).held(&["biz-1"], 99)),
            &[],
        ),
        (
            "so for a halted one",
            Story::calm()
                .held(BIZ, 99)
                .run("cold-start", RunState::Halted, 0, &[(BIZ, StepState::Failed)]),
            &[],
        ),
        (
            "another cluster follows",
            at_work(Story::calm().held(BIZ, 0).lost(INFRA).held(&["infra-2"], 0)),
            &["start infra"],
        ),
        (
            "its run succeeded, and one that it gave up is still held",
            Story::calm().held(BIZ, 99).attended(BIZ).run(
                "cold-start",
                RunState::Succeeded,
                1,
                &[(BIZ, StepState::Residue)],
            ),
            &[],
        ),
        (
            "an operator aborted it: neither those nor who comes after them",
            Story::calm().held(BIZ, 99).attended(&BIZ[..2]).run(
                "cold-start",
                RunState::Aborted,
                5,
                &[(BIZ, StepState::Cancelled)],
            ),
            &[],
        ),
        (
            "hours after the abort, those that were there stay untouched",
            Story::calm().held(BIZ, 99).attended(BIZ).run(
                "cold-start",
                RunState::Aborted,
                300,
                &[(BIZ, StepState::Cancelled)],
            ),
            &[],
        ),
    ]);
}

#[tokio::test]
async fn what_falls_while_a_run_is_at_work_is_that_runs_business() {
    let at_work = |state| Story::calm().run("cold-start", state, 0, &[(BIZ, StepState::Done)]);
    assert_table(vec![
        (
            "one crashes",
            at_work(RunState::Running).held(&["biz-2"], 99),
            &[],
        ),
        ("power fails again", at_work(RunState::Running).held(BIZ, 99), &[]),
        (
            "one rejoins, and then all fall: its rejoin yields",
            Story::calm().held(BIZ, 0).run(
                "rejoin",
                RunState::Running,
                0,
                &[(&["biz-2"], StepState::Waiting)],
            ),
            &["start biz"],
        ),
        (
            "power fails again once its run has ended",
            at_work(RunState::Succeeded).attended(BIZ).held(BIZ, 0),
            &["start biz"],
        ),
    ]);
}

#[tokio::test]
async fn a_node_that_fell_alone_or_came_late_rejoins() {
    let late = || {
        Story::calm()
            .held(&["biz-1", "biz-2", "biz-3"], 60)
            .attended(&["biz-1", "biz-2", "biz-3"])
            .run(
                "cold-start",
                RunState::Succeeded,
                0,
                &[(&BIZ[..3], StepState::Done), (&["biz-4"], StepState::Residue)],
            )
            .held(&["biz-4"], 40)
    };
    let mut late_and_the_others_ready = late();
    late_and_the_others_ready.change(&BIZ[..3], |view, _| view.phase = Phase::Ready);
    assert_table(vec![
        ("just back", Story::calm().held(&["biz-2"], 29), &[]),
        (
            "held for long enough",
            Story::calm().held(&["biz-2"], 30),
            &["rejoin biz-2"],
        ),
        (
            "also where cold starts are only proposed",
            Story::calm().held(&["biz-2"], 30).trigger(Trigger::Propose),
            &["rejoin biz-2"],
        ),
        (
            "its rejoin is at work",
            Story::calm().held(&["biz-2"], 30).run(
                "rejoin",
                RunState::Running,
                0,
                &[(&["biz-2"], StepState::Started)],
            ),
            &[],
        ),
        (
            "the residue of a run comes late",
            late_and_the_others_ready,
            &["rejoin biz-4"],
        ),
        (
            "one of each cluster",
            Story::calm().held(&["biz-2", "infra-1"], 30),
            &["rejoin infra-1", "rejoin biz-2"],
        ),
    ]);
}

#[tokio::test]
async fn no_more_rejoin_at_once_than_a_wave_has() {
    let mut story = Story::calm().held(&["biz-2", "infra-1"], 30).run(
        "rejoin",
        RunState::Running,
        0,
        &[(&["biz-4"], StepState::Waiting)],
    );
    story.policy.wave.max = 2;
    assert_eq!(story.decided(), ["rejoin infra-1"]);
}

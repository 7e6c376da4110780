//! Carries out what [`trigger`] decides: looks at the fleet whenever it changed, and begins what there is to begin.
//!
//! ```text
//!  FleetView, runs ─► which nodes does a run have ahead?     ─► Fleet::attend (remembered for this boot)
//!                  ├► outage::racks                     ─► told
//!                  └► outage::assess ─► trigger::decide ─► plan ─► Executor::start
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::brakes::BrakesHandle;
use crate::events::{EventKind, Events, NewEvent, Severity};
use crate::execute::status::RunStatus;
use crate::execute::{Executor, Refusal};
use crate::fleet::Fleet;
use crate::fleet::view::FleetView;
use crate::inventory::{ClusterName, Inventory, NodeName};
use crate::outage::{self, racks};
use crate::plan::{Plan, cold_start, rejoin};
use crate::policy::{ColdStartPolicy, OutagePolicy};
use crate::storm::guard;
use crate::trigger::{self, Decision, Input};

/// The fleet is looked at no more often, …
const PAUSE: Duration = Duration::from_millis(50);
/// … and between two looks is so many times what a look took: thousands that come at once are not looked at one by one.
const PAUSE_PER_COST: u32 = 10;
/// A look that had to wait for the journal says nothing of what looking costs.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What was refused is asked for again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What it looks at, and whom it tells.
#[derive(Debug)]
pub struct Starter {
    /// The declared fleet.
    pub inventory: Arc<Inventory>,
    /// What makes an outage.
    pub outage: OutagePolicy,
    /// What begins a cold start, and how it is planned.
    pub policy: ColdStartPolicy,
    /// The live picture.
    pub fleet: Fleet,
    /// Who begins runs.
    pub executor: Executor,
    /// Who is silenced.
    pub brakes: BrakesHandle,
    /// What happens, for people.
    pub events: Events,
}

/// What was said and done, so that nothing is said twice.
#[derive(Debug, Default)]
struct Memory {
    /// The clusters whose power event was told of, until there is nothing to begin any more.
    told: Vec<ClusterName>,
    /// The racks that went, as far as it was told.
    racks: racks::Told,
    /// Why the last thing that was refused was refused.
    refused: Option<String>,
    not_before: Option<Instant>,
}

impl Starter {
    /// Looks and begins, until it is told to stop or the executor is gone.
    pub async fn run(self, stop: CancellationToken) {
        let mut views = self.fleet.view();
        let mut runs = self.executor.watch();
        let mut memory = Memory::default();
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let now = Arc::clone(&runs.borrow_and_update());
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pass(&view, &now, &mut memory) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PAUSE.max(began.elapsed() * PAUSE_PER_COST).min(LONGEST_PAUSE)) => {}
            }
            let more = tokio::select! {
                () = stop.cancelled() => return,
                more = views.changed() => more,
                more = runs.changed() => more,
            };
            if more.is_err() {
                return;
            }
        }
    }

    async fn pass(&self, view: &FleetView, runs: &[Arc<RunStatus>], memory: &mut Memory) {
        self.fleet.attend(trigger::ahead(runs));
        let racks = racks::assess(view, &self.inventory, &self.outage);
        for news in memory.racks.news(&racks) {
            tracing::warn!(text = news.message, "a rack went");
            self.events.emit(news);
        }
        let attended = self.attended();
        let decisions = trigger::decide(&Input {
            inventory: &self.inventory,
            view,
            outages: &outage::assess_without(
                view,
                &self.inventory,
                &self.outage,
                &guard::silenced(&self.brakes, &self.fleet),
            ),
            runs,
            attended: &attended,
            policy: &self.policy,
            outage: &self.outage,
            now_unix_ms: unix_ms(),
        });
        let told = |decision: &Decision| match decision {
            Decision::Start { .. } | Decision::Propose { .. } => true,
            Decision::Rejoin { .. } => false,
        };
        if !decisions.iter().any(told) {
            memory.told.clear();
        }
        if memory.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        for decision in decisions {
            if let Err(refusal) = self.carry_out(decision, view, memory).await {
                memory.not_before = Some(Instant::now() + AGAIN);
                self.say_refused(&refusal, memory);
                return;
            }
            memory.refused = None;
        }
    }

    async fn carry_out(
        &self,
        decision: Decision,
        view: &FleetView,
        memory: &mut Memory,
    ) -> Result<(), Refusal> {
        match decision {
            Decision::Start { clusters, evidence } => {
                let reason = format!("power event: {evidence}");
                self.tell(&clusters, &reason, memory);
                let plan = cold_start::plan(&self.inventory, view, &self.policy, &clusters);
                self.start(plan, reason).await
            }
            Decision::Propose { clusters, evidence } => {
                let text = format!(
                    "power event: {evidence}; begin the cold start with: blackstart coldstart start{}",
                    clusters
                        .iter()
                        .fold(String::new(), |line, name| format!("{line} --cluster {name}"))
                );
                self.tell(&clusters, &text, memory);
                Ok(())
            }
            Decision::Rejoin { node, evidence } => match rejoin::plan(&self.inventory, &self.policy, &node) {
                Some(plan) => self.start(plan, evidence).await,
                None => Ok(()),
            },
        }
    }

    async fn start(&self, plan: Plan, reason: String) -> Result<(), Refusal> {
        let run = self.executor.start(plan, reason).await?;
        tracing::info!(run = run.id, reason = run.reason, "began by itself");
        Ok(())
    }

    /// Tells of a power event, once for the same clusters.
    fn tell(&self, clusters: &[ClusterName], text: &str, memory: &mut Memory) {
        if memory.told == clusters {
            return;
        }
        memory.told = clusters.to_vec();
        tracing::warn!(text, "power event");
        let event = NewEvent::new(Severity::Critical, EventKind::PowerEvent, text);
        self.events.emit(match clusters {
            [only] => event.cluster(only),
            [..] => event,
        });
    }

    fn say_refused(&self, refusal: &Refusal, memory: &mut Memory) {
        let why = refusal.to_string();
        if memory.refused.as_ref() == Some(&why) {
            return;
        }
        tracing::warn!(why, "what was to begin by itself was refused; trying again");
        self.events.emit(NewEvent::new(
            Severity::Warning,
            EventKind::Refused,
            format!("what was to begin by itself was refused: {why}"),
        ));
        memory.refused = Some(why);
    }

    fn attended(&self) -> BTreeSet<NodeName> {
        self.fleet.read(|state| {
            let nodes = state.nodes().filter(|(_, node)| node.attended());
            nodes.map(|(name, _)| name.clone()).collect()
        })
    }
}

/// The wall clock, milliseconds since the Unix epoch.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

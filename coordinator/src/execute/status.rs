//! A run as others see it: what queries show and watchers follow.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::advance::Advance;
use super::record::Run;
use super::state::Phase;
use super::waiting::{NAMED, WaitingOn};
use crate::fleet::view::ApiServerAnswer;
use crate::inventory::NodeName;
use crate::plan::{LaneId, Plan, StepId};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// At work.
    Running,
    /// No new step is begun until it is resumed.
    Paused,
    /// A step failed whose policy is to halt and ask.
    Halted,
    /// Every step is done, or residue within the plan's tolerance.
    Succeeded,
    /// Ended by an operator.
    Aborted,
}

impl RunState {
    /// Can still do something.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Halted => true,
            Self::Succeeded | Self::Aborted => false,
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepState {
    /// Its dependencies are not done.
    Pending,
    /// Its dependencies are done; its gate is not passed.
    Waiting,
    /// Dispatched.
    Started,
    /// Verified.
    Done,
    /// Given up within the plan's tolerance: its node is residue.
    Residue,
    /// Failed; the run is halted for it.
    Failed,
    /// The run was aborted before it was begun.
    Cancelled,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStatus {
    /// Which.
    pub id: StepId,
    /// How it stands.
    pub state: StepState,
    /// What it waits for now; empty when for nothing.
    pub waiting_on: String,
    /// What its gate passed on, or why it ended so.
    pub evidence: String,
    /// How often it was dispatched.
    pub attempts: u32,
    /// Milliseconds after the beginning of the run; `None`: not yet.
    pub started_ms: Option<u64>,
    /// Milliseconds after the beginning of the run; `None`: not yet.
    pub ended_ms: Option<u64>,
}

/// How many steps of a lane may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// Which.
    pub lane: LaneId,
    /// So many may be.
    pub window: usize,
    /// So many are.
    pub in_flight: usize,
    /// How the API server behind it answers, in steps of 10 ms; `None`: nobody tells.
    pub apiserver: Option<ApiServerAnswer>,
}

impl fmt::Display for LaneStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lane,
            window,
            in_flight,
            apiserver,
        } = self;
        write!(f, "lane {lane}: window {window}, {in_flight} under way")?;
        apiserver.map_or(Ok(()), |answer| write!(f, ", API server {answer}"))
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// Its id: `cold-start-3`.
    pub id: String,
    /// How it stands.
    pub state: RunState,
    /// Why it was begun.
    pub reason: String,
    /// The name of the command that began it, if it has one.
    pub request: Option<String>,
    /// Wall clock at its beginning, milliseconds since the Unix epoch; for people.
    pub started_unix_ms: u64,
    /// Milliseconds from its beginning to its end, or to `at`.
    pub elapsed_ms: u64,
    /// When this was looked at.
    pub at: Instant,
    /// What it carries out.
    pub plan: Arc<Plan>,
    /// Its steps, in the plan's order.
    pub steps: Vec<StepStatus>,
    /// Nodes that did not come back.
    pub residue: Vec<NodeName>,
    /// What holds it up now.
    pub waiting_on: Vec<String>,
    /// The budgets of a run at work.
    pub lanes: Vec<LaneStatus>,
}

impl RunStatus {
    /// Milliseconds that it was at work, until its end or `now`. A status is made anew when something changes, and a run
    /// that waits goes on meanwhile.
    pub fn elapsed_ms_at(&self, now: Instant) -> u64 {
        let since = if self.state.is_active() {
            now.saturating_duration_since(self.at).as_millis()
        } else {
            0
        };
        self.elapsed_ms
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// A run as it stands. `hindrance` is what keeps the whole executor from acting, if something does.
pub(super) fn status(run: &Run, advance: &Advance, hindrance: Option<&WaitingOn>, at: Instant) -> RunStatus {
    let active = run.state.is_active();
    let steps = run
        .steps
        .iter()
        .enumerate()
        .map(|(place, step)| {
            let waiting = advance
                .waiting
                .get(place)
                .and_then(Option::as_ref)
                .filter(|_| active);
            StepStatus {
                id: run.plan.steps[place].id.clone(),
                state: match step.phase {
                    Phase::Open => match waiting {
                        Some(WaitingOn::Step(_)) | None => StepState::Pending,
                        Some(_) => StepState::Waiting,
                    },
                    Phase::Started => StepState::Started,
                    Phase::Done => StepState::Done,
                    Phase::Residue => StepState::Residue,
                    Phase::Failed => StepState::Failed,
                    Phase::Cancelled => StepState::Cancelled,
                },
                waiting_on: waiting.map(ToString::to_string).unwrap_or_default(),
                evidence: step.evidence.clone(),
                attempts: step.attempts,
                started_ms: step.started_ms,
                ended_ms: step.ended_ms,
            }
        })
        .collect();
    let residue = run
        .steps
        .iter()
        .zip(&run.plan.steps)
        .filter(|(step, _)| step.phase == Phase::Residue)
        .filter_map(|(_, step)| step.kind.node().cloned())
        .collect();
    let waiting_on = match hindrance.filter(|_| active) {
        Some(hindrance) => vec![hindrance.to_string()],
        None if active => holdups(run, advance),
        None => Vec::new(),
    };
    RunStatus {
        id: run.id.clone(),
        // One that another executor has taken from us is not at work, whatever its journal says.
        state: match hindrance {
            Some(WaitingOn::Superseded(_)) if active => RunState::Halted,
            Some(_) | None => run.state,
        },
        reason: run.reason.clone(),
        request: run.request.clone(),
        started_unix_ms: run.started_unix_ms,
        elapsed_ms: u64::try_from(run.elapsed(at).as_millis()).unwrap_or(u64::MAX),
        at,
        plan: Arc::clone(&run.plan),
        steps,
        residue,
        waiting_on,
        lanes: if active { lanes(run, advance) } else { Vec::new() },
    }
}

/// A run as its journal alone tells it: what it waits for is in the memory of whoever works on it.
pub(super) fn remembered(run: &Run, at: Instant) -> RunStatus {
    let mut status = status(run, &Advance::default(), None, at);
    if status.state.is_active() {
        status
            .waiting_on
            .push("not in the store: only the coordinator that leads knows it".to_owned());
    }
    status
}

/// The budgets as they are shown.
pub(super) fn lanes(run: &Run, advance: &Advance) -> Vec<LaneStatus> {
    let lanes = run.lanes.iter().zip(&advance.lanes);
    lanes
        .map(|(lane, now)| LaneStatus {
            lane: lane.lane.clone(),
            window: now.pace.window,
            in_flight: now.in_flight,
            apiserver: now.pace.heard.map(|word| coarse(word.answer)),
        })
        .collect()
}

/// Finer differences are no news: a run of a large fleet is a megabyte, and sent anew at each change.
fn coarse(answer: ApiServerAnswer) -> ApiServerAnswer {
    let step = |took: Duration| u64::try_from(took.as_millis().div_ceil(10)).unwrap_or(u64::MAX);
    match answer {
        ApiServerAnswer::Ready(took) => {
            ApiServerAnswer::Ready(Duration::from_millis(step(took).saturating_mul(10)))
        }
        failed @ ApiServerAnswer::Failed(_) => failed,
    }
}

/// What holds a run up, in few lines: each gate by itself, nodes that wait for the same by their number and some names.
fn holdups(run: &Run, advance: &Advance) -> Vec<String> {
    let mut lines = Vec::new();
    let mut full = BTreeSet::new();
    let mut crowds: [(&str, Vec<&NodeName>); 4] = [
        ("not back", Vec::new()),
        ("kubelet not healthy", Vec::new()),
        ("has its command and has not answered", Vec::new()),
        ("waits for another attempt", Vec::new()),
    ];
    for (place, waiting) in advance.waiting.iter().enumerate() {
        let Some(waiting) = waiting else { continue };
        let step = &run.plan.steps[place];
        let crowd = match waiting {
            WaitingOn::NodeNotBack { .. } => 0,
            WaitingOn::KubeletNotHealthy { .. } => 1,
            WaitingOn::Answer { .. } => 2,
            WaitingOn::BackOff { .. } => 3,
            WaitingOn::Step(_) | WaitingOn::Paused => continue,
            WaitingOn::LaneFull { .. } => {
                full.extend(run.lane_of[place]);
                continue;
            }
            WaitingOn::Operator => {
                lines.push(format!("{}: {}; {waiting}", step.id, run.steps[place].evidence));
                continue;
            }
            WaitingOn::ControlPlane { .. }
            | WaitingOn::Serving { .. }
            | WaitingOn::Superseded(_)
            | WaitingOn::Journal(_) => {
                // A release behind a gate whose evidence is gone says what its gate would.
                let id = step
                    .kind
                    .node()
                    .map_or(&step.id, |_| &run.plan.steps[run.after[place][0]].id);
                let line = format!("{id}: {waiting}");
                if lines.last() != Some(&line) {
                    lines.push(line);
                }
                continue;
            }
        };
        crowds[crowd].1.extend(step.kind.node());
    }
    // Also when every step is settled: only the pause keeps the run from its end.
    if run.state == RunState::Paused {
        lines.insert(0, WaitingOn::Paused.to_string());
    }
    let budgets = lanes(run, advance);
    lines.extend(
        full.into_iter()
            .filter_map(|lane| budgets.get(lane))
            .map(ToString::to_string),
    );
    for (what, nodes) in crowds {
        let named: Vec<_> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
        match nodes.len() {
            0 => {}
            count if count > NAMED => {
                lines.push(format!(
                    "{count} nodes: {what}: {} and {} more",
                    named.join(", "),
                    count - NAMED
                ));
            }
            _ => lines.push(format!("{}: {what}", named.join(", "))),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_waits_gets_older_and_one_that_ended_does_not() {
        let at = Instant::now();
        let run = |state| RunStatus {
            id: "cold-start-1".into(),
            state,
            reason: String::new(),
            request: None,
            started_unix_ms: 0,
            elapsed_ms: 500,
            at,
            plan: Arc::new(Plan {
                runbook: "cold-start".into(),
                steps: Vec::new(),
                lanes: Vec::new(),
                notes: Vec::new(),
            }),
            steps: Vec::new(),
            residue: Vec::new(),
            waiting_on: Vec::new(),
            lanes: Vec::new(),
        };
        let later = at + Duration::from_secs(2);
        assert_eq!(run(RunState::Running).elapsed_ms_at(later), 2500);
        assert_eq!(run(RunState::Succeeded).elapsed_ms_at(later), 500);
    }
}

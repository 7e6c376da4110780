//! A run as it goes: a frame to redraw on a terminal, or lines to append elsewhere. Both are functions of what the
//! coordinator says of the run.

use super::lists::run_tint;
use super::table::{Cell, Line, Table, Tint};
use super::words::{count, took};
use crate::view::{Lane, RunDetail, RunState, Step, StepState};

pub(crate) const fn step_tint(state: StepState) -> Tint {
    match state {
        StepState::Unknown | StepState::Started => Tint::Plain,
        StepState::Pending | StepState::Cancelled => Tint::Dim,
        StepState::Waiting | StepState::Residue => Tint::Warning,
        StepState::Done => Tint::Good,
        StepState::Failed => Tint::Bad,
    }
}

/// How the parts of one cluster stand.
#[derive(Default)]
struct Part<'a> {
    name: &'a str,
    control_planes: Vec<&'a Step>,
    control_plane_gate: Option<&'a Step>,
    workers: Vec<&'a Step>,
    serving_gate: Option<&'a Step>,
    verified: Option<&'a Step>,
}

/// Clusters in the order of the plan. Releases that come before their cluster's control-plane gate are its control
/// planes: the gate stands between them and the workers in every plan.
fn parts(run: &RunDetail) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    for step in &run.steps {
        let name = step.plan.cluster.as_deref().unwrap_or("fleet");
        let index = parts
            .iter()
            .position(|part| part.name == name)
            .unwrap_or_else(|| {
                parts.push(Part {
                    name,
                    ..Part::default()
                });
                parts.len() - 1
            });
        let part = &mut parts[index];
        match step.plan.kind.as_str() {
            "control-plane-gate" => {
                part.control_plane_gate = Some(step);
                part.control_planes.append(&mut part.workers);
            }
            "serving-gate" => part.serving_gate = Some(step),
            "verify-cluster" => part.verified = Some(step),
            "release-kubelet" => part.workers.push(step),
            // They say what they wait for below.
            _ => {}
        }
    }
    parts
}

fn released(steps: &[&Step]) -> Cell {
    let of = |state| steps.iter().filter(|step| step.state == state).count();
    let (done, residue) = (of(StepState::Done), of(StepState::Residue));
    if steps.is_empty() {
        return Cell::new("-");
    }
    let text = match residue {
        0 => format!("{done}/{}", steps.len()),
        _ => format!("{done}/{} ({residue} residue)", steps.len()),
    };
    let tint = match (done + residue == steps.len(), residue) {
        (true, 0) => Tint::Good,
        (true, _) => Tint::Warning,
        (false, _) => Tint::Plain,
    };
    Cell::tinted(text, tint)
}

fn stands(step: Option<&Step>) -> Cell {
    step.map_or_else(
        || Cell::new("-"),
        |step| Cell::tinted(step.state.word(), step_tint(step.state)),
    )
}

/// The run in at most `height` lines: how it stands, each cluster, then what is being done or waited for.
pub(crate) fn frame(run: &RunDetail, height: usize) -> Vec<Line> {
    let mut lines = head(run);
    let mut clusters = Table::new([
        "CLUSTER",
        "CONTROL PLANES",
        "API SERVERS",
        "WORKERS",
        "SERVING",
        "VERIFIED",
    ]);
    for part in parts(run) {
        clusters.row(vec![
            part.name.into(),
            released(&part.control_planes),
            stands(part.control_plane_gate),
            released(&part.workers),
            stands(part.serving_gate),
            stands(part.verified),
        ]);
    }
    lines.push(Line::default());
    lines.extend(clusters.lines());
    if !run.lanes.is_empty() {
        lines.push(Line::default());
        lines.extend(run.lanes.iter().map(|it| Line::tinted(lane(it), Tint::Dim)));
    }
    if run.run.state.is_active() {
        let now = now_doing(run);
        // A blank and the names of the columns, and perhaps what is left out.
        let room = height.saturating_sub(lines.len() + 3);
        let shown = if now.len() > room { room } else { now.len() };
        if shown > 0 {
            let mut table = Table::new(["STEP", "STATE", "FOR", "WAITING ON"]);
            now.iter()
                .take(shown)
                .for_each(|step| table.row(step_row(run, step)));
            lines.push(Line::default());
            lines.extend(table.lines());
        }
        if now.len() > shown {
            lines.push(Line::tinted(
                format!(
                    "and {} more: blackstart describe run {}",
                    now.len() - shown,
                    run.run.id
                ),
                Tint::Dim,
            ));
        }
    }
    lines.truncate(height);
    lines
}

/// `workers/biz: window 24, 18 under way, API server 180 ms`.
pub(crate) fn lane(lane: &Lane) -> String {
    let api_server = match (lane.apiserver_error, lane.apiserver_latency_ms) {
        (Some(error), _) => format!(", API server {error}"),
        (None, Some(ms)) => format!(", API server {ms} ms"),
        (None, None) => String::new(),
    };
    let Lane {
        id,
        window,
        in_flight,
        ..
    } = lane;
    format!("{id}: window {window}, {in_flight} under way{api_server}")
}

fn head(run: &RunDetail) -> Vec<Line> {
    let summary = &run.run;
    let mut lines = vec![
        Line::tinted(&summary.id, Tint::Bold)
            .and(format!(" ({})  ", summary.runbook), Tint::Plain)
            .and(summary.state.word(), run_tint(summary.state))
            .and(format!("  {}", took(summary.elapsed_ms)), Tint::Plain)
            .and(
                format!("  {} of {} steps done", summary.steps_done, summary.steps_total),
                Tint::Plain,
            ),
        Line::tinted(&summary.reason, Tint::Dim),
    ];
    if !summary.residue.is_empty() {
        lines.push(Line::tinted(
            format!("residue: {}", summary.residue.join(", ")),
            Tint::Warning,
        ));
    }
    if matches!(summary.state, RunState::Halted | RunState::Paused) {
        lines.extend(
            summary
                .waiting_on
                .iter()
                .map(|waiting| Line::tinted(format!("waits for: {waiting}"), Tint::Bad)),
        );
        lines.push(Line::new(format!(
            "go on: blackstart coldstart resume {}",
            summary.id
        )));
    }
    lines
}

/// What a person looks for first comes first: failed steps, then those under way, then those that wait.
fn now_doing(run: &RunDetail) -> Vec<&Step> {
    let rank = |step: &Step| match step.state {
        StepState::Failed => Some(0),
        StepState::Started => Some(1),
        StepState::Waiting => Some(2),
        StepState::Unknown
        | StepState::Pending
        | StepState::Done
        | StepState::Residue
        | StepState::Cancelled => None,
    };
    let mut steps: Vec<_> = run.steps.iter().filter(|step| rank(step).is_some()).collect();
    steps.sort_by_key(|step| rank(step));
    steps
}

fn step_row(run: &RunDetail, step: &Step) -> Vec<Cell> {
    let lasts = match (step.state, step.started_ms) {
        (StepState::Started, Some(from)) => took(run.run.elapsed_ms.saturating_sub(from)),
        (_, _) => String::new(),
    };
    let said = step.waiting_on.as_ref().or(step.evidence.as_ref());
    vec![
        step.plan.id.as_str().into(),
        Cell::tinted(step.state.word(), step_tint(step.state)),
        lasts.into(),
        said.map_or("", String::as_str).into(),
    ]
}

/// What is new since the look before, a line each; the first look tells how the run stands.
pub(crate) fn news(before: Option<&RunDetail>, run: &RunDetail) -> Vec<Line> {
    let summary = &run.run;
    let mut lines = Vec::new();
    if before.is_none() {
        let done = format!("{} of {} steps done", summary.steps_done, summary.steps_total);
        lines.push(Line::new(format!(
            "{} ({}): {done}; {}",
            summary.id, summary.runbook, summary.reason
        )));
    }
    for (index, step) in run.steps.iter().enumerate() {
        let known = before
            .and_then(|before| before.steps.get(index))
            .filter(|known| known.plan.id == step.plan.id);
        let is_new = match known {
            Some(known) => (known.state, &known.waiting_on) != (step.state, &step.waiting_on),
            None => before.is_some() || now_matters(step),
        };
        if is_new && step.state != StepState::Pending {
            lines.push(step_line(run, step));
        }
    }
    if before.is_none_or(|before| before.run.state != summary.state) {
        lines.push(state_line(run));
    }
    lines
}

/// Of a run that is joined midway only what is open is told.
const fn now_matters(step: &Step) -> bool {
    match step.state {
        StepState::Waiting | StepState::Started | StepState::Failed | StepState::Residue => true,
        StepState::Unknown | StepState::Pending | StepState::Done | StepState::Cancelled => false,
    }
}

fn step_line(run: &RunDetail, step: &Step) -> Line {
    let said = match step.state {
        StepState::Done | StepState::Residue | StepState::Failed => {
            step.evidence.as_ref().or(step.waiting_on.as_ref())
        }
        StepState::Unknown
        | StepState::Pending
        | StepState::Waiting
        | StepState::Started
        | StepState::Cancelled => step.waiting_on.as_ref(),
    };
    let said = said
        .map(|said| format!("  {}", said.trim_end()))
        .unwrap_or_default();
    Line::tinted(format!("+{:<7}", took(run.run.elapsed_ms)), Tint::Plain)
        .and("  ", Tint::Plain)
        .and(format!("{:<8}", step.state.word()), step_tint(step.state))
        .and(format!("  {}{said}", step.plan.id), Tint::Plain)
}

fn state_line(run: &RunDetail) -> Line {
    let summary = &run.run;
    let text = match summary.state {
        RunState::Unknown | RunState::Running | RunState::Undoing => format!("{} is running", summary.id),
        RunState::Paused => {
            format!(
                "{} is paused; go on with: blackstart coldstart resume {}",
                summary.id, summary.id
            )
        }
        RunState::Halted => format!(
            "{} is halted and asks for a person: {}; try again with: blackstart coldstart resume {}",
            summary.id,
            summary.waiting_on.join("; "),
            summary.id
        ),
        RunState::Succeeded | RunState::Aborted => ending(run),
    };
    Line::tinted(text, run_tint(summary.state))
}

/// How it ended, in a line.
pub(crate) fn ending(run: &RunDetail) -> String {
    let summary = &run.run;
    let residue = match summary.residue.len() {
        0 => "everything came back".to_owned(),
        some => format!(
            "{} did not come back: {}",
            count(some, "node"),
            summary.residue.join(", ")
        ),
    };
    match summary.state {
        RunState::Succeeded => format!(
            "{} succeeded after {}; {residue}",
            summary.id,
            took(summary.elapsed_ms)
        ),
        RunState::Aborted => format!(
            "{} was aborted after {}, {} of {} steps done; held kubelets keep their dead-man time",
            summary.id,
            took(summary.elapsed_ms),
            summary.steps_done,
            summary.steps_total
        ),
        RunState::Unknown | RunState::Running | RunState::Paused | RunState::Halted | RunState::Undoing => {
            format!("{} is {}", summary.id, summary.state.word())
        }
    }
}

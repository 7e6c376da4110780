//! What a drill on masters came to: as JSON (`--report`, `-o json`; stable, documented in docs/cli.md) and as lines for people.
//!
//! Times are milliseconds on the drill's clock, which begins when the masters are laid out.

use std::path::PathBuf;

use serde::Serialize;

use super::super::report::{LawReport, Moment, law_lines, verdict_line};
use super::chronicle::Chronicle;
use super::laws::{Law, judge};
use crate::output::table::{Line, Tint};
use crate::output::words::took;

/// A drill's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) drill: &'static str,
    /// The chapter of the operators' plan.
    pub(super) chapter: &'static str,
    pub(super) on: &'static str,
    pub(super) seed: u64,
    /// Every law held, and every run ended as the chapter says.
    pub(super) passed: bool,
    pub(super) laws: Vec<LawReport>,
    pub(super) runs: Vec<RunReport>,
    pub(super) steps: Vec<StepReport>,
    /// What was to be refused, asked or told, and what was said.
    pub(super) refused: Vec<Refused>,
    /// Every time that a manifest was away.
    pub(super) outs: Vec<OutReport>,
    /// Keys of etcd's that were acknowledged while it happened.
    pub(super) acknowledged: usize,
    /// How long what took.
    pub(super) timings: Vec<Timing>,
    /// From the first trouble to the end of the chapter; `null`: it was not reached.
    pub(super) makespan_ms: Option<u64>,
    /// Of a drill that has one: which etcd was run.
    pub(super) etcd: Option<EtcdReport>,
    pub(super) timeline: Vec<Moment>,
    /// Where everything that the drill wrote was left, if that was asked for.
    pub(super) kept: Option<PathBuf>,
    /// Options that repeat the drill.
    #[serde(skip)]
    pub(super) again: String,
}

/// Which etcd was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct EtcdReport {
    /// A real one.
    pub(super) program: Option<PathBuf>,
    /// Otherwise a double of this version.
    pub(super) double_of: Option<&'static str>,
    /// How to have a real one.
    pub(super) note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RunReport {
    id: String,
    state: String,
    /// How it was to end.
    expected: &'static str,
    asked_ms: u64,
    ended_ms: Option<u64>,
    waiting_on: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct StepReport {
    run: String,
    step: String,
    phase: String,
    planned: String,
    said: String,
    approved_ms: Option<u64>,
    ended_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    asked: String,
    said: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OutReport {
    node: String,
    pod: String,
    gone_ms: u64,
    back_ms: Option<u64>,
    /// When its health port answered after that.
    well_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Timing {
    what: &'static str,
    ms: u64,
}

impl Report {
    /// Judges what happened.
    pub(super) fn of(
        (drill, chapter): (&'static str, &'static str),
        on: &'static str,
        seed: u64,
        chronicle: &Chronicle,
    ) -> Self {
        let verdicts = judge(chronicle);
        let lawful = verdicts.iter().all(|verdict| verdict.violations.is_empty());
        let as_said =
            !chronicle.runs.is_empty() && chronicle.runs.iter().all(|run| run.state == run.expected);
        let laws = verdicts.into_iter().map(|verdict| LawReport {
            law: Law::name(verdict.law),
            says: Law::sentence(verdict.law),
            violations: verdict.violations,
        });
        let runs = chronicle.runs.iter().map(|run| RunReport {
            id: run.id.clone(),
            state: run.state.clone(),
            expected: run.expected,
            asked_ms: run.asked_ms,
            ended_ms: run.ended_ms,
            waiting_on: run.waiting_on.clone(),
        });
        let steps = chronicle.runs.iter().flat_map(|run| {
            run.steps.iter().map(|step| StepReport {
                run: run.id.clone(),
                step: step.id.clone(),
                phase: step.phase.clone(),
                planned: step.planned.clone(),
                said: step.said.clone(),
                approved_ms: step.approved_ms,
                ended_ms: step.ended_ms,
            })
        });
        let outs = chronicle.outs.iter().map(|out| OutReport {
            node: out.node.clone(),
            pod: out.pod.clone(),
            gone_ms: out.gone_ms,
            back_ms: out.back_ms,
            well_ms: out.back_ms.and_then(|back| {
                let well = chronicle.health.iter();
                let mut well = well.filter(|one| {
                    one.well && one.node == out.node && one.pod == out.pod && one.at_ms >= back
                });
                well.next().map(|one| one.at_ms)
            }),
        });
        let refused = chronicle.heard.iter().filter(|heard| !heard.expected.is_empty());
        Self {
            drill,
            chapter,
            on,
            seed,
            passed: lawful && as_said,
            laws: laws.collect(),
            runs: runs.collect(),
            steps: steps.collect(),
            refused: refused
                .map(|heard| Refused {
                    asked: heard.asked.clone(),
                    said: heard.said.clone(),
                })
                .collect(),
            outs: outs.collect(),
            acknowledged: chronicle.acknowledged,
            timings: chronicle
                .timings
                .iter()
                .map(|(what, ms)| Timing { what, ms: *ms })
                .collect(),
            makespan_ms: chronicle
                .ended_ms
                .zip(chronicle.trouble_ms)
                .map(|(ended, began)| ended.saturating_sub(began)),
            etcd: None,
            timeline: timeline(chronicle),
            kept: None,
            again: format!("--seed {seed}"),
        }
    }

    /// Why it did not pass, in a line; `None` if it did.
    pub(super) fn failure(&self) -> Option<String> {
        if self.passed {
            return None;
        }
        let broken = self.laws.iter().filter(|law| !law.violations.is_empty());
        let broken: Vec<_> = broken.map(|law| law.law).collect();
        let mut why = Vec::new();
        if !broken.is_empty() {
            why.push(format!("broken: {}", broken.join(", ")));
        }
        let otherwise = self.runs.iter().filter(|run| run.state != run.expected);
        why.extend(otherwise.map(|run| {
            let waits = run.waiting_on.as_deref().unwrap_or("nothing");
            format!(
                "{} is {} and was to be {}, waiting for {waits}",
                run.id, run.state, run.expected
            )
        }));
        Some(format!("the drill did not pass: {}", why.join("; ")))
    }

    /// For people; `marks`: ✓ and ✗ instead of words.
    pub(super) fn lines(&self, marks: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for run in &self.runs {
            let took = run
                .ended_ms
                .map(|ended| format!(" after {}", took(ended.saturating_sub(run.asked_ms))))
                .unwrap_or_default();
            let steps = self.steps.iter().filter(|step| step.run == run.id);
            let steps: Vec<_> = steps.map(|step| step.step.as_str()).collect();
            lines.push(
                Line::tinted(&run.id, Tint::Bold)
                    .and(format!(" {}{took}: {}", run.state, steps.join(", ")), Tint::Plain),
            );
        }
        for refused in &self.refused {
            lines.push(Line::new(format!(
                "said of {}: {}",
                refused.asked,
                refused.said.join("; ")
            )));
        }
        for out in &self.outs {
            let well = out.well_ms.map_or_else(
                || "not well after it".to_owned(),
                |well| format!("well after {}", took(well.saturating_sub(out.gone_ms))),
            );
            lines.push(Line::new(format!("{} of {} was out, {well}", out.pod, out.node)));
        }
        for timing in &self.timings {
            lines.push(Line::new(format!("{}: {}", timing.what, took(timing.ms))));
        }
        if self.acknowledged > 0 {
            lines.push(Line::new(format!(
                "{} keys were acknowledged meanwhile",
                self.acknowledged
            )));
        }
        if let Some(makespan) = self.makespan_ms {
            lines.push(Line::new(format!(
                "through {} after the first trouble",
                took(makespan)
            )));
        }
        if let Some(note) = self.etcd.as_ref().and_then(|etcd| etcd.note.as_ref()) {
            lines.push(Line::new(note));
        }
        lines.push(Line::default());
        lines.extend(law_lines(&self.laws, marks));
        lines.push(Line::default());
        let again = format!("blackstart drill {} {}", self.drill, self.again);
        lines.push(verdict_line(self.passed, self.seed, &again));
        if let Some(kept) = &self.kept {
            lines.push(Line::new(format!("kept in {}", kept.display())));
        }
        lines
    }
}

fn timeline(chronicle: &Chronicle) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut say = |at_ms, node: Option<String>, what: String| moments.push(Moment { at_ms, node, what });
    for (at, what) in &chronicle.told {
        say(*at, None, what.clone());
    }
    for run in &chronicle.runs {
        for step in &run.steps {
            if let Some(at) = step.ended_ms {
                say(
                    at,
                    None,
                    format!("{} of {} {}: {}", step.id, run.id, step.phase, step.said),
                );
            }
        }
        if let Some(at) = run.ended_ms {
            say(at, None, format!("{} {}", run.id, run.state));
        }
    }
    for out in &chronicle.outs {
        let node = Some(out.node.clone());
        say(
            out.gone_ms,
            node.clone(),
            format!("the manifest of {} went out", out.pod),
        );
        if let Some(at) = out.back_ms {
            say(at, node, format!("the manifest of {} came back", out.pod));
        }
    }
    moments.sort_by_key(|moment| moment.at_ms);
    moments
}

//! What a drill came to: as JSON (`--report`, `-o json`; stable, documented in docs/cli.md) and as lines for people.
//!
//! Times are milliseconds on the drill's clock, which begins when its cluster is laid out.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::super::report::{LawReport, Moment, law_lines, verdict_line};
use super::chronicle::{Chronicle, RunStory};
use super::laws::{Law, Verdict, judge};
use crate::output::table::{Line, Tint};
use crate::output::words::{count, took};

/// A drill's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) drill: &'static str,
    /// The chapter of the operators' plan.
    pub(super) chapter: &'static str,
    pub(super) on: &'static str,
    pub(super) seed: u64,
    /// The release that the cluster played.
    pub(super) kubernetes: String,
    /// Every law held, and every run succeeded.
    pub(super) passed: bool,
    pub(super) laws: Vec<LawReport>,
    pub(super) runs: Vec<RunReport>,
    pub(super) steps: Vec<StepReport>,
    /// What was to be refused, and what was said to be missing.
    pub(super) refused: Vec<Refused>,
    /// By whose word a machine counted as off: the first of each.
    pub(super) proofs: Vec<ProofReport>,
    /// Every change that was asked of the API.
    pub(super) changes: Vec<ChangeReport>,
    /// What Blackstart changed for good.
    pub(super) left: Vec<LeftReport>,
    /// From the trouble to the end that the chapter is for; `null`: it was not reached.
    pub(super) makespan_ms: Option<u64>,
    pub(super) timeline: Vec<Moment>,
    /// Where everything that the drill wrote was left, if that was asked for.
    pub(super) kept: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RunReport {
    id: String,
    runbook: String,
    node: Option<String>,
    namespace: Option<String>,
    state: String,
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
    missing: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProofReport {
    machine: String,
    /// `operator` or `management controller`.
    by: &'static str,
    at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ChangeReport {
    at_ms: u64,
    what: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LeftReport {
    object: String,
    what: String,
    before: Value,
    after: Value,
    /// The chapter says so.
    expected: bool,
}

/// Which drill it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) drill: &'static str,
    pub(super) chapter: &'static str,
    pub(super) seed: u64,
    /// Of the release.
    pub(super) minor: u8,
}

impl Report {
    /// Judges what happened.
    pub(super) fn of(held: Held, chronicle: &Chronicle) -> Self {
        let verdicts = judge(chronicle);
        let lawful = verdicts.iter().all(|verdict| verdict.violations.is_empty());
        let succeeded = !chronicle.runs.is_empty() && chronicle.runs.iter().all(RunStory::succeeded);
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
        let runs = chronicle.runs.iter().map(|run| RunReport {
            id: run.id.clone(),
            runbook: run.runbook.clone(),
            node: run.node.clone(),
            namespace: run.namespace.clone(),
            state: run.state.clone(),
            asked_ms: run.asked_ms,
            ended_ms: run.ended_ms,
            waiting_on: run.waiting_on.clone(),
        });
        let refused = chronicle.heard.iter().map(|heard| {
            // Several pods may lack the same.
            let mut missing: Vec<String> = Vec::new();
            for (_, one) in &heard.refusals {
                if !missing.contains(one) {
                    missing.push(one.clone());
                }
            }
            Refused {
                asked: heard.asked.clone(),
                missing,
            }
        });
        let left = chronicle.remains().into_iter().map(|one| LeftReport {
            object: one.object.to_string(),
            what: one.what,
            before: one.before,
            after: one.after,
            expected: one.expected,
        });
        Self {
            drill: held.drill,
            chapter: held.chapter,
            on: "sim",
            seed: held.seed,
            kubernetes: format!("1.{}", held.minor),
            passed: lawful && succeeded,
            runs: runs.collect(),
            steps: steps.collect(),
            refused: refused.collect(),
            proofs: proofs(chronicle),
            changes: changes(chronicle),
            left: left.collect(),
            makespan_ms: chronicle
                .ended_ms
                .zip(chronicle.trouble_ms)
                .map(|(ended, began)| ended.saturating_sub(began)),
            timeline: timeline(chronicle),
            laws: verdicts.into_iter().map(law).collect(),
            kept: None,
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
        if self.runs.is_empty() {
            why.push("no runbook was run".to_owned());
        }
        let unfinished = self.runs.iter().filter(|run| run.state != "succeeded");
        why.extend(unfinished.map(|run| {
            let waits = run
                .waiting_on
                .as_ref()
                .map(|waits| format!(", waiting for {waits}"))
                .unwrap_or_default();
            format!("{} is {}{waits}", run.id, run.state)
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
            let missing = refused.missing.join("; ");
            lines.push(Line::new(format!(
                "refused: {}; missing: {missing}",
                refused.asked
            )));
        }
        for proof in &self.proofs {
            lines.push(Line::new(format!(
                "proof that {} is off: {}",
                proof.machine, proof.by
            )));
        }
        for left in &self.left {
            lines.push(Line::new(format!(
                "left: {} of {}: {} before, {} now",
                left.what, left.object, left.before, left.after
            )));
        }
        lines.push(Line::new(format!(
            "{} asked of the API of Kubernetes {}",
            count(self.changes.len(), "change"),
            self.kubernetes
        )));
        if let Some(makespan) = self.makespan_ms {
            lines.push(Line::new(format!(
                "as it should be {} after the trouble",
                took(makespan)
            )));
        }
        lines.push(Line::default());
        lines.extend(law_lines(&self.laws, marks));
        lines.push(Line::default());
        let again = format!("blackstart drill {} --seed {}", self.drill, self.seed);
        lines.push(verdict_line(self.passed, self.seed, &again));
        if let Some(kept) = &self.kept {
            lines.push(Line::new(format!("kept in {}", kept.display())));
        }
        lines
    }
}

fn law(verdict: Verdict) -> LawReport {
    let Verdict { law, violations } = verdict;
    LawReport {
        law: Law::name(law),
        says: Law::sentence(law),
        violations,
    }
}

fn proofs(chronicle: &Chronicle) -> Vec<ProofReport> {
    let mut told: Vec<ProofReport> = Vec::new();
    for proof in &chronicle.proofs {
        let known = |one: &ProofReport| one.machine == proof.machine && one.by == proof.by;
        if !told.iter().any(known) {
            told.push(ProofReport {
                machine: proof.machine.clone(),
                by: proof.by,
                at_ms: proof.at_ms,
            });
        }
    }
    told
}

fn changes(chronicle: &Chronicle) -> Vec<ChangeReport> {
    let calls = chronicle.calls.iter();
    calls
        .map(|call| ChangeReport {
            at_ms: call.at_ms,
            what: call.deed.to_string(),
            status: call.code,
        })
        .collect()
}

fn timeline(chronicle: &Chronicle) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut say = |at_ms, node: Option<String>, what: String| moments.push(Moment { at_ms, node, what });
    for (at, node, what) in &chronicle.told {
        say(*at, node.clone(), what.clone());
    }
    for run in &chronicle.runs {
        say(run.asked_ms, run.node.clone(), format!("{} began", run.id));
        for step in &run.steps {
            if let Some(at) = step.approved_ms {
                say(
                    at,
                    run.node.clone(),
                    format!("{} of {} approved", step.id, run.id),
                );
            }
            if let Some(at) = step.ended_ms {
                let what = format!("{} of {} {}: {}", step.id, run.id, step.phase, step.said);
                say(at, run.node.clone(), what);
            }
        }
        if let Some(at) = run.ended_ms {
            say(at, run.node.clone(), format!("{} {}", run.id, run.state));
        }
    }
    for call in &chronicle.calls {
        say(
            call.at_ms,
            None,
            format!("asked of the API: {} ({})", call.deed, call.code),
        );
    }
    moments.sort_by_key(|moment| moment.at_ms);
    moments
}

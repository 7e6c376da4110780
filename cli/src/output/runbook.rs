//! Runbooks for people: a plan, and a run as it stands.

use jiff::Timestamp;

use super::lists::Listed;
use super::table::{Cell, Line, Tint};
use super::words::{age_at, limit};
use crate::view::{Refusal, Runbook, RunbookPlan, RunbookRun, RunbookStep};

impl Listed for Runbook {
    const PLURAL: &'static str = "runbooks";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec!["NAME", "CHAPTER", "WHAT IT DOES"]
    }

    fn row(&self, _wide: bool, _now: Timestamp) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.chapter.as_str().into(),
            self.description.as_str().into(),
        ]
    }
}

impl Listed for RunbookRun {
    const PLURAL: &'static str = "runs";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["RUN", "OF", "STATE", "AGE", "STEP", "WAITING ON"];
        if wide {
            header.extend(["CLUSTER", "BY", "REASON"]);
        }
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let optional = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
        let mut row = vec![
            self.id.as_str().into(),
            subject(self.subject.as_deref(), &self.node, &self.cluster).into(),
            Cell::tinted(self.state, state_tint(self)),
            age_at(self.started_at, now).into(),
            optional(&self.current),
            optional(&self.waiting_on),
        ];
        if wide {
            row.extend([
                self.cluster.as_str().into(),
                self.by.as_str().into(),
                optional(&self.reason),
            ]);
        }
        row
    }
}

fn state_tint(run: &RunbookRun) -> Tint {
    match run.state {
        "succeeded" => Tint::Good,
        "halted" => Tint::Bad,
        _ if run.wants_approval => Tint::Warning,
        _ => Tint::Plain,
    }
}

/// A run is about a node, about pods or a workload, or about a whole cluster.
fn subject(subject: Option<&str>, node: &str, cluster: &str) -> String {
    match subject {
        Some(subject) => subject.to_owned(),
        None if node.is_empty() => format!("({cluster})"),
        None => node.to_owned(),
    }
}

fn whom(subject: Option<&str>, node: &str, cluster: &str) -> String {
    match subject {
        Some(subject) => format!("{subject} (cluster {cluster})"),
        None if node.is_empty() => format!("cluster {cluster}"),
        None => format!("{node} (cluster {cluster})"),
    }
}

/// A plan, before anything is done.
pub(crate) fn plan(plan: &RunbookPlan) -> Vec<Line> {
    let mut lines = vec![Line::new(format!(
        "{} of {}",
        plan.runbook,
        whom(plan.subject.as_deref(), &plan.node, &plan.cluster)
    ))];
    if plan.steps.is_empty() {
        lines.push(Line::tinted("nothing would be done", Tint::Warning));
    }
    for (at, step) in plan.steps.iter().enumerate() {
        lines.push(
            Line::default()
                .and(format!("{:>2}. {:<20} ", at + 1, step.id), Tint::Plain)
                .and(step.evidence.clone().unwrap_or_default(), Tint::Plain)
                .and(format!("  (within {})", limit(step.deadline_ms)), Tint::Dim),
        );
        if let Some(approval) = &step.approval {
            lines.push(Line::tinted(format!("wants your approval: {approval}"), Tint::Warning).indented(4));
        }
    }
    refusals(&plan.refusals, &mut lines);
    notes(&plan.notes, &mut lines);
    lines
}

/// A run as it stands.
pub(crate) fn run(run: &RunbookRun) -> Vec<Line> {
    let mut lines = vec![
        Line::new(format!(
            "{} of {}: ",
            run.id,
            whom(run.subject.as_deref(), &run.node, &run.cluster)
        ))
        .and(run.state, state_tint(run)),
        Line::new(format!(
            "asked for by {}{}",
            run.by,
            run.reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(": {reason}"))
        )),
    ];
    for step in &run.steps {
        lines.push(of_step(step));
    }
    if let Some(waiting) = &run.waiting_on {
        lines.push(Line::tinted(
            format!("waits for {waiting}"),
            if run.wants_approval {
                Tint::Warning
            } else {
                Tint::Plain
            },
        ));
    }
    if run.wants_approval {
        lines.push(Line::new(format!(
            "say: blackstart runbook approve {0}, or blackstart runbook abort {0}",
            run.id
        )));
    }
    if run.state == "aborted" || run.state == "undoing" {
        for left in &run.leaves {
            lines.push(Line::tinted(format!("left: {left}"), Tint::Warning));
        }
    }
    refusals(&run.refusals, &mut lines);
    notes(&run.notes, &mut lines);
    lines
}

/// Why an operator is asked, in a line.
pub(crate) fn asked(run: &RunbookRun) -> String {
    let step = run.steps.iter().find(|step| Some(&step.id) == run.asks.as_ref());
    let failed = step
        .filter(|step| step.phase == "failed")
        .and_then(|step| step.evidence.as_ref());
    if let Some(evidence) = failed {
        return format!("failed, and is tried again: {evidence}");
    }
    let approval = step.and_then(|step| step.approval.as_ref());
    approval.or(run.waiting_on.as_ref()).cloned().unwrap_or_default()
}

fn of_step(step: &RunbookStep) -> Line {
    let (mark, tint) = match step.phase {
        "done" => ("done", Tint::Good),
        "begun" => ("begun", Tint::Plain),
        "failed" => ("FAILED", Tint::Bad),
        "cancelled" => ("cancelled", Tint::Dim),
        _ => ("", Tint::Dim),
    };
    // Its first piece would lose the blanks before the next.
    let mut line = Line::default()
        .and(format!("{mark:<10}"), tint)
        .and(format!("{:<22} ", step.id), Tint::Plain)
        .and(step.evidence.clone().unwrap_or_default(), Tint::Plain);
    if let Some(by) = &step.approved_by {
        line = line.and(format!(" (approved by {by})"), Tint::Dim);
    }
    line
}

fn refusals(refusals: &[Refusal], lines: &mut Vec<Line>) {
    for Refusal { what, missing } in refusals {
        lines.push(Line::tinted(format!("refused: {what}"), Tint::Warning));
        lines.push(Line::new(format!("missing: {missing}")).indented(4));
    }
}

fn notes(notes: &[String], lines: &mut Vec<Line>) {
    lines.extend(
        notes
            .iter()
            .map(|note| Line::tinted(format!("note: {note}"), Tint::Dim)),
    );
}

#[cfg(test)]
mod tests {
    use super::super::table::plain;
    use super::*;

    #[test]
    fn steps_stand_in_columns() {
        let step = |phase, id: &str| {
            of_step(&RunbookStep {
                id: id.to_owned(),
                phase,
                evidence: Some("evidence".to_owned()),
                deadline_ms: 0,
                approval: None,
                approved_by: None,
            })
        };
        let text = plain(&[step("done", "cordon"), step("open", "await-moved")]);
        assert_eq!(
            text,
            "done      cordon                 evidence\n          await-moved            evidence\n"
        );
    }
}

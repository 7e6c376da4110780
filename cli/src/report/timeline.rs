//! The document in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Language;
use crate::output::words::{harmless, took};
use crate::view::{RunDetail, Step, StepState};

/// Summary, clusters, what did not come back, every step.
pub(super) fn markdown(run: &RunDetail, language: Language) -> String {
    let words = language.words();
    let mut text = format!("# {}\n\n", cell(&language.title(&run.run.runbook, &run.run.id)));
    for (what, value) in summary(run, language) {
        // Writing to a string cannot fail.
        let _ok = writeln!(text, "- **{what}:** {}", cell(&value));
    }
    let clusters = clusters(run);
    if !clusters.is_empty() {
        let _ok = write!(
            text,
            "\n## {}\n\n| {} | {} | {} | {} |\n|---|---|---|---|\n",
            words.clusters, words.cluster, words.nodes, words.first, words.last
        );
        for row in &clusters {
            let _ok = writeln!(text, "| {} |", row_of(row).map(|field| cell(&field)).join(" | "));
        }
    }
    let _ok = write!(
        text,
        "\n## {}\n\n{}\n\n| {} | {} | {} | {} | {} |\n|---|---|---|---|---|\n",
        words.timeline, words.clock, words.from, words.until, words.step, words.state, words.evidence
    );
    for step in in_order(run) {
        let _ok = writeln!(
            text,
            "| {} |",
            fields(step, language).map(|field| cell(&field)).join(" | ")
        );
    }
    if !run.notes.is_empty() {
        let _ok = write!(text, "\n## {}\n\n", words.notes);
        for note in &run.notes {
            let _ok = writeln!(text, "- {}", cell(note));
        }
    }
    text
}

/// What stands at the top of a report.
pub(super) fn summary(run: &RunDetail, language: Language) -> Vec<(&'static str, String)> {
    let words = language.words();
    let run = &run.run;
    let mut all = vec![
        (words.state, language.run(run.state).to_owned()),
        (
            words.began,
            run.started_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ),
        (words.took, took(run.elapsed_ms)),
        (words.steps, format!("{} / {}", run.steps_done, run.steps_total)),
        (words.reason, run.reason.clone()),
    ];
    if run.residue.is_empty() {
        if !run.state.is_active() {
            all.push((words.residue, words.nobody.to_owned()));
        }
    } else {
        all.push((words.residue, run.residue.join(", ")));
    }
    if run.state.is_active() && !run.waiting_on.is_empty() {
        all.push((words.waits, run.waiting_on.join("; ")));
    }
    all
}

/// One cluster in a line.
#[derive(Debug, Default)]
pub(super) struct Cluster<'a> {
    name: &'a str,
    nodes: usize,
    back: usize,
    first: Option<u64>,
    last: Option<u64>,
}

/// The clusters in the order of the plan.
pub(super) fn clusters(run: &RunDetail) -> Vec<Cluster<'_>> {
    let mut order = Vec::new();
    let mut all: BTreeMap<&str, Cluster<'_>> = BTreeMap::new();
    for step in &run.steps {
        let Some(name) = step.plan.cluster.as_deref() else {
            continue;
        };
        let cluster = all.entry(name).or_insert_with(|| {
            order.push(name);
            Cluster {
                name,
                ..Cluster::default()
            }
        });
        if step.plan.node.is_some() {
            cluster.nodes += 1;
            cluster.back += usize::from(step.state == StepState::Done);
        }
        if let Some(at) = step.started_ms {
            cluster.first = Some(cluster.first.map_or(at, |first| first.min(at)));
        }
        cluster.last = cluster.last.max(step.ended_ms);
    }
    order.into_iter().filter_map(|name| all.remove(name)).collect()
}

pub(super) fn row_of(cluster: &Cluster<'_>) -> [String; 4] {
    let time = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), took);
    [
        cluster.name.to_owned(),
        format!("{} / {}", cluster.back, cluster.nodes),
        time(cluster.first),
        time(cluster.last),
    ]
}

/// The steps that were begun, in the order of their beginning.
pub(super) fn in_order(run: &RunDetail) -> Vec<&Step> {
    let mut steps: Vec<_> = run
        .steps
        .iter()
        .filter(|step| step.started_ms.is_some())
        .collect();
    steps.sort_by_key(|step| step.started_ms);
    steps
}

/// From, until, what, state, why.
pub(super) fn fields(step: &Step, language: Language) -> [String; 5] {
    let time = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), took);
    let mut state = language.step(step.state).to_owned();
    if step.attempts > 1 {
        let _ok = write!(state, " ({} {})", step.attempts, language.words().attempts);
    }
    [
        time(step.started_ms),
        time(step.ended_ms),
        format!("{} ({})", step.plan.id, language.kind(&step.plan.kind)),
        state,
        step.evidence
            .clone()
            .or_else(|| step.waiting_on.clone())
            .unwrap_or_default(),
    ]
}

/// Text from outside in a cell: one line, no markup of its own.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in harmless(text).chars() {
        match c {
            '|' => safe.push_str("\\|"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '`' | '*' | '[' | ']' | '\\' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::tests::small;
    use super::*;

    #[test]
    fn tells_the_run_and_every_step_in_order() {
        let text = markdown(&small(), Language::En);
        assert!(text.starts_with("# Report of cold-start-1\n\n- **State:** Succeeded\n- **Began:** 2023-11-14T22:13:20Z\n- **Took:** 1m35s\n"), "{text}");
        assert!(text.contains("| biz | 1 / 2 | 0.1s | 1m35s |"), "{text}");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
        assert!(at("| 0.1s | 4.0s | release/biz-m1") < at("| 4.0s | 30s | gate/biz/control-plane"));
        assert!(text.contains("1 of 1 &lt;ready&gt;"));
    }

    #[test]
    fn a_run_that_goes_on_says_what_it_waits_for() {
        let mut run = small();
        run.run.state = crate::view::RunState::Halted;
        run.run.residue.clear();
        run.run.waiting_on = vec!["gate/biz/serving".into()];
        let text = markdown(&run, Language::En);
        assert!(
            text.contains("- **Waits on:** gate/biz/serving") && !text.contains("every node"),
            "{text}"
        );
    }
}

//! A run as a document to keep: what was done when, a chart and a timeline, in English or Chinese. Pure.
//!
//! | module | story |
//! |---|---|
//! | `language` | every text, in each language |
//! | `gantt` | the chart, an SVG that needs nothing else |
//! | `timeline` | the document in Markdown: summary, what did not come back, each step |
//! | `page` | both in one HTML file |

mod gantt;
mod language;
mod page;
mod timeline;

use std::path::Path;

use clap::ValueEnum;

pub(crate) use self::language::Language;
use crate::view::RunDetail;

/// The form of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Text for people and tickets.
    Markdown,
    /// The chart alone.
    Svg,
    /// One page with both, that needs no network.
    Html,
}

impl Form {
    /// By the ending of the file.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "md" | "markdown" => Some(Self::Markdown),
            "svg" => Some(Self::Svg),
            "html" | "htm" => Some(Self::Html),
            _ => None,
        }
    }
}

/// The document.
pub(crate) fn document(run: &RunDetail, form: Form, language: Language) -> String {
    match form {
        Form::Markdown => timeline::markdown(run, language),
        Form::Svg => gantt::svg(run, language),
        Form::Html => page::html(run, language),
    }
}

/// Text from outside inside XML and HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // XML 1.0 has no way to write them.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::view::{PlanStep, Run, RunState, Step, StepState};

    pub(super) fn step(id: &str, cluster: &str, state: StepState, times: (u64, u64), evidence: &str) -> Step {
        Step {
            plan: PlanStep {
                id: id.into(),
                kind: if id.starts_with("release/") {
                    "release-kubelet".into()
                } else {
                    "control-plane-gate".into()
                },
                cluster: Some(cluster.into()),
                node: id.strip_prefix("release/").map(Into::into),
                component: None,
                after: Vec::new(),
                description: format!("what {id} does"),
                deadline_ms: None,
            },
            state,
            waiting_on: None,
            evidence: Some(evidence.into()),
            attempts: 1,
            started_ms: Some(times.0),
            ended_ms: Some(times.1),
        }
    }

    pub(super) fn run(steps: Vec<Step>) -> RunDetail {
        RunDetail {
            run: Run {
                id: "cold-start-1".into(),
                runbook: "cold-start".into(),
                about: None,
                state: RunState::Succeeded,
                started_at: Timestamp::from_second(1_700_000_000).ok(),
                elapsed_ms: 95_000,
                steps_total: 3,
                steps_done: 2,
                residue: vec!["biz-w2".into()],
                reason: "power event".into(),
                waiting_on: Vec::new(),
            },
            steps,
            notes: Vec::new(),
            lanes: Vec::new(),
        }
    }

    pub(super) fn small() -> RunDetail {
        run(vec![
            step("release/biz-m1", "biz", StepState::Done, (100, 4_000), "healthy"),
            step(
                "gate/biz/control-plane",
                "biz",
                StepState::Done,
                (4_000, 30_000),
                "1 of 1 <ready>",
            ),
            step(
                "release/biz-w2",
                "biz",
                StepState::Residue,
                (30_000, 95_000),
                "silent",
            ),
        ])
    }

    #[test]
    fn the_ending_of_the_file_tells_the_form() {
        assert_eq!(Form::of(Path::new("a/report.HTML.html")), Some(Form::Html));
        assert_eq!(Form::of(Path::new("r.svg")), Some(Form::Svg));
        assert_eq!(Form::of(Path::new("r.txt")), None);
    }

    #[test]
    fn what_a_node_says_is_text_in_every_form() {
        let evil = run(vec![step(
            "release/<script>",
            "biz",
            StepState::Done,
            (1, 2),
            "</svg><script>alert(1)</script>\u{1b}[2J | x",
        )]);
        for form in [Form::Svg, Form::Html, Form::Markdown] {
            for language in [Language::En, Language::Zh] {
                let text = document(&evil, form, language);
                assert!(!text.contains("<script>alert"), "{text}");
                assert!(!text.contains('\u{1b}'));
            }
        }
    }

    #[test]
    fn each_language_has_its_own_words_and_the_same_facts() {
        let english = document(&small(), Form::Markdown, Language::En);
        let chinese = document(&small(), Form::Markdown, Language::Zh);
        assert!(english.contains("Did not come back") && chinese.contains("未恢复"));
        for text in [&english, &chinese] {
            assert!(
                text.contains("biz-w2") && text.contains("gate/biz/control-plane"),
                "{text}"
            );
        }
        assert!(!chinese.contains("Did not"));
    }
}

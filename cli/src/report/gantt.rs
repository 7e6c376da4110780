//! The chart: a bar for each step, by cluster, over the time of the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Language;
use super::escaped;
use crate::output::words::took;
use crate::view::{RunDetail, Step, StepState};

/// Of the picture, pixels.
const WIDTH: u64 = 1200;
/// Of the names beside the bars.
const NAMES: u64 = 260;
const MARGIN: u64 = 16;
const HEAD: u64 = 72;
/// Between clusters, with the cluster's name.
const GAP: u64 = 26;
/// All bars together get about this height: those of a large fleet are thin and without names.
const BODY: u64 = 1400;
/// A bar of this height has its name beside it.
const NAMED: u64 = 11;

/// What a mark on the axis may be apart, milliseconds.
const MARKS: [u64; 14] = [
    100, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000,
    14_400_000,
];

struct Scale {
    span_ms: u64,
}

impl Scale {
    const BARS: u64 = WIDTH - NAMES - 2 * MARGIN;

    /// Where an instant stands, pixels.
    fn x(&self, ms: u64) -> u64 {
        NAMES + MARGIN + ms.min(self.span_ms) * Self::BARS / self.span_ms
    }

    fn marks(&self) -> impl Iterator<Item = u64> + use<> {
        let apart = MARKS
            .into_iter()
            .find(|apart| self.span_ms / apart <= 12)
            .unwrap_or(self.span_ms.div_ceil(12));
        (0..=self.span_ms / apart).map(move |n| n * apart)
    }
}

/// The chart of everything that was begun.
pub(super) fn svg(run: &RunDetail, language: Language) -> String {
    let words = language.words();
    let clusters = begun(run);
    let scale = Scale {
        span_ms: span(run).max(1),
    };
    let rows: u64 = clusters.iter().map(|(_, steps)| steps.len() as u64).sum();
    let row = (BODY / rows.max(1)).clamp(2, 18);
    let height = HEAD + rows * row + GAP * clusters.len() as u64 + 2 * MARGIN;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ok = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\" role=\"img\">"
    );
    let title = escaped(&language.title(&run.run.runbook, &run.run.id));
    let _ok = writeln!(svg, "<title>{title}</title>");
    let _ok = writeln!(
        svg,
        "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    );
    let _ok = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"44\" fill=\"#555555\">{}: {} · {}: {}</text>",
        words.state,
        language.run(run.run.state),
        words.took,
        took(run.run.elapsed_ms),
    );
    legend(&mut svg, language);
    for mark in scale.marks() {
        let x = scale.x(mark);
        let _ok = writeln!(
            svg,
            "<path d=\"M{x} {HEAD}V{}\" stroke=\"#dddddd\"/><text x=\"{x}\" y=\"{}\" fill=\"#555555\" text-anchor=\"middle\">{}</text>",
            height - MARGIN,
            HEAD - 6,
            took(mark)
        );
    }
    let mut y = HEAD;
    for (cluster, steps) in &clusters {
        let name = if cluster.is_empty() { words.fleet } else { cluster };
        let _ok = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
            y + GAP - 8,
            escaped(name)
        );
        y += GAP;
        for step in steps {
            bar(&mut svg, step, language, &scale, (y, row), run.run.elapsed_ms);
            y += row;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, step: &Step, language: Language, scale: &Scale, (y, row): (u64, u64), now_ms: u64) {
    let from = step.started_ms.unwrap_or(0);
    let until = step.ended_ms.unwrap_or(now_ms).max(from);
    let (x, end) = (scale.x(from), scale.x(until));
    let tall = if row > 4 { row - 2 } else { row };
    let _ok = write!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{tall}\" fill=\"{}\"><title>{}: {}, {} – {}\n{}</title></rect>",
        (end - x).max(2),
        colour(step.state),
        escaped(&step.plan.id),
        language.step(step.state),
        took(from),
        took(until),
        escaped(
            step.evidence
                .as_deref()
                .or(step.waiting_on.as_deref())
                .unwrap_or_default()
        ),
    );
    if row >= NAMED {
        let _ok = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            NAMES + MARGIN - 8,
            y + row - 5,
            escaped(&shortened(&step.plan.id))
        );
    }
    svg.push('\n');
}

/// What fits beside the bars.
fn shortened(id: &str) -> String {
    const FITS: usize = 38;
    if id.chars().count() <= FITS {
        return id.to_owned();
    }
    let tail: String = id.chars().skip(id.chars().count() - FITS + 1).collect();
    format!("…{tail}")
}

fn legend(svg: &mut String, language: Language) {
    let states = [
        StepState::Done,
        StepState::Started,
        StepState::Residue,
        StepState::Failed,
    ];
    for (place, state) in (0_u64..).zip(states) {
        let x = WIDTH - MARGIN - 90 * (4 - place);
        let _ok = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"24\">{}</text>",
            colour(state),
            x + 17,
            language.step(state)
        );
    }
}

/// Told apart also by those who do not see red and green as others do.
const fn colour(state: StepState) -> &'static str {
    match state {
        StepState::Done => "#2a9d6f",
        StepState::Started | StepState::Waiting => "#4a90d9",
        StepState::Residue => "#e69f00",
        StepState::Failed => "#b3002d",
        StepState::Unknown | StepState::Pending | StepState::Cancelled => "#999999",
    }
}

/// The steps that were begun, by cluster in the order of the plan, each in the order of its beginning.
fn begun(run: &RunDetail) -> Vec<(&str, Vec<&Step>)> {
    let mut order: Vec<&str> = Vec::new();
    let mut clusters: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in run.steps.iter().filter(|step| step.started_ms.is_some()) {
        let name = step.plan.cluster.as_deref().unwrap_or_default();
        if !clusters.contains_key(name) {
            order.push(name);
        }
        clusters.entry(name).or_default().push(step);
    }
    order
        .into_iter()
        .map(|name| {
            let mut steps = clusters.remove(name).unwrap_or_default();
            steps.sort_by_key(|step| step.started_ms);
            (name, steps)
        })
        .collect()
}

fn span(run: &RunDetail) -> u64 {
    let last = run
        .steps
        .iter()
        .filter_map(|step| step.ended_ms.or(step.started_ms))
        .max();
    last.unwrap_or(0).max(run.run.elapsed_ms)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{run, small, step};
    use super::*;

    #[test]
    fn a_bar_for_each_step_that_was_begun() {
        let mut run = small();
        run.steps[2].started_ms = None;
        let svg = svg(&run, Language::En);
        assert_eq!(svg.matches("</title></rect>").count(), 2);
        assert!(svg.contains("1 of 1 &lt;ready&gt;"), "{svg}");
        // The gate: from 4 s to 30 s of 95 s.
        let scale = Scale { span_ms: 95_000 };
        let wide = scale.x(30_000) - scale.x(4_000);
        assert!(svg.contains(&format!("width=\"{wide}\"")), "{svg}");
    }

    #[test]
    fn a_run_without_a_step_is_a_chart_without_a_bar() {
        let svg = svg(&run(Vec::new()), Language::Zh);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("</title></rect>"));
    }

    #[test]
    fn six_thousand_nodes_fit_a_page() {
        let steps = (0..6_000_u64)
            .map(|n| {
                step(
                    &format!("release/n{n}"),
                    "c",
                    StepState::Done,
                    (n, n + 5),
                    "healthy",
                )
            })
            .collect();
        let svg = svg(&run(steps), Language::En);
        assert_eq!(svg.matches("</title></rect>").count(), 6_000);
        assert!(svg.len() < 2_000_000, "{} bytes", svg.len());
    }

    #[test]
    fn the_axis_has_few_marks_whatever_the_span() {
        for span_ms in [1, 99, 4_000, 95_000, 3_600_000, 400_000_000_000] {
            let marks = Scale { span_ms }.marks().count();
            assert!((1..=14).contains(&marks), "{marks} of {span_ms}");
        }
    }
}

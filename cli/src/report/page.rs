//! Timeline and chart in one HTML file that loads nothing.

use std::fmt::Write as _;

use super::{Language, escaped, gantt, timeline};
use crate::view::RunDetail;

const STYLE: &str = "\
body{font:14px/1.5 sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}\
th,td{border-bottom:1px solid #ddd;padding:.2em .8em;text-align:left;vertical-align:top}\
dl{display:grid;grid-template-columns:max-content auto;gap:.2em 1em}dt{font-weight:bold}dd{margin:0}\
svg{max-width:100%;height:auto}";

/// The page.
pub(super) fn html(run: &RunDetail, language: Language) -> String {
    let words = language.words();
    let title = escaped(&language.title(&run.run.runbook, &run.run.id));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n<body>\n\
         <h1>{title}</h1>\n<dl>\n",
        words.tag
    );
    for (what, value) in timeline::summary(run, language) {
        // Writing to a string cannot fail.
        let _ok = writeln!(page, "<dt>{what}</dt><dd>{}</dd>", escaped(&value));
    }
    let _ok = writeln!(page, "</dl>\n<h2>{}</h2>", words.clusters);
    table(
        &mut page,
        &[words.cluster, words.nodes, words.first, words.last],
        timeline::clusters(run).iter().map(timeline::row_of),
    );
    let _ok = writeln!(page, "<h2>{}</h2>\n{}", words.chart, gantt::svg(run, language));
    let _ok = writeln!(page, "<h2>{}</h2>\n<p>{}</p>", words.timeline, words.clock);
    table(
        &mut page,
        &[words.from, words.until, words.step, words.state, words.evidence],
        timeline::in_order(run)
            .into_iter()
            .map(|step| timeline::fields(step, language)),
    );
    if !run.notes.is_empty() {
        let _ok = writeln!(page, "<h2>{}</h2>\n<ul>", words.notes);
        for note in &run.notes {
            let _ok = writeln!(page, "<li>{}</li>", escaped(note));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn table<const N: usize>(page: &mut String, head: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let _ok = writeln!(page, "<table>\n<tr><th>{}</th></tr>", head.join("</th><th>"));
    for row in rows {
        let _ok = writeln!(
            page,
            "<tr><td>{}</td></tr>",
            row.map(|field| escaped(&field)).join("</td><td>")
        );
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::super::tests::small;
    use super::*;

    #[test]
    fn loads_nothing_and_holds_the_chart() {
        let page = html(&small(), Language::Zh);
        assert!(page.contains("<html lang=\"zh-CN\">") && page.contains("</svg>"));
        let addresses: Vec<_> = page
            .match_indices("http")
            .map(|(at, _)| &page[at..at + 26])
            .collect();
        assert_eq!(
            addresses,
            ["http://www.w3.org/2000/svg"],
            "a name, not an address to load"
        );
    }
}

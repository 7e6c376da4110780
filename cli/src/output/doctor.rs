//! What `doctor` found: a line a finding, and what to do beneath it.

use serde::Serialize;

use super::table::{Line, Tint};
use super::words::count;
use crate::doctor::{Finding, Level};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn of(&self, level: Level) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }
}

pub(crate) fn lines(findings: &[Finding]) -> Vec<Line> {
    let mut lines = Vec::new();
    for finding in findings {
        let tint = match finding.level {
            Level::Ok => Tint::Good,
            Level::Warning => Tint::Warning,
            Level::Wrong => Tint::Bad,
        };
        let subject = finding
            .subject
            .as_ref()
            .map_or_else(String::new, |subject| format!("{subject}: "));
        lines.push(
            Line::default()
                .and(format!("{:<8}", finding.level.word()), tint)
                .and(format!("{:<14}", finding.check.word()), Tint::Plain)
                .and(format!("{subject}{}", finding.what), Tint::Plain),
        );
        if let Some(fix) = &finding.fix {
            lines.push(Line::tinted(fix, Tint::Dim).indented(22));
        }
    }
    let number = |level| findings.iter().filter(|finding| finding.level == level).count();
    lines.push(Line::new(format!(
        "{} wrong, {}",
        number(Level::Wrong),
        count(number(Level::Warning), "warning")
    )));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::table::plain;
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn what_to_do_stands_beneath_what_was_found() {
        let findings = [
            Finding::ok(Check::Leader, "one leads"),
            Finding::wrong(Check::Gates, "biz-4", "no gate has run", "start it"),
        ];
        assert_eq!(
            plain(&lines(&findings)),
            "\
ok      leader        one leads
wrong   gates         biz-4: no gate has run
                      start it
1 wrong, 0 warnings
"
        );
    }
}

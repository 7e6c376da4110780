//! What was measured, and how it is shown: one table, or JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
    /// There is none.
    None,
}

impl Aim {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::None => None,
        }
    }
}

/// One figure, with the same of others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// How much it was.
    pub value: f64,
    /// How much it should be.
    pub aim: Aim,
    /// The same of others, in the same run.
    pub peers: Vec<(&'static str, f64)>,
    /// How it was got.
    pub how: &'static str,
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whose figures: the heading of their column.
    pub subject: &'static str,
    /// What they were taken on, in words.
    pub machine: String,
    /// In the order in which they are shown.
    pub figures: Vec<Figure>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let rows: Vec<[String; 5]> = self.figures.iter().map(row).collect();
        let head = ["", self.subject, "aim", "", "others"].map(str::to_owned);
        let all: Vec<_> = std::iter::once(&head).chain(&rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; 4] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let mut text = String::new();
        for row in all {
            let [name, value, aim, met, others] = row;
            let line = format!(
                "{name:<0$}  {value:>1$}  {aim:<2$}  {met:<3$}  {others}",
                widths[0], widths[1], widths[2], widths[3]
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push_str("\nHow each was got:\n");
        let mut last = "";
        for figure in &self.figures {
            if figure.how != last {
                let _ = writeln!(text, "- {}: {}", figure.name, figure.how);
                last = figure.how;
            }
        }
        let _ = writeln!(text, "\nOn {}", self.machine);
        text
    }
}

fn row(figure: &Figure) -> [String; 5] {
    let aim = match figure.aim {
        Aim::AtMost(most) => format!("≤ {most}"),
        Aim::AtLeast(least) => format!("≥ {least}"),
        Aim::None => String::new(),
    };
    let met = match figure.aim.is_met(figure.value) {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    let others: Vec<_> = figure
        .peers
        .iter()
        .map(|(name, value)| format!("{name} {}", number(*value)))
        .collect();
    [
        figure.name.clone(),
        format!("{} {}", number(figure.value), figure.unit),
        aim,
        met.to_owned(),
        others.join(", "),
    ]
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        one if one >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_aim_is_told_with_its_peers() {
        let figure = Figure {
            name: "memory".to_owned(),
            unit: "MiB",
            value: 12.5,
            aim: Aim::AtMost(12.0),
            peers: vec![("monit", 3.25)],
            how: "looked at",
        };
        let report = Report {
            subject: "agent",
            machine: "a machine".to_owned(),
            figures: vec![figure],
        };
        let table = report.table();
        assert!(
            table.contains("12.5 MiB") && table.contains("≤ 12") && table.contains("MISSED"),
            "{table}"
        );
        assert!(
            table.contains("monit 3.25") && table.contains("memory: looked at"),
            "{table}"
        );
    }
}

//! Columns without borders, and lines with colours.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, Width};

use super::words::harmless;

/// Blanks between two columns.
const GAP: u16 = 3;

/// What a text says by its colour, beside its words: nothing is told by colour alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tint {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    Dim,
    Bold,
}

impl Tint {
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A piece of text with one tint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// Of any text: control characters are taken out, nothing is shown as `-`.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        let text = harmless(text.as_ref());
        let text = if text.is_empty() { "-".to_owned() } else { text };
        Self {
            text,
            tint: Tint::Plain,
        }
    }

    pub(crate) fn tinted(text: impl AsRef<str>, tint: Tint) -> Self {
        Self {
            tint,
            ..Self::new(text)
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// One line to print, in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<Cell>);

impl Line {
    /// Of any text; blanks at the beginning stay.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::tinted(text, Tint::Plain)
    }

    pub(crate) fn tinted(text: impl AsRef<str>, tint: Tint) -> Self {
        Self(vec![Cell {
            text: harmless(text.as_ref()),
            tint,
        }])
    }

    /// Continues it.
    #[must_use]
    pub(crate) fn and(mut self, text: impl AsRef<str>, tint: Tint) -> Self {
        // Not trimmed: a piece may end in the blank before the next.
        let text = text
            .as_ref()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        self.0.push(Cell { text, tint });
        self
    }

    /// Indents it.
    #[must_use]
    pub(crate) fn indented(mut self, by: usize) -> Self {
        self.0.insert(
            0,
            Cell {
                text: " ".repeat(by),
                tint: Tint::Plain,
            },
        );
        self
    }

    pub(crate) fn paint(&self, colour: bool) -> String {
        let pieces = self
            .0
            .iter()
            .map(|Cell { text, tint }| if colour { tint.paint(text) } else { text.clone() });
        pieces.collect()
    }
}

/// A table without borders, under upper-case names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// Columns are at least this wide: rows that are appended later stay under the first ones.
    at_least: Vec<u16>,
}

impl Table {
    pub(crate) fn new(header: impl Into<Vec<&'static str>>) -> Self {
        Self {
            header: header.into(),
            ..Self::default()
        }
    }

    pub(crate) fn row(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    #[must_use]
    pub(crate) fn at_least(mut self, widths: Vec<u16>) -> Self {
        self.at_least = widths;
        self
    }

    /// The widths that it takes now.
    pub(crate) fn widths(&self) -> Vec<u16> {
        let mut widths = self.lay_out().column_max_content_widths();
        for (width, least) in widths.iter_mut().zip(&self.at_least) {
            *width = (*width).max(*least);
        }
        widths
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        let header = self
            .header
            .iter()
            .map(|name| Cell::tinted(name, Tint::Bold))
            .collect();
        let rows: Vec<_> = std::iter::once(header).chain(self.rows.iter().cloned()).collect();
        let laid_out: Vec<_> = self.lay_out().lines().collect();
        laid_out
            .iter()
            .zip(&rows)
            .map(|(line, cells)| tint(line.trim_end(), cells))
            .collect()
    }

    /// [`Self::lines`] without the names of the columns.
    pub(crate) fn body(&self) -> Vec<Line> {
        self.lines().split_off(1)
    }

    fn lay_out(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        table.set_header(self.header.clone());
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if let Some(&least) = self.at_least.get(index) {
                // The boundary counts the padding too.
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + GAP)));
            }
        }
        table
    }
}

/// Finds the cells again in their laid-out line: each is the first thing that is not blank after the one before it.
fn tint(line: &str, cells: &[Cell]) -> Line {
    let mut pieces = Vec::new();
    let mut rest = line;
    for cell in cells {
        let Some(start) = rest.find(&cell.text) else { break };
        let (gap, from) = rest.split_at(start);
        let (text, after) = from.split_at(cell.text.len());
        pieces.push(Cell {
            text: gap.to_owned(),
            tint: Tint::Plain,
        });
        pieces.push(Cell {
            text: text.to_owned(),
            tint: cell.tint,
        });
        rest = after;
    }
    pieces.push(Cell {
        text: rest.to_owned(),
        tint: Tint::Plain,
    });
    Line(pieces)
}

/// Lines as they are without colour, for comparing.
#[cfg(test)]
pub(crate) fn plain(lines: &[Line]) -> String {
    lines.iter().map(|line| line.paint(false) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["NAME", "PHASE", "WAITING ON"]);
        table.row(vec![
            "mgmt-1".into(),
            Cell::tinted("Ready", Tint::Good),
            "".into(),
        ]);
        table.row(vec![
            "a".into(),
            Cell::tinted("NotReady", Tint::Bad),
            "节点 two\nlines \x1b[31m".into(),
        ]);
        table
    }

    #[test]
    fn columns_stand_under_their_names() {
        assert_eq!(
            plain(&sample().lines()),
            "\
NAME     PHASE      WAITING ON
mgmt-1   Ready      -
a        NotReady   节点 two lines  [31m
"
        );
    }

    #[test]
    fn colours_are_around_the_words_and_not_the_blanks() {
        let line = &sample().lines()[1];
        assert_eq!(line.paint(true), "mgmt-1   \x1b[32mReady\x1b[0m      -");
    }

    #[test]
    fn a_cell_that_repeats_its_neighbour_is_found() {
        let mut table = Table::new(["A", "B"]);
        table.row(vec!["x".into(), Cell::tinted("x", Tint::Bad)]);
        assert_eq!(table.lines()[1].paint(true), "x   \x1b[31mx\x1b[0m");
    }

    #[test]
    fn appended_rows_stay_under_the_first() {
        let widths = sample().widths();
        let mut more = Table::new(["NAME", "PHASE", "WAITING ON"]).at_least(widths);
        more.row(vec!["b".into(), "Held".into(), "run".into()]);
        assert_eq!(plain(&more.body()), "b        Held       run\n");
    }
}

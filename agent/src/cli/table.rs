//! Tables and words for the terminal.

use std::fmt::Write as _;
use std::time::Duration;

/// Columns as wide as their widest cell, two spaces apart.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(rows) {
        let line: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Texts from the node may have anything in them.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The two largest units: `3d 4h`, `2m 5s`, `850ms`.
pub(super) fn rough(millis: u64) -> String {
    let seconds = Duration::from_millis(millis).as_secs();
    if seconds == 0 {
        return format!("{millis}ms");
    }
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut text = String::new();
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(0);
    for (unit, name) in units.iter().skip(first).take(2) {
        let count = left / unit;
        left %= unit;
        if count > 0 {
            let space = if text.is_empty() { "" } else { " " };
            let _infallible = write!(text, "{space}{count}{name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_units() {
        for (millis, text) in [
            (850, "850ms"),
            (5000, "5s"),
            (125_000, "2m 5s"),
            (3_600_000, "1h"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(rough(millis), text);
        }
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [
            ["a".to_owned(), "b".to_owned()],
            ["long".to_owned(), "c".to_owned()],
        ];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     b\nlong  c\n");
    }
}

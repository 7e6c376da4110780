//! A duration as it is written in a configuration.

use std::fmt;
use std::time::Duration;

/// Shown in the largest unit that holds it whole: `30s`, `10m`, `720h`, `1500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match units
            .iter()
            .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(f, "{}{name}", millis / unit),
            None if millis == 0 => f.write_str("0s"),
            None => write!(f, "{millis}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_largest_unit_that_holds_it_whole() {
        for (millis, text) in [
            (0, "0s"),
            (1500, "1500ms"),
            (30_000, "30s"),
            (90_000, "90s"),
            (600_000, "10m"),
            (2_592_000_000, "720h"),
        ] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }
}

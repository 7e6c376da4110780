//! Ages, durations and sizes as people read them; text from outside made harmless.

use jiff::Timestamp;

/// How long ago, to one unit: `12s`, `3m`, `5h`, `2d`. A unit is left when two of the next are full, as kubectl does.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// [`age`] of a wall-clock time; what lies in the future by a skewed clock is `0s` old.
pub(crate) fn age_at(at: Option<Timestamp>, now: Timestamp) -> String {
    match at {
        Some(at) => age(u64::try_from(now.as_millisecond() - at.as_millisecond()).unwrap_or(0)),
        None => "-".to_owned(),
    }
}

/// How long something took, to two units: `0.4s`, `42s`, `2m13s`, `1h02m`.
pub(crate) fn took(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{}s", ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A limit as it was configured: `10m`, `90s`, `1h`, `250ms`.
pub(crate) fn limit(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// `512 B`, `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Whole percent of `total` that is used; `-` of nothing.
pub(crate) fn percent_used(total: u64, free: u64) -> String {
    let used = u128::from(total.saturating_sub(free));
    match (used * 100).checked_div(u128::from(total)) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }
}

/// `1 node`, `3 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// On one line, and without control characters: what a node reports must not steer the operator's terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| if c.is_control() || is_steering(c) { ' ' } else { c })
        .collect()
}

/// [`harmless`], line by line.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// Characters that turn the direction of the text around them.
const fn is_steering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let shown: Vec<_> = [
            0,
            999,
            12_000,
            119_999,
            120_000,
            7_199_000,
            7_200_000,
            172_799_000,
            172_800_000,
        ]
        .map(age)
        .to_vec();
        assert_eq!(
            shown,
            ["0s", "0s", "12s", "119s", "2m", "119m", "2h", "47h", "2d"]
        );
    }

    #[test]
    fn what_the_future_holds_is_new() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(age_at(Timestamp::from_millisecond(5_000).ok(), now), "0s");
        assert_eq!(age_at(None, now), "-");
    }

    #[test]
    fn durations_have_two_units() {
        let shown: Vec<_> = [0, 450, 9_999, 10_000, 133_000, 3_720_000].map(took).to_vec();
        assert_eq!(shown, ["0.0s", "0.4s", "9.9s", "10s", "2m13s", "1h02m"]);
    }

    #[test]
    fn limits_are_shown_as_they_were_written() {
        let shown: Vec<_> = [600_000, 90_000, 3_600_000, 250].map(limit).to_vec();
        assert_eq!(shown, ["10m", "90s", "1h", "250ms"]);
    }

    #[test]
    fn a_percentage_of_nothing_is_none() {
        assert_eq!(percent_used(0, 0), "-");
        assert_eq!(percent_used(u64::MAX, 0), "100%");
        assert_eq!(percent_used(1000, 144), "85%");
    }

    #[test]
    fn a_report_cannot_steer_the_terminal() {
        assert_eq!(
            harmless("a\x1b[2Jb\r\nc\u{202e}d\u{9b}e 好\n"),
            "a [2Jb  c d e 好"
        );
    }
}

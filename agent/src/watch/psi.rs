//! The kernel's pressure files (`/proc/pressure/*`, `*.pressure` of a cgroup) → numbers. Pure.

/// Over how long the kernel has averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    TenSeconds,
    OneMinute,
}

/// What a file of pressure says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pressure {
    /// Percent of the time in which some task waited.
    pub(crate) some: f32,
    /// Percent of the time in which all tasks that could run waited.
    pub(crate) full: f32,
}

/// Reads `some avg10=0.12 avg60=… total=…` and `full …` (Documentation/accounting/psi.rst).
pub(crate) fn parse(text: &str, over: Over) -> Option<Pressure> {
    let average = match over {
        Over::TenSeconds => "avg10=",
        Over::OneMinute => "avg60=",
    };
    let of = |kind: &str| -> Option<f32> {
        let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
        let value: f32 = line
            .split(' ')
            .find_map(|field| field.strip_prefix(average))?
            .parse()
            .ok()?;
        value.is_finite().then_some(value)
    };
    Some(Pressure {
        some: of("some")?,
        full: of("full").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes_and_makes_nothing_up() {
        let text = "some avg10=1.25 avg60=0.50 avg300=0.10 total=123\nfull avg10=0.75 avg60=0.00 avg300=0.00 total=12\n";
        assert_eq!(
            parse(text, Over::TenSeconds),
            Some(Pressure {
                some: 1.25,
                full: 0.75
            })
        );
        assert_eq!(
            parse(text, Over::OneMinute),
            Some(Pressure { some: 0.5, full: 0.0 })
        );
        assert_eq!(parse("full avg10=1.00", Over::TenSeconds), None);
        assert_eq!(parse("some avg10=nan total=0", Over::TenSeconds), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,200}") {
            let _ = parse(&text, Over::OneMinute);
        }
    }
}

//! The kernel's files about memory → numbers. Pure.

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, bytes.
pub(crate) fn meminfo(text: &str) -> Option<(u64, u64)> {
    let of = |key: &str| -> Option<u64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let (total, available) = (of("MemTotal")?, of("MemAvailable")?);
    (total > 0).then_some((total, available.min(total)))
}

/// Resident pages of `/proc/PID/statm`.
pub(crate) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "MemTotal:       24677112 kB\nMemFree:        100 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(meminfo(text), Some((24_677_112 * 1024, 22_000_000 * 1024)));
        assert_eq!(resident_pages("1000 250 30 1 0 9 0\n"), Some(250));
    }

    #[test]
    fn what_is_missing_is_not_made_up() {
        assert_eq!(meminfo("MemTotal: 10 kB\n"), None);
        assert_eq!(meminfo("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC{0,200}") {
            let _ = (meminfo(&text), resident_pages(&text));
        }
    }
}

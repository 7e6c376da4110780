//! Benchmarks: what is measured, and on what.
//!
//! - [`repair`]: death of a kubelet to its restart
//! - [`process`]: what a process takes
//! - [`figures`]: what was measured, and how it is shown

pub mod figures;
pub mod process;
pub mod repair;

use std::collections::BTreeSet;
use std::fs;

/// In rising order.
pub fn sorted(times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// The nearest rank: a figure that was measured. 0 of none.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// The machine, in words: processors, kernel, load, and how this program was built.
pub fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: BTreeSet<_> = cpus
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()))
        .collect();
    format!(
        "{} x {}, Linux {}, load {}; {} build",
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        models.into_iter().collect::<Vec<_>>().join(", "),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg")
            .split(' ')
            .take(3)
            .collect::<Vec<_>>()
            .join(" "),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    )
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=50).collect();
        assert_eq!(
            [50, 90, 99, 100].map(|percent| percentile(&times, percent)),
            [25, 45, 50, 50]
        );
        assert_eq!(percentile(&[7], 50), 7);
    }
}

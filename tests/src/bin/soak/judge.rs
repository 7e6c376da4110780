//! What a soak has shown: does anything grow, and was each remedy right? Pure.
//!
//! Growth: of each measure the median of the first fifth is held against that of the last, after the warm-up. Bounds:
//!
//! | measure | may grow by | because |
//! |---|---|---|
//! | Pss, Rss | 1 MiB | the ledger is kept in memory (at most 4,096 records of its own, some 600 bytes each: the few hundred of a soak are less than 256 KiB), and an allocator's pages settle within half a MiB; a leak of 1 KiB a second passes it within twenty minutes |
//! | descriptors | 2 | a probe, a call or a scrape may be under way at the median look; a descriptor lost with each fault is tens |
//! | threads | 4 | threads that block come and go by ten seconds of idling |

use std::collections::BTreeMap;
use std::fmt;

use crate::faults::Kind;

/// One second of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// What it has written and nobody shares, KiB. Not its share of what others have mapped too: that grows when they end.
    pub(crate) dirty: u64,
    /// KiB.
    pub(crate) rss: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

/// A measure, and how much its median may grow.
type Measure = (&'static str, fn(&Sample) -> u64, u64);

const MEASURES: [Measure; 4] = [
    ("written, KiB", |sample| sample.dirty, 1024),
    ("Rss, KiB", |sample| sample.rss, 1024),
    ("descriptors", |sample| sample.descriptors, 2),
    ("threads", |sample| sample.threads, 4),
];
/// So many fifths: the first is warm-up.
const WARM_UP: usize = 5;

/// How a measure moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) measure: &'static str,
    /// Median of the first fifth after the warm-up.
    pub(crate) first: u64,
    /// Median of the last fifth.
    pub(crate) last: u64,
    pub(crate) most: u64,
    /// It may grow by so much.
    pub(crate) bound: u64,
}

impl Growth {
    pub(crate) fn is_too_much(&self) -> bool {
        self.last > self.first + self.bound
    }
}

/// How each measure moved; none for fewer than 25 samples.
pub(crate) fn growth(samples: &[Sample]) -> Vec<Growth> {
    let warm = &samples[samples.len() / WARM_UP..];
    let fifth = warm.len() / 5;
    if fifth < 4 {
        return Vec::new();
    }
    let median = |samples: &[Sample], of: fn(&Sample) -> u64| {
        let mut values: Vec<_> = samples.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    MEASURES
        .map(|(measure, of, bound)| Growth {
            measure,
            first: median(&warm[..fifth], of),
            last: median(&warm[warm.len() - fifth..], of),
            most: samples.iter().map(of).max().unwrap_or(0),
            bound,
        })
        .into()
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// Milliseconds since 1970.
    pub(crate) begun: u64,
    /// When it was seen mended, and the node to be as before.
    pub(crate) ended: u64,
    /// Why it was not.
    pub(crate) trouble: Option<String>,
    /// What it was done with: a log's path.
    pub(crate) subject: String,
}

/// A remedy of the agent's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remedy {
    pub(crate) name: String,
    pub(crate) subject: String,
    /// Milliseconds since 1970.
    pub(crate) begun: u64,
    pub(crate) succeeded: Option<bool>,
    pub(crate) detail: String,
}

/// What the agent may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    Grew(Growth),
    /// No fault that was there explains it.
    Unexplained(Remedy),
    /// More than one fault may cost.
    OverBudget {
        fault: usize,
        kind: Kind,
        remedy: String,
        times: usize,
        budget: usize,
    },
    /// A fault was not mended.
    NotMended(Injected),
    /// A fault that needs a remedy ended without one.
    Untouched(Injected),
    /// The agent itself was restarted.
    Restarted(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grew(growth) => write!(
                f,
                "{} grew from {} to {}, by more than {}",
                growth.measure, growth.first, growth.last, growth.bound
            ),
            Self::Unexplained(remedy) => {
                write!(
                    f,
                    "{} of {} has no fault before it ({})",
                    remedy.name, remedy.subject, remedy.detail
                )
            }
            Self::OverBudget {
                fault,
                kind,
                remedy,
                times,
                budget,
            } => {
                write!(f, "fault {fault} ({kind}): {times} times {remedy}, of {budget}")
            }
            Self::NotMended(fault) => write!(
                f,
                "fault {} ({}) was not mended: {}",
                fault.number,
                fault.kind,
                fault.trouble.as_deref().unwrap_or("no word why")
            ),
            Self::Untouched(fault) => write!(
                f,
                "fault {} ({}) ended without a remedy of the agent",
                fault.number, fault.kind
            ),
            Self::Restarted(how) => write!(f, "the agent did not run through: {how}"),
        }
    }
}

/// Holds the ledger against what was injected, one fault after another.
pub(crate) fn remedies(faults: &[Injected], ledger: &[Remedy]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut done: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for remedy in ledger {
        // The last that had begun by then: faults come one after another.
        let cause = faults
            .iter()
            .rev()
            .find(|fault| fault.begun <= remedy.begun && fault.kind.budget(&remedy.name) > 0)
            .filter(|fault| remedy.begun <= fault.ended && fault.explains(remedy));
        match cause {
            Some(fault) => *done.entry((fault.number, remedy.name.as_str())).or_default() += 1,
            None => violations.push(Violation::Unexplained(remedy.clone())),
        }
    }
    for fault in faults {
        let kind = fault.kind;
        if fault.trouble.is_some() {
            violations.push(Violation::NotMended(fault.clone()));
            continue;
        }
        let touched = done.keys().any(|(number, _)| *number == fault.number);
        if kind.needs_remedy() && !touched {
            violations.push(Violation::Untouched(fault.clone()));
        }
    }
    for ((number, remedy), times) in done {
        let Some(fault) = faults.iter().find(|fault| fault.number == number) else {
            continue;
        };
        let budget = fault.kind.budget(remedy);
        if times > budget {
            violations.push(Violation::OverBudget {
                fault: number,
                kind: fault.kind,
                remedy: remedy.to_owned(),
                times,
                budget,
            });
        }
    }
    violations
}

impl Injected {
    fn explains(&self, remedy: &Remedy) -> bool {
        match remedy.name.as_str() {
            "reclaim-log" => remedy.subject.starts_with(&self.subject),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(number: usize, kind: Kind, begun: u64, ended: u64) -> Injected {
        Injected {
            number,
            kind,
            begun,
            ended,
            trouble: None,
            subject: "/disk/app/1".to_owned(),
        }
    }

    fn remedy(name: &str, subject: &str, begun: u64) -> Remedy {
        Remedy {
            name: name.to_owned(),
            subject: subject.to_owned(),
            begun,
            succeeded: Some(true),
            detail: String::new(),
        }
    }

    #[test]
    fn a_remedy_needs_a_fault_of_its_kind_that_was_there() {
        let faults = [
            fault(1, Kind::Kill, 100, 200),
            fault(2, Kind::Spurt, 300, 400),
            fault(3, Kind::DbusRestart, 500, 600),
        ];
        let right = [
            remedy("restart-unit", "kubelet.service", 110),
            remedy("reclaim-log", "/disk/app/1/a.log", 310),
        ];
        assert_eq!(remedies(&faults, &right), []);
        for wrong in [
            remedy("restart-unit", "kubelet.service", 90),
            remedy("restart-unit", "kubelet.service", 510),
            remedy("reclaim-log", "/disk/app/2/a.log", 320),
            remedy("prune", "/disk", 350),
        ] {
            let ledger = [right[0].clone(), right[1].clone(), wrong.clone()];
            assert_eq!(remedies(&faults, &ledger), [Violation::Unexplained(wrong)]);
        }
    }

    #[test]
    fn a_fault_that_nobody_touched_and_one_that_cost_too_much_are_told() {
        let faults = [fault(1, Kind::Kill, 100, 200)];
        assert_eq!(remedies(&faults, &[]), [Violation::Untouched(faults[0].clone())]);
        let twice: Vec<_> = (0..2)
            .map(|turn| remedy("restart-unit", "kubelet.service", 110 + turn))
            .collect();
        assert_eq!(
            remedies(&faults, &twice),
            [Violation::OverBudget {
                fault: 1,
                kind: Kind::Kill,
                remedy: "restart-unit".to_owned(),
                times: 2,
                budget: 1
            }]
        );
        let mut left = faults;
        left[0].trouble = Some("dead".to_owned());
        assert_eq!(remedies(&left, &[]), [Violation::NotMended(left[0].clone())]);
    }

    #[test]
    fn what_grows_is_told_and_what_swings_is_not() {
        let sample = |dirty: u64| Sample {
            dirty,
            rss: 9000,
            descriptors: 20,
            threads: 6,
        };
        let swings: Vec<_> = (0..200).map(|second| sample(8000 + second % 7 * 200)).collect();
        assert!(growth(&swings).iter().all(|growth| !growth.is_too_much()));
        let leaks: Vec<_> = (0..1200).map(|second| sample(8000 + second * 2)).collect();
        let grown: Vec<_> = growth(&leaks).into_iter().filter(Growth::is_too_much).collect();
        assert_eq!(grown.len(), 1);
        assert_eq!(grown[0].measure, "written, KiB");
        assert!(growth(&swings[..20]).is_empty());
    }
}

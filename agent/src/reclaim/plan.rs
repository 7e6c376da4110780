//! (the file, its writers, what its file system can do, the tail to keep) → method and range. Pure.
//!
//! The order of preference is the order of what is left behind: a collapse leaves a shorter file and no hole; a
//! punch leaves the apparent size, which every writer survives; a truncate copies the tail and is the last resort.

use std::fmt;

/// The least that is worth an intervention, bytes.
pub const MIN_GAIN: u64 = 64 << 10;

/// How the head of a log is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `FALLOC_FL_COLLAPSE_RANGE`: the head is cut out, the tail moves to offset 0 without being copied.
    Collapse,
    /// `FALLOC_FL_PUNCH_HOLE`: the head becomes a hole, every offset stays valid.
    Punch,
    /// The tail is copied over the head, then the file is cut behind it.
    Truncate,
}

impl Method {
    /// Its name in evidence and ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Collapse => "collapse",
            Self::Punch => "punch",
            Self::Truncate => "truncate",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who has the log open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody, and it was not written lately.
    None,
    /// So many, all with `O_APPEND`: each write lands at the end, wherever that is.
    Appending(usize),
    /// At least one without `O_APPEND` or with a shared mapping: its next write lands at its own offset.
    Positioned(usize),
    /// They cannot be known: not all of `/proc` could be read, or the log is written by nobody in sight.
    Unknown,
}

impl fmt::Display for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no writer"),
            Self::Appending(count) => write!(f, "writers: {count}, all appending"),
            Self::Positioned(count) => write!(f, "writers: {count}, not all appending"),
            Self::Unknown => f.write_str("writers unknown"),
        }
    }
}

/// What the file system has not refused so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Able {
    collapse: bool,
    punch: bool,
    truncate: bool,
}

impl Able {
    /// Nothing was refused yet.
    pub const ALL: Self = Self {
        collapse: true,
        punch: true,
        truncate: true,
    };

    /// The same without `method`.
    #[must_use]
    pub const fn without(mut self, method: Method) -> Self {
        match method {
            Method::Collapse => self.collapse = false,
            Method::Punch => self.punch = false,
            Method::Truncate => self.truncate = false,
        }
        self
    }
}

/// The file as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Apparent size, bytes.
    pub size: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Unit of the cut, bytes: the file system's block, at least a page; a power of two.
    pub block: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How.
    pub method: Method,
    /// The range `0..cut` goes; a multiple of the block.
    pub cut: u64,
}

/// Why there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// The log takes no more than its tail.
    TailOnly,
    /// What is left of the methods would lose data with these writers, or all were refused.
    NoMethod,
}

/// Chooses the method and the range.
///
/// # Errors
/// There is nothing to give back, or no method that is safe here.
pub fn plan(look: Look, writers: Writers, able: Able, keep_tail: u64) -> Result<Plan, Idle> {
    let keep = keep_tail.max(1).next_multiple_of(look.block);
    let cut = look.size.saturating_sub(keep) / look.block * look.block;
    let gain = look.allocated.saturating_sub(keep).min(cut);
    if gain < MIN_GAIN {
        return Err(Idle::TailOnly);
    }
    let shift_safe = matches!(writers, Writers::None | Writers::Appending(_));
    let method = if able.collapse && shift_safe {
        Method::Collapse
    } else if able.punch {
        Method::Punch
    } else if able.truncate && shift_safe {
        // The copy must not overwrite what it still has to read, or a crash in its midst loses part of the tail.
        if cut < look.size - cut {
            return Err(Idle::TailOnly);
        }
        Method::Truncate
    } else {
        return Err(Idle::NoMethod);
    };
    Ok(Plan { method, cut })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn look(size: u64) -> Look {
        Look {
            size,
            allocated: size,
            block: 4096,
        }
    }

    #[test]
    fn the_method_follows_the_writers_and_the_file_system() {
        let able = Able::ALL;
        let no_collapse = able.without(Method::Collapse);
        let copy_only = no_collapse.without(Method::Punch);
        let method = |writers, able| plan(look(100 * MIB), writers, able, 16 * MIB).map(|plan| plan.method);
        for writers in [Writers::None, Writers::Appending(3)] {
            assert_eq!(method(writers, able), Ok(Method::Collapse));
            assert_eq!(method(writers, no_collapse), Ok(Method::Punch));
            assert_eq!(method(writers, copy_only), Ok(Method::Truncate));
            assert_eq!(
                method(writers, copy_only.without(Method::Truncate)),
                Err(Idle::NoMethod)
            );
        }
        for writers in [Writers::Positioned(1), Writers::Unknown] {
            assert_eq!(method(writers, able), Ok(Method::Punch));
            assert_eq!(method(writers, copy_only), Err(Idle::NoMethod));
        }
    }

    #[test]
    fn a_log_that_was_punched_to_its_tail_is_left_alone() {
        let punched = Look {
            allocated: 16 * MIB,
            ..look(10_000 * MIB)
        };
        assert_eq!(
            plan(punched, Writers::Positioned(1), Able::ALL, 16 * MIB),
            Err(Idle::TailOnly)
        );
    }

    #[test]
    fn a_copy_never_overlaps_its_source() {
        let copy_only = Able::ALL.without(Method::Collapse).without(Method::Punch);
        assert_eq!(
            plan(look(31 * MIB), Writers::None, copy_only, 16 * MIB),
            Err(Idle::TailOnly)
        );
        assert!(plan(look(32 * MIB), Writers::None, copy_only, 16 * MIB).is_ok());
    }

    fn writers() -> impl Strategy<Value = Writers> {
        prop_oneof![
            Just(Writers::None),
            (1_usize..9).prop_map(Writers::Appending),
            (1_usize..9).prop_map(Writers::Positioned),
            Just(Writers::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn the_tail_stays_and_the_cut_is_aligned(
            size in 0_u64..1 << 44,
            allocated in 0_u64..1 << 44,
            shift in 12_u32..21,
            keep in 0_u64..1 << 32,
            writers in writers(),
            (collapse, punch, truncate) in any::<(bool, bool, bool)>(),
        ) {
            let block = 1 << shift;
            let able = Able { collapse, punch, truncate };
            if let Ok(plan) = plan(Look { size, allocated, block }, writers, able, keep) {
                prop_assert!(plan.cut > 0 && plan.cut.is_multiple_of(block));
                prop_assert!(size - plan.cut >= keep);
                // A collapse up to the end of the file is refused by the kernel.
                prop_assert!(plan.cut < size);
                if matches!(writers, Writers::Positioned(_) | Writers::Unknown) {
                    prop_assert_eq!(plan.method, Method::Punch);
                }
            }
        }
    }
}

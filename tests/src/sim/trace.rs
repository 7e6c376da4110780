//! What happened, in order: a hash of all of it, and the last lines for whoever looks into a violation.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write};

use super::Ms;

/// So many lines are kept.
const KEPT: usize = 40;

/// The trace of one simulation.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: u64,
    kept: VecDeque<String>,
    keep_all: bool,
}

impl Trace {
    pub(super) fn new(keep_all: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            kept: VecDeque::new(),
            keep_all,
        }
    }

    /// A line of it.
    pub(super) fn say(&mut self, now: Ms, what: Arguments<'_>) {
        let mut line = if self.keep_all || self.kept.len() < KEPT {
            String::new()
        } else {
            self.kept.pop_front().unwrap_or_default()
        };
        line.clear();
        // Writing to a string cannot fail.
        let _ok = write!(line, "{:>5}.{:03} {what}", now / 1000, now % 1000);
        self.hash_in(line.as_bytes());
        self.lines += 1;
        self.kept.push_back(line);
    }

    /// Something that happens too often for a line, but has to repeat itself like everything else.
    pub(super) fn note(&mut self, what: &[u64]) {
        for word in what {
            self.hash_in(&word.to_le_bytes());
        }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    pub(super) fn into_last(self) -> Vec<String> {
        self.kept.into()
    }

    fn hash_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

//! Who takes memory and processor time, by control group.

use std::fmt;

use crate::bytes::Bytes;

/// What a control group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CgroupKind {
    /// A unit of systemd's.
    Unit,
    /// A pod.
    Pod,
    /// A container that is no pod's.
    Container,
}

/// One control group, as people call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cgroup {
    /// What it holds.
    pub kind: CgroupKind,
    /// Full unit name; `namespace/name` of a pod, or its uid where no more is known; the id of a container.
    pub name: String,
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            CgroupKind::Unit => f.write_str(&self.name),
            CgroupKind::Pod => write!(f, "pod {}", self.name),
            CgroupKind::Container => write!(f, "container {:.12}", self.name),
        }
    }
}

/// The memory that a control group holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupUse {
    /// Which.
    pub cgroup: Cgroup,
    /// Bytes that cannot be dropped: anonymous and shared memory, without page cache.
    pub bytes: u64,
}

impl fmt::Display for CgroupUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cgroup, Bytes(self.bytes))
    }
}

/// The processor time that a control group took between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupCpu {
    /// Which.
    pub cgroup: Cgroup,
    /// Percent of one processor.
    pub percent: u64,
    /// Bytes that it holds and cannot drop, where its memory is counted.
    pub bytes: Option<u64>,
    /// Of a pod: its uid, however it is called.
    pub uid: Option<String>,
}

impl fmt::Display for CgroupCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}%", self.cgroup, self.percent)
    }
}

/// A process that hangs in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hanging {
    /// Which.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
    /// The kernel's function that it waits in; empty where that is not told.
    pub waits_in: String,
    /// The last part of its control group's path; empty where it is in none.
    pub cgroup: String,
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)?;
        if !self.waits_in.is_empty() {
            write!(f, " in {}", self.waits_in)?;
        }
        if !self.cgroup.is_empty() {
            write!(f, " of {}", self.cgroup)?;
        }
        Ok(())
    }
}

/// Resident memory of units that are to run for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMemorySignal {
    /// Those that run and can be looked at.
    pub units: Vec<UnitMemory>,
}

/// Resident memory of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitMemory {
    /// Full unit name.
    pub unit: String,
    /// Anonymous memory, bytes; without page cache.
    pub bytes: u64,
    /// Another number is another life of its control group.
    pub life: u64,
}

/// One after the other, for people.
pub fn listed<T: fmt::Display>(items: &[T]) -> String {
    let each: Vec<_> = items.iter().map(ToString::to_string).collect();
    each.join(", ")
}

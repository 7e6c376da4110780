//! What the agent may do here, and what it cannot for lack of a privilege.
//!
//! ```text
//!  /proc/self/status, stat(2), systemd and polkit ──survey──► Facts ──lacks──► [Lack {function, missing, mend}]   (pure)
//!                                                                                  │
//!              log, once ◄── `status`, `check`, `remedies` ◄────────────────────────┴──► decide: not attempted, and why
//! ```
//!
//! What cannot be told is taken for given: an attempt then shows it. Read again each minute while something is missing, since polkit may be
//! installed, or come up, meanwhile.

pub mod survey;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::remedy::Remedy;

/// A capability that something here needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Reads and writes files of others.
    DacOverride,
    /// Reads files of others.
    DacReadSearch,
    /// Removes files of others from a directory such as `/tmp`.
    Fowner,
    /// Signals processes of others.
    Kill,
    /// Sees the files that processes of others have open.
    SysPtrace,
    /// Sets triggers on `/proc/pressure`, on kernels 5.13 to 6.3.
    SysResource,
    /// Reads the kernel's log where `kernel.dmesg_restrict` is set.
    Syslog,
}

impl Capability {
    const ALL: [Self; 7] = [
        Self::DacOverride,
        Self::DacReadSearch,
        Self::Fowner,
        Self::Kill,
        Self::SysPtrace,
        Self::SysResource,
        Self::Syslog,
    ];

    /// The kernel's number: linux/capability.h.
    const fn bit(self) -> u8 {
        match self {
            Self::DacOverride => 1,
            Self::DacReadSearch => 2,
            Self::Fowner => 3,
            Self::Kill => 5,
            Self::SysPtrace => 19,
            Self::SysResource => 24,
            Self::Syslog => 34,
        }
    }

    /// As capabilities(7) and unit files have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Fowner => "CAP_FOWNER",
            Self::Kill => "CAP_KILL",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
        }
    }
}

/// A set of capabilities, as `CapEff` in `/proc/self/status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Is it in the set?
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability.bit()) != 0
    }

    /// The set without it.
    #[must_use]
    pub const fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(1 << capability.bit()))
    }

    /// Those of it that something here needs, for people.
    pub fn names(self) -> Vec<&'static str> {
        Capability::ALL
            .into_iter()
            .filter(|capability| self.has(*capability))
            .map(Capability::as_str)
            .collect()
    }
}

/// A file or directory, as far as its rights go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub path: PathBuf,
    /// Its owner's uid.
    pub owner: u32,
    /// Its gid.
    pub group: u32,
    /// Its permission bits.
    pub mode: u32,
    /// It is mounted read-only, for the agent at least.
    pub read_only: bool,
}

/// Does systemd do what the agent asks of a unit?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Yes.
    Given,
    /// No, and there is no polkit that could allow it.
    NoPolkit,
    /// polkit has no rule that allows it.
    NoRule,
    /// It cannot be told.
    Unknown,
}

/// Who may read the kernel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelLog {
    /// Everybody.
    Open,
    /// Whoever has `CAP_SYSLOG`: `kernel.dmesg_restrict` is set.
    Restricted,
    /// Not this process: its container or unit was not given the device.
    Refused,
}

/// What the agent is, and what it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its effective user.
    pub uid: u32,
    /// Its groups.
    pub groups: Vec<u32>,
    /// Its effective capabilities.
    pub capabilities: Capabilities,
    /// Each unit that it watches and may have to restart.
    pub units: Vec<(String, Leave)>,
    /// Those that it may have to restart for something else than their own state, of those that there are.
    pub others: Vec<(String, Leave)>,
    /// Directories with logs, of those that there are.
    pub logs: Vec<Place>,
    /// The journal's directory, if there is one.
    pub journal: Option<Place>,
    /// Sockets of container runtimes that there are.
    pub sockets: Vec<Place>,
    /// The kernel's log.
    pub kernel_log: KernelLog,
    /// The kernel does not tell this process whether the wall clock is kept.
    pub clock_refused: bool,
    /// Pressure triggers need `CAP_SYS_RESOURCE` on this kernel.
    pub triggers_restricted: bool,
    /// It runs in a container on the node, not as a service of it.
    pub in_container: bool,
}

impl Facts {
    fn may(&self, place: &Place, bits: u32) -> bool {
        if self.capabilities.has(Capability::DacOverride) {
            return true;
        }
        let shift = if place.owner == self.uid {
            6
        } else if self.groups.contains(&place.group) {
            3
        } else {
            0
        };
        (place.mode >> shift) & bits == bits
    }
}

/// What needs a privilege.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Restart and kill a unit.
    ManageUnit(String),
    /// Restart a unit that is not watched for itself: for the clock, the CNI configuration, or its memory.
    ManageOther(String),
    /// Give back the head of any log.
    ReclaimLogs,
    /// Give back the head of logs below a directory.
    ReclaimBelow(PathBuf),
    /// See who writes a log.
    SeeWriters,
    /// Remove archived journals.
    VacuumJournal,
    /// Ask a container runtime, and remove what it does not need.
    AskRuntime(PathBuf),
    /// Keep the stacks of a hung container runtime.
    KeepStacks,
    /// Read the kernel's log.
    KernelLog,
    /// See whether the wall clock is kept.
    ClockState,
    /// Read certificates.
    ReadCertificates,
    /// Be woken by memory pressure.
    PressureTriggers,
    /// Hold the kubelet at boot.
    BootGate,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManageUnit(unit) | Self::ManageOther(unit) => write!(f, "restart {unit}"),
            Self::ReclaimLogs => f.write_str("reclaim logs"),
            Self::ReclaimBelow(path) => write!(f, "reclaim logs below {}", path.display()),
            Self::SeeWriters => f.write_str("see who writes a log"),
            Self::VacuumJournal => f.write_str("vacuum the journal"),
            Self::AskRuntime(socket) => write!(f, "ask the container runtime at {}", socket.display()),
            Self::KeepStacks => f.write_str("keep the stacks of a hung container runtime"),
            Self::KernelLog => f.write_str("read the kernel's log"),
            Self::ClockState => f.write_str("see whether the clock is kept"),
            Self::ReadCertificates => f.write_str("read certificates"),
            Self::PressureTriggers => f.write_str("be woken by memory pressure"),
            Self::BootGate => f.write_str("hold the kubelet at boot"),
        }
    }
}

/// The privilege that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A capability.
    Capability(Capability),
    /// polkit, which decides what an unprivileged user may ask of systemd.
    Polkit,
    /// A rule of polkit.
    PolkitRule,
    /// The right to write: it is mounted read-only.
    ReadOnly,
    /// The device `/dev/kmsg`.
    Device,
    /// The system calls `adjtimex` and `clock_adjtime`: a filter forbids the one that the C library uses.
    ClockCalls,
    /// A service of the node's own: this is a container.
    Service,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(capability) => write!(f, "missing {}", capability.as_str()),
            Self::Polkit => f.write_str("missing polkit"),
            Self::PolkitRule => f.write_str("missing a polkit rule"),
            Self::Device => f.write_str("missing the device /dev/kmsg"),
            Self::ClockCalls => f.write_str("missing the system calls adjtimex and clock_adjtime"),
            Self::ReadOnly => f.write_str("mounted read-only for the agent"),
            Self::Service => f.write_str("runs in a container"),
        }
    }
}

/// Something that the agent cannot do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What.
    pub function: Function,
    /// For lack of what.
    pub missing: Missing,
}

impl Lack {
    fn of(function: Function, missing: Missing) -> Self {
        Self { function, missing }
    }

    /// What follows from it, for people.
    pub const fn effect(&self) -> &'static str {
        match &self.function {
            Function::ManageUnit(_) => "it is watched and reported, and not restarted",
            Function::ManageOther(_) => "what it could mend is reported, and it is not restarted",
            Function::ReclaimLogs | Function::ReclaimBelow(_) => {
                "they are watched and reported, and not reclaimed"
            }
            Function::SeeWriters => {
                "logs are punched, never collapsed, and deleted ones that are held open are not found"
            }
            Function::VacuumJournal => "its archives stay, however full the disk",
            Function::AskRuntime(_) => "a hung runtime is not noticed, and nothing of its is removed",
            Function::KeepStacks => "a hung runtime is restarted without keeping them",
            Function::KernelLog => "OOM kills, disk errors and hangs are not noticed",
            Function::ClockState => "an unkept clock is not noticed, and no time service restarted for it",
            Function::ReadCertificates => "those that only root may read are not watched",
            Function::PressureTriggers => "it is polled",
            Function::BootGate => "the kubelet that the gate would hold is the one that starts this agent",
        }
    }

    /// What would mend it, for people.
    pub fn mend(&self) -> String {
        match (&self.missing, &self.function) {
            (Missing::Capability(capability), _) => format!(
                "systemctl edit blackstart-agent: add {} to AmbientCapabilities= and CapabilityBoundingSet=",
                capability.as_str()
            ),
            (Missing::Polkit, _) => {
                "install polkitd and the rule of deploy/polkit; or run the agent as root: \
                 deploy/systemd/examples/50-root.conf"
                    .to_owned()
            }
            (Missing::PolkitRule, Function::ManageUnit(unit) | Function::ManageOther(unit)) => format!(
                "copy deploy/polkit/50-blackstart.rules to /etc/polkit-1/rules.d, with {unit} in its list; or run the agent as \
                 root: deploy/systemd/examples/50-root.conf"
            ),
            (Missing::ReadOnly, Function::ReclaimBelow(path)) => format!(
                "systemctl edit blackstart-agent: ReadWritePaths=-{}; if all see it read-only: blackstart-agent explain \
                 FilesystemReadOnly",
                path.display()
            ),
            (Missing::Device, _) => {
                "in a unit: DeviceAllow=/dev/kmsg r; in a container: privileged, or done without".to_owned()
            }
            (Missing::ClockCalls, _) => {
                "systemctl edit blackstart-agent: SystemCallFilter=adjtimex clock_adjtime; in a container: a seccomp profile that has both"
                    .to_owned()
            }
            (Missing::Service, _) => {
                "install agent and gate on the node itself where it must be held after a power loss"
                    .to_owned()
            }
            (Missing::PolkitRule | Missing::ReadOnly, _) => "see docs/security.md".to_owned(),
        }
    }

    fn disables(&self, remedy: &Remedy) -> bool {
        match (&self.function, remedy) {
            (
                Function::ManageUnit(lacking) | Function::ManageOther(lacking),
                Remedy::RestartUnit { unit }
                | Remedy::KillRestartUnit { unit }
                | Remedy::RestartRuntime { unit }
                | Remedy::RelieveMemory { unit },
            ) => lacking == unit,
            // Units that have more weight are all of them, or the one that is left behind starves.
            (Function::ManageUnit(_), Remedy::ProtectUnits)
            | (Function::ReclaimLogs, Remedy::ReclaimLog { .. })
            | (Function::VacuumJournal, Remedy::VacuumJournal { .. }) => true,
            // A deleted one is reached through its writer, who sees its file system as it is.
            (Function::ReclaimBelow(path), Remedy::ReclaimLog { log }) => {
                !log.deleted && log.path.starts_with(path)
            }
            (Function::AskRuntime(socket), Remedy::Prune { .. } | Remedy::RestartContainer { .. }) => {
                is_dockers(socket)
            }
            (
                Function::ManageUnit(_)
                | Function::ManageOther(_)
                | Function::ReclaimLogs
                | Function::ReclaimBelow(_)
                | Function::SeeWriters
                | Function::VacuumJournal
                | Function::AskRuntime(_)
                | Function::KeepStacks
                | Function::KernelLog
                | Function::ClockState
                | Function::ReadCertificates
                | Function::PressureTriggers
                | Function::BootGate,
                _,
            ) => false,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.function, self.missing)
    }
}

/// Only docker is pruned.
fn is_dockers(socket: &Path) -> bool {
    socket
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains("docker"))
}

/// Why the remedy would be in vain, if it would.
pub fn disabled<'a>(lacks: &'a [Lack], remedy: &Remedy) -> Option<&'a Lack> {
    lacks.iter().find(|lack| lack.disables(remedy))
}

/// What cannot be done with these privileges.
pub fn lacks(facts: &Facts) -> Vec<Lack> {
    const READ_WRITE: u32 = 0o6;
    const WRITE_SEARCH: u32 = 0o3;
    let has = |capability| facts.capabilities.has(capability);
    let without = |function, capability| Lack::of(function, Missing::Capability(capability));
    let mut lacks = Vec::new();
    let units = facts.units.iter();
    let units = units.map(|(unit, leave)| (Function::ManageUnit(unit.clone()), leave));
    let others = facts.others.iter();
    let others = others.map(|(unit, leave)| (Function::ManageOther(unit.clone()), leave));
    for (manage, leave) in units.chain(others) {
        let missing = match leave {
            Leave::Given | Leave::Unknown => continue,
            Leave::NoPolkit => Missing::Polkit,
            Leave::NoRule => Missing::PolkitRule,
        };
        lacks.push(Lack::of(manage, missing));
    }
    if !has(Capability::DacOverride) && facts.uid != 0 {
        lacks.push(without(Function::ReclaimLogs, Capability::DacOverride));
    }
    for place in facts.logs.iter().filter(|place| place.read_only) {
        lacks.push(Lack::of(
            Function::ReclaimBelow(place.path.clone()),
            Missing::ReadOnly,
        ));
    }
    let reads = has(Capability::DacOverride) || has(Capability::DacReadSearch) || facts.uid == 0;
    if !has(Capability::SysPtrace) {
        lacks.push(without(Function::SeeWriters, Capability::SysPtrace));
    } else if !reads {
        lacks.push(without(Function::SeeWriters, Capability::DacReadSearch));
    }
    if let Some(journal) = &facts.journal {
        if journal.read_only {
            lacks.push(Lack::of(Function::VacuumJournal, Missing::ReadOnly));
        } else if !facts.may(journal, WRITE_SEARCH) {
            lacks.push(without(Function::VacuumJournal, Capability::DacOverride));
        }
    }
    for socket in &facts.sockets {
        if !facts.may(socket, READ_WRITE) {
            lacks.push(without(
                Function::AskRuntime(socket.path.clone()),
                Capability::DacOverride,
            ));
        }
    }
    let stacks = [Capability::Kill, Capability::SysPtrace, Capability::Fowner];
    let needed = stacks.into_iter().find(|capability| !has(*capability));
    if let (Some(capability), false, false) = (needed, facts.uid == 0, facts.sockets.is_empty()) {
        lacks.push(without(Function::KeepStacks, capability));
    }
    match facts.kernel_log {
        KernelLog::Restricted if !has(Capability::Syslog) => {
            lacks.push(without(Function::KernelLog, Capability::Syslog));
        }
        KernelLog::Refused => lacks.push(Lack::of(Function::KernelLog, Missing::Device)),
        KernelLog::Open | KernelLog::Restricted => {}
    }
    if facts.clock_refused {
        lacks.push(Lack::of(Function::ClockState, Missing::ClockCalls));
    }
    if !reads {
        lacks.push(without(Function::ReadCertificates, Capability::DacReadSearch));
    }
    if facts.triggers_restricted && !has(Capability::SysResource) {
        lacks.push(without(Function::PressureTriggers, Capability::SysResource));
    }
    if facts.in_container {
        lacks.push(Lack::of(Function::BootGate, Missing::Service));
    }
    lacks
}

//! What the agent is told of memory and load: when there is too little or too much, and what it may do about it.

use std::time::Duration;

use blackstart_proto::yaml::Table;

use super::read::{count, globs, positive, set, unit};

/// When memory is short, when it leaks, and what may be restarted to get it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySettings {
    /// Percent available below which `MemoryPressure` is raised.
    pub raise_available_percent: u64,
    /// Percent available from which it is cleared.
    pub clear_available_percent: u64,
    /// Percent available below which it is critical.
    pub critical_available_percent: u64,
    /// It is raised as well when all tasks wait for memory for so many percent of the time (PSI).
    pub raise_waiting_percent: u16,
    /// Units that may be restarted when memory is critically short: globs. The kubelet and the container runtimes only by
    /// their full names.
    pub may_restart: Vec<String>,
    /// Units that are never restarted for it, whatever `may_restart` says: globs.
    pub protect: Vec<String>,
    /// Only a unit that holds at least so many percent of the node's memory is restarted.
    pub restart_share_percent: u64,
    /// Memory has to be critically short for so long.
    pub restart_hold: Duration,
    /// So many restarts of a unit within `restart_window`.
    pub restarts: u32,
    /// See `restarts`.
    pub restart_window: Duration,
    /// When a system daemon leaks.
    pub leak: LeakSettings,
}

/// When a system daemon's memory only ever grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeakSettings {
    /// Which units are looked at; empty: all watched ones.
    pub units: Vec<String>,
    /// The trend is that of so long.
    pub window: Duration,
    /// Nothing is said of a shorter time than this.
    pub min_span: Duration,
    /// It has to have grown by so many bytes…
    pub min_growth: u64,
    /// … and by so many percent of what it held.
    pub min_growth_percent: u64,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            raise_available_percent: 5,
            clear_available_percent: 8,
            critical_available_percent: 2,
            raise_waiting_percent: 20,
            may_restart: Vec::new(),
            protect: [
                "systemd-*",
                "dbus*",
                "ssh*",
                "etcd*",
                "blackstart-*",
                "init.scope",
            ]
            .map(str::to_owned)
            .into(),
            restart_share_percent: 20,
            restart_hold: Duration::from_secs(30),
            restarts: 2,
            restart_window: Duration::from_hours(1),
            leak: LeakSettings::default(),
        }
    }
}

impl Default for LeakSettings {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            window: Duration::from_hours(6),
            min_span: Duration::from_hours(3),
            min_growth: 256 << 20,
            min_growth_percent: 25,
        }
    }
}

/// When the load is too high, and what is protected then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSettings {
    /// So many tasks for each processor, over a minute's average, raise `Overload`.
    pub raise_per_processor: u16,
    /// It is raised as well when some task waits for a processor for so many percent of a minute (PSI).
    pub raise_cpu_some_percent: u16,
    /// … or some task waits for I/O.
    pub raise_io_some_percent: u16,
    /// … or all tasks wait for I/O.
    pub raise_io_full_percent: u16,
    /// It has to hold for so long.
    pub hold: Duration,
    /// Under overload the kubelet and the container runtimes get these weights.
    pub protect: bool,
    /// Weight of processor time, 1 to 10000; what is not protected has 100.
    pub cpu_weight: u16,
    /// Weight of I/O, the same.
    pub io_weight: u16,
}

impl Default for LoadSettings {
    fn default() -> Self {
        Self {
            raise_per_processor: 4,
            raise_cpu_some_percent: 95,
            raise_io_some_percent: 95,
            raise_io_full_percent: 60,
            hold: Duration::from_mins(1),
            protect: true,
            cpu_weight: 1000,
            io_weight: 1000,
        }
    }
}

pub(super) fn memory(mut table: Table, to: &mut MemorySettings) {
    set(
        &mut to.raise_available_percent,
        table.integer("raise_available_percent", 0..=99),
    );
    set(
        &mut to.clear_available_percent,
        table.integer("clear_available_percent", 1..=100),
    );
    set(
        &mut to.critical_available_percent,
        table.integer("critical_available_percent", 0..=99),
    );
    set(
        &mut to.raise_waiting_percent,
        percent(&mut table, "raise_waiting_percent"),
    );
    if to.clear_available_percent <= to.raise_available_percent {
        table.problem(
            "clear_available_percent",
            format!(
                "must be above raise_available_percent ({})",
                to.raise_available_percent
            ),
        );
    }
    if to.critical_available_percent > to.raise_available_percent {
        table.problem(
            "critical_available_percent",
            format!(
                "must not be above raise_available_percent ({})",
                to.raise_available_percent
            ),
        );
    }
    globs(&mut table, "may_restart", &mut to.may_restart, false);
    globs(&mut table, "protect", &mut to.protect, false);
    set(
        &mut to.restart_share_percent,
        table.integer("restart_share_percent", 1..=100),
    );
    set(&mut to.restart_hold, table.duration("restart_hold"));
    set(&mut to.restarts, count(table.integer("restarts", 0..=100)));
    set(&mut to.restart_window, positive(&mut table, "restart_window"));
    if let Some(table) = table.table("leak") {
        leak(table, &mut to.leak);
    }
}

fn leak(mut table: Table, to: &mut LeakSettings) {
    if let Some(units) = table.list("units") {
        to.units = units.iter().filter_map(unit).collect();
    }
    set(&mut to.window, positive(&mut table, "window"));
    set(&mut to.min_span, positive(&mut table, "min_span"));
    set(&mut to.min_growth, table.size("min_growth"));
    set(
        &mut to.min_growth_percent,
        table.integer("min_growth_percent", 0..=10_000),
    );
    if to.min_span > to.window {
        table.problem("min_span", "must not be longer than window");
    }
}

pub(super) fn load(mut table: Table, to: &mut LoadSettings) {
    let limit = table.integer("raise_per_processor", 1..=1000);
    set(
        &mut to.raise_per_processor,
        limit.and_then(|limit| u16::try_from(limit).ok()),
    );
    for (key, to) in [
        ("raise_cpu_some_percent", &mut to.raise_cpu_some_percent),
        ("raise_io_some_percent", &mut to.raise_io_some_percent),
        ("raise_io_full_percent", &mut to.raise_io_full_percent),
    ] {
        set(to, percent(&mut table, key));
    }
    set(&mut to.hold, table.duration("hold"));
    set(&mut to.protect, table.boolean("protect"));
    for (key, to) in [
        ("cpu_weight", &mut to.cpu_weight),
        ("io_weight", &mut to.io_weight),
    ] {
        let weight = table.integer(key, 1..=10_000);
        set(to, weight.and_then(|weight| u16::try_from(weight).ok()));
    }
}

fn percent(table: &mut Table, key: &'static str) -> Option<u16> {
    let percent = table.integer(key, 1..=100)?;
    u16::try_from(percent).ok()
}

//! YAML → [`Settings`], with every problem told at once.

mod network;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::identity::valid_name;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::yaml::{self, Item, Problems, Table};
use globset::Glob;

use super::{
    ArchiveSettings, CoordinatorSettings, DiskSettings, GateRole, GateSettings, LogSettings, MetricsSettings,
    PERMIT_WAIT, PlegSettings, PreflightSettings, ProbeSettings, PruneSettings, ReclaimPolicy, RestartPolicy,
    RuntimeEndpoint, RuntimeSettings, Settings, UnitSettings, etcd, kubernetes, pressure, static_pods,
};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read configuration {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It says something that cannot be.
    #[error("{0}")]
    Invalid(Problems),
}

/// Reads and validates a file.
///
/// # Errors
/// The file cannot be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&path.display().to_string(), &text).map_err(ConfigError::Invalid)
}

/// Validates a text; `file` is what problems call it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Settings, Problems> {
    yaml::read(file, text, |top| {
        let node = top
            .required("node")
            .and_then(|item| name(&item))
            .unwrap_or_default();
        let mut to = Settings::for_node(&node);
        set(
            &mut to.state_dir,
            top.item("state_dir").and_then(|item| absolute(&item)),
        );
        set(
            &mut to.runtime_dir,
            top.item("runtime_dir").and_then(|item| absolute(&item)),
        );
        set(
            &mut to.boot_id_file,
            top.item("boot_id_file").and_then(|item| absolute(&item)),
        );
        set(&mut to.dry_run, top.boolean("dry_run"));
        to.coordinator = top.table("coordinator").and_then(coordinator);
        if let Some(units) = top.list("units") {
            to.units = units.iter().filter_map(unit).collect();
        }
        set(
            &mut to.kubelet_unit,
            top.item("kubelet_unit").and_then(|item| unit(&item)),
        );
        area(top, "kubelet", &mut to.kubelet, probe);
        if let Some(table) = top.table("api_server") {
            let mut settings = ProbeSettings::new(6443, "/readyz");
            settings.target.tls = true;
            probe(table, &mut settings);
            to.api_server = Some(settings);
        }
        if let Some(disks) = top.list("disks") {
            to.disks = disks.into_iter().filter_map(disk).collect();
            let mut seen = HashSet::new();
            if let Some(twice) = to
                .disks
                .iter()
                .find(|disk| !seen.insert(disk.mount_point.clone()))
            {
                top.problem(
                    "disks",
                    format!("{} stands here twice", twice.mount_point.display()),
                );
            }
        }
        area(top, "logs", &mut to.logs, logs);
        area(top, "memory", &mut to.memory, pressure::memory);
        area(top, "runtime", &mut to.runtime, runtime);
        area(top, "prune", &mut to.prune, prune);
        area(top, "static_pods", &mut to.static_pods, static_pods::read);
        area(top, "etcd", &mut to.etcd, etcd::read);
        area(top, "load", &mut to.load, pressure::load);
        area(top, "preflight", &mut to.preflight, preflight);
        to.metrics = top.table("metrics").and_then(|mut table| {
            let listen = table.required("listen")?.socket_address()?;
            Some(MetricsSettings { listen })
        });
        to.restart.order = vec![
            to.runtime.containerd.unit.clone(),
            to.runtime.docker.unit.clone(),
            to.kubelet_unit.clone(),
        ];
        area(top, "restart", &mut to.restart, restart);
        area(top, "reclaim", &mut to.reclaim, reclaim);
        area(top, "gate", &mut to.gate, gate);
        area(top, "unit_states", &mut to.unit_states, unit_states);
        area(top, "pleg", &mut to.pleg, pleg);
        area(top, "network", &mut to.network, network::network);
        area(top, "clock", &mut to.clock, network::clock);
        if let Some(mut table) = top.table("protect") {
            globs(&mut table, "units", &mut to.protect.units, false);
        }
        to.kubernetes = top
            .table("kubernetes")
            .and_then(|table| kubernetes::read(table, &node));
        to
    })
}

/// Reads one table of settings, if it is there.
fn area<T>(top: &mut Table, field: &'static str, to: &mut T, read: fn(Table, &mut T)) {
    if let Some(table) = top.table(field) {
        read(table, to);
    }
}

pub(super) fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

pub(super) fn count(value: Option<u64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

pub(super) fn name(item: &Item) -> Option<String> {
    let text = item.string()?;
    if valid_name(&text) {
        return Some(text);
    }
    item.problem("expected 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit");
    None
}

pub(super) fn unit(item: &Item) -> Option<String> {
    let text = item.string()?;
    if text.contains('/') || !text.contains('.') {
        item.problem("expected a full unit name such as \"kubelet.service\"");
        return None;
    }
    Some(text)
}

pub(super) fn absolute(item: &Item) -> Option<PathBuf> {
    let path = PathBuf::from(item.string()?);
    if path.is_absolute() {
        return Some(path);
    }
    item.problem("expected an absolute path");
    None
}

/// A duration above zero.
pub(super) fn positive(table: &mut Table, key: &'static str) -> Option<Duration> {
    let item = table.item(key)?;
    let duration = item.duration()?;
    if duration.is_zero() {
        item.problem("must be longer than nothing");
        return None;
    }
    Some(duration)
}

fn coordinator(mut table: Table) -> Option<CoordinatorSettings> {
    let addresses: Vec<_> = table
        .required("addresses")
        .and_then(Item::list)
        .unwrap_or_default()
        .iter()
        .filter_map(Item::socket_address)
        .collect();
    let mut file = |key| table.required(key).and_then(|item| absolute(&item));
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let report_interval = positive(&mut table, "report_interval").unwrap_or(Duration::from_secs(2));
    let permit_wait = positive(&mut table, "permit_wait").unwrap_or(PERMIT_WAIT);
    Some(CoordinatorSettings {
        addresses,
        tls: TlsFiles {
            ca: ca?,
            certificate: certificate?,
            key: key?,
        },
        report_interval,
        permit_wait,
    })
}

fn probe(mut table: Table, to: &mut ProbeSettings) {
    set(&mut to.target.address, table.socket_address("address"));
    if let Some(item) = table.item("path")
        && let Some(path) = item.string()
    {
        if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
            to.target.path = path;
        } else {
            item.problem("expected a path such as \"/healthz\"");
        }
    }
    set(&mut to.target.tls, table.boolean("https"));
    set(&mut to.interval, positive(&mut table, "interval"));
    set(&mut to.deadline, positive(&mut table, "deadline"));
    set(
        &mut to.failures_to_raise,
        count(table.integer("failures_to_raise", 1..=100)),
    );
}

fn disk(item: Item) -> Option<DiskSettings> {
    let mut table = item.table()?;
    let mount_point = table.required("mount_point").and_then(|item| absolute(&item));
    let mut to = DiskSettings::at(mount_point.clone().unwrap_or_default());
    set(&mut to.raise_percent, table.integer("raise_percent", 1..=100));
    set(&mut to.clear_percent, table.integer("clear_percent", 0..=99));
    if to.clear_percent >= to.raise_percent {
        table.problem(
            "clear_percent",
            format!("must be below raise_percent ({})", to.raise_percent),
        );
    }
    set(&mut to.raise_time_to_full, table.duration("raise_time_to_full"));
    mount_point.map(|_| to)
}

pub(super) fn globs(table: &mut Table, key: &'static str, to: &mut Vec<String>, must_be_absolute: bool) {
    let Some(items) = table.list(key) else { return };
    to.clear();
    for item in items {
        let Some(glob) = item.string() else { continue };
        if must_be_absolute && !glob.starts_with('/') {
            item.problem("expected an absolute glob such as \"/var/log/**\"");
        } else if let Err(error) = Glob::new(&glob) {
            item.problem(format!("not a glob: {}", error.kind()));
        } else {
            to.push(glob);
        }
    }
}

fn logs(mut table: Table, to: &mut LogSettings) {
    globs(&mut table, "globs", &mut to.globs, true);
    globs(&mut table, "protect", &mut to.protect, false);
    if let Some(item) = table.item("keep_tail")
        && let Some(size) = item.size()
    {
        if size < 1 << 20 {
            item.problem("must be at least 1MiB: the tail is what explains a failure");
        } else {
            to.keep_tail = size;
        }
    }
    set(&mut to.min_size, table.size("min_size"));
    set(&mut to.runaway_rate, table.size("runaway_rate"));
    to.archive = table.table("archive").and_then(archive);
}

fn archive(mut table: Table) -> Option<ArchiveSettings> {
    let dir = table.required("dir").and_then(|item| absolute(&item));
    let mut to = ArchiveSettings::at(dir.clone().unwrap_or_default());
    set(&mut to.max_bytes, table.size("max_bytes"));
    let level = table.integer("level", 1..=19);
    set(&mut to.level, level.and_then(|level| i32::try_from(level).ok()));
    set(
        &mut to.min_free_percent,
        table.integer("min_free_percent", 0..=99),
    );
    set(&mut to.deadline, positive(&mut table, "deadline"));
    dir.map(|_| to)
}

fn runtime(mut table: Table, to: &mut RuntimeSettings) {
    for (key, to) in [("docker", &mut to.docker), ("containerd", &mut to.containerd)] {
        if let Some(table) = table.table(key) {
            endpoint(table, to);
        }
    }
    set(&mut to.interval, positive(&mut table, "interval"));
    set(&mut to.deadline, positive(&mut table, "deadline"));
    set(
        &mut to.failures_to_raise,
        count(table.integer("failures_to_raise", 1..=100)),
    );
    set(
        &mut to.flapping_restarts,
        count(table.integer("flapping_restarts", 1..=100)),
    );
    set(&mut to.flapping_window, positive(&mut table, "flapping_window"));
    globs(
        &mut table,
        "may_restart_containers",
        &mut to.may_restart_containers,
        false,
    );
    set(
        &mut to.container_restarts,
        count(table.integer("container_restarts", 1..=100)),
    );
    set(
        &mut to.container_restart_window,
        positive(&mut table, "container_restart_window"),
    );
    set(
        &mut to.container_healthy_within,
        positive(&mut table, "container_healthy_within"),
    );
}

fn endpoint(mut table: Table, to: &mut RuntimeEndpoint) {
    set(
        &mut to.socket,
        table.item("socket").and_then(|item| absolute(&item)),
    );
    set(&mut to.unit, table.item("unit").and_then(|item| unit(&item)));
    set(
        &mut to.stacks,
        table.item("stacks").and_then(|item| absolute(&item)),
    );
}

fn prune(mut table: Table, to: &mut PruneSettings) {
    set(&mut to.stopped_for, positive(&mut table, "stopped_for"));
    set(&mut to.unused_for, table.duration("unused_for"));
    globs(&mut table, "protect", &mut to.protect, false);
    set(
        &mut to.journal,
        table.item("journal").and_then(|item| absolute(&item)),
    );
    if let Some(item) = table.item("journal_keep")
        && let Some(size) = item.size()
    {
        if size < 16 << 20 {
            item.problem("must be at least 16MiB: the journal is what explains a failure");
        } else {
            to.journal_keep = size;
        }
    }
}

fn preflight(mut table: Table, to: &mut PreflightSettings) {
    globs(&mut table, "certificates", &mut to.certificates, true);
    set(&mut to.expires_within, positive(&mut table, "expires_within"));
    paths(&mut table, "container_runtimes", &mut to.container_runtimes);
    paths(&mut table, "etcd_data", &mut to.etcd_data);
}

fn paths(table: &mut Table, key: &'static str, to: &mut Vec<PathBuf>) {
    if let Some(items) = table.list(key) {
        *to = items.iter().filter_map(absolute).collect();
    }
}

fn restart(mut table: Table, to: &mut RestartPolicy) {
    set(&mut to.inactive_hold, table.duration("inactive_hold"));
    set(&mut to.restarts, count(table.integer("restarts", 0..=100)));
    set(
        &mut to.kill_restarts,
        count(table.integer("kill_restarts", 0..=100)),
    );
    set(&mut to.window, positive(&mut table, "window"));
    set(&mut to.backoff_first, table.duration("backoff_first"));
    set(&mut to.backoff_max, table.duration("backoff_max"));
    set(&mut to.job_deadline, positive(&mut table, "job_deadline"));
    if let Some(items) = table.list("order") {
        to.order.clear();
        for item in items {
            match unit(&item) {
                Some(name) if to.order.contains(&name) => item.problem(format!("{name} stands here twice")),
                Some(name) => to.order.push(name),
                None => {}
            }
        }
    }
    set(&mut to.order_wait, table.duration("order_wait"));
    if to.backoff_max < to.backoff_first {
        table.problem("backoff_max", "must not be below backoff_first");
    }
}

fn unit_states(mut table: Table, to: &mut UnitSettings) {
    set(
        &mut to.flapping_restarts,
        count(table.integer("flapping_restarts", 1..=100)),
    );
    set(&mut to.flapping_window, positive(&mut table, "flapping_window"));
    set(&mut to.job_hung_after, positive(&mut table, "job_hung_after"));
}

fn pleg(mut table: Table, to: &mut PlegSettings) {
    set(&mut to.interval, positive(&mut table, "interval"));
    set(&mut to.deadline, positive(&mut table, "deadline"));
    set(&mut to.restart_after, table.duration("restart_after"));
    set(
        &mut to.journalctl,
        table.item("journalctl").and_then(|item| absolute(&item)),
    );
}

fn reclaim(mut table: Table, to: &mut ReclaimPolicy) {
    set(&mut to.budget, count(table.integer("budget", 0..=1_000_000)));
    set(&mut to.window, positive(&mut table, "window"));
}

fn gate(mut table: Table, to: &mut GateSettings) {
    if let Some(item) = table.item("role") {
        set(
            &mut to.role,
            item.choice(&[
                ("control-plane", GateRole::ControlPlane),
                ("worker", GateRole::Worker),
            ]),
        );
    }
    set(
        &mut to.dead_man_control_plane,
        table.duration("dead_man_control_plane"),
    );
    set(&mut to.dead_man_worker, table.duration("dead_man_worker"));
    set(&mut to.jitter, table.duration("jitter"));
    set(&mut to.preflight_hold, table.duration("preflight_hold"));
    if to.dead_man_worker <= to.dead_man_control_plane + to.jitter {
        table.problem(
            "dead_man_worker",
            "must be longer than dead_man_control_plane and jitter together: masters come back first",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, KubernetesSettings};

    #[test]
    fn the_shipped_example_shows_the_defaults() {
        let text = include_str!("../../../deploy/agent.yaml");
        let mut expected = Settings::for_node("worker-1");
        expected.coordinator = Some(CoordinatorSettings {
            addresses: vec!["10.128.38.100:7443".parse().unwrap()],
            tls: TlsFiles {
                ca: "/etc/blackstart/pki/ca.crt".into(),
                certificate: "/etc/blackstart/pki/node.crt".into(),
                key: "/etc/blackstart/pki/node.key".into(),
            },
            report_interval: Duration::from_secs(2),
            permit_wait: PERMIT_WAIT,
        });
        assert_eq!(parse("deploy/agent.yaml", text).unwrap(), expected);
    }

    #[test]
    fn the_commented_lines_of_the_example_are_right_too() {
        let text: String = include_str!("../../../deploy/agent.yaml")
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let mut expected = ProbeSettings::new(6443, "/readyz");
        expected.target.tls = true;
        let settings = parse("deploy/agent.yaml", &text).unwrap();
        assert_eq!(settings.api_server, Some(expected));
        let listen = "127.0.0.1:9469".parse().unwrap();
        assert_eq!(settings.metrics, Some(MetricsSettings { listen }));
        let archive = ArchiveSettings::at("/mnt/archive".into());
        assert_eq!(settings.logs.archive, Some(archive));
        assert!(settings.network.dns.is_some());
        let access = Access::Kubeconfig("/etc/kubernetes/kubelet.conf".into());
        assert_eq!(
            settings.kubernetes,
            Some(KubernetesSettings::new(access, "worker-1"))
        );
    }

    #[test]
    fn an_api_server_speaks_https_unless_it_is_told_otherwise() {
        let tls = |text: &str| {
            let settings = parse("agent.yaml", &format!("node: m\n{text}")).unwrap();
            (
                settings.kubelet.target.tls,
                settings.api_server.map(|server| server.target.tls),
            )
        };
        assert_eq!(tls(""), (false, None));
        assert_eq!(tls("api_server: {interval: 1s}"), (false, Some(true)));
        assert_eq!(
            tls("kubelet: {https: true}\napi_server: {https: false}"),
            (true, Some(false))
        );
    }

    #[test]
    fn five_errors_of_five_kinds_are_all_told() {
        let text = "\
node: ../etc
kubelet: {interval: often}
disks:
  - {mount_point: /var, raise_percent: 70}
coordinator:
  addresses: [coordinator.local:7443]
  ca: /a
  certificate: /b
  key: /c
gate: {dead_man_worker: 1m, rolle: worker}
";
        let problems = parse("agent.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| (p.line, p.field.as_str())).collect();
        assert_eq!(
            fields,
            [
                (1, "node"),
                (2, "kubelet.interval"),
                (4, "disks[0].clear_percent"),
                (6, "coordinator.addresses[0]"),
                (10, "gate.dead_man_worker"),
                (10, "gate.rolle"),
            ]
        );
        assert!(problems.to_string().contains("agent.yaml:4:"), "{problems}");
    }

    #[test]
    fn every_master_lets_go_before_every_worker() {
        let mut gate = GateSettings::default();
        let names: Vec<_> = (0..500).map(|n| format!("node-{n}")).collect();
        gate.role = GateRole::ControlPlane;
        let last_master = names.iter().map(|name| gate.dead_man(name)).max().unwrap();
        gate.role = GateRole::Worker;
        let first_worker = names.iter().map(|name| gate.dead_man(name)).min().unwrap();
        assert!(last_master < first_worker);
    }
}

//! YAML → [`Settings`], with every problem told at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::tls::TlsFiles;
use blackstart_proto::yaml::{self, Item, Problems, Table};
use tonic::transport::Endpoint;

use super::{ClusterAccess, EtcdSettings, Settings, StoreSettings, bmc, runbooks, trust};
use crate::fleetlock::{FleetLockSettings, FleetLockTls};
use crate::inventory::ClusterName;
use crate::kubernetes::connection::{Access, Identity};
use crate::logs::OtlpSettings;
use crate::permit::Budget;
use crate::policy::{
    BackupPolicy, ColdStartPolicy, OutagePolicy, PermitPolicy, SetAsidePolicy, StormPolicy, Trigger, Typical,
    WavePolicy,
};

/// More at once than any fleet has nodes.
const WAVE_LIMIT: u64 = 10_000;
/// etcd makes a shorter one longer; with a longer one a fleet would be without a leader for as long.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_mins(10);

/// More than anybody looks through.
const BACKUP_LIMIT: u64 = 10_000;

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

/// Validates the text of a file that is called `name` in messages.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(name: &str, text: &str) -> Result<Settings, Problems> {
    yaml::read(name, text, |top| {
        let mut to = Settings::default();
        listen(top, &mut to);
        if let Some(table) = top.table("tls") {
            tls(table, &mut to.tls);
        }
        set(&mut to.state_dir, absolute(top, "state_dir"));
        set(&mut to.runtime_dir, absolute(top, "runtime_dir"));
        set(&mut to.boot_id_file, absolute(top, "boot_id_file"));
        if let Some(mut table) = top.table("store")
            && let Some(table) = table.table("etcd")
        {
            to.store = StoreSettings::Etcd(etcd(table, &to.listen));
        }
        set(&mut to.inventory, absolute(top, "inventory"));
        set(&mut to.silent_after, positive(top, "silent_after"));
        if let Some(table) = top.table("outage") {
            outage(table, &mut to.outage);
        }
        if let Some(table) = top.table("storm") {
            storm(table, &mut to.storm);
        }
        if let Some(table) = top.table("cold_start") {
            cold_start(table, &mut to.cold_start);
        }
        if let Some(table) = top.table("permits") {
            permits(table, &mut to.permits);
        }
        to.fleetlock = top.table("fleetlock").and_then(fleetlock);
        to.metrics = top
            .table("metrics")
            .and_then(|mut table| table.required("listen")?.socket_address());
        to.otlp = top.table("otlp").and_then(otlp);
        if let Some(table) = top.table("backup") {
            backup(table, &mut to.backup);
        }
        clusters(top, &mut to.clusters);
        if let Some(table) = top.table("runbooks") {
            runbooks::read(table, &mut to.runbooks);
        }
        if let Some(table) = top.table("bmc") {
            to.bmc = bmc::read(table, &mut to.timing.power);
        }
        to.enrolment = top.table("enrolment").map(trust::enrolment);
        trust::roles(top, &mut to.roles);
        to.oidc = trust::oidc(top, &to.roles);
        super::workloads::read(top, &mut to.workloads);
        to
    })
}

pub(super) fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

pub(super) fn absolute(table: &mut Table, key: &'static str) -> Option<PathBuf> {
    absolute_item(&table.item(key)?)
}

pub(super) fn absolute_item(item: &Item) -> Option<PathBuf> {
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

pub(super) fn percent(table: &mut Table, key: &'static str) -> Option<u32> {
    table
        .integer(key, 1..=100)
        .and_then(|value| u32::try_from(value).ok())
}

pub(super) fn count(table: &mut Table, key: &'static str) -> Option<usize> {
    table
        .integer(key, 1..=WAVE_LIMIT)
        .and_then(|value| usize::try_from(value).ok())
}

fn listen(top: &mut Table, to: &mut Settings) {
    let Some(items) = top.list("listen") else { return };
    to.listen.clear();
    for item in &items {
        let Some(address) = item.socket_address() else {
            continue;
        };
        if to.listen.contains(&address) {
            item.problem(format!("{address} stands here twice"));
        } else {
            to.listen.push(address);
        }
    }
    if items.is_empty() {
        top.problem("listen", "names no address: nobody could reach the coordinator");
    }
}

/// Fifty evictions a second, with a half as much again for what is read beside them. kube-controller-manager has 20, and 30 at once
/// (`--kube-api-qps`, `--kube-api-burst`), for each of its controllers by a client of its own, and deletes the pods of a node that is out
/// of service by them. A server of priority and fairness counts what it does at once, not what comes in a second: at some tens of
/// milliseconds an eviction fifty a second take one or two of the hundreds of seats that it has (`--max-mutating-requests-inflight`: 200).
const REQUESTS_PER_SECOND: u32 = 75;

fn clusters(top: &mut Table, to: &mut Vec<ClusterAccess>) {
    for item in top.list("clusters").unwrap_or_default() {
        let Some(mut table) = item.table() else { continue };
        let name = table.required("name");
        let line = name.as_ref().and_then(|item| {
            let name = ClusterName(item.string()?);
            let is_twice = to.iter().any(|known| known.name == name);
            if is_twice {
                item.problem(format!("cluster {name} stands here twice"));
            }
            (!is_twice).then_some(name)
        });
        let kubeconfig = absolute(&mut table, "kubeconfig");
        let in_cluster = table.boolean("in_cluster").unwrap_or_default();
        if kubeconfig.is_some() == in_cluster {
            table.problem(
                "kubeconfig",
                "name either a kubeconfig, or in_cluster: true for the identity of the pod that the coordinator runs in",
            );
        }
        let addresses = table.list("addresses").unwrap_or_default();
        let addresses = addresses.iter().filter_map(Item::socket_address).collect();
        let requests = table.integer("requests_per_second", 1..=1000);
        let access = Access {
            identity: kubeconfig.map_or_else(Identity::default, Identity::Kubeconfig),
            addresses,
            // The inventory's.
            masters: Vec::new(),
            requests_per_second: requests
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or(REQUESTS_PER_SECOND),
        };
        to.extend(line.map(|name| ClusterAccess { name, access }));
    }
}

fn tls(mut table: Table, to: &mut TlsFiles) {
    set(&mut to.ca, absolute(&mut table, "ca"));
    set(&mut to.certificate, absolute(&mut table, "certificate"));
    set(&mut to.key, absolute(&mut table, "key"));
}

/// Several coordinators. What is not written has a default, but for the endpoints, and for `advertise` where it cannot be told
/// from `listen`.
fn etcd(mut table: Table, listen: &[SocketAddr]) -> EtcdSettings {
    let mut to = EtcdSettings {
        endpoints: Vec::new(),
        tls: None,
        prefix: "/blackstart/".to_owned(),
        lease_ttl: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        name: host_name(),
        advertise: Vec::new(),
    };
    let endpoints = table.required("endpoints").and_then(Item::list);
    let is_empty = endpoints.as_ref().is_some_and(Vec::is_empty);
    for item in endpoints.unwrap_or_default() {
        match item.string() {
            Some(text) if is_endpoint(&text) => to.endpoints.push(text),
            Some(_) => {
                item.problem("expected https://IP:PORT or http://IP:PORT; an address, since DNS may be down");
            }
            None => {}
        }
    }
    if is_empty {
        table.problem("endpoints", "names no member of etcd");
    }
    let files = ["ca", "certificate", "key"].map(|key| absolute(&mut table, key));
    let is_secure = to.endpoints.iter().any(|endpoint| endpoint.starts_with("https:"));
    match files {
        [Some(ca), Some(certificate), Some(key)] => to.tls = Some(TlsFiles { ca, certificate, key }),
        [None, None, None] if !is_secure => {}
        [_, _, _] => table.problem("ca", "https endpoints need all of ca, certificate and key"),
    }
    if let Some(item) = table.item("prefix")
        && let Some(prefix) = item.string()
    {
        if prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() > 1 {
            to.prefix = prefix;
        } else {
            item.problem("expected /NAME/: it begins and ends with a slash");
        }
    }
    if let Some(item) = table.item("lease_ttl")
        && let Some(ttl) = item.duration()
    {
        if LEASE.contains(&ttl) && ttl.subsec_nanos() == 0 {
            to.lease_ttl = ttl;
        } else {
            item.problem("expected whole seconds, 2s to 10m");
        }
    }
    set(&mut to.timeout, positive(&mut table, "timeout"));
    set(&mut to.name, table.string("name").filter(|name| !name.is_empty()));
    to.advertise = advertise(&mut table, listen);
    to
}

/// Where the others are sent to: what is written, or else what is listened on.
fn advertise(table: &mut Table, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(items) = table.list("advertise") else {
        let told = listen
            .iter()
            .copied()
            .filter(|address| !address.ip().is_unspecified());
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            table.problem(
                "advertise",
                "is needed: `listen` does not say by which address agents and operators reach this coordinator",
            );
        }
        return told;
    };
    if items.is_empty() {
        table.problem("advertise", "names no address");
    }
    let mut told = Vec::new();
    for item in items {
        match item.socket_address() {
            Some(address) if address.ip().is_unspecified() || address.port() == 0 => {
                item.problem("nobody can be sent there");
            }
            Some(address) => told.push(address),
            None => {}
        }
    }
    told
}

fn is_endpoint(text: &str) -> bool {
    let address = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    address.is_some_and(|address| address.parse::<SocketAddr>().is_ok())
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "coordinator".to_owned(),
        name => name.to_owned(),
    }
}

fn outage(mut table: Table, to: &mut OutagePolicy) {
    set(&mut to.share_percent, percent(&mut table, "share_percent"));
    set(&mut to.window, positive(&mut table, "window"));
}

fn storm(mut table: Table, to: &mut StormPolicy) {
    set(&mut to.nodes, count(&mut table, "nodes"));
    if to.nodes < 2 {
        table.problem("nodes", "must be at least 2: one node is no storm");
    }
    set(&mut to.share_percent, percent(&mut table, "share_percent"));
    set(&mut to.window, positive(&mut table, "window"));
    set(&mut to.hold, positive(&mut table, "hold"));
    if let Some(item) = table.item("term")
        && let Some(term) = item.duration()
    {
        if term < Duration::from_secs(10) || term > Duration::from_mins(10) {
            item.problem("must be between 10s and 10m: it is said again three times within it, and no agent keeps a freeze for longer");
        } else {
            to.term = term;
        }
    }
    if let Some(items) = table.list("exempt") {
        to.exempt = items.iter().filter_map(Item::string).collect();
    }
}

fn cold_start(mut table: Table, to: &mut ColdStartPolicy) {
    set(&mut to.trigger, table.item("trigger").as_ref().and_then(trigger));
    set(&mut to.fresh, positive(&mut table, "fresh"));
    set(&mut to.release_deadline, positive(&mut table, "release_deadline"));
    set(&mut to.return_deadline, positive(&mut table, "return_deadline"));
    set(
        &mut to.control_plane_deadline,
        positive(&mut table, "control_plane_deadline"),
    );
    set(&mut to.serving_percent, percent(&mut table, "serving_percent"));
    if let Some(table) = table.table("wave") {
        wave(table, &mut to.wave);
    }
    if let Some(table) = table.table("set_aside") {
        set_aside(table, &mut to.set_aside);
    }
    if let Some(table) = table.table("typical") {
        typical(table, &mut to.typical);
    }
}

fn set_aside(mut table: Table, to: &mut SetAsidePolicy) {
    set(&mut to.enabled, table.boolean("enabled"));
    set(&mut to.release_share, percent(&mut table, "release_share"));
    set(&mut to.max_hold, positive(&mut table, "max_hold"));
}

fn wave(mut table: Table, to: &mut WavePolicy) {
    set(&mut to.initial, count(&mut table, "initial"));
    set(&mut to.max, count(&mut table, "max"));
    set(&mut to.increase, count(&mut table, "increase"));
    set(&mut to.interval, positive(&mut table, "interval"));
    set(&mut to.latency_good, positive(&mut table, "latency_good"));
    set(&mut to.latency_bad, positive(&mut table, "latency_bad"));
    if to.max < to.initial {
        table.problem("max", format!("must not be below initial ({})", to.initial));
    }
    if to.latency_bad <= to.latency_good {
        table.problem(
            "latency_bad",
            format!("must be above latency_good ({:?})", to.latency_good),
        );
    }
}

fn permits(mut table: Table, to: &mut PermitPolicy) {
    if let Some(item) = table.item("workers") {
        let text = item.string().unwrap_or_default();
        let of = |text: &str, most: u32| text.parse().ok().filter(|number| (1..=most).contains(number));
        let budget = match text.strip_suffix('%') {
            Some(percent) => of(percent, 100).map(Budget::Percent),
            None => of(&text, 10_000)
                .and_then(|nodes| usize::try_from(nodes).ok())
                .map(Budget::Nodes),
        };
        match budget {
            Some(budget) => to.workers = budget,
            None => item.problem("expected a number of nodes such as \"2\", or a share such as \"10%\""),
        }
    }
    set(&mut to.term, positive(&mut table, "term"));
    set(&mut to.reboot_term, positive(&mut table, "reboot_term"));
    set(&mut to.silent_for, positive(&mut table, "silent_for"));
}

fn otlp(mut table: Table) -> Option<OtlpSettings> {
    let item = table.required("endpoint")?;
    let endpoint = item.text()?;
    let is_plain = endpoint.strip_prefix("http://").is_some_and(|at| !at.is_empty());
    if !is_plain || Endpoint::from_shared(endpoint.clone()).is_err() {
        item.problem(
            "expected http://ADDRESS:PORT of a collector that speaks OTLP over gRPC; TLS is not spoken: run the collector on this machine",
        );
        return None;
    }
    Some(OtlpSettings { endpoint })
}

fn fleetlock(mut table: Table) -> Option<FleetLockSettings> {
    let place = table.required("listen");
    let tls = table.table("tls").map(|mut table| {
        let mut file = |key| table.required(key).and_then(|item| absolute_item(&item));
        let (certificate, key) = (file("certificate"), file("key"));
        let ca = absolute(&mut table, "ca");
        Some(FleetLockTls {
            certificate: certificate?,
            key: key?,
            ca,
        })
    });
    let listen = place.as_ref().and_then(Item::socket_address)?;
    if let Some(place) = &place
        && tls.is_none()
        && listen.ip().is_unspecified()
    {
        place.problem(
            "without tls it is bound to an address that is named: whoever reaches it may hold up a cluster's reboots",
        );
    }
    let tls = match tls {
        None => None,
        Some(tls) => Some(tls?),
    };
    Some(FleetLockSettings { listen, tls })
}

fn backup(mut table: Table, to: &mut BackupPolicy) {
    set(&mut to.every, positive(&mut table, "every"));
    let keep = table.integer("keep", 0..=BACKUP_LIMIT);
    set(&mut to.keep, keep.and_then(|value| usize::try_from(value).ok()));
}

fn typical(mut table: Table, to: &mut Typical) {
    set(&mut to.node_return, positive(&mut table, "node_return"));
    set(&mut to.kubelet, positive(&mut table, "kubelet"));
    set(&mut to.control_plane, positive(&mut table, "control_plane"));
}

pub(super) fn trigger(item: &Item) -> Option<Trigger> {
    item.choice(&[
        ("auto", Trigger::Auto),
        ("propose", Trigger::Propose),
        ("off", Trigger::Off),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/coordinator.yaml");

    #[test]
    fn the_shipped_example_shows_the_defaults() {
        assert_eq!(
            parse("deploy/coordinator.yaml", SHIPPED).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn the_shipped_example_names_every_field() {
        // Each line that gives a value is made wrong in turn: were one not read, its error would not be told.
        let lines: Vec<_> = SHIPPED.lines().collect();
        let mut values = 0;
        for (index, line) in lines.iter().enumerate() {
            let Some((key, value)) = line.split_once(": ") else {
                continue;
            };
            if line.trim_start().starts_with('#') || value.is_empty() {
                continue;
            }
            values += 1;
            let wrong = format!("{key}: {{}}");
            let mut text = lines.clone();
            text[index] = &wrong;
            let problems = parse("f", &text.join("\n")).unwrap_err();
            assert_eq!(problems.list[0].line, index as u64 + 1, "{line}: {problems}");
        }
        // Eighteen of `cold_start` (six of its waves, three of its estimates, three of what is set aside), six of `storm`, four of `permits`,
        // two each of `outage` and `backup`, three of `tls`, eighteen of `runbooks`, and six that stand alone.
        assert_eq!(values, 59, "{SHIPPED}");
    }

    /// The block of the shipped example that is commented out, as an operator would uncomment it.
    fn with_etcd() -> String {
        let start = SHIPPED.find("# store:").unwrap();
        let end = start + SHIPPED[start..].find("\n\n").unwrap();
        let block: Vec<_> = SHIPPED[start..end]
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap())
            .collect();
        block.join("\n")
    }

    #[test]
    fn the_shipped_example_of_several_coordinators_shows_the_defaults() {
        let StoreSettings::Etcd(etcd) = parse("f", &with_etcd()).unwrap().store else {
            panic!("no etcd in {}", with_etcd());
        };
        assert_eq!(etcd.endpoints.len(), 3);
        assert_eq!(etcd.advertise, ["10.128.38.101:7443".parse().unwrap()]);
        let least = "listen: [\"10.0.0.1:7443\"]\nstore: {etcd: {endpoints: [\"http://10.0.0.1:2379\"]}}\n";
        let StoreSettings::Etcd(least) = parse("f", least).unwrap().store else {
            panic!("no etcd");
        };
        let shown = (etcd.prefix, etcd.lease_ttl, etcd.timeout);
        assert_eq!(shown, (least.prefix, least.lease_ttl, least.timeout));
        assert_eq!(least.advertise, ["10.0.0.1:7443".parse().unwrap()]);
        assert!(!least.name.is_empty());
    }

    #[test]
    fn reboot_tools_are_served_at_a_named_address_or_with_tls() {
        let read = |text: &str| parse("f", text).map(|settings| settings.fleetlock);
        let start = SHIPPED.find("# fleetlock:").unwrap();
        let end = start + SHIPPED[start..].find("\n\n").unwrap();
        let block: Vec<_> = SHIPPED[start..end]
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap())
            .collect();
        let shipped = read(&block.join("\n")).unwrap().unwrap();
        assert!(shipped.listen.ip().is_loopback() && shipped.tls.is_some_and(|tls| tls.ca.is_some()));
        let metrics = parse("f", "metrics: {listen: \"127.0.0.1:9470\"}")
            .unwrap()
            .metrics;
        assert_eq!(metrics, Some("127.0.0.1:9470".parse().unwrap()));
        let otlp = parse("f", "otlp: {endpoint: \"http://127.0.0.1:4317\"}")
            .unwrap()
            .otlp;
        assert_eq!(otlp.unwrap().endpoint, "http://127.0.0.1:4317");
        let secure = parse("f", "otlp: {endpoint: \"https://c:4317\"}").unwrap_err();
        assert_eq!(secure.list[0].field, "otlp.endpoint", "{secure}");
        let nowhere = parse("f", "metrics: {}").unwrap_err();
        assert_eq!(nowhere.list[0].field, "metrics.listen", "{nowhere}");
        let plain = read("fleetlock: {listen: \"10.0.0.1:7444\"}").unwrap().unwrap();
        assert_eq!(plain.tls, None);
        let open = read("fleetlock: {listen: \"0.0.0.0:7444\"}").unwrap_err();
        assert_eq!(open.list[0].field, "fleetlock.listen", "{open}");
        read("fleetlock: {listen: \"0.0.0.0:7444\", tls: {certificate: /c, key: /k}}").unwrap();
        let half = read("fleetlock: {listen: \"10.0.0.1:7444\", tls: {certificate: /c}}").unwrap_err();
        assert_eq!(half.list[0].field, "fleetlock.tls.key", "{half}");
    }

    #[test]
    fn the_workers_budget_is_a_number_or_a_share() {
        let read = |workers: &str| {
            let parsed = parse("f", &format!("permits: {{workers: {workers}}}"));
            parsed.map(|settings| settings.permits.workers).ok()
        };
        assert_eq!(read("3"), Some(Budget::Nodes(3)));
        assert_eq!(read("\"25%\""), Some(Budget::Percent(25)));
        for wrong in ["0", "\"0%\"", "\"101%\"", "many"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_several_coordinators_is_told() {
        let text = "\
store:
  etcd:
    endpoints: [etcd.lan:2379, \"https://10.0.0.1:2379\"]
    prefix: blackstart
    lease_ttl: 500ms
    timeout: 0s
    leasettl: 5s
";
        let problems = parse("coordinator.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| p.field.as_str()).collect();
        for field in [
            "endpoints[0]",
            "ca",
            "prefix",
            "lease_ttl",
            "timeout",
            "leasettl",
            "advertise",
        ] {
            let field = format!("store.etcd.{field}");
            assert!(fields.contains(&field.as_str()), "{field} in {problems}");
        }
    }

    /// The block of the shipped example that is commented out.
    #[test]
    fn the_shipped_example_of_clusters_is_a_valid_one_and_what_is_wrong_with_others_is_told() {
        let start = SHIPPED.find("# clusters:").unwrap();
        let block: Vec<_> = SHIPPED[start..]
            .lines()
            .map_while(|line| line.strip_prefix("# "))
            .collect();
        let clusters = parse("f", &block.join("\n")).unwrap().clusters;
        assert_eq!(clusters.len(), 2);
        assert_eq!(clusters[0].access.requests_per_second, REQUESTS_PER_SECOND);
        assert_eq!(clusters[0].access.addresses.len(), 3);
        assert!(clusters[1].access.addresses.is_empty());
        let text = "\
clusters:
  - {name: a, kubeconfig: /a, addresses: [api.lan:6443]}
  - {name: a, kubeconfig: b}
  - {name: b, kubeconfig: /b, in_cluster: true}
  - {kubeconfig: /c, requests_per_second: 0}
";
        let problems = parse("coordinator.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| (p.line, p.field.as_str())).collect();
        for field in [
            (2, "clusters[0].addresses[0]"),
            (3, "clusters[1].name"),
            (3, "clusters[1].kubeconfig"),
            (4, "clusters[2].kubeconfig"),
            (5, "clusters[3].name"),
            (5, "clusters[3].requests_per_second"),
        ] {
            assert!(fields.contains(&field), "{field:?} in {problems}");
        }
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(parse("f", "").unwrap(), Settings::default());
    }

    #[test]
    fn every_trigger_may_be_written_bare() {
        for (word, expected) in [
            ("auto", Trigger::Auto),
            ("propose", Trigger::Propose),
            ("off", Trigger::Off),
        ] {
            let settings = parse("f", &format!("cold_start: {{trigger: {word}}}\n")).unwrap();
            assert_eq!(settings.cold_start.trigger, expected);
        }
    }

    #[test]
    fn every_error_is_told_with_line_and_field() {
        let text = "\
listen: [coordinator.lan:7443, \"10.0.0.1:1\", \"10.0.0.1:1\"]
state_dir: var
silent_after: 0s
outage: {share_percent: 0}
cold_start:
  wave: {initial: 60, latency_good: 3s}
  trigger: maybe
  serving: 5
";
        let problems = parse("coordinator.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| (p.line, p.field.as_str())).collect();
        assert_eq!(
            fields,
            [
                (1, "listen[0]"),
                (1, "listen[2]"),
                (2, "state_dir"),
                (3, "silent_after"),
                (4, "outage.share_percent"),
                (6, "cold_start.wave.max"),
                (6, "cold_start.wave.latency_bad"),
                (7, "cold_start.trigger"),
                (8, "cold_start.serving"),
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Path::new("/nowhere/coordinator.yaml")).unwrap_err();
        assert_eq!(error.to_string(), "read configuration /nowhere/coordinator.yaml");
    }
}

//! `network` and `clock`.

use std::time::Duration;

use blackstart_proto::yaml::{Item, Table};

use super::{absolute, positive, set, unit};
use crate::config::{ClockSettings, CniSettings, DnsSettings, NetworkSettings};

/// Shorter than this a look every so often would be a load of its own.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn network(mut table: Table, to: &mut NetworkSettings) {
    set(&mut to.default_route, table.boolean("default_route"));
    set(&mut to.hold, table.duration("hold"));
    if let Some(item) = table.item("interval")
        && let Some(interval) = item.duration()
    {
        if interval < SHORTEST_INTERVAL {
            item.problem("must be at least 100ms");
        } else {
            to.interval = interval;
        }
    }
    set(&mut to.deadline, positive(&mut table, "deadline"));
    if let Some(peers) = table.list("peers") {
        to.peers = peers.iter().filter_map(Item::socket_address).collect();
    }
    if let Some(table) = table.table("cni") {
        cni(table, &mut to.cni);
    }
    to.dns = table.table("dns").and_then(dns);
}

fn cni(mut table: Table, to: &mut CniSettings) {
    set(&mut to.watch, table.boolean("watch"));
    set(&mut to.required, table.boolean("required"));
    set(&mut to.dir, table.item("dir").and_then(|item| absolute(&item)));
    set(&mut to.hold, table.duration("hold"));
    to.unit = table.item("unit").and_then(|item| unit(&item));
}

fn dns(mut table: Table) -> Option<DnsSettings> {
    let name = table.required("name").and_then(|item| host_name(&item));
    let mut to = DnsSettings::of(name.as_deref().unwrap_or_default());
    set(
        &mut to.resolv_conf,
        table.item("resolv_conf").and_then(|item| absolute(&item)),
    );
    set(&mut to.hold, table.duration("hold"));
    name.map(|_| to)
}

/// A name that fits into a query: RFC 1035, section 2.3.4.
fn host_name(item: &Item) -> Option<String> {
    let text = item.string()?;
    let name = text.trim_end_matches('.');
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= 253 && name.split('.').all(fits) {
        return Some(name.to_owned());
    }
    item.problem("expected a full name such as \"registry.example.com\"");
    None
}

pub(super) fn clock(mut table: Table, to: &mut ClockSettings) {
    set(&mut to.unsynchronised_hold, table.duration("unsynchronised_hold"));
    set(&mut to.rtc_behind, positive(&mut table, "rtc_behind"));
    if let Some(services) = table.list("services") {
        to.services = services.iter().filter_map(unit).collect();
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, parse};

    fn read(text: &str) -> Settings {
        parse("agent.yaml", &format!("node: n\n{text}")).unwrap()
    }

    #[test]
    fn what_may_be_restarted_is_what_is_named() {
        let settings = read(
            "units: [kubelet.service]\nclock: {services: [chronyd.service]}\nnetwork: {cni: {unit: flanneld.service}}",
        );
        for (unit, may) in [
            ("kubelet.service", true),
            ("chronyd.service", true),
            ("flanneld.service", true),
            ("ntpd.service", false),
        ] {
            assert_eq!(settings.may_restart(unit), may, "{unit}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_with_its_line() {
        let text = "\
node: n
network:
  interval: 1ms
  peers: [worker-2:10250]
  dns: {name: \"no such name\"}
  cni: {dir: net.d, unit: flanneld}
clock: {services: [chronyd]}
";
        let problems = parse("agent.yaml", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| (p.line, p.field.as_str())).collect();
        assert_eq!(
            fields,
            [
                (3, "network.interval"),
                (4, "network.peers[0]"),
                (5, "network.dns.name"),
                (6, "network.cni.dir"),
                (6, "network.cni.unit"),
                (7, "clock.services[0]"),
            ]
        );
    }
}

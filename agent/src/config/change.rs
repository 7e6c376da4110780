//! What differs between two configurations, field by field, and what of it can be taken over by an agent that runs.

use std::collections::BTreeMap;
use std::fmt;

use super::{
    ArchiveSettings, ClockSettings, CniSettings, CoordinatorSettings, DiskSettings, DnsSettings,
    GateSettings, HttpTarget, LeakSettings, LoadSettings, LogSettings, MemorySettings, NetworkSettings,
    PlegSettings, PreflightSettings, ProbeSettings, ProtectSettings, PruneSettings, ReclaimPolicy,
    RestartPolicy, RuntimeEndpoint, RuntimeSettings, Settings, UnitSettings, etcd, kubernetes, static_pods,
};
use crate::span::Span;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name in the configuration.
    pub field: String,
    /// What it was; `None` where it was not there.
    pub before: Option<String>,
    /// What it is to be; `None` where it is not there any more.
    pub after: Option<String>,
    /// An agent that runs cannot take it over.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            f,
            "{}: {} → {}",
            self.field,
            word(&self.before),
            word(&self.after)
        )
    }
}

/// Every field that differs, in the order of their names.
pub fn changes(before: &Settings, after: &Settings) -> Vec<Change> {
    let (mut old, new) = (Fields::of(before).0, Fields::of(after).0);
    let mut changes = Vec::new();
    for (field, (value, needs_restart)) in new {
        let was = old.remove(&field).map(|(value, _)| value);
        if was.as_ref() != Some(&value) {
            changes.push(Change {
                field,
                before: was,
                after: Some(value),
                needs_restart,
            });
        }
    }
    changes.extend(old.into_iter().map(|(field, (value, needs_restart))| Change {
        field,
        before: Some(value),
        after: None,
        needs_restart,
    }));
    changes.sort_by(|a, b| a.field.cmp(&b.field));
    changes
}

/// Each field with its value, and whether it needs a restart. Taken apart without `..`, so that a new field cannot be forgotten.
#[derive(Debug, Default)]
struct Fields(BTreeMap<String, (String, bool)>);

impl Fields {
    fn of(settings: &Settings) -> Self {
        let Settings {
            node,
            state_dir,
            runtime_dir,
            boot_id_file,
            dry_run,
            coordinator,
            units,
            kubelet_unit,
            kubelet,
            api_server,
            disks,
            logs,
            memory,
            load,
            runtime,
            prune,
            static_pods,
            etcd,
            preflight,
            metrics,
            restart,
            reclaim,
            gate,
            unit_states,
            pleg,
            network,
            clock,
            kubernetes,
            protect,
        } = settings;
        let mut to = Self::default();
        to.fixed("node", node);
        to.fixed("state_dir", state_dir.display());
        to.fixed("runtime_dir", runtime_dir.display());
        to.fixed("boot_id_file", boot_id_file.display());
        to.fixed("kubelet_unit", kubelet_unit);
        if let Some(metrics) = metrics {
            to.fixed("metrics.listen", metrics.listen);
        }
        if let Some(coordinator) = coordinator {
            to.coordinator(coordinator);
        }
        to.free("dry_run", dry_run);
        to.free("units", units.join(" "));
        to.probe("kubelet", kubelet);
        if let Some(api_server) = api_server {
            to.probe("api_server", api_server);
        }
        for disk in disks {
            to.disk(disk);
        }
        to.logs(logs);
        to.memory(memory);
        to.load(load);
        to.runtime(runtime);
        to.prune(prune);
        for (field, value) in static_pods::fields(static_pods) {
            to.free(field, value);
        }
        for (field, value) in etcd::fields(etcd) {
            to.free(field, value);
        }
        to.preflight(preflight);
        to.restart(restart);
        let ReclaimPolicy { budget, window } = reclaim;
        to.free("reclaim.budget", budget);
        to.free("reclaim.window", Span(*window));
        to.gate(gate);
        to.unit_states(unit_states);
        to.pleg(pleg);
        to.network(network);
        let ClockSettings {
            unsynchronised_hold,
            rtc_behind,
            services,
        } = clock;
        to.free("clock.unsynchronised_hold", Span(*unsynchronised_hold));
        to.free("clock.rtc_behind", Span(*rtc_behind));
        to.free("clock.services", services.join(" "));
        for (field, value) in kubernetes.iter().flat_map(kubernetes::fields) {
            to.free(field, value);
        }
        let ProtectSettings { units } = protect;
        to.free("protect.units", units.join(" "));
        to
    }

    fn free(&mut self, field: &str, value: impl fmt::Display) {
        self.0.insert(field.to_owned(), (value.to_string(), false));
    }

    fn fixed(&mut self, field: &str, value: impl fmt::Display) {
        self.0.insert(field.to_owned(), (value.to_string(), true));
    }

    fn coordinator(&mut self, settings: &CoordinatorSettings) {
        let CoordinatorSettings {
            addresses,
            tls,
            report_interval,
            permit_wait,
        } = settings;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        self.fixed("coordinator.addresses", addresses.join(" "));
        self.fixed("coordinator.ca", tls.ca.display());
        self.fixed("coordinator.certificate", tls.certificate.display());
        self.fixed("coordinator.key", tls.key.display());
        self.fixed("coordinator.report_interval", Span(*report_interval));
        self.fixed("coordinator.permit_wait", Span(*permit_wait));
    }

    fn probe(&mut self, name: &str, settings: &ProbeSettings) {
        let ProbeSettings {
            target: HttpTarget { address, path, tls },
            interval,
            deadline,
            failures_to_raise,
        } = settings;
        self.fixed(&format!("{name}.address"), address);
        self.fixed(&format!("{name}.path"), path);
        self.fixed(&format!("{name}.https"), tls);
        self.free(&format!("{name}.interval"), Span(*interval));
        self.free(&format!("{name}.deadline"), Span(*deadline));
        self.free(&format!("{name}.failures_to_raise"), failures_to_raise);
    }

    fn disk(&mut self, settings: &DiskSettings) {
        let DiskSettings {
            mount_point,
            raise_percent,
            clear_percent,
            raise_time_to_full,
        } = settings;
        let name = format!("disks {}", mount_point.display());
        self.free(&format!("{name}.raise_percent"), raise_percent);
        self.free(&format!("{name}.clear_percent"), clear_percent);
        self.free(&format!("{name}.raise_time_to_full"), Span(*raise_time_to_full));
    }

    fn logs(&mut self, settings: &LogSettings) {
        let LogSettings {
            globs,
            protect,
            keep_tail,
            min_size,
            runaway_rate,
            archive,
        } = settings;
        self.free("logs.globs", globs.join(" "));
        self.free("logs.protect", protect.join(" "));
        self.free("logs.keep_tail", keep_tail);
        self.free("logs.min_size", min_size);
        self.free("logs.runaway_rate", runaway_rate);
        if let Some(ArchiveSettings {
            dir,
            max_bytes,
            level,
            min_free_percent,
            deadline,
        }) = archive
        {
            self.free("logs.archive.dir", dir.display());
            self.free("logs.archive.max_bytes", max_bytes);
            self.free("logs.archive.level", level);
            self.free("logs.archive.min_free_percent", min_free_percent);
            self.free("logs.archive.deadline", Span(*deadline));
        }
    }

    fn memory(&mut self, settings: &MemorySettings) {
        let MemorySettings {
            raise_available_percent,
            clear_available_percent,
            critical_available_percent,
            raise_waiting_percent,
            may_restart,
            protect,
            restart_share_percent,
            restart_hold,
            restarts,
            restart_window,
            leak,
        } = settings;
        self.free("memory.raise_available_percent", raise_available_percent);
        self.free("memory.clear_available_percent", clear_available_percent);
        self.free("memory.critical_available_percent", critical_available_percent);
        self.free("memory.raise_waiting_percent", raise_waiting_percent);
        self.free("memory.may_restart", may_restart.join(" "));
        self.free("memory.protect", protect.join(" "));
        self.free("memory.restart_share_percent", restart_share_percent);
        self.free("memory.restart_hold", Span(*restart_hold));
        self.free("memory.restarts", restarts);
        self.free("memory.restart_window", Span(*restart_window));
        let LeakSettings {
            units,
            window,
            min_span,
            min_growth,
            min_growth_percent,
        } = leak;
        self.free("memory.leak.units", units.join(" "));
        self.free("memory.leak.window", Span(*window));
        self.free("memory.leak.min_span", Span(*min_span));
        self.free("memory.leak.min_growth", min_growth);
        self.free("memory.leak.min_growth_percent", min_growth_percent);
    }

    fn load(&mut self, settings: &LoadSettings) {
        let LoadSettings {
            raise_per_processor,
            raise_cpu_some_percent,
            raise_io_some_percent,
            raise_io_full_percent,
            hold,
            protect,
            cpu_weight,
            io_weight,
        } = settings;
        self.free("load.raise_per_processor", raise_per_processor);
        self.free("load.raise_cpu_some_percent", raise_cpu_some_percent);
        self.free("load.raise_io_some_percent", raise_io_some_percent);
        self.free("load.raise_io_full_percent", raise_io_full_percent);
        self.free("load.hold", Span(*hold));
        self.free("load.protect", protect);
        self.free("load.cpu_weight", cpu_weight);
        self.free("load.io_weight", io_weight);
    }

    fn runtime(&mut self, settings: &RuntimeSettings) {
        let RuntimeSettings {
            docker,
            containerd,
            interval,
            deadline,
            failures_to_raise,
            flapping_restarts,
            flapping_window,
            may_restart_containers,
            container_restarts,
            container_restart_window,
            container_healthy_within,
        } = settings;
        for (name, RuntimeEndpoint { socket, unit, stacks }) in
            [("docker", docker), ("containerd", containerd)]
        {
            self.fixed(&format!("runtime.{name}.socket"), socket.display());
            self.fixed(&format!("runtime.{name}.unit"), unit);
            self.fixed(&format!("runtime.{name}.stacks"), stacks.display());
        }
        self.free("runtime.interval", Span(*interval));
        self.free("runtime.deadline", Span(*deadline));
        self.free("runtime.failures_to_raise", failures_to_raise);
        self.free("runtime.flapping_restarts", flapping_restarts);
        self.free("runtime.flapping_window", Span(*flapping_window));
        self.free("runtime.may_restart_containers", may_restart_containers.join(" "));
        self.free("runtime.container_restarts", container_restarts);
        let window = Span(*container_restart_window);
        self.free("runtime.container_restart_window", window);
        let within = Span(*container_healthy_within);
        self.free("runtime.container_healthy_within", within);
    }

    fn prune(&mut self, settings: &PruneSettings) {
        let PruneSettings {
            stopped_for,
            unused_for,
            protect,
            journal,
            journal_keep,
        } = settings;
        self.free("prune.stopped_for", Span(*stopped_for));
        self.free("prune.unused_for", Span(*unused_for));
        self.free("prune.protect", protect.join(" "));
        self.free("prune.journal", journal.display());
        self.free("prune.journal_keep", journal_keep);
    }

    fn preflight(&mut self, settings: &PreflightSettings) {
        let PreflightSettings {
            certificates,
            expires_within,
            container_runtimes,
            etcd_data,
        } = settings;
        let paths = |paths: &[std::path::PathBuf]| {
            let each: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            each.join(" ")
        };
        self.free("preflight.certificates", certificates.join(" "));
        self.free("preflight.expires_within", Span(*expires_within));
        self.free("preflight.container_runtimes", paths(container_runtimes));
        self.free("preflight.etcd_data", paths(etcd_data));
    }

    fn restart(&mut self, policy: &RestartPolicy) {
        let RestartPolicy {
            inactive_hold,
            restarts,
            kill_restarts,
            window,
            backoff_first,
            backoff_max,
            job_deadline,
            order,
            order_wait,
        } = policy;
        self.free("restart.inactive_hold", Span(*inactive_hold));
        self.free("restart.restarts", restarts);
        self.free("restart.kill_restarts", kill_restarts);
        self.free("restart.window", Span(*window));
        self.free("restart.backoff_first", Span(*backoff_first));
        self.free("restart.backoff_max", Span(*backoff_max));
        self.free("restart.job_deadline", Span(*job_deadline));
        self.free("restart.order", order.join(" "));
        self.free("restart.order_wait", Span(*order_wait));
    }

    fn unit_states(&mut self, settings: &UnitSettings) {
        let UnitSettings {
            flapping_restarts,
            flapping_window,
            job_hung_after,
        } = settings;
        self.free("unit_states.flapping_restarts", flapping_restarts);
        self.free("unit_states.flapping_window", Span(*flapping_window));
        self.free("unit_states.job_hung_after", Span(*job_hung_after));
    }

    fn pleg(&mut self, settings: &PlegSettings) {
        let PlegSettings {
            interval,
            deadline,
            restart_after,
            journalctl,
        } = settings;
        self.free("pleg.interval", Span(*interval));
        self.free("pleg.deadline", Span(*deadline));
        self.free("pleg.restart_after", Span(*restart_after));
        self.free("pleg.journalctl", journalctl.display());
    }

    fn network(&mut self, settings: &NetworkSettings) {
        let NetworkSettings {
            default_route,
            hold,
            interval,
            deadline,
            peers,
            cni,
            dns,
        } = settings;
        self.free("network.default_route", default_route);
        self.free("network.hold", Span(*hold));
        self.free("network.interval", Span(*interval));
        self.free("network.deadline", Span(*deadline));
        let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
        self.free("network.peers", peers.join(" "));
        let CniSettings {
            watch,
            required,
            dir,
            hold,
            unit,
        } = cni;
        self.free("network.cni.watch", watch);
        self.free("network.cni.required", required);
        self.free("network.cni.dir", dir.display());
        self.free("network.cni.hold", Span(*hold));
        if let Some(unit) = unit {
            self.free("network.cni.unit", unit);
        }
        if let Some(DnsSettings {
            name,
            resolv_conf,
            hold,
        }) = dns
        {
            self.free("network.dns.name", name);
            self.free("network.dns.resolv_conf", resolv_conf.display());
            self.free("network.dns.hold", Span(*hold));
        }
    }

    /// The gate is a process of its own and reads the file at each boot: nothing of it is in this process.
    fn gate(&mut self, settings: &GateSettings) {
        let GateSettings {
            role,
            dead_man_control_plane,
            dead_man_worker,
            preflight_hold,
            jitter,
        } = settings;
        self.free("gate.role", format!("{role:?}"));
        self.free("gate.dead_man_control_plane", Span(*dead_man_control_plane));
        self.free("gate.dead_man_worker", Span(*dead_man_worker));
        self.free("gate.preflight_hold", Span(*preflight_hold));
        self.free("gate.jitter", Span(*jitter));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_field_that_differs_is_told_with_both_values() {
        let before = Settings::for_node("a");
        assert!(changes(&before, &before).is_empty());
        let mut after = before.clone();
        after.node = "b".to_owned();
        after.restart.window = Duration::from_mins(5);
        after.disks.remove(0);
        after.api_server = Some(ProbeSettings::new(6443, "/readyz"));
        let told: Vec<_> = changes(&before, &after)
            .iter()
            .map(|change| (change.to_string(), change.needs_restart))
            .collect();
        for expected in [
            ("node: a → b", true),
            ("restart.window: 10m → 5m", false),
            ("disks /.raise_percent: 85 → nothing", false),
            ("api_server.address: nothing → 127.0.0.1:6443", true),
        ] {
            assert!(
                told.iter()
                    .any(|(text, restart)| (text.as_str(), *restart) == expected),
                "{expected:?} is not in {told:?}"
            );
        }
        assert_eq!(told.len(), 1 + 1 + 3 + 6, "{told:?}");
    }
}

//! Which settings a condition depends on.

use std::fmt::Display;

use super::Threshold;
use crate::bytes::Bytes;
use crate::condition::ConditionKind as Kind;
use crate::config::{
    LoadSettings, MemorySettings, NetworkSettings, RuntimeSettings, Settings, StaticPodSettings,
};
use crate::span::Span;

pub(super) fn of(kind: Kind, settings: &Settings) -> Vec<Threshold> {
    match kind {
        Kind::UnitFailed
        | Kind::UnitFlapping
        | Kind::UnitMasked
        | Kind::UnitJobHung
        | Kind::KubeletPlegUnhealthy => of_units(kind, settings),
        Kind::UnitInactive => vec![
            units(settings),
            at("restart.inactive_hold", Span(settings.restart.inactive_hold)),
        ],
        Kind::KubeletUnhealthy => vec![
            at("kubelet_unit", &settings.kubelet_unit),
            at("kubelet.address", settings.kubelet.target.address),
            at("kubelet.path", &settings.kubelet.target.path),
            at("kubelet.interval", Span(settings.kubelet.interval)),
            at("kubelet.deadline", Span(settings.kubelet.deadline)),
            at("kubelet.failures_to_raise", settings.kubelet.failures_to_raise),
        ],
        Kind::DiskPressure | Kind::InodePressure | Kind::DiskFilling => disks(settings),
        Kind::ContainerUnhealthy => container_restarts(&settings.runtime),
        Kind::LogRunaway => logs(settings),
        Kind::MemoryPressure => memory(&settings.memory),
        Kind::MemoryLeak => leak(settings),
        Kind::Overload => load(&settings.load),
        Kind::RuntimeHung => {
            let runtime = &settings.runtime;
            vec![
                at("runtime.docker.socket", runtime.docker.socket.display()),
                at("runtime.docker.unit", &runtime.docker.unit),
                at("runtime.containerd.socket", runtime.containerd.socket.display()),
                at("runtime.containerd.unit", &runtime.containerd.unit),
                at("runtime.interval", Span(runtime.interval)),
                at("runtime.deadline", Span(runtime.deadline)),
                at("runtime.failures_to_raise", runtime.failures_to_raise),
            ]
        }
        Kind::ContainerFlapping => vec![
            at("runtime.flapping_restarts", settings.runtime.flapping_restarts),
            at("runtime.flapping_window", Span(settings.runtime.flapping_window)),
        ],
        Kind::CertificateExpiring => vec![
            at("preflight.certificates", settings.certificates().join(" ")),
            at(
                "preflight.expires_within",
                Span(settings.preflight.expires_within),
            ),
        ],
        Kind::CertificateExpired => {
            vec![at("preflight.certificates", settings.certificates().join(" "))]
        }
        Kind::RemedyExhausted => vec![
            at("restart.restarts", settings.restart.restarts),
            at("restart.kill_restarts", settings.restart.kill_restarts),
            at("restart.window", Span(settings.restart.window)),
            at("reclaim.budget", settings.reclaim.budget),
            at("reclaim.window", Span(settings.reclaim.window)),
        ],
        Kind::ControlPlaneComponentDown | Kind::StaticPodManifestMissing | Kind::StaticPodManifestInvalid => {
            static_pods(kind, &settings.static_pods)
        }
        Kind::ClockUnsynchronised => vec![
            at(
                "clock.unsynchronised_hold",
                Span(settings.clock.unsynchronised_hold),
            ),
            at("clock.services", settings.clock.services.join(" ")),
        ],
        Kind::RtcBehind => vec![at("clock.rtc_behind", Span(settings.clock.rtc_behind))],
        Kind::NetworkIsolated | Kind::CniMissing | Kind::DnsFailing => network(kind, &settings.network),
        Kind::LedgerUnwritable => vec![at("state_dir", settings.state_dir.display())],
        Kind::FilesystemReadOnly
        | Kind::FilesystemCorrupt
        | Kind::DiskFailing
        | Kind::OomStorm
        | Kind::KernelHang
        | Kind::HardwareFault
        | Kind::NicFailing
        | Kind::ConntrackFull
        | Kind::ClockBehind
        | Kind::ClockJumped
        | Kind::ContainerOomKilled
        | Kind::ContainerDied => Vec::new(),
    }
}

fn container_restarts(runtime: &RuntimeSettings) -> Vec<Threshold> {
    vec![
        at(
            "runtime.may_restart_containers",
            format!("[{}]", runtime.may_restart_containers.join(", ")),
        ),
        at("runtime.container_restarts", runtime.container_restarts),
        at(
            "runtime.container_restart_window",
            Span(runtime.container_restart_window),
        ),
        at(
            "runtime.container_healthy_within",
            Span(runtime.container_healthy_within),
        ),
    ]
}

fn logs(settings: &Settings) -> Vec<Threshold> {
    let logs = &settings.logs;
    let mut all = vec![
        at("logs.globs", logs.globs.join(" ")),
        at("logs.protect", logs.protect.join(" ")),
        at("logs.keep_tail", Bytes(logs.keep_tail)),
        at("logs.min_size", Bytes(logs.min_size)),
        at("logs.runaway_rate", format!("{}/s", Bytes(logs.runaway_rate))),
    ];
    if let Some(archive) = &logs.archive {
        all.push(at("logs.archive.dir", archive.dir.display()));
        all.push(at("logs.archive.max_bytes", Bytes(archive.max_bytes)));
        all.push(at("logs.archive.deadline", Span(archive.deadline)));
    }
    all.extend(disks(settings));
    all
}

/// Those of units that have failed, or are not well without it.
fn of_units(kind: Kind, settings: &Settings) -> Vec<Threshold> {
    let (restart, states, pleg) = (&settings.restart, &settings.unit_states, &settings.pleg);
    if kind == Kind::KubeletPlegUnhealthy {
        return vec![
            at("kubelet_unit", &settings.kubelet_unit),
            at("pleg.interval", Span(pleg.interval)),
            at("pleg.restart_after", Span(pleg.restart_after)),
        ];
    }
    let mut all = vec![units(settings)];
    if kind == Kind::UnitFlapping {
        all.push(at("unit_states.flapping_restarts", states.flapping_restarts));
        all.push(at("unit_states.flapping_window", Span(states.flapping_window)));
    } else if kind == Kind::UnitMasked {
        all.push(at("restart.inactive_hold", Span(restart.inactive_hold)));
    } else if kind == Kind::UnitJobHung {
        all.push(at("unit_states.job_hung_after", Span(states.job_hung_after)));
    } else {
        all.push(at("restart.order", restart.order.join(" ")));
        all.push(at("restart.order_wait", Span(restart.order_wait)));
    }
    all
}

fn at(setting: &str, value: impl Display) -> Threshold {
    Threshold {
        setting: setting.to_owned(),
        value: value.to_string(),
    }
}

fn network(kind: Kind, network: &NetworkSettings) -> Vec<Threshold> {
    let mut all = vec![at("network.interval", Span(network.interval))];
    if kind == Kind::NetworkIsolated {
        let peers: Vec<_> = network.peers.iter().map(ToString::to_string).collect();
        all.extend([
            at("network.default_route", network.default_route),
            at("network.hold", Span(network.hold)),
            at("network.deadline", Span(network.deadline)),
            at("network.peers", peers.join(" ")),
        ]);
    }
    if kind == Kind::CniMissing {
        let cni = &network.cni;
        all.extend([
            at("network.cni.watch", cni.watch),
            at("network.cni.required", cni.required),
            at("network.cni.dir", cni.dir.display()),
            at("network.cni.hold", Span(cni.hold)),
            at("network.cni.unit", cni.unit.as_deref().unwrap_or_default()),
        ]);
    }
    if kind == Kind::DnsFailing
        && let Some(dns) = &network.dns
    {
        all.extend([
            at("network.deadline", Span(network.deadline)),
            at("network.dns.name", &dns.name),
            at("network.dns.resolv_conf", dns.resolv_conf.display()),
            at("network.dns.hold", Span(dns.hold)),
        ]);
    }
    all
}

fn units(settings: &Settings) -> Threshold {
    at("units", settings.units.join(" "))
}

fn disks(settings: &Settings) -> Vec<Threshold> {
    let of = |disk: &crate::config::DiskSettings| {
        at(
            &format!("disks {}", disk.mount_point.display()),
            format!(
                "raise_percent {}, clear_percent {}, raise_time_to_full {}",
                disk.raise_percent,
                disk.clear_percent,
                Span(disk.raise_time_to_full)
            ),
        )
    };
    settings.disks.iter().map(of).collect()
}

fn static_pods(kind: Kind, pods: &StaticPodSettings) -> Vec<Threshold> {
    let mut all = vec![at("static_pods.manifests", pods.manifests.display())];
    if kind == Kind::StaticPodManifestMissing {
        let expected = pods.expected.as_ref();
        let expected = expected.map_or_else(|| "what was there before".to_owned(), |names| names.join(" "));
        all.push(at("static_pods.expected", expected));
        all.push(at("static_pods.held", pods.held.display()));
    }
    if kind == Kind::ControlPlaneComponentDown {
        let components: Vec<_> = pods.components.iter().map(ToString::to_string).collect();
        all.extend([
            at("static_pods.components", components.join(", ")),
            at("static_pods.interval", Span(pods.interval)),
            at("static_pods.deadline", Span(pods.deadline)),
            at("static_pods.failures_to_raise", pods.failures_to_raise),
            at("static_pods.start_grace", Span(pods.start_grace)),
            at("static_pods.out_at_least", Span(pods.out_at_least)),
            at("static_pods.gone_deadline", Span(pods.gone_deadline)),
            at("static_pods.ready_deadline", Span(pods.ready_deadline)),
            at("static_pods.without_permit", pods.without_permit),
        ]);
    }
    all
}

fn memory(memory: &MemorySettings) -> Vec<Threshold> {
    vec![
        at("memory.raise_available_percent", memory.raise_available_percent),
        at("memory.clear_available_percent", memory.clear_available_percent),
        at(
            "memory.critical_available_percent",
            memory.critical_available_percent,
        ),
        at("memory.raise_waiting_percent", memory.raise_waiting_percent),
        at("memory.may_restart", memory.may_restart.join(" ")),
        at("memory.protect", memory.protect.join(" ")),
        at("memory.restart_share_percent", memory.restart_share_percent),
        at("memory.restart_hold", Span(memory.restart_hold)),
        at("memory.restarts", memory.restarts),
        at("memory.restart_window", Span(memory.restart_window)),
    ]
}

fn leak(settings: &Settings) -> Vec<Threshold> {
    let leak = &settings.memory.leak;
    vec![
        at("memory.leak.units", settings.leak_units().join(" ")),
        at("memory.leak.window", Span(leak.window)),
        at("memory.leak.min_span", Span(leak.min_span)),
        at("memory.leak.min_growth", Bytes(leak.min_growth)),
        at("memory.leak.min_growth_percent", leak.min_growth_percent),
    ]
}

fn load(load: &LoadSettings) -> Vec<Threshold> {
    vec![
        at("load.raise_per_processor", load.raise_per_processor),
        at("load.raise_cpu_some_percent", load.raise_cpu_some_percent),
        at("load.raise_io_some_percent", load.raise_io_some_percent),
        at("load.raise_io_full_percent", load.raise_io_full_percent),
        at("load.hold", Span(load.hold)),
        at("load.protect", load.protect),
        at("load.cpu_weight", load.cpu_weight),
        at("load.io_weight", load.io_weight),
    ]
}

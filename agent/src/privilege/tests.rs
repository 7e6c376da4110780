use super::*;
use crate::config::Settings;
use crate::reclaim::scope::split;
use crate::signal::LogId;

const KUBELET: &str = "kubelet.service";

/// As the shipped unit has it, on a node with docker and polkit.
fn shipped() -> Facts {
    let place = |path: &str, group, mode| Place {
        path: path.into(),
        owner: 0,
        group,
        mode,
        read_only: false,
    };
    let given = [
        Capability::DacOverride,
        Capability::SysPtrace,
        Capability::Syslog,
        Capability::Kill,
        Capability::Fowner,
    ];
    Facts {
        uid: 990,
        groups: vec![990],
        capabilities: Capabilities(given.iter().fold(0, |set, one| set | 1 << one.bit())),
        units: vec![
            (KUBELET.to_owned(), Leave::Given),
            ("docker.service".to_owned(), Leave::Unknown),
        ],
        others: vec![("chronyd.service".to_owned(), Leave::Given)],
        logs: vec![place("/var/log", 0, 0o755), place("/opt", 0, 0o755)],
        journal: Some(place("/var/log/journal", 995, 0o2755)),
        sockets: vec![place("/run/docker.sock", 999, 0o660)],
        kernel_log: KernelLog::Restricted,
        clock_refused: false,
        triggers_restricted: false,
        in_container: false,
    }
}

fn told(facts: &Facts) -> Vec<String> {
    lacks(facts).iter().map(Lack::to_string).collect()
}

#[test]
fn the_shipped_unit_lacks_nothing() {
    assert_eq!(told(&shipped()), Vec::<String>::new());
}

#[test]
fn each_missing_privilege_is_told_with_what_it_disables() {
    for (capability, expected) in [
        (
            Capability::DacOverride,
            &[
                "reclaim logs: missing CAP_DAC_OVERRIDE",
                "see who writes a log: missing CAP_DAC_READ_SEARCH",
                "vacuum the journal: missing CAP_DAC_OVERRIDE",
                "ask the container runtime at /run/docker.sock: missing CAP_DAC_OVERRIDE",
                "read certificates: missing CAP_DAC_READ_SEARCH",
            ][..],
        ),
        (
            Capability::SysPtrace,
            &[
                "see who writes a log: missing CAP_SYS_PTRACE",
                "keep the stacks of a hung container runtime: missing CAP_SYS_PTRACE",
            ],
        ),
        (Capability::Syslog, &["read the kernel's log: missing CAP_SYSLOG"]),
        (
            Capability::Kill,
            &["keep the stacks of a hung container runtime: missing CAP_KILL"],
        ),
    ] {
        let mut facts = shipped();
        facts.capabilities = facts.capabilities.without(capability);
        assert_eq!(told(&facts), expected, "without {}", capability.as_str());
        assert!(lacks(&facts).iter().all(|lack| lack.mend().contains("CAP_")));
    }
    let changed = |change: fn(&mut Facts)| {
        let mut facts = shipped();
        change(&mut facts);
        told(&facts)
    };
    assert_eq!(
        changed(|facts| facts.units[0].1 = Leave::NoPolkit),
        ["restart kubelet.service: missing polkit"]
    );
    assert_eq!(
        changed(|facts| facts.units[0].1 = Leave::NoRule),
        ["restart kubelet.service: missing a polkit rule"]
    );
    assert_eq!(
        changed(|facts| facts.others[0].1 = Leave::NoRule),
        ["restart chronyd.service: missing a polkit rule"]
    );
    assert_eq!(
        changed(|facts| facts.logs[1].read_only = true),
        ["reclaim logs below /opt: mounted read-only for the agent"]
    );
    assert_eq!(
        changed(|facts| facts.triggers_restricted = true),
        ["be woken by memory pressure: missing CAP_SYS_RESOURCE"]
    );
    assert_eq!(
        changed(|facts| facts.kernel_log = KernelLog::Refused),
        ["read the kernel's log: missing the device /dev/kmsg"]
    );
    assert_eq!(
        changed(|facts| facts.clock_refused = true),
        ["see whether the clock is kept: missing the system calls adjtimex and clock_adjtime"]
    );
    assert_eq!(
        changed(|facts| facts.in_container = true),
        ["hold the kubelet at boot: runs in a container"]
    );
}

#[test]
fn a_group_does_where_a_capability_is_missing() {
    let mut facts = shipped();
    facts.capabilities = facts.capabilities.without(Capability::DacOverride);
    facts.groups.push(999);
    assert!(!told(&facts).iter().any(|lack| lack.contains("docker.sock")));
}

#[test]
fn root_with_all_capabilities_lacks_nothing() {
    let facts = Facts {
        uid: 0,
        capabilities: Capabilities(u64::MAX),
        triggers_restricted: true,
        ..shipped()
    };
    assert_eq!(told(&facts), Vec::<String>::new());
}

#[test]
fn only_the_remedies_that_need_it_are_disabled() {
    let restart = |unit: &str| Remedy::RestartUnit {
        unit: unit.to_owned(),
    };
    let reclaim = |path: &str| Remedy::ReclaimLog {
        log: LogId {
            dev: 1,
            ino: 1,
            path: path.into(),
            deleted: false,
        },
    };
    let chrony = Lack::of(
        Function::ManageOther("chronyd.service".to_owned()),
        Missing::PolkitRule,
    );
    assert!(disabled(std::slice::from_ref(&chrony), &restart("chronyd.service")).is_some());
    assert_eq!(disabled(&[chrony], &Remedy::ProtectUnits), None);
    let lacks = [
        Lack::of(Function::ManageUnit(KUBELET.to_owned()), Missing::PolkitRule),
        Lack::of(Function::ReclaimBelow("/opt".into()), Missing::ReadOnly),
        Lack::of(Function::SeeWriters, Missing::Capability(Capability::SysPtrace)),
    ];
    let why = |remedy: &Remedy| disabled(&lacks, remedy).map(Lack::to_string);
    assert_eq!(
        why(&restart(KUBELET)).as_deref(),
        Some("restart kubelet.service: missing a polkit rule")
    );
    assert_eq!(why(&restart("docker.service")), None);
    assert!(why(&reclaim("/opt/app/logs/a.log")).is_some());
    assert_eq!(why(&reclaim("/var/log/a.log")), None);
}

/// Unit, manifest, rule and defaults are read by different programs, and must say the same.
#[test]
fn the_shipped_files_agree() {
    let unit = include_str!("../../../deploy/systemd/blackstart-agent.service");
    let of = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().split(' ').collect::<Vec<_>>()
    };
    let given = of("AmbientCapabilities=");
    assert_eq!(given, of("CapabilityBoundingSet="));
    let manifest = include_str!("../../../deploy/kubernetes/agent-daemonset.yaml");
    let added = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("add: ["));
    let added: Vec<_> = added
        .unwrap()
        .trim_end_matches(']')
        .split(", ")
        .map(|name| format!("CAP_{name}"))
        .collect();
    assert_eq!(added, given);

    let settings = Settings::for_node("n");
    let rule = include_str!("../../../deploy/polkit/50-blackstart.rules");
    for name in &settings.units {
        assert!(
            rule.contains(&format!("\"{name}\"")),
            "polkit's rule does not name {name}"
        );
    }
    let writable = of("ReadWritePaths=");
    for glob in &settings.logs.globs {
        let fixed = split(glob).0;
        let named = writable
            .iter()
            .any(|path| fixed.starts_with(path.trim_start_matches('-')));
        assert!(named, "ReadWritePaths= does not name {}", fixed.display());
    }
}

#[test]
fn the_shipped_rule_allows_every_unit_that_the_shipped_configuration_restarts() {
    let rule = include_str!("../../../deploy/polkit/50-blackstart.rules");
    let settings = crate::config::Settings::for_node("node");
    for unit in settings.units.iter().chain(settings.helpers()) {
        assert!(rule.contains(&format!("\"{unit}\"")), "{unit}");
    }
}

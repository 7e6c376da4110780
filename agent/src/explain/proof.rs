//! Which tests show that a condition is raised by its cause, told or mended, and cleared, and that a remedy does what it says.
//!
//! Every kind and every remedy has to be here, or this does not compile; `document` writes it down and holds it to the tests that there are.

use blackstart_proto::component::Component;
use blackstart_proto::part::Part;

use crate::condition::ConditionKind as Kind;
use crate::control_plane;
use crate::etcd::{Act, Change};
use crate::remedy::Remedy;

/// What brings a condition about in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The thing itself: a process that dies, a disk that is full, a kernel that says so.
    Real,
    /// Messages as kernels have written them, read as the kernel's log is: without the hardware there is no other way.
    Recorded,
    /// A simulated node, or signals by hand, and a clock of the test's own.
    Simulated,
}

/// What a test shows of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shows {
    Raised,
    /// A remedy was done and helped.
    Mended,
    /// People were told, and nothing was done that would not help.
    Told,
    Cleared,
}

/// One test.
#[derive(Debug)]
pub(super) struct Proof {
    /// Relative to the workspace.
    pub(super) file: &'static str,
    pub(super) test: &'static str,
    pub(super) cause: Cause,
    /// What was done to the node, in a few words.
    pub(super) by: &'static str,
    /// Nothing for a remedy.
    pub(super) shows: &'static [Shows],
}

const fn proof(
    cause: Cause,
    by: &'static str,
    file: &'static str,
    test: &'static str,
    shows: &'static [Shows],
) -> Proof {
    Proof {
        file,
        test,
        cause,
        by,
        shows,
    }
}

const KERNEL_CAUSES: &str = "agent/tests/kernel_causes.rs";
const CONTAINERS: &str = "agent/tests/runtime.rs";
const DISKS: &str = "agent/tests/disk_conditions.rs";
const CERTIFICATES: &str = "agent/src/watch/certificates/tests.rs";
const CLOCKS: &str = "agent/tests/clocks.rs";
const KEPT_AGAIN: &str =
    "a_time_service_is_restarted_once_when_nobody_keeps_the_clock_and_then_somebody_is_told";
const MEMORY: &str = "tests/tests/memory.rs";
const NETWORK: &str = "tests/tests/network.rs";
const PODS: &str = "tests/tests/static_pods.rs";
const ASIDE: &str = "tests/tests/set_aside.rs";
const RELIEVED: &str =
    "the_largest_unit_that_may_be_is_restarted_when_memory_is_short_and_then_somebody_is_told";
const REPAIRS: &str = "agent/src/run/tests/repairs.rs";
const STATES: &str = "tests/tests/unit_states.rs";
const UNITS: &str = "tests/tests/units.rs";

#[expect(clippy::too_many_lines, reason = "one row after the other")]
#[rustfmt::skip]
pub(super) fn of(kind: Kind) -> &'static [Proof] {
    use Cause::{Real, Recorded, Simulated};
    use Shows::{Cleared, Mended, Raised, Told};
    match kind {
        Kind::UnitFailed => const { &[
            proof(Real, "the kubelet is killed", UNITS, "a_killed_kubelet_is_restarted", &[Raised, Mended, Cleared]),
            proof(Real, "the kubelet refuses to start", UNITS, "a_kubelet_that_refuses_to_start_spends_its_budget_and_is_reported", &[Raised, Told]),
        ] },
        Kind::UnitInactive => const { &[
            proof(Real, "`systemctl stop kubelet`", UNITS, "a_unit_that_somebody_stops_is_started_again_and_one_that_is_disabled_is_not", &[Raised, Mended, Cleared]),
        ] },
        Kind::KubeletUnhealthy => const { &[
            proof(Real, "the kubelet accepts and never answers", UNITS, "a_hung_kubelet_is_killed_and_restarted_within_20_seconds", &[Raised, Mended, Cleared]),
        ] },
        Kind::DiskPressure => const { &[
            proof(Real, "a file system is filled", DISKS, "a_disk_that_fills_is_told_until_there_is_room_again", &[Raised, Cleared]),
            proof(Real, "a real dockerd's unused images take a disk's space", "agent/tests/prune.rs", "only_as_much_goes_as_the_disk_needs_and_what_is_protected_or_used_stays", &[Mended]),
            proof(Simulated, "signals by hand", "agent/src/decide/tests/disks.rs", "a_disk_gives_back_its_logs_then_its_journal_then_its_images_and_then_it_is_told", &[Told]),
        ] },
        Kind::LogRunaway => const { &[
            proof(Real, "a log outgrows its disk on a node", "tests/tests/logs.rs", "a_log_that_is_appended_to", &[Raised, Mended]),
            proof(Real, "a deleted log outgrows its disk", "tests/tests/logs.rs", "a_log_that_was_deleted_and_is_held_open", &[Raised, Mended]),
            proof(Simulated, "a disk and a log by hand", "agent/src/diagnose/logs.rs", "is_cleared_by_the_reclaim_by_its_end_and_by_a_calm_disk", &[Cleared]),
        ] },
        Kind::FilesystemReadOnly => const { &[
            proof(Real, "somebody mounts it read-only", DISKS, "a_disk_that_somebody_mounts_read_only_is_told_until_it_can_be_written_again", &[Raised, Told, Cleared]),
            proof(Real, "ext4 finds an error (`errors=remount-ro`)", DISKS, "a_disk_that_the_kernel_gives_up_after_an_error_is_told", &[Raised, Told]),
        ] },
        Kind::FilesystemCorrupt => const { &[
            proof(Real, "a directory's block is wiped on the disk; it is read", KERNEL_CAUSES, "a_directory_that_the_disk_lost_is_told_as_damage_until_the_next_boot", &[Raised, Told, Cleared]),
        ] },
        Kind::DiskFailing => const { &[
            proof(Real, "what is behind a loop device is cut off; it is read", KERNEL_CAUSES, "a_disk_that_does_not_read_is_told_until_the_kernel_is_silent_about_it", &[Raised, Told, Cleared]),
        ] },
        Kind::MemoryPressure => const { &[
            proof(Real, "tasks thrash in a control group", "agent/tests/memory_pressure.rs", "tasks_that_thrash_are_told_and_their_end_too", &[Raised]),
            proof(Real, "a unit takes half of a node's memory", MEMORY, RELIEVED, &[Raised, Mended, Told, Cleared]),
        ] },
        Kind::OomStorm => const { &[
            proof(Real, "processes run out of a control group's memory", "agent/tests/kernel_log.rs", "kills_at_a_limit_again_and_again_are_a_storm_until_they_end", &[Raised, Told, Cleared]),
        ] },
        Kind::KernelHang => const { &[
            proof(Real, "a writer waits for a frozen file system", KERNEL_CAUSES, "a_writer_that_hangs_on_a_frozen_disk_is_told_and_lives_on_when_it_thaws", &[Raised, Told, Cleared]),
            proof(Recorded, "a soft lockup", KERNEL_CAUSES, "what_kernels_said_of_broken_hardware_is_told_until_they_are_silent", &[Raised, Told, Cleared]),
        ] },
        Kind::HardwareFault => const { &[
            proof(Recorded, "a machine check", KERNEL_CAUSES, "what_kernels_said_of_broken_hardware_is_told_until_they_are_silent", &[Raised, Told, Cleared]),
        ] },
        Kind::NicFailing => const { &[
            proof(Recorded, "a transmit queue times out", KERNEL_CAUSES, "what_kernels_said_of_broken_hardware_is_told_until_they_are_silent", &[Raised, Told, Cleared]),
        ] },
        Kind::ConntrackFull => const { &[
            proof(Recorded, "the table is full", KERNEL_CAUSES, "what_kernels_said_of_broken_hardware_is_told_until_they_are_silent", &[Raised, Told, Cleared]),
        ] },
        Kind::Overload => const { &[
            proof(Real, "busy loops on a node", MEMORY, "under_overload_the_kubelet_and_its_slice_get_more_weight", &[Raised, Mended]),
            proof(Simulated, "signals by hand", "agent/src/diagnose/load.rs", "a_burst_is_no_overload_and_what_lasts_is_until_it_is_calm", &[Raised, Cleared]),
        ] },
        Kind::ClockBehind | Kind::ClockJumped => const { &[
            proof(Simulated, "a clock of the test's own falls back by a year", CLOCKS, "a_clock_that_falls_back_is_told_and_so_is_its_return", &[Raised, Told, Cleared]),
        ] },
        Kind::ClockUnsynchronised => const { &[
            proof(Simulated, "a real node's time service does not keep the clock, of which a preloaded library tells in the kernel's place", NETWORK, KEPT_AGAIN, &[Raised, Mended, Told, Cleared]),
        ] },
        Kind::RuntimeHung => const { &[
            proof(Real, "a real dockerd is stopped (SIGSTOP)", CONTAINERS, "a_stopped_dockerd_is_hung_within_15_s_and_well_again_when_it_goes_on", &[Raised, Cleared]),
            proof(Real, "a real containerd is stopped (SIGSTOP)", CONTAINERS, "a_stopped_containerd_times_out_and_answers_again", &[Raised, Cleared]),
            proof(Real, "a real dockerd is stopped, and mended", CONTAINERS, "a_hung_dockerd_is_restarted_its_stacks_kept_and_its_containers_live_on", &[Raised, Mended]),
        ] },
        Kind::ContainerFlapping => const { &[
            proof(Real, "a container exits again and again", CONTAINERS, "containers_out_of_memory_flapping_and_unhealthy_are_told_by_name", &[Raised, Told]),
            proof(Simulated, "docker's events by hand", "agent/src/diagnose/containers/tests.rs", "five_restarts_in_ten_minutes_flap_until_there_was_none_for_ten", &[Raised, Cleared]),
        ] },
        Kind::ContainerOomKilled => const { &[
            proof(Real, "a container runs out of its memory", CONTAINERS, "containers_out_of_memory_flapping_and_unhealthy_are_told_by_name", &[Raised, Told]),
            proof(Simulated, "docker's events by hand", "agent/src/diagnose/containers/tests.rs", "a_kill_for_memory_hides_the_death_that_it_is_and_both_are_told_for_a_while", &[Raised, Cleared]),
        ] },
        Kind::ContainerDied => const { &[
            proof(Real, "a container exits with an error", CONTAINERS, "containers_out_of_memory_flapping_and_unhealthy_are_told_by_name", &[Raised, Told]),
            proof(Simulated, "docker's events by hand", "agent/src/diagnose/containers/tests.rs", "a_kill_for_memory_hides_the_death_that_it_is_and_both_are_told_for_a_while", &[Raised, Cleared]),
        ] },
        Kind::ContainerUnhealthy => const { &[
            proof(Real, "a container fails its own health check", CONTAINERS, "containers_out_of_memory_flapping_and_unhealthy_are_told_by_name", &[Raised, Told, Cleared]),
            proof(Real, "the same, of a container that may be restarted", CONTAINERS, "an_unhealthy_container_is_restarted_where_it_may_be_and_has_to_be_healthy_then", &[Raised, Mended]),
        ] },
        Kind::CertificateExpiring | Kind::CertificateExpired => const { &[
            proof(Real, "real certificates in real files; the day is the test's", CERTIFICATES, "a_certificate_that_expires_is_told_until_its_file_is_renewed", &[Raised, Told, Cleared]),
        ] },
        Kind::RemedyExhausted => const { &[
            proof(Real, "the kubelet refuses to start", UNITS, "a_kubelet_that_refuses_to_start_spends_its_budget_and_is_reported", &[Raised, Told]),
            proof(Simulated, "a unit of a simulated node that refuses to start", REPAIRS, "a_spent_ladder_is_told_and_left_alone_until_somebody_mends_the_unit", &[Raised, Told, Cleared]),
        ] },
        Kind::LedgerUnwritable => const { &[
            proof(Real, "the ledger's file system is full; the units are simulated", REPAIRS, "without_a_ledger_units_wait_and_the_agent_says_so", &[Raised, Told, Cleared]),
        ] },
        Kind::InodePressure => const { &[
            proof(Real, "files without end", DISKS, "a_disk_without_inodes_is_told_with_all_its_space_left", &[Raised, Cleared]),
            proof(Simulated, "signals by hand", "agent/src/decide/tests/disks.rs", "inodes_are_freed_where_the_files_are", &[Told]),
        ] },
        Kind::DiskFilling => const { &[
            proof(Simulated, "signals by hand", "agent/src/diagnose/disk.rs", "a_disk_that_fills_fast_is_raised_long_before_it_is_full", &[Raised, Told]),
            proof(Simulated, "signals by hand", "agent/src/diagnose/disk.rs", "each_shortage_has_a_condition_of_its_own", &[Raised, Cleared]),
        ] },
        Kind::ControlPlaneComponentDown => const { &[
            proof(Real, "etcd's stand-in is stopped (SIGSTOP)", PODS, "a_component_that_hangs_is_bounced_and_what_is_wrong_with_other_manifests_is_told", &[Raised, Mended, Cleared]),
        ] },
        Kind::StaticPodManifestMissing => const { &[
            proof(Real, "`rm` of a manifest", PODS, "a_component_that_hangs_is_bounced_and_what_is_wrong_with_other_manifests_is_told", &[Raised, Told]),
            proof(Simulated, "signals by hand", "agent/src/diagnose/static_pods/tests.rs", "a_missing_manifest_is_told_at_once_and_one_that_is_out_only_when_it_stays_out", &[Raised, Cleared]),
        ] },
        Kind::StaticPodManifestInvalid => const { &[
            proof(Real, "a file that is cut short", PODS, "a_component_that_hangs_is_bounced_and_what_is_wrong_with_other_manifests_is_told", &[Raised, Told]),
            proof(Simulated, "signals by hand", "agent/src/diagnose/static_pods/tests.rs", "a_missing_manifest_is_told_at_once_and_one_that_is_out_only_when_it_stays_out", &[Raised, Cleared]),
        ] },
        Kind::MemoryLeak => const { &[
            proof(Real, "a process that only grows; the hours are simulated", "agent/tests/cgroups.rs", "a_unit_that_only_ever_grows_is_told_as_a_leak_until_it_is_restarted", &[Raised, Told, Cleared]),
        ] },
        Kind::UnitFlapping => const { &[
            proof(Real, "a unit dies at every start", STATES, "a_crash_loop_is_told_a_start_limit_is_mended_and_a_masked_unit_is_left_alone", &[Raised, Mended, Told, Cleared]),
        ] },
        Kind::UnitMasked => const { &[
            proof(Real, "`systemctl mask --now`", STATES, "a_crash_loop_is_told_a_start_limit_is_mended_and_a_masked_unit_is_left_alone", &[Raised, Told, Cleared]),
        ] },
        Kind::UnitJobHung => const { &[
            proof(Real, "a start that never ends", STATES, "a_start_that_never_ends_is_killed_and_made_again", &[Raised, Mended, Cleared]),
        ] },
        Kind::KubeletPlegUnhealthy => const { &[
            proof(Real, "the kubelet writes it into the journal", STATES, "what_the_kubelet_says_in_its_journal_is_told_then_mended", &[Raised, Told, Mended, Cleared]),
        ] },
        Kind::NetworkIsolated => const { &[
            proof(Real, "routes and links are taken away in a network namespace", "agent/tests/network.rs", "a_way_out_that_is_cut_is_told_by_the_kernels_events_and_so_is_its_return", &[Raised, Told, Cleared]),
            proof(Real, "a node's link is set down", NETWORK, "a_node_that_is_cut_off_says_so_and_restarts_nothing_and_a_missing_cni_configuration_comes_back", &[Raised, Told, Cleared]),
        ] },
        Kind::CniMissing => const { &[
            proof(Real, "the configuration is cut to nothing", NETWORK, "a_node_that_is_cut_off_says_so_and_restarts_nothing_and_a_missing_cni_configuration_comes_back", &[Raised, Mended, Cleared]),
        ] },
        Kind::DnsFailing => const { &[
            proof(Real, "a name server forgets the name, then dies", "agent/tests/network.rs", "a_name_that_no_server_knows_is_told_until_one_does", &[Raised, Told, Cleared]),
        ] },
        Kind::RtcBehind => const { &[
            proof(Simulated, "a file in place of the clock's begins at 2000", "agent/src/watch/clock.rs", "a_machine_whose_battery_died_is_behind_the_floor_though_the_wall_clock_was_put_right", &[Raised, Told, Cleared]),
        ] },
    }
}

#[rustfmt::skip]
pub(super) fn of_remedy(remedy: &Remedy) -> &'static [Proof] {
    use Cause::{Real, Simulated};
    match remedy {
        Remedy::RestartUnit { .. } => const { &[
            proof(Real, "the kubelet is killed", UNITS, "a_killed_kubelet_is_restarted", &[]),
            proof(Real, "a time service that does not keep the clock, by the unprivileged agent", NETWORK, KEPT_AGAIN, &[]),
            proof(Real, "systemd and the bus are restarted between", UNITS, "repairs_go_on_after_systemd_and_the_bus_were_restarted", &[]),
        ] },
        Remedy::KillRestartUnit { .. } => const { &[
            proof(Real, "the kubelet hangs", UNITS, "a_hung_kubelet_is_killed_and_restarted_within_20_seconds", &[]),
            proof(Real, "containerd and docker die together; shims live on", STATES, "units_that_fail_together_come_back_in_order_and_a_kill_leaves_the_shims_alone", &[]),
        ] },
        Remedy::ReclaimLog { .. } => const { &[
            proof(Real, "a log that is appended to", "agent/tests/reclaim.rs", "a_log_that_is_appended_to_is_collapsed_under_its_writer", &[]),
            proof(Real, "a log that is written at offsets", "agent/tests/reclaim.rs", "a_log_that_is_written_at_offsets_is_punched_under_its_writer", &[]),
            proof(Real, "a node's logs outgrow its disk", "tests/tests/logs.rs", "a_log_that_is_written_at_offsets", &[]),
        ] },
        Remedy::RestartRuntime { .. } => const { &[
            proof(Real, "a real dockerd is stopped", CONTAINERS, "a_hung_dockerd_is_restarted_its_stacks_kept_and_its_containers_live_on", &[]),
        ] },
        Remedy::Prune { .. } => const { &[
            proof(Real, "a real dockerd's images", "agent/tests/prune.rs", "only_as_much_goes_as_the_disk_needs_and_what_is_protected_or_used_stays", &[]),
        ] },
        Remedy::VacuumJournal { .. } => const { &[
            proof(Real, "a real journald's archived files", "agent/tests/journal.rs", "archived_files_of_a_real_journald_go_oldest_first_and_it_writes_on", &[]),
        ] },
        Remedy::RestartContainer { .. } => const { &[
            proof(Real, "a container fails its health check", CONTAINERS, "an_unhealthy_container_is_restarted_where_it_may_be_and_has_to_be_healthy_then", &[]),
        ] },
        Remedy::BounceStaticPod { .. } => const { &[
            proof(Real, "a component hangs on a node", PODS, "a_component_that_hangs_is_bounced_and_what_is_wrong_with_other_manifests_is_told", &[]),
            proof(Real, "the agent dies in the middle", PODS, "an_agent_that_dies_while_a_manifest_is_out_puts_it_back_when_it_comes_again", &[]),
        ] },
        Remedy::RelieveMemory { .. } => const { &[
            proof(Real, "a unit takes half of a node's memory", MEMORY, RELIEVED, &[]),
        ] },
        Remedy::ProtectUnits => const { &[
            proof(Real, "busy loops on a node", MEMORY, "under_overload_the_kubelet_and_its_slice_get_more_weight", &[]),
        ] },
        Remedy::ReleaseKubelet { .. } => const { &[
            proof(Real, "nodes lose their power and come back", "tests/tests/power_loss.rs", "masters_come_back_first_and_workers_after_the_control_plane", &[]),
        ] },
        Remedy::HoldManifest { .. } => const { &[
            proof(Real, "masters lose their power and come back", ASIDE, "a_controller_manager_is_set_aside_until_the_kubelets_run", &[]),
        ] },
        Remedy::ReleaseManifest { .. } => const { &[
            proof(Real, "masters lose their power and come back", ASIDE, "a_controller_manager_is_set_aside_until_the_kubelets_run", &[]),
            proof(Real, "the coordinator never returns", ASIDE, "without_a_coordinator_what_was_set_aside_comes_back_by_itself", &[]),
        ] },
        Remedy::StopKubelet { .. } | Remedy::StartKubelet { .. } => const { &[
            proof(Simulated, "commands by hand", "agent/src/run/tests/orders.rs", "a_kubelet_is_stopped_and_started_by_the_coordinators_word_while_its_node_is_silenced", &[]),
        ] },
        Remedy::ControlPlane(_) => const { &[
            proof(Real, "an API server that hangs, one of an expired certificate, and one without a manifest", "cli/tests/master_drills.rs", "a_hung_api_server_is_bounced_and_what_a_bounce_does_not_mend_is_named", &[]),
        ] },
        Remedy::Etcd(_) => const { &[
            proof(Real, "snapshots of three members", "cli/tests/etcd/snapshots.rs", "snapshots_are_verified_kept_on_two_masters_and_restored_by_etcds_own_tool", &[]),
            proof(Real, "a member whose database is damaged, while others write", "cli/tests/etcd/member.rs", "a_damaged_member_is_replaced_on_its_node_and_nothing_acknowledged_is_lost", &[]),
            proof(Real, "coordinator and agents are killed again and again meanwhile", "cli/tests/etcd/member.rs", "coordinator_and_agents_may_crash_at_every_step", &[]),
            proof(Real, "two of three members are lost", "cli/tests/etcd/quorum.rs", "a_lost_quorum_is_restored_by_two_persons_and_grows_back_to_three", &[]),
            proof(Real, "two of three members are lost over a power loss", "cli/tests/etcd/outage.rs", "a_cold_start_without_a_quorum_proposes_a_restore_and_two_persons_let_it_be_done", &[]),
            proof(Real, "every database is destroyed, and later every log torn", "cli/tests/etcd/all.rs", "when_all_are_lost_what_loses_least_is_restored_and_what_was_told_is_lost", &[]),
            proof(Simulated, "the agent is killed after every step of a restore", "agent/src/etcd/restore/tests.rs", "a_restore_that_is_killed_after_any_step_goes_on_and_never_lacks_the_newest_data", &[]),
        ] },
    }
}

/// One of each remedy.
pub(super) fn remedies() -> [Remedy; 17] {
    let log = crate::signal::LogId {
        dev: 0,
        ino: 0,
        path: "/".into(),
        deleted: false,
    };
    let name = String::new;
    [
        Remedy::RestartUnit { unit: name() },
        Remedy::KillRestartUnit { unit: name() },
        Remedy::ReclaimLog { log },
        Remedy::RestartRuntime { unit: name() },
        Remedy::Prune {
            mount_point: "/".into(),
        },
        Remedy::VacuumJournal {
            mount_point: "/".into(),
        },
        Remedy::RestartContainer { name: name() },
        Remedy::BounceStaticPod { pod: name() },
        Remedy::RelieveMemory { unit: name() },
        Remedy::ProtectUnits,
        Remedy::ReleaseKubelet { run_id: name() },
        Remedy::HoldManifest {
            component: Component::ControllerManager,
            run_id: name(),
            reason: name(),
        },
        Remedy::ReleaseManifest {
            component: Component::ControllerManager,
        },
        Remedy::StopKubelet { run_id: name() },
        Remedy::StartKubelet { run_id: name() },
        Remedy::Etcd(Change {
            run_id: name(),
            cluster_id: 0,
            act: Act::TakeSnapshot,
        }),
        Remedy::ControlPlane(control_plane::Change {
            run_id: name(),
            part: Part::ApiServer,
            act: control_plane::Act::Bounce,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn text(file: &str) -> String {
        let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn is_there(proof: &Proof) {
        let text = text(proof.file);
        let at = text.find(&format!("fn {}(", proof.test));
        let at = at.unwrap_or_else(|| panic!("{} has no test {}", proof.file, proof.test));
        let before = text[..at].trim_end_matches("async ").trim_end();
        let attribute = before.rsplit('\n').next().unwrap_or_default().trim();
        assert!(
            attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test"),
            "{} is no test: {attribute}",
            proof.test
        );
    }

    #[test]
    fn every_condition_is_shown_raised_told_or_mended_and_cleared() {
        for kind in Kind::ALL {
            let proofs = of(kind);
            proofs.iter().for_each(is_there);
            let shown: BTreeSet<_> = proofs.iter().flat_map(|proof| proof.shows).collect();
            assert!(shown.contains(&Shows::Raised), "{kind} is never raised");
            assert!(
                shown.contains(&Shows::Told) || shown.contains(&Shows::Mended),
                "{kind} is neither told nor mended"
            );
            assert!(shown.contains(&Shows::Cleared), "{kind} is never cleared");
        }
    }

    #[test]
    fn every_remedy_is_shown_at_work() {
        let source = text("agent/src/remedy/mod.rs");
        let variants = source.split_once("pub enum Remedy {\n").unwrap().1;
        let variants = variants.split_once("\n}\n").unwrap().0.lines();
        let variant = |line: &&str| {
            let name = line.strip_prefix("    ");
            name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_uppercase()))
        };
        let known = remedies();
        let told: BTreeSet<_> = known.iter().map(Remedy::name).collect();
        assert_eq!(
            told.len(),
            variants.filter(variant).count(),
            "one is missing here"
        );
        for remedy in &known {
            assert!(!of_remedy(remedy).is_empty());
            of_remedy(remedy).iter().for_each(is_there);
        }
    }
}

//! One scrape.

use std::fmt;

use blackstart_proto::metrics::{Page, count};
use tokio::time::Instant;

use super::Meters;
use crate::condition::ConditionKind;
use crate::gate::{self, GateState};
use crate::local::window::{Window, state};
use crate::signal::DiskSignal;

/// Everything there is to tell, in the text format of `OpenMetrics`. Takes the ledger's lock: for a thread that may block.
pub(super) fn page(meters: &Meters, window: &Window) -> Result<String, fmt::Error> {
    let mut page = Drawn(Page::new("blackstart_agent"));
    page.counts(meters);
    page.node(window);
    page.conditions(window);
    page.units(window);
    page.disks(window);
    page.0.text()
}

struct Drawn(Page);

impl Drawn {
    fn counts(&mut self, meters: &Meters) {
        let help = "Signals of the watchers";
        self.0.counted("signals", help, meters.signals.clone());
        let help = "Remedies that were carried out since the agent's start";
        self.0.counted("remedies", help, meters.remedies.clone());
        let help = "Seconds that a pass of the agent's loop took";
        self.0.counted("pass_seconds", help, meters.passes.clone());
    }

    fn node(&mut self, window: &Window) {
        let settings = window.settings();
        let picture = window.picture();
        let info = [
            ("node", settings.node.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        self.0.family("info", "The agent, always 1", [(info, 1)]);
        self.0
            .gauge("dry_run", "1: nothing is changed", settings.dry_run.into());
        let gate = gate::status(&settings.runtime_dir).state;
        let states = [
            ("absent", GateState::Absent),
            ("held", GateState::Held),
            ("released", GateState::Released),
            ("passed", GateState::Passed),
            ("dead-man", GateState::DeadMan),
        ];
        self.0.family(
            "gate_state",
            "1 for the state of the boot gate",
            states.map(|(name, state)| ([("state", name.to_owned())], i64::from(state == gate))),
        );
        if window.link.is_some() {
            let up = window.link_up().into();
            self.0.gauge("link_up", "1: in session with the coordinator", up);
        }
        let seen = &picture.attestation;
        let healthy = seen.kubelet_healthy.into();
        self.0.gauge("kubelet_healthy", "1: the kubelet answers", healthy);
        if settings.api_server.is_some() {
            let ready = seen.apiserver_ready.into();
            self.0
                .gauge("apiserver_ready", "1: the API server of this node answers", ready);
        }
        let budgets = window.budgets(Instant::now()).into_iter().map(|budget| {
            let labels = [("subject", budget.subject), ("remedy", budget.remedy)];
            (labels, budget.left.into())
        });
        self.0.family(
            "budget_left",
            "Attempts that are left of a remedy's budget",
            budgets,
        );
    }

    /// Also the kinds of which none stands, so that an alert has something to look at.
    fn conditions(&mut self, window: &Window) {
        let picture = window.picture();
        let standing = ConditionKind::ALL.map(|kind| {
            let of_kind = picture
                .conditions
                .iter()
                .filter(|condition| condition.key.kind == kind);
            ([("kind", kind.as_str().to_owned())], count(of_kind.count()))
        });
        self.0.family("conditions", "Conditions that stand", standing);
    }

    fn units(&mut self, window: &Window) {
        let picture = window.picture();
        let states = picture.units.iter().map(|unit| {
            let labels = [
                ("unit", unit.unit.clone()),
                ("state", state(unit.active).to_owned()),
            ];
            (labels, 1)
        });
        self.0
            .family("unit_state", "1 for the state of a watched unit", states);
    }

    fn disks(&mut self, window: &Window) {
        let picture = window.picture();
        let mut each = |name, help, value: fn(&DiskSignal) -> u64| {
            let values = picture.disks.iter().map(|disk| {
                let labels = [("mount_point", disk.mount_point.display().to_string())];
                (labels, i64::try_from(value(disk)).unwrap_or(i64::MAX))
            });
            self.0.family(name, help, values);
        };
        each("disk_size_bytes", "Size of a watched file system", |disk| {
            disk.bytes_total
        });
        each(
            "disk_available_bytes",
            "Bytes that may still be written",
            |disk| disk.bytes_available,
        );
        each("disk_inodes", "Inodes of a watched file system", |disk| {
            disk.inodes_total
        });
        each("disk_inodes_free", "Inodes that are free", |disk| {
            disk.inodes_free
        });
    }
}

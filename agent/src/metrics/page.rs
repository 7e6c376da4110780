//! One scrape.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{Labels, Meters};
use crate::condition::ConditionKind;
use crate::gate::{self, GateState};
use crate::local::window::{Window, state};
use crate::signal::DiskSignal;

/// Everything there is to tell, in the text format of `OpenMetrics`. Takes the ledger's lock: for a thread that may block.
pub(super) fn page(meters: &Meters, window: &Window) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("blackstart_agent");
    let mut page = Page(&mut registry);
    page.counts(meters);
    page.node(window);
    page.conditions(window);
    page.units(window);
    page.disks(window);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

struct Page<'a>(&'a mut Registry);

impl Page<'_> {
    fn counts(&mut self, meters: &Meters) {
        let help = "Signals of the watchers";
        self.0.register("signals", help, meters.signals.clone());
        let help = "Remedies that were carried out since the agent's start";
        self.0.register("remedies", help, meters.remedies.clone());
        let help = "Seconds that a pass of the agent's loop took";
        self.0.register("pass_seconds", help, meters.passes.clone());
    }

    fn node(&mut self, window: &Window) {
        let settings = window.settings();
        let picture = window.picture();
        let info = [
            ("node", settings.node.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        self.family("info", "The agent, always 1", [(info, 1)]);
        self.gauge("dry_run", "1: nothing is changed", settings.dry_run.into());
        let gate = gate::status(&settings.runtime_dir).state;
        let states = [
            ("absent", GateState::Absent),
            ("held", GateState::Held),
            ("released", GateState::Released),
            ("passed", GateState::Passed),
            ("dead-man", GateState::DeadMan),
        ];
        self.family(
            "gate_state",
            "1 for the state of the boot gate",
            states.map(|(name, state)| ([("state", name.to_owned())], i64::from(state == gate))),
        );
        if window.link.is_some() {
            let up = window.link_up().into();
            self.gauge("link_up", "1: in session with the coordinator", up);
        }
        let seen = &picture.attestation;
        let healthy = seen.kubelet_healthy.into();
        self.gauge("kubelet_healthy", "1: the kubelet answers", healthy);
        if settings.api_server.is_some() {
            let ready = seen.apiserver_ready.into();
            self.gauge("apiserver_ready", "1: the API server of this node answers", ready);
        }
        let budgets = window.budgets(Instant::now()).into_iter().map(|budget| {
            let labels = [("subject", budget.subject), ("remedy", budget.remedy)];
            (labels, budget.left.into())
        });
        self.family(
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
        self.family("conditions", "Conditions that stand", standing);
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
        self.family("unit_state", "1 for the state of a watched unit", states);
    }

    fn disks(&mut self, window: &Window) {
        let picture = window.picture();
        let mut each = |name, help, value: fn(&DiskSignal) -> u64| {
            let values = picture.disks.iter().map(|disk| {
                let labels = [("mount_point", disk.mount_point.display().to_string())];
                (labels, i64::try_from(value(disk)).unwrap_or(i64::MAX))
            });
            self.family(name, help, values);
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

    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<N>, i64)>,
    ) where
        Labels<N>: EncodeLabelSet,
    {
        let family = Family::<Labels<N>, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

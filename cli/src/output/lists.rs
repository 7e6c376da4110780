//! The tables of `get`.

use jiff::Timestamp;

use super::Change;
use super::table::{Cell, Line, Table, Tint};
use super::words::{age, age_at, took};
use crate::view::{
    Certificate, Cluster, Condition, Coordinator, Hold, Node, NodePhase, Permit, PermitState, Ready, Remedy,
    RemedyOutcome, Resource, Run, RunState, Severity, Storm,
};

/// A resource with columns.
pub(crate) trait Listed: Resource {
    /// As people call many.
    const PLURAL: &'static str;
    /// Names of the columns.
    fn header(wide: bool) -> Vec<&'static str>;
    /// One row.
    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell>;
}

pub(crate) fn table<R: Listed>(items: &[R], wide: bool, now: Timestamp) -> Table {
    let mut table = Table::new(R::header(wide));
    for item in items {
        table.row(item.row(wide, now));
    }
    table
}

/// The tables of `get --watch`: rows are appended as things change, under the columns of the first ones.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    widths: Vec<u16>,
}

impl Appended {
    pub(crate) fn lines<R: Listed>(
        &mut self,
        changes: &[(Change, R)],
        wide: bool,
        now: Timestamp,
    ) -> Vec<Line> {
        let mut header = R::header(wide);
        header.insert(0, "EVENT");
        let mut table = Table::new(header).at_least(self.widths.clone());
        for (change, item) in changes {
            let tint = if *change == Change::Gone {
                Tint::Dim
            } else {
                Tint::Plain
            };
            let mut row = item.row(wide, now);
            row.insert(0, Cell::tinted(change.word(), tint));
            table.row(row);
        }
        let first = self.widths.is_empty();
        self.widths = table.widths();
        if first { table.lines() } else { table.body() }
    }
}

fn ready(Ready { declared, ready }: Ready) -> Cell {
    let tint = if ready == declared {
        Tint::Good
    } else {
        Tint::Warning
    };
    Cell::tinted(format!("{ready}/{declared}"), tint)
}

/// Zero is what one wants to see.
fn unwanted(number: u32, tint: Tint) -> Cell {
    Cell::tinted(number.to_string(), if number == 0 { Tint::Plain } else { tint })
}

fn optional(text: Option<&String>) -> Cell {
    Cell::new(text.map_or("-", String::as_str))
}

pub(crate) const fn phase_tint(phase: NodePhase) -> Tint {
    match phase {
        NodePhase::Ready => Tint::Good,
        NodePhase::Held => Tint::Warning,
        NodePhase::NotReady | NodePhase::Silent => Tint::Bad,
        NodePhase::Unknown | NodePhase::Stopped => Tint::Dim,
    }
}

pub(crate) const fn severity_tint(severity: Severity) -> Tint {
    match severity {
        Severity::Unknown | Severity::Info => Tint::Plain,
        Severity::Warning => Tint::Warning,
        Severity::Critical => Tint::Bad,
    }
}

pub(crate) const fn outcome_tint(outcome: RemedyOutcome) -> Tint {
    match outcome {
        RemedyOutcome::Unknown | RemedyOutcome::Started => Tint::Plain,
        RemedyOutcome::Succeeded => Tint::Good,
        RemedyOutcome::Failed => Tint::Bad,
    }
}

pub(crate) const fn run_tint(state: RunState) -> Tint {
    match state {
        RunState::Unknown | RunState::Running => Tint::Plain,
        RunState::Paused | RunState::Undoing => Tint::Warning,
        RunState::Halted | RunState::Aborted => Tint::Bad,
        RunState::Succeeded => Tint::Good,
    }
}

impl Listed for Coordinator {
    const PLURAL: &'static str = "coordinators";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec!["NAME", "ROLE", "ADDRESSES", "VERSION"]
    }

    fn row(&self, _wide: bool, _now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            if self.leads {
                Cell::tinted("Leader", Tint::Good)
            } else {
                Cell::new("Follower")
            },
            Cell::new(self.addresses.join(",")),
            Cell::new(&self.version),
        ]
    }
}

impl Listed for Cluster {
    const PLURAL: &'static str = "clusters";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec![
            "NAME",
            "CONTROL PLANES",
            "WORKERS",
            "HELD",
            "SILENT",
            "CONDITIONS",
            "AFTER",
        ]
    }

    fn row(&self, _wide: bool, _now: Timestamp) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            ready(self.control_planes),
            ready(self.workers),
            unwanted(self.held, Tint::Warning),
            unwanted(self.silent, Tint::Bad),
            unwanted(self.conditions, Tint::Warning),
            self.after.join(",").into(),
        ]
    }
}

impl Listed for Node {
    const PLURAL: &'static str = "nodes";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "CLUSTER", "ROLE", "PHASE", "AGE", "CONDITIONS"];
        if wide {
            header.extend(["ADDRESS", "RACK", "AGENT", "BOOT"]);
        }
        header.push("WAITING ON");
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let heard_of = self.phase != NodePhase::Unknown;
        let mut row = vec![
            self.name.as_str().into(),
            self.cluster.as_str().into(),
            self.role.word().into(),
            Cell::tinted(self.phase.word(), phase_tint(self.phase)),
            if heard_of {
                age(self.phase_age_ms)
            } else {
                String::new()
            }
            .into(),
            unwanted(self.conditions, Tint::Warning),
        ];
        if wide {
            // Eight of a boot id tell boots apart for people; `describe` and JSON have it whole.
            let boot: Option<String> = self.boot_id.as_ref().map(|id| id.chars().take(8).collect());
            row.extend([
                self.address.as_str().into(),
                optional(self.rack.as_ref()),
                optional(self.agent_version.as_ref()),
                optional(boot.as_ref()),
            ]);
        }
        row.push(optional(self.waiting_on.as_ref()));
        row
    }
}

impl Listed for Condition {
    const PLURAL: &'static str = "conditions";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NODE"];
        if wide {
            header.push("CLUSTER");
        }
        header.extend(["CONDITION", "SUBJECT", "SEVERITY", "AGE", "ESCALATED", "EVIDENCE"]);
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let mut row = vec![self.node.as_str().into()];
        if wide {
            row.push(self.cluster.as_str().into());
        }
        row.extend([
            self.kind.as_str().into(),
            self.subject.as_str().into(),
            Cell::tinted(self.severity.word(), severity_tint(self.severity)),
            age(self.standing_ms).into(),
            if self.escalated {
                Cell::tinted("yes", Tint::Bad)
            } else {
                "no".into()
            },
            self.evidence.as_str().into(),
        ]);
        row
    }
}

impl Listed for Remedy {
    const PLURAL: &'static str = "remedies";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NODE"];
        if wide {
            header.extend(["CLUSTER", "NUMBER"]);
        }
        header.extend(["REMEDY", "SUBJECT", "OUTCOME", "AGE", "TOOK"]);
        if wide {
            header.push("COMMAND");
        }
        header.extend(["REASON", "DETAIL"]);
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut row = vec![self.node.as_str().into()];
        if wide {
            row.extend([self.cluster.as_str().into(), self.sequence.to_string().into()]);
        }
        let outcome = format!(
            "{}{}",
            self.outcome.word(),
            if self.dry_run { " (dry run)" } else { "" }
        );
        row.extend([
            self.remedy.as_str().into(),
            self.subject.as_str().into(),
            Cell::tinted(outcome, outcome_tint(self.outcome)),
            age_at(self.at, now).into(),
            took(self.took_ms).into(),
        ]);
        if wide {
            row.push(optional(self.command_id.as_ref()));
        }
        row.extend([self.reason.as_str().into(), optional(self.detail.as_ref())]);
        row
    }
}

impl Listed for Run {
    const PLURAL: &'static str = "runs";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec![
            "ID", "RUNBOOK", "ABOUT", "STATE", "STEPS", "RESIDUE", "TOOK", "AGE",
        ];
        if wide {
            header.push("REASON");
        }
        header.push("WAITING ON");
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let mut row = vec![
            self.id.as_str().into(),
            self.runbook.as_str().into(),
            optional(self.about.as_ref()),
            Cell::tinted(self.state.word(), run_tint(self.state)),
            format!("{}/{}", self.steps_done, self.steps_total).into(),
            unwanted(
                u32::try_from(self.residue.len()).unwrap_or(u32::MAX),
                Tint::Warning,
            ),
            took(self.elapsed_ms).into(),
            age_at(self.started_at, now).into(),
        ];
        if wide {
            row.push(self.reason.as_str().into());
        }
        let more = self.waiting_on.len().saturating_sub(1);
        let waiting = match self.waiting_on.first() {
            Some(first) if more > 0 => format!("{first} (and {more} more)"),
            Some(first) => first.clone(),
            None => String::new(),
        };
        row.push(waiting.into());
        row
    }
}

impl Listed for Hold {
    const PLURAL: &'static str = "holds";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec!["SCOPE", "TARGET", "HELD", "BY", "AGE", "ENDS IN", "REASON"]
    }

    fn row(&self, _wide: bool, now: Timestamp) -> Vec<Cell> {
        vec![
            self.scope.into(),
            optional(self.target.as_ref()),
            self.what().into(),
            self.by.as_str().into(),
            age_at(self.made_at, now).into(),
            self.ends_in_ms.map_or_else(|| "-".to_owned(), age).into(),
            self.reason.as_str().into(),
        ]
    }
}

impl Listed for Storm {
    const PLURAL: &'static str = "storms";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec!["CLUSTER", "CONDITION", "FROZEN FOR", "AT", "NOW", "EVIDENCE"]
    }

    fn row(&self, _wide: bool, _now: Timestamp) -> Vec<Cell> {
        vec![
            self.cluster.as_str().into(),
            Cell::tinted(self.condition.as_str(), Tint::Bad),
            age(self.frozen_ms).into(),
            self.threshold.to_string().into(),
            self.standing.to_string().into(),
            self.evidence.as_str().into(),
        ]
    }
}

impl Listed for Permit {
    const PLURAL: &'static str = "permits";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NODE", "PERMIT", "SUBJECT", "STATE", "AGE"];
        if wide {
            header.extend(["CLUSTER", "LANE", "TERM LEFT", "ASKED BY", "EPOCH", "REASON"]);
        }
        header.push("WAITING ON");
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let tint = match self.state {
            PermitState::Granted => Tint::Plain,
            PermitState::Waiting => Tint::Warning,
        };
        let mut row = vec![
            self.node.as_str().into(),
            self.what.as_str().into(),
            self.subject.as_str().into(),
            Cell::tinted(self.state.word(), tint),
            age(self.age_ms).into(),
        ];
        if wide {
            row.extend([
                optional(self.cluster.as_ref()),
                optional(self.lane.as_ref()),
                self.term_left_ms.map_or_else(|| "-".to_owned(), age).into(),
                self.asked_by.as_str().into(),
                self.epoch
                    .map_or_else(|| "-".to_owned(), |epoch| epoch.to_string())
                    .into(),
                self.reason.as_str().into(),
            ]);
        }
        row.push(Cell::new(self.waiting_on.as_deref().unwrap_or_default()));
        row
    }
}

/// A certificate that ends within so many days is to be seen to.
const ENDS_SOON: i64 = 30;

impl Listed for Certificate {
    const PLURAL: &'static str = "certificates";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NAME", "ROLE", "ENDS", "DAYS LEFT", "AUTHORITY"];
        if wide {
            header.extend(["BEGINS", "KEY"]);
        }
        header.push("FILE");
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
        let left = self.ends_at.duration_since(now).as_hours().div_euclid(24);
        let tint = match left {
            ..0 => Tint::Bad,
            0..ENDS_SOON => Tint::Warning,
            ENDS_SOON.. => Tint::Plain,
        };
        let mut row = vec![
            optional(self.name.as_ref()),
            Cell::new(self.role.unwrap_or_default()),
            day(self.ends_at).into(),
            Cell::tinted(left.to_string(), tint),
            self.authority.as_str().into(),
        ];
        if wide {
            let key = if self.key_file.is_some() { "yes" } else { "no" };
            row.extend([day(self.begins_at).into(), key.into()]);
        }
        row.push(self.file.as_str().into());
        row
    }
}

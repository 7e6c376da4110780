//! Everything of one node or run.

use jiff::Timestamp;

use super::lists::{outcome_tint, phase_tint, run_tint, severity_tint};
use super::progress::lane as lane_line;
use super::progress::step_tint;
use super::table::{Cell, Line, Table, Tint};
use super::words::{age, age_at, bytes, percent_used, took};
use crate::view::{Condition, Node, NodeDetail, NodePhase, Role, RunDetail, StepState};

/// Where values stand.
const INDENT: usize = 19;

fn field(name: &str, value: impl AsRef<str>) -> Line {
    tinted(name, value, Tint::Plain)
}

fn tinted(name: &str, value: impl AsRef<str>, tint: Tint) -> Line {
    let value = if value.as_ref().is_empty() {
        "-"
    } else {
        value.as_ref()
    };
    Line::tinted(format!("{name}:"), Tint::Bold)
        .and(
            " ".repeat(INDENT.saturating_sub(name.chars().count() + 1)),
            Tint::Plain,
        )
        .and(value.trim_end(), tint)
}

fn optional(value: Option<&String>) -> &str {
    value.map_or("-", String::as_str)
}

/// A heading with a table below, or with what to say when there is none.
fn section(lines: &mut Vec<Line>, name: &str, table: Option<&Table>, nothing: &str) {
    match table {
        Some(table) => {
            lines.push(Line::tinted(format!("{name}:"), Tint::Bold));
            lines.extend(table.lines().into_iter().map(|line| line.indented(2)));
        }
        None => lines.push(field(name, nothing)),
    }
}

pub(crate) fn node(detail: &NodeDetail, now: Timestamp) -> Vec<Line> {
    let NodeDetail { node, .. } = detail;
    let mut lines = identity(node);
    lines.push(match detail.last_heard_ms {
        Some(ms) => field("Last heard", format!("{} ago", age(ms))),
        None => field("Last heard", "never"),
    });
    if let Some(waiting) = &node.waiting_on {
        lines.push(tinted("Waiting on", waiting, Tint::Warning));
    }
    lines.extend(brakes(detail));
    lines.push(field("Agent", optional(node.agent_version.as_ref())));
    if let Some(boot) = &detail.boot {
        lines.push(field("Boot", format!("{} (nonce {})", boot.boot_id, boot.nonce)));
        lines.push(field("Boot before ended", boot.previous_shutdown.sentence()));
    }
    lines.push(field("Highest epoch", detail.highest_epoch.to_string()));
    lines.extend(attested(detail));
    lines.extend(findings(detail));
    lines.extend(machine(detail));
    lines.extend(remedies(detail, now));
    lines
}

fn brakes(detail: &NodeDetail) -> Vec<Line> {
    let holds = detail.holds.iter().map(|hold| {
        let name = if hold.silence { "Silenced" } else { "Held" };
        let ends = hold
            .ends_in_ms
            .map_or_else(String::new, |ms| format!("; ends in {}", age(ms)));
        let text = format!(
            "{} ({}) by {}: {}{ends}",
            hold.what(),
            hold.scope,
            hold.by,
            hold.reason
        );
        tinted(name, text, Tint::Warning)
    });
    let freezes = detail.freezes.iter().map(|freeze| {
        let text = format!("{}: {}", freeze.condition, freeze.why);
        tinted("Frozen", text, Tint::Bad)
    });
    holds.chain(freezes).collect()
}

fn identity(node: &Node) -> Vec<Line> {
    let phase = match node.phase {
        NodePhase::Unknown => "Unknown: declared, never heard of".to_owned(),
        NodePhase::Ready | NodePhase::NotReady | NodePhase::Held | NodePhase::Silent | NodePhase::Stopped => {
            format!("{} for {}", node.phase.word(), age(node.phase_age_ms))
        }
    };
    vec![
        field("Name", &node.name),
        field("Cluster", &node.cluster),
        field("Role", node.role.word()),
        field("Address", &node.address),
        field("Rack", optional(node.rack.as_ref())),
        tinted("Phase", phase, phase_tint(node.phase)),
    ]
}

fn attested(detail: &NodeDetail) -> Vec<Line> {
    let Some(attested) = &detail.attestation else {
        return vec![field("Attested", "nothing")];
    };
    let yes_no = |yes: bool| {
        if yes {
            ("yes", Tint::Good)
        } else {
            ("no", Tint::Bad)
        }
    };
    let mut lines = vec![
        Line::tinted("Attested:", Tint::Bold)
            .and(" ".repeat(INDENT - "Attested:".len()), Tint::Plain)
            .and(format!("{} ago", age(attested.age_ms)), Tint::Plain),
        field("  Boot gate", attested.gate.sentence()),
    ];
    let (word, tint) = yes_no(attested.kubelet_active);
    lines.push(tinted("  Kubelet active", word, tint));
    let (word, tint) = yes_no(attested.kubelet_healthy);
    lines.push(tinted("  Kubelet healthy", word, tint));
    if detail.node.role == Role::ControlPlane {
        let (word, tint) = yes_no(attested.apiserver_ready);
        let ready = if word == "yes" { "ready" } else { "not ready" };
        let answer = match (attested.apiserver_error, attested.apiserver_latency_ms) {
            (Some(error), _) => format!("{ready} ({error})"),
            (None, Some(ms)) => format!("{ready} ({ms} ms)"),
            (None, None) => ready.to_owned(),
        };
        lines.push(tinted("  API server", answer, tint));
    }
    let aside = attested
        .manifests
        .iter()
        .filter(|(_, state)| **state == "set aside");
    let aside: Vec<_> = aside.map(|(component, _)| *component).collect();
    if !aside.is_empty() {
        lines.push(tinted("  Set aside", aside.join(", "), Tint::Warning));
    }
    lines
}

/// With what it waits for.
fn evidence(condition: &Condition) -> String {
    match &condition.waiting_on {
        Some(on) => format!("{}; waits for {on}", condition.evidence),
        None => condition.evidence.clone(),
    }
}

fn findings(detail: &NodeDetail) -> Vec<Line> {
    let mut lines = Vec::new();
    let table = (!detail.standing_conditions.is_empty()).then(|| {
        let mut table = Table::new(["CONDITION", "SUBJECT", "SEVERITY", "AGE", "ESCALATED", "EVIDENCE"]);
        for condition in &detail.standing_conditions {
            table.row(vec![
                condition.kind.as_str().into(),
                condition.subject.as_str().into(),
                Cell::tinted(condition.severity.word(), severity_tint(condition.severity)),
                age(condition.standing_ms).into(),
                if condition.escalated {
                    Cell::tinted("yes", Tint::Bad)
                } else {
                    "no".into()
                },
                evidence(condition).into(),
            ]);
        }
        table
    });
    section(&mut lines, "Conditions", table.as_ref(), "none");
    lines
}

fn machine(detail: &NodeDetail) -> Vec<Line> {
    let mut lines = Vec::new();
    let units = (!detail.units.is_empty()).then(|| {
        let mut table = Table::new(["UNIT", "STATE", "RESTARTS"]);
        for unit in &detail.units {
            let tint = match unit.active_state.as_str() {
                "active" => Tint::Good,
                "failed" => Tint::Bad,
                _ => Tint::Plain,
            };
            let state = format!("{} ({})", unit.active_state, unit.sub_state);
            table.row(vec![
                unit.name.as_str().into(),
                Cell::tinted(state, tint),
                unit.restarts.to_string().into(),
            ]);
        }
        table
    });
    section(&mut lines, "Units", units.as_ref(), "none watched");
    let disks = (!detail.disks.is_empty()).then(|| {
        let mut table = Table::new(["MOUNT POINT", "SIZE", "AVAILABLE", "USED", "INODES USED"]);
        for disk in &detail.disks {
            table.row(vec![
                disk.mount_point.as_str().into(),
                bytes(disk.bytes_total).into(),
                bytes(disk.bytes_available).into(),
                percent_used(disk.bytes_total, disk.bytes_available).into(),
                percent_used(disk.inodes_total, disk.inodes_free).into(),
            ]);
        }
        table
    });
    section(&mut lines, "Disks", disks.as_ref(), "none watched");
    lines
}

fn remedies(detail: &NodeDetail, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    let table = (!detail.remedies.is_empty()).then(|| {
        let mut table = Table::new(["REMEDY", "SUBJECT", "OUTCOME", "AGE", "TOOK", "REASON", "DETAIL"]);
        for remedy in &detail.remedies {
            let outcome = format!(
                "{}{}",
                remedy.outcome.word(),
                if remedy.dry_run { " (dry run)" } else { "" }
            );
            table.row(vec![
                remedy.remedy.as_str().into(),
                remedy.subject.as_str().into(),
                Cell::tinted(outcome, outcome_tint(remedy.outcome)),
                age_at(remedy.at, now).into(),
                took(remedy.took_ms).into(),
                remedy.reason.as_str().into(),
                optional(remedy.detail.as_ref()).into(),
            ]);
        }
        table
    });
    section(&mut lines, "Remedies", table.as_ref(), "none");
    lines
}

pub(crate) fn run(detail: &RunDetail, now: Timestamp) -> Vec<Line> {
    let RunDetail {
        run,
        steps,
        notes,
        lanes,
    } = detail;
    let since = match run.started_at {
        Some(at) => format!(
            "{} ({} ago)",
            at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            age_at(Some(at), now)
        ),
        None => String::new(),
    };
    let mut lines = vec![
        field("Id", &run.id),
        field("Runbook", &run.runbook),
        tinted("State", run.state.word(), run_tint(run.state)),
        field("Begun", since),
        field("Took", took(run.elapsed_ms)),
        field("Reason", &run.reason),
        field("Steps", format!("{} of {} done", run.steps_done, run.steps_total)),
        field(
            "Residue",
            if run.residue.is_empty() {
                "none".to_owned()
            } else {
                run.residue.join(", ")
            },
        ),
    ];
    lines.extend(
        run.waiting_on
            .iter()
            .map(|waiting| tinted("Waiting on", waiting, Tint::Warning)),
    );
    lines.extend(lanes.iter().map(|lane| field("Lane", lane_line(lane))));
    lines.extend(notes.iter().map(|note| field("Note", note)));
    let table = (!steps.is_empty()).then(|| {
        let mut table = Table::new([
            "STEP",
            "STATE",
            "BEGAN",
            "TOOK",
            "TRIES",
            "WAITING ON, OR EVIDENCE",
        ]);
        for step in steps {
            let lasted = match (step.started_ms, step.ended_ms) {
                (Some(from), Some(to)) => took(to.saturating_sub(from)),
                (Some(from), None) if step.state == StepState::Started => {
                    took(run.elapsed_ms.saturating_sub(from))
                }
                (_, _) => String::new(),
            };
            let after = step
                .started_ms
                .map(|ms| format!("+{}", took(ms)))
                .unwrap_or_default();
            let said = step.waiting_on.as_ref().or(step.evidence.as_ref());
            table.row(vec![
                step.plan.id.as_str().into(),
                Cell::tinted(step.state.word(), step_tint(step.state)),
                after.into(),
                lasted.into(),
                step.attempts.to_string().into(),
                optional(said).into(),
            ]);
        }
        table
    });
    section(&mut lines, "Steps", table.as_ref(), "none");
    lines
}

//! The agent's answers for people.

use std::fmt::Write as _;

use blackstart_proto::boot::PreviousShutdown;

use super::hold::held_text;
use super::table::{one_line, rough, table};
use crate::bytes::Bytes;
use crate::gate::GateState;
use crate::local::answer::{Aside, Budget, Coordinator, Done, Lacking, NodeStatus, Standing};

pub(super) fn status_text(status: &NodeStatus) -> String {
    let mut text = String::new();
    let mut line = |head: &str, words: &str| {
        let _infallible = writeln!(text, "{head:<12} {}", one_line(words));
    };
    let dry = if status.dry_run {
        "; dry run: it changes nothing"
    } else {
        ""
    };
    line("node", &status.node);
    line(
        "agent",
        &format!(
            "{}, runs for {}{dry}",
            status.agent_version,
            rough(status.running_for_ms)
        ),
    );
    let before = match status.previous_shutdown {
        PreviousShutdown::FirstBoot => "the first that is known here",
        PreviousShutdown::Clean => "the one before it ended in order",
        PreviousShutdown::Unclean => "the one before it ended by a power loss, crash or reset",
    };
    line("boot", &format!("{}; {before}", status.boot_id));
    line("gate", &gate(status));
    line("coordinator", &coordinator(&status.coordinator));
    line("kubelet", &kubelet(status));
    if !status.waiting_on.is_empty() {
        line("waiting on", &status.waiting_on);
    }
    for aside in &status.set_aside {
        line("set aside", &aside_text(aside));
    }
    for held in &status.holds {
        line(if held.silence { "silenced" } else { "held" }, &held_text(held));
    }
    for frozen in &status.freezes {
        line(
            "frozen",
            &format!(
                "{}: {}; ends in {} unless renewed",
                frozen.condition,
                frozen.why,
                rough(frozen.ends_in_ms)
            ),
        );
    }
    let stands = match status.conditions {
        0 => "none stands".to_owned(),
        1 => "one stands: blackstart-agent conditions".to_owned(),
        count => format!("{count} stand: blackstart-agent conditions"),
    };
    line("conditions", &stands);
    let watches = &status.watches;
    let disks: Vec<_> = watches
        .disks
        .iter()
        .map(|disk| disk.display().to_string())
        .collect();
    line("watches", &format!("units: {}", watches.units.join(", ")));
    line("", &format!("endpoints: {}", watches.endpoints.join(", ")));
    line("", &format!("file systems: {}", disks.join(", ")));
    line("", &format!("logs: {}", watches.logs.join(", ")));
    if watches.machine {
        line("", "the kernel's log, memory, load, clock");
        line("", &format!("certificates: {}", watches.certificates.join(", ")));
    }
    text.push('\n');
    text += &units(status);
    text.push('\n');
    text += &disks_table(status);
    // Those of watched units stand beside them.
    let of_unit = |budget: &&Budget| {
        status.watches.units.contains(&budget.subject)
            && matches!(budget.remedy.as_str(), "restart-unit" | "kill-restart-unit")
    };
    let others: Vec<_> = status
        .budgets
        .iter()
        .filter(|budget| !of_unit(budget))
        .map(|budget| {
            [
                budget.remedy.clone(),
                one_line(&budget.subject),
                format!("{} of {}", budget.left, budget.limit),
            ]
        })
        .collect();
    if !others.is_empty() {
        text.push('\n');
        text += &table(["REMEDY", "OF", "LEFT"], &others);
    }
    text + &lacks_text(&status.lacks)
}

/// What is not possible here, in a paragraph of its own; nothing if all is.
pub(super) fn lacks_text(lacks: &[Lacking]) -> String {
    if lacks.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = lacks
        .iter()
        .map(|lack| {
            [
                one_line(&lack.function),
                one_line(&lack.missing),
                one_line(&format!("{} → {}", lack.effect, lack.mend)),
            ]
        })
        .collect();
    format!("\n{}", table(["CANNOT", "WHY", "EFFECT → WHAT TO DO"], &rows))
}

fn aside_text(aside: &Aside) -> String {
    let for_long = rough(aside.for_ms);
    format!(
        "{} for {for_long}, by run {}: {}",
        aside.component, aside.run, aside.reason
    )
}

fn gate(status: &NodeStatus) -> String {
    let gate = &status.gate;
    let state = match gate.state {
        GateState::Absent => "absent",
        GateState::Held => "held",
        GateState::Released => "released",
        GateState::Passed => "passed",
        GateState::DeadMan => "opened by its dead-man time",
    };
    let mut text = state.to_owned();
    for words in [&gate.why, &gate.waiting_on] {
        if !words.is_empty() {
            text = format!("{text}; {words}");
        }
    }
    if let Some(left) = gate.opens_by_itself_in_ms {
        text = format!("{text}; opens by itself in {}", rough(left));
    }
    text
}

fn coordinator(coordinator: &Coordinator) -> String {
    match coordinator {
        Coordinator::None => "none is configured".to_owned(),
        Coordinator::Up { address, for_ms } => {
            format!("in session with {address} for {}", rough(*for_ms))
        }
        Coordinator::Down { for_ms, trouble } => {
            format!("no session for {}: {trouble}", rough(*for_ms))
        }
    }
}

fn kubelet(status: &NodeStatus) -> String {
    let active = if status.kubelet_active {
        "active"
    } else {
        "not active"
    };
    let healthy = if status.kubelet_healthy {
        "healthy"
    } else {
        "not healthy"
    };
    let api_server = match status.apiserver_ready {
        None => "",
        Some(true) => "; API server ready",
        Some(false) => "; API server not ready",
    };
    format!("{active}, {healthy}{api_server}")
}

fn units(status: &NodeStatus) -> String {
    let left = |unit: &str, remedy: &str| {
        status
            .budgets
            .iter()
            .find(|budget| budget.subject == unit && budget.remedy == remedy)
            .map_or_else(
                || "-".to_owned(),
                |budget| format!("{} of {}", budget.left, budget.limit),
            )
    };
    let of = |name: &String| {
        let left = [left(name, "restart-unit"), left(name, "kill-restart-unit")];
        let [state, sub, pid] = match status.units.iter().find(|unit| unit.name == *name) {
            Some(unit) => [
                unit.state.clone(),
                one_line(&unit.sub),
                match unit.main_pid {
                    0 => "-".to_owned(),
                    pid => pid.to_string(),
                },
            ],
            // systemd could not be asked so far.
            None => ["not seen".to_owned(), "-".to_owned(), "-".to_owned()],
        };
        let [restarts, kills] = left;
        [name.clone(), state, sub, pid, restarts, kills]
    };
    let rows: Vec<_> = status.watches.units.iter().map(of).collect();
    table(
        ["UNIT", "STATE", "SUB", "PID", "RESTARTS LEFT", "KILLS LEFT"],
        &rows,
    )
}

fn disks_table(status: &NodeStatus) -> String {
    let rows: Vec<_> = status
        .disks
        .iter()
        .map(|disk| {
            let inodes = match disk.inodes_total {
                0 => "-".to_owned(),
                total => format!("{} of {total}", disk.inodes_free),
            };
            [
                disk.mount_point.display().to_string(),
                format!("{}%", disk.used_percent),
                Bytes(disk.bytes_available).to_string(),
                Bytes(disk.bytes_total).to_string(),
                inodes,
                disk.time_to_full_ms.map_or_else(|| "-".to_owned(), rough),
            ]
        })
        .collect();
    table(
        [
            "FILE SYSTEM",
            "USED",
            "AVAILABLE",
            "SIZE",
            "INODES FREE",
            "FULL IN",
        ],
        &rows,
    )
}

pub(super) fn conditions_text(items: &[Standing]) -> String {
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let mended = match &item.waiting_on {
                _ if item.silenced => "silenced",
                _ if item.escalated => "no",
                Some(_) => "waits",
                None => "yes",
            };
            let waits = item
                .waiting_on
                .as_ref()
                .map_or_else(String::new, |on| format!("; waits for {on}"));
            [
                item.condition.clone(),
                one_line(&item.subject),
                item.severity.clone(),
                rough(item.for_ms),
                mended.to_owned(),
                one_line(&format!("{}{waits}", item.evidence)),
            ]
        })
        .collect();
    table(
        [
            "CONDITION",
            "SUBJECT",
            "SEVERITY",
            "FOR",
            "AGENT ACTS",
            "EVIDENCE",
        ],
        &rows,
    )
}

pub(super) fn remedies_text(items: &[Done]) -> String {
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let dry = if item.dry_run { " (dry run)" } else { "" };
            let command = item
                .command_id
                .as_ref()
                .map_or_else(String::new, |id| format!("command {id}: "));
            let took = if item.outcome == "unknown" {
                "-".to_owned()
            } else {
                rough(item.took_ms)
            };
            [
                item.number.to_string(),
                item.begun_at.clone(),
                item.remedy.clone(),
                one_line(&item.subject),
                format!("{}{dry}", item.outcome),
                took,
                one_line(&format!("{command}{} → {}", item.reason, item.detail)),
            ]
        })
        .collect();
    table(
        [
            "NUMBER",
            "TIME (UTC)",
            "REMEDY",
            "SUBJECT",
            "OUTCOME",
            "TOOK",
            "WHY → WHAT CAME OF IT",
        ],
        &rows,
    )
}

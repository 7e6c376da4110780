//! Seeing to the store, as it is typed and told.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;

use super::{Output, counted, say};
use crate::config::Settings;
use crate::execute::status::RunState;
use crate::store::backup;
use crate::upkeep::check::{Problem, Report};
use crate::upkeep::{self, UpkeepError};

pub(super) fn backup(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let (snapshot, running) = upkeep::snapshot(settings)?;
    backup::write(file, &backup::encode(&snapshot))?;
    say(&format!(
        "{}: {}, {}, epoch {}{}",
        file.display(),
        counted(snapshot.runs.len(), "run"),
        counted(snapshot.values.len(), "value"),
        snapshot.epoch,
        if running {
            ", from the running coordinator"
        } else {
            ""
        }
    ))
}

pub(super) fn restore(
    settings: &Settings,
    file: &Path,
    at_least: Option<u64>,
    replace: bool,
) -> anyhow::Result<()> {
    let (snapshot, restored) = upkeep::restore(settings, file, at_least, replace)?;
    if let Some(kept) = restored.kept {
        say(&format!("the store that was there is kept as {}", kept.display()))?;
    }
    say(&format!(
        "{}: {}, {}, epoch {} (the backup's was {})",
        settings.store_file().display(),
        counted(snapshot.runs.len(), "run"),
        counted(snapshot.values.len(), "value"),
        restored.epoch,
        snapshot.epoch
    ))?;
    for run in upkeep::check::check(&snapshot).runs {
        if run.state.is_active() {
            say(&format!(
                "run {} was at work when the backup was made: it goes on at the next start; if that is not wanted: blackstart coldstart abort",
                run.id
            ))?;
        }
    }
    say("start it: systemctl start blackstart-coordinator")
}

pub(super) fn epoch(settings: &Settings, at_least: Option<u64>) -> anyhow::Result<()> {
    let epoch = upkeep::epoch(settings, at_least)?;
    say(&format!("epoch {epoch}; the next start takes the one after it"))
}

/// A report and what it is of.
#[derive(Serialize)]
struct Told {
    /// Which file.
    file: String,
    /// It was asked of a coordinator that has it open.
    running: bool,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn check(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let (report, running) = match upkeep::snapshot(settings) {
        Ok((snapshot, running)) => (upkeep::check::check(&snapshot), running),
        // What is wrong with it is what was asked for.
        Err(UpkeepError::Store(error)) => (unreadable("store", &error), false),
        Err(error) => return Err(error.into()),
    };
    let file = settings.store_file().display().to_string();
    tell(
        &Told {
            file,
            running,
            report,
        },
        output,
    )
}

pub(super) fn check_backup(file: &Path, output: Output) -> anyhow::Result<()> {
    let report = match backup::read(file) {
        Ok(snapshot) => upkeep::check::check(&snapshot),
        Err(error @ backup::BackupError::Unusable { .. }) => unreadable("backup", &error),
        Err(error @ backup::BackupError::Io { .. }) => return Err(error.into()),
    };
    let (file, running) = (file.display().to_string(), false);
    tell(
        &Told {
            file,
            running,
            report,
        },
        output,
    )
}

fn unreadable(of: &str, error: &dyn std::error::Error) -> Report {
    Report {
        problems: vec![Problem {
            of: of.to_owned(),
            what: error.to_string(),
        }],
        ..Report::default()
    }
}

fn tell(told: &Told, output: Output) -> anyhow::Result<()> {
    let report = &told.report;
    match output {
        Output::Json => say(&serde_json::to_string_pretty(told)?)?,
        Output::Text => {
            for problem in &report.problems {
                say(&format!("{}: {}", problem.of, problem.what))?;
            }
            let active = report.runs.iter().filter(|run| run.state.is_active()).count();
            let halted = report
                .runs
                .iter()
                .filter(|run| run.state == RunState::Halted)
                .count();
            if report.problems.is_empty() {
                say(&format!(
                    "{}: {} ({active} at work, {halted} of them halted), {}, epoch {}, no problems{}",
                    told.file,
                    counted(report.runs.len(), "run"),
                    counted(report.values, "value"),
                    report.epoch,
                    if told.running {
                        "; asked of the running coordinator"
                    } else {
                        ""
                    }
                ))?;
            }
        }
    }
    if !report.problems.is_empty() {
        bail!("{}: {}", told.file, counted(report.problems.len(), "problem"));
    }
    Ok(())
}

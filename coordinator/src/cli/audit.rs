//! The audit, looked at without a running coordinator.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Output, counted, say};
use crate::audit::chain::Report;
use crate::audit::file::{files, verify as look};

/// What is told.
#[derive(Serialize)]
struct Told<'a> {
    dir: &'a Path,
    records: u64,
    first: u64,
    head: String,
    torn_bytes: u64,
    problems: &'a [String],
}

pub(super) fn verify(dir: &Path, expect: Option<&str>, output: Output) -> anyhow::Result<()> {
    let report = look(dir, expect).with_context(|| format!("read the audit in {}", dir.display()))?;
    tell(dir, &report, output)?;
    if !report.problems.is_empty() {
        bail!("{}: {}", dir.display(), counted(report.problems.len(), "problem"));
    }
    Ok(())
}

fn tell(dir: &Path, report: &Report, output: Output) -> anyhow::Result<()> {
    let head = report.head.to_string();
    match output {
        Output::Json => say(&serde_json::to_string_pretty(&Told {
            dir,
            records: report.records,
            first: report.first,
            head,
            torn_bytes: report.torn,
            problems: &report.problems,
        })?),
        Output::Text => {
            for problem in &report.problems {
                say(problem)?;
            }
            if report.torn > 0 {
                say(&format!(
                    "the last record was cut off after {} bytes, as by a power loss; that is no tampering",
                    report.torn
                ))?;
            }
            say(&format!(
                "{}: {} to {}; to be expected of a later look: {head}",
                counted(usize::try_from(report.records).unwrap_or(usize::MAX), "record"),
                report.first,
                report.head.sequence
            ))
        }
    }
}

pub(super) fn export(dir: &Path) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let files: Vec<PathBuf> = files(dir).with_context(|| format!("read the audit in {}", dir.display()))?;
    for path in files {
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        out.write_all(&content).context("write to standard output")?;
    }
    out.flush().context("write to standard output")
}

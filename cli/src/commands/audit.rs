//! `blackstart audit`: whether what was commanded is kept as it was written, and all of it.

use clap::Subcommand;
use tokio_stream::StreamExt;

use super::Context;
use crate::failure::Failure;
use crate::output::table::{Line, Tint};
use crate::output::words::count;
use crate::view::AuditReport;

/// What is done with the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Look whether the chain is whole; ends with 1 if not
    #[command(after_help = "\
Examples:
  blackstart audit verify
  blackstart audit verify --expect 1234:9f86d0…   also that this record, which an earlier look told, is still there

A last record that a crash cut off is told, and is no failure. Without a coordinator: blackstart-coordinator audit verify.")]
    Verify {
        /// What an earlier look told to expect
        #[arg(
            long,
            value_name = "SEQUENCE:HASH",
            default_value = "",
            hide_default_value = true
        )]
        expect: String,
    },
    /// Every record as it is kept: a hash and JSON in a line
    #[command(after_help = "\
Examples:
  blackstart audit export > audit.log
  blackstart audit export | cut -d' ' -f2- | jq 'select(.what == \"StartColdStart\")'")]
    Export,
}

pub(super) async fn run(command: AuditCommand, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    match command {
        AuditCommand::Verify { expect } => {
            let report = fleet.verify_audit(&expect).await?;
            context
                .output
                .object("AuditReport", &report, |_| lines(&report))?;
            if report.problems.is_empty() {
                return Ok(());
            }
            Err(Failure::other(format!(
                "the audit was changed: {}",
                count(report.problems.len(), "problem")
            )))
        }
        AuditCommand::Export => {
            let mut lines = fleet.export_audit().await?;
            while let Some(piece) = lines.next().await {
                context.output.raw(&piece?)?;
            }
            Ok(())
        }
    }
}

fn lines(report: &AuditReport) -> Vec<Line> {
    let mut lines: Vec<_> = report
        .problems
        .iter()
        .map(|problem| Line::tinted(problem.clone(), Tint::Bad))
        .collect();
    if report.torn_bytes > 0 {
        lines.push(Line::new(format!(
            "the last record was cut off after {} bytes, as by a power loss; that is no tampering",
            report.torn_bytes
        )));
    }
    lines.push(Line::new(format!(
        "{}: {} to {}; to be expected of a later look: {}",
        count(usize::try_from(report.records).unwrap_or(usize::MAX), "record"),
        report.first,
        report.last,
        report.head
    )));
    lines
}

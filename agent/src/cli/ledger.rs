//! `ledger show`: what was done on this node, when, and why.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;

use super::table::one_line;
use super::{Exit, Failure, Form};
use crate::causes::causes;
use crate::ledger::{Contents, Ledger, LedgerError, Outcome, Record};

const HEAD: [&str; 7] = [
    "NUMBER",
    "TIME (UTC)",
    "REMEDY",
    "SUBJECT",
    "OUTCOME",
    "TOOK",
    "WHY → WHAT CAME OF IT",
];

pub(super) fn show(path: &Path, form: Form) -> Result<String, Failure> {
    let contents = Ledger::read(path).map_err(|error| Failure {
        exit: Exit::Failed,
        what: causes(&error),
        output: String::new(),
        advice: match error {
            LedgerError::Io { .. } => Some(
                "name the ledger, or with --config the agent's configuration; it is readable for root only"
                    .to_owned(),
            ),
            LedgerError::Damaged { .. } | LedgerError::Busy(_) | LedgerError::Repeated { .. } => None,
        },
    })?;
    match form {
        Form::Table => Ok(table(&contents)),
        Form::Json => serde_json::to_string_pretty(&contents)
            .map(|text| text + "\n")
            .map_err(|error| Exit::Failed.because(format!("encode the ledger: {error}"))),
    }
}

fn table(contents: &Contents) -> String {
    let rows: Vec<_> = contents.records.iter().map(row).collect();
    let mut text = super::table::table(HEAD, &rows);
    let _infallible = writeln!(text, "highest epoch obeyed: {}", contents.highest_epoch);
    text
}

fn row(record: &Record) -> [String; 7] {
    let (outcome, detail, took) = match &record.outcome {
        None => ("unknown", "begun, and no outcome was written", String::from("-")),
        Some(Outcome::Succeeded { detail }) => ("succeeded", detail.as_str(), took(record)),
        Some(Outcome::Failed { detail }) => ("failed", detail.as_str(), took(record)),
    };
    let dry = if record.intent.dry_run { " (dry run)" } else { "" };
    let command = record
        .intent
        .command_id
        .as_ref()
        .map_or_else(String::new, |id| format!("command {id}: "));
    [
        record.sequence.0.to_string(),
        time(record.at_unix_ms),
        record.intent.remedy.clone(),
        record.intent.subject.clone(),
        format!("{outcome}{dry}"),
        took,
        one_line(&format!("{command}{} → {detail}", record.intent.reason)),
    ]
}

fn took(record: &Record) -> String {
    format!("{}ms", record.took_ms)
}

fn time(unix_ms: u64) -> String {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| unix_ms.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Intent;

    #[test]
    fn shows_what_was_done_and_why_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (mut ledger, _) = Ledger::open(&path, "b").unwrap();
        let intent = |command: Option<&str>| Intent {
            remedy: "restart-unit".to_owned(),
            subject: "kubelet.service".to_owned(),
            reason: "UnitFailed:\nresult signal".to_owned(),
            command_id: command.map(str::to_owned),
            dry_run: false,
        };
        let first = ledger.intent(intent(None)).unwrap();
        let done = Outcome::Succeeded {
            detail: "active with process 7".to_owned(),
        };
        ledger.outcome(first, done).unwrap();
        ledger.intent(intent(Some("run-1/3"))).unwrap();
        ledger.obey_epoch(4).unwrap();

        let text = show(&path, Form::Table).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].ends_with("UnitFailed: result signal → active with process 7"));
        assert!(lines[2].contains("unknown") && lines[2].contains("command run-1/3"));
        assert_eq!(lines[3], "highest epoch obeyed: 4");

        let json: serde_json::Value = serde_json::from_str(&show(&path, Form::Json).unwrap()).unwrap();
        assert_eq!(json["records"][0]["intent"]["subject"], "kubelet.service");

        let missing = show(&dir.path().join("none"), Form::Table).unwrap_err();
        assert_eq!(missing.exit, Exit::Failed);
    }
}

//! `check`: what must hold before a kubelet may start, with and without a running agent.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::node::{Asked, json};
use super::table::{one_line, table};
use super::{Exit, Failure, Form, host};
use crate::local::answer::Answer;
use crate::local::{Question, ask};
use crate::preflight::{self, Finding, State};

/// A disk that hangs must not hang the command.
const DEADLINE: Duration = Duration::from_secs(30);

/// As it stands in JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "kind")]
struct Preflight {
    node: String,
    blocked: bool,
    findings: Vec<Finding>,
}

pub(super) async fn check(asked: &Asked) -> Result<String, Failure> {
    let (settings, _) = asked.settings()?;
    let socket = asked.socket()?;
    let settings = Arc::new(settings);
    let looking = {
        let settings = Arc::clone(&settings);
        tokio::task::spawn_blocking(move || preflight::check(&settings, &host(&settings)))
    };
    let mut findings = match timeout(DEADLINE, looking).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => return Err(Exit::Failed.because(format!("look at the node: {error}"))),
        Err(_) => {
            return Err(Failure {
                advice: Some(
                    "a disk hangs: dmesg -T | tail; ps -eo pid,stat,wchan:30,cmd | grep ' D'".to_owned(),
                ),
                ..Exit::Failed.because(format!(
                    "the node could not be looked at within {} s",
                    DEADLINE.as_secs()
                ))
            });
        }
    };
    let answer = ask(&socket, &Question::Status).await.ok();
    findings.extend(privileges(answer.as_ref()));
    findings.push(agent(answer));
    let blocked = preflight::blocked(&findings);
    let blockers = findings
        .iter()
        .filter(|finding| finding.state == State::Blocker)
        .count();
    let text = match asked.output {
        Form::Table => text(&findings),
        Form::Json => json(&Preflight {
            node: settings.node.clone(),
            blocked,
            findings,
        })?,
    };
    if blocked {
        return Err(Failure {
            output: text,
            ..Exit::Failed.because(format!(
                "{blockers} of these must be mended before a kubelet may start"
            ))
        });
    }
    Ok(text)
}

/// What the running agent says it cannot do.
fn privileges(answer: Option<&Answer>) -> Vec<Finding> {
    let Some(Answer::NodeStatus(status)) = answer else {
        return Vec::new();
    };
    status
        .lacks
        .iter()
        .map(|lack| Finding {
            check: "privilege".to_owned(),
            subject: lack.function.clone(),
            state: State::Warning,
            detail: format!("{}: {}", lack.missing, lack.effect),
            advice: lack.mend.clone(),
        })
        .collect()
}

fn agent(answer: Option<Answer>) -> Finding {
    let (state, detail, advice) = match answer {
        Some(Answer::NodeStatus(status)) if status.conditions == 0 => {
            (State::Ok, "runs; nothing stands".to_owned(), "")
        }
        Some(Answer::NodeStatus(status)) => (
            State::Warning,
            format!("runs; conditions that stand: {}", status.conditions),
            "blackstart-agent conditions",
        ),
        Some(_) | None => (
            State::Warning,
            "no agent answers on this node".to_owned(),
            "systemctl status blackstart-agent",
        ),
    };
    Finding {
        check: "agent".to_owned(),
        subject: String::new(),
        state,
        detail,
        advice: advice.to_owned(),
    }
}

fn text(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Blocker => "BLOCKER",
            };
            let words = if finding.advice.is_empty() {
                finding.detail.clone()
            } else {
                format!("{} → {}", finding.detail, finding.advice)
            };
            [
                state.to_owned(),
                finding.check.clone(),
                one_line(&finding.subject),
                one_line(&words),
            ]
        })
        .collect();
    table(["STATE", "CHECK", "SUBJECT", "FOUND → WHAT TO DO"], &rows)
}

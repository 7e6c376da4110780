//! `status`, `conditions`, `remedies`, `explain`: what the running agent is asked, and how its answers are shown.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::show::{conditions_text, lacks_text, remedies_text, status_text};
use super::{Exit, Failure, Form, load};
use crate::causes::causes;
use crate::config::Settings;
use crate::explain::{Explanation, explain, kind};
use crate::local::answer::Answer;
use crate::local::{AskError, Question, ask};

/// The configuration that is used where none is named, if it is there.
pub(super) const CONFIG: &str = "/etc/blackstart/agent.yaml";

/// Whom to ask, and how to show it.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Configuration file of the agent [default: /etc/blackstart/agent.yaml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The agent's socket [default: `agent.sock` in the configuration's `runtime_dir`].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub(super) output: Form,
}

impl Asked {
    /// The settings on disk, and where they are from, for people.
    pub(super) fn settings(&self) -> Result<(Settings, String), Failure> {
        let standard = Path::new(CONFIG);
        let path = match &self.config {
            Some(path) => path,
            None if standard.exists() => standard,
            None => return Ok((Settings::for_node(""), "the defaults".to_owned())),
        };
        Ok((load(path)?, path.display().to_string()))
    }

    pub(super) fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            // An agent that runs may be asked whatever has become of its file meanwhile.
            None => match self.settings() {
                Ok((settings, _)) => Ok(settings.socket()),
                Err(_) if self.config.is_none() => Ok(Settings::for_node("").socket()),
                Err(failure) => Err(failure),
            },
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        ask(&self.socket()?, question)
            .await
            .map_err(|error| not_answered(&error))
    }
}

fn not_answered(error: &AskError) -> Failure {
    let (exit, advice) = match error {
        AskError::NotRunning(_) => (
            Exit::NotRunning,
            "start it: systemctl start blackstart-agent; why it does not run: systemctl status blackstart-agent\n\
             without it: blackstart-agent ledger show tells what it did, blackstart-agent check what is wrong with the node",
        ),
        AskError::Denied(_) => (Exit::Failed, "run it as root"),
        AskError::Io { .. } | AskError::TimedOut(_) => (
            Exit::Failed,
            "try again; if it stays so: systemctl status blackstart-agent, and restart it",
        ),
        AskError::NotUnderstood { .. } => (
            Exit::Failed,
            "the agent runs in another version than this command: systemctl restart blackstart-agent",
        ),
        AskError::Refused(_) => (Exit::Failed, "blackstart-agent --help shows examples"),
    };
    Failure {
        advice: Some(advice.to_owned()),
        ..exit.because(causes(error))
    }
}

pub(super) fn unexpected() -> Failure {
    Exit::Failed.because("the agent answered another question than it was asked".to_owned())
}

/// `status`.
pub(super) async fn status(asked: &Asked) -> Result<String, Failure> {
    let answer = asked.ask(&Question::Status).await?;
    let Answer::NodeStatus(status) = &answer else {
        return Err(unexpected());
    };
    match asked.output {
        Form::Table => Ok(status_text(status)),
        Form::Json => json(&answer),
    }
}

/// `conditions`.
pub(super) async fn conditions(asked: &Asked) -> Result<String, Failure> {
    let answer = asked.ask(&Question::Conditions).await?;
    let Answer::ConditionList { items } = &answer else {
        return Err(unexpected());
    };
    match asked.output {
        Form::Table if items.is_empty() => Ok("nothing stands\n".to_owned()),
        Form::Table => Ok(conditions_text(items)),
        Form::Json => json(&answer),
    }
}

/// `remedies`.
pub(super) async fn remedies(asked: &Asked, last: usize) -> Result<String, Failure> {
    let answer = asked.ask(&Question::Remedies { last }).await?;
    let Answer::RemedyList { items, lacks } = &answer else {
        return Err(unexpected());
    };
    match asked.output {
        Form::Table if items.is_empty() => {
            Ok("nothing was done on this node yet\n".to_owned() + &lacks_text(lacks))
        }
        Form::Table => Ok(remedies_text(items) + &lacks_text(lacks)),
        Form::Json => json(&answer),
    }
}

/// `explain`: the agent's own word, since its settings are the ones in force; without one, of the settings on disk.
pub(super) async fn explained(asked: &Asked, condition: &str) -> Result<String, Failure> {
    let kind = kind(condition).map_err(|why| Exit::Usage.because(why))?;
    let question = Question::Explain {
        condition: kind.as_str().to_owned(),
    };
    let answer = ask(&asked.socket()?, &question).await;
    let (told, of) = if let Ok(Answer::Explanation(told)) = answer {
        (told, "of the running agent".to_owned())
    } else {
        let (settings, place) = asked.settings()?;
        (explain(kind, &settings), format!("of {place}; no agent answered"))
    };
    match asked.output {
        Form::Table => Ok(format!("{}\nSettings {of}.\n", Explanation::text(&told))),
        Form::Json => json(&Answer::Explanation(told)),
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Exit::Failed.because(format!("encode the answer: {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};
    use tokio_util::sync::CancellationToken;

    use super::super::tests::typed;
    use super::*;
    use crate::local::serve;
    use crate::local::tests::Known;

    /// An agent that answers at a socket, as far as a command can tell.
    async fn answering() -> (Known, String, JoinHandle<()>) {
        let known = Known::new();
        let socket = known.window.settings().socket();
        let task = tokio::spawn(serve(known.window.clone(), CancellationToken::new()));
        timeout(Duration::from_secs(30), async {
            while !socket.exists() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        (known, socket.display().to_string(), task)
    }

    #[tokio::test]
    async fn people_and_scripts_are_told_the_same() {
        let (_known, socket, task) = answering().await;
        let text = typed(&format!("blackstart-agent status --socket {socket}"))
            .await
            .unwrap();
        for words in [
            "node-1",
            "2 of 3",
            "no session for",
            "90%",
            "2 stand",
            "absent",
            "not seen",
        ] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
        let text = typed(&format!("blackstart-agent conditions --socket {socket}"))
            .await
            .unwrap();
        let second = text.lines().nth(1).unwrap();
        assert!(
            second.starts_with("UnitFailed") && second.contains("critical"),
            "{text}"
        );
        let text = typed(&format!("blackstart-agent remedies --last 3 --socket {socket}"))
            .await
            .unwrap();
        assert!(
            text.contains("UnitFailed: result signal → its job ended with failed"),
            "{text}"
        );

        for (command, kind) in [
            ("status", "NodeStatus"),
            ("conditions", "ConditionList"),
            ("remedies", "RemedyList"),
            ("explain oom-storm", "Explanation"),
        ] {
            let line = format!("blackstart-agent {command} -o json --socket {socket}");
            let json: serde_json::Value = serde_json::from_str(&typed(&line).await.unwrap()).unwrap();
            assert_eq!(json["kind"], kind);
        }
        task.abort();
    }

    #[tokio::test]
    async fn every_budget_is_in_the_table_and_in_json() {
        let (_known, socket, task) = answering().await;
        let text = typed(&format!("blackstart-agent status --socket {socket}"))
            .await
            .unwrap();
        let json = typed(&format!("blackstart-agent status -o json --socket {socket}"))
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let budgets = json["budgets"].as_array().unwrap();
        for budget in budgets {
            let word = |key: &str| budget[key].as_str().unwrap().to_owned();
            let left = format!("{} of {}", budget["left"], budget["limit"]);
            let row = text.lines().find(|line| {
                let first = line.split_whitespace().next();
                let own = first == Some(&*word("remedy")) && line.contains(&word("subject"));
                (own || first == Some(&*word("subject"))) && line.contains(&left)
            });
            assert!(row.is_some(), "{budget} is not in {text}");
        }
        for (remedy, subject) in [
            ("restart-unit", "kubelet.service"),
            ("kill-restart-unit", "kubelet.service"),
            ("restart-unit", "chronyd.service"),
            ("relieve-memory", "app.service"),
            ("restart-container", "web"),
            ("bounce-static-pod", "etcd"),
            ("vacuum-journal", "/var"),
            ("prune", "/var"),
        ] {
            let told = budgets
                .iter()
                .any(|budget| budget["remedy"] == remedy && budget["subject"] == subject);
            assert!(told, "{remedy} of {subject} is not in {json}");
        }
        task.abort();
    }

    #[tokio::test]
    async fn where_no_agent_runs_it_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock").display().to_string();
        for command in ["status", "conditions", "remedies"] {
            let failure = typed(&format!("blackstart-agent {command} --socket {socket}"))
                .await
                .unwrap_err();
            assert_eq!(failure.exit, Exit::NotRunning);
            let text = failure.to_string();
            assert!(text.contains("systemctl start blackstart-agent"), "{text}");
        }
    }

    #[tokio::test]
    async fn thresholds_are_the_running_agents_and_without_one_those_on_disk() {
        let (_known, socket, task) = answering().await;
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.yaml");
        fs::write(&config, "node: n\nkubelet: {failures_to_raise: 9}\n").unwrap();
        let line = |socket: &str| {
            format!(
                "blackstart-agent explain KubeletUnhealthy --config {} --socket {socket}",
                config.display()
            )
        };
        let told = typed(&line(&socket)).await.unwrap();
        assert!(
            told.contains("failures_to_raise  3") && told.contains("running agent"),
            "{told}"
        );
        let told = typed(&line(&format!("{socket}.none"))).await.unwrap();
        assert!(
            told.contains("failures_to_raise  9") && told.contains("agent.yaml"),
            "{told}"
        );
        let unknown = typed("blackstart-agent explain Nonsense").await.unwrap_err();
        assert_eq!(unknown.exit, Exit::Usage);
        task.abort();
    }

    #[tokio::test]
    async fn a_blocker_ends_with_one_and_is_printed_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("bad.crt"), "garbage").unwrap();
        let config = |certificates: &str| {
            let text = format!(
                "node: n\nstate_dir: {0}\nruntime_dir: {0}\ndisks: []\n\
                 preflight: {{certificates: [{certificates}], container_runtimes: []}}\n",
                dir.path().display()
            );
            fs::write(at("agent.yaml"), text).unwrap();
            format!("blackstart-agent check --config {}", at("agent.yaml"))
        };
        let failure = typed(&config(&at("*.crt"))).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        let blocker = failure.output.lines().find(|line| line.starts_with("BLOCKER"));
        assert!(
            blocker.unwrap().contains("there is no PEM in it → restore it"),
            "{failure:?}"
        );

        let line = config(&at("*.none")) + " -o json";
        let json: serde_json::Value = serde_json::from_str(&typed(&line).await.unwrap()).unwrap();
        assert_eq!(
            (&json["kind"], &json["blocked"]),
            (&"Preflight".into(), &false.into())
        );
        let agent = json["findings"].as_array().unwrap().last().unwrap();
        assert_eq!(agent["detail"], "no agent answers on this node");
    }
}

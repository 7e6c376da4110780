//! `put-back`: before the agent goes away for good.

use std::fmt::Write;
use std::path::Path;

use super::node::CONFIG;
use super::{Exit, Failure, load};
use crate::config::Settings;
use crate::local::{AskError, Question, ask};
use crate::set_aside::{PutBack, all_back};

pub(super) async fn put_back(config: Option<&Path>) -> Result<String, Failure> {
    let standard = Path::new(CONFIG);
    let settings = match config {
        Some(path) => load(path)?,
        None if standard.exists() => load(standard)?,
        None => Settings::for_node(""),
    };
    // It would still hold what is back for out, and a coordinator would have it moved out again.
    if !matches!(
        ask(&settings.socket(), &Question::Status).await,
        Err(AskError::NotRunning(_))
    ) {
        return Err(Failure {
            advice: Some("stop it first: systemctl stop blackstart-agent".to_owned()),
            ..Exit::Failed.because("an agent runs here".to_owned())
        });
    }
    let done = all_back(&settings.state_dir, &settings.static_pods).map_err(|error| {
        Exit::Failed.because(format!(
            "look into {}: {error}",
            settings.static_pods.held.display()
        ))
    })?;
    told(&done)
}

fn told(done: &PutBack) -> Result<String, Failure> {
    let mut text = String::new();
    for pod in &done.back {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "the manifest of {pod} is back");
    }
    for path in &done.superseded {
        let _ = writeln!(
            text,
            "{} stays: another manifest has taken its place",
            path.display()
        );
    }
    if done.failed.is_empty() {
        return Ok(text);
    }
    let failed: Vec<_> = done
        .failed
        .iter()
        .map(|(pod, why)| format!("the manifest of {pod} could not be moved back: {why}"))
        .collect();
    Err(Failure {
        advice: Some("move it by hand, or its component stays down".to_owned()),
        output: text,
        ..Exit::Failed.because(failed.join("\n"))
    })
}

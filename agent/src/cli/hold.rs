//! `hold`, `unhold`, `silence`, `unsilence`: what the agent of this node is told not to do, with no coordinator.

use std::time::Duration;

use blackstart_proto::yaml::parse_duration;
use clap::Args;

use super::node::{Asked, json, unexpected};
use super::table::{one_line, rough};
use super::{Failure, Form};
use crate::local::Question;
use crate::local::answer::{Answer, HeldHere};

/// Why, and for how long.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why: shown to whoever finds it.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// It ends by itself after so long, such as 30m or 2h; also over a reboot. Without it: until it is lifted.
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    length: Option<Duration>,
}

fn length(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|length| !length.is_zero())
        .ok_or_else(|| "expected a duration such as 30m or 2h".to_owned())
}

/// `hold` and `silence`.
pub(super) async fn hold(
    asked: &Asked,
    remedy: Option<String>,
    silence: bool,
    why: Why,
) -> Result<String, Failure> {
    let question = Question::Hold {
        remedy,
        silence,
        by: who(),
        reason: why.reason,
        for_ms: why
            .length
            .map(|length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX)),
    };
    let answer = asked.ask(&question).await?;
    let Answer::Held(held) = &answer else {
        return Err(unexpected());
    };
    match asked.output {
        Form::Table => Ok(format!("{}\n", held_text(held))),
        Form::Json => json(&answer),
    }
}

/// `unhold` and `unsilence`.
pub(super) async fn lift(asked: &Asked, remedy: Option<String>, silence: bool) -> Result<String, Failure> {
    let answer = asked.ask(&Question::Lift { remedy, silence }).await?;
    let Answer::Lifted(held) = &answer else {
        return Err(unexpected());
    };
    match asked.output {
        Form::Table => Ok(format!("lifted: {}\n", held_text(held))),
        Form::Json => json(&answer),
    }
}

/// One hold on one line.
pub(super) fn held_text(held: &HeldHere) -> String {
    let what = match (&held.remedy, held.silence) {
        (_, true) => "the node is silenced",
        (Some(remedy), false) => &format!("{remedy} is held"),
        (None, false) => "every remedy is held",
    };
    let until = held
        .ends_in_ms
        .map_or_else(String::new, |left| format!("; ends in {}", rough(left)));
    one_line(&format!(
        "{what} ({}) by {}: {}{until}",
        held.scope.as_str(),
        held.by,
        held.reason
    ))
}

/// Who is at the keyboard, for people; the socket is root's alone.
fn who() -> String {
    ["SUDO_USER", "USER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "root".to_owned())
}

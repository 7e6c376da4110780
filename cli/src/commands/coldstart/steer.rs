//! `blackstart coldstart pause|resume|abort`.

use super::super::Context;
use super::{RunArgs, of_known, which};
use crate::failure::Failure;
use crate::output::lists::run_tint;
use crate::output::table::{Line, Tint};

/// What is done to the run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Pause,
    Resume,
    Abort,
}

pub(super) async fn run(verb: Verb, args: RunArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut fleet = context.connect().await?;
    let id = which(&mut fleet, args.run).await?;
    let answer = match verb {
        Verb::Pause => fleet.pause(&id).await,
        Verb::Resume => fleet.resume(&id).await,
        Verb::Abort => fleet.abort(&id).await,
    };
    let run = of_known(&mut fleet, answer).await?;
    let next = match verb {
        Verb::Pause => format!("no new step is begun; go on with: blackstart coldstart resume {id}"),
        Verb::Resume => format!("follow it: blackstart coldstart watch {id}"),
        Verb::Abort => "what was not begun never is; held kubelets keep their dead-man time".to_owned(),
    };
    let lines = |_| {
        vec![
            Line::new(format!("{} is ", run.id))
                .and(" ", Tint::Plain)
                .and(run.state.word(), run_tint(run.state))
                .and(
                    format!(", {} of {} steps done", run.steps_done, run.steps_total),
                    Tint::Plain,
                ),
            Line::new(next),
        ]
    };
    Ok(context.output.object("Run", &run, lines)?)
}

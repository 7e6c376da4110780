//! `blackstart coldstart watch`: follows one run to its end, through losses of the coordinator.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};

use super::super::{Absence, Context};
use super::of_known;
use crate::client::Fleet;
use crate::failure::Failure;
use crate::output::live::Live;
use crate::output::table::Line;
use crate::output::{Format, note, progress};
use crate::view::{RunDetail, RunState};

/// A frame is drawn anew this often, so that its durations go on between changes.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// How the run is shown.
enum Show {
    /// Redrawn in place.
    Frame(Live),
    /// A line for each thing that is new.
    Lines,
    /// The whole run at each change.
    Objects,
}

/// Follows it until it ends. Ctrl-C leaves, and says that the run goes on.
pub(super) async fn follow(id: &str, fleet: Fleet, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut show = match context.output.format() {
        Format::Json | Format::Yaml => Show::Objects,
        Format::Table | Format::Wide if context.output.is_for_people() => Show::Frame(Live::default()),
        Format::Table | Format::Wide => Show::Lines,
    };
    let mut last = None;
    let ended = tokio::select! {
        ended = to_its_end(id, fleet, context, &mut show, &mut last) => ended?,
        _ = tokio::signal::ctrl_c() => {
            note(format_args!("\nYou left; {id} goes on. Follow it again: blackstart coldstart watch {id}"));
            note(format_args!("End it: blackstart coldstart abort {id}"));
            return Err(Failure::Interrupted);
        }
    };
    if matches!(show, Show::Frame(_)) {
        context
            .output
            .lines(&[Line::default(), Line::new(progress::ending(&ended))])?;
    }
    match ended.run.state {
        RunState::Succeeded => Ok(()),
        RunState::Unknown
        | RunState::Running
        | RunState::Paused
        | RunState::Halted
        | RunState::Undoing
        | RunState::Aborted => Err(Failure::RunDidNotSucceed(progress::ending(&ended))),
    }
}

async fn to_its_end(
    id: &str,
    fleet: Fleet,
    context: &mut Context<'_>,
    show: &mut Show,
    last: &mut Option<RunDetail>,
) -> Result<RunDetail, Failure> {
    let mut fleet = Some(fleet);
    let mut absence = Absence::default();
    loop {
        let mut connected = match fleet.take() {
            Some(fleet) => fleet,
            None => match context.connect().await {
                Ok(fleet) => fleet,
                Err(failure) => {
                    absence.wait(failure).await?;
                    continue;
                }
            },
        };
        let looked = connected.watch_run(id).await;
        let interruption = match of_known(&mut connected, looked).await {
            Ok(looks) => {
                if let Show::Frame(live) = show {
                    live.leave();
                }
                absence.over();
                match look_on(pin!(looks), context, show, last).await {
                    Ok(Some(ended)) => return Ok(ended),
                    // The coordinator closed the stream before the end of the run.
                    Ok(None) => {
                        tokio::time::sleep(REDRAW_EVERY).await;
                        continue;
                    }
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        absence.wait(interruption).await?;
    }
}

/// Shows what comes until the stream or the run ends.
async fn look_on(
    mut looks: Pin<&mut impl Stream<Item = Result<RunDetail, Failure>>>,
    context: &mut Context<'_>,
    show: &mut Show,
    last: &mut Option<RunDetail>,
) -> Result<Option<RunDetail>, Failure> {
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    let mut received = tokio::time::Instant::now();
    loop {
        tokio::select! {
            look = looks.next() => {
                let Some(look) = look else { return Ok(None) };
                let run = look?;
                received = tokio::time::Instant::now();
                show_one(show, last.as_ref(), &run, context)?;
                if !run.run.state.is_active() && run.run.state != RunState::Unknown {
                    return Ok(Some(run));
                }
                *last = Some(run);
            }
            _ = redraw.tick() => {
                if let (Show::Frame(live), Some(run)) = (&mut *show, &*last) {
                    let frame = progress::frame(&aged(run, received.elapsed()), Live::height());
                    live.draw(context.output, &frame)?;
                }
            }
        }
    }
}

/// The run as it stands some time after it was looked at.
fn aged(run: &RunDetail, by: Duration) -> RunDetail {
    let mut run = run.clone();
    if run.run.state.is_active() {
        run.run.elapsed_ms += u64::try_from(by.as_millis()).unwrap_or(0);
    }
    run
}

fn show_one(
    show: &mut Show,
    before: Option<&RunDetail>,
    run: &RunDetail,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    match show {
        Show::Frame(live) => live.draw(context.output, &progress::frame(run, Live::height()))?,
        Show::Lines => {
            context.output.lines(&progress::news(before, run))?;
            context.output.flush()?;
        }
        Show::Objects => context.output.streamed("RunDetail", run)?,
    }
    Ok(())
}

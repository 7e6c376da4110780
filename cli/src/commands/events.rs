//! `blackstart events`.

use std::pin::pin;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_stream::StreamExt;

use super::{Absence, Context};
use crate::failure::Failure;
use crate::output::events::line;
use crate::output::{Format, note};
use crate::view::Event;

const EXAMPLES: &str = "\
Examples:
  blackstart events                       those that the coordinator remembers
  blackstart events --follow              then each as it comes, until Ctrl-C
  blackstart events --node biz-4 -f       of one node
  blackstart events -o json | jq .event   one JSON object a line";

/// What happened in the fleet.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EventsArgs {
    /// Go on with each event as it comes, until Ctrl-C
    #[arg(short, long, visible_short_alias = 'w', visible_alias = "watch")]
    follow: bool,
    /// Only events of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// The last event that was shown: after a reconnection the coordinator tells again what it remembers.
#[derive(Debug, Default)]
struct Shown {
    sequence: u64,
    at: Option<Timestamp>,
}

impl Shown {
    /// A restarted coordinator counts from the beginning: then the time tells what is new.
    fn is_new(&mut self, event: &Event) -> bool {
        let new = event.sequence > self.sequence || event.at > self.at;
        if new {
            self.sequence = event.sequence;
            self.at = event.at.max(self.at);
        }
        new
    }
}

pub(super) async fn run(args: &EventsArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let mut absence = Absence::default();
    let mut any = false;
    // The first connection is not tried again: a wrong address should be told at once.
    let mut fleet = Some(context.connect().await?);
    loop {
        let ended = match fleet.take() {
            Some(mut fleet) => match fleet.events(args.follow, args.node.as_deref()).await {
                Ok(events) => {
                    absence.over();
                    follow(events, context, &mut shown, &mut any).await
                }
                Err(failure) => Err(failure),
            },
            None => Ok(()),
        };
        match ended {
            Ok(()) if !args.follow => {
                if !any && matches!(context.output.format(), Format::Table | Format::Wide) {
                    note("No events found.");
                }
                return Ok(());
            }
            Ok(()) => tokio::time::sleep(super::RETRY_EVERY).await,
            Err(failure) if args.follow => absence.wait(failure).await?,
            Err(failure) => return Err(failure),
        }
        match context.connect().await {
            Ok(again) => fleet = Some(again),
            Err(failure) => absence.wait(failure).await?,
        }
    }
}

async fn follow(
    events: impl tokio_stream::Stream<Item = Result<Event, Failure>>,
    context: &mut Context<'_>,
    shown: &mut Shown,
    any: &mut bool,
) -> Result<(), Failure> {
    let mut events = pin!(events);
    let zone = TimeZone::system();
    while let Some(event) = events.next().await {
        let event = event?;
        if !shown.is_new(&event) {
            continue;
        }
        *any = true;
        match context.output.format() {
            Format::Table | Format::Wide => {
                context.output.lines(&[line(&event, Timestamp::now(), &zone)])?;
                context.output.flush()?;
            }
            Format::Json | Format::Yaml => context.output.streamed("Event", &event)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Severity;

    fn event(sequence: u64, second: i64) -> Event {
        Event {
            sequence,
            at: Timestamp::from_second(second).ok(),
            severity: Severity::Info,
            kind: String::new(),
            cluster: None,
            node: None,
            run: None,
            message: String::new(),
        }
    }

    #[test]
    fn what_is_told_again_after_a_reconnection_is_shown_once() {
        let mut shown = Shown::default();
        let told = [
            event(1, 10),
            event(2, 11),
            event(1, 10),
            event(2, 11),
            event(3, 12),
        ];
        let new: Vec<_> = told.iter().map(|event| shown.is_new(event)).collect();
        assert_eq!(new, [true, true, false, false, true]);
    }

    #[test]
    fn a_restarted_coordinator_is_heard_though_it_counts_anew() {
        let mut shown = Shown::default();
        assert!(shown.is_new(&event(90, 10)));
        assert!(shown.is_new(&event(1, 20)));
        assert!(shown.is_new(&event(2, 20)));
    }
}

//! Events: one line each, since they also come one by one.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::lists::severity_tint;
use super::table::{Line, Tint};
use crate::view::Event;

/// `12:00:03 Warning  SessionLost  biz-4: three reports missed`. The day is shown only when it is not today.
pub(crate) fn line(event: &Event, now: Timestamp, zone: &TimeZone) -> Line {
    let time = match event.at {
        Some(at) => {
            let at = at.to_zoned(zone.clone());
            let same_day = at.date() == now.to_zoned(zone.clone()).date();
            at.strftime(if same_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" })
                .to_string()
        }
        None => "-".to_owned(),
    };
    let about = event
        .node
        .as_ref()
        .or(event.cluster.as_ref())
        .or(event.run.as_ref());
    let message = match about {
        Some(about) => format!("{about}: {}", event.message),
        None => event.message.clone(),
    };
    Line::tinted(time, Tint::Dim)
        .and("  ", Tint::Plain)
        .and(
            format!("{:<8}", event.severity.word()),
            severity_tint(event.severity),
        )
        .and("  ", Tint::Plain)
        .and(format!("{:<16}", event.kind), Tint::Bold)
        .and("  ", Tint::Plain)
        .and(message.trim_end(), Tint::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Severity;

    fn event() -> Event {
        Event {
            sequence: 7,
            at: "2026-11-24T03:04:05Z".parse().ok(),
            severity: Severity::Warning,
            kind: "SessionLost".into(),
            cluster: Some("business".into()),
            node: Some("biz-4".into()),
            run: None,
            message: "three reports\nmissed".into(),
        }
    }

    #[test]
    fn an_event_of_today_shows_the_time_alone() {
        let now = "2026-11-24T09:00:00Z".parse().unwrap();
        let line = line(&event(), now, &TimeZone::UTC).paint(false);
        assert_eq!(
            line,
            "03:04:05  Warning   SessionLost       biz-4: three reports missed"
        );
    }

    #[test]
    fn a_program_reads_what_happened_beside_what_kind_of_object_it_is() {
        let json = serde_json::to_value(event()).unwrap();
        assert_eq!(json["event"], "SessionLost");
        assert!(json.get("kind").is_none(), "the tag's name would stand twice");
    }

    #[test]
    fn an_event_of_another_day_shows_the_day() {
        let now = "2026-11-25T00:00:00Z".parse().unwrap();
        let event = Event {
            node: None,
            ..event()
        };
        let line = line(&event, now, &TimeZone::UTC).paint(false);
        assert_eq!(
            line,
            "2026-11-24 03:04:05  Warning   SessionLost       business: three reports missed"
        );
    }
}

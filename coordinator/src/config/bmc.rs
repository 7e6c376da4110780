//! The part of the configuration that is about management controllers.

use std::ops::RangeInclusive;
use std::time::Duration;

use blackstart_proto::yaml::{Item, Table};

use super::read::{absolute, absolute_item, set};
use crate::power::settings::BmcSettings;

/// A controller that is slower is not asked in a night like that; one that has less is never heard.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);
/// A run asks again while it needs a word; one that is older than this may be of another day.
const FRESH: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_mins(2);

/// `fresh` is how long a word of theirs counts.
pub(super) fn read(mut table: Table, fresh: &mut Duration) -> Option<BmcSettings> {
    let credentials = table.required("credentials");
    let ca = absolute(&mut table, "ca");
    let timeout = within(table.item("timeout"), &TIMEOUT);
    set(fresh, within(table.item("fresh"), &FRESH));
    let mut to = BmcSettings::new(absolute_item(&credentials?)?);
    to.ca = ca;
    set(&mut to.timeout, timeout);
    Some(to)
}

fn within(item: Option<Item>, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let item = item?;
    let duration = item.duration()?;
    if range.contains(&duration) {
        return Some(duration);
    }
    item.problem(format!("must be from {:?} to {:?}", range.start(), range.end()));
    None
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    const SHIPPED: &str = include_str!("../../../deploy/coordinator.yaml");

    #[test]
    fn the_shipped_example_shows_the_defaults() {
        let start = SHIPPED.find("# bmc:").unwrap();
        let lines = SHIPPED[start..].lines().map_while(|line| line.strip_prefix("# "));
        let shipped = parse("f", &lines.collect::<Vec<_>>().join("\n")).unwrap();
        let least = parse("f", "bmc: {credentials: /etc/blackstart/bmc.yaml}").unwrap();
        let (told, bare) = (shipped.bmc.unwrap(), least.bmc.unwrap());
        assert_eq!((told.credentials, told.timeout), (bare.credentials, bare.timeout));
        assert_eq!(shipped.timing, least.timing);
        assert!(told.ca.is_some() && bare.ca.is_none());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let text = "bmc:\n  credentials: bmc.yaml\n  ca: ca.crt\n  timeout: 5m\n  fresh: 1s\n  user: root\n";
        let problems = parse("f", text).unwrap_err();
        let told: Vec<_> = problems
            .list
            .iter()
            .map(|one| (one.line, one.field.as_str()))
            .collect();
        for field in [
            (2, "bmc.credentials"),
            (3, "bmc.ca"),
            (4, "bmc.timeout"),
            (5, "bmc.fresh"),
            (6, "bmc.user"),
        ] {
            assert!(told.contains(&field), "{field:?} in {problems}");
        }
        let bare = parse("f", "bmc: {}").unwrap_err();
        assert_eq!(bare.list[0].field, "bmc.credentials");
    }
}

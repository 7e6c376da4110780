//! The wall clock.

use std::time::Duration;

use super::Finding;
use crate::config::Settings;
use crate::diagnose::clock::BEHIND;
use crate::watch::clock::{Clocks, read_floor};

const CHECK: &str = "clock";

pub(super) fn check(settings: &Settings, clocks: Clocks) -> Vec<Finding> {
    let floor = read_floor(&settings.state_dir);
    let behind = floor.saturating_sub(clocks.wall);
    if behind >= BEHIND {
        return vec![Finding::blocker(
            CHECK,
            "",
            format!(
                "{} s behind a time that this node has already trusted",
                behind.as_secs()
            ),
            "set it (chronyc makestep, or date -s) before anything checks a certificate",
        )];
    }
    let known = if floor == Duration::ZERO {
        "no trusted time is known yet"
    } else {
        "not behind the latest trusted time"
    };
    vec![match clocks.synchronised {
        Some(true) => Finding::ok(CHECK, "", format!("{known}; kept by a time service")),
        Some(false) => Finding::warning(
            CHECK,
            "",
            format!("{known}; no time service keeps it"),
            "systemctl status chronyd systemd-timesyncd; after a boot it takes a while",
        ),
        None => Finding::ok(CHECK, "", format!("{known}; whether it is kept cannot be told")),
    }]
}

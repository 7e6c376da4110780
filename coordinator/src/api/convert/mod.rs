//! Wire types ↔ our own: the one place. Nothing of the wire travels inward.
//!
//! | module | who speaks |
//! |---|---|
//! | [`agent`] | agents, and we to them |
//! | [`brakes`] | we to both of holds, freezes and storms |
//! | [`etcd`] | agents of their etcd members, and we to operators |
//! | [`operator`] | we to operators |
//! | [`runbook`] | we to operators, of runbooks |

pub(crate) mod agent;
pub(super) mod brakes;
pub(crate) mod control_plane;
pub(crate) mod etcd;
pub(super) mod operator;
pub(super) mod runbook;

use std::time::Duration;

pub(in crate::api) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

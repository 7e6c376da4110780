//! Snapshots by the agent's own doing, once in `etcd.snapshots.every`: a coordinator that is away costs none.
//!
//! Each master takes them of its own member, at its own moments: so there is one on every master, and one on some master is younger than `every`
//! by far. A member that is no voter of a cluster that has a leader is passed over: what it has, others have.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::Client;
use super::desk::Desk;
use super::look::{alarms, manifest};
use super::snapshot::{self, Kept};
use super::trouble::Kind;
use super::unix_ms;
use crate::config::Settings;
use crate::watch::static_pods::directory::Places;

/// Looked so often whether one is due: a reload of the configuration is seen then.
const LOOK: Duration = Duration::from_mins(1);
/// And so often within `every`, so that none is late by more than a part of it; no configuration has one that is short enough for that to be more often.
const LOOKS: u32 = 10;

/// Until `stop`.
pub(crate) async fn keep(desk: Desk, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause(desk.settings().etcd.snapshots.every)) => {}
        }
        let settings = desk.settings();
        tokio::select! {
            () = stop.cancelled() => return,
            taken = once(&settings) => match taken {
                Ok(None) => {}
                Ok(Some(kept)) => {
                    info!(file = kept.file, revision = kept.revision, bytes = kept.bytes, "a snapshot of etcd was taken, as is due");
                    desk.trouble(None);
                }
                Err(why) => {
                    warn!(why, "a snapshot of etcd is due and was not taken; trying again");
                    desk.trouble(Some(format!("the snapshot that is due was not taken: {why}")));
                }
            }
        }
    }
}

/// Between two looks.
fn pause(every: Option<Duration>) -> Duration {
    every.map_or(LOOK, |every| LOOK.min(every / LOOKS))
}

/// Takes one if it is due and there is a member to take it of.
async fn once(settings: &Settings) -> Result<Option<Kept>, String> {
    let rules = &settings.etcd.snapshots;
    let Some(every) = rules.every else { return Ok(None) };
    let (manifests, dir) = (Places::of(&settings.static_pods).manifests, rules.dir.clone());
    let on_disk = spawn_blocking(move || (manifest(&manifests), snapshot::list(&dir))).await;
    let Ok((found, kept)) = on_disk else {
        return Ok(None);
    };
    let found = match found {
        Ok(found) => found,
        // Most nodes are no masters.
        Err(trouble) if trouble.kind == Kind::NoManifest => return Ok(None),
        Err(trouble) => return Err(trouble.to_string()),
    };
    // Whether it answers is told elsewhere.
    let Ok(client) = Client::connect(&found.pod, &settings.etcd, settings.etcd.deadline).await else {
        return Ok(None);
    };
    let Ok(status) = client.status().await else {
        return Ok(None);
    };
    let header = status.header.unwrap_or_default();
    let is_corrupt =
        alarms(&status).any(|alarm| alarm.member_id == header.member_id && alarm.alarm == "CORRUPT");
    if status.leader == 0 || status.is_learner || is_corrupt {
        return Ok(None);
    }
    let cluster = format!("{:x}", header.cluster_id);
    let youngest = kept?
        .iter()
        .filter(|kept| kept.cluster_id == cluster)
        .map(|kept| unix_ms().abs_diff(kept.taken_at_unix_ms))
        .min();
    if !is_due(youngest.map(Duration::from_millis), every, &settings.node) {
        return Ok(None);
    }
    snapshot::take(&client, &found.pod.name, header.cluster_id, &settings.etcd)
        .await
        .map(Some)
}

/// Of masters that began together each waits a little longer than the one before: up to a quarter.
fn is_due(youngest: Option<Duration>, every: Duration, node: &str) -> bool {
    let sum: u32 = node.bytes().map(u32::from).sum();
    let longer = every.saturating_mul(sum % 16) / 64;
    youngest.is_none_or(|age| age >= every.saturating_add(longer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_due_at_once_and_the_next_in_its_time_and_masters_go_apart() {
        let hour = Duration::from_hours(1);
        assert!(is_due(None, hour, "m1"));
        for node in ["m1", "m2", "m3"] {
            assert!(!is_due(Some(hour / 2), hour, node));
            assert!(is_due(Some(hour + hour / 4), hour, node));
        }
        let at = Some(hour + hour / 64 * 7);
        let due: Vec<_> = ["m1", "m2", "m3", "m9"].map(|node| is_due(at, hour, node)).into();
        assert!(due.contains(&true) && due.contains(&false), "{due:?}");
    }

    #[test]
    fn it_is_looked_once_a_minute_however_seldom_they_are_taken() {
        for every in [
            None,
            Some(Duration::from_mins(10)),
            Some(Duration::from_hours(24)),
        ] {
            assert_eq!(pause(every), LOOK);
        }
        assert_eq!(pause(Some(Duration::from_secs(5))), Duration::from_millis(500));
    }

    #[tokio::test]
    async fn a_node_without_a_member_takes_none_and_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_node("m1");
        settings.static_pods.manifests = dir.path().to_owned();
        settings.etcd.snapshots.dir = dir.path().join("snapshots");
        assert_eq!(once(&settings).await, Ok(None));
        let text = include_str!("testdata/etcd.yaml").replace(":2379", ":1");
        std::fs::write(dir.path().join("etcd.yaml"), text).unwrap();
        assert_eq!(
            once(&settings).await,
            Ok(None),
            "that it does not answer is told elsewhere"
        );
    }
}

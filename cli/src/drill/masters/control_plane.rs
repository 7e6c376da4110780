//! 静态 Pod 故障: an API server that hangs is bounced; a scheduler whose certificate has expired is named, and restarted once that is renewed; a
//! controller manager that no bounce mends stops its run; and all API servers are told another etcd, one after the other.

use std::fs;
use std::io;

use blackstart_proto::part::Part;
use blackstart_proto::v1::RunbookRequest;
use blackstart_tests::component::{LAST_WORDS, Mood};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::bed::{Bed, OLD_ETCD};
use super::chronicle::Manifest;
use super::rehearsal::{Rehearsal, Run};
use crate::failure::Failure;

/// What API servers are told in its place.
const NEW_ETCD: &str = "https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379";
/// A certificate that was good until 2021. Its key was thrown away.
const EXPIRED: &str = include_str!("expired.crt");

/// Which master each trouble comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cast {
    hung: usize,
    expired: usize,
    broken: usize,
}

impl Cast {
    /// The same seed is the same cast.
    fn draw(seed: u64) -> Self {
        let mut masters = [0, 1, 2];
        masters.shuffle(&mut StdRng::seed_from_u64(seed));
        let [hung, expired, broken] = masters;
        Self {
            hung,
            expired,
            broken,
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the end of a map_err")]
fn failed(error: io::Error) -> Failure {
    Failure::other(format!("make trouble for the drill: {error}"))
}

/// Bounces of this kind on these masters, and what follows them.
fn steps(kind: &str, part: Part, nodes: &[&str]) -> Vec<String> {
    let each = nodes
        .iter()
        .map(|node| format!("{kind}-{}:{node}", part.as_str()));
    each.chain(["await-control-plane".to_owned()]).collect()
}

/// Holds it; of a saboteur the first trouble alone is enough.
pub(super) async fn hold(rehearsal: &mut Rehearsal, seed: u64, whole_chapter: bool) -> Result<(), Failure> {
    let cast = Cast::draw(seed);
    let names: Vec<_> = rehearsal
        .bed
        .masters
        .iter()
        .map(|master| master.name.clone())
        .collect();
    let before = manifests(&rehearsal.bed, if whole_chapter { NEW_ETCD } else { OLD_ETCD })?;
    let whole = rehearsal.request("control-plane", "a drill");
    rehearsal
        .refused(whole.clone(), &[], "something that is wrong with it")
        .await?;
    hung(rehearsal, (&names[cast.hung], cast.hung), &whole).await?;
    if whole_chapter {
        expired(rehearsal, (&names, cast.expired), &whole).await?;
        broken(rehearsal, (&names[cast.broken], cast.broken), &whole).await?;
        told(rehearsal, &names, &whole).await?;
    }
    rehearsal
        .until_well("every static pod to be well at the end")
        .await?;
    if !rehearsal.is_stuck() {
        rehearsal.chronicle.ended_ms = Some(rehearsal.bed.now_ms());
    }
    rehearsal.chronicle.manifests = before;
    Ok(())
}

/// An API server takes connections and says nothing: a bounce helps.
async fn hung(
    rehearsal: &mut Rehearsal,
    (name, at): (&str, usize),
    whole: &RunbookRequest,
) -> Result<(), Failure> {
    rehearsal.trouble(&format!("the API server of {name} hangs"));
    rehearsal.bed.hang(at, Part::ApiServer)?;
    rehearsal
        .run(Run {
            request: whole.clone(),
            steps: &steps("bounce", Part::ApiServer, &[name]),
            ends: "succeeded",
            says: "",
            two: false,
        })
        .await
}

/// A certificate expires: it is named, and nothing is bounced. Once it is renewed, its kind is restarted everywhere.
async fn expired(
    rehearsal: &mut Rehearsal,
    (names, at): (&[String], usize),
    whole: &RunbookRequest,
) -> Result<(), Failure> {
    let name = &names[at];
    rehearsal.tell(&format!("the certificate of the scheduler of {name} expires"));
    let file = rehearsal.bed.masters[at].certificate(Part::Scheduler);
    let good = fs::read(&file).map_err(failed)?;
    fs::write(&file, EXPIRED).map_err(failed)?;
    let told = rehearsal.bed.masters[at].as_told(&file);
    let missing = format!("{} has expired, at 2021-01-01", told.display());
    rehearsal.refused(whole.clone(), &[], &missing).await?;
    rehearsal.tell("it is renewed");
    fs::write(&file, good).map_err(failed)?;
    let nodes: Vec<_> = names.iter().map(String::as_str).collect();
    let request = RunbookRequest {
        component: Part::Scheduler.as_str().to_owned(),
        restart: true,
        ..whole.clone()
    };
    rehearsal
        .run(Run {
            request,
            steps: &steps("bounce", Part::Scheduler, &nodes),
            ends: "succeeded",
            says: "",
            two: false,
        })
        .await
}

/// A controller manager ends over and over: a bounce does not help, and its last words are told.
async fn broken(
    rehearsal: &mut Rehearsal,
    (name, at): (&str, usize),
    whole: &RunbookRequest,
) -> Result<(), Failure> {
    rehearsal.tell(&format!(
        "the controller manager of {name} does not know a flag of its manifest"
    ));
    rehearsal.bed.masters[at]
        .set(Part::ControllerManager, Mood::Broken)
        .map_err(failed)?;
    rehearsal
        .run(Run {
            request: whole.clone(),
            steps: &steps("bounce", Part::ControllerManager, &[name]),
            ends: "halted",
            says: LAST_WORDS,
            two: false,
        })
        .await?;
    rehearsal.tell("somebody mends that flag");
    rehearsal.bed.masters[at]
        .set(Part::ControllerManager, Mood::Well)
        .map_err(failed)?;
    rehearsal.until_well("the controller manager to be well").await
}

/// All API servers are told another etcd, after the approval of the difference.
async fn told(rehearsal: &mut Rehearsal, names: &[String], whole: &RunbookRequest) -> Result<(), Failure> {
    let nodes: Vec<_> = names.iter().map(String::as_str).collect();
    let request = RunbookRequest {
        etcd_servers: NEW_ETCD.to_owned(),
        ..whole.clone()
    };
    rehearsal
        .run(Run {
            request,
            steps: &steps("set-etcd-servers", Part::ApiServer, &nodes),
            ends: "succeeded",
            says: &format!("- --etcd-servers={OLD_ETCD} + --etcd-servers={NEW_ETCD}"),
            two: false,
        })
        .await
}

/// As they are before anything happens, and as they are to be at the end.
fn manifests(bed: &Bed, etcd: &str) -> Result<Vec<Manifest>, Failure> {
    let mut all = Vec::new();
    for master in &bed.masters {
        for part in Part::ALL {
            let before = fs::read_to_string(master.manifest(part)).map_err(failed)?;
            all.push(Manifest {
                node: master.name.clone(),
                pod: part.pod().to_owned(),
                wanted: before.replace(OLD_ETCD, etcd),
                rewritten: before.contains(OLD_ETCD) && etcd != OLD_ETCD,
                before,
                after: None,
                kept: false,
            });
        }
    }
    Ok(all)
}

/// As they are at the end, beside where the old ones are kept.
pub(super) fn look_at_manifests(bed: &Bed, manifests: &mut [Manifest]) {
    for one in manifests.iter_mut() {
        let master = bed.masters.iter().find(|master| master.name == one.node);
        let (Some(master), Some(part)) = (master, Part::of_pod(&one.pod)) else {
            continue;
        };
        let path = master.manifest(part);
        one.after = fs::read_to_string(&path).ok();
        let runs = fs::read_dir(master.files.etc.join("blackstart-edits"))
            .into_iter()
            .flatten()
            .flatten();
        one.kept = runs.into_iter().any(|run| {
            let kept = run.path().join(path.file_name().unwrap_or_default());
            fs::read_to_string(kept).is_ok_and(|text| text == one.before)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_cast_and_each_trouble_has_a_master_of_its_own() {
        for seed in 0..20 {
            let cast = Cast::draw(seed);
            assert_eq!(cast, Cast::draw(seed));
            let mut masters = [cast.hung, cast.expired, cast.broken];
            masters.sort_unstable();
            assert_eq!(masters, [0, 1, 2]);
        }
    }
}

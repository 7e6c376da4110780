//! etcd 节点故障: one member loses its data and is replaced on its node while others write; or two of three lose theirs, and what is left becomes a
//! cluster again, first of one, by the word of two persons, and then of three; or all three lose it, and what loses least is restored.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use blackstart_proto::v1::RunbookRequest;
use blackstart_tests::masters::store::{self, Acknowledged, Member, Writer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::bed::{Bed, ETCD, Master};
use super::chronicle::Manifest;
use super::rehearsal::{Rehearsal, Run};
use crate::failure::Failure;

/// How a member is replaced.
const REPLACED: [&str; 9] = [
    "snapshot-etcd",
    "snapshot-etcd",
    "bounce-etcd",
    "remove-etcd-member",
    "add-etcd-member",
    "rebuild-etcd-member",
    "await-etcd-sync",
    "promote-etcd-member",
    "await-etcd-healthy",
];
/// How a quorum is restored.
const RESTORED: [&str; 11] = [
    "bounce-etcd",
    "bounce-etcd",
    "snapshot-etcd",
    "fence-etcd",
    "fence-etcd",
    "stop-control-plane",
    "stop-control-plane",
    "stop-control-plane",
    "restore-etcd",
    "await-etcd-healthy",
    "start-control-plane",
];

/// How it is restored where nobody is left.
const ALL_RESTORED: [&str; 11] = [
    "bounce-etcd",
    "bounce-etcd",
    "bounce-etcd",
    "fence-etcd",
    "fence-etcd",
    "stop-control-plane",
    "stop-control-plane",
    "stop-control-plane",
    "restore-etcd",
    "await-etcd-healthy",
    "start-control-plane",
];

#[allow(clippy::needless_pass_by_value, reason = "the end of a map_err")]
fn failed(error: io::Error) -> Failure {
    Failure::other(format!("make trouble for the drill: {error}"))
}

#[allow(clippy::needless_pass_by_value, reason = "the end of a map_err")]
fn of_client(error: anyhow::Error) -> Failure {
    Failure::other(format!("a client of the drill's etcd: {error:#}"))
}

/// The members, as clients reach them.
fn members(bed: &Bed) -> Vec<Member> {
    bed.masters
        .iter()
        .filter_map(|master| master.etcd.clone())
        .collect()
}

async fn missing(member: &Member, keys: &[Acknowledged]) -> Result<Vec<String>, Failure> {
    store::missing(member, keys).await.map_err(of_client)
}

fn owned(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|step| (*step).to_owned()).collect()
}

/// Which masters lose their data, the others after them. The same seed draws the same.
fn draw(seed: u64) -> [usize; 3] {
    let mut masters = [0, 1, 2];
    masters.shuffle(&mut StdRng::seed_from_u64(seed));
    masters
}

/// As a power loss leaves a file that was not synced: full of zeroes. Then its process is killed.
fn damage(bed: &Bed, at: usize) -> Result<(), Failure> {
    let database = bed.masters[at].files.data.join("member/snap/db");
    let size = fs::metadata(&database).map_err(failed)?.len();
    bed.kill(at, ETCD)?;
    fs::write(&database, vec![0; usize::try_from(size).unwrap_or_default()]).map_err(failed)
}

fn name(bed: &Bed, at: usize) -> String {
    bed.masters[at].name.clone()
}

fn of_node(rehearsal: &Rehearsal, at: usize) -> RunbookRequest {
    RunbookRequest {
        runbook: "etcd-member".to_owned(),
        node: name(&rehearsal.bed, at),
        reason: "a drill".to_owned(),
        ..RunbookRequest::default()
    }
}

/// A manifest without what it says of the members, where that is to change.
fn but_for_members(text: &str, changes: bool) -> String {
    let stays = |line: &&str| !(changes && line.contains("--initial-cluster"));
    text.lines().filter(stays).flat_map(|line| [line, "\n"]).collect()
}

/// What is to be kept of every manifest of etcd: `joined` are those that are written anew.
fn manifests(bed: &Bed, joined: &[usize]) -> Result<Vec<Manifest>, Failure> {
    let mut all = Vec::new();
    for (at, master) in bed.masters.iter().enumerate() {
        let before = fs::read_to_string(master.etcd_manifest()).map_err(failed)?;
        all.push(Manifest {
            node: master.name.clone(),
            pod: ETCD.to_owned(),
            wanted: but_for_members(&before, joined.contains(&at)),
            rewritten: joined.contains(&at),
            before,
            after: None,
            kept: false,
        });
    }
    Ok(all)
}

/// As they are at the end, beside where the old ones are kept.
pub(super) fn look_at_manifests(bed: &Bed, manifests: &mut [Manifest]) {
    for one in manifests.iter_mut().filter(|one| one.pod == ETCD) {
        let Some(master) = bed.masters.iter().find(|master| master.name == one.node) else {
            continue;
        };
        let after = fs::read_to_string(master.etcd_manifest()).ok();
        one.after = after.map(|text| but_for_members(&text, one.rewritten));
        let runs = fs::read_dir(master.files.etc.join("blackstart-etcd"))
            .into_iter()
            .flatten()
            .flatten();
        one.kept = runs
            .into_iter()
            .any(|run| fs::read_to_string(run.path().join("etcd.yaml")).is_ok_and(|text| text == one.before));
    }
}

/// The data that a run has set aside is still there.
fn is_set_aside(data: &Path) -> bool {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| name.starts_with("member.set-aside."))
}

/// So many verified snapshots a master has.
fn snapshots(master: &Master) -> usize {
    fs::read_dir(&master.files.snapshots)
        .into_iter()
        .flatten()
        .flatten()
        .count()
}

/// Copies that are to be there at the end: the old data of these masters, and snapshots on so many.
pub(super) fn look_for_copies(bed: &Bed, aside: &[String], with_snapshots: usize) -> Vec<String> {
    let of = |name: &String| bed.masters.iter().find(|master| master.name == *name);
    let mut missing: Vec<_> = aside
        .iter()
        .filter(|name| !of(name).is_some_and(|master| is_set_aside(&master.files.data)))
        .map(|name| format!("the data that {name} had is not kept"))
        .collect();
    let have = bed.masters.iter().filter(|master| snapshots(master) > 0).count();
    if have < with_snapshots {
        missing.push(format!(
            "{have} masters have a snapshot, and {with_snapshots} were to"
        ));
    }
    missing
}

/// What is kept where, once a drill is through.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) aside: Vec<String>,
    pub(super) snapshots: usize,
}

/// Holds the drill of one member.
pub(super) async fn member(rehearsal: &mut Rehearsal, seed: u64, mib: usize) -> Result<Kept, Failure> {
    let [victim, ..] = draw(seed);
    let before = manifests(&rehearsal.bed, &[victim])?;
    let clients = members(&rehearsal.bed);
    let survivors: Vec<_> = (0..3)
        .filter(|at| *at != victim)
        .map(|at| clients[at].clone())
        .collect();
    rehearsal.tell(&format!("{mib} MiB are written"));
    store::fill(&survivors[0], mib).await.map_err(of_client)?;
    let request = of_node(rehearsal, victim);
    rehearsal.refused(request.clone(), &[], "it is well").await?;
    let writer = Writer::start("writer", &survivors).map_err(of_client)?;
    let name = name(&rehearsal.bed, victim);
    rehearsal.trouble(&format!("the database of the member on {name} is damaged"));
    let lost = rehearsal.bed.now_ms();
    damage(&rehearsal.bed, victim)?;
    rehearsal
        .run(Run {
            request,
            steps: &owned(&REPLACED),
            ends: "succeeded",
            says: "its data is set aside",
            two: false,
        })
        .await?;
    rehearsal.until_well("every member to be well at the end").await?;
    let ended = rehearsal.bed.now_ms();
    let keys = writer.stop().await.map_err(of_client)?;
    if !rehearsal.is_stuck() {
        rehearsal.chronicle.ended_ms = Some(ended);
        timings(
            rehearsal,
            0,
            lost,
            [
                "from the loss of a member to one that votes",
                "from the approval to a member that votes",
            ],
        );
        rehearsal.chronicle.lost = missing(&clients[victim], &keys).await?;
    }
    rehearsal.chronicle.acknowledged = keys.len();
    rehearsal.chronicle.manifests = before;
    Ok(Kept {
        aside: vec![name],
        snapshots: 2,
    })
}

/// How long a run took from the trouble, and from its approval.
fn timings(rehearsal: &mut Rehearsal, run: usize, lost: u64, words: [&'static str; 2]) {
    let Some(story) = rehearsal.chronicle.runs.get(run) else {
        return;
    };
    let Some(ended) = story.ended_ms else { return };
    let approved = story.steps.iter().find_map(|step| step.approved_ms);
    let [whole, approval] = words;
    rehearsal
        .chronicle
        .timings
        .push((whole, ended.saturating_sub(lost)));
    if let Some(approved) = approved {
        rehearsal
            .chronicle
            .timings
            .push((approval, ended.saturating_sub(approved)));
    }
}

/// Grows a cluster of one back to three.
async fn grow(rehearsal: &mut Rehearsal, others: &[usize]) -> Result<(), Failure> {
    let mut steps = owned(&REPLACED);
    // What is fenced is not bounced, and its control plane is started at the end.
    steps.retain(|step| step != "bounce-etcd");
    steps.push("start-control-plane".to_owned());
    for (number, at) in others.iter().enumerate() {
        let mut steps = steps.clone();
        if number == 0 {
            // One master alone has a member to take a snapshot of.
            steps.remove(0);
        }
        let request = of_node(rehearsal, *at);
        rehearsal
            .run(Run {
                request,
                steps: &steps,
                ends: "succeeded",
                says: "",
                two: false,
            })
            .await?;
    }
    rehearsal
        .until_well("every static pod to be well at the end")
        .await
}

/// Which revision an approval said that everything goes back to.
fn told(rehearsal: &Rehearsal) -> Option<i64> {
    let said = rehearsal.chronicle.heard.iter().flat_map(|heard| &heard.said);
    said.filter_map(|said| said.split_once("everything after revision "))
        .find_map(|(_, after)| after.split(' ').next()?.parse().ok())
}

/// Which master a run was to restore it on.
fn restored_on(rehearsal: &Rehearsal) -> Option<usize> {
    let mut steps = rehearsal.chronicle.runs.iter().flat_map(|run| &run.steps);
    let node = steps
        .find_map(|step| step.id.strip_prefix("restore-etcd:"))?
        .to_owned();
    rehearsal
        .bed
        .masters
        .iter()
        .position(|master| master.name == node)
}

/// Holds the drill of all of them.
pub(super) async fn all(rehearsal: &mut Rehearsal, seed: u64, mib: usize) -> Result<Kept, Failure> {
    let before = manifests(&rehearsal.bed, &[0, 1, 2])?;
    let [first, ..] = draw(seed);
    let clients = members(&rehearsal.bed);
    rehearsal.tell(&format!("{mib} MiB are written"));
    store::fill(&clients[first], mib).await.map_err(of_client)?;
    let request = rehearsal.request("etcd-all", "a drill");
    rehearsal
        .refused(request.clone(), &[], "a cluster of which no member answers")
        .await?;
    let writer = Writer::start("writer", &clients).map_err(of_client)?;
    let taken = Run {
        request: rehearsal.request("etcd-snapshot", "a drill"),
        steps: &owned(&["snapshot-etcd", "snapshot-etcd"]),
        ends: "succeeded",
        says: "",
        two: false,
    };
    rehearsal.run(taken).await?;
    // Something is to be acknowledged that no snapshot has.
    tokio::time::sleep(Duration::from_millis(500)).await;
    rehearsal.trouble("the databases of all members are damaged");
    let lost = rehearsal.bed.now_ms();
    for at in 0..rehearsal.bed.masters.len() {
        damage(&rehearsal.bed, at)?;
    }
    let keys = writer.stop().await.map_err(of_client)?;
    let run = rehearsal.chronicle.runs.len();
    rehearsal
        .run(Run {
            request,
            steps: &owned(&ALL_RESTORED),
            ends: "succeeded",
            says: "is lost for good",
            two: true,
        })
        .await?;
    timings(
        rehearsal,
        run,
        lost,
        [
            "from the loss of all to a cluster of one",
            "from the approval to a cluster of one",
        ],
    );
    let on = restored_on(rehearsal);
    let others: Vec<_> = (0..3).filter(|at| Some(*at) != on).collect();
    grow(rehearsal, &others).await?;
    let mut kept = Kept {
        aside: Vec::new(),
        snapshots: 2,
    };
    if rehearsal.is_stuck() {
        // The law about the end says so.
    } else if let (Some(on), Some(told)) = (on, told(rehearsal)) {
        kept.aside.push(name(&rehearsal.bed, on));
        let ended = rehearsal.bed.now_ms();
        rehearsal.chronicle.ended_ms = Some(ended);
        rehearsal.chronicle.timings.push((
            "from the loss of all to three members",
            ended.saturating_sub(lost),
        ));
        let (kept, gone): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| key.revision <= told);
        rehearsal.chronicle.lost = missing(&clients[on], &kept).await?;
        let absent = missing(&clients[on], &gone).await?;
        rehearsal.tell(&format!(
            "{} keys were written up to revision {told}; of {} after it, which were told to be lost, {} are not there",
            kept.len(),
            gone.len(),
            absent.len()
        ));
        if absent.len() < gone.len() {
            let more = "more is there than was told: the approval was for another revision".to_owned();
            rehearsal.chronicle.wrong.push(more);
        }
    } else {
        let untold =
            "no approval told from which revision on all is lost, or nothing was restored".to_owned();
        rehearsal.chronicle.wrong.push(untold);
    }
    rehearsal.chronicle.acknowledged = keys.len();
    rehearsal.chronicle.manifests = before;
    Ok(kept)
}

/// Holds the drill of a quorum.
pub(super) async fn quorum(rehearsal: &mut Rehearsal, seed: u64, mib: usize) -> Result<Kept, Failure> {
    let [left, ..] = draw(seed);
    let victims: Vec<_> = (0..3).filter(|at| *at != left).collect();
    let before = manifests(&rehearsal.bed, &[0, 1, 2])?;
    let Some(client) = rehearsal.bed.masters[left].etcd.clone() else {
        return Err(Failure::other("the drill has no etcd"));
    };
    rehearsal.tell(&format!("{mib} MiB are written"));
    store::fill(&client, mib).await.map_err(of_client)?;
    let request = rehearsal.request("etcd-quorum", "a drill");
    rehearsal.refused(request.clone(), &[], "a lost quorum").await?;
    let writer = Writer::start("writer", std::slice::from_ref(&client)).map_err(of_client)?;
    // Something is to be acknowledged before the loss.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let names: Vec<_> = victims.iter().map(|at| name(&rehearsal.bed, *at)).collect();
    rehearsal.trouble(&format!(
        "the databases of the members on {} are damaged",
        names.join(" and ")
    ));
    let lost = rehearsal.bed.now_ms();
    for at in &victims {
        damage(&rehearsal.bed, *at)?;
    }
    rehearsal
        .run(Run {
            request,
            steps: &owned(&RESTORED),
            ends: "succeeded",
            says: "becomes a cluster of one",
            two: true,
        })
        .await?;
    timings(
        rehearsal,
        0,
        lost,
        [
            "from the loss of the quorum to a cluster of one",
            "from the approval to a cluster of one",
        ],
    );
    let keys = writer.stop().await.map_err(of_client)?;
    grow(rehearsal, &victims).await?;
    if !rehearsal.is_stuck() {
        let ended = rehearsal.bed.now_ms();
        rehearsal.chronicle.ended_ms = Some(ended);
        rehearsal.chronicle.timings.push((
            "from the loss of the quorum to three members",
            ended.saturating_sub(lost),
        ));
        rehearsal.chronicle.lost = missing(&client, &keys).await?;
    }
    rehearsal.chronicle.acknowledged = keys.len();
    rehearsal.chronicle.manifests = before;
    Ok(Kept {
        aside: vec![name(&rehearsal.bed, left)],
        snapshots: 1,
    })
}

//! Makes a cluster of one out of what is on this node, with etcd's own tool of the same version.
//!
//! ```text
//!  manifest out ─► nobody holds the database ─► copy of DIRECTORY/snap/db, its pages looked at ─┬─tool, typed arguments──► DATA/restored.RUN
//!                                               or a snapshot, its hash compared ──────────────┘
//!  ─► is it as new as what it is made of? ─► DATA/member ──rename──► DATA/member.set-aside.RUN
//!  ─► DATA/restored.RUN/member ──rename──► DATA/member ─► the new manifest in
//! ```
//! The tool works on a copy, and the old data stays as it was: it is only renamed, once what is restored has been opened. So there is never an
//! instant without a whole copy of the newest data. The revision is raised and what is older marked as compacted where the tool can do that, so
//! that nobody who watches goes on from a revision that is another one now (etcd 3.6 recovery guide; issue 16028). A copy has no hash at its
//! end, so the tool is told not to look for one: it is the file of a member that has ended.
//!
//! That the old data is set aside says that the tool has done its work: so it is told from what lies where how far an attempt came that a crash
//! cut short.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::act::{EtcdRules, OutOf, Restore};
use super::look::{Found, manifest};
use super::rewrite::joining;
use super::snapshot::{self, room};
use super::sources::{MEMBER, database, is_data};
use super::tool::{self, TELLS, words};
use super::wal;
use super::ways::{Ways, gone, off, rename, sync, write_new};

/// A restore reads and writes the whole database, 8 GiB at the most.
const RESTORES: Duration = Duration::from_mins(20);
/// Two files of etcd's log, one of them in advance, which take their room at once (`wal.SegmentSizeBytes`, 64 MB), bytes.
const LOG: u64 = 128 << 20;
/// So far ahead of all that clients have ever seen: etcd's own advice (recovery guide of 3.6).
const BUMP: &str = "1000000000";

/// See the module.
pub(super) async fn restore(
    run: &str,
    cluster_id: u64,
    asked: &Restore,
    rules: &EtcdRules,
) -> Result<String, String> {
    let ways = Ways::of(run, rules)?;
    let tool = tool::of_version(&asked.version, &rules.etcd.tools).await?;
    let (at, out_of, dir) = (
        ways.clone(),
        asked.out_of.clone(),
        rules.etcd.snapshots.dir.clone(),
    );
    let Some(job) = off(move || prepare(&at, cluster_id, out_of.as_ref(), &dir)).await? else {
        return Ok("the data was restored, and its manifest is in place, already".to_owned());
    };
    let stays = format!("its manifest stays out, in {}", ways.kept.display());
    gone(&job.found.pod, Instant::now(), rules)
        .await
        .map_err(|why| format!("{why}; {stays}"))?;
    if !job.is_made {
        let made = make(&ways, &job, asked, &tool, rules).await;
        made.map_err(|why| format!("{why}; nothing was set aside, and {stays}"))?;
    }
    off(move || finish(&ways, &job, &tool)).await
}

/// What is restored, and where.
#[derive(Debug)]
struct Job {
    found: Found,
    /// What the manifest is to say of the members.
    cluster: String,
    source: Source,
    /// Where the tool writes.
    restored: PathBuf,
    /// Where the old data goes.
    aside: PathBuf,
    /// An earlier attempt has done all but to put it in place.
    is_made: bool,
}

#[derive(Debug)]
enum Source {
    /// A database, and the copy that is made of it.
    Database { file: PathBuf, copy: PathBuf },
    /// A file with a hash at its end.
    Snapshot(PathBuf),
}

/// Where the manifest is, and out of what it is restored; `None`: all is done.
fn prepare(
    ways: &Ways,
    cluster_id: u64,
    out_of: Option<&OutOf>,
    snapshots: &Path,
) -> Result<Option<Job>, String> {
    let (old, here) = (manifest(&ways.kept), manifest(&ways.manifests));
    let (found, is_out) = match (old, here) {
        (Ok(old), Err(_)) => (old, true),
        (Ok(old), Ok(_)) if ways.aside(&old.pod.data_dir).exists() => return Ok(None),
        (Ok(_), Ok(here)) => {
            return Err(format!(
                "{} is in place and was out: somebody else has put it there",
                here.file
            ));
        }
        (Err(_), Ok(here)) => (here, false),
        (Err(_), Err(trouble)) => match ways.fenced() {
            // By an earlier run: it stays there, and a copy of it is this run's.
            Some(found) => {
                ways.make()?;
                let copy = ways.kept.join(&found.file);
                write_new(&copy, &found.text)
                    .map_err(|error| format!("write {}: {error}", copy.display()))?;
                (found, true)
            }
            None => return Err(trouble.to_string()),
        },
    };
    let pod = &found.pod;
    let data = &pod.data_dir;
    if let Some(wal) = &pod.wal_dir {
        return Err(format!(
            "its log is in {} (--wal-dir), which a restore would have to replace as well: by hand; nothing was changed",
            wal.display()
        ));
    }
    if !data.is_dir() {
        return Err(format!(
            "{} is not there, as the agent sees it: an agent in a container needs it mounted, and a new disk the directory (mkdir -m 700); nothing was changed",
            data.display()
        ));
    }
    let urls: Vec<_> = pod
        .peer_urls
        .iter()
        .map(|url| format!("{}={url}", pod.name))
        .collect();
    let cluster = urls.join(",");
    let after = joining(&found.text, &cluster)?;
    let aside = ways.aside(data);
    let is_made = aside.exists();
    let (source, needed) = if is_made {
        // It is not looked at any more.
        (Source::Snapshot(PathBuf::new()), 0)
    } else {
        source(ways, data, cluster_id, out_of, snapshots)?
    };
    let free = room(data).map_err(|error| format!("look at {}: {error}", data.display()))?;
    if free < needed {
        return Err(format!(
            "{} has {} MiB left, and what is restored, with a copy to work on and its log, needs {} MiB, {} MiB more: make room first; nothing was changed",
            data.display(),
            free >> 20,
            needed.div_ceil(1 << 20),
            (needed - free).div_ceil(1 << 20)
        ));
    }
    ways.make()?;
    let next = ways.next.join(&found.file);
    write_new(&next, &after).map_err(|error| format!("write {}: {error}", next.display()))?;
    ways.step()?;
    if !is_out {
        ways.take_out(&found.file)?;
        ways.step()?;
    }
    Ok(Some(Job {
        restored: data.join(format!("restored.{}", ways.run)),
        found,
        cluster,
        source,
        aside,
        is_made,
    }))
}

/// Out of what it is restored, and how many bytes have to be free for it. What is not what was asked for is refused.
fn source(
    ways: &Ways,
    data: &Path,
    cluster_id: u64,
    out_of: Option<&OutOf>,
    snapshots: &Path,
) -> Result<(Source, u64), String> {
    let directory = match out_of {
        Some(OutOf::Snapshot { file, revision }) => {
            let all = snapshot::list(snapshots)?;
            let kept = all
                .iter()
                .find(|kept| kept.file == *file && kept.revision <= *revision);
            let kept = kept.ok_or_else(|| {
                format!(
                    "{} has no snapshot {file} of revision {revision}; nothing was changed",
                    snapshots.display()
                )
            })?;
            same_cluster(
                u64::from_str_radix(&kept.cluster_id, 16).unwrap_or_default(),
                cluster_id,
                file,
            )?;
            let path = snapshots.join(file);
            snapshot::verify(&path, &kept.sha256)
                .map_err(|why| format!("{}: {why}; nothing was changed", path.display()))?;
            return Ok((
                Source::Snapshot(path),
                kept.bytes.saturating_mul(2).saturating_add(LOG),
            ));
        }
        Some(OutOf::Data { directory, .. }) if is_data(directory) => directory.as_str(),
        Some(OutOf::Data { directory, .. }) => return Err(format!("{directory:?} is no member's data")),
        None => MEMBER,
    };
    let member = data.join(directory);
    if let (Some(_), Ok((_, its))) = (out_of, wal::ids(&member.join("wal"))) {
        same_cluster(its, cluster_id, directory)?;
    }
    let file = database(&member);
    let size = fs::metadata(&file)
        .map_err(|error| format!("look at {}: {error}; nothing was changed", file.display()))?;
    let copy = data.join(format!("copy.{}.db", ways.run));
    let needed = size.len().saturating_mul(3).saturating_add(LOG);
    Ok((Source::Database { file, copy }, needed))
}

fn same_cluster(its: u64, meant: u64, what: &str) -> Result<(), String> {
    if its == meant || meant == 0 || its == 0 {
        return Ok(());
    }
    Err(format!(
        "{what} is of cluster {its:x}, and {meant:x} is meant: nothing was changed"
    ))
}

/// Has the tool make it, and opens what it has made.
async fn make(ways: &Ways, job: &Job, asked: &Restore, with: &Path, rules: &EtcdRules) -> Result<(), String> {
    let old = job.restored.clone();
    // What an earlier attempt has made is not known to be whole.
    off(move || match fs::remove_dir_all(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", old.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    })
    .await?;
    let (from, of) = match &job.source {
        Source::Snapshot(file) => (file, file),
        Source::Database { file, copy } => {
            let (from, to) = (file.clone(), copy.clone());
            off(move || duplicate(&from, &to)).await?;
            ways.step()?;
            (copy, file)
        }
    };
    let revision = tool::revision(from, &rules.etcd.tools)
        .await
        .map_err(|why| format!("{} is damaged: {why}", of.display()))?;
    if let Some(told) = asked.revision().filter(|told| *told != revision) {
        return Err(format!(
            "its data is of revision {revision}, and {told} was told when it was planned: plan anew"
        ));
    }
    let is_copy = matches!(job.source, Source::Database { .. });
    run_tool(with, from, is_copy, job).await?;
    ways.step()?;
    let made = tool::revision(&database(&job.restored.join(MEMBER)), &rules.etcd.tools).await?;
    if made < revision {
        return Err(format!(
            "{} has made revision {made} of revision {revision}",
            with.display()
        ));
    }
    Ok(())
}

fn duplicate(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("copy {} to {}: {error}", from.display(), to.display());
    fs::copy(from, to).map_err(failed)?;
    File::open(to).and_then(|file| file.sync_all()).map_err(failed)
}

async fn run_tool(tool: &Path, from: &Path, is_copy: bool, job: &Job) -> Result<(), String> {
    let help = words(tool, &["snapshot", "restore", "--help"], TELLS)
        .await
        .unwrap_or_default();
    let text = |path: &Path| path.display().to_string();
    let (from, restored) = (text(from), text(&job.restored));
    let token = format!("blackstart-{:016x}", rand::random::<u64>());
    let pod = &job.found.pod;
    let urls = pod.peer_urls.join(",");
    let mut arguments = vec![
        "snapshot",
        "restore",
        &from,
        "--name",
        &pod.name,
        "--initial-cluster",
        &job.cluster,
        "--initial-cluster-token",
        &token,
        "--initial-advertise-peer-urls",
        &urls,
        "--data-dir",
        &restored,
    ];
    if is_copy {
        arguments.push("--skip-hash-check");
    }
    if help.contains("--bump-revision") && help.contains("--mark-compacted") {
        arguments.extend(["--bump-revision", BUMP, "--mark-compacted"]);
    }
    words(tool, &arguments, RESTORES).await.map(drop)
}

fn finish(ways: &Ways, job: &Job, tool: &Path) -> Result<String, String> {
    let data = &job.found.pod.data_dir;
    let member = data.join(MEMBER);
    let moved = |from: &Path, to: &Path| {
        rename(from, to)
            .and_then(|()| sync(data))
            .map_err(|error| format!("rename {} to {}: {error}", from.display(), to.display()))
    };
    let made = job.restored.join(MEMBER);
    if !job.aside.exists() {
        whole(&job.restored)?;
        if member.exists() {
            moved(&member, &job.aside)?;
        } else {
            // There was none; it says all the same that the tool is done.
            fs::create_dir(&job.aside)
                .and_then(|()| sync(data))
                .map_err(|error| format!("make {}: {error}", job.aside.display()))?;
        }
        ways.step()?;
    }
    if made.exists() {
        moved(&made, &member)?;
        ways.step()?;
    }
    let to = ways.put_in(&job.found.file)?;
    ways.step()?;
    // Both are ours, and of no more use.
    let _left = fs::remove_dir(&job.restored);
    let _left = fs::remove_file(data.join(format!("copy.{}.db", ways.run)));
    Ok(format!(
        "restored with {}; the old data is kept as {}, the old manifest in {}; {} is written anew",
        tool.display(),
        job.aside.display(),
        ways.kept.display(),
        to.display()
    ))
}

/// Everything that the tool has made is on the disk before the old data is touched: the tool itself syncs not all of it.
fn whole(dir: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("sync {}: {error}", dir.display());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            whole(&entry.path())?;
        } else {
            File::open(entry.path())
                .and_then(|file| file.sync_all())
                .map_err(failed)?;
        }
    }
    sync(dir).map_err(failed)
}

#[cfg(test)]
mod tests;

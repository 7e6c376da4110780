//! Sets the member's data aside and has it join its cluster anew.
//!
//! ```text
//!  room? ──► the new manifest, durable, beside `static_pods.held` ──► the old one out, kept there ──► nobody holds the database
//!        ──► DATA/member ──rename──► DATA/member.set-aside.RUN ──► the new manifest in, in one step
//! ```
//! On a node without a manifest the new one is given, and there is nothing to take out. Nothing is deleted: the data is renamed where it is, so that neither a mount nor its owner matters, and the old manifest is kept. Each
//! step is told from what lies where, so that a rebuild that a crash cut short goes on where it was.

use std::io::ErrorKind;
use std::path::Path;

use tokio::time::Instant;

use super::act::{EtcdRules, NewManifest};
use super::look::{Found, manifest, out_for_a_bounce};
use super::pod::{EtcdPod, NoPod};
use super::rewrite::{MOST, joining};
use super::snapshot::room;
use super::trouble::Kind;
use super::ways::{Ways, gone, off, rename, sync, taken_out, write_new};
use crate::watch::static_pods::directory::Places;
use crate::watch::static_pods::manifest::is_pod_name;

/// How a member joins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joins<'a> {
    /// What its manifest says of the members.
    pub(super) initial_cluster: &'a str,
    /// So many bytes have to be free where its data is.
    pub(super) needs_bytes: u64,
    /// What is to be its manifest, where there is none.
    pub(super) manifest: Option<&'a NewManifest>,
}

/// See the module.
pub(super) async fn rebuild(run_id: &str, joins: &Joins<'_>, rules: &EtcdRules) -> Result<String, String> {
    let ways = Ways::of(run_id, rules)?;
    let (at, cluster, places) = (
        ways.clone(),
        joins.initial_cluster.to_owned(),
        rules.places.clone(),
    );
    let (needs_bytes, new) = (joins.needs_bytes, joins.manifest.cloned());
    let prepared = off(move || match new {
        Some(new) => first(&at, &places, &new, needs_bytes),
        None => prepare(&at, &places, &cluster, needs_bytes),
    });
    let prepared = prepared.await?;
    let Prepared::ToDo { found, was_out } = prepared else {
        return Ok("its data was set aside and its manifest is in place already".to_owned());
    };
    let out_since = Instant::now();
    if let Err(why) = gone(&found.pod, out_since, rules).await {
        // What was out before this attempt may be fenced.
        if was_out {
            return Err(why);
        }
        let (at, file) = (ways.clone(), found.file.clone());
        let back = off(move || at.put_back(&file)).await;
        return Err(match back {
            Ok(()) => format!("{why}; its manifest is back, and nothing was set aside"),
            Err(failed) => format!("{why}; its manifest is in {}: {failed}", ways.kept.display()),
        });
    }
    off(move || finish(&ways, &found)).await
}

enum Prepared {
    /// Nothing is left to do.
    Done,
    /// The old manifest is out, the new one is ready.
    ToDo {
        found: Box<Found>,
        /// It was out already.
        was_out: bool,
    },
}

fn prepare(
    ways: &Ways,
    places: &Places,
    initial_cluster: &str,
    needs_bytes: u64,
) -> Result<Prepared, String> {
    let here = manifest(&ways.manifests);
    let old = manifest(&ways.kept);
    if let (Ok(here), Ok(_)) = (&here, &old)
        && here.pod.initial_cluster == initial_cluster
        && here.pod.initial_cluster_state == "existing"
    {
        return Ok(Prepared::Done);
    }
    let (found, was_out) = match (old, here) {
        // Of an earlier attempt.
        (Ok(old), Err(_)) => (old, true),
        (Ok(_), Ok(here)) => {
            return Err(format!(
                "{} is in place and not of this run, whose old manifest is kept in {}: somebody else has put it there",
                here.file,
                ways.kept.display()
            ));
        }
        (Err(_), Ok(here)) => (here, false),
        // Of a run that has fenced it: it stays there, and a copy of it is this run's.
        (Err(_), Err(trouble)) => match taken_out(places) {
            Some((_, found)) => {
                ways.make()?;
                let copy = ways.kept.join(&found.file);
                write_new(&copy, &found.text)
                    .map_err(|error| format!("write {}: {error}", copy.display()))?;
                (found, true)
            }
            None => return Err(trouble.to_string()),
        },
    };
    let after = joining(&found.text, initial_cluster)?;
    may(ways, &found.pod.data_dir, needs_bytes)?;
    ready(ways, &found.file, &after)?;
    if !was_out {
        ways.take_out(&found.file)?;
    }
    Ok(Prepared::ToDo {
        found: Box::new(found),
        was_out,
    })
}

/// The same, of a node that has no manifest of etcd: what is to be its first one is given.
fn first(ways: &Ways, places: &Places, new: &NewManifest, needs_bytes: u64) -> Result<Prepared, String> {
    let NewManifest { file, text } = new;
    if !is_pod_name(file) {
        return Err(format!("{file:?} is no name of a manifest"));
    }
    if text.len() > MOST {
        return Err(format!(
            "what is to be the manifest is larger than {} KiB",
            MOST >> 10
        ));
    }
    match manifest(&ways.manifests) {
        Ok(here) if here.text == *text => return Ok(Prepared::Done),
        Ok(here) => {
            return Err(format!(
                "there is a manifest of etcd, {}: somebody else has put it there; nothing was changed",
                ways.manifests.join(here.file).display()
            ));
        }
        Err(trouble) if trouble.kind == Kind::NoManifest => {
            if let Some(trouble) = out_for_a_bounce(places) {
                return Err(format!("{trouble}; nothing was changed"));
            }
        }
        Err(trouble) => return Err(format!("{trouble}; nothing was changed")),
    }
    let pod = EtcdPod::parse(text).map_err(|why| match why {
        NoPod::NotEtcd => "what is to be the manifest does not run etcd".to_owned(),
        NoPod::Unclear(why) => format!("what is to be the manifest: {why}"),
    })?;
    may(ways, &pod.data_dir, needs_bytes)?;
    ready(ways, file, text)?;
    Ok(Prepared::ToDo {
        found: Box::new(Found {
            file: file.clone(),
            text: text.clone(),
            pod,
        }),
        was_out: true,
    })
}

/// Whether its data may be set aside, and there is room for what comes.
fn may(ways: &Ways, data: &Path, needs_bytes: u64) -> Result<(), String> {
    // What the agent does not see it cannot set aside, and etcd would go on with it.
    if !data.is_dir() {
        return Err(format!(
            "{} is not there, as the agent sees it: an agent in a container needs it mounted, and a new disk the directory (mkdir -m 700); nothing was changed",
            data.display()
        ));
    }
    let free = room(data).map_err(|error| format!("look at {}: {error}", data.display()))?;
    if free < needs_bytes {
        return Err(format!(
            "{} has {} MiB left, and the member needs {} MiB for the cluster's data: make room first; nothing was changed",
            data.display(),
            free >> 20,
            needs_bytes >> 20
        ));
    }
    let aside = ways.aside(data);
    if aside.exists() && data.join("member").exists() {
        return Err(format!(
            "{} and {} are both there: somebody else was at work; nothing was changed",
            aside.display(),
            data.join("member").display()
        ));
    }
    Ok(())
}

/// The new manifest, durable, beside where it is to be.
fn ready(ways: &Ways, file: &str, text: &str) -> Result<(), String> {
    ways.make()?;
    let next = ways.next.join(file);
    write_new(&next, text).map_err(|error| format!("write {}: {error}", next.display()))
}

fn finish(ways: &Ways, found: &Found) -> Result<String, String> {
    let data = &found.pod.data_dir;
    let aside = ways.aside(data);
    let mut told = Vec::new();
    for (from, to) in [(data.join("member"), aside.clone())]
        .into_iter()
        .chain(found.pod.wal_dir.iter().map(|wal| {
            let to = wal.with_file_name(format!(
                "{}.set-aside.{}",
                wal.file_name().unwrap_or_default().display(),
                ways.run
            ));
            (wal.clone(), to)
        }))
    {
        match rename(&from, &to) {
            Ok(()) => {
                if let Some(parent) = to.parent() {
                    sync(parent).map_err(|error| format!("sync {}: {error}", parent.display()))?;
                }
                told.push(format!("{} is kept as {}", from.display(), to.display()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!(
                    "set {} aside: {error}; its manifest is in {}, and this may be tried again",
                    from.display(),
                    ways.kept.display()
                ));
            }
        }
    }
    let to = ways.put_in(&found.file)?;
    if told.is_empty() {
        told.push("there was no data".to_owned());
    }
    let old = ways.kept.join(&found.file);
    let how = if old.exists() {
        format!("anew, the old one is in {}", ways.kept.display())
    } else {
        "where there was none".to_owned()
    };
    Ok(format!("{}; {} is written {how}", told.join(", "), to.display()))
}

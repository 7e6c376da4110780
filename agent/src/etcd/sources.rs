//! Out of what a cluster could be restored on this node: data directories, also those that runs have set aside, and snapshots. Changes nothing.
//!
//! etcd's own tool tells the revision of a database, after a look at every page; a snapshot is read again, and its hash compared. A database that is
//! held open is looked at through a copy: a member that was started without a quorum runs and answers nobody, since etcd serves its clients only
//! once the cluster has taken note of it (`ReadyNotify`, server/embed/serve.go). What is in it is looked at once more when it is restored, which is
//! after etcd has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use blackstart_proto::v1 as wire;
use tokio::task::spawn_blocking;

use super::look::{Found, manifest};
use super::snapshot::room;
use super::ways::{is_held, off, taken_out};
use super::{snapshot, tool, unix_ms, wal};
use crate::config::{EtcdSettings, Settings};
use crate::watch::static_pods::directory::Places;
use crate::watch::static_pods::manifest::is_pod_name;

/// Where etcd looks for its data, below `--data-dir`.
pub(super) const MEMBER: &str = "member";
/// How what runs have set aside is called.
const ASIDE: &str = "member.set-aside.";
/// What a database is copied to that is held open, in its data directory.
const COPY: &str = "blackstart-look.db";
/// So much is left beside a copy, bytes: etcd writes its log in segments of this size.
const MARGIN: u64 = 64 << 20;
/// More than this are not opened: each takes as long as a read of its database.
const MOST: usize = 16;

/// Everything that there is.
pub(super) async fn search(settings: &Settings) -> wire::EtcdFound {
    let (places, etcd) = (Places::of(&settings.static_pods), settings.etcd.clone());
    let on_disk = spawn_blocking(move || {
        let found = manifest(&places.manifests).or_else(|trouble| {
            let taken = taken_out(&places).map(|(_, found)| found);
            taken.ok_or(trouble)
        });
        let snapshots = snapshots(&etcd);
        (found, snapshots)
    })
    .await;
    let Ok((found, snapshots)) = on_disk else {
        return wire::EtcdFound {
            trouble: "the look was broken off".to_owned(),
            ..wire::EtcdFound::default()
        };
    };
    let mut told = wire::EtcdFound::default();
    match found {
        Ok(found) => {
            for name in data_dirs(&found.pod.data_dir) {
                told.sources.push(data(&found, &name, &settings.etcd).await);
            }
        }
        Err(trouble) => told.trouble = trouble.to_string(),
    }
    match snapshots {
        Ok(snapshots) => {
            for snapshot in snapshots {
                told.sources.push(exactly(snapshot, &settings.etcd).await);
            }
        }
        Err(why) => told.trouble = why,
    }
    told
}

/// The directories with a member's data, those that were set aside last first.
fn data_dirs(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_data(name))
        .filter(|name| database(&data.join(name)).exists())
        .map(|name| (name != MEMBER, u64::MAX - written(&data.join(&name)), name))
        .collect();
    all.sort();
    all.truncate(MOST);
    all.into_iter().map(|(.., name)| name).collect()
}

/// The name is that of a directory with a member's data, and of nothing beside or above it.
pub(super) fn is_data(name: &str) -> bool {
    name == MEMBER || name.strip_prefix(ASIDE).is_some_and(is_pod_name)
}

/// Where its database is.
pub(super) fn database(member: &Path) -> PathBuf {
    member.join("snap/db")
}

fn written(member: &Path) -> u64 {
    let modified = fs::metadata(database(member)).and_then(|seen| seen.modified());
    let since = modified.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
    let millis = since.unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or_default()
}

async fn data(found: &Found, name: &str, etcd: &EtcdSettings) -> wire::EtcdSource {
    let pod = &found.pod;
    let member = pod.data_dir.join(name);
    let database = database(&member);
    let log = pod.wal_dir.clone().filter(|_| name == MEMBER);
    let log = log.unwrap_or_else(|| member.join("wal"));
    let written_unix_ms = written(&member);
    let opened = match is_held(&database) {
        Ok(false) => tool::revision(&database, &etcd.tools).await,
        Ok(true) => through_a_copy(&database, &pod.data_dir, etcd).await,
        Err(why) => Err(why),
    };
    wire::EtcdSource {
        kind: wire::EtcdSourceKind::Data.into(),
        name: name.to_owned(),
        path: member.display().to_string(),
        cluster_id: wal::ids(&log).map_or(0, |(_, cluster)| cluster),
        revision: opened.as_ref().copied().unwrap_or_default(),
        bytes: fs::metadata(&database).map_or(0, |seen| seen.len()),
        written_unix_ms,
        age_ms: unix_ms().abs_diff(written_unix_ms),
        version: version(&pod.image).unwrap_or_default().to_owned(),
        damage: opened.err().unwrap_or_default(),
    }
}

/// The revision of a database that somebody has open, and that nobody writes to as long as there is no quorum. A copy that was torn all the same does
/// not open, or tells another revision than is found when it is restored, which is refused.
async fn through_a_copy(database: &Path, data: &Path, etcd: &EtcdSettings) -> Result<i64, String> {
    let (from, copy, at) = (database.to_owned(), data.join(COPY), data.to_owned());
    let made = off(move || {
        let bytes = fs::metadata(&from).map_or(0, |seen| seen.len());
        let free = room(&at).map_err(|error| format!("look at {}: {error}", at.display()))?;
        if free < bytes.saturating_add(MARGIN) {
            return Err(format!(
                "etcd runs with it and answers nobody; to look at a copy {} MiB are needed, and {} are left",
                bytes.saturating_add(MARGIN).div_ceil(1 << 20),
                free >> 20
            ));
        }
        fs::copy(&from, &copy).map_err(|error| format!("copy {}: {error}", from.display()))?;
        Ok(copy)
    })
    .await?;
    let revision = tool::revision(&made, &etcd.tools).await;
    // The next look writes over what is left.
    let _left = off(move || fs::remove_file(&made).map_err(|error| error.to_string())).await;
    revision.map_err(|why| format!("etcd runs with it and answers nobody; of a copy: {why}"))
}

/// `registry.k8s.io/etcd:3.5.16-0` → `3.5.16`.
fn version(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    let (_, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
    let tag = tag.trim_start_matches('v');
    let tag = tag.split('-').next()?;
    let is_version = tag.split('.').count() >= 2 && tag.split('.').all(|part| part.parse::<u32>().is_ok());
    is_version.then_some(tag)
}

/// Those that there are, as they were written down, each with what is wrong with it.
fn snapshots(etcd: &EtcdSettings) -> Result<Vec<wire::EtcdSource>, String> {
    let dir = &etcd.snapshots.dir;
    let kept = snapshot::list(dir)?;
    let of = |kept: &snapshot::Kept| {
        let told = kept.to_wire();
        let path = dir.join(&kept.file);
        wire::EtcdSource {
            kind: wire::EtcdSourceKind::Snapshot.into(),
            name: told.file,
            path: path.display().to_string(),
            cluster_id: told.cluster_id,
            revision: told.revision,
            bytes: told.bytes,
            written_unix_ms: told.taken_at_unix_ms,
            age_ms: told.age_ms,
            version: told.version,
            damage: snapshot::verify(&path, &kept.sha256).err().unwrap_or_default(),
        }
    };
    Ok(kept.iter().map(of).collect())
}

/// What was written down is the revision before it was taken, and what was written meanwhile is in it as well.
async fn exactly(mut snapshot: wire::EtcdSource, etcd: &EtcdSettings) -> wire::EtcdSource {
    if snapshot.damage.is_empty() {
        match tool::revision(Path::new(&snapshot.path), &etcd.tools).await {
            Ok(revision) => snapshot.revision = revision,
            Err(why) => snapshot.damage = why,
        }
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_tells_the_version_where_it_has_a_tag_of_one() {
        for (image, expected) in [
            ("registry.k8s.io/etcd:3.5.16-0", Some("3.5.16")),
            ("quay.io/coreos/etcd:v3.4.23", Some("3.4.23")),
            ("r:5000/etcd:3.4.13-0@sha256:abc", Some("3.4.13")),
            ("r:5000/etcd", None),
            ("etcd:latest", None),
            ("", None),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
    }

    #[tokio::test]
    async fn damaged_and_foreign_things_are_told_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("manifests")).unwrap();
        let text =
            include_str!("testdata/etcd.yaml").replace("/data/etcd", &at("etcd").display().to_string());
        fs::write(at("manifests/etcd.yaml"), text).unwrap();
        for name in [
            "member",
            "member.set-aside.etcd-member-1",
            "restored.x/member",
            "member.set-aside.a b",
        ] {
            fs::create_dir_all(at("etcd").join(name).join("snap")).unwrap();
            fs::write(at("etcd").join(name).join("snap/db"), [0; 4096]).unwrap();
        }
        let mut settings = Settings::for_node("m");
        settings.static_pods.manifests = at("manifests");
        settings.static_pods.held = at("held");
        settings.etcd.snapshots.dir = at("snapshots");
        settings.etcd.tools = vec!["/bin/false".into()];
        let found = search(&settings).await;
        let names: Vec<_> = found.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["member", "member.set-aside.etcd-member-1"]);
        assert!(
            found
                .sources
                .iter()
                .all(|source| source.damage.contains("failed")),
            "{found:?}"
        );
        assert_eq!(found.trouble, "");
        fs::remove_file(at("manifests/etcd.yaml")).unwrap();
        assert!(search(&settings).await.trouble.contains("no manifest"));
    }
}

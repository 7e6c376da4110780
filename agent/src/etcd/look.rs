//! Everything that is told of the member on this node. Changes nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::etcd::{Member, StatusResponse};
use blackstart_proto::v1 as wire;
use tokio::task::spawn_blocking;

use super::client::Client;
use super::fence::stopped;
use super::pod::{EtcdPod, NoPod};
use super::snapshot::{self, room};
use super::trouble::{Kind, Trouble, unix_seconds};
use super::ways::{runs, taken_out};
use crate::config::Settings;
use crate::watch::certificates::read::certificates;
use crate::watch::static_pods::directory::{self, Places};

/// The manifest that runs etcd, as it lies where the kubelet looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name in the directory.
    pub(crate) file: String,
    /// All of it.
    pub(crate) text: String,
    pub(crate) pod: EtcdPod,
}

/// Looks for it. Blocks.
///
/// # Errors
/// There is none, or it does not say what is needed.
pub(crate) fn manifest(dir: &Path) -> Result<Found, Trouble> {
    let none = || {
        Trouble::new(
            Kind::NoManifest,
            format!("no manifest in {} runs etcd", dir.display()),
        )
    };
    let files = directory::names(dir).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            none()
        } else {
            Trouble::new(Kind::Manifest, format!("read {}: {error}", dir.display()))
        }
    })?;
    let mut unclear = None;
    for file in files {
        let Ok(text) = directory::text(dir, &file) else {
            continue;
        };
        match EtcdPod::parse(&text) {
            Ok(pod) => return Ok(Found { file, text, pod }),
            Err(NoPod::NotEtcd) => {}
            Err(NoPod::Unclear(why)) => {
                let why = format!("{}: {why}", dir.join(&file).display());
                unclear = Some(Trouble::new(Kind::Manifest, why));
            }
        }
    }
    Err(unclear.unwrap_or_else(none))
}

/// A node whose manifest is out for a moment has not lost it. Blocks.
pub(super) fn out_for_a_bounce(places: &Places) -> Option<Trouble> {
    let pods = std::fs::read_dir(&places.held).ok()?;
    let held = pods
        .filter_map(|pod| Some(pod.ok()?.path()))
        .find_map(|pod| Some(pod.join(manifest(&pod).ok()?.file)))?;
    Some(Trouble::new(
        Kind::Other,
        format!(
            "its manifest of etcd is out for a bounce, in {}, and is put back",
            held.display()
        ),
    ))
}

/// Looks at the member and what belongs to it, for `within` at most.
pub async fn look(settings: &Settings, within: Duration) -> wire::EtcdReport {
    let places = Places::of(&settings.static_pods);
    let (dir, snapshots) = (places.manifests.clone(), settings.etcd.snapshots.clone());
    let on_disk = spawn_blocking(move || {
        let found = manifest(&dir).map_err(|trouble| out_for_a_bounce(&places).unwrap_or(trouble));
        let mut report = wire::EtcdReport::default();
        match snapshot::list(&snapshots.dir) {
            Ok(kept) => report.snapshots = kept.iter().map(snapshot::Kept::to_wire).collect(),
            Err(why) => report.snapshot_trouble = why,
        }
        report.snapshot_bytes_available = room(&snapshots.dir).unwrap_or_default();
        report.stopped = stopped(&runs(&places));
        // One that a run has fenced is told of as well: it knows whose it was.
        let fenced = found.is_err().then(|| taken_out(&places)).flatten();
        let of = match (&found, &fenced) {
            (Ok(found), _) => Some((found, dir.join(&found.file), "")),
            (Err(_), Some((run, found))) => {
                Some((found, runs(&places).join(run).join(&found.file), run.as_str()))
            }
            (Err(_), None) => None,
        };
        if let Some((found, path, run)) = of {
            let pod = &found.pod;
            report.manifest = Some(wire::EtcdManifest {
                set_aside_by: run.to_owned(),
                ..told(pod, &path)
            });
            report.certificates = pod
                .certificates
                .iter()
                .map(PathBuf::as_path)
                .map(certificate)
                .collect();
            report.has_data = pod.data_dir.join("member").is_dir();
            report.data_bytes_available = room(&pod.data_dir).unwrap_or_default();
        }
        (found, report)
    })
    .await;
    let Ok((found, mut report)) = on_disk else {
        return wire::EtcdReport {
            trouble: Some(Trouble::new(Kind::Other, "the look was broken off".to_owned()).to_wire()),
            ..wire::EtcdReport::default()
        };
    };
    let asked = async {
        let client = Client::connect(&found?.pod, &settings.etcd, within).await?;
        let said = client.status().await?;
        // A learner tells how it is, and refuses to say who else there is.
        let members = if said.is_learner {
            Ok(Vec::new())
        } else {
            client.members().await
        };
        Ok::<_, Trouble>((said, members))
    };
    match asked.await {
        Ok((said, members)) => {
            report.status = Some(status(&said));
            match members {
                Ok(members) => report.members = members.into_iter().map(member).collect(),
                Err(trouble) => report.trouble = Some(trouble.to_wire()),
            }
        }
        Err(trouble) => report.trouble = Some(trouble.to_wire()),
    }
    report
}

fn told(pod: &EtcdPod, path: &Path) -> wire::EtcdManifest {
    wire::EtcdManifest {
        path: path.display().to_string(),
        name: pod.name.clone(),
        data_dir: pod.data_dir.display().to_string(),
        client_url: pod.endpoints().first().cloned().unwrap_or_default(),
        peer_urls: pod.peer_urls.clone(),
        initial_cluster: pod.initial_cluster.clone(),
        initial_cluster_state: pod.initial_cluster_state.clone(),
        image: pod.image.clone(),
        set_aside_by: String::new(),
        wal_dir: pod
            .wal_dir
            .as_ref()
            .map(|dir| dir.display().to_string())
            .unwrap_or_default(),
    }
}

fn certificate(path: &Path) -> wire::EtcdCertificate {
    let mut told = wire::EtcdCertificate {
        path: path.display().to_string(),
        ..wire::EtcdCertificate::default()
    };
    match certificates(path) {
        Ok(found) => {
            told.not_after_unix = found.iter().map(|one| one.not_after).min().unwrap_or_default();
            told.expired = told.not_after_unix != 0 && told.not_after_unix < unix_seconds();
        }
        Err(why) => told.trouble = why,
    }
    told
}

pub(crate) fn status(said: &StatusResponse) -> wire::EtcdStatus {
    let header = said.header.unwrap_or_default();
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    wire::EtcdStatus {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        version: said.version.clone(),
        leader: said.leader,
        term: said.raft_term,
        raft_index: said.raft_index,
        applied_index: said.raft_applied_index,
        revision: header.revision,
        db_bytes: bytes(said.db_size),
        db_bytes_in_use: bytes(said.db_size_in_use),
        is_learner: said.is_learner,
        alarms: alarms(said).collect(),
    }
}

pub(super) fn alarms(said: &StatusResponse) -> impl Iterator<Item = wire::EtcdAlarm> {
    said.errors.iter().filter_map(|error| alarm(error))
}

/// An alarm as a status tells it: `memberID:10276657743932975437 alarm:NOSPACE `. The call that lists alarms goes through Raft, so it
/// needs a quorum and writes to the log; this does neither.
fn alarm(error: &str) -> Option<wire::EtcdAlarm> {
    let mut words = error.split_whitespace();
    let (first, second) = (words.next()?, words.next());
    let (member, alarm) = match (first.strip_prefix("memberID:"), second) {
        (Some(member), Some(second)) => (member.parse().ok()?, second.strip_prefix("alarm:")?),
        // The member of this id has the number 0, which is left out.
        _ => (0, first.strip_prefix("alarm:")?),
    };
    Some(wire::EtcdAlarm {
        member_id: member,
        alarm: alarm.to_owned(),
    })
}

fn member(member: Member) -> wire::EtcdMember {
    wire::EtcdMember {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_from_other_errors_of_a_status() {
        let told = alarm("memberID:10276657743932975437 alarm:NOSPACE ").unwrap();
        assert_eq!(
            (told.member_id, told.alarm.as_str()),
            (10_276_657_743_932_975_437, "NOSPACE")
        );
        for none in [
            "etcdserver: no leader",
            "",
            "memberID:x alarm:NOSPACE",
            "memberID:1",
        ] {
            assert_eq!(alarm(none), None, "{none}");
        }
    }

    #[test]
    fn the_manifest_of_etcd_is_found_by_what_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let none = manifest(dir.path()).unwrap_err();
        assert_eq!(none.kind, Kind::NoManifest);
        std::fs::write(
            dir.path().join("a.yaml"),
            "metadata: {name: etcd}\nspec: {containers: [{command: [pause]}]}",
        )
        .unwrap();
        let unclear = "metadata: {name: b}\nspec: {containers: [{command: [etcd, --name=x]}]}";
        std::fs::write(dir.path().join("b.yaml"), unclear).unwrap();
        let error = manifest(dir.path()).unwrap_err();
        assert_eq!(error.kind, Kind::Manifest);
        assert!(error.detail.contains("b.yaml: --data-dir is missing"), "{error}");
        std::fs::write(
            dir.path().join("biz-etcd.yaml"),
            include_str!("testdata/etcd.yaml"),
        )
        .unwrap();
        assert_eq!(manifest(dir.path()).unwrap().file, "biz-etcd.yaml");
        assert_eq!(
            manifest(Path::new("/nowhere")).unwrap_err().kind,
            Kind::NoManifest
        );
    }
}

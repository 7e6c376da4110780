//! Snapshots of the member's database, in a directory of their own.
//!
//! ```text
//!  Maintenance.Snapshot ──pieces, no faster than `rate`──► NAME.db.partial ──the last 32 bytes are the SHA-256 of the rest──► fsync
//!                                                                                           ──► NAME.db ──► NAME.json
//! ```
//! etcd sends its bbolt file, whose pages are 512 bytes or a multiple, and appends the hash of it (server/etcdserver/api/v3rpc/maintenance.go;
//! `etcdctl snapshot save` checks `size % 512 == 32`). Both stay in the file, so that `etcdutl snapshot restore` verifies it again. What
//! has no `.json` beside it was not finished: it is not listed, and goes with the next one. 0600: it has every Secret of the cluster.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use blackstart_proto::v1 as wire;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::Client;
use super::unix_ms;
use crate::config::EtcdSettings;

/// A page of bbolt is a multiple of this, bytes.
const SECTOR: u64 = 512;
/// A stream that brings nothing for so long is given up.
const STALLS: Duration = Duration::from_secs(30);
/// Pieces on their way to the disk.
const PIECES: usize = 8;
/// Read at once when a file is read again, bytes.
const BUFFER: usize = 1 << 20;
/// No larger piece is given away at once, bytes: a message has 1 MiB at the most.
const PIECE: u32 = 512 << 10;
/// The ending of what is not finished.
const PARTIAL: &str = "partial";

/// A snapshot as its `.json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The file's name, beside.
    pub file: String,
    /// In hexadecimal digits, as `etcdctl` writes it.
    pub cluster_id: String,
    /// The member that it is of.
    pub member: String,
    /// The revision before it was taken: it has all of that.
    pub revision: i64,
    /// The whole file, with the hash at its end.
    pub bytes: u64,
    /// By the node's wall clock.
    pub taken_at_unix_ms: u64,
    /// Of the database, in hexadecimal digits.
    pub sha256: String,
    /// The member's version: whoever restores it needs a tool of this.
    pub version: String,
}

impl Kept {
    pub(crate) fn to_wire(&self) -> wire::EtcdSnapshot {
        wire::EtcdSnapshot {
            file: self.file.clone(),
            cluster_id: u64::from_str_radix(&self.cluster_id, 16).unwrap_or_default(),
            member: self.member.clone(),
            revision: self.revision,
            bytes: self.bytes,
            taken_at_unix_ms: self.taken_at_unix_ms,
            sha256: self.sha256.clone(),
            version: self.version.clone(),
            // One from the future is of a clock that was wrong, then or now: it is not taken for a fresh one.
            age_ms: unix_ms().abs_diff(self.taken_at_unix_ms),
        }
    }
}

/// Takes one, verified; what was taken.
pub(crate) async fn take(
    client: &Client,
    member: &str,
    cluster_id: u64,
    settings: &EtcdSettings,
) -> Result<Kept, String> {
    let told = |error: super::trouble::Trouble| error.to_string();
    let status = client.status().await.map_err(told)?;
    let header = status.header.unwrap_or_default();
    if cluster_id != 0 && header.cluster_id != cluster_id {
        return Err(format!(
            "this member is of cluster {:x}, and a snapshot of {cluster_id:x} was asked for",
            header.cluster_id
        ));
    }
    let rules = settings.snapshots.clone();
    let size = u64::try_from(status.db_size).unwrap_or_default();
    let dir = rules.dir.clone();
    let prepared = spawn_blocking(move || {
        let turn = turn(&dir)?;
        prepare(&dir, size, rules.min_free)?;
        Ok::<_, String>(turn)
    });
    let _turn = prepared.await.map_err(|_| "it was broken off".to_owned())??;
    let taken_at_unix_ms = unix_ms();
    let stem = format!(
        "{:016x}-{}-{taken_at_unix_ms}",
        header.cluster_id, header.revision
    );
    let stream = client.snapshot().await.map_err(told)?;
    let dir = settings.snapshots.dir.clone();
    let (bytes, sha256) = receive(stream, &dir, &stem, settings.snapshots.rate).await?;
    let kept = Kept {
        file: format!("{stem}.db"),
        cluster_id: format!("{:x}", header.cluster_id),
        member: member.to_owned(),
        revision: header.revision,
        bytes,
        taken_at_unix_ms,
        sha256,
        version: status.version,
    };
    let (record, keep) = (kept.clone(), settings.snapshots.keep);
    let written = spawn_blocking(move || {
        write_down(&dir, &stem, &record)?;
        retain(&dir, keep)
    });
    match written.await {
        Ok(Ok(())) => Ok(kept),
        Ok(Err(error)) => Err(format!("write down what was taken: {error}")),
        Err(_) => Err("it was broken off".to_owned()),
    }
}

/// One is taken at a time: what is not finished is of nobody then. Given up with what is returned.
fn turn(dir: &Path) -> Result<File, String> {
    let failed = |error: io::Error| format!("prepare {}: {error}", dir.display());
    // One that is there already has the mode that somebody gave it.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(failed)?;
    let turn = File::open(dir).map_err(failed)?;
    flock(&turn, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(turn)
}

/// The directory, without what was not finished, and with room.
fn prepare(dir: &Path, size: u64, min_free: u64) -> Result<(), String> {
    let failed = |error: io::Error| format!("prepare {}: {error}", dir.display());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_partial = path.extension().is_some_and(|ending| ending == PARTIAL);
        let is_nameless =
            path.extension().is_some_and(|ending| ending == "db") && !path.with_extension("json").exists();
        if is_partial || is_nameless {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    let free = room(dir).map_err(failed)?;
    let needed = size.saturating_add(min_free);
    if free < needed {
        return Err(format!(
            "{} has {} MiB left, and a snapshot of {} MiB has to leave {} MiB free (etcd.snapshots.min_free): make room, or set etcd.snapshots.dir to another disk",
            dir.display(),
            free >> 20,
            size >> 20,
            min_free >> 20
        ));
    }
    Ok(())
}

/// Bytes that are left on a path's file system; of a directory that is still to be made, on that of its parents.
pub(super) fn room(path: &Path) -> io::Result<u64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let seen = rustix::fs::statvfs(there)?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

/// Writes the stream into its file, as fast as it may. How large it is, and the hash of the database in it.
async fn receive(
    mut stream: tonic::Streaming<blackstart_proto::etcd::SnapshotResponse>,
    dir: &Path,
    stem: &str,
    rate: u64,
) -> Result<(u64, String), String> {
    let partial = dir.join(format!("{stem}.db.{PARTIAL}"));
    let (to_disk, pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let (path, whole) = (partial.clone(), dir.join(format!("{stem}.db")));
    let writing = spawn_blocking(move || write(&path, &whole, pieces));
    let begun = Instant::now();
    let mut bytes: u64 = 0;
    let received = loop {
        match timeout(STALLS, stream.message()).await {
            Ok(Ok(Some(piece))) => {
                bytes = bytes.saturating_add(piece.blob.len() as u64);
                if to_disk.send(piece.blob).await.is_err() {
                    break Ok(());
                }
                sleep_until(begun + due(bytes, rate)).await;
            }
            Ok(Ok(None)) => break Ok(()),
            Ok(Err(status)) => break Err(format!("etcd broke the stream off: {}", status.message())),
            Err(_) => break Err(format!("etcd sent nothing for {} s", STALLS.as_secs())),
        }
    };
    if let Err(why) = received {
        // An empty piece says that it is not whole.
        let _gone = to_disk.send(Vec::new()).await;
        drop(to_disk);
        let _removed = writing.await;
        return Err(why);
    }
    drop(to_disk);
    match writing.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("writing was broken off".to_owned()),
    }
}

/// When so many bytes may have been written.
fn due(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The blocking half: pieces → a file that has its name only when it is whole.
fn write(partial: &Path, whole: &Path, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<(u64, String), String> {
    let written = (|| {
        let failed = |error: io::Error| format!("write {}: {error}", partial.display());
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(partial)
            .map_err(failed)?;
        let mut hash = Tail::new();
        while let Some(piece) = pieces.blocking_recv() {
            if piece.is_empty() {
                return Err("the stream broke".to_owned());
            }
            hash.update(&piece);
            file.write_all(&piece).map_err(failed)?;
        }
        let done = hash.finish()?;
        file.sync_all().map_err(failed)?;
        fs::rename(partial, whole).map_err(failed)?;
        Ok(done)
    })();
    if written.is_err() {
        let _gone = fs::remove_file(partial);
    }
    written
}

/// The hash of all but the last 32 bytes, which have to be that hash.
struct Tail {
    hash: Context,
    held: Vec<u8>,
    bytes: u64,
}

impl Tail {
    fn new() -> Self {
        Self {
            hash: Context::new(&SHA256),
            held: Vec::new(),
            bytes: 0,
        }
    }

    fn update(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        self.held.extend_from_slice(piece);
        let sure = self.held.len().saturating_sub(SHA256_OUTPUT_LEN);
        self.hash.update(&self.held[..sure]);
        self.held.drain(..sure);
    }

    /// The size, and the hash in hexadecimal digits.
    fn finish(self) -> Result<(u64, String), String> {
        if self.bytes % SECTOR != SHA256_OUTPUT_LEN as u64 || self.bytes < SECTOR {
            return Err(format!(
                "{} bytes are no database with a hash behind it: it was cut off",
                self.bytes
            ));
        }
        let found = self.hash.finish();
        if found.as_ref() != self.held.as_slice() {
            return Err(format!(
                "the hash behind the database is {}, and that of the database {}: it is damaged",
                HEXLOWER.encode(&self.held),
                HEXLOWER.encode(found.as_ref())
            ));
        }
        Ok((self.bytes, HEXLOWER.encode(found.as_ref())))
    }
}

fn write_down(dir: &Path, stem: &str, kept: &Kept) -> io::Result<()> {
    let partial = dir.join(format!("{stem}.json.{PARTIAL}"));
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(&serde_json::to_vec_pretty(kept)?)?;
    file.sync_all()?;
    fs::rename(&partial, dir.join(format!("{stem}.json")))?;
    File::open(dir)?.sync_all()
}

/// The snapshots that were finished, the newest first; none where there is no directory. Blocks.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn list(dir: &Path) -> Result<Vec<Kept>, String> {
    let failed = |error: io::Error| format!("read {}: {error}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut kept = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "json")
            && let Some(found) = read_record(&path)
        {
            kept.push(found);
        }
    }
    kept.sort_by(|a, b| (b.taken_at_unix_ms, &b.file).cmp(&(a.taken_at_unix_ms, &a.file)));
    Ok(kept)
}

/// A record whose file is there and has its size.
fn read_record(path: &Path) -> Option<Kept> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(16 << 10)
        .read_to_string(&mut text)
        .ok()?;
    let kept: Kept = serde_json::from_str(&text).ok()?;
    // The name becomes a path.
    let is_beside = path.with_extension("db").file_name()?.to_str()? == kept.file;
    let seen = fs::symlink_metadata(path.with_extension("db")).ok()?;
    (is_beside && seen.is_file() && seen.len() == kept.bytes).then_some(kept)
}

/// Removes the oldest of each cluster id beyond `keep`. Those of another id are left: after a restore they are the last of what was.
fn retain(dir: &Path, keep: u32) -> io::Result<()> {
    let mut all = list(dir).map_err(io::Error::other)?;
    // A clock that fell back makes the newest the oldest; a cluster's revision only rises.
    all.sort_by_key(|kept| std::cmp::Reverse((kept.revision, kept.taken_at_unix_ms)));
    for old in beyond(&all, keep) {
        // The record first: a file without one goes with the next snapshot.
        fs::remove_file(dir.join(Path::new(&old.file).with_extension("json")))?;
        fs::remove_file(dir.join(&old.file))?;
    }
    File::open(dir)?.sync_all()
}

/// Those that go. Pure.
fn beyond(newest_first: &[Kept], keep: u32) -> Vec<&Kept> {
    let mut seen: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
    newest_first
        .iter()
        .filter(|kept| {
            let count = seen.entry(&kept.cluster_id).or_default();
            *count += 1;
            *count > keep.max(1)
        })
        .collect()
}

/// A piece of one that is listed, and the whole file's size. Blocks.
///
/// # Errors
/// There is none of this name, or it cannot be read.
pub(crate) fn piece(dir: &Path, file: &str, offset: u64, at_most: u32) -> Result<(Vec<u8>, u64), String> {
    let kept = list(dir)?.into_iter().find(|kept| kept.file == file);
    let kept = kept.ok_or_else(|| format!("{} has no snapshot {file}", dir.display()))?;
    let failed = |error: io::Error| format!("read {}: {error}", dir.join(file).display());
    let mut from = File::open(dir.join(file)).map_err(failed)?;
    from.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut data = Vec::new();
    from.take(u64::from(at_most.min(PIECE)))
        .read_to_end(&mut data)
        .map_err(failed)?;
    Ok((data, kept.bytes))
}

/// Reads every snapshot again. Blocks for as long as the disk takes.
pub(crate) fn verify_all(dir: &Path) -> Vec<wire::EtcdSnapshotCheck> {
    let Ok(kept) = list(dir) else {
        return Vec::new();
    };
    let check = |kept: &Kept| wire::EtcdSnapshotCheck {
        snapshot: Some(kept.to_wire()),
        damage: verify(&dir.join(&kept.file), &kept.sha256)
            .err()
            .unwrap_or_default(),
    };
    kept.iter().map(check).collect()
}

pub(super) fn verify(path: &Path, sha256: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("read it: {error}");
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Tail::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let (_, found) = hash.finish()?;
    if found == sha256 {
        return Ok(());
    }
    Err(format!(
        "its hash is {found}, and {sha256} was written down when it was taken"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::digest::digest;

    use super::*;

    fn with_hash(database: &[u8]) -> Vec<u8> {
        [database, digest(&SHA256, database).as_ref()].concat()
    }

    fn kept(cluster_id: &str, at: u64) -> Kept {
        Kept {
            file: format!("{at}.db"),
            cluster_id: cluster_id.to_owned(),
            member: "m1".to_owned(),
            revision: 1,
            bytes: 544,
            taken_at_unix_ms: at,
            sha256: String::new(),
            version: "3.5.16".to_owned(),
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_whole_however_it_is_cut_into_pieces(sectors in 1_usize..9, size in 1_usize..700) {
            let whole = with_hash(&vec![7; sectors * 512]);
            let mut tail = Tail::new();
            whole.chunks(size).for_each(|piece| tail.update(piece));
            prop_assert_eq!(tail.finish().unwrap().0, whole.len() as u64);
        }

        #[test]
        fn one_that_was_cut_off_or_changed_is_refused(sectors in 1_usize..5, at in any::<prop::sample::Index>(), cut in any::<bool>()) {
            let mut whole = with_hash(&vec![7; sectors * 512]);
            let at = at.index(whole.len());
            if cut { whole.truncate(at) } else { whole[at] ^= 1 }
            let mut tail = Tail::new();
            tail.update(&whole);
            prop_assert!(tail.finish().is_err());
        }
    }

    #[test]
    fn the_newest_of_each_cluster_are_kept_and_the_last_of_one_that_is_gone() {
        let all = [
            kept("b", 9),
            kept("b", 8),
            kept("a", 7),
            kept("b", 6),
            kept("a", 5),
        ];
        let gone = |keep| -> Vec<u64> {
            beyond(&all, keep)
                .iter()
                .map(|old| old.taken_at_unix_ms)
                .collect()
        };
        assert_eq!(gone(2), [6]);
        assert_eq!(gone(1), [8, 6, 5]);
        assert_eq!(gone(0), [8, 6, 5], "never the last");
    }

    #[test]
    fn a_clock_that_fell_back_by_a_year_costs_no_new_snapshot_and_makes_no_old_one_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let year = 365 * 86_400_000;
        let now = unix_ms();
        for (revision, at) in [(1, now), (2, now + 1), (3, now - year)] {
            let whole = with_hash(&[1; 1024]);
            fs::write(dir.path().join(format!("{revision}.db")), &whole).unwrap();
            let record = Kept {
                file: format!("{revision}.db"),
                revision,
                bytes: whole.len() as u64,
                ..kept("a", at)
            };
            write_down(dir.path(), &revision.to_string(), &record).unwrap();
        }
        retain(dir.path(), 2).unwrap();
        let left: Vec<_> = list(dir.path())
            .unwrap()
            .iter()
            .map(|kept| kept.revision)
            .collect();
        assert_eq!(left, [2, 3], "the first goes, and not the newest");
        // Taken before the clock fell back, seen after it.
        assert!(kept("a", now + year).to_wire().age_ms > year / 2);
    }

    #[test]
    fn what_is_not_whole_is_not_listed_and_goes_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let whole = with_hash(&[1; 1024]);
        fs::write(at("1.db"), &whole).unwrap();
        let (bytes, sha256) = {
            let mut tail = Tail::new();
            tail.update(&whole);
            tail.finish().unwrap()
        };
        let record = Kept {
            bytes,
            sha256,
            ..kept("a", 1)
        };
        write_down(dir.path(), "1", &record).unwrap();
        fs::write(at("2.db"), &whole).unwrap();
        fs::write(at("3.db.partial"), &whole).unwrap();
        fs::write(at("4.db"), b"short").unwrap();
        write_down(
            dir.path(),
            "4",
            &Kept {
                file: "4.db".to_owned(),
                ..record.clone()
            },
        )
        .unwrap();
        assert_eq!(list(dir.path()).unwrap(), [record]);
        assert!(verify_all(dir.path())[0].damage.is_empty());
        prepare(dir.path(), 10, 0).unwrap();
        assert!(!at("2.db").exists() && !at("3.db.partial").exists());
        assert_eq!(
            piece(dir.path(), "1.db", 1000, 20).unwrap(),
            (whole[1000..1020].to_vec(), 1056)
        );
        assert_eq!(piece(dir.path(), "1.db", 2000, 20).unwrap(), (Vec::new(), 1056));
        assert!(
            piece(dir.path(), "../1.db", 0, 20)
                .unwrap_err()
                .contains("has no snapshot")
        );
        let mut damaged = whole;
        damaged[3] ^= 1;
        fs::write(at("1.db"), damaged).unwrap();
        assert!(verify_all(dir.path())[0].damage.contains("damaged"));
        let full = prepare(dir.path(), u64::MAX / 2, 1 << 20).unwrap_err();
        assert!(full.contains("make room"), "{full}");
    }
}

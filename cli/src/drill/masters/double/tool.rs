//! etcd's own tool, as far as Blackstart asks it: its version, what it says of a database, and a restore.
//!
//! A restore copies the database and puts a batch behind it: of a cluster of other members, whose log begins anew, with a raised revision if that
//! is asked for. What is asked for of `etcdutl` is played by its words.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use blackstart_proto::Message as _;
use blackstart_proto::etcd::Member;
use ring::digest::{Context, Digest, SHA256, SHA256_OUTPUT_LEN};

use super::db::{self, Database};
use super::wal::Wal;
use super::wire::{Batch, Change, Command, Entry, HardState, Ids, Members};
use super::{VERSION, flags, ids};

/// The flags of a restore that are known, for `--help`: whoever asks sees by them what there is.
const HELP: &str = "\
Restores an etcd member snapshot to an etcd directory (a double of etcd, for drills)

Usage:
  etcdutl snapshot restore <filename> --data-dir {output dir} [options] [flags]

Flags:
      --bump-revision uint                   How much to increase the latest revision after restore
      --data-dir string                      Path to the output data directory
      --initial-advertise-peer-urls string   List of this member's peer URLs to advertise to the rest of the cluster
      --initial-cluster string               Initial cluster configuration for restore bootstrap
      --initial-cluster-token string         Initial cluster token for the etcd cluster during restore bootstrap
      --mark-compacted                       Mark the latest revision after restore as the point of scheduled compaction
      --name string                          Human-readable name for this member
      --skip-hash-check                      Ignore snapshot integrity hash value (required if copied from data directory)
";

/// Says what the tool says, to `out`.
///
/// # Errors
/// Why not, for people.
pub(super) fn run(arguments: &[String], out: &mut impl Write) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        ["version"] => format!("etcdutl version: {VERSION}\nAPI version: 3.5\n"),
        ["snapshot", "restore", "--help"] => HELP.to_owned(),
        ["snapshot", "status", file, ..] => status(Path::new(file))?,
        ["snapshot", "restore", file, ..] => {
            restore(Path::new(file), &arguments[3..])?;
            String::new()
        }
        _ => {
            return Err(format!(
                "unknown command {:?} for this double of etcdutl, which has: version, snapshot status, snapshot restore",
                words.join(" ")
            ));
        }
    };
    out.write_all(text.as_bytes()).map_err(|error| error.to_string())
}

fn status(file: &Path) -> Result<String, String> {
    let (store, bytes) = db::read(file).map_err(|error| error.to_string())?;
    let hash = hash(file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    let hash = u32::from_be_bytes(hash.as_ref().first_chunk().copied().unwrap_or_default());
    Ok(format!(
        "{{\"hash\":{hash},\"revision\":{},\"totalKey\":{},\"totalSize\":{bytes}}}\n",
        store.revision(),
        store.keys()
    ))
}

/// Of so many bytes of a file.
fn hash(file: &Path, bytes: u64) -> io::Result<Digest> {
    let mut from = File::open(file)?.take(bytes);
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hash.finish()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// A snapshot has the hash of all before it at its end.
fn check_hash(file: &Path, bytes: u64) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let size = fs::metadata(file).map_err(failed)?.len();
    if size != bytes + SHA256_OUTPUT_LEN as u64 {
        return Err(
            "snapshot missing hash but --skip-hash-check=false: it was copied from a data directory, or cut off".to_owned(),
        );
    }
    let mut whole = File::open(file).map_err(failed)?;
    let mut said = Vec::new();
    io::copy(&mut (&mut whole).take(bytes), &mut io::sink()).map_err(failed)?;
    whole.read_to_end(&mut said).map_err(failed)?;
    if hash(file, bytes).map_err(failed)?.as_ref() == said.as_slice() {
        return Ok(());
    }
    Err("expected sha256 of the snapshot is another: it is damaged".to_owned())
}

struct Restore {
    name: String,
    data_dir: PathBuf,
    members: Vec<Member>,
    skips_hash: bool,
    bump: i64,
    compacts: bool,
}

fn asked(arguments: &[String]) -> Result<Restore, String> {
    let mut flags = flags::words(arguments)?;
    let mut take = |flag: &str| flags.remove(flag);
    let name = take("name").unwrap_or_else(|| "default".to_owned());
    let token = take("initial-cluster-token").unwrap_or_else(|| "etcd-cluster".to_owned());
    let cluster = flags::cluster(&take("initial-cluster").unwrap_or_default())?;
    let data_dir = take("data-dir").ok_or("--data-dir is missing")?.into();
    let _said_by_the_cluster = take("initial-advertise-peer-urls");
    let skips_hash = take("skip-hash-check").is_some_and(|value| value == "true");
    let compacts = take("mark-compacted").is_some_and(|value| value == "true");
    let bump = take("bump-revision").map_or(Ok(0), |bump| bump.parse());
    let bump = bump.map_err(|error| format!("--bump-revision: {error}"))?;
    if (bump == 0) == compacts {
        return Err("--mark-compacted required if --revision-bump".to_owned());
    }
    if let Some((flag, _)) = flags.first_key_value() {
        return Err(format!("unknown flag: --{flag}"));
    }
    if !cluster.contains_key(&name) {
        return Err(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    }
    let members = cluster.into_iter().map(|(name, peer_urls)| Member {
        id: ids::member(&peer_urls, &token, None),
        name,
        peer_urls,
        ..Member::default()
    });
    Ok(Restore {
        name,
        data_dir,
        members: members.collect(),
        skips_hash,
        bump,
        compacts,
    })
}

fn restore(file: &Path, arguments: &[String]) -> Result<(), String> {
    let mut asked = asked(arguments)?;
    let failed = |what: &Path, error: io::Error| format!("{}: {error}", what.display());
    let (store, bytes) = db::read(file).map_err(|error| error.to_string())?;
    if !asked.skips_hash {
        check_hash(file, bytes)?;
    }
    let member = asked.data_dir.join("member");
    if member.exists() {
        return Err(format!(
            "data-dir {:?} not empty or could not be read",
            asked.data_dir.display().to_string()
        ));
    }
    let (snap, wal) = (member.join("snap"), member.join("wal"));
    for dir in [&snap, &wal] {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|error| failed(dir, error))?;
    }
    let database = snap.join("db");
    let copied = (|| {
        let mut from = File::open(file)?.take(bytes);
        io::copy(&mut from, &mut File::create(&database)?)
    })();
    copied.map_err(|error| failed(&database, error))?;
    let (ids, hard, entries) = begin(&asked.name, &asked.members);
    let revision = store.revision() + asked.bump;
    let last = Batch {
        index: hard.commit,
        term: hard.term,
        revision,
        compacted: if asked.compacts { revision } else { 0 },
        pairs: Vec::new(),
        members: Some(Members {
            members: std::mem::take(&mut asked.members),
            removed: Vec::new(),
        }),
    };
    let (mut opened, _) = Database::open(&database).map_err(|error| error.to_string())?;
    opened.append(&last).map_err(|error| error.to_string())?;
    Wal::create(&wal, ids, hard, &entries)
        .map(drop)
        .map_err(|error| failed(&wal, error))
}

/// How a cluster of these members begins: their ids, and a log that says who they are, agreed on by all (etcd's `StartNode`).
pub(super) fn begin(name: &str, members: &[Member]) -> (Ids, HardState, Vec<Entry>) {
    let all: Vec<_> = members.iter().map(|member| member.id).collect();
    let me = members.iter().find(|member| member.name == name);
    let ids = Ids {
        member: me.map_or(0, |me| me.id),
        cluster: ids::cluster(&all),
    };
    let mut ordered = members.to_vec();
    ordered.sort_by_key(|member| member.id);
    let entries = (1..).zip(ordered).map(|(index, member)| {
        let command = Command {
            request: 0,
            // Whom it is published by is known once it has started.
            change: Some(Change::Add(Member {
                name: String::new(),
                ..member
            })),
        };
        Entry {
            kind: Entry::MEMBERS,
            term: 1,
            index,
            data: Some(command.encode_to_vec()),
        }
    });
    let entries: Vec<_> = entries.collect();
    let hard = HardState {
        term: 1,
        vote: 0,
        commit: entries.len() as u64,
    };
    (ids, hard, entries)
}

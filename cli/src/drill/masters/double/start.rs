//! How a member starts: from its own disk, as one of those that a cluster begins with, or as one that joins.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use blackstart_proto::etcd::Member;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::consensus::Core;
use super::db::Database;
use super::flags::Settings;
use super::log::Log;
use super::member::{Input, Node, Work, tidy};
use super::peers::{self, Peers};
use super::serve::Clients;
use super::store::Store;
use super::tool::begin;
use super::wal::{self, Said, Wal};
use super::wire::{Batch, Cluster, Entry, HardState, Ids, Members, Place};

/// Inputs that wait for their turn.
const QUEUE: usize = 256;

/// What a member starts with.
struct Disk {
    wal: Wal,
    said: Said,
    database: Database,
    store: Store,
    /// Nobody has led yet.
    is_new: bool,
    /// Who was there when it came, if its own disk does not say so.
    known: Vec<Member>,
}

/// Runs a member until it is told to stop, or nobody holds its standard input any more.
///
/// # Errors
/// It cannot start, or go on: for people.
pub(super) async fn run(settings: Settings) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| words(&error))?;
    let orphaned = orphaned()?;
    let (snap, log) = (
        settings.data_dir.join("member/snap"),
        settings.data_dir.join("member/wal"),
    );
    let database = snap.join("db");
    tidy(&database);
    let mut disk = if wal::exists(&log) {
        again(&database, &log)?
    } else if settings.is_existing {
        join(&settings, &database, &log).await?
    } else {
        anew(&settings, &database, &log).await?
    };
    if disk.store.members().is_empty() {
        // It has to answer the leader, and only that one's log will tell who there is.
        let there = others(&settings, &members(&settings)?).await;
        disk.known = there.map(|there| there.members).unwrap_or_default();
    }
    if disk.store.is_removed(disk.said.ids.member) {
        return Err("the member has been permanently removed from the cluster".to_owned());
    }
    let ids = disk.said.ids;
    let (inputs, queue) = mpsc::channel(QUEUE);
    let node = node(&settings, disk, inputs.clone());
    for at in &settings.listen_peer {
        let listens = peers::listen(*at, ids, database.clone(), inputs.clone()).await;
        listens.map_err(|error| format!("listen tcp {at}: {error}"))?;
    }
    let clients = Clients::new(inputs.clone());
    for at in &settings.listen_client {
        let listens = clients.listen(*at).await;
        listens.map_err(|error| format!("listen tcp {at}: {error}"))?;
    }
    for at in &settings.listen_metrics {
        let listens = clients.listen_for_health(*at).await;
        listens.map_err(|error| format!("listen tcp {at}: {error}"))?;
    }
    let runtime = Handle::current();
    // It waits for its disk.
    let mut work = tokio::task::spawn_blocking(move || node.run(queue, &runtime));
    tokio::select! {
        ended = &mut work => return ended.map_err(|error| words(&error))?.map_err(|error| words(&error)),
        _ = terminated.recv() => {}
        _ended = orphaned => {}
    }
    let _ended = inputs.send(Input::Stop).await;
    work.await
        .map_err(|error| words(&error))?
        .map_err(|error| words(&error))
}

/// Ends when nobody holds the other end of standard input.
fn orphaned() -> Result<impl Future<Output = io::Result<usize>>, String> {
    let opened = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(pipe::Receiver::from_owned_fd);
    let mut pipe = opened.map_err(|error| {
        format!("this is a part of `blackstart drill`, which holds a pipe to its standard input, and no etcd: {error}")
    })?;
    Ok(async move { pipe.read_to_end(&mut Vec::new()).await })
}

fn node(settings: &Settings, disk: Disk, inputs: mpsc::Sender<Input>) -> Node {
    let Disk {
        wal,
        said,
        database,
        store,
        is_new,
        known,
    } = disk;
    let (hard, log) = loaded(said.hard, said.entries, store.applied());
    let ids = said.ids;
    let mut core = Core::new(ids.member, hard, store.voters(), log, StdRng::from_os_rng());
    if is_new {
        core.hurry();
    }
    Node {
        ids,
        core,
        wal,
        database,
        store,
        peers: Peers::new(ids, Handle::current()),
        known,
        name: settings.name.clone(),
        client_urls: settings.advertise_client.clone(),
        work: Work::new(inputs),
    }
}

/// What the log on the disk and the database say together: what is agreed on and is not in the database has to be in the log.
fn loaded(hard: HardState, entries: Vec<Entry>, applied: Place) -> (HardState, Log) {
    let fits = |entry: &Entry| (entry.index, entry.term) == (applied.index, applied.term);
    let at = entries.iter().position(fits);
    let log = match (entries.first().map(|first| first.index), at) {
        (Some(1), Some(_)) => Log::new(Place::default(), entries),
        (_, Some(at)) => Log::new(applied, entries[at + 1..].to_vec()),
        // After a database that came from elsewhere.
        (Some(first), None) if first == applied.index + 1 => Log::new(applied, entries),
        (_, None) => Log::new(applied, Vec::new()),
    };
    let hard = HardState {
        commit: hard.commit.max(applied.index).min(log.last().index),
        ..hard
    };
    (hard, log)
}

/// From its own disk.
fn again(database: &std::path::Path, log: &std::path::Path) -> Result<Disk, String> {
    let (wal, said) = Wal::open(log).map_err(|error| error.to_string())?;
    let (database, store) = Database::open(database).map_err(|error| error.to_string())?;
    Ok(Disk {
        wal,
        said,
        database,
        store,
        is_new: false,
        known: Vec::new(),
    })
}

/// The members that a cluster begins with.
fn members(settings: &Settings) -> Result<Vec<Member>, String> {
    let advertised: BTreeSet<_> = settings.advertise_peer.iter().collect();
    let Some(mine) = settings.initial_cluster.get(&settings.name) else {
        return Err(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            settings.name
        ));
    };
    if mine.iter().collect::<BTreeSet<_>>() != advertised {
        return Err(format!(
            "--initial-cluster has {}={} but missing from --initial-advertise-peer-urls",
            settings.name,
            mine.join(",")
        ));
    }
    let all = settings.initial_cluster.iter().map(|(name, peer_urls)| Member {
        id: super::ids::member(peer_urls, &settings.token, None),
        name: name.clone(),
        peer_urls: peer_urls.clone(),
        ..Member::default()
    });
    Ok(all.collect())
}

/// As one of those that a cluster begins with.
async fn anew(
    settings: &Settings,
    database: &std::path::Path,
    log: &std::path::Path,
) -> Result<Disk, String> {
    let members = members(settings)?;
    let (ids, hard, entries) = begin(&settings.name, &members);
    for other in members.iter().filter(|member| member.id != ids.member) {
        let Some(there) = peers::cluster(&other.peer_urls).await else {
            continue;
        };
        let mine = there.members.iter().find(|member| member.id == ids.member);
        if there.cluster == ids.cluster && mine.is_some_and(|mine| !mine.name.is_empty()) {
            return Err(format!("member {:x} has already been bootstrapped", ids.member));
        }
    }
    let nameless = members.into_iter().map(|member| Member {
        name: String::new(),
        ..member
    });
    let first = Batch {
        index: hard.commit,
        term: hard.term,
        revision: 1,
        members: Some(Members {
            members: nameless.collect(),
            removed: Vec::new(),
        }),
        ..Batch::default()
    };
    create(database, log, &first, (ids, hard, &entries), true)
}

/// What those of whom its flags tell say of their cluster.
async fn others(settings: &Settings, members: &[Member]) -> Option<Cluster> {
    for other in members.iter().filter(|member| member.name != settings.name) {
        let there = peers::cluster(&other.peer_urls).await;
        if let Some(there) = there.filter(|there| !there.members.is_empty()) {
            return Some(there);
        }
    }
    None
}

/// As one that was added to a cluster that there is.
async fn join(
    settings: &Settings,
    database: &std::path::Path,
    log: &std::path::Path,
) -> Result<Disk, String> {
    let members = members(settings)?;
    let there = others(settings, &members).await.ok_or("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")?;
    let urls = |members: &[Member]| -> BTreeSet<Vec<String>> {
        members.iter().map(|member| member.peer_urls.clone()).collect()
    };
    if urls(&there.members) != urls(&members) {
        return Err(format!(
            "error validating peerURLs: member count is unequal, or unmatched member while checking PeerURLs: {:?} and {:?}",
            urls(&there.members),
            urls(&members)
        ));
    }
    let me = there
        .members
        .iter()
        .find(|member| member.peer_urls == settings.advertise_peer);
    let me = me.ok_or("its own peer URLs are in no list of members")?;
    let ids = Ids {
        member: me.id,
        cluster: there.cluster,
    };
    // It knows of nobody before the leader tells it.
    let first = Batch {
        revision: 1,
        ..Batch::default()
    };
    create(database, log, &first, (ids, HardState::default(), &[]), false)
}

/// The database first: a member with a log has both.
fn create(
    database: &std::path::Path,
    log: &std::path::Path,
    first: &Batch,
    (ids, hard, entries): (Ids, HardState, &[Entry]),
    is_new: bool,
) -> Result<Disk, String> {
    let path: PathBuf = database.to_owned();
    let database = Database::create(&path, first).map_err(|error| error.to_string())?;
    let wal = Wal::create(log, ids, hard, entries).map_err(|error| error.to_string())?;
    let mut store = Store::new();
    store.absorb(first.clone());
    let said = Said {
        ids,
        hard,
        entries: entries.to_vec(),
    };
    Ok(Disk {
        wal,
        said,
        database,
        store,
        is_new,
        known: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            kind: Entry::NORMAL,
            term,
            index,
            data: None,
        }
    }

    #[test]
    fn log_and_database_together_have_all_that_was_acknowledged() {
        let at = |index, term| Place { index, term };
        let hard = HardState {
            term: 3,
            vote: 1,
            commit: 9,
        };
        for (what, entries, applied, ends, first) in [
            (
                "behind its log",
                vec![entry(1, 1), entry(2, 1), entry(3, 2)],
                at(2, 1),
                at(3, 2),
                Some(1),
            ),
            (
                "of a log that begins later",
                vec![entry(7, 1), entry(8, 1)],
                at(7, 1),
                at(8, 1),
                Some(8),
            ),
            (
                "from elsewhere, with a log after it",
                vec![entry(8, 2), entry(9, 2)],
                at(7, 1),
                at(9, 2),
                Some(8),
            ),
            (
                "from elsewhere, newer than its log",
                vec![entry(1, 1), entry(2, 1)],
                at(7, 2),
                at(7, 2),
                None,
            ),
            (
                "whose log went another way",
                vec![entry(1, 1), entry(2, 1), entry(3, 1)],
                at(2, 2),
                at(2, 2),
                None,
            ),
            ("without a log", vec![], at(4, 1), at(4, 1), None),
        ] {
            let (hard, log) = loaded(hard, entries, applied);
            assert_eq!(log.last(), ends, "{what}");
            assert!(
                hard.commit >= applied.index && hard.commit <= ends.index,
                "{what}"
            );
            if let Some(first) = first {
                assert!(log.get(first).is_some() && log.get(first - 1).is_none(), "{what}");
            }
        }
    }
}

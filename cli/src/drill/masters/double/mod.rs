//! A double of etcd, for drills where no real one is installed: this program again, under etcd's names.
//!
//! ```text
//!  manifest ─► stand-in kubelet ─► DRILL/etcd-double/etcd ──link──► this program ─┬─ flags ─► start ─► member ◄── serve ◄── clients
//!  agent ────────────────────────► DRILL/etcd-double/etcdutl ─────────────────────┴─ tool      │ consensus, log, store   peers ◄─► the others
//!                                                                                              └ wal, db: the data directory
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`flags`] | etcd's flags |
//! | [`start`] | from its own disk, as one of those that a cluster begins with, or as one that joins |
//! | [`member`] | one input after the other: saved, sent, carried out, answered |
//! | [`consensus`], [`log`] | Raft: who leads, what is agreed on; pure |
//! | [`store`] | keys and members; pure |
//! | [`wal`] | the log on the disk, in etcd's own format |
//! | [`db`] | the database on the disk, in a format of its own |
//! | [`ids`] | of members and clusters, as etcd makes them |
//! | [`peers`] | how members reach each other |
//! | [`mod@serve`] | what clients are answered |
//! | [`tool`] | `etcdutl version`, `snapshot status`, `snapshot restore` |
//! | [`wire`] | what is written and said |
//!
//! It plays etcd [`VERSION`] as far as Blackstart and the drill's writer speak with it: what a majority has is never lost, nothing is written and
//! nothing read without one, a learner has no say, a member with a damaged database does not start, a snapshot has its hash behind it.
//! A test (`cli/tests/etcd_double`) has the same conversation with it and with real ones.
//!
//! What it does not do: TLS, users, leases, watches, deletions, older revisions (as if everything were compacted at once), alarms, quotas,
//! defragmentation, the removal of old log files, votes before votes, handing over the lead; and it keeps all keys in memory. Its members
//! understand each other only, and a real `etcdutl` cannot open its database. It is nothing to keep data in, and ends with the drill that has
//! started it.

mod consensus;
mod db;
mod flags;
mod ids;
mod log;
mod member;
mod peers;
mod serve;
mod start;
mod store;
mod tool;
mod wal;
mod wire;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The etcd that is played.
pub(super) const VERSION: &str = "3.5.16";
/// Where its programs are, below the drill's directory.
const DIR: &str = "etcd-double";
const ETCD: &str = "etcd";
const TOOL: &str = "etcdutl";

/// Puts its programs below `dir`: links to this one. Where its etcd is.
///
/// # Errors
/// They cannot be made.
pub(super) fn programs(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.join(DIR);
    fs::create_dir_all(&dir)?;
    let program = std::env::current_exe()?;
    for name in [ETCD, TOOL] {
        symlink(&program, dir.join(name))?;
    }
    Ok(dir.join(ETCD))
}

/// Plays etcd or its tool, if this program was started by that name from where [`programs`] has put it.
pub(crate) fn play(called: &Path, arguments: &[String]) -> Option<ExitCode> {
    let is_ours = called
        .parent()
        .and_then(Path::file_name)
        .is_some_and(|dir| dir == DIR);
    let name = called.file_name()?.to_str().filter(|_| is_ours)?;
    let ended = match name {
        ETCD if arguments == ["--version"] => {
            say(&format!("etcd Version: {VERSION} (a double, for drills)\n"))
        }
        ETCD => flags::Settings::read(arguments).and_then(serve),
        TOOL => tool::run(arguments, &mut io::stdout()),
        _ => return None,
    };
    Some(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may read it any more.
            let _unheard = writeln!(io::stderr(), "{name} (double): {why}");
            ExitCode::FAILURE
        }
    })
}

fn say(what: &str) -> Result<(), String> {
    io::stdout()
        .write_all(what.as_bytes())
        .map_err(|error| error.to_string())
}

fn serve(settings: flags::Settings) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("start the runtime: {error}"))?;
    let ended = runtime.block_on(start::run(settings));
    // What clients are still told is of nobody's business any more.
    runtime.shutdown_background();
    ended
}

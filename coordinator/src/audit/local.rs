//! What somebody types on the coordinator's own machine beside it, such as `ca rotate`: it goes into the same audit.
//!
//! ```text
//!  typed ─► note ─ a coordinator listens ─► runtime_dir/audit.sock ─► its audit      who: as the kernel says
//!                └ none does ───────────────────────────────────────► the files, under their lock
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::listen;
use nix::unistd::{Uid, User, geteuid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as Reader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::chain::What;
use super::file::Log;
use super::{Audit, now_unix_ms};

/// What is typed is answered within this.
const DEADLINE: Duration = Duration::from_secs(10);
/// A socket that cannot be made is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// A record that is told is no longer, bytes.
const LONGEST: u64 = 16 << 10;
/// The answer, once it is durable.
const WRITTEN: &str = "written\n";

/// What is told. Who it was is not: the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// What: `ca rotate`.
    pub what: String,
    /// With which arguments.
    #[serde(default)]
    pub asked: String,
    /// `asked`, `done`, `failed`.
    pub outcome: String,
    /// What shows it.
    #[serde(default)]
    pub evidence: String,
    /// Who became another to type it, as `sudo` says.
    #[serde(default)]
    pub sudo: String,
}

impl Typed {
    fn by(self, uid: Uid) -> What {
        let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
        let name = name.unwrap_or_else(|| format!("uid {uid}"));
        let who = match self.sudo.as_str() {
            "" => format!("local user {name}"),
            // Root can say so of anybody; it is root's word.
            before => format!("local user {name}, by sudo of {before}"),
        };
        What {
            who,
            what: self.what,
            asked: self.asked,
            outcome: self.outcome,
            evidence: self.evidence,
            ..What::default()
        }
    }
}

/// Takes what is typed until `stop`. That it cannot never takes the coordinator down: it is tried again.
pub(crate) async fn serve(audit: Audit, path: PathBuf, stop: CancellationToken) {
    loop {
        match listen::private_socket(&path) {
            Ok(listener) => return accept(&listener, &audit, &stop).await,
            Err(error) => tracing::warn!(
                path = %path.display(), %error,
                "what is typed here cannot be told for the audit; tried again in {AGAIN:?}"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn accept(listener: &UnixListener, audit: &Audit, stop: &CancellationToken) {
    listen::each(listener, 1, stop, |stream| {
        let audit = audit.clone();
        async move {
            let taken = timeout(DEADLINE, take(stream, audit)).await;
            if let Err(error) = taken.map_err(io::Error::from).flatten() {
                tracing::warn!(%error, "what was typed here was not taken into the audit");
            }
        }
    })
    .await;
}

async fn take(mut stream: UnixStream, audit: Audit) -> io::Result<()> {
    let peer = Uid::from_raw(stream.peer_cred()?.uid());
    if !peer.is_root() && peer != geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut line = Vec::new();
    Reader::new((&mut stream).take(LONGEST))
        .read_until(b'\n', &mut line)
        .await?;
    let typed: Typed = serde_json::from_slice(&line)?;
    audit.write(typed.by(peer)).await;
    stream.write_all(WRITTEN.as_bytes()).await?;
    stream.shutdown().await
}

/// Has it stand in the audit in `dir`: by the coordinator that listens at `socket`, or, where none does, by ourselves. Blocks.
///
/// # Errors
/// It stands nowhere.
pub fn note(socket: &Path, dir: &Path, typed: Typed) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(stream) => tell(stream, &typed),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Log::open(dir)?.append(vec![typed.by(geteuid())], now_unix_ms())
        }
        Err(error) => Err(error),
    }
}

fn tell(mut stream: std::os::unix::net::UnixStream, typed: &Typed) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut line = serde_json::to_vec(typed)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer == WRITTEN {
        return Ok(());
    }
    Err(io::Error::other("the coordinator did not take it"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::chain::Record;
    use crate::audit::file::{files, verify};
    use crate::events::Events;

    fn typed(outcome: &str) -> Typed {
        Typed {
            what: "ca rotate".to_owned(),
            asked: "a\nb".to_owned(),
            outcome: outcome.to_owned(),
            evidence: String::new(),
            sudo: "ann".to_owned(),
        }
    }

    fn records(dir: &Path) -> Vec<What> {
        let files = files(dir).unwrap();
        let text: String = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let json = text.lines().map(|line| line.split_once(' ').unwrap().1);
        json.map(|json| serde_json::from_str::<Record>(json).unwrap().what)
            .filter(|what| what.what == "ca rotate")
            .collect()
    }

    /// With a coordinator that runs, and without one: one chain, and in it who the kernel says that it was.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_typed_stands_in_the_audit_whether_a_coordinator_runs_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, kept) = (dir.path().join("audit.sock"), dir.path().join("audit"));
        note(&socket, &kept, typed("none runs")).unwrap();

        let audit = Audit::open(&kept, Events::default());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(audit.clone(), socket.clone(), stop.clone()));
        let (to, at) = (socket.clone(), kept.clone());
        let told = timeout(DEADLINE, async {
            // Until it listens.
            while !to.exists() {
                tokio::task::yield_now().await;
            }
            tokio::task::spawn_blocking(move || note(&to, &at, typed("one runs")))
                .await
                .unwrap()
        });
        told.await.unwrap().unwrap();
        stop.cancel();
        serving.await.unwrap();
        drop(audit);

        let name = User::from_uid(geteuid()).unwrap().unwrap().name;
        let found = records(&kept);
        let outcomes: Vec<_> = found.iter().map(|what| what.outcome.as_str()).collect();
        assert_eq!(outcomes, ["none runs", "one runs"]);
        for what in &found {
            assert_eq!(what.who, format!("local user {name}, by sudo of ann"));
            assert_eq!(what.asked, "a\nb");
        }
        assert_eq!(verify(&kept, None).unwrap().problems, Vec::<String>::new());
    }

    /// Two who write at once would break the chain.
    #[test]
    fn while_one_has_the_files_open_nobody_else_writes_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let open = Log::open(dir.path()).unwrap();
        let refused = note(Path::new("/nowhere/audit.sock"), dir.path(), typed("asked")).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(open);
        note(Path::new("/nowhere/audit.sock"), dir.path(), typed("asked")).unwrap();
        assert_eq!(verify(dir.path(), None).unwrap().problems, Vec::<String>::new());
    }
}

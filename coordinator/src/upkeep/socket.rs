//! How a running coordinator, which has its store locked, gives a backup of it: whoever connects is sent one. The form tells
//! whether all of it arrived.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::listen;
use nix::unistd::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::UpkeepError;
use crate::store::backup::{self, BackupError, Snapshot};
use crate::store::redb::RedbStore;

/// One answer takes no longer.
const DEADLINE: Duration = Duration::from_mins(1);
/// A socket that cannot be made is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// How an answer begins that is none.
const SORRY: &str = "blackstart-sorry ";

/// Gives backups until `stop`. Who has the store has the socket: one that a coordinator before left is replaced.
/// That it cannot be done never takes the coordinator down: it is tried again.
pub async fn serve(store: Arc<RedbStore>, path: PathBuf, stop: CancellationToken) {
    loop {
        match listen::private_socket(&path) {
            Ok(listener) => return accept(&listener, &store, &stop).await,
            Err(error) => tracing::warn!(
                path = %path.display(), %error,
                "no backup can be asked of this coordinator; tried again in {AGAIN:?}"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

/// One after the other: each has all of the store in memory.
async fn accept(listener: &UnixListener, store: &Arc<RedbStore>, stop: &CancellationToken) {
    listen::each(listener, 1, stop, |stream| {
        let store = Arc::clone(store);
        async move {
            let given = timeout(DEADLINE, give(stream, store)).await;
            if let Err(error) = given.map_err(io::Error::from).flatten() {
                tracing::warn!(%error, "a backup that was asked for was not given");
            }
        }
    })
    .await;
}

async fn give(mut stream: UnixStream, store: Arc<RedbStore>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let answer = spawn_blocking(move || match store.snapshot() {
        Ok(snapshot) => backup::encode(&snapshot),
        Err(error) => format!("{SORRY}{error}\n").into_bytes(),
    });
    stream.write_all(&answer.await.map_err(io::Error::other)?).await?;
    stream.shutdown().await
}

/// Asks the coordinator that listens there.
///
/// # Errors
/// None does, or it cannot, or its answer did not arrive whole.
pub fn ask(path: &Path) -> Result<Snapshot, UpkeepError> {
    let mut answer = Vec::new();
    std::os::unix::net::UnixStream::connect(path)
        .and_then(|mut stream| {
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.read_to_end(&mut answer)
        })
        .map_err(|source| UpkeepError::NoAnswer {
            path: path.to_owned(),
            source,
        })?;
    if let Some(why) = answer.strip_prefix(SORRY.as_bytes()) {
        return Err(UpkeepError::Refused(
            String::from_utf8_lossy(why).trim().to_owned(),
        ));
    }
    backup::decode(&answer).map_err(|why| {
        let path = path.to_owned();
        BackupError::Unusable { path, why }.into()
    })
}

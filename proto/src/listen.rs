//! Listeners that harm nobody: a few connections at a time, and no loop without a pause when there are no descriptors left.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// After a connection that could not be taken: mostly for want of descriptors, which are not there a moment later either.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that hands out connections.
pub trait Listener {
    /// A connection.
    type Stream: Send;

    /// The next one.
    ///
    /// # Errors
    /// As the system says.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Holds `converse` with whoever comes, with `at_once` at a time; further ones wait for their turn. Ends with `stop`, and breaks off
/// what is being said. A deadline is for `converse` to keep.
pub async fn each<L: Listener, F>(
    listener: &L,
    at_once: usize,
    stop: &CancellationToken,
    mut converse: impl FnMut(L::Stream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    loop {
        let next = async {
            let turn = Arc::clone(&room).acquire_owned().await;
            (turn, listener.next().await)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => {}
            (turn, accepted) = next => match accepted {
                Ok(stream) => {
                    let conversation = converse(stream);
                    running.spawn(async move {
                        let _turn = turn;
                        conversation.await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    running.shutdown().await;
}

/// A socket for its owner and root alone. Made aside and renamed: there is no moment at which it exists for others, nor one without
/// any if there was one before, which it replaces.
///
/// # Errors
/// It cannot be made there.
pub fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    fs::rename(&aside, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn no_more_talk_at_once_than_may_and_a_stop_breaks_it_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(private_socket(&path).unwrap());
        let listener = private_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let stop = CancellationToken::new();
        let ended = stop.clone();
        let serving = tokio::spawn(async move {
            each(&listener, 1, &ended, |mut stream| async move {
                // Greets, and goes on until the other side has said something.
                let _ = stream.write_all(b"x").await;
                let _ = stream.read_u8().await;
            })
            .await;
        });
        let mut first = UnixStream::connect(&path).await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'x');
        let mut second = UnixStream::connect(&path).await.unwrap();
        let mut greeting = [0];
        assert_eq!(
            second.try_read(&mut greeting).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        first.write_u8(b'y').await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'x');
        stop.cancel();
        serving.await.unwrap();
        assert_eq!(second.read(&mut greeting).await.unwrap(), 0);
    }
}

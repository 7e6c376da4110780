//! The agent's end of the socket. That it cannot be served never takes the agent down: it is tried again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::listen;
use nix::unistd::geteuid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::answer::Answer;
use super::window::Window;
use super::{AT_ONCE, DEADLINE, MAX_ANSWER, MAX_QUESTION, Question};

/// A socket that cannot be made is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Answers questions at [`Settings::socket`](crate::config::Settings::socket) until `stop`. The agent that has the ledger has the socket: one left by an
/// agent that died is replaced.
pub async fn serve(window: Window, stop: CancellationToken) {
    let path = window.settings().socket();
    loop {
        match listen::private_socket(&path) {
            Ok(listener) => return accept(&listener, &Arc::new(window), &stop).await,
            Err(error) => warn!(
                path = %path.display(), %error,
                "no questions are answered on this node; tried again in {AGAIN:?}"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn accept(listener: &UnixListener, window: &Arc<Window>, stop: &CancellationToken) {
    listen::each(listener, AT_ONCE, stop, |stream| {
        let window = Arc::clone(window);
        async move {
            match timeout(DEADLINE, converse(stream, window)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a question was not answered"),
                Err(_) => debug!("a question was not answered in time"),
            }
        }
    })
    .await;
}

async fn converse(stream: UnixStream, window: Arc<Window>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(reading.take(MAX_QUESTION))
        .read_until(b'\n', &mut line)
        .await?;
    let text = tokio::task::spawn_blocking(move || answer(&line, &window))
        .await
        .map_err(io::Error::other)??;
    writing.write_all(&text).await?;
    writing.shutdown().await
}

fn answer(line: &[u8], window: &Window) -> io::Result<Vec<u8>> {
    let refuse = |why: String| serde_json::to_vec(&Answer::Refusal { why });
    let text = match serde_json::from_slice::<Question>(line) {
        Ok(question) => serde_json::to_vec(&window.answer(&question))?,
        Err(error) => refuse(format!("not a question that this agent knows: {error}"))?,
    };
    if text.len() as u64 > MAX_ANSWER {
        return Ok(refuse(format!(
            "the answer would be {} bytes long; ask for less",
            text.len()
        ))?);
    }
    Ok(text)
}

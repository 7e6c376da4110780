//! The asking end.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::answer::Answer;
use super::{DEADLINE, MAX_ANSWER, Question};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent answers at {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket is for root.
    #[error("the agent's socket {} is for root only", .0.display())]
    Denied(PathBuf),
    /// The connection broke.
    #[error("ask the agent at {}", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was too long in coming.
    #[error("the agent at {} did not answer within {} s", .0.display(), DEADLINE.as_secs())]
    TimedOut(PathBuf),
    /// It is not what this version understands.
    #[error("the agent at {} answered what this version of the command does not understand: {why}", path.display())]
    NotUnderstood {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The agent has no answer.
    #[error("{0}")]
    Refused(String),
}

/// Asks the agent at `socket`. Never gives [`Answer::Refusal`]: that is an error.
///
/// # Errors
/// Nobody answers, in time and in words that are understood.
pub async fn ask(socket: &Path, question: &Question) -> Result<Answer, AskError> {
    let text = match timeout(DEADLINE, exchange(socket, question)).await {
        Ok(Ok(text)) => text,
        Ok(Err(source)) => return Err(failed(socket, source)),
        Err(_) => return Err(AskError::TimedOut(socket.to_owned())),
    };
    match serde_json::from_slice(&text) {
        Ok(Answer::Refusal { why }) => Err(AskError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(AskError::NotUnderstood {
            path: socket.to_owned(),
            why: error.to_string(),
        }),
    }
}

async fn exchange(socket: &Path, question: &Question) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&line).await?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text).await?;
    Ok(text)
}

fn failed(socket: &Path, source: io::Error) -> AskError {
    let path = socket.to_owned();
    let kind = source.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        AskError::NotRunning(path)
    } else if kind == io::ErrorKind::PermissionDenied {
        AskError::Denied(path)
    } else {
        AskError::Io { path, source }
    }
}

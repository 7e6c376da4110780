//! What stands for a static pod of a control plane: it answers on a health port, and can be ill.
//!
//! How it is, a file says, which is read at each question: `well`, as where there is none; `hung PID`, of which only the process of that number is
//! ill, so that a new one is well; `broken`, with which no process stays alive.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The last words of one that is broken.
pub const LAST_WORDS: &str = "panic: unknown feature gate NoSuchFeature";

/// How long a client may take to ask: one is answered after the other.
const REQUEST_DEADLINE: Duration = Duration::from_secs(1);

/// How one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It answers.
    Well,
    /// The process of this number, as it knows itself, takes connections and says nothing on them.
    Hung(u32),
    /// It ends, and so does the next one.
    Broken,
}

impl Mood {
    /// What the file says.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        match text.trim().split_once(' ') {
            Some(("hung", pid)) => pid.parse().map_or(Self::Well, Self::Hung),
            _ if text.trim() == "broken" => Self::Broken,
            _ => Self::Well,
        }
    }

    /// Has the file say so, in a directory that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(self, path: &Path) -> io::Result<()> {
        fs::write(
            path,
            match self {
                Self::Well => "well".to_owned(),
                Self::Hung(pid) => format!("hung {pid}"),
                Self::Broken => "broken".to_owned(),
            },
        )
    }
}

/// Answers until it is told to break.
///
/// # Errors
/// It is broken, with [`LAST_WORDS`]; or nobody can listen there.
pub async fn serve(address: SocketAddr, mood: &Path) -> io::Result<()> {
    if Mood::read(mood) == Mood::Broken {
        return Err(io::Error::other(LAST_WORDS));
    }
    let listener = TcpListener::bind(address).await?;
    // A hung one takes connections and says nothing on them.
    let mut held = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        match Mood::read(mood) {
            Mood::Hung(pid) if pid == std::process::id() => held.push(stream),
            Mood::Broken => return Err(io::Error::other(LAST_WORDS)),
            Mood::Hung(_) | Mood::Well => answer(stream).await,
        }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut question = [0; 1024];
    // Whoever only looks whether somebody listens has gone by now.
    let _asked = timeout(REQUEST_DEADLINE, stream.read(&mut question)).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let _gone = stream.write_all(answer).await;
}

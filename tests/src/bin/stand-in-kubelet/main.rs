//! Stands in for the kubelet on a testbed node: `/healthz`, and on masters an API server's `/livez` and `/readyz`.
//!
//! `/readyz` answers 200 when a majority of the masters answer `/livez` over the network, as with a quorum of stacked etcd.
//! Static pods run as [`pods`] tells.
//!
//! What it does wrong is told by a word in a file: `hang` (answers nothing, ignores a polite stop), `fail` (answers 500) and
//! `crash` go to the process that runs and end with it, as does `pleg` (healthy to whoever asks, and complains to its log as a kubelet does that does
//! not see its containers); `refuse` (does not start) stands until the file is removed.

mod manifest;
mod pods;
mod process;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use blackstart_tests::docker::say;

use self::pods::Pods;

/// Between two looks at the file and at the other masters.
const PERIOD: Duration = Duration::from_millis(200);
/// How long another master may take.
const PEER_DEADLINE: Duration = Duration::from_millis(500);
/// How long a client may take to ask.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// As the kubelet 1.30 says it.
const PLEG: &str = "E0730 12:00:00.000001     812 kubelet.go:2419] \"Skipping pod synchronization\" err=\"PLEG is not healthy: pleg was last seen \
                    active 3m7.3s ago; threshold is 3m0s\"";

/// What it is told to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Healthy,
    Hang,
    Fail,
    Crash,
    Refuse,
    Pleg,
}

impl Behaviour {
    fn read(file: &Path) -> Self {
        match std::fs::read_to_string(file).unwrap_or_default().trim() {
            "hang" => Self::Hang,
            "fail" => Self::Fail,
            "crash" => Self::Crash,
            "refuse" => Self::Refuse,
            "pleg" => Self::Pleg,
            _ => Self::Healthy,
        }
    }
}

/// Stands in for the kubelet, and on masters for the API server.
#[derive(Debug, Parser)]
struct Args {
    /// Where /healthz is answered
    #[arg(long, default_value = "127.0.0.1:10248")]
    healthz: SocketAddr,
    /// Where /livez and /readyz are answered; on masters
    #[arg(long)]
    api_server: Option<SocketAddr>,
    /// The other masters' API servers
    #[arg(long, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
    /// The file with what to do wrong
    #[arg(long, default_value = "/run/stand-in-kubelet")]
    behaviour: PathBuf,
    /// The directory of static pods' manifests
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Where it keeps what its pods write, as kubelets do
    #[arg(long, default_value = "/var/log/pods")]
    logs: PathBuf,
    /// Where it keeps what it needs to know of its pods' processes
    #[arg(long, default_value = "/run/stand-in-pods")]
    pods: PathBuf,
}

#[derive(Debug)]
struct Kubelet {
    behaviour: PathBuf,
    /// A majority of masters answers.
    quorum: AtomicBool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("kubelet: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> io::Result<()> {
    if Behaviour::read(&args.behaviour) == Behaviour::Refuse {
        return Err(io::Error::other("told to refuse to start"));
    }
    // It was told to the one before.
    if args.behaviour.exists() {
        std::fs::remove_file(&args.behaviour)?;
    }
    let mut stop = signal(SignalKind::terminate())?;
    let kubelet = Arc::new(Kubelet {
        behaviour: args.behaviour,
        quorum: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(
        TcpListener::bind(args.healthz).await?,
        Arc::clone(&kubelet),
    ));
    if let Some(address) = args.api_server {
        tasks.spawn(serve(TcpListener::bind(address).await?, Arc::clone(&kubelet)));
        tasks.spawn(count_masters(args.peers, Arc::clone(&kubelet)));
    }
    // In the node's journal: from when on it was healthy.
    say(&format!("kubelet answers on {}", args.healthz));
    let mut pods = args
        .manifests
        .map(|manifests| Pods::new(manifests, args.pods, args.logs));
    let mut looks = interval(PERIOD);
    loop {
        tokio::select! {
            _ = looks.tick() => match Behaviour::read(&kubelet.behaviour) {
                Behaviour::Crash => return Err(io::Error::other("told to crash")),
                Behaviour::Hang => {}
                Behaviour::Pleg => say(PLEG),
                Behaviour::Healthy | Behaviour::Fail | Behaviour::Refuse => {
                    if let Some(pods) = &mut pods {
                        pods.look();
                    }
                }
            },
            _ = stop.recv() => if Behaviour::read(&kubelet.behaviour) != Behaviour::Hang {
                return Ok(());
            },
            Some(ended) = tasks.join_next() => return ended?,
        }
    }
}

async fn serve(listener: TcpListener, kubelet: Arc<Kubelet>) -> io::Result<()> {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                answers.spawn(answer(stream, Arc::clone(&kubelet)));
            }
            Some(_) = answers.join_next() => {}
        }
    }
}

/// One request, one answer. Whatever a client does wrong is its own matter.
async fn answer(mut stream: TcpStream, kubelet: Arc<Kubelet>) {
    let Ok(Ok(path)) = timeout(REQUEST_DEADLINE, request(&mut stream)).await else {
        return;
    };
    let quorum = kubelet.quorum.load(Ordering::Relaxed);
    let (status, body) = match (Behaviour::read(&kubelet.behaviour), path.as_str()) {
        (Behaviour::Hang, _) => return std::future::pending().await,
        (Behaviour::Fail, _) => ("500 Internal Server Error", "told to fail"),
        (
            Behaviour::Healthy | Behaviour::Crash | Behaviour::Refuse | Behaviour::Pleg,
            "/healthz" | "/livez",
        ) => ("200 OK", "ok"),
        (Behaviour::Healthy | Behaviour::Crash | Behaviour::Refuse | Behaviour::Pleg, "/readyz")
            if quorum =>
        {
            ("200 OK", "ok")
        }
        (Behaviour::Healthy | Behaviour::Crash | Behaviour::Refuse | Behaviour::Pleg, "/readyz") => {
            ("503 Service Unavailable", "no majority of masters answers")
        }
        (Behaviour::Healthy | Behaviour::Crash | Behaviour::Refuse | Behaviour::Pleg, _) => {
            ("404 Not Found", "nothing here")
        }
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(text.as_bytes()).await.is_ok() {
        stream.shutdown().await.unwrap_or_default();
    }
}

/// Reads a request to the end of its head; its path.
async fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await?;
        if read == 0 || head.len() > 16 << 10 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&chunk[..read]);
    }
    let line = String::from_utf8_lossy(&head);
    let target = line.split_whitespace().nth(1).unwrap_or_default();
    Ok(target.split('?').next().unwrap_or_default().to_owned())
}

async fn count_masters(peers: Vec<SocketAddr>, kubelet: Arc<Kubelet>) -> io::Result<()> {
    let all = peers.len() + 1;
    let mut looks = interval(PERIOD);
    loop {
        looks.tick().await;
        let mut asked: JoinSet<_> = peers.iter().map(|peer| alive(*peer)).collect();
        // Itself.
        let mut alive = 1;
        while let Some(answer) = asked.join_next().await {
            alive += usize::from(answer.unwrap_or(false));
        }
        let quorum = alive * 2 > all;
        if kubelet.quorum.swap(quorum, Ordering::Relaxed) != quorum {
            let word = if quorum { "ready" } else { "not ready" };
            say(&format!("api server {word}: {alive} of {all} masters answer"));
        }
    }
}

async fn alive(peer: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(peer).await?;
        let question = format!("GET /livez HTTP/1.1\r\nHost: {peer}\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    matches!(timeout(PEER_DEADLINE, ask).await, Ok(Ok(true)))
}

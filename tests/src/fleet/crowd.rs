//! All nodes in one process, which does what it is told on its standard input.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use blackstart_coordinator::pki::{Authority, DEFAULT_DAYS};
use blackstart_proto::identity::PeerIdentity;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

use super::node::{Board, Node, Wish, tls};
use super::{Order, name};

/// Whose sessions, and with whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Crowd {
    /// The authority's directory
    #[arg(long)]
    pub pki: PathBuf,
    /// The coordinator
    #[arg(long)]
    pub address: SocketAddr,
    /// How many nodes
    #[arg(long)]
    pub nodes: usize,
    /// Milliseconds between two reports of one node
    #[arg(long)]
    pub interval_ms: u64,
}

/// Makes a certificate for each node, says `ready`, and holds their sessions until its standard input ends.
///
/// # Errors
/// It has no authority, or is told what it does not understand.
pub async fn run(crowd: Crowd) -> anyhow::Result<()> {
    raise_files()?;
    let board = Arc::new(Board::new(crowd.nodes));
    let (wish, _) = watch::channel(Wish::default());
    let made = Arc::clone(&board);
    let from = crowd.clone();
    let nodes = spawn_blocking(move || certified(&from, &made)).await??;
    answer("\"ready\"")?;
    let mut sessions = JoinSet::new();
    for node in nodes {
        sessions.spawn(node.live(wish.subscribe()));
    }
    spawn_blocking(move || obey(&board, &wish)).await?
}

fn certified(crowd: &Crowd, board: &Arc<Board>) -> anyhow::Result<Vec<Node>> {
    let authority = Authority::open(&crowd.pki)?;
    let mut roots = RootCertStore::empty();
    roots.add(
        CertificateDer::from_pem_file(crowd.pki.join("ca.crt"))
            .context("read the authority's certificate")?,
    )?;
    let roots = Arc::new(roots);
    let node = |number| {
        let issued = authority.certify(&PeerIdentity::Node(name(number)), DEFAULT_DAYS)?;
        Ok(Node {
            number,
            address: crowd.address,
            tls: tls(&roots, &issued.certificate, &issued.key)?,
            interval: Duration::from_millis(crowd.interval_ms),
            board: Arc::clone(board),
        })
    };
    (0..crowd.nodes).map(node).collect()
}

fn obey(board: &Board, wish: &watch::Sender<Wish>) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.context("read an order")?;
        let order: Order = serde_json::from_str(&line).with_context(|| format!("understand {line:?}"))?;
        match order {
            Order::Look => {}
            Order::Cut => {
                board.cut();
                wish.send_modify(|wish| wish.cut += 1);
            }
            Order::Dark(nodes) => wish.send_modify(|wish| wish.dark = nodes),
            Order::Back(nodes) => wish.send_modify(|wish| wish.back = nodes),
        }
        let wish = *wish.borrow();
        answer(&serde_json::to_string(&board.standing(&wish))?)?;
    }
    Ok(())
}

fn answer(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("answer")
}

/// A session is a file.
fn raise_files() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("ask how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise how many files may be open")
}

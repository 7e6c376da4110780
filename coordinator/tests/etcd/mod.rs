//! A real etcd on loopback, and a proxy before a server that can be cut. Shared by the tests of the store and of several
//! coordinators.
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests; each uses a part of them"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use blackstart_proto::tls::TlsFiles;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Below the ports that systems give out by themselves.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const PROGRAM: &str = "/usr/bin/etcd";

/// Without etcd a test says SKIPPED; in CI it must run.
pub(crate) fn is_here(test: &str) -> bool {
    if Path::new(PROGRAM).exists() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test}: there is no {PROGRAM}; make needs-testbed installs it"
    );
    println!("SKIPPED {test}: there is no {PROGRAM}; make needs-testbed installs it");
    false
}

/// A port that nobody listens on now, and that was given to nobody else here: whoever has it may be down for a while.
pub(crate) fn free_port() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut random = rand::rng();
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(PORTS)));
        if StdListener::bind(address).is_ok() && GIVEN.lock().unwrap().insert(address.port()) {
            return address;
        }
    }
}

/// An etcd cluster, each member a process. Killed when dropped.
pub(crate) struct Etcd {
    members: Vec<Member>,
    _dir: tempfile::TempDir,
}

struct Member {
    name: String,
    dir: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    cluster: String,
    /// It speaks TLS, and only with who has a certificate of this authority.
    tls: Option<TlsFiles>,
    process: Option<Child>,
}

impl Etcd {
    /// `count` members that have been started.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    /// The same, with `tls` to its clients.
    pub(crate) fn start_with(count: usize, tls: Option<&TlsFiles>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut members: Vec<_> = (1..=count)
            .map(|number| Member {
                name: format!("m{number}"),
                dir: dir.path().join(format!("m{number}")),
                client: free_port(),
                peer: free_port(),
                cluster: String::new(),
                tls: tls.cloned(),
                process: None,
            })
            .collect();
        let cluster: Vec<_> = members
            .iter()
            .map(|m| format!("{}=http://{}", m.name, m.peer))
            .collect();
        for member in &mut members {
            member.cluster = cluster.join(",");
            member.start();
        }
        Self { members, _dir: dir }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    pub(crate) fn kill_member(&mut self, index: usize) {
        self.members[index].kill();
    }

    pub(crate) fn start_member(&mut self, index: usize) {
        self.members[index].start();
    }
}

impl Member {
    fn start(&mut self) {
        fs::create_dir_all(&self.dir).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let url = |address| format!("http://{address}");
        let for_clients = match &self.tls {
            Some(_) => format!("https://{}", self.client),
            None => url(self.client),
        };
        let mut command = Command::new(PROGRAM);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.certificate);
            command.arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--client-cert-auth");
        }
        let process = command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(["--listen-client-urls", &for_clients])
            .args(["--advertise-client-urls", &for_clients])
            .args(["--listen-peer-urls", &url(self.peer)])
            .args(["--initial-advertise-peer-urls", &url(self.peer)])
            .args(["--initial-cluster", &self.cluster])
            .args(["--logger", "zap", "--log-level", "warn"])
            .env_remove("ETCD_UNSUPPORTED_ARCH")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ended_already = process.kill();
            let _status = process.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(process: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(process).unwrap()), signal).unwrap();
}

/// What a [`Proxy`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Passes everything on.
    Whole,
    /// Passes on what clients say, and swallows what they would be answered.
    Mute,
    /// Nothing passes, either way; connections stand, as across a firewall that drops.
    Cut,
}

/// Stands before a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, seen) = watch::channel(Line::Whole);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, seen.clone()));
            }
        });
        Self { address, line }
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn pass(client: TcpStream, server: SocketAddr, line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut seen = line.clone();
    let there = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if seen.wait_for(|line| *line != Line::Cut).await.is_err() {
                return;
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let mut seen = line;
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if *seen.borrow() == Line::Mute {
                // Lost for good: a stream with a hole in it is of no use any more.
                let _ = seen.wait_for(|line| *line == Line::Whole).await;
                return;
            }
            if seen.wait_for(|line| *line != Line::Cut).await.is_err() {
                return;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

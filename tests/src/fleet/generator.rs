//! A crowd in a process of its own, from the side of whoever orders it about.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use super::{Order, Standing};
use crate::coordinator::program;
use crate::wait;

/// For an answer; the generator may have ten thousand handshakes before it.
const ANSWER: Duration = Duration::from_mins(1);

/// A generator that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Generator {
    process: Child,
    nodes: usize,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Generator {
    /// Starts one; its sessions begin at once, when it has made their certificates.
    ///
    /// # Errors
    /// It did not start.
    pub async fn start(
        pki: &Path,
        address: SocketAddr,
        nodes: usize,
        interval: Duration,
    ) -> anyhow::Result<Self> {
        let mut process = Command::new(program("bench-fleet")?)
            .arg("sessions")
            .arg("--pki")
            .arg(pki)
            .args(["--address", &address.to_string()])
            .args(["--nodes", &nodes.to_string()])
            .args(["--interval-ms", &interval.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run bench-fleet sessions")?;
        let orders = process.stdin.take().context("take its input")?;
        let answers = process.stdout.take().context("take its output")?;
        let mut generator = Self {
            process,
            nodes,
            orders,
            answers: BufReader::new(answers).lines(),
        };
        let ready = generator.line().await?;
        ensure!(ready == "\"ready\"", "the generator says {ready}");
        Ok(generator)
    }

    /// Its process.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let pid = self.process.id().context("the generator has ended")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    /// Tells it something, and hears how it stands.
    ///
    /// # Errors
    /// It has ended.
    pub async fn order(&mut self, order: Order) -> anyhow::Result<Standing> {
        let line = serde_json::to_string(&order)? + "\n";
        self.orders
            .write_all(line.as_bytes())
            .await
            .context("tell the generator")?;
        let answer = self.line().await?;
        serde_json::from_str(&answer).with_context(|| format!("understand {answer:?}"))
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let line = timeout(ANSWER, self.answers.next_line()).await;
        line.context("the generator does not answer")??
            .context("the generator has ended")
    }

    /// Until every node is registered: how long that took.
    ///
    /// # Errors
    /// Not all were within `deadline`.
    pub async fn all_registered(&mut self, deadline: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut last = Standing::default();
        let all = wait::until("every node to be registered", deadline, async || {
            last = self.order(Order::Look).await?;
            Ok((last.registered == self.nodes).then(|| began.elapsed()))
        })
        .await;
        all.with_context(|| format!("{last:?}"))
    }
}

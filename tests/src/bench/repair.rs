//! Death of a kubelet to its restart, timed on the node's own bus.
//!
//! ```text
//! SIGKILL ──► systemd notices ──► agent notices ──► intent durable ──► RestartUnit ──► new process
//!    └──────────────────────── request ───────────────────────────────────┘               │
//!    └──────────────────────── running ───────────────────────────────────────────────────┘
//! ```
//!
//! All times are `CLOCK_MONOTONIC` of the one kernel: of the kill just before the call, of the request when the node's bus
//! passes it to a monitor, of running as systemd itself stamps it.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};
use zbus::message::Type;
use zbus::{Connection, MessageStream, OwnedObjectPath, Variant};

use crate::node::Node;

/// What the agent restarts.
pub const KUBELET: &str = "kubelet.service";
/// No repair may take longer.
pub const DEADLINE: Duration = Duration::from_secs(20);
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";
/// Between two questions whether a unit runs again.
const ASK: Duration = Duration::from_millis(5);

/// One repair, microseconds after the kill.
#[derive(Debug, Clone, Copy)]
pub struct Repair {
    /// The agent asked systemd for a restart.
    pub request: u64,
    /// systemd says that it runs again.
    pub running: u64,
}

/// Two connections to the bus of the node: one asks, one only listens.
#[derive(Debug)]
pub struct Bus {
    asks: Connection,
    /// `RestartUnit` calls, whoever makes them.
    requests: MessageStream,
}

impl Bus {
    /// Connects to the bus of `node`.
    ///
    /// # Errors
    /// It cannot be reached, or does not let itself be listened to.
    pub async fn connect(node: &Node) -> anyhow::Result<Self> {
        let socket = node.path("/run/dbus/system_bus_socket")?;
        let address = format!("unix:path={}", socket.display());
        let open = async || zbus::connection::Builder::address(address.as_str()).build().await;
        let (asks, listens) = (open().await?, open().await?);
        let requests = MessageStream::from(&listens);
        let rules = [format!(
            "type='method_call',interface='{MANAGER}',member='RestartUnit'"
        )];
        listens
            .call_method(
                Some(BUS),
                "/org/freedesktop/DBus",
                Some("org.freedesktop.DBus.Monitoring"),
                "BecomeMonitor",
                &(&rules[..], 0_u32),
            )
            .await
            .context("listen to the node's bus")?;
        Ok(Self { asks, requests })
    }

    /// Kills the kubelet, and waits for the agent to bring it back.
    ///
    /// # Errors
    /// It does not run, or is not brought back in time.
    pub async fn kubelet_round(&mut self, node: &Node) -> anyhow::Result<Repair> {
        let killed = self.kill(node, KUBELET).await?;
        let request = timeout(DEADLINE, self.request())
            .await
            .context("no request for a restart")??;
        let running = self.running_since(KUBELET, killed).await?;
        Ok(Repair {
            request: request.saturating_sub(killed),
            running: running - killed,
        })
    }

    /// Kills a unit that systemd restarts by itself; microseconds until it runs again.
    ///
    /// # Errors
    /// It does not run, or does not come back in time.
    pub async fn sibling_round(&mut self, node: &Node, unit: &str) -> anyhow::Result<u64> {
        let killed = self.kill(node, unit).await?;
        Ok(self.running_since(unit, killed).await? - killed)
    }

    /// Kills a unit's main process; when.
    async fn kill(&self, node: &Node, unit: &str) -> anyhow::Result<u64> {
        let pid = node
            .main_pid(unit)
            .await?
            .with_context(|| format!("{unit} does not run"))?;
        let now = monotonic()?;
        kill(pid, Signal::SIGKILL)?;
        Ok(now)
    }

    /// When the next request to restart the kubelet comes by.
    async fn request(&mut self) -> anyhow::Result<u64> {
        while let Some(message) = self.requests.next().await {
            let (message, now) = (message?, monotonic()?);
            if message.message_type() != Type::MethodCall {
                continue;
            }
            let body = message.body();
            if let Ok((KUBELET, _)) = body.deserialize::<(&str, &str)>() {
                return Ok(now);
            }
        }
        bail!("the node's bus has gone")
    }

    /// When the unit became active after `killed`, as systemd stamps it.
    async fn running_since(&self, unit: &str, killed: u64) -> anyhow::Result<u64> {
        let path: OwnedObjectPath = self
            .asks
            .call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "GetUnit", &unit)
            .await?
            .body()
            .deserialize()?;
        let ask = async {
            loop {
                let answer = self
                    .asks
                    .call_method(
                        Some(SYSTEMD),
                        &path,
                        Some(PROPERTIES),
                        "Get",
                        &(UNIT, "ActiveEnterTimestampMonotonic"),
                    )
                    .await?;
                let body = answer.body();
                let entered = u64::try_from(body.deserialize::<Variant<'_>>()?)?;
                if entered > killed {
                    return anyhow::Ok(entered);
                }
                sleep(ASK).await;
            }
        };
        timeout(DEADLINE, ask)
            .await
            .with_context(|| format!("{unit} does not run again"))?
    }
}

/// Microseconds.
fn monotonic() -> anyhow::Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_micros())?)
}

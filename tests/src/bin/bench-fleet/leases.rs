//! As many leases in etcd, kept alive by one client over one connection: what a fleet costs that is known by its leases.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use blackstart_tests::bench::figures::{Aim, Figure};
use blackstart_tests::bench::process::{Usage, processor};
use blackstart_tests::docker::say;
use blackstart_tests::wait;

const DEADLINE: Duration = Duration::from_mins(1);
/// As a kubelet's lease.
const TTL: i64 = 40;
/// Leases that are granted at once.
const GRANTS: usize = 256;
/// Renewals are sent in so many portions of an interval.
const PORTIONS: usize = 100;

/// `LeaseGrantRequest` and, as far as it is read, `LeaseGrantResponse` of etcd's rpc.proto (there the id is the second field).
#[derive(Clone, PartialEq, prost::Message)]
struct Grant {
    #[prost(int64, tag = "1")]
    ttl: i64,
    #[prost(int64, tag = "2")]
    id: i64,
}

/// `LeaseKeepAliveRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct KeepAlive {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// `LeaseGrantResponse` and `LeaseKeepAliveResponse`, which have the same fields as far as they are read.
#[derive(Clone, PartialEq, prost::Message)]
struct Lease {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    ttl: i64,
}

/// `None`: there is no etcd.
pub(super) async fn measure(
    count: usize,
    every: Duration,
    window: Duration,
) -> anyhow::Result<Option<Vec<Figure>>> {
    let dir = tempfile::tempdir().context("make a directory")?;
    let Some((mut etcd, client)) = start(dir.path()).await? else {
        return Ok(None);
    };
    let pid = Pid::from_raw(i32::try_from(etcd.id().context("etcd has ended")?)?);
    let channel = Endpoint::from_shared(at(client))?
        .connect()
        .await
        .context("connect to etcd")?;
    // Each waits for the disk: many together wait once.
    stream::iter(1..=i64::try_from(count)?)
        .map(|id| grant(Grpc::new(channel.clone()), id))
        .buffer_unordered(GRANTS)
        .try_collect::<()>()
        .await?;
    let mut grpc = Grpc::new(channel);
    say(&format!("etcd has granted {count} leases"));
    let (renew, renewals) = mpsc::channel(count);
    // etcd answers the call with its first answer, and that to something asked.
    renew.send(KeepAlive { id: 1 }).await?;
    let mut renewed = keep_alive(&mut grpc, renewals).await?;
    let renewing = tokio::spawn(async move {
        let mut portions = interval(every / u32::try_from(PORTIONS)?);
        for portion in 0.. {
            portions.tick().await;
            for id in (1..=count).filter(|id| id % PORTIONS == portion % PORTIONS) {
                renew
                    .send(KeepAlive {
                        id: i64::try_from(id)?,
                    })
                    .await?;
            }
        }
        anyhow::Ok(())
    });
    let reading = tokio::spawn(async move {
        while let Some(lease) = renewed.message().await? {
            ensure!(lease.ttl > 0, "lease {} has ended", lease.id);
        }
        Ok(())
    });
    sleep(every).await;
    let (began, before) = (Instant::now(), processor(pid)?);
    sleep(window).await;
    ensure!(
        !renewing.is_finished() && !reading.is_finished(),
        "the leases were not kept alive"
    );
    let spent = processor(pid)?.saturating_sub(before);
    let usage = Usage::of(pid)?;
    renewing.abort();
    reading.abort();
    etcd.kill().await.context("end etcd")?;
    let figure = |name: &str, unit, value, how| Figure {
        name: name.to_owned(),
        unit,
        value,
        aim: Aim::None,
        peers: Vec::new(),
        how,
    };
    let how =
        "etcd with nothing but these leases, kept alive over one plain connection, each once in the interval";
    Ok(Some(vec![
        figure(
            "etcd with as many leases: memory (RSS)",
            "MiB",
            f64::from(u32::try_from(usage.rss)?) / 1024.0,
            how,
        ),
        figure(
            "etcd with as many leases: processor",
            "% of a core",
            100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64(),
            how,
        ),
    ]))
}

fn at(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// An etcd of one member and its port; `None`: there is none on this machine.
async fn start(dir: &Path) -> anyhow::Result<Option<(Child, u16)>> {
    let (client, peer) = (free_port().await?, free_port().await?);
    let started = Command::new("etcd")
        .args(["--name", "bench", "--data-dir"])
        .arg(dir)
        .args([
            "--listen-client-urls",
            &at(client),
            "--advertise-client-urls",
            &at(client),
        ])
        .args([
            "--listen-peer-urls",
            &at(peer),
            "--initial-advertise-peer-urls",
            &at(peer),
        ])
        .args(["--initial-cluster", &format!("bench={}", at(peer))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let etcd = match started {
        Ok(etcd) => etcd,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("run etcd"),
    };
    wait::until("etcd to listen", DEADLINE, async || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, client))
            .await
            .ok()
            .map(drop))
    })
    .await?;
    Ok(Some((etcd, client)))
}

async fn grant(mut grpc: Grpc<Channel>, id: i64) -> anyhow::Result<()> {
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseGrant");
    let asked = Request::new(Grant { ttl: TTL, id });
    let granted = grpc
        .unary(asked, path, ProstCodec::<Grant, Lease>::default())
        .await;
    let granted = granted.context("grant a lease")?.into_inner();
    ensure!(granted.id == id, "asked for lease {id}, and got {}", granted.id);
    Ok(())
}

async fn keep_alive(
    grpc: &mut Grpc<Channel>,
    renewals: mpsc::Receiver<KeepAlive>,
) -> anyhow::Result<Streaming<Lease>> {
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
    let asked = Request::new(ReceiverStream::new(renewals));
    let kept = grpc
        .streaming(asked, path, ProstCodec::<KeepAlive, Lease>::default())
        .await;
    Ok(kept.context("keep leases alive")?.into_inner())
}

async fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?.port())
}

//! A client of etcd: writes all the time, and finds again what was acknowledged.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use blackstart_proto::etcd::kv_client::KvClient;
use blackstart_proto::etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use blackstart_proto::tls::TlsFiles;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A write that is not answered within this is not counted, and may have been made.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest value that is written, bytes: etcd takes requests of 1.5 MiB.
const LARGEST: usize = 512 << 10;

/// A member, as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it takes clients.
    pub address: SocketAddr,
    /// What they show; `None`: it speaks no TLS.
    pub tls: Option<TlsFiles>,
}

impl Member {
    fn channel(&self) -> anyhow::Result<Channel> {
        let Self { address, tls } = self;
        let endpoint = match tls {
            None => Endpoint::from_shared(format!("http://{address}"))?,
            Some(tls) => {
                let read = |path| fs::read(path).with_context(|| format!("read {}", tls.ca.display()));
                let config = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
                    .identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?));
                Endpoint::from_shared(format!("https://{address}"))?.tls_config(config)?
            }
        };
        Ok(endpoint.connect_timeout(PATIENCE).connect_lazy())
    }
}

/// A key that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its name.
    pub key: String,
    /// Of the write, as etcd answered.
    pub revision: i64,
}

/// The revision of the write; `None`: it was not acknowledged.
async fn put(channel: &Channel, key: String, size: usize) -> Option<i64> {
    let put = PutRequest {
        key: key.into_bytes(),
        value: vec![7; size],
        lease: 0,
    };
    let txn = TxnRequest {
        success: vec![RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }],
        ..TxnRequest::default()
    };
    let written = timeout(PATIENCE, KvClient::new(channel.clone()).txn(txn)).await;
    let header = written.ok()?.ok()?.into_inner().header?;
    Some(header.revision)
}

/// Writes so many MiB.
///
/// # Errors
/// A write was not acknowledged.
pub async fn fill(member: &Member, mib: usize) -> anyhow::Result<()> {
    let channel = member.channel()?;
    for number in 0..(mib << 20) / LARGEST {
        // One that is late is written once more.
        let key = format!("fill/{number:06}");
        let written = put(&channel, key.clone(), LARGEST).await;
        if written.is_none() && put(&channel, key, LARGEST).await.is_none() {
            bail!("fill etcd: a write was not acknowledged");
        }
    }
    Ok(())
}

/// Those of the keys that a member does not have, as a majority has them.
///
/// # Errors
/// The client's files cannot be read.
pub async fn missing(member: &Member, keys: &[Acknowledged]) -> anyhow::Result<Vec<String>> {
    let channel = member.channel()?;
    let mut lost = Vec::new();
    for Acknowledged { key, .. } in keys {
        let range = RangeRequest {
            key: key.as_bytes().to_vec(),
            ..RangeRequest::default()
        };
        let found = timeout(PATIENCE, KvClient::new(channel.clone()).range(range)).await;
        if !matches!(found, Ok(Ok(found)) if !found.get_ref().kvs.is_empty()) {
            lost.push(key.clone());
        }
    }
    Ok(lost)
}

/// Writes one key after the other, through any of the members. Ends when it is dropped.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Acknowledged>>,
}

impl Writer {
    /// Keys of this name and a number.
    ///
    /// # Errors
    /// The client's files cannot be read.
    pub fn start(name: &str, members: &[Member]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let channels = members
            .iter()
            .map(Member::channel)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (until, name) = (Arc::clone(&stop), name.to_owned());
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for (number, channel) in channels.iter().cycle().enumerate() {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}/{number:08}");
                if let Some(revision) = put(channel, key.clone(), 64).await {
                    acknowledged.push(Acknowledged { key, revision });
                }
                // A steady load, and not all that etcd can take.
                sleep(Duration::from_millis(10)).await;
            }
            acknowledged
        });
        Ok(Self { stop, task })
    }

    /// Every key that was acknowledged.
    ///
    /// # Errors
    /// It broke off.
    pub async fn stop(mut self) -> anyhow::Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.context("write to etcd")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! A client of the drill's etcd: writes all the time, and finds again what was acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blackstart_proto::etcd::kv_client::KvClient;
use blackstart_proto::etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::failure::Failure;

/// A write that is not answered within this is not counted, and may have been made.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest value that is written, bytes: etcd takes requests of 1.5 MiB.
const LARGEST: usize = 512 << 10;

fn channel(member: SocketAddr) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{member}"));
    let endpoint = endpoint.map_err(|error| Failure::other(format!("reach the drill's etcd: {error}")))?;
    Ok(endpoint.connect_timeout(PATIENCE).connect_lazy())
}

/// A key that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) key: String,
    /// Of the write, as etcd answered.
    pub(super) revision: i64,
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
pub(super) async fn fill(member: SocketAddr, mib: usize) -> Result<(), Failure> {
    let channel = channel(member)?;
    for number in 0..(mib << 20) / LARGEST {
        // One that is late is written once more.
        let key = format!("fill/{number:06}");
        let written = put(&channel, key.clone(), LARGEST).await;
        if written.is_none() && put(&channel, key, LARGEST).await.is_none() {
            return Err(Failure::other(
                "fill the drill's etcd: a write was not acknowledged",
            ));
        }
    }
    Ok(())
}

/// Those of the keys that a member does not have, as a majority has them.
pub(super) async fn missing(member: SocketAddr, keys: &[Acknowledged]) -> Result<Vec<String>, Failure> {
    let channel = channel(member)?;
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
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Acknowledged>>,
}

impl Writer {
    pub(super) fn start(members: &[SocketAddr]) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let channels = members
            .iter()
            .map(|member| channel(*member))
            .collect::<Result<Vec<_>, _>>()?;
        let until = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for (number, channel) in channels.iter().cycle().enumerate() {
                if until.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("writer/{number:08}");
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
    pub(super) async fn stop(mut self) -> Result<Vec<Acknowledged>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = (&mut self.task).await;
        ended.map_err(|error| Failure::other(format!("write to the drill's etcd: {error}")))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! A client of the cluster under test: writes, and finds again what was acknowledged.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blackstart_proto::etcd::kv_client::KvClient;
use blackstart_proto::etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op};
use blackstart_proto::tls::TlsFiles;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A write that is not answered within this is not counted, and may have been made.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn channel(member: SocketAddr, tls: &TlsFiles) -> Channel {
    let read = |path| fs::read(path).unwrap();
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&tls.ca)))
        .identity(Identity::from_pem(read(&tls.certificate), read(&tls.key)));
    Endpoint::from_shared(format!("https://{member}"))
        .unwrap()
        .tls_config(config)
        .unwrap()
        .connect_timeout(PATIENCE)
        .connect_lazy()
}

/// The revision that it was given, if it was acknowledged.
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
    let header = written.ok()?.ok()?.into_inner().header;
    Some(header.unwrap_or_default().revision)
}

/// So many keys of so many bytes.
pub(crate) async fn fill(member: SocketAddr, tls: &TlsFiles, count: usize, size: usize) {
    let channel = channel(member, tls);
    for number in 0..count {
        assert!(
            put(&channel, format!("fill/{number:06}"), size).await.is_some(),
            "key {number}"
        );
    }
}

/// Whether a key is there, as a majority has it.
pub(crate) async fn has(member: SocketAddr, tls: &TlsFiles, key: &str) -> bool {
    let range = RangeRequest {
        key: key.as_bytes().to_vec(),
        ..RangeRequest::default()
    };
    let mut client = KvClient::new(channel(member, tls));
    let found = timeout(PATIENCE, client.range(range)).await.unwrap().unwrap();
    !found.into_inner().kvs.is_empty()
}

/// Writes all the time, one key after the other, through any of the members.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<(String, i64)>>,
}

impl Writer {
    pub(crate) fn start(members: &[SocketAddr], tls: &TlsFiles) -> Self {
        Self::start_at(0, members, tls)
    }

    /// The same with other keys: those of this number and later.
    pub(crate) fn start_at(first: usize, members: &[SocketAddr], tls: &TlsFiles) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let channels: Vec<_> = members.iter().map(|member| channel(*member, tls)).collect();
        let until = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let mut number = first;
            while !until.load(Ordering::Relaxed) {
                let key = format!("writer/{number:08}");
                if let Some(revision) = put(&channels[number % channels.len()], key.clone(), 64).await {
                    acknowledged.push((key, revision));
                }
                number += 1;
                // A steady load, and not all that etcd can take.
                sleep(Duration::from_millis(5)).await;
            }
            acknowledged
        });
        Self { stop, task }
    }

    /// Every key that was acknowledged.
    pub(crate) async fn stop(self) -> Vec<String> {
        let all = self.stop_with_revisions().await;
        all.into_iter().map(|(key, _)| key).collect()
    }

    /// The same, each with its revision.
    pub(crate) async fn stop_with_revisions(self) -> Vec<(String, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

//! A client that watches, as API servers do: from the revision after the last that it has seen, and from a new look where that is compacted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blackstart_proto::etcd::kv_client::KvClient;
use blackstart_proto::etcd::watch_client::WatchClient;
use blackstart_proto::etcd::{RangeRequest, WatchCreateRequest, WatchRequest, watch_request};
use blackstart_proto::tls::TlsFiles;
use futures_util::StreamExt;
use futures_util::stream::{once, pending};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::store::channel;

/// Between two attempts, and the longest wait for the beginning of one.
const AGAIN: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);
/// What is watched.
const FROM: &[u8] = b"writer/";
const TO: &[u8] = b"writer0";

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The highest revision.
    pub(crate) last: i64,
    /// So many changes.
    pub(crate) events: usize,
    /// So often it had to look anew, since what it wanted next was compacted.
    pub(crate) looks: usize,
    /// A revision that came after a higher one.
    pub(crate) backward: Vec<(i64, i64)>,
}

impl Seen {
    fn take(&mut self, revision: i64, is_next: bool) {
        if revision < self.last || (is_next && revision == self.last) {
            self.backward.push((self.last, revision));
        }
        self.last = self.last.max(revision);
    }
}

pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

impl Watcher {
    pub(crate) fn start(member: SocketAddr, tls: &TlsFiles) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, channel) = (Arc::clone(&stop), channel(member, tls));
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            while !until.load(Ordering::Relaxed) {
                watch(&channel, &mut seen, &until).await;
                sleep(AGAIN).await;
            }
            seen
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Until the connection breaks, or what is wanted is compacted.
async fn watch(channel: &Channel, seen: &mut Seen, stop: &AtomicBool) {
    let request = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(WatchCreateRequest {
            key: FROM.to_vec(),
            range_end: TO.to_vec(),
            start_revision: seen.last + 1,
        })),
    };
    let asked = once(async { request }).chain(pending());
    let mut client = WatchClient::new(channel.clone());
    let Ok(Ok(begun)) = timeout(PATIENCE, client.watch(asked)).await else {
        return;
    };
    let mut answers = begun.into_inner();
    while !stop.load(Ordering::Relaxed) {
        let answer = match timeout(AGAIN, answers.message()).await {
            Err(_) => continue,
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None) | Err(_)) => return,
        };
        for event in &answer.events {
            seen.events += 1;
            // Keys that one transaction has written have one revision.
            seen.take(event.kv.clone().unwrap_or_default().mod_revision, true);
        }
        if answer.canceled {
            let mut kv = KvClient::new(channel.clone());
            let range = RangeRequest {
                key: FROM.to_vec(),
                ..RangeRequest::default()
            };
            if let Ok(Ok(looked)) = timeout(PATIENCE, kv.range(range)).await {
                seen.looks += 1;
                seen.take(looked.into_inner().header.unwrap_or_default().revision, false);
            }
            return;
        }
    }
}

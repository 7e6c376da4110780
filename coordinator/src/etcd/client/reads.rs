//! Reading what there is, and following what changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Status, Streaming};

use super::super::wire::kv_client::KvClient;
use super::super::wire::watch_client::WatchClient;
use super::super::wire::{
    KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use super::{Etcd, EtcdError, MAX_ANSWER, ROUND, one};

/// Keys of one page.
const PAGE: i64 = 256;

impl Etcd {
    /// What is there now, as a majority of the members has it.
    pub(crate) async fn range(
        &self,
        within: Duration,
        range: &RangeRequest,
    ) -> Result<RangeResponse, EtcdError> {
        let ask = |channel| async move {
            let mut kv = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            kv.range(range.clone()).await
        };
        self.call(within, ask).await
    }

    /// One key.
    pub(crate) async fn get(&self, within: Duration, key: &[u8]) -> Result<Option<KeyValue>, EtcdError> {
        let found = self.range(within, &one(key)).await?;
        Ok(found.kvs.into_iter().next())
    }

    /// Every key that begins with `prefix`, by key, a page at a time; each page has the whole deadline.
    pub(crate) async fn all(&self, within: Duration, prefix: &[u8]) -> Result<Vec<KeyValue>, EtcdError> {
        Ok(self.pages(within, prefix, false).await?.0)
    }

    /// The same as of one revision, and which.
    pub(crate) async fn all_at_once(
        &self,
        within: Duration,
        prefix: &[u8],
    ) -> Result<(Vec<KeyValue>, i64), EtcdError> {
        self.pages(within, prefix, true).await
    }

    async fn pages(
        &self,
        within: Duration,
        prefix: &[u8],
        at_once: bool,
    ) -> Result<(Vec<KeyValue>, i64), EtcdError> {
        let mut range = RangeRequest {
            key: prefix.to_vec(),
            range_end: after(prefix),
            limit: PAGE,
            revision: 0,
        };
        let (mut found, mut revision) = (Vec::new(), 0);
        loop {
            let page = self.range(within, &range).await?;
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
                range.revision = if at_once { revision } else { 0 };
            }
            let Some(last) = page.kvs.last() else {
                return Ok((found, revision));
            };
            range.key = [last.key.as_slice(), &[0]].concat();
            found.extend(page.kvs);
            if !page.more {
                return Ok((found, revision));
            }
        }
    }

    /// Every change of a key that begins with `prefix` after `revision`, in order, from the member that answered last. Ends when it
    /// fails; begun within `within`.
    pub(crate) async fn changes(
        &self,
        within: Duration,
        prefix: &[u8],
        revision: i64,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let create = WatchCreateRequest {
            key: prefix.to_vec(),
            range_end: after(prefix),
            start_revision: revision + 1,
        };
        let begun = self.watch(create);
        timeout_at(Instant::now() + within, begun)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    async fn watch(&self, create: WatchCreateRequest) -> Result<Streaming<WatchResponse>, Status> {
        let member = &self.members[self.turn.load(Ordering::Relaxed) % self.members.len()];
        let create = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        // The stream of requests stays open for as long as the answers are read.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(create), tokio_stream::pending());
        let mut client = WatchClient::new(member.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        Ok(client.watch(requests).await?.into_inner())
    }

    /// Until a key has changed after `revision`, or its member fails, or `within` is over: a reason to look again, no more.
    pub(crate) async fn changed(&self, within: Duration, key: &[u8], revision: i64) {
        let member = &self.members[self.turn.load(Ordering::Relaxed) % self.members.len()];
        let create = WatchCreateRequest {
            key: key.to_vec(),
            range_end: Vec::new(),
            start_revision: revision + 1,
        };
        let watched = async {
            let mut answers = self.watch(create).await?;
            while let Some(answer) = answers.message().await? {
                if answer.canceled || !answer.events.is_empty() {
                    break;
                }
            }
            Ok::<_, Status>(())
        };
        match timeout_at(Instant::now() + within, watched).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(status)) => {
                tracing::debug!(member = member.endpoint, why = status.message(), "a watch ended");
                // Another member may do better, and this one is not asked in a tight loop.
                self.turn.fetch_add(1, Ordering::Relaxed);
                sleep(ROUND).await;
            }
        }
    }
}

/// The first key after all that begin with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "to the very last".
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it() {
        assert_eq!(after(b"a/"), b"a0");
        assert_eq!(after(&[1, 0xff]), [2]);
        assert_eq!(after(&[0xff, 0xff]), [0]);
        assert_eq!(after(b""), [0]);
    }
}

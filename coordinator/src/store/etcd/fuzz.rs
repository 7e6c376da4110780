//! What etcd tells of a store, for the fuzzer: watched changes, as a coordinator that follows takes them in, and what it reads of them.

use blackstart_proto::Message;

use super::snapshot::Snapshot;
use crate::etcd::found;
use crate::etcd::wire::event::EventType;
use crate::etcd::wire::{TxnResponse, WatchResponse};
use crate::leader::{Card, Keys};
use crate::store::Store;
use crate::trust::desk::revoked;

const PREFIX: &str = "/b/";

/// The changes of a watch, or the answers of a transaction.
pub(crate) fn answers(bytes: &[u8]) {
    if let Ok(answer) = TxnResponse::decode(bytes) {
        for key in found(answer.responses).flatten() {
            let _leader = serde_json::from_slice::<Card>(&key.value);
        }
    }
    let Ok(changed) = WatchResponse::decode(bytes) else {
        return;
    };
    let mut snapshot = Snapshot::new(Keys::new(PREFIX), PREFIX);
    for event in changed.events {
        let gone = event.r#type() == EventType::Delete;
        let Some(key) = event.kv else { continue };
        if gone {
            snapshot.remove(&key.key);
        } else {
            snapshot.set(key);
        }
    }
    for run in snapshot.runs().unwrap_or_default() {
        let _journal = snapshot.journal(&run);
    }
    for (key, value) in snapshot.scan("").unwrap_or_default() {
        // Names that are no text are read as such that nobody has.
        if !key.contains(char::REPLACEMENT_CHARACTER) {
            assert_eq!(snapshot.get(&key).ok().flatten(), Some(value));
        }
    }
    let _revoked = revoked(&snapshot);
}

//! A snapshot on its way from an agent to an operator: one piece at a time is asked for, and none before the last was taken.

use blackstart_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::refused;
use crate::api::convert::etcd::snapshot_told;
use crate::inventory::{ClusterName, NodeName};
use crate::runbooks::Runbooks;

/// Pieces that wait for who fetches, each of 256 KiB.
const AHEAD: usize = 2;

type Pieces = ReceiverStream<Result<v1::FetchedEtcdSnapshot, Status>>;

/// Which it is first, and then its pieces.
pub(super) async fn begin(
    runbooks: Runbooks,
    cluster: ClusterName,
    asked: v1::FetchEtcdSnapshotRequest,
) -> Result<Pieces, Status> {
    let glance = runbooks
        .etcd(&cluster)
        .await
        .map_err(|refusal| refused(&refusal))?;
    let node = NodeName(asked.node);
    let told = glance.view.on(&node).and_then(|seen| seen.told.as_ref());
    let told = told.ok_or_else(|| {
        Status::not_found(format!(
            "{node} is no node of cluster {cluster} whose agent tells of etcd"
        ))
    })?;
    let snapshot = told.snapshots.iter().find(|snapshot| snapshot.file == asked.file);
    let snapshot = snapshot.ok_or_else(|| {
        Status::not_found(format!(
            "{node} has no snapshot {}; blackstart etcd snapshot list {cluster}",
            asked.file
        ))
    })?;
    if asked.offset > snapshot.bytes {
        return Err(Status::invalid_argument(format!(
            "it has {} bytes, and {} are there already: it is not the same file",
            snapshot.bytes, asked.offset
        )));
    }
    let (to, pieces) = mpsc::channel(AHEAD);
    let head = v1::FetchedEtcdSnapshot {
        snapshot: Some(snapshot_told(snapshot)),
        ..v1::FetchedEtcdSnapshot::default()
    };
    let (whole, file, mut offset) = (snapshot.bytes, snapshot.file.clone(), asked.offset);
    tokio::spawn(async move {
        // Whoever fetches may go at any time.
        if to.send(Ok(head)).await.is_err() {
            return;
        }
        while offset < whole {
            let piece = match runbooks.etcd_piece(&node, &file, offset).await {
                Ok((data, _)) if data.is_empty() => Err(format!("{file} became shorter meanwhile")),
                Ok((_, bytes)) if bytes != whole => Err(format!("{file} is another one by now")),
                Ok((data, _)) => Ok(data),
                Err(why) => Err(why),
            };
            let sent = match piece {
                Ok(data) => {
                    offset += data.len() as u64;
                    let piece = v1::FetchedEtcdSnapshot {
                        snapshot: None,
                        data: data.into(),
                    };
                    to.send(Ok(piece)).await.is_ok()
                }
                Err(why) => {
                    let _gone = to.send(Err(Status::unavailable(format!("{node}: {why}")))).await;
                    false
                }
            };
            if !sent {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(pieces))
}

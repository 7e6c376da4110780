//! A snapshot is written beside its place as `.partial`, gone on with after a break, and gets its name once its hash is that which was told.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_proto::v1;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use tokio_stream::StreamExt;

use crate::client::Fleet;
use crate::failure::Failure;
use crate::view::EtcdSnapshot;

/// Read at once when a file is read again, bytes.
const BUFFER: usize = 1 << 20;
/// Between two drawings.
const DRAWN: Duration = Duration::from_millis(250);

/// See the module.
pub(super) async fn fetch(
    fleet: &mut Fleet,
    cluster: &str,
    snapshot: &EtcdSnapshot,
    to: &Path,
) -> Result<(), Failure> {
    if to.exists() {
        return Err(Failure::other(format!("{} is there already", to.display())));
    }
    // Its hash in the name: what is left of another one is not gone on with.
    let mut partial = to.as_os_str().to_owned();
    partial.push(format!(
        ".{}.partial",
        snapshot.sha256.get(..12).unwrap_or_default()
    ));
    let partial = PathBuf::from(partial);
    let failed = |error: io::Error| Failure::other(format!("write {}: {error}", partial.display()));
    let mut options = File::options();
    let mut file = options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    let offset = file.metadata().map_err(failed)?.len();
    let request = v1::FetchEtcdSnapshotRequest {
        cluster: cluster.to_owned(),
        node: snapshot.node.clone(),
        file: snapshot.file.clone(),
        offset,
    };
    let kept = |failure: Failure| {
        let has = fs::metadata(&partial).map_or(0, |seen| seen.len());
        if has == 0 {
            let _empty = fs::remove_file(&partial);
            return failure;
        }
        Failure::other(format!(
            "{failure}; {} has {has} of {} bytes, and the same command goes on from there",
            partial.display(),
            snapshot.bytes
        ))
    };
    let mut pieces = Box::pin(fleet.fetch_etcd_snapshot(request).await.map_err(kept)?);
    let bar = ProgressBar::with_draw_target(Some(snapshot.bytes), ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(DRAWN);
    bar.set_position(offset);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(kept)?;
        file.write_all(&piece.data).map_err(failed)?;
        bar.inc(piece.data.len() as u64);
    }
    file.sync_all().map_err(failed)?;
    bar.finish_and_clear();
    drop(file);
    if let Err(why) = verify(&partial, snapshot) {
        let _damaged = fs::remove_file(&partial);
        return Err(Failure::other(format!(
            "what came of {}/{} is not what was taken, and was thrown away: {why}; blackstart etcd snapshot verify {cluster}",
            snapshot.node, snapshot.file
        )));
    }
    // Never over another file.
    fs::hard_link(&partial, to)
        .and_then(|()| fs::remove_file(&partial))
        .map_err(|error| Failure::other(format!("name {}: {error}", to.display())))
}

/// The database's hash is that which was written down, and stands behind it.
fn verify(path: &Path, snapshot: &EtcdSnapshot) -> Result<(), String> {
    let failed = |error: io::Error| format!("read it: {error}");
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let database = bytes.saturating_sub(SHA256_OUTPUT_LEN as u64);
    if bytes != snapshot.bytes {
        return Err(format!("it has {bytes} bytes, and {} were told", snapshot.bytes));
    }
    let (mut hash, mut buffer, mut left) = (Context::new(&SHA256), vec![0; BUFFER], database);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..want];
        file.read_exact(piece).map_err(failed)?;
        hash.update(piece);
        left -= want as u64;
    }
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(failed)?;
    let hash = hash.finish();
    let hex = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _always = write!(hex, "{byte:02x}");
        hex
    });
    if hash.as_ref() != tail.as_slice() || hex != snapshot.sha256 {
        return Err(format!("its hash is {hex}, and {} was told", snapshot.sha256));
    }
    Ok(())
}

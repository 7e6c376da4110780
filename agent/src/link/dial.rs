//! One mTLS connection, and what is spoken on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::line::{HTTP2, LINE};
use blackstart_proto::tls::TlsFiles;
use tonic::transport::Channel;

use super::secure::{self, Secured};
use crate::causes::causes;

/// Silent connections are asked for a sign of life this often at least: …
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// … but not more often than this; …
const KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);
/// … and it comes within this.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A connection for a session.
pub(super) enum Dialled {
    /// The coordinator takes lines.
    Line(Secured),
    /// It is older, and takes calls.
    Channel(Channel),
}

/// How long nothing may be heard before a sign of life is asked for. A report and its acknowledgement are one, so a firewall that forgets
/// silent connections is what this is for, and a coordinator that is gone without a word.
pub(super) fn keep_alive(report_interval: Duration) -> Duration {
    (report_interval + KEEP_ALIVE_LEAST).clamp(KEEP_ALIVE_LEAST, KEEP_ALIVE)
}

/// Connects, or says why not. The files are read each time: a renewed certificate counts from the next connection on.
pub(super) async fn dial(
    address: SocketAddr,
    files: &TlsFiles,
    clock: &Arc<ClockFloor>,
    report_interval: Duration,
) -> Result<Dialled, String> {
    let material = files.read().map_err(|error| causes(&error))?;
    let mut config = secure::client(&material, clock)?;
    config.alpn_protocols = vec![LINE.to_vec(), HTTP2.to_vec()];
    secure::in_time(async {
        let stream = secure::reach(address, config).await?;
        if stream.get_ref().1.alpn_protocol() == Some(LINE) {
            return Ok(Dialled::Line(stream));
        }
        let channel = secure::channel(address, stream, |endpoint| {
            endpoint
                .http2_keep_alive_interval(keep_alive(report_interval))
                .keep_alive_timeout(SIGN_OF_LIFE)
                .keep_alive_while_idle(true)
        });
        Ok(Dialled::Channel(channel.await?))
    })
    .await
}

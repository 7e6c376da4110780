//! One mTLS connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::tls::TlsFiles;
use tonic::transport::Channel;

use super::secure;
use crate::causes::causes;

/// Idle connections are asked for a sign of life this often at least; a firewall may have forgotten them.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// But not more often than this.
const KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);

/// Connects, or says why not. The files are read each time: a renewed certificate counts from the next connection on.
pub(super) async fn dial(
    address: SocketAddr,
    files: &TlsFiles,
    clock: &Arc<ClockFloor>,
    report_interval: Duration,
) -> Result<Channel, String> {
    let material = files.read().map_err(|error| causes(&error))?;
    let config = secure::client(&material, clock)?;
    secure::connect(address, config, |endpoint| {
        endpoint
            .http2_keep_alive_interval((report_interval * 3).clamp(KEEP_ALIVE_LEAST, KEEP_ALIVE))
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
    })
    .await
}

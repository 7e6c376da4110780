//! One mTLS connection.

use std::net::SocketAddr;
use std::time::Duration;

use blackstart_proto::tls::{TlsFiles, client_config};
use tonic::transport::{Channel, Endpoint};

use crate::causes::causes;

/// For the TCP connection, and for it with the TLS handshake.
const CONNECT: Duration = Duration::from_secs(3);
const DIAL: Duration = Duration::from_secs(5);
/// Idle connections are asked for a sign of life this often at least; a firewall may have forgotten them.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// But not more often than this.
const KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);

/// Connects, or says why not. The files are read each time: a renewed certificate counts from the next connection on.
pub(super) async fn dial(
    address: SocketAddr,
    files: &TlsFiles,
    report_interval: Duration,
) -> Result<Channel, String> {
    let material = files.read().map_err(|error| causes(&error))?;
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .and_then(|endpoint| endpoint.tls_config(client_config(&material)))
        .map_err(|error| causes(&error))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval((report_interval * 3).clamp(KEEP_ALIVE_LEAST, KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    match tokio::time::timeout(DIAL, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| causes(&error)),
        Err(_) => Err(format!("no connection within {} s", DIAL.as_secs())),
    }
}

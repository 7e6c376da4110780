//! The one server of all services.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Error, Server, ServerTlsConfig};

use super::listen;

/// How often the other end is asked whether it lives; it has as long to answer. Both together are well below
/// [`listen::SILENT_CONNECTION`].
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Calls at once on one connection: an agent has one, an operator a few.
const CALLS: u32 = 32;
/// Bytes of headers of one call.
const HEADERS: u32 = 16 << 10;

/// Serves until `stop`; then until every connection has ended, which the caller bounds.
///
/// # Errors
/// The certificate or its key cannot be used.
pub async fn serve(
    tls: ServerTlsConfig,
    listeners: Vec<TcpListener>,
    services: Routes,
    stop: CancellationToken,
) -> Result<(), Error> {
    let server = Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADERS)
        .max_concurrent_streams(CALLS)
        .concurrency_limit_per_connection(CALLS as usize)
        .add_routes(services);
    let incoming = listen::incoming(listeners);
    Box::pin(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned())).await
}

//! The one server of all services, and of the lines beside them.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Error, Server};

use super::door::Door;
use super::line::Lines;
use super::{handshake, listen};

/// How often the other end is asked whether it lives; it has as long to answer. Both together are well below
/// [`listen::SILENT_CONNECTION`].
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Calls at once on one connection: an agent has one, an operator a few.
const CALLS: u32 = 32;
/// Bytes of headers of one call.
const HEADERS: u32 = 16 << 10;

/// Bytes that may be on their way to us in one call, and in all calls of one connection: so much an agent can make us keep. A message that
/// is larger comes in pieces.
const WINDOW: u32 = 64 << 10;

/// Serves whoever passes `door`, and whoever comes on a line, until `stop`; then until every connection has ended, which the caller bounds.
///
/// # Errors
/// The server broke.
pub(crate) async fn serve(
    tls: Arc<ServerConfig>,
    listeners: Vec<TcpListener>,
    services: Routes,
    lines: Lines,
    door: Door,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (gate, visits) = (Arc::clone(&door.gate), Arc::clone(&door.visits));
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(CALLS)
        .concurrency_limit_per_connection(CALLS as usize)
        .layer(door)
        .add_routes(services);
    let secured = handshake::secured(listen::incoming(listeners), tls, Arc::clone(&gate), visits);
    let incoming = secured.filter_map(move |secured| {
        let call = if secured.is_line() {
            lines.take(secured, &gate);
            None
        } else {
            Some(Ok::<_, Infallible>(secured))
        };
        ready(call)
    });
    Box::pin(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned())).await
}

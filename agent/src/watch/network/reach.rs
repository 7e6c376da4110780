//! Who can be reached: the coordinator as its session says, and peers by a TCP connection.
//!
//! A peer that refuses is there: its machine has answered. Nothing is sent.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Pace;
use crate::link::LinkState;
use crate::signal::{NetworkSignal, ReachSignal};

pub(super) async fn follow(
    peers: &[SocketAddr],
    deadline: Duration,
    coordinator: Option<watch::Receiver<LinkState>>,
    pace: &Pace,
) {
    loop {
        let tried = join_all(peers.iter().map(|peer| reachable(*peer, deadline))).await;
        let state = coordinator.as_ref().map(|state| state.borrow().clone());
        let seen = ReachSignal {
            coordinator: state.and_then(|state| state.reached()),
            peers: peers.iter().copied().zip(tried).collect(),
        };
        pace.tell(NetworkSignal::Reach(seen)).await;
        pace.pause().await;
    }
}

/// `None` when this machine itself could not try.
async fn reachable(peer: SocketAddr, deadline: Duration) -> Option<bool> {
    let error = match timeout(deadline, TcpStream::connect(peer)).await {
        Ok(Ok(_)) => return Some(true),
        Err(_) => return Some(false),
        Ok(Err(error)) => error.kind(),
    };
    if matches!(error, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) {
        return Some(true);
    }
    // Otherwise no descriptor, no port, a firewall of this machine's own: nothing was learned of the peer.
    matches!(
        error,
        ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
    .then_some(false)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn who_listens_and_who_refuses_is_there_and_who_is_silent_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(reachable(address, SOON).await, Some(true));
        drop(listener);
        assert_eq!(reachable(address, SOON).await, Some(true));
        // A queue that is full takes no more: the kernel drops what asks, as a cut wire would.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let address = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        let silent = async {
            while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await
            {
                waiting.push(stream);
            }
            reachable(address, Duration::from_millis(200)).await
        };
        assert_eq!(timeout(SOON, silent).await.unwrap(), Some(false));
    }
}

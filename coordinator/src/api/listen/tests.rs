use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn pair() -> (TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = incoming(vec![listener]);
    let (client, server) = tokio::join!(TcpStream::connect(address), incoming.next());
    (client.unwrap(), server.unwrap())
}

#[tokio::test]
async fn what_is_sent_arrives() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    server.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    assert!(server.connect_info().remote_addr().is_some());
}

#[tokio::test]
async fn one_that_says_nothing_is_given_up() {
    let (_client, mut server) = pair().await;
    tokio::time::pause();
    let began = Instant::now();
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() + Duration::from_secs(1) >= SILENT_CONNECTION);
}

#[tokio::test]
async fn every_listener_is_served() {
    let mut listeners = Vec::new();
    for _ in 0..2 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let mut incoming = incoming(listeners);
    for address in addresses {
        let (client, server) = tokio::join!(TcpStream::connect(address), incoming.next());
        assert_eq!(
            client.unwrap().local_addr().ok(),
            server.unwrap().connect_info().remote_addr()
        );
    }
}

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::duplex;
use tokio::time::timeout;

use super::*;
use crate::v1::agent_message::Body;
use crate::v1::{AgentMessage, CommandResult};

const MOST: usize = 1 << 16;

fn message(detail: &str) -> AgentMessage {
    AgentMessage {
        body: Some(Body::Result(CommandResult {
            detail: detail.to_owned(),
            ..CommandResult::default()
        })),
    }
}

/// What comes out of these bytes, which arrive in pieces of `piece`.
async fn read(bytes: &[u8], piece: usize) -> (Vec<AgentMessage>, Result<(), LineError>) {
    let (mut into, out) = duplex(piece);
    let write = async {
        // Who reads may have had enough.
        let _ = into.write_all(bytes).await;
        drop(into);
    };
    let read = async {
        let mut incoming = Incoming::new(out, MOST);
        let mut messages = Vec::new();
        loop {
            match incoming.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, Ok(())),
                Err(error) => return (messages, Err(error)),
            }
        }
    };
    tokio::join!(write, read).1
}

async fn written(messages: &[AgentMessage]) -> Vec<u8> {
    let mut outgoing = Outgoing::new(Vec::new());
    for message in messages {
        outgoing.send(message).await.unwrap();
    }
    outgoing.stream
}

#[tokio::test]
async fn what_is_said_is_heard_in_whatever_pieces_it_comes() {
    let said = [
        message("a"),
        AgentMessage::default(),
        message(&"long ".repeat(2000)),
        message("b"),
    ];
    let bytes = written(&said).await;
    for piece in [1, 2, 3, 5, 100, 4096, 1 << 20] {
        let (heard, ended) = read(&bytes, piece).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(heard, said, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn an_end_within_a_message_is_no_end() {
    let bytes = written(&[message("a"), message("b")]).await;
    let (heard, ended) = read(&bytes[..bytes.len() - 1], 64).await;
    assert_eq!(heard, [message("a")]);
    assert!(matches!(ended, Err(LineError::Cut)), "{ended:?}");
    let (_, ended) = read(&bytes[..2], 64).await;
    assert!(matches!(ended, Err(LineError::Cut)), "{ended:?}");
}

#[tokio::test]
async fn what_is_announced_and_does_not_come_costs_nothing() {
    let (mut into, out) = duplex(64);
    let mut incoming = Incoming::new(out, MOST);
    let length = u32::try_from(MOST).unwrap();
    into.write_all(&length.to_be_bytes()).await.unwrap();
    into.write_all(b"x").await.unwrap();
    // It is dropped in the middle, as where something else is to be done first, and goes on from there.
    let next = incoming.next::<AgentMessage>();
    assert!(timeout(Duration::ZERO, next).await.is_err());
    assert_eq!(incoming.come.len(), HEAD + 1);
    assert!(incoming.come.capacity() < PIECE, "{}", incoming.come.capacity());

    let (_, ended) = read(&(length + 1).to_be_bytes(), 64).await;
    assert!(
        matches!(ended, Err(LineError::Long { most: MOST, .. })),
        "{ended:?}"
    );
    let (_, ended) = read(b"\x00\x00\x00\x02\xff\xff", 64).await;
    assert!(matches!(ended, Err(LineError::Garbled(_))), "{ended:?}");
}

#[test]
fn an_end_says_the_same_as_a_status() {
    let leader = "10.0.0.1:7443".parse().unwrap();
    for status in [
        elsewhere("another leads", &[leader]),
        elsewhere("nobody leads", &[]),
        Status::permission_denied("node w-1 is not in the inventory"),
    ] {
        let again = Status::from(SessionEnd::from(&status));
        assert_eq!((again.code(), again.message()), (status.code(), status.message()));
        assert_eq!(leader_at(&again), leader_at(&status));
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_a_message_or_an_error(bytes: Vec<u8>, piece in 1_usize..100) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (heard, _) = runtime.block_on(read(&bytes, piece));
        prop_assert!(heard.len() * HEAD <= bytes.len());
    }
}

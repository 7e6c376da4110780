//! One query of type A over UDP to each server of `resolv.conf` in turn, as the resolver would ask, until one knows the name.
//!
//! By hand and not by `getaddrinfo`: that blocks a thread for as long as its own time-outs last, reads `/etc/hosts` first, and does not say
//! which server said what. A server that says that there is no such name has failed as well: the name is one that is always there.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use std::{fs, io};

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::Pace;
use crate::config::DnsSettings;
use crate::signal::{DnsSignal, NetworkSignal};

/// As many servers as the resolver asks (`MAXNS`).
const SERVERS: usize = 3;
const PORT: u16 = 53;
/// What an answer over UDP has at most: only its head is read.
const ANSWER: usize = 4096;
/// The head of a message: RFC 1035, section 4.1.1.
const HEAD: usize = 12;

pub(super) async fn follow(settings: DnsSettings, deadline: Duration, pace: &Pace) {
    loop {
        let resolved = match servers(fs::read_to_string(&settings.resolv_conf)) {
            Ok(servers) => resolve(&settings.name, &servers, deadline).await,
            Err(error) => Err(format!("{}: {error}", settings.resolv_conf.display())),
        };
        let name = settings.name.clone();
        pace.tell(NetworkSignal::Dns(DnsSignal { name, resolved })).await;
        pace.pause().await;
    }
}

/// The servers of a `resolv.conf`. Without any, the resolver asks this machine.
pub(crate) fn servers(text: io::Result<String>) -> io::Result<Vec<SocketAddr>> {
    let text = match text {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("nameserver")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map(|server: IpAddr| SocketAddr::new(server, PORT))
        .take(SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    }
    Ok(servers)
}

/// Asks one after the other. `Err` tells what each said.
async fn resolve(name: &str, servers: &[SocketAddr], deadline: Duration) -> Result<(), String> {
    let mut said = String::new();
    for server in servers {
        match ask(name, *server, deadline).await {
            Ok(()) => return Ok(()),
            Err(why) => {
                let between = if said.is_empty() { "" } else { "; " };
                let _infallible = write!(said, "{between}{}: {why}", server.ip());
            }
        }
    }
    Err(said)
}

async fn ask(name: &str, server: SocketAddr, deadline: Duration) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let until = Instant::now() + deadline;
    // A port and an id of its own for each query: nobody who does not see it can answer it.
    let socket = UdpSocket::bind((any, 0)).await.map_err(told)?;
    socket.connect(server).await.map_err(told)?;
    let id: u16 = rand::random();
    socket.send(&query(id, name)).await.map_err(told)?;
    let mut answer = vec![0; ANSWER];
    loop {
        let length = match timeout_at(until, socket.recv(&mut answer)).await {
            Ok(received) => received.map_err(told)?,
            Err(_) => return Err(format!("no answer within {deadline:?}")),
        };
        // What answers something else is passed over.
        if let Some(resolved) = read(id, &answer[..length]) {
            return resolved;
        }
    }
}

/// A query with recursion for one name, type A, class IN.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEAD + name.len() + 6);
    query.extend(id.to_be_bytes());
    // Recursion desired; one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        // Longer ones are refused where the configuration is read.
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// What the answer to query `id` says; `None` when it is none.
pub(crate) fn read(id: u16, answer: &[u8]) -> Option<Result<(), String>> {
    let head = answer.first_chunk::<HEAD>()?;
    let [id_high, id_low, flags, more, _, _, answers_high, answers_low, ..] = *head;
    if u16::from_be_bytes([id_high, id_low]) != id || flags & 0x80 == 0 {
        return None;
    }
    let answers = u16::from_be_bytes([answers_high, answers_low]);
    let truncated = flags & 0x02 != 0;
    Some(match more & 0x0f {
        0 if answers > 0 || truncated => Ok(()),
        0 => Err("the name has no address".to_owned()),
        2 => Err("server failure".to_owned()),
        3 => Err("no such name".to_owned()),
        5 => Err("refused".to_owned()),
        code => Err(format!("error {code}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that answers one query by `head` of flags and counts, after something that answers nobody.
    async fn server(flags: [u8; 2], answers: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut asked = [0; 512];
            let (length, from) = socket.recv_from(&mut asked).await.unwrap();
            assert_eq!(&asked[HEAD..length], b"\x03api\x07example\0\0\x01\0\x01");
            let other = [!asked[0], asked[1], 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0];
            let own = [
                asked[0], asked[1], flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0,
            ];
            for answer in [&other[..5], &other, &own] {
                socket.send_to(answer, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn the_first_server_that_knows_the_name_is_enough() {
        let fails = server([0x81, 0x82], 0).await;
        let knows = server([0x81, 0x80], 1).await;
        assert_eq!(resolve("api.example", &[fails, knows], SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn what_each_server_said_is_told() {
        let unknown = server([0x81, 0x83], 0).await;
        let nothing = server([0x81, 0x80], 0).await;
        let told = resolve("api.example", &[unknown, nothing], SOON).await;
        let expected = "127.0.0.1: no such name; 127.0.0.1: the name has no address";
        assert_eq!(told.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_has_until_the_deadline() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let told = resolve("api.example", &[address], Duration::from_millis(50)).await;
        assert_eq!(told.unwrap_err(), "127.0.0.1: no answer within 50ms");
    }

    #[test]
    fn servers_are_those_that_the_resolver_would_ask() {
        let read = |text: &str| {
            let servers = servers(Ok(text.to_owned())).unwrap();
            servers
                .iter()
                .map(SocketAddr::ip)
                .map(|ip| ip.to_string())
                .collect::<Vec<_>>()
        };
        let text = "# by hand\nsearch example\nnameserver 10.96.0.10\nnameserver\t::1 # v6\nnameserver no\n";
        assert_eq!(read(text), ["10.96.0.10", "::1"]);
        assert_eq!(read("options rotate\n"), ["127.0.0.1"]);
        let missing = servers(Err(io::ErrorKind::NotFound.into())).unwrap();
        assert_eq!(missing.len(), 1);
        servers(Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
    }
}

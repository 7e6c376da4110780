//! Sends a call to the leader, once, and tells what came of it.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use blackstart_proto::leader::LEADER;
use http_body_util::Full;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::call::{Call, Kind};
use crate::etcd::{alert, causes};
use crate::leader::Card;

/// For a connection to one of the leader's addresses.
const CONNECT: Duration = Duration::from_secs(3);
/// A leader that answers no ping within this is gone, whatever it was asked; also asked so often.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// For the beginning of an answer that the store can give as well.
const KEPT: Duration = Duration::from_secs(3);
/// …and of any other: a command is answered when it is durable.
const OTHER: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub(super) enum Forwarded {
    /// An answer; a refusal is one.
    Answered(http::Response<Body>),
    /// It was not carried out, and never will be.
    NotDone(String),
    /// It was sent, and not answered.
    NotKnown(String),
}

/// Each call has a connection of its own: one that is made for it is known to stand when the call is sent.
pub(super) async fn forward(tls: &ClientTlsConfig, leader: &Card, call: &Call) -> Forwarded {
    let Some(request) = call.for_leader() else {
        return Forwarded::NotDone("it cannot be passed on".to_owned());
    };
    let mut channel = match connect(tls, leader).await {
        Ok(channel) => channel,
        Err(why) => return Forwarded::NotDone(why),
    };
    if let Err(error) = poll_fn(|cx| channel.poll_ready(cx)).await {
        return Forwarded::NotDone(said(&error));
    }
    let patience = match call.kind() {
        Kind::Kept => KEPT,
        Kind::Live => OTHER,
        Kind::Command => {
            if let Err(why) = timeout(CONNECT, hears_us(&mut channel))
                .await
                .unwrap_or_else(|_| Err(format!("{} took the connection, and says nothing", leader.name)))
            {
                return Forwarded::NotDone(why);
            }
            OTHER
        }
    };
    match timeout(patience, channel.call(request)).await {
        Ok(Ok(answer)) if answer.headers().contains_key(LEADER) => {
            Forwarded::NotDone(format!("{} does not lead any more", leader.name))
        }
        Ok(Ok(answer)) => Forwarded::Answered(answer),
        Ok(Err(error)) => Forwarded::NotKnown(said(&error)),
        Err(_) => Forwarded::NotKnown(format!("no answer within {} s", patience.as_secs())),
    }
}

/// TLS 1.3 refuses a client's certificate only after the handshake. What is sent then is lost and was never read, which looks as if a leader had
/// died with it; so before a command something is asked that changes nothing. Any answer will do.
async fn hears_us(channel: &mut Channel) -> Result<(), String> {
    let mut request = http::Request::new(Body::new(Full::new(Bytes::from_static(&[0; 5]))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static("/blackstart.v1.CoordinatorService/ListCoordinators");
    let headers = request.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
    headers.insert("te", http::HeaderValue::from_static("trailers"));
    let asked = async {
        channel.call(request).await?;
        poll_fn(|cx| channel.poll_ready(cx)).await
    };
    asked.await.map_err(|error| {
        format!(
            "{}; if this stays, it does not take this coordinator's certificate: one that was issued before followers forwarded calls has to be issued anew (blackstart pki issue coordinator NAME --force)",
            said(&error)
        )
    })
}

async fn connect(tls: &ClientTlsConfig, leader: &Card) -> Result<Channel, String> {
    let mut tried = Vec::new();
    for address in &leader.addresses {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .and_then(|endpoint| endpoint.tls_config(tls.clone()));
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE),
            Err(error) => return Err(format!("our own certificate cannot be used: {}", said(&error))),
        };
        match timeout(CONNECT, endpoint.connect()).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => tried.push(format!("{address}: {}", said(&error))),
            Err(_) => tried.push(format!("{address}: no connection within {} s", CONNECT.as_secs())),
        }
    }
    Err(tried.join("; "))
}

/// The cause at the bottom.
fn said(error: &(dyn Error + 'static)) -> String {
    let broke = |cause: &(dyn Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        )
    };
    if let Some(alert) = alert(error) {
        return format!("it refused this coordinator's certificate, TLS alert {alert}");
    }
    if causes(error).any(broke) {
        return "the connection broke".to_owned();
    }
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use blackstart_proto::tls::{TlsFiles, client_config};
    use blackstart_proto::v1::agent_service_server::AgentServiceServer;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tonic::service::Routes;

    use super::*;
    use crate::api::door::Door;
    use crate::api::elsewhere::Elsewhere;
    use crate::api::handshake::server_tls;
    use crate::api::line::Lines;
    use crate::api::serve::serve;
    use crate::api::session::Sessions;
    use crate::leader::Seen;
    use crate::pki::Authority;

    fn command() -> Call {
        let head = http::Request::post("/blackstart.v1.FleetService/SetHold")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        Call::new(head, Bytes::from_static(&[0; 5]), "ann".to_owned())
    }

    /// A coordinator's certificate as they were before: for servers only.
    fn of_old(pki: &std::path::Path) -> TlsFiles {
        let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("blackstart://coordinator/old".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let files = TlsFiles::in_dir(pki, "old");
        fs::write(&files.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[tokio::test]
    async fn a_command_that_the_leader_never_read_is_not_done_rather_than_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let own = authority.issue_coordinator("new").unwrap().read().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_seen, seen) = watch::channel(Seen::default());
        let services = Routes::new(Elsewhere::<AgentServiceServer<Sessions>>::new(seen.clone()));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(
            server_tls(&own).unwrap(),
            vec![listener],
            services,
            Lines::Following(seen),
            Door::default(),
            stop.clone(),
        ));
        let leader = Card {
            name: "leader".to_owned(),
            addresses: vec![address],
            version: String::new(),
        };
        // There is no such service, and that is an answer.
        let answered = forward(&client_config(&own), &leader, &command()).await;
        assert!(matches!(answered, Forwarded::Answered(_)), "{answered:?}");
        let old = client_config(&of_old(dir.path()).read().unwrap());
        let refused = forward(&old, &leader, &command()).await;
        assert!(
            matches!(&refused, Forwarded::NotDone(why) if why.contains("coordinator NAME --force")),
            "{refused:?}"
        );
        stop.cancel();
        server.abort();
        let gone = forward(&client_config(&own), &leader, &command()).await;
        assert!(matches!(gone, Forwarded::NotDone(_)), "{gone:?}");
    }
}

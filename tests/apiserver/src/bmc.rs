//! Management controllers of the machines: one small Redfish service, over TLS, with a system for each node of the double.
//!
//! What it says is what the world has: a machine whose power was cut is `Off`, any other `On`, also one whose kubelet hangs. A reset takes
//! a while, as it does in hardware: the next answer is still the old one. And it has bad days ([`Mood`]).

use crate::json::{name, text};
use crate::shared::{Shared, lock};
use crate::tls::Tls;
use crate::{Double, base64};
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Who is let in.
pub const USER: &str = "blackstart";
/// With this.
pub const PASSWORD: &str = "correct horse";

/// How a controller is today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It says what is.
    #[default]
    Well,
    /// It says this of every machine's power.
    Says(&'static str),
    /// It has another UUID than the machine.
    AnotherMachine,
    /// It accepts connections, and says nothing.
    Hangs,
    /// It answers with something that is no JSON.
    Garbage,
    /// It answers with more than anybody wants.
    Huge,
    /// It takes no password.
    Denies,
    /// It sends whoever asks elsewhere.
    Redirects,
    /// It takes a reset, and does nothing.
    Ignores,
    /// It refuses a reset.
    Refuses,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    /// Machines whose power goes once they were asked for again.
    going: BTreeSet<String>,
    questions: usize,
    resets: Vec<String>,
    /// Of which machine it said that it is off, and when.
    off: Vec<(String, Timestamp)>,
}

/// The running service. Dropping it takes it down.
#[derive(Debug)]
pub struct Bmc {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Bmc {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The path of a node's machine.
    pub fn system(node: &str) -> String {
        format!("/redfish/v1/Systems/{node}")
    }

    /// Has it be so from now on.
    pub fn set_mood(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// So many questions were answered, or not, so far.
    pub fn questions(&self) -> usize {
        lock(&self.state).questions
    }

    /// Of which machines it said that they are off, and when, by the double's clock.
    pub fn said_off(&self) -> Vec<(String, Timestamp)> {
        lock(&self.state).off.clone()
    }

    /// Machines whose power it was asked to cut, one after the other.
    pub fn resets(&self) -> Vec<String> {
        lock(&self.state).resets.clone()
    }
}

impl Double {
    /// Starts the management controllers of its machines, at a free port of loopback.
    ///
    /// # Errors
    /// The certificate cannot be used, or there is no port.
    pub async fn bmc(&self, tls: &Tls) -> Result<Bmc> {
        let acceptor = tls.acceptor()?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen for a management controller")?;
        let address = listener.local_addr().context("read its address")?;
        let state = Arc::new(Mutex::new(State::default()));
        let server = tokio::spawn(accept(
            Arc::clone(&self.shared),
            Arc::clone(&state),
            acceptor,
            listener,
        ));
        Ok(Bmc {
            address,
            state,
            server,
        })
    }
}

async fn accept(shared: Arc<Shared>, state: Arc<Mutex<State>>, tls: TlsAcceptor, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(Arc::clone(&shared), Arc::clone(&state), tls.clone(), stream));
                }
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, state: Arc<Mutex<State>>, tls: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| {
        let (shared, state) = (Arc::clone(&shared), Arc::clone(&state));
        async move { handle(&shared, &state, request).await }
    });
    // A client that goes away is no error of the double's.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(
    shared: &Shared,
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, 4096)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    let mood = {
        let mut state = lock(state);
        state.questions += 1;
        state.mood
    };
    match mood {
        Mood::Hangs => std::future::pending().await,
        Mood::Garbage => return Ok(Response::new(Full::from("<html>Welcome to your server</html>"))),
        Mood::Huge => return Ok(Response::new(Full::from(vec![b' '; 8 << 20]))),
        Mood::Redirects => {
            let mut away = answer(308, &Value::Null);
            let to = format!("{}/", parts.uri.path());
            away.headers_mut()
                .insert(LOCATION, to.parse().map_err(io::Error::other)?);
            return Ok(away);
        }
        Mood::Well | Mood::Says(_) | Mood::AnotherMachine | Mood::Denies | Mood::Ignores | Mood::Refuses => {}
    }
    let wanted = format!("Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes()));
    let shown = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|header| header.to_str().ok());
    if mood == Mood::Denies || shown != Some(wanted.as_str()) {
        return Ok(answer(
            401,
            &json!({"error": {"code": "Base.1.0.NoValidSession"}}),
        ));
    }
    let path = parts.uri.path();
    if parts.method == Method::GET && path == "/redfish/v1/Systems" {
        let nodes = shared.read(|world| world.store.all("nodes"));
        let members = nodes
            .iter()
            .map(|node| json!({"@odata.id": Bmc::system(name(node))}));
        return Ok(answer(200, &json!({"Members": members.collect::<Vec<_>>()})));
    }
    let Some(rest) = path.strip_prefix("/redfish/v1/Systems/") else {
        return Ok(answer(404, &Value::Null));
    };
    Ok(match (&parts.method, rest.split_once('/')) {
        (&Method::GET, None) => system(shared, state, mood, rest),
        (&Method::POST, Some((node, "Actions/ComputerSystem.Reset"))) => reset(state, mood, node, &body),
        _ => answer(404, &Value::Null),
    })
}

fn system(shared: &Shared, state: &Mutex<State>, mood: Mood, name: &str) -> Response<Full<Bytes>> {
    let Some(node) = shared.read(|world| world.get("nodes", "", name)) else {
        return answer(404, &Value::Null);
    };
    let powered = shared.read(|world| world.is_powered(name));
    if lock(state).going.remove(name) {
        shared.write(|world| world.power_off(name));
        shared.poke();
    }
    let told = match (mood, powered) {
        (Mood::Says(told), _) => told,
        (_, true) => "On",
        (_, false) => "Off",
    };
    if told == "Off" {
        lock(state).off.push((name.to_owned(), shared.clock.now()));
    }
    let uuid = if mood == Mood::AnotherMachine {
        "4c4c4544-0042-3510-8051-b2c04f4d3732"
    } else {
        text(&node, "/status/nodeInfo/systemUUID")
    };
    answer(
        200,
        &json!({
            "@odata.id": Bmc::system(name), "Id": name, "UUID": uuid, "PowerState": told,
            "Actions": {"#ComputerSystem.Reset": {
                "target": format!("{}/Actions/ComputerSystem.Reset", Bmc::system(name)),
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
            }},
        }),
    )
}

fn reset(state: &Mutex<State>, mood: Mood, name: &str, body: &Bytes) -> Response<Full<Bytes>> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    if text(&asked, "/ResetType") != "ForceOff" {
        return answer(400, &Value::Null);
    }
    let mut state = lock(state);
    state.resets.push(name.to_owned());
    if mood == Mood::Refuses {
        return answer(503, &Value::Null);
    }
    if mood != Mood::Ignores {
        state.going.insert(name.to_owned());
    }
    answer(204, &Value::Null)
}

fn answer(code: u16, body: &Value) -> Response<Full<Bytes>> {
    let bytes = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let mut response = Response::new(Full::new(bytes));
    // All of them are codes.
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response
}

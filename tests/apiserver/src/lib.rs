//! A double of the Kubernetes API server, with a small simulated cluster behind it.
//!
//! ```text
//!              ┌ access ─ who, and may they (tokens, certificates, RBAC from the store)
//! client ─ TLS ┤ faults ─ slow, hung, refused, throttled, etcd gone
//!              └ api ─── request → verbs ─→ store ─→ watch → client
//!                             discovery,      ↑↓
//!                             table, patch  controllers ← clock
//! ```
//!
//! It speaks the real protocol, so that a client under test is the real client: discovery, lists with selectors and pages, watches with
//! bookmarks and 410, the three patches, graceful deletion and finalizers, evictions against disruption budgets, tables for `kubectl`.
//! The controllers are passes over the one [`World`], each behind a switch, driven by a [`Clock`] that runs (as fast as wanted) or that
//! the test moves.
//!
//! ```
//! use blackstart_apiserver::{Clock, Credentials, Double, NodeSpec, Options};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let double = Double::start(Options { clock: Clock::manual(), ..Options::default() }).await?;
//! double.with(|world| world.add_node(&NodeSpec::worker("w1")));
//! double.with(|world| world.power_off("w1"));
//! double.advance(Duration::from_secs(60));
//! let node = double.with(|world| world.get("nodes", "", "w1")).expect("the API still knows it");
//! assert_eq!(blackstart_apiserver::json::condition(&node, "Ready"), "Unknown");
//! let kubeconfig = double.kubeconfig(None, &Credentials::None);
//! # drop(kubeconfig);
//! # Ok(())
//! # }
//! ```
//!
//! [`bmc`] adds the management controllers of its machines: a small Redfish service.
//!
//! It is no conformance suite: objects are checked for what users get wrong most, not for everything; server-side apply is
//! answered with 415; lists show the present, whatever `resourceVersion` asks for.

mod access;
mod api;
pub mod bmc;
pub mod clock;
mod collection;
mod control;
pub mod controllers;
mod discovery;
mod faults;
pub mod json;
mod machines;
mod metrics;
mod patch;
pub mod quantity;
mod refusal;
mod represent;
mod request;
pub mod resources;
mod selector;
mod serve;
mod shared;
pub mod store;
mod table;
mod tls;
mod verbs;
mod watch;
mod world;

pub use access::{Access, User};
pub use clock::Clock;
pub use controllers::Controller;
pub use controllers::containers::Outcome;
pub use faults::{Budget, Fault, Faults, Rule};
pub use machines::NodeSpec;
pub use refusal::Refusal;
pub use resources::Release;
pub use shared::Recorded;
pub use tls::{Authority, Certificate, Tls};
pub use verbs::{DeleteOptions, Part};
pub use world::World;

use anyhow::{Context, Result};
use serde_json::Value;
use shared::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How a double is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS, or plain HTTP.
    pub tls: Option<Tls>,
    /// The release that it plays.
    pub release: Release,
    /// The time.
    pub clock: Clock,
    /// The controllers that are at work.
    pub controllers: Vec<Controller>,
    /// Who may do what.
    pub access: Access,
    /// Whether `metrics.k8s.io` is served.
    pub metrics: bool,
}

impl Default for Options {
    /// A current release on a free port of loopback, plain HTTP, real time, every controller, everybody may do everything.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            release: Release::CURRENT,
            clock: Clock::running(1),
            controllers: Controller::ALL.to_vec(),
            access: Access::default(),
            metrics: true,
        }
    }
}

/// A running double. Dropping it takes it down.
#[derive(Debug)]
pub struct Double {
    shared: Arc<Shared>,
    tls: Option<Tls>,
    address: SocketAddr,
    down: tokio::sync::watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    driver: JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.driver.abort();
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Double {
    /// Starts one.
    pub async fn start(options: Options) -> Result<Self> {
        let mut world = World::new(options.release, options.clock.now());
        world.running = options.controllers.iter().copied().collect();
        let tls = options.tls;
        let acceptor = tls.as_ref().map(Tls::acceptor).transpose()?;
        let shared = Arc::new(Shared::new(options.clock, options.metrics, options.access, world));
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("listen on {}", options.listen))?;
        let address = listener.local_addr().context("read the listener's address")?;
        let down = tokio::sync::watch::Sender::new(false);
        let server = tokio::spawn(serve::accept(
            Arc::clone(&shared),
            acceptor,
            listener,
            down.subscribe(),
        ));
        let driver = tokio::spawn(drive(Arc::clone(&shared)));
        Ok(Self {
            shared,
            tls,
            address,
            down,
            server: Some(server),
            driver,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Lends the world, at the present of its clock: to look at it, to put something into it, to cut a machine's power.
    pub fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = self.shared.write(change);
        self.shared.poke();
        result
    }

    /// Waits until `look` finds something, looking after every write.
    pub async fn until<T>(&self, deadline: Duration, mut look: impl FnMut(&World) -> Option<T>) -> Result<T> {
        let mut changed = self.shared.changed.subscribe();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.shared.read(&mut look) {
                    return Ok(found);
                }
                changed.changed().await.context("the double has ended")?;
            }
        };
        tokio::time::timeout(deadline, found)
            .await
            .context("it did not come about within the deadline")?
    }

    /// Moves a manual clock; the controllers do what becomes due on the way. Zero lets them do what is due now.
    pub fn advance(&self, by: Duration) {
        self.shared.advance(by);
    }

    /// Changes the faults. What hung until now is cut off.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.set_faults(change);
    }

    /// Changes who may do what.
    pub fn set_access(&self, change: impl FnOnce(&mut Access)) {
        change(&mut shared::lock(&self.shared.access));
    }

    /// The requests that were answered since the last [`Self::forget_requests`].
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests()
    }

    /// Asks in somebody's name, whatever they may do, without going over the wire, and is recorded like any other request. Gives the
    /// answer's status.
    pub fn ask(&self, user: &User, method: &str, path: &str, content_type: &str, body: &Value) -> u16 {
        let asked = request::Asked::parse(method, path, "");
        let body = hyper::body::Bytes::from(body.to_string());
        let revision = self.shared.read(|world| world.store.revision());
        let request = api::Request {
            asked: &asked,
            user,
            accept: "application/json",
            content_type,
            body: &body,
        };
        let code = match api::answer(&self.shared, &request) {
            Ok(api::Answer::Object(code, _)) => code,
            Ok(api::Answer::Text(_) | api::Answer::Watch(_)) => 200,
            Err(refusal) => refusal.code,
        };
        let recorded = serve::recorded(&self.shared, &asked, Some(user), (revision, &body), code);
        self.shared.record(recorded);
        self.shared.poke();
        code
    }

    /// Every write to the store so far, oldest first.
    pub fn history(&self) -> Vec<store::Change> {
        self.shared.read(|world| {
            let since = world.store.since(world.store.compacted());
            since.into_iter().flatten().cloned().collect()
        })
    }

    /// Begins the record of requests anew.
    pub fn forget_requests(&self) {
        self.shared.forget_requests();
    }

    /// Ends every watch in the middle of its stream.
    pub fn cut_watches(&self) {
        self.shared.cut.send_modify(|cut| *cut += 1);
    }

    /// Takes the server down: connections are closed, new ones are refused. The cluster goes on.
    pub async fn go_down(&mut self) {
        self.down.send_replace(true);
        if let Some(server) = self.server.take() {
            // It ends by itself; a panic in it would have ended it before.
            let _ = server.await;
        }
    }

    /// Brings it up again at the same address.
    pub async fn come_back(&mut self) -> Result<()> {
        if self.server.is_none() {
            let listener = TcpListener::bind(self.address)
                .await
                .with_context(|| format!("listen on {} again", self.address))?;
            self.down.send_replace(false);
            let acceptor = self.tls.as_ref().map(Tls::acceptor).transpose()?;
            let serving = serve::accept(
                Arc::clone(&self.shared),
                acceptor,
                listener,
                self.down.subscribe(),
            );
            self.server = Some(tokio::spawn(serving));
        }
        Ok(())
    }

    /// A kubeconfig for somebody, who believes an authority if the double speaks TLS.
    pub fn kubeconfig(&self, authority: Option<&str>, credentials: &Credentials<'_>) -> String {
        let data = |pem: &str| base64(pem.as_bytes());
        let trust = authority
            .map(|pem| format!("\n    certificate-authority-data: {}", data(pem)))
            .unwrap_or_default();
        let user = match credentials {
            Credentials::None => "{}".to_owned(),
            Credentials::Token(token) => format!("{{token: \"{token}\"}}"),
            Credentials::Certificate(Certificate { certificate, key }) => {
                let (certificate, key) = (data(certificate), data(key));
                format!("{{client-certificate-data: {certificate}, client-key-data: {key}}}")
            }
        };
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: double\nclusters:\n- name: double\n  cluster:\n    server: {}{trust}\n\
             users:\n- name: double\n  user: {user}\ncontexts:\n- name: double\n  context: {{cluster: double, user: double}}\n",
            self.url()
        )
    }
}

/// How a client shows who it is.
#[derive(Clone, Copy, Debug)]
pub enum Credentials<'a> {
    /// Not at all.
    None,
    /// A bearer token of [`Access::tokens`].
    Token(&'a str),
    /// A client certificate.
    Certificate(&'a Certificate),
}

/// Lets the controllers work: after every write, and as time goes by on a clock that runs.
async fn drive(shared: Arc<Shared>) {
    const LOOK: Duration = Duration::from_millis(250);
    let mut changed = shared.changed.subscribe();
    loop {
        let began = tokio::time::Instant::now();
        shared.write(controllers::settle);
        changed.borrow_and_update();
        // Half of the time at least belongs to whoever asks, however many pods there are to look at.
        tokio::time::sleep(began.elapsed()).await;
        match shared.clock.real(LOOK) {
            Some(wait) => {
                drop(tokio::time::timeout(wait.max(Duration::from_millis(10)), changed.changed()).await);
            }
            None => drop(changed.changed().await),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    text
}

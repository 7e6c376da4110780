//! A D-Bus with a systemd on it, for tests: real sockets, the real protocol, no process of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::message::{Header, Message, Type};
use zbus::{Connection, DynamicType, MessageStream, ObjectPath, OwnedMatchRule, Variant};

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const BUS: &str = "org.freedesktop.DBus";
/// systemd's name on the bus.
pub(super) const SYSTEMD: &str = ":1.1";

/// A unit of the fake.
#[derive(Debug, Clone)]
pub(super) struct FakeUnit {
    pub(super) load: &'static str,
    pub(super) file: &'static str,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    pub(super) main_pid: u32,
    pub(super) restarts: u32,
    pub(super) result: &'static str,
    pub(super) policy: &'static str,
}

impl FakeUnit {
    pub(super) fn running(main_pid: u32) -> Self {
        Self {
            load: "loaded",
            file: "enabled",
            active: "active",
            sub: "running",
            main_pid,
            restarts: 0,
            result: "success",
            policy: "no",
        }
    }

    pub(super) fn killed() -> Self {
        Self {
            active: "failed",
            sub: "failed",
            result: "signal",
            ..Self::running(0)
        }
    }

    fn absent() -> Self {
        Self {
            load: "not-found",
            file: "",
            active: "inactive",
            sub: "dead",
            ..Self::running(0)
        }
    }

    fn of_service(&self) -> HashMap<&'static str, Variant<'static>> {
        HashMap::from([
            ("MainPID", self.main_pid.into()),
            ("NRestarts", self.restarts.into()),
            ("Result", self.result.into()),
            ("ExecMainCode", 0_i32.into()),
            ("ExecMainStatus", 0_i32.into()),
        ])
    }

    /// What `PropertiesChanged` brings: what is fixed by the unit's file is not in it.
    fn of_unit(&self) -> HashMap<&'static str, Variant<'static>> {
        HashMap::from([("ActiveState", self.active.into()), ("SubState", self.sub.into())])
    }
}

#[derive(Debug, Default)]
struct State {
    units: BTreeMap<String, FakeUnit>,
    aliases: BTreeMap<&'static str, &'static str>,
    calls: Vec<String>,
    /// Properties that were set, by unit.
    set: BTreeMap<String, HashMap<String, u64>>,
    /// What is set has no effect.
    ignores: bool,
    left_the_bus: bool,
    shutting_down: bool,
    job_result: &'static str,
    connections: Vec<Client>,
}

#[derive(Debug, Clone)]
struct Client {
    connection: Connection,
    rules: Arc<Mutex<Vec<OwnedMatchRule>>>,
}

/// The fake; its bus is up until it is taken down.
#[derive(Debug)]
pub(super) struct Fake {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    serving: JoinSet<()>,
}

impl Fake {
    pub(super) fn start(units: &[(&str, FakeUnit)]) -> Self {
        let units = units
            .iter()
            .map(|(name, unit)| ((*name).to_owned(), unit.clone()));
        let mut fake = Self {
            dir: tempfile::tempdir().unwrap(),
            state: Arc::new(Mutex::new(State {
                units: units.collect(),
                job_result: "done",
                ..State::default()
            })),
            serving: JoinSet::new(),
        };
        fake.bus_up();
        fake
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    pub(super) fn bus_up(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let state = Arc::clone(&self.state);
        self.serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                clients.spawn(serve(stream, Arc::clone(&state)));
            }
        });
    }

    /// As when the bus is killed: every connection is cut, nobody listens.
    pub(super) async fn bus_down(&mut self) {
        fs::remove_file(self.socket()).unwrap();
        self.serving.shutdown().await;
        let clients = std::mem::take(&mut self.state.lock().unwrap().connections);
        for client in clients {
            client.connection.close().await.unwrap();
        }
    }

    /// systemd leaves the bus, or comes back.
    pub(super) async fn on_bus(&self, there: bool) {
        self.state.lock().unwrap().left_the_bus = !there;
        let (old, new) = if there { ("", SYSTEMD) } else { (SYSTEMD, "") };
        let body = ("org.freedesktop.systemd1", old, new);
        self.send(BUS, "/org/freedesktop/DBus", BUS, "NameOwnerChanged", &body)
            .await;
    }

    pub(super) fn shut_down(&self) {
        self.state.lock().unwrap().shutting_down = true;
    }

    pub(super) fn jobs_end_with(&self, result: &'static str) {
        self.state.lock().unwrap().job_result = result;
    }

    /// What is set has no effect from now on.
    pub(super) fn ignores_properties(&self) {
        self.state.lock().unwrap().ignores = true;
    }

    /// The properties that were set of a unit.
    pub(super) fn properties(&self, unit: &str) -> BTreeMap<String, u64> {
        let set = self.state.lock().unwrap().set.get(&path_of(unit)).cloned();
        set.unwrap_or_default().into_iter().collect()
    }

    pub(super) fn alias(&self, alias: &'static str, of: &'static str) {
        self.state.lock().unwrap().aliases.insert(alias, of);
    }

    /// A file is installed; systemd notices it with the next `daemon-reload`.
    pub(super) fn install(&self, name: &str, unit: FakeUnit) {
        self.state.lock().unwrap().units.insert(name.to_owned(), unit);
    }

    pub(super) async fn reload(&self) {
        for begins in [true, false] {
            self.send(SYSTEMD, MANAGER_PATH, MANAGER, "Reloading", &begins)
                .await;
        }
    }

    /// The unit changes, and everybody who asked for it is told.
    pub(super) async fn change(&self, name: &str, unit: FakeUnit) {
        self.install(name, unit.clone());
        self.change_as(SYSTEMD, name, &unit).await;
    }

    /// The same, as told by `sender`, whoever that is.
    pub(super) async fn change_as(&self, sender: &str, name: &str, unit: &FakeUnit) {
        let path = path_of(name);
        let none: Vec<&str> = Vec::new();
        for (interface, changed) in [(SERVICE, unit.of_service()), (UNIT, unit.of_unit())] {
            let body = (interface, changed, &none);
            self.send(sender, &path, PROPERTIES, "PropertiesChanged", &body)
                .await;
        }
    }

    /// The methods that were called so far, and forgets them.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    async fn send<B>(&self, sender: &str, path: &str, interface: &str, member: &str, body: &B)
    where
        B: serde::Serialize + DynamicType,
    {
        let clients = self.state.lock().unwrap().connections.clone();
        let message = Message::signal(path, interface, member)
            .sender(sender)
            .build(body)
            .unwrap();
        for client in clients {
            client.pass_on(&message).await;
        }
    }
}

impl Client {
    /// Passes a signal on if the client asked for it, as a bus does.
    async fn pass_on(&self, message: &Message) {
        let wanted = {
            let rules = self.rules.lock().unwrap();
            rules.iter().any(|rule| rule.matches(message).unwrap())
        };
        if wanted {
            // The other end may have gone.
            let _gone = self.connection.send(message).await;
        }
    }
}

fn path_of(unit: &str) -> String {
    let escaped: String = unit
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_string()
            } else {
                format!("_{:02x}", u32::from(c))
            }
        })
        .collect();
    format!("{MANAGER_PATH}/unit/{escaped}")
}

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>) {
    let mut messages = Builder::unix_stream(stream.into_std().unwrap())
        .server("0123456789abcdef0123456789abcdef")
        .p2p()
        .build_message_stream()
        .await
        .unwrap();
    let client = Client {
        connection: Connection::from(&messages),
        rules: Arc::default(),
    };
    state.lock().unwrap().connections.push(client.clone());
    answer_all(&mut messages, &client, &state).await;
}

async fn answer_all(messages: &mut MessageStream, client: &Client, state: &Mutex<State>) {
    while let Some(Ok(message)) = messages.next().await {
        if message.message_type() == Type::MethodCall {
            // The other end may go at any time.
            if answer(&message, client, state).await.is_err() {
                return;
            }
        }
    }
}

async fn answer(call: &Message, client: &Client, state: &Mutex<State>) -> zbus::Result<()> {
    let header = call.header();
    let member = header.member().unwrap().as_str();
    let body = call.body();
    let reply = Reply {
        connection: &client.connection,
        header: &header,
    };
    state.lock().unwrap().calls.push(member.to_owned());
    match member {
        "Hello" => reply.with(&":1.9").await,
        "AddMatch" => {
            let rule: &str = body.deserialize()?;
            client.rules.lock().unwrap().push(OwnedMatchRule::try_from(rule)?);
            reply.with(&()).await
        }
        "GetNameOwner" => {
            let away = state.lock().unwrap().left_the_bus;
            if away {
                return reply.error("org.freedesktop.DBus.Error.NameHasNoOwner").await;
            }
            reply.with(&SYSTEMD).await
        }
        "LoadUnit" => {
            let name: &str = body.deserialize()?;
            let name = state
                .lock()
                .unwrap()
                .aliases
                .get(name)
                .copied()
                .unwrap_or(name)
                .to_owned();
            reply.with(&ObjectPath::try_from(path_of(&name))?).await
        }
        "GetAll" => {
            let (name, unit) = unit_at(header.path().unwrap().as_str(), state);
            let mut all = unit.of_unit();
            all.insert("Id", Variant::from(name));
            all.insert("LoadState", unit.load.into());
            all.insert("UnitFileState", unit.file.into());
            reply.with(&all).await
        }
        "Get" => {
            let (interface, name): (&str, &str) = body.deserialize()?;
            if interface == MANAGER {
                let stopping = state.lock().unwrap().shutting_down;
                return reply
                    .with(&Variant::from(if stopping { "stopping" } else { "running" }))
                    .await;
            }
            let (_, unit) = unit_at(header.path().unwrap().as_str(), state);
            let mut all = unit.of_service();
            all.insert("Restart", unit.policy.into());
            let set = state
                .lock()
                .unwrap()
                .set
                .get(header.path().unwrap().as_str())
                .cloned();
            if let Some(value) = set.as_ref().and_then(|set| set.get(name)) {
                return reply.with(&Variant::from(*value)).await;
            }
            reply.with(&all[name]).await
        }
        "RestartUnit" => {
            let (name, mode): (&str, &str) = body.deserialize()?;
            assert_eq!(mode, "replace");
            reply.with(&ObjectPath::from_static_str("/job/7")?).await?;
            let result = state.lock().unwrap().job_result;
            for (job, result) in [("/job/6", "canceled"), ("/job/7", result)] {
                let removed = Message::signal(MANAGER_PATH, MANAGER, "JobRemoved")
                    .sender(SYSTEMD)
                    .build(&(7_u32, ObjectPath::from_static_str(job)?, name, result))?;
                client.pass_on(&removed).await;
            }
            Ok(())
        }
        "SetUnitProperties" => {
            let (unit, runtime, properties): (&str, bool, Vec<(&str, Variant<'_>)>) = body.deserialize()?;
            assert!(runtime, "it must not outlive the boot");
            {
                let mut state = state.lock().unwrap();
                let ignores = state.ignores;
                let set = state.set.entry(path_of(unit)).or_default();
                for (name, value) in properties {
                    let value = if ignores {
                        u64::MAX
                    } else {
                        u64::try_from(&value).unwrap()
                    };
                    set.insert(name.to_owned(), value);
                }
            }
            reply.with(&()).await
        }
        "KillUnit" | "ResetFailedUnit" => reply.error("org.freedesktop.systemd1.NoSuchUnit").await,
        _ => reply.with(&()).await,
    }
}

fn unit_at(path: &str, state: &Mutex<State>) -> (String, FakeUnit) {
    let state = state.lock().unwrap();
    let found = state.units.iter().find(|(name, _)| path_of(name) == path);
    found.map_or_else(
        || ("absent.service".to_owned(), FakeUnit::absent()),
        |(name, unit)| (name.clone(), unit.clone()),
    )
}

struct Reply<'a> {
    connection: &'a Connection,
    header: &'a Header<'a>,
}

impl Reply<'_> {
    async fn with<B: serde::Serialize + DynamicType>(&self, body: &B) -> zbus::Result<()> {
        let sender = self.header.destination().unwrap().as_str();
        let message = Message::method_return(self.header).sender(sender);
        self.connection.send(&message.build(body)?).await
    }

    async fn error(&self, name: &str) -> zbus::Result<()> {
        self.connection.reply_error(self.header, name, &"no").await
    }
}

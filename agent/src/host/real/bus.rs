//! A connection to systemd, and what is asked over it.
//!
//! Only what systemd itself sent counts: any process may send a signal to another over the bus, and one that looks like
//! a unit's failure would make the agent restart it.
//!
//! systemd's own socket, which `systemctl` uses as well, is no way around a bus that is down: what it sends there names
//! no valid sender, and zbus rightly refuses it. Where systemd listens for the bus, as it mostly does,
//! a connection has it start a dead one again anyway.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::message::{Flags, Message, Sequence, Type};
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::{Connection, DynamicType, MessageStream, ObjectPath, OwnedObjectPath, Variant};

use super::unit::Properties;
use crate::host::{HostError, UnitAction, Weights};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const SLICE: &str = "org.freedesktop.systemd1.Slice";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
pub(super) const BUS: &str = "org.freedesktop.DBus";
pub(super) const BUS_PATH: &str = "/org/freedesktop/DBus";

/// A connection that is not up by then hangs.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// An answer that takes longer is given up. A `daemon-reload` keeps systemd from answering for seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Messages that may wait. zbus stops reading, answers too, when they are more.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A connection to the systemd that runs now.
#[derive(Debug, Clone)]
pub(super) struct Bus {
    pub(super) connection: Connection,
    /// The name on the bus of the one that ran when this was connected.
    systemd: OwnedUniqueName,
}

/// A message that matters.
#[derive(Debug)]
pub(super) enum Event {
    /// The unit at `path` has changed; the message has its `PropertiesChanged`.
    Changed { path: OwnedObjectPath },
    /// A job ended.
    JobRemoved { job: OwnedObjectPath, result: String },
    /// systemd has read its units anew.
    Reloaded,
    /// systemd has left the bus, or another one has come.
    OwnerChanged,
}

/// A unit as it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) properties: Properties,
    /// What came before it is older. (The service's own properties are asked for after those of every unit: a
    /// change in between is newer than the reading.)
    pub(super) position: Sequence,
}

impl Bus {
    /// Connects to the system bus, or to the one at `address`, and looks for systemd on it.
    ///
    /// # Errors
    /// What failed, for people.
    pub(super) async fn connect(address: Option<&str>) -> Result<Self, String> {
        match timeout(CONNECT_DEADLINE, Self::open(address)).await {
            Ok(Ok(bus)) => Ok(bus),
            Ok(Err(zbus::Error::FDO(error))) if matches!(*error, zbus::fdo::Error::NameHasNoOwner(_)) => {
                Err("systemd is not on the bus".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the bus does not answer within {CONNECT_DEADLINE:?}")),
        }
    }

    async fn open(address: Option<&str>) -> zbus::Result<Self> {
        let connection = address
            .map_or_else(Builder::system, Builder::address)
            .method_timeout(CALL_DEADLINE)
            .max_queued(QUEUE)
            .build()
            .await?;
        listen(
            &connection,
            &format!("type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"),
        )
        .await?;
        // Called by its well-known name, a bus would try to start a systemd that is not there.
        let owner = connection
            .call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &SYSTEMD)
            .await?;
        Ok(Self {
            systemd: owner.body().deserialize()?,
            connection,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// All messages from now on, in order.
    pub(super) fn messages(&self) -> MessageStream {
        MessageStream::from(&self.connection)
    }

    /// Has systemd tell of its units at all. May be asked again.
    pub(super) async fn subscribe(&self) -> zbus::Result<()> {
        match self.call(MANAGER_PATH, MANAGER, "Subscribe", &()).await {
            Err(zbus::Error::MethodError(name, ..)) if name.ends_with(".AlreadySubscribed") => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Has the end of each `daemon-reload` told.
    pub(super) async fn follow_reloads(&self) -> zbus::Result<()> {
        self.listen(&format!(
            "type='signal',path='{MANAGER_PATH}',interface='{MANAGER}',member='Reloading'"
        ))
        .await
    }

    /// The path of a unit's object, under which it is read and tells its changes. `LoadUnit` has one for each
    /// name, also of what is not loaded or not installed, and resolves aliases.
    pub(super) async fn path_of(&self, unit: &str) -> zbus::Result<OwnedObjectPath> {
        self.call(MANAGER_PATH, MANAGER, "LoadUnit", &unit)
            .await?
            .body()
            .deserialize()
    }

    /// Has the changes of the unit at `path` told.
    ///
    /// `UnitNew` and `UnitRemoved` are not listened to: systemd loads a unit in order to answer a question about it and
    /// drops it again if nothing needs it, so that they would be answers to our own questions. A unit that is
    /// dropped was inactive, and one that leaves that state tells so.
    pub(super) async fn follow_changes(&self, path: &ObjectPath<'_>) -> zbus::Result<()> {
        self.listen(&format!(
            "type='signal',path='{}',interface='{PROPERTIES}',member='PropertiesChanged'",
            path.as_str()
        ))
        .await
    }

    /// Has the end of the unit's jobs told; `id` is its own name, not an alias.
    pub(super) async fn follow_jobs(&self, id: &str) -> zbus::Result<()> {
        self.listen(&format!(
            "type='signal',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved',arg2='{id}'"
        ))
        .await
    }

    /// The unit at `path` now.
    pub(super) async fn read(&self, path: &ObjectPath<'_>) -> zbus::Result<Reading> {
        let reply = self.call(path.clone(), PROPERTIES, "GetAll", &UNIT).await?;
        let body = reply.body();
        let all: HashMap<&str, Variant<'_>> = body.deserialize()?;
        let mut properties = Properties::default();
        properties.apply(&all);
        let position = reply.recv_position();
        if properties.id.ends_with(".service") {
            // One by one: all of them would have systemd read the unit's cgroup. Old systemds lack `NRestarts`.
            for name in [
                "MainPID",
                "NRestarts",
                "Result",
                "Restart",
                "ExecMainCode",
                "ExecMainStatus",
            ] {
                match self.call(path.clone(), PROPERTIES, "Get", &(SERVICE, name)).await {
                    Ok(reply) => {
                        let body = reply.body();
                        properties.apply(&HashMap::from([(name, body.deserialize::<Variant<'_>>()?)]));
                    }
                    Err(error) if refusal(&error).is_some() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Reading { properties, position })
    }

    /// Does it, and waits for the end of the job.
    ///
    /// # Errors
    /// systemd cannot be reached, refuses, or its job ended otherwise than `done`.
    pub(super) async fn act(&self, unit: &str, action: UnitAction) -> Result<(), HostError> {
        let failed = |error: zbus::Error| match refusal(&error) {
            Some(why) => refused(action, unit, why),
            None => HostError::Unreachable(error.to_string()),
        };
        let done = match action {
            UnitAction::Restart => return self.job(unit, action, "RestartUnit", failed).await,
            UnitAction::Stop => return self.job(unit, action, "StopUnit", failed).await,
            UnitAction::Kill => {
                self.call(MANAGER_PATH, MANAGER, "KillUnit", &(unit, "all", SIGKILL))
                    .await
            }
            UnitAction::KillMain => {
                self.call(MANAGER_PATH, MANAGER, "KillUnit", &(unit, "main", SIGKILL))
                    .await
            }
            UnitAction::ResetFailed => self.call(MANAGER_PATH, MANAGER, "ResetFailedUnit", &unit).await,
            UnitAction::Weigh(weights) => return self.weigh(unit, weights, failed).await,
        };
        match done {
            Ok(_) => Ok(()),
            // Nothing runs, nothing has failed: what was asked for is so.
            Err(zbus::Error::MethodError(name, ..))
                if name.ends_with(".NoSuchUnit") || name.ends_with(".NoSuchProcess") =>
            {
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Until the next boot. systemd takes what it then does not apply, so it is read back.
    async fn weigh(
        &self,
        unit: &str,
        weights: Weights,
        failed: impl Fn(zbus::Error) -> HostError,
    ) -> Result<(), HostError> {
        let wanted = weights.properties();
        let properties: Vec<_> = wanted
            .iter()
            .map(|(name, value)| (*name, Variant::from(*value)))
            .collect();
        self.call(
            MANAGER_PATH,
            MANAGER,
            "SetUnitProperties",
            &(unit, true, properties),
        )
        .await
        .map_err(&failed)?;
        let path = self.path_of(unit).await.map_err(&failed)?;
        let interface = if unit.strip_suffix(".slice").is_some() {
            SLICE
        } else {
            SERVICE
        };
        for (name, value) in wanted {
            let reply = self
                .call(path.clone(), PROPERTIES, "Get", &(interface, name))
                .await
                .map_err(&failed)?;
            let body = reply.body();
            let found: Variant<'_> = body.deserialize().map_err(&failed)?;
            if u64::try_from(&found).ok() != Some(value) {
                let why = format!("{name} was set to {value} and reads {found:?}");
                return Err(refused(UnitAction::Weigh(weights), unit, why));
            }
        }
        Ok(())
    }

    /// Asks that the unit's failure and its count of starts be forgotten, and does not wait for it: systemd takes the messages of one connection
    /// in their order, so that it is done before a restart that is asked for next. What systemd says no to is no matter.
    ///
    /// # Errors
    /// systemd cannot be reached.
    pub(super) async fn forget_failure(&self, unit: &str) -> Result<(), HostError> {
        let sent = async {
            let message = Message::method_call(MANAGER_PATH, "ResetFailedUnit")
                .destination(self.systemd.as_str())
                .interface(MANAGER)
                .with_flags(Flags::NO_REPLY_EXPECTED)
                .build(&unit)?;
            self.connection.send(&message).await
        };
        sent.await
            .map_err(|error: zbus::Error| HostError::Unreachable(error.to_string()))
    }

    async fn job(
        &self,
        unit: &str,
        action: UnitAction,
        method: &'static str,
        failed: impl Fn(zbus::Error) -> HostError,
    ) -> Result<(), HostError> {
        let mut messages = self.messages();
        let reply = self
            .call(MANAGER_PATH, MANAGER, method, &(unit, "replace"))
            .await
            .map_err(&failed)?;
        let ours: OwnedObjectPath = reply.body().deserialize().map_err(&failed)?;
        while let Some(message) = messages.next().await {
            match self.event(&message.map_err(&failed)?) {
                Some(Event::JobRemoved { job, result }) if job == ours => {
                    return if result == "done" {
                        Ok(())
                    } else {
                        let why = format!("its job ended with {result:?}");
                        Err(refused(action, unit, why))
                    };
                }
                Some(Event::OwnerChanged) => break,
                Some(Event::JobRemoved { .. } | Event::Changed { .. } | Event::Reloaded) | None => {}
            }
        }
        Err(HostError::Unreachable(format!(
            "lost it after {method} of {unit}; the job may be under way"
        )))
    }

    /// The machine's state in one word.
    pub(super) async fn system_state(&self) -> zbus::Result<String> {
        let reply = self
            .call(MANAGER_PATH, PROPERTIES, "Get", &(MANAGER, "SystemState"))
            .await?;
        let body = reply.body();
        String::try_from(body.deserialize::<Variant<'_>>()?)
    }

    /// What a message says, if it is a signal from systemd that matters.
    pub(super) fn event(&self, message: &Message) -> Option<Event> {
        if message.message_type() != Type::Signal {
            return None;
        }
        let header = message.header();
        let member = header.member()?.as_str();
        let sender = header.sender().map(UniqueName::as_str);
        if member == "NameOwnerChanged" && sender == Some(BUS) {
            let body = message.body();
            let (name, ..): (&str, &str, &str) = body.deserialize().ok()?;
            return (name == SYSTEMD).then_some(Event::OwnerChanged);
        }
        if sender != Some(self.systemd.as_str()) {
            return None;
        }
        match (header.interface()?.as_str(), member) {
            (PROPERTIES, "PropertiesChanged") => Some(Event::Changed {
                path: header.path()?.clone().into(),
            }),
            (MANAGER, "JobRemoved") => {
                let body = message.body();
                let (_, job, _, result): (u32, ObjectPath<'_>, &str, &str) = body.deserialize().ok()?;
                Some(Event::JobRemoved {
                    job: job.into(),
                    result: result.to_owned(),
                })
            }
            (MANAGER, "Reloading") => {
                let begins: bool = message.body().deserialize().ok()?;
                (!begins).then_some(Event::Reloaded)
            }
            _ => None,
        }
    }

    async fn listen(&self, rule: &str) -> zbus::Result<()> {
        listen(&self.connection, rule).await
    }

    pub(super) async fn call<'p, P, B>(
        &self,
        path: P,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<Message>
    where
        P: TryInto<ObjectPath<'p>>,
        P::Error: Into<zbus::Error>,
        B: serde::Serialize + DynamicType,
    {
        self.connection
            .call_method(Some(self.systemd.as_str()), path, Some(interface), method, body)
            .await
    }
}

/// Has the bus pass on what matches.
async fn listen(connection: &Connection, rule: &str) -> zbus::Result<()> {
    connection
        .call_method(Some(BUS), BUS_PATH, Some(BUS), "AddMatch", &rule)
        .await
        .map(drop)
}

/// `SIGKILL` as `KillUnit` takes it.
const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// Takes a `PropertiesChanged` over. systemd tells the type's own properties first and those of every unit after
/// them: `true` with the latter, when the two fit together.
pub(super) fn take_changes(message: &Message, properties: &mut Properties) -> zbus::Result<bool> {
    let body = message.body();
    let (interface, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) = body.deserialize()?;
    if interface == UNIT || interface == SERVICE {
        properties.apply(&changed);
    }
    Ok(interface == UNIT)
}

/// systemd's own words, if it was systemd that said no; `None` if it could not be asked.
pub(super) fn refusal(error: &zbus::Error) -> Option<String> {
    use zbus::fdo::Error as Fdo;
    if let zbus::Error::MethodError(name, text, _) = error {
        return Some(text.clone().unwrap_or_else(|| name.to_string()));
    }
    let zbus::Error::FDO(error) = error else {
        return None;
    };
    let not_asked = matches!(
        **error,
        Fdo::ZBus(_)
            | Fdo::ServiceUnknown(_)
            | Fdo::NameHasNoOwner(_)
            | Fdo::NoReply(_)
            | Fdo::NoServer(_)
            | Fdo::Disconnected(_)
            | Fdo::Timeout(_)
            | Fdo::TimedOut(_)
    );
    (!not_asked).then(|| error.to_string())
}

fn refused(action: UnitAction, unit: &str, why: String) -> HostError {
    HostError::Refused {
        action: match action {
            UnitAction::Restart => "restart",
            UnitAction::Stop => "stop",
            UnitAction::Kill | UnitAction::KillMain => "kill",
            UnitAction::ResetFailed => "reset the failure of",
            UnitAction::Weigh(_) => "weigh",
        },
        unit: unit.to_owned(),
        why,
    }
}

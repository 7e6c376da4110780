//! Whether machines have power, by the word of their management controllers (BMCs), over Redfish.
//!
//! ```text
//!  inventory: address, path, fingerprint ─┐
//!  configuration: credentials, authority ─┴─► Bmcs ── GET Systems/… ─► Reading {PowerState, UUID, when it was asked}
//!                                              └──── POST ComputerSystem.Reset ForceOff
//! ```
//!
//! [`redfish`] is what is said (pure), `exchange` how, `trust` to whom, `credentials` as whom. A word is kept with the instant before which
//! it was asked for; who decides on it says how old it may be. Whatever goes wrong is told as such, and is proof of nothing: a loss of
//! power takes the controller too.

mod credentials;
mod error;
mod exchange;
pub mod redfish;
pub mod settings;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use self::credentials::Credentials;
pub use self::error::{BmcError, SetupError};
use self::exchange::Peer;
pub use self::redfish::PowerState;
use self::settings::{BmcSettings, BmcSpec};
use crate::inventory::{Inventory, NodeName};

/// What a management controller said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whether its machine has power.
    pub state: PowerState,
    /// The machine's own UUID, if the controller tells it.
    pub uuid: Option<String>,
    /// Whose word it is, for people: path and address.
    pub source: String,
    /// When it was asked: it was so after this.
    pub asked: Instant,
}

/// What is known of a machine's power.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Word {
    /// The inventory has no management controller for it, or the configuration says nothing of them.
    #[default]
    None,
    /// It was not asked yet.
    NotAsked,
    /// It was asked, and this came of it.
    Failed {
        /// Which controller.
        source: String,
        /// Why there is no word.
        why: BmcError,
    },
    /// It said this.
    Told(Reading),
}

/// The management controllers of the fleet. Cheap to clone; all clones share what was heard.
#[derive(Clone, Default)]
pub struct Bmcs {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    credentials: PathBuf,
    timeout: Duration,
    controllers: BTreeMap<NodeName, Controller>,
}

struct Controller {
    spec: BmcSpec,
    tls: Arc<ClientConfig>,
    /// One question at a time: a controller is a small machine.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<(Instant, Result<Reading, BmcError>)>>,
}

impl fmt::Debug for Bmcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bmcs")
            .field("nodes", &self.shared.controllers.keys())
            .finish_non_exhaustive()
    }
}

impl Bmcs {
    /// Those of the inventory. Reads the credentials and the authority, and asks nobody yet. Blocks.
    ///
    /// # Errors
    /// A file cannot be used, or a controller could not be known.
    pub fn new(settings: &BmcSettings, inventory: &Inventory) -> Result<Self, SetupError> {
        let credentials = Credentials::load(&settings.credentials)?;
        let authority = settings.ca.as_deref().map(trust::authority).transpose()?;
        let mut controllers = BTreeMap::new();
        for (name, node) in &inventory.nodes {
            let Some(spec) = &node.bmc else { continue };
            if credentials.of(name).is_none() {
                return Err(SetupError::Invalid(format!(
                    "{}: has no user and password for {name}, whose management controller the inventory has",
                    settings.credentials.display()
                )));
            }
            let tls = match (&spec.fingerprint, &authority) {
                (Some(fingerprint), _) => {
                    trust::pinned(*fingerprint).map_err(|error| SetupError::Invalid(error.to_string()))?
                }
                (None, Some(authority)) => Arc::clone(authority),
                (None, None) => return Err(SetupError::Unknowable(name.to_string())),
            };
            let controller = Controller {
                spec: spec.clone(),
                tls,
                turn: tokio::sync::Mutex::new(()),
                last: Mutex::new(None),
            };
            controllers.insert(name.clone(), controller);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                credentials: settings.credentials.clone(),
                timeout: settings.timeout,
                controllers,
            }),
        })
    }

    /// Asks for a machine's power, unless that was asked less than `again` ago. Takes twice the configured time-out at most.
    pub async fn ask(&self, node: &NodeName, again: Duration) {
        let Some(controller) = self.shared.controllers.get(node) else {
            return;
        };
        let _turn = controller.turn.lock().await;
        let asked = Instant::now();
        if let Some((last, _)) = &*controller.last()
            && asked.saturating_duration_since(*last) < again
        {
            return;
        }
        let read = self.read(node, controller, asked).await;
        let read = read.map(|(reading, _)| reading);
        match &read {
            Ok(reading) => {
                tracing::debug!(%node, state = %reading.state, source = reading.source, "asked for its power");
            }
            Err(error) => {
                tracing::warn!(%node, address = %controller.spec.address, %error, "its power is not known");
            }
        }
        *controller.last() = Some((asked, read));
    }

    /// What was last heard of a machine's power.
    pub fn word(&self, node: &NodeName) -> Word {
        let Some(controller) = self.shared.controllers.get(node) else {
            return Word::None;
        };
        match &*controller.last() {
            None => Word::NotAsked,
            Some((_, Ok(reading))) => Word::Told(reading.clone()),
            Some((_, Err(why))) => Word::Failed {
                source: format!("its management controller at {}", controller.spec.address),
                why: why.clone(),
            },
        }
    }

    /// Has a machine's power cut, if it is the machine of this UUID. That it is off is for [`Bmcs::ask`] to say.
    ///
    /// # Errors
    /// It was not asked to; or nobody answered, and it may have been.
    pub async fn force_off(&self, node: &NodeName, uuid: &str) -> Result<(), BmcError> {
        let Some(controller) = self.shared.controllers.get(node) else {
            return Err(BmcError::NoReset(
                "the inventory has no management controller for it".to_owned(),
            ));
        };
        let _turn = controller.turn.lock().await;
        let (reading, system) = self.read(node, controller, Instant::now()).await?;
        // The last moment: the wrong machine must not lose its power.
        if let Some(own) = &reading.uuid
            && redfish::same_machine(own, uuid) == Some(false)
        {
            return Err(BmcError::NoReset(format!(
                "it is of another machine: its UUID is {own}, the node's is {uuid}"
            )));
        }
        if reading.state == PowerState::Off {
            return Ok(());
        }
        let target = system.reset.map_err(BmcError::NoReset)?;
        tracing::warn!(%node, source = reading.source, "its power is cut");
        let peer = self.peer(node, controller).await?;
        peer.post(&target, &json!({"ResetType": redfish::FORCE_OFF}))
            .await
    }

    async fn read(
        &self,
        node: &NodeName,
        controller: &Controller,
        asked: Instant,
    ) -> Result<(Reading, redfish::System), BmcError> {
        let peer = self.peer(node, controller).await?;
        let path = match &controller.spec.system {
            Some(path) => path.clone(),
            None => redfish::only_system(&peer.get(redfish::SYSTEMS).await?)?,
        };
        let system = redfish::system(&path, &peer.get(&path).await?)?;
        let reading = Reading {
            state: system.state,
            uuid: system.uuid.clone(),
            source: format!("{path} at {}", controller.spec.address),
            asked,
        };
        Ok((reading, system))
    }

    /// With the credentials as they are now: they are replaced in place.
    async fn peer<'a>(&self, node: &NodeName, controller: &'a Controller) -> Result<Peer<'a>, BmcError> {
        let path = self.shared.credentials.clone();
        let read = spawn_blocking(move || Credentials::load(&path)).await;
        let unusable = BmcError::Credentials;
        let read = read
            .map_err(|error| unusable(error.to_string()))?
            .map_err(|error| unusable(error.to_string()))?;
        let account = read
            .of(node)
            .ok_or_else(|| unusable(format!("there are no credentials for {node} any more")))?;
        Ok(Peer {
            address: controller.spec.address,
            tls: &controller.tls,
            authorization: account.header().map_err(unusable)?,
            timeout: self.shared.timeout,
        })
    }
}

impl Controller {
    fn last(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Result<Reading, BmcError>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

//! Whether systemd does what the agent asks of a unit.
//!
//! systemd asks polkit who may, by unit and verb, unless root asks. `Ref` is asked about in the same way and only keeps the unit in
//! systemd's memory until `Unref`, so that the answer costs nothing. A systemd without it (before 234) cannot be asked.

use tracing::debug;

use super::bus::{BUS, BUS_PATH, Bus, UNIT};
use crate::privilege::Leave;

const POLKIT: &str = "org.freedesktop.PolicyKit1";

impl Bus {
    /// Does systemd do what we ask of `unit`?
    pub(super) async fn leave(&self, unit: &str) -> Leave {
        let path = match self.path_of(unit).await {
            Ok(path) => path,
            Err(error) => {
                debug!(unit, %error, "whether it may be restarted cannot be told");
                return Leave::Unknown;
            }
        };
        match self.call(path.clone(), UNIT, "Ref", &()).await {
            Ok(_) => {
                // Also given up with the connection.
                if let Err(error) = self.call(path, UNIT, "Unref", &()).await {
                    debug!(unit, %error, "not let go of");
                }
                Leave::Given
            }
            Err(error) if denied(&error) => match self.has_polkit().await {
                Ok(true) => Leave::NoRule,
                Ok(false) => Leave::NoPolkit,
                Err(_) => Leave::Unknown,
            },
            Err(error) => {
                debug!(unit, %error, "whether it may be restarted cannot be told");
                Leave::Unknown
            }
        }
    }

    /// It runs, or the bus can start it.
    async fn has_polkit(&self) -> zbus::Result<bool> {
        for method in ["ListActivatableNames", "ListNames"] {
            let reply = self.call_bus(method).await?;
            let body = reply.body();
            let names: Vec<&str> = body.deserialize()?;
            if names.contains(&POLKIT) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn call_bus(&self, method: &str) -> zbus::Result<zbus::message::Message> {
        self.connection
            .call_method(Some(BUS), BUS_PATH, Some(BUS), method, &())
            .await
    }
}

fn denied(error: &zbus::Error) -> bool {
    if let zbus::Error::MethodError(name, ..) = error {
        return name.ends_with(".AccessDenied") || name.ends_with(".InteractiveAuthorizationRequired");
    }
    matches!(
        error,
        zbus::Error::FDO(error) if matches!(
            **error,
            zbus::fdo::Error::AccessDenied(_) | zbus::fdo::Error::InteractiveAuthorizationRequired(_)
        )
    )
}

//! Keeps the coordinator's own certificate good: it renews it at half of its life where it has the authority, and takes over one that
//! somebody has put in its place, without a restart.
//!
//! A renewed one begins when the first one did: a node whose clock fell back over an outage is not to take it for one of the future.

use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::tls::{TlsFiles, TlsMaterial};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::RunError;
use super::house::House;
use crate::events::{EventKind, NewEvent, Severity};
use crate::pki::{Authority, PkiError, Seen};

/// Between two looks.
const LOOK: Duration = Duration::from_mins(10);

impl House {
    /// Never ends.
    pub(super) async fn keep_certificate(&self) -> Result<(), RunError> {
        let mut told = String::new();
        let mut shown = self.certificate.clone();
        loop {
            match self.look_at_certificate(&mut shown).await {
                Ok(()) => told.clear(),
                // The same for weeks says nothing new.
                Err(why) if why == told => {}
                Err(why) => {
                    tracing::error!(why, "the coordinator's own certificate is not renewed");
                    let text = format!("the coordinator's own certificate is not renewed: {why}");
                    self.events
                        .emit(NewEvent::new(Severity::Warning, EventKind::Refused, text));
                    told = why;
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn look_at_certificate(&self, shown: &mut Vec<u8>) -> Result<(), String> {
        let files = self.settings.tls.clone();
        let authority = self.settings.enrolment.as_ref();
        let authority = authority.map(|enrolment| enrolment.authority.clone());
        let now = self.clock.now();
        let looked = spawn_blocking(move || renewed(&files, authority, now));
        let material = looked.await.map_err(|error| error.to_string())??;
        if material.certificate != *shown {
            self.shown
                .replace(&material)
                .map_err(|error| format!("what lies there cannot be used: {error}"))?;
            shown.clone_from(&material.certificate);
            tracing::info!("the coordinator shows another certificate from now on");
        }
        Ok(())
    }
}

/// What lies there, once it was renewed if that is due.
fn renewed(files: &TlsFiles, authority: Option<PathBuf>, now: u64) -> Result<TlsMaterial, String> {
    let seen = Seen::read(&files.certificate).map_err(|error| error.to_string())?;
    let seconds = |at: jiff::Timestamp| u64::try_from(at.as_second()).unwrap_or_default();
    let life = seconds(seen.ends).saturating_sub(seconds(seen.begins));
    if let Some(dir) = authority
        && now >= seconds(seen.ends).saturating_sub(life / 2)
    {
        match Authority::open(&dir).and_then(|authority| authority.renew(files, &seen)) {
            // While another authority takes its place, or by somebody else's, it is for people to see to it.
            Ok(()) | Err(PkiError::Rotating(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    files.read().map_err(|error| format!("{error}: {}", error.source))
}

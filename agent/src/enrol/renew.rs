//! Renews the certificate of an agent that runs: at half of its life, give or take, and as soon as it can when it has ended.
//!
//! A node that comes back from a long outage cannot have a session until it has renewed. So then it asks at once, and again soon; a whole
//! fleet that does so is spread by chance, since coordinators see only some at a time.
//!
//! Certificates are measured by the later of the clock and the latest time that this node has trusted, which the clock's watcher keeps
//! ([`crate::watch`]). A clock that is back by more than that is made good by the coordinators' word: who is told that its certificate has
//! ended asks for another, whatever the clock says.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::clock_floor::ClockFloor;
use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::machine;
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1 as wire;
use futures_util::FutureExt;
use rand::Rng;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::EnrolError;
use super::call::{Asked, Known, ask};
use super::files::{can_write, failed, write};
use super::join::check;
use super::key::NodeKey;
use crate::causes::causes;
use crate::link::secure::roots;

/// A certificate is looked at so often at least: it may be replaced by hand, and clocks are set.
const LOOK: Duration = Duration::from_mins(10);
/// After an attempt that failed with a certificate that is still good for a while.
const AGAIN: Duration = Duration::from_hours(1);
/// The same with one that has ended, or soon will have.
const AGAIN_SOON: Duration = Duration::from_secs(20);
/// What is soon, seconds.
const SOON: u64 = 24 * 3600;

/// What it takes to renew.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Coordinators, tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// This node's files.
    pub files: TlsFiles,
    /// This node's name.
    pub node: String,
    /// By what certificates are measured.
    pub clock: Arc<ClockFloor>,
    /// Where the machine's id is.
    pub machine_id: PathBuf,
    /// Told when coordinators do not take the certificate any more, which by this node's clock may be good for long, or want it renewed.
    pub wanted: Arc<Notify>,
}

/// What stands in this node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) der: Vec<u8>,
    pub(super) node: String,
    /// Its key, an uncompressed point if it is one that we make.
    pub(super) public: Vec<u8>,
    /// Seconds since the Unix epoch.
    pub(super) begins: u64,
    pub(super) ends: u64,
}

/// Reads a certificate of a node, PEM.
pub(super) fn read_own(pem: &[u8]) -> Result<Own, String> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| format!("is no certificate: {error}"))?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|error| format!("is no certificate: {error}"))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| &names.value.general_names);
    let node = names.into_iter().flatten().find_map(|name| {
        if let GeneralName::URI(uri) = name
            && let Ok(PeerIdentity::Node(node)) = uri.parse()
        {
            return Some(node);
        }
        None
    });
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    Ok(Own {
        node: node.ok_or("is no certificate of a node")?,
        public: certificate.public_key().subject_public_key.data.to_vec(),
        begins: seconds(certificate.validity().not_before),
        ends: seconds(certificate.validity().not_after),
        der: der.to_vec(),
    })
}

/// When a certificate is to be renewed: at half of its life, and up to a tenth of it later; `share`, from 0 to 1, is this node's.
pub(super) fn due(begins: u64, ends: u64, share: f64) -> u64 {
    let life = Duration::from_secs(ends.saturating_sub(begins));
    begins.saturating_add((life / 2 + life.mul_f64(share / 10.0)).as_secs())
}

/// Between two attempts, in turn with `share`, from 0 to 1; `wanted`: a coordinator has asked for it.
fn again(now: u64, ends: u64, wanted: bool, served: bool, share: f64) -> Duration {
    let wait = if served && (wanted || now.saturating_add(SOON) >= ends) {
        AGAIN_SOON
    } else {
        AGAIN
    };
    wait.mul_f64(0.5 + share)
}

/// Renews whenever it is due, until `stop`.
pub async fn follow(renewal: Renewal, stop: CancellationToken) {
    let share = rand::rng().random_range(0.0..1.0);
    let mut told = String::new();
    let mut wanted = false;
    loop {
        let (wait, failed) = match look(&renewal, share, wanted).await {
            Look::Later(wait) => {
                told.clear();
                wanted = false;
                (wait, false)
            }
            Look::Failed { why, wait } => {
                // The same for weeks says nothing new.
                if why == told {
                    debug!(why, again_in = ?wait, "the certificate was not renewed");
                } else {
                    warn!(why, again_in = ?wait, "the certificate was not renewed");
                }
                told = why;
                (wait, true)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
            // Said at each attempt to connect; an attempt to renew that failed is not repeated as often.
            () = renewal.wanted.notified(), if !failed || !wanted => wanted = true,
        }
    }
}

enum Look {
    Later(Duration),
    Failed { why: String, wait: Duration },
}

/// Looks at the certificate, and renews it if that is due, or `wanted` by a coordinator.
async fn look(renewal: &Renewal, share: f64, wanted: bool) -> Look {
    let own = fs::read(&renewal.files.certificate)
        .map_err(|error| error.to_string())
        .and_then(|pem| read_own(&pem));
    let own = match own {
        Ok(own) => own,
        // Somebody may be putting it there; the link says what is wrong with it.
        Err(why) => {
            let why = format!("{} {why}", renewal.files.certificate.display());
            return Look::Failed { why, wait: LOOK };
        }
    };
    renewal.clock.look();
    // It was not made before it begins.
    renewal.clock.is_past(own.begins);
    let now = renewal.clock.now();
    let due = due(own.begins, own.ends, share);
    if now < due && !wanted {
        return Look::Later(Duration::from_secs(due - now).min(LOOK));
    }
    if now < due {
        info!(
            ends = own.ends,
            now,
            "a coordinator wants the certificate renewed, or does not take it, though by this node's clock it is good"
        );
    }
    match renew(renewal, &own).await {
        Ok(renewed) => {
            // The coordinator's clock is right, or its fleet has no other.
            renewal.clock.is_past(renewed.begins);
            // What was said of the one before.
            let _said = renewal.wanted.notified().now_or_never();
            info!(
                ends = renewed.ends,
                "the certificate is renewed; it counts from the next connection on"
            );
            Look::Later(LOOK)
        }
        Err(error) => {
            let served = !matches!(error, EnrolError::NotServed(_));
            Look::Failed {
                why: causes(&error),
                wait: again(now, own.ends, wanted, served, rand::rng().random_range(0.0..1.0)),
            }
        }
    }
}

/// Has this node's certificate renewed once, due or not.
///
/// # Errors
/// It could not be read, asked for or written; what was there stays.
pub async fn once(renewal: &Renewal) -> Result<(), EnrolError> {
    let files = &renewal.files;
    let pem = fs::read(&files.certificate).map_err(failed("read", &files.certificate))?;
    let own = read_own(&pem).map_err(|what| EnrolError::Unusable {
        path: files.certificate.clone(),
        what,
    })?;
    renew(renewal, &own).await.map(drop)
}

async fn renew(renewal: &Renewal, own: &Own) -> Result<Own, EnrolError> {
    let files = &renewal.files;
    let pem = fs::read(&files.key)
        .map(zeroize::Zeroizing::new)
        .map_err(failed("read", &files.key))?;
    let key = NodeKey::read(&pem).map_err(|what| EnrolError::Unusable {
        path: files.key.clone(),
        what,
    })?;
    drop(pem);
    // One that cannot be kept would be asked for again and again.
    can_write(&files.certificate)?;
    let authority = fs::read(&files.ca).map_err(failed("read", &files.ca))?;
    // Under `/etc` it may be out of reach; then this node needs somebody once there is another authority.
    let keeps_authorities = can_write(&files.ca).is_ok();
    let machine =
        machine::name(&renewal.machine_id).map_err(failed("read the machine's id", &renewal.machine_id))?;
    let asked = Asked::Renew(wire::RenewRequest {
        certificate: own.der.clone().into(),
        request: key.request().map_err(EnrolError::Usage)?.into(),
        machine,
        keeps_authorities,
    });
    let known = Known::ByAuthority(authority.clone());
    let enrolled = ask(&renewal.addresses, &known, &renewal.clock, &asked).await?;
    let renewed = read_own(&enrolled.certificate).map_err(EnrolError::Answer)?;
    check(&renewed, &key, &renewal.node)?;
    // First whom to trust: the certificate alone would be of no use.
    if enrolled.authority != authority && !enrolled.authority.is_empty() {
        roots(&enrolled.authority).map_err(EnrolError::Answer)?;
        if keeps_authorities {
            write(&files.ca, &enrolled.authority)?;
            info!("there is another authority to trust, or one less");
        } else {
            let file = files.ca.display();
            warn!(%file, "there is another authority to trust, and the file cannot be written; replace it by hand");
        }
    }
    write(&files.certificate, &enrolled.certificate)?;
    Ok(renewed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn a_fleet_that_joined_at_once_does_not_renew_at_once() {
        let (begins, ends) = (1_800_000_000, 1_800_000_000 + 90 * DAY);
        assert_eq!(due(begins, ends, 0.0), begins + 45 * DAY);
        assert_eq!(due(begins, ends, 1.0), begins + 54 * DAY);
        // One that makes no sense is due at once.
        assert_eq!(due(ends, begins, 0.5), ends);
    }

    #[test]
    fn who_is_locked_out_asks_soon_and_others_take_their_time() {
        let ends = 1_800_000_000;
        for (now, wanted, served, least, most) in [
            (ends - 30 * DAY, false, true, 1800, 5400),
            (ends - 30 * DAY, true, true, 10, 30),
            (ends - DAY, false, true, 10, 30),
            (ends + 90 * DAY, false, true, 10, 30),
            (ends + 90 * DAY, true, false, 1800, 5400),
        ] {
            assert_eq!(again(now, ends, wanted, served, 0.0).as_secs(), least);
            assert_eq!(again(now, ends, wanted, served, 1.0).as_secs(), most);
        }
    }
}

//! Operators who renew their own certificates.

use std::time::Duration;

use blackstart_proto::identity::PeerIdentity;

use super::{Desk, DeskError};
use crate::events::{EventKind, Severity};
use crate::pki::{CertificateRequest, Certified, DEFAULT_DAYS, Shown};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;
/// It is renewed within so long before its end, so that whoever has stolen a key cannot have another certificate at once.
const RENEWABLE: u64 = 90 * DAY;

impl Desk {
    /// Certifies another key of the operator who has shown a certificate that counts. The older one stays as good as it is; whoever is revoked
    /// by name is so with every certificate.
    pub(crate) fn renew_operator(
        &self,
        shown: &Shown,
        request: &CertificateRequest,
    ) -> Result<(Certified, Vec<u8>), DeskError> {
        let (authority, _) = self.authority()?;
        let PeerIdentity::Operator(name) = &shown.peer else {
            return Err(DeskError::Invalid(format!("the certificate is {}'s", shown.peer)));
        };
        let now = self.now();
        let left = shown.ends.saturating_sub(now);
        if left > RENEWABLE {
            return Err(DeskError::Invalid(format!(
                "the certificate has {} days left, and is renewed in the last {}",
                left / DAY,
                RENEWABLE / DAY
            )));
        }
        // As long as one that is made by hand.
        let lifetime = Duration::from_secs(u64::from(DEFAULT_DAYS) * DAY);
        let certified = authority.certify_operator(name, request, now, lifetime)?;
        let serial = &certified.serial;
        tracing::info!(operator = name, serial, "an operator's certificate is renewed");
        let text = format!("operator {name}'s certificate {} renewed: {serial}", shown.serial);
        self.tell(Severity::Info, EventKind::Enrolled, None, text);
        Ok((certified, authority.certificate()))
    }
}

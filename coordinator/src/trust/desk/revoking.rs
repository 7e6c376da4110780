//! Revocations: in force and durable, and connections cut, before they are said.

use std::sync::Arc;

use super::{Desk, DeskError, REVOKED, read};
use crate::events::{EventKind, Severity};
use crate::store::{Store, StoreError};
use crate::trust::book::{Revocation, Revoked, Subject};

/// What is revoked, of a store. One that cannot be read counts: see [`Revocation`]'s owner for how it is told.
pub(crate) fn revoked(store: &dyn Store) -> Result<Revoked, StoreError> {
    let mut revoked = Revoked::default();
    for (key, value) in store.scan(REVOKED)? {
        let Some(revocation) = read::<Revocation>(&key, &value) else {
            // Fails towards keeping out: whose it is stands in the key as well.
            if let Some(subject) = key
                .strip_prefix(REVOKED)
                .and_then(|text| text.parse::<Subject>().ok())
            {
                let of = Revocation {
                    subject: subject.clone(),
                    by: "somebody".to_owned(),
                    reason: "the entry in the store cannot be read".to_owned(),
                    at: 0,
                    except: None,
                };
                revoked.0.insert(subject, of);
            }
            continue;
        };
        revoked.0.insert(revocation.subject.clone(), revocation);
    }
    Ok(revoked)
}

impl Desk {
    /// What is revoked.
    pub(crate) fn revocations(&self) -> Arc<Revoked> {
        self.gate.revoked()
    }

    /// Revokes, and cuts. Durable once it has returned; also if it was revoked before.
    pub(crate) fn revoke(
        &self,
        subject: &Subject,
        by: &str,
        reason: &str,
    ) -> Result<(Revocation, usize), DeskError> {
        let books = self.books();
        let revocation = Revocation {
            subject: subject.clone(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            at: self.now(),
            except: None,
        };
        self.keep(&format!("{REVOKED}{subject}"), &revocation)?;
        let mut revoked = Revoked::clone(&self.gate.revoked());
        revoked.0.insert(subject.clone(), revocation.clone());
        let cut = self.gate.put_in_force(revoked);
        drop(books);
        tracing::warn!(%subject, by, reason, cut, "certificates are revoked");
        let text = format!("{subject} revoked by {by}: {reason}");
        self.tell(Severity::Warning, EventKind::Revoked, None, text);
        Ok((revocation, cut))
    }
}

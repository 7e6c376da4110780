//! Which keys the store is made of, and how an entry of a journal is put together.

use super::super::StoreError;
use crate::leader::Keys;

pub(super) const WHOLE: u8 = 0;
pub(super) const IN_PARTS: u8 = 1;

impl Keys {
    pub(super) fn length(&self, run: &str) -> Vec<u8> {
        self.key(&format!("length/{run}"))
    }

    pub(super) fn journal(&self, run: &str, index: u64) -> Vec<u8> {
        self.key(&format!("journal/{run}/{index:020}"))
    }

    pub(super) fn journal_of(&self, run: &str) -> Vec<u8> {
        self.key(&format!("journal/{run}/"))
    }

    pub(super) fn part(&self, run: &str, index: u64, part: usize) -> Vec<u8> {
        self.key(&format!("part/{run}/{index:020}/{part:06}"))
    }

    pub(crate) fn state(&self, key: &str) -> Vec<u8> {
        self.key(&format!("state/{key}"))
    }

    /// Where the runs, their journals and the values are; the rest is the leader's own.
    pub(crate) fn kept(&self) -> [Vec<u8>; 4] {
        ["journal/", "length/", "part/", "state/"].map(|name| self.key(name))
    }

    pub(crate) fn all(&self) -> Vec<u8> {
        self.key("")
    }
}

/// An entry from the value of its own key; `read` reads the keys of its parts.
pub(super) fn pick_up(
    (store, keys): (&str, &Keys),
    (run, index): (&str, u64),
    value: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: store.into(),
        what,
        advice: "restore etcd from a snapshot; nothing was changed".to_owned(),
    };
    match value.split_first() {
        Some((&WHOLE, entry)) => Ok(entry.to_vec()),
        Some((&IN_PARTS, parts)) => {
            let parts =
                number(parts).ok_or_else(|| damaged(format!("entry {index} of run {run} cannot be read")))?;
            let mut entry = Vec::new();
            for part in 0..usize::try_from(parts).unwrap_or(0) {
                let found = read(&keys.part(run, index, part))?;
                let lacking = || damaged(format!("part {part} of entry {index} of run {run} is missing"));
                entry.extend(found.ok_or_else(lacking)?);
            }
            Ok(entry)
        }
        Some(_) | None => Err(damaged(format!("entry {index} of run {run} cannot be read"))),
    }
}

/// A number as it is written.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

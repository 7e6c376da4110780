//! The form of a backup: everything that a store has, in one file that tells whether it is whole.
//!
//! ```text
//!  blackstart-backup 1 crc32 1c291ca3 bytes 48213      the form's version, and what the rest must be
//!  {"schema":1,"id":"…","epoch":12,"runs":[…],"values":[…]}
//! ```
//!
//! The rest is JSON: `tail -n +2 FILE | jq` shows a person what is in it. It is written beside its place, synced and renamed, for its
//! owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of the form; raised by whoever changes it.
const VERSION: u32 = 1;
const MAGIC: &str = "blackstart-backup";

/// All that a store has, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The schema of the store.
    pub schema: u64,
    /// Its id.
    pub id: String,
    /// The highest epoch that it gave away.
    pub epoch: u64,
    /// The journals, in the order in which they were begun.
    pub runs: Vec<RunJournal>,
    /// Values of durable state, by key.
    pub values: Vec<(String, Bytes)>,
}

/// The journal of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunJournal {
    /// The id of the run.
    pub id: String,
    /// Its entries, in order.
    pub entries: Vec<Bytes>,
}

/// Bytes, as text if they are text: journals and values are, as it happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bytes {
    /// They are text.
    Text(String),
    /// They are not.
    Raw(Vec<u8>),
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Raw(bytes.to_vec()),
        }
    }
}

impl Bytes {
    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Raw(bytes) => bytes,
        }
    }
}

/// Why a file is not a backup that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It does not begin as one.
    #[error("it is not a backup of a coordinator's store")]
    NotABackup,
    /// It has a form that this version does not know.
    #[error(
        "it has version {0} of the form, and this program reads {VERSION}; use the version that wrote it, or a newer one"
    )]
    Version(u32),
    /// A part of it is missing, or there is more than was written.
    #[error(
        "it has {has} bytes where {of} were written: it was cut off, or something was added; use another copy"
    )]
    Length {
        /// So many there are.
        has: usize,
        /// So many there were.
        of: usize,
    },
    /// It is not what was written.
    #[error("its checksum is {has:08x} where {of:08x} was written: it is damaged; use another copy")]
    Checksum {
        /// What its bytes come to.
        has: u32,
        /// What they came to when they were written.
        of: u32,
    },
    /// It is what was written, and cannot be understood.
    #[error("its contents cannot be understood: {0}; use the version that wrote it, or a newer one")]
    Contents(String),
}

/// Why a backup could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file.
    #[error("{action} backup {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is in it.
    #[error("backup {} cannot be used: {why}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: Unusable,
    },
}

/// A snapshot in its form.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    // Strings and numbers: nothing that JSON cannot say.
    framed(&serde_json::to_vec(snapshot).unwrap_or_default())
}

/// A body behind the line that vouches for it.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{MAGIC} {VERSION} crc32 {:08x} bytes {}\n",
        crc32fast::hash(body),
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

/// What the form says, if it is whole.
///
/// # Errors
/// It is not a backup, of another version, damaged or cut off.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, Unusable> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.ok_or(Unusable::NotABackup)?);
    let body = &body[1..];
    let head = str::from_utf8(head).map_err(|_| Unusable::NotABackup)?;
    let words: Vec<_> = head.split(' ').collect();
    let [MAGIC, version, rest @ ..] = &words[..] else {
        return Err(Unusable::NotABackup);
    };
    let version = version.parse().map_err(|_| Unusable::NotABackup)?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let ["crc32", crc, "bytes", length] = rest else {
        return Err(Unusable::NotABackup);
    };
    let of = length.parse().map_err(|_| Unusable::NotABackup)?;
    if body.len() != of {
        let has = body.len();
        return Err(Unusable::Length { has, of });
    }
    let of = u32::from_str_radix(crc, 16).map_err(|_| Unusable::NotABackup)?;
    let has = crc32fast::hash(body);
    if has != of {
        return Err(Unusable::Checksum { has, of });
    }
    serde_json::from_slice(body).map_err(|error| Unusable::Contents(error.to_string()))
}

/// Reads a backup.
///
/// # Errors
/// It cannot be read, or not be used.
pub fn read(path: &Path) -> Result<Snapshot, BackupError> {
    let bytes = fs::read(path).map_err(|source| BackupError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    decode(&bytes).map_err(|why| BackupError::Unusable {
        path: path.to_owned(),
        why,
    })
}

/// Writes a backup, replacing one that is there. Durable once it has returned; what was there stays if it fails.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    write_aside(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| sync_directory(path))
        .map_err(|source| {
            // Only a leftover.
            let _ = fs::remove_file(&aside);
            BackupError::Io {
                action: "write",
                path: path.to_owned(),
                source,
            }
        })
}

fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that was left by a crash may have another mode.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(aside)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename beside this path durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            schema: 1,
            id: "ab".repeat(16),
            epoch: 12,
            runs: vec![RunJournal {
                id: "cold-start-1".to_owned(),
                entries: vec![b"{}"[..].into(), b"\xff\x00"[..].into(), b""[..].into()],
            }],
            values: vec![("node/a".to_owned(), "\u{e9}".as_bytes().into())],
        }
    }

    #[test]
    fn it_comes_back_as_it_was_and_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        for _ in 0..2 {
            write(&path, &encode(&snapshot())).unwrap();
            assert_eq!(read(&path).unwrap(), snapshot());
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a leftover");
    }

    #[test]
    fn wherever_it_is_cut_and_whichever_byte_is_changed_it_is_refused() {
        let whole = encode(&snapshot());
        for keep in 0..whole.len() {
            decode(&whole[..keep]).unwrap_err();
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x04;
            // A digit of the checksum in another case is the same digit.
            assert!(
                decode(&bad).is_err(),
                "byte {at} of {}",
                String::from_utf8_lossy(&bad)
            );
        }
        let mut more = whole.clone();
        more.push(b'\n');
        assert!(matches!(decode(&more), Err(Unusable::Length { .. })));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let whole = String::from_utf8(encode(&snapshot())).unwrap();
        let newer = whole.replace("backup 1 ", "backup 2 ");
        assert_eq!(decode(newer.as_bytes()), Err(Unusable::Version(2)));
        assert_eq!(decode(b"root:x:0:0\n"), Err(Unusable::NotABackup));
        let damaged = whole.replace("cold-start", "gold-start");
        assert!(matches!(
            decode(damaged.as_bytes()),
            Err(Unusable::Checksum { .. })
        ));
        let body = b"{\"schema\":1}";
        let foreign = format!(
            "{MAGIC} 1 crc32 {:08x} bytes {}\n",
            crc32fast::hash(body),
            body.len()
        );
        let foreign = [foreign.as_bytes(), body].concat();
        assert!(matches!(decode(&foreign), Err(Unusable::Contents(_))));
    }
}

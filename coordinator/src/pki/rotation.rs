//! One authority takes the place of another, with a time in which both are trusted.
//!
//! ```text
//!            ca.crt        ca.key   certificates are issued by      what is shown to agents is issued by
//!  before    old           old      old                             old
//!  begin ──► old, new      new      new, with both to trust         old
//!  finish ─► new           new      new                             new
//! ```
//!
//! In between every node renews, and is given both authorities to trust: whoever has renewed understands both coordinators, the one before
//! [`finish`] and the one after it. A coordinator that runs goes on with what it has read until it is started anew.
//!
//! Each step replaces a file whole, in an order in which what a crash leaves works as before, and is gone on from by doing it again.

use std::fs;
use std::io;
use std::path::Path;

use blackstart_proto::identity::PeerIdentity;
use blackstart_proto::tls::TlsFiles;

use super::seen::Trusted;
use super::{Authority, DEFAULT_DAYS, Holder, IssueOptions, PkiError, files, list};

/// The new authority's, until both are trusted.
const NEXT_CRT: &str = "ca-next.crt";
const NEXT_KEY: &str = "ca-next.key";
/// The old one's, until it is not trusted any more: nothing is issued by it.
const OLD_KEY: &str = "ca-old.key";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The digest of each authority that is trusted now, as `sha256:HEX`; the last one issues.
    pub trusted: Vec<String>,
    /// Who was given another certificate, in the same directory.
    pub issued: Vec<PeerIdentity>,
}

/// Makes a new authority beside the one in `dir`, which stays trusted. Operators whose certificates are in `dir` are given new ones;
/// coordinators too, yet by the old authority, and for as long as it may: they are to be good until [`finish`].
///
/// # Errors
/// There is no authority, two are trusted already, or a file cannot be written; then the same again goes on from there.
pub fn begin(dir: &Path) -> Result<Rotated, PkiError> {
    let old = Authority::open(dir)?;
    let trusted = old.trusted();
    // What an attempt before this one has come to.
    let next_key = dir.join(NEXT_KEY);
    if trusted.len() > 1 && !next_key.exists() {
        return Err(PkiError::Rotating(dir.to_owned()));
    }
    let next = if trusted.len() > 1 {
        fs::read_to_string(dir.join(NEXT_CRT)).map_err(|source| failed("read", dir, NEXT_CRT, source))?
    } else {
        // Both anew: one without the other is of no use.
        let (certificate, key) = Authority::generate(old.begins())?;
        files::write_certificate(&dir.join(NEXT_CRT), &certificate)?;
        files::write_key(&next_key, &key)?;
        files::sync_directory(dir)?;
        certificate
    };
    let mut issued = Vec::new();
    for coordinator in holders(dir, |peer| matches!(peer, PeerIdentity::Coordinator(_)))? {
        old.issue(&coordinator, replacing(&old))?;
        issued.push(coordinator);
    }
    if trusted.len() == 1 {
        let both = format!("{}\n{next}", old.pem().trim_end());
        files::write_certificate(&dir.join("ca.crt"), &both)?;
    }
    fs::copy(dir.join("ca.key"), dir.join(OLD_KEY)).map_err(|source| failed("keep", dir, OLD_KEY, source))?;
    fs::rename(&next_key, dir.join("ca.key")).map_err(|source| failed("write", dir, "ca.key", source))?;
    files::sync_directory(dir)?;
    gone(dir, NEXT_CRT)?;
    let new = Authority::open(dir)?;
    for operator in holders(dir, |peer| matches!(peer, PeerIdentity::Operator(_)))? {
        new.issue(&operator, replacing(&new))?;
        issued.push(operator);
    }
    Ok(Rotated {
        trusted: hashes(&new),
        issued,
    })
}

/// Has the old authority be trusted no more. Coordinators whose certificates are in `dir` are given new ones.
///
/// # Errors
/// No rotation was begun, or a file cannot be written; then the same again goes on from there.
pub fn finish(dir: &Path) -> Result<Rotated, PkiError> {
    let new = Authority::open(dir)?;
    if new.trusted().len() < 2 && !dir.join(OLD_KEY).exists() {
        return Err(PkiError::NotRotating(dir.to_owned()));
    }
    if dir.join(NEXT_KEY).exists() {
        // Broken off before anything was issued by it.
        return Err(PkiError::Rotating(dir.to_owned()));
    }
    let mut issued = Vec::new();
    for coordinator in holders(dir, |peer| matches!(peer, PeerIdentity::Coordinator(_)))? {
        new.issue(&coordinator, replacing(&new))?;
        issued.push(coordinator);
    }
    files::write_certificate(&dir.join("ca.crt"), new.own_pem())?;
    files::sync_directory(dir)?;
    gone(dir, OLD_KEY)?;
    Ok(Rotated {
        trusted: hashes(&Authority::open(dir)?),
        issued,
    })
}

fn hashes(authority: &Authority) -> Vec<String> {
    authority
        .trusted()
        .into_iter()
        .map(|trusted| trusted.hash)
        .collect()
}

/// Those of a kind who have a certificate in `dir` with its key: it is theirs who use it here.
fn holders(dir: &Path, of_kind: fn(&PeerIdentity) -> bool) -> Result<Vec<PeerIdentity>, PkiError> {
    let mut holders = Vec::new();
    for seen in list(dir)? {
        if let Holder::Peer(peer) = seen.holder
            && of_kind(&peer)
            && TlsFiles::in_dir(dir, peer.name()).certificate == seen.path
        {
            holders.push(peer);
        }
    }
    Ok(holders)
}

/// A year, or what is left of the authority.
fn replacing(authority: &Authority) -> IssueOptions {
    let left = u32::try_from(authority.days_left()).unwrap_or(1);
    IssueOptions {
        days: DEFAULT_DAYS.min(left),
        replace: true,
    }
}

fn gone(dir: &Path, name: &str) -> Result<(), PkiError> {
    match fs::remove_file(dir.join(name)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir, name, source)),
        Ok(()) | Err(_) => files::sync_directory(dir),
    }
}

fn failed(action: &'static str, dir: &Path, name: &str, source: io::Error) -> PkiError {
    PkiError::Io {
        action,
        path: dir.join(name),
        source,
    }
}

/// Which of them the key is for.
pub(super) fn issuing<'a>(trusted: &'a [Trusted], public_key: &[u8]) -> Option<&'a Trusted> {
    trusted.iter().find(|trusted| trusted.public_key == public_key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::pki::Seen;

    /// By which of the two something was issued.
    fn by(dir: &Path, name: &str) -> String {
        Seen::read(&dir.join(name)).unwrap().authority
    }

    #[test]
    fn both_are_trusted_in_between_and_nothing_is_issued_by_the_old_one_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let first = Authority::create(dir).unwrap();
        first.issue_coordinator("coordinator").unwrap();
        first.issue_operator("ann").unwrap();
        let [old] = &hashes(&first)[..] else {
            panic!("one authority")
        };
        let old_mark = by(dir, "ann.crt");
        assert!(matches!(finish(dir), Err(PkiError::NotRotating(_))));

        let begun = begin(dir).unwrap();
        assert_eq!((begun.trusted.len(), &begun.trusted[0]), (2, old));
        // Who has not renewed yet still understands the coordinator.
        assert_eq!(by(dir, "coordinator.crt"), old_mark);
        let new_mark = by(dir, "ann.crt");
        assert_ne!(new_mark, old_mark);
        Authority::open(dir).unwrap().issue_node("n1").unwrap();
        assert_eq!(by(dir, "n1.crt"), new_mark);
        for key in ["ca.key", OLD_KEY] {
            let mode = fs::metadata(dir.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        // A second one waits for the end of the first.
        assert!(matches!(begin(dir), Err(PkiError::Rotating(_))));

        let finished = finish(dir).unwrap();
        assert_eq!(finished.trusted, begun.trusted[1..]);
        assert_eq!(by(dir, "coordinator.crt"), new_mark);
        assert!(!dir.join(OLD_KEY).exists());
        assert!(matches!(finish(dir), Err(PkiError::NotRotating(_))));
        assert_eq!(begin(dir).unwrap().trusted.len(), 2);
    }

    /// What a crash leaves between any two files works, and is gone on from.
    #[test]
    fn broken_off_anywhere_it_goes_on_to_the_same_end() {
        for (left, trusted) in [("a key", 1), ("both trusted", 2)] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            Authority::create(dir)
                .unwrap()
                .issue_coordinator("coordinator")
                .unwrap();
            let old = fs::read_to_string(dir.join("ca.crt")).unwrap();
            let old_key = fs::read(dir.join("ca.key")).unwrap();
            begin(dir).unwrap();
            // As it was before the key was put in its place.
            fs::rename(dir.join("ca.key"), dir.join(NEXT_KEY)).unwrap();
            fs::write(dir.join("ca.key"), old_key).unwrap();
            let both = fs::read_to_string(dir.join("ca.crt")).unwrap();
            let next = both.strip_prefix(&old).unwrap();
            fs::write(dir.join(NEXT_CRT), next).unwrap();
            if trusted == 1 {
                fs::write(dir.join("ca.crt"), &old).unwrap();
            }
            let authority = Authority::open(dir).unwrap();
            assert_eq!(hashes(&authority).len(), trusted, "{left}");
            authority.issue_node("n1").unwrap();
            assert!(finish(dir).is_err(), "{left}");
            assert_eq!(begin(dir).unwrap().trusted.len(), 2, "{left}");
            assert!(
                !dir.join(NEXT_KEY).exists() && !dir.join(NEXT_CRT).exists(),
                "{left}"
            );
            finish(dir).unwrap();
        }
    }
}

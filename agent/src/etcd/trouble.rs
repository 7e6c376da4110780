//! Why the member did not answer, by a name that says what to look at.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use blackstart_proto::v1 as wire;
use tonic::{Code, Status};

use crate::causes::causes;
use crate::watch::certificates::read::certificates;

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No manifest of etcd is where the kubelet looks.
    NoManifest,
    /// There is one, and it does not say what is needed.
    Manifest,
    /// A certificate has expired, or is not yet valid.
    Expired,
    /// A certificate or key cannot be used.
    Certificate,
    /// Nobody listens.
    Refused,
    /// Nothing came in time.
    Silent,
    /// It answered, and not what was asked.
    Other,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    /// For people.
    pub(crate) detail: String,
}

impl Trouble {
    pub(crate) fn new(kind: Kind, detail: String) -> Self {
        Self { kind, detail }
    }

    pub(crate) fn to_wire(&self) -> wire::EtcdTrouble {
        let kind = match self.kind {
            Kind::NoManifest => wire::EtcdTroubleKind::NoManifest,
            Kind::Manifest => wire::EtcdTroubleKind::Manifest,
            Kind::Expired => wire::EtcdTroubleKind::Expired,
            Kind::Certificate => wire::EtcdTroubleKind::Certificate,
            Kind::Refused => wire::EtcdTroubleKind::Refused,
            Kind::Silent => wire::EtcdTroubleKind::Silent,
            Kind::Other => wire::EtcdTroubleKind::Other,
        };
        wire::EtcdTrouble {
            kind: kind.into(),
            detail: self.detail.clone(),
        }
    }
}

/// A connection that was not made.
pub(super) fn of_connection(url: &str, error: &(dyn Error + 'static), files: &[PathBuf]) -> Trouble {
    if is_refused(error) {
        return Trouble::new(
            Kind::Refused,
            format!("nobody listens on {url}: etcd does not run"),
        );
    }
    // Whatever words the other end found for it: an expired certificate is what is looked for first.
    if let Some(expired) = expired(files) {
        return expired;
    }
    if error.is::<tokio::time::error::Elapsed>() || has_kind(error, io::ErrorKind::TimedOut) {
        return Trouble::new(Kind::Silent, format!("{url} takes no connection in time"));
    }
    let why = causes(error);
    let kind = if why.contains("certificate") || why.contains("alert") {
        Kind::Certificate
    } else {
        Kind::Other
    };
    Trouble::new(kind, format!("connect to {url}: {why}"))
}

/// A call that was not answered with what was asked.
pub(super) fn of_status(url: &str, status: &Status, files: &[PathBuf]) -> Trouble {
    let said = causes(status);
    // TLS 1.3 refuses a client's certificate after the handshake: that is heard of here.
    if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal)
        && status.source().is_some()
    {
        if let Some(expired) = expired(files) {
            return expired;
        }
        let kind = if said.contains("alert") || said.contains("ertificate") {
            Kind::Certificate
        } else {
            Kind::Other
        };
        return Trouble::new(kind, format!("{url}: {said}"));
    }
    if status.code() == Code::DeadlineExceeded {
        return Trouble::new(Kind::Silent, format!("{url} did not answer in time"));
    }
    Trouble::new(Kind::Other, format!("{url}: {}", status.message()))
}

/// The first of these files that has a certificate whose time is over, or has not come.
pub(super) fn expired(files: &[PathBuf]) -> Option<Trouble> {
    let now = unix_seconds();
    files.iter().find_map(|path| {
        let found = certificates(path).ok()?;
        found.iter().find_map(|one| {
            let why = out_of_time(path, one.not_before, one.not_after, now)?;
            Some(Trouble::new(Kind::Expired, why))
        })
    })
}

pub(crate) fn out_of_time(path: &Path, not_before: i64, not_after: i64, now: i64) -> Option<String> {
    let at = |second| {
        jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), |at| at.to_string())
    };
    if now > not_after {
        let ago = days(now - not_after);
        return Some(format!(
            "{} has expired, at {} ({ago} ago by this node's clock)",
            path.display(),
            at(not_after)
        ));
    }
    (now < not_before).then(|| {
        format!(
            "{} is valid from {} on, and this node's clock says {}: check the clock first",
            path.display(),
            at(not_before),
            at(now)
        )
    })
}

fn days(seconds: i64) -> String {
    match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The wall clock. Certificates are measured by it, and people.
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn is_refused(error: &(dyn Error + 'static)) -> bool {
    has_kind(error, io::ErrorKind::ConnectionRefused)
}

fn has_kind(error: &(dyn Error + 'static), kind: io::ErrorKind) -> bool {
    let mut next = Some(error);
    while let Some(this) = next {
        if this
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == kind)
        {
            return true;
        }
        next = this.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_out_of_its_time_is_named_with_the_time() {
        let path = Path::new("/etc/kubernetes/pki/etcd/server.crt");
        let year = 365 * 86_400;
        let (from, to) = (1_700_000_000, 1_700_000_000 + year);
        assert_eq!(out_of_time(path, from, to, from + 5), None);
        let over = out_of_time(path, from, to, to + 3 * 86_400).unwrap();
        assert_eq!(
            over,
            "/etc/kubernetes/pki/etcd/server.crt has expired, at 2024-11-13T22:13:20Z (3 days ago by this node's clock)"
        );
        let early = out_of_time(path, from, to, from - 1).unwrap();
        assert!(early.contains("check the clock first"), "{early}");
    }

    #[test]
    fn a_refused_connection_is_told_from_one_that_broke() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let named = of_connection("https://127.0.0.1:2379", &refused, &[]);
        assert_eq!(named.kind, Kind::Refused);
        let broken = of_connection(
            "https://127.0.0.1:2379",
            &io::Error::from(io::ErrorKind::ConnectionReset),
            &[],
        );
        assert_eq!(broken.kind, Kind::Other);
    }
}

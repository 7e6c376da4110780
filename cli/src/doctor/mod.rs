//! Is this installation as it should be, and if not, what is to be done?
//!
//! ```text
//!  coordinator's answers ──► Fleet ───┐
//!  certificate in use ────────────────┼─► Observed ─► examine ─► Finding {check, level, what, fix}
//!  this machine's files ───► Machine ─┘   (values)    (pure)
//! ```
//!
//! `fleet` and `machine` each have what is looked at and the checks of it. Only [`machine::look`] reads files; every check is a function of values.

pub(crate) mod fleet;
pub(crate) mod machine;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::Serialize;

use crate::view::Certificate;

/// A certificate that nobody renews by itself is told of so long before its end, hours.
const LAST_DAYS: i64 = 30 * 24;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    /// A coordinator answers.
    Connection,
    /// Certificates and when they end.
    Certificates,
    /// One coordinator leads.
    Leader,
    /// Who runs which version.
    Versions,
    /// Every declared node is in session.
    Nodes,
    /// Every node would wait at its gate after a power loss.
    Gates,
    /// What agents find on their nodes: disks, clocks, certificates, units.
    Conditions,
    /// The coordinator's configuration and inventory.
    Configuration,
    /// The coordinator's store, and the disk that it is on.
    Store,
    /// The ways to clusters' APIs.
    Kubeconfigs,
    /// The members of the coordinators' etcd.
    Etcd,
}

impl Check {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Certificates => "certificates",
            Self::Leader => "leader",
            Self::Versions => "versions",
            Self::Nodes => "nodes",
            Self::Gates => "gates",
            Self::Conditions => "conditions",
            Self::Configuration => "configuration",
            Self::Store => "store",
            Self::Kubeconfigs => "kubeconfigs",
            Self::Etcd => "etcd",
        }
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// Something does not work, or would not after a power loss.
    Wrong,
}

impl Level {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) level: Level,
    /// Of what: a node, a file, an address; absent: of the whole.
    pub(crate) subject: Option<String>,
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: Check, what: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            subject: None,
            what: what.into(),
            fix: None,
        }
    }

    fn bad(
        check: Check,
        level: Level,
        subject: &str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check,
            level,
            subject: Some(subject.to_owned()).filter(|subject| !subject.is_empty()),
            what: what.into(),
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn warning(
        check: Check,
        subject: &str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::bad(check, Level::Warning, subject, what, fix)
    }

    pub(crate) fn wrong(
        check: Check,
        subject: &str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::bad(check, Level::Wrong, subject, what, fix)
    }
}

/// Everything that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) now: Timestamp,
    /// This command's version.
    pub(crate) version: &'static str,
    /// The operator's certificate and the authority's, as far as they can be read.
    pub(crate) own: Vec<Result<Certificate, String>>,
    /// What the fleet told; or why it could not be asked, and what to try.
    pub(crate) fleet: Result<fleet::Fleet, (String, String)>,
    /// The coordinator's files, where this is its machine.
    pub(crate) machine: Option<machine::Machine>,
}

/// Everything that there is to say, in the order of the checks; each says at least that it is in order.
pub(crate) fn examine(seen: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &seen.fleet {
        Ok(fleet) => {
            findings.push(Finding::ok(
                Check::Connection,
                format!("{} answers", fleet.address),
            ));
            findings.extend(own_certificates(seen));
            findings.extend(fleet::examine(fleet, seen.version, seen.now));
        }
        Err((what, fix)) => {
            findings.push(Finding::wrong(Check::Connection, "", what, fix));
            findings.extend(own_certificates(seen));
        }
    }
    if let Some(machine) = &seen.machine {
        findings.extend(machine::examine(machine, seen.now));
    }
    findings
}

fn own_certificates(seen: &Observed) -> Vec<Finding> {
    let found: Vec<_> = seen
        .own
        .iter()
        .filter_map(|certificate| match certificate {
            Ok(certificate) => ends_soon(certificate, seen.now),
            Err(why) => Some(Finding::wrong(
                Check::Certificates,
                "",
                why,
                "name files that can be read: blackstart get --help shows how",
            )),
        })
        .collect();
    if found.is_empty() && !seen.own.is_empty() {
        return vec![Finding::ok(Check::Certificates, "yours is valid")];
    }
    found
}

/// A certificate that has ended, or will before anybody thinks of it.
fn ends_soon(certificate: &Certificate, now: Timestamp) -> Option<Finding> {
    let left = (certificate.ends_at.as_second() - now.as_second()).div_euclid(3600);
    let (role, day) = (
        certificate.role.unwrap_or("certificate"),
        certificate.ends_at.strftime("%Y-%m-%d"),
    );
    let fix = match role {
        "authority" => {
            "make a new authority, and have every node join anew, before it ends: docs/install.md".to_owned()
        }
        "operator" if left >= 0 => {
            "blackstart certificate renew, as whoever it is of (where the coordinator issues none: blackstart pki issue operator NAME --force)".to_owned()
        }
        role => format!(
            "where ca.key is: blackstart pki issue {role} {} --force; then restart who uses it",
            certificate.name.as_deref().unwrap_or("NAME")
        ),
    };
    if left < 0 {
        let what = format!("the {role}'s certificate has ended on {day}");
        return Some(Finding::wrong(
            Check::Certificates,
            &certificate.file,
            what,
            format!("if the clock is right, {fix}"),
        ));
    }
    (left < LAST_DAYS).then(|| {
        let what = format!("the {role}'s certificate ends on {day}");
        Finding::warning(Check::Certificates, &certificate.file, what, fix)
    })
}

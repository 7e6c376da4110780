//! [`Signal::Certificates`] → `CertificateExpiring` and `CertificateExpired`. Pure.
//!
//! Each file for itself, by the first of its certificates to expire. A renewed certificate clears it at the next look, and so does a file that
//! is gone. One that cannot be read, or lies where nothing can be seen, neither raises nor clears anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::signal::{Certificate, Signal};

const DAY: i64 = 24 * 3600;

/// All files with certificates that end soon.
#[derive(Debug, Clone)]
pub struct Certificates {
    expires_within: Duration,
    standing: BTreeMap<PathBuf, Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    kind: ConditionKind,
    since: Instant,
    evidence: String,
}

impl Certificates {
    /// Nothing seen yet.
    pub const fn new(expires_within: Duration) -> Self {
        Self {
            expires_within,
            standing: BTreeMap::new(),
        }
    }

    /// Judges by another time from the next look on.
    pub fn retune(&mut self, expires_within: Duration) {
        self.expires_within = expires_within;
    }

    /// Takes in what was seen at `now`. Signals of other kinds are no matter.
    pub fn observe(&mut self, signal: &Signal, now: Instant) {
        let Signal::Certificates(seen) = signal else {
            return;
        };
        let mut before = std::mem::take(&mut self.standing);
        for file in &seen.files {
            let last = before.remove(&file.path);
            let ending =
                match &file.content {
                    Ok(certificates) => judge(certificates, self.expires_within, seen.now, seen.kept).map(
                        |(kind, evidence)| Ending {
                            kind,
                            since: last
                                .filter(|last| last.kind == kind)
                                .map_or(now, |last| last.since),
                            evidence,
                        },
                    ),
                    Err(_) => last,
                };
            if let Some(ending) = ending {
                self.standing.insert(file.path.clone(), ending);
            }
        }
        let hidden = |path: &PathBuf| seen.unseen.iter().any(|directory| path.starts_with(directory));
        self.standing
            .extend(before.into_iter().filter(|(path, _)| hidden(path)));
    }

    /// What stands, in the order of the paths.
    pub fn conditions(&self) -> Vec<Condition> {
        self.standing
            .iter()
            .map(|(path, ending)| Condition {
                key: ConditionKey {
                    kind: ending.kind,
                    subject: path.display().to_string(),
                },
                severity: if ending.kind == ConditionKind::CertificateExpired {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                since: ending.since,
                evidence: ending.evidence.clone(),
                escalated: true,
                log: None,
                heaviest: Vec::new(),
            })
            .collect()
    }
}

/// What is to be told of a file with these certificates at the time `now`, which a time service keeps or does not; `None` when nothing.
pub(crate) fn judge(
    certificates: &[Certificate],
    within: Duration,
    now: Duration,
    kept: bool,
) -> Option<(ConditionKind, String)> {
    let first = certificates
        .iter()
        .min_by_key(|certificate| certificate.not_after)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let left = first.not_after.saturating_sub(now);
    let doubt = if kept {
        ""
    } else {
        ", by a clock that no time service keeps"
    };
    let until = Timestamp::from_second(first.not_after)
        .map_or_else(|_| first.not_after.to_string(), |time| time.to_string());
    let subject = &first.subject;
    if left <= 0 {
        let evidence = format!("{subject} expired {} ago ({until}){doubt}", rough(-left));
        Some((ConditionKind::CertificateExpired, evidence))
    } else if left.unsigned_abs() <= within.as_secs() {
        let evidence = format!("{subject} expires in {} ({until}){doubt}", rough(left));
        Some((ConditionKind::CertificateExpiring, evidence))
    } else {
        None
    }
}

/// So that the words do not change at every look.
fn rough(seconds: i64) -> String {
    if seconds >= DAY {
        format!("{} d", seconds / DAY)
    } else {
        format!("{} h", seconds / 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{CertificateFile, CertificatesSignal};

    const NOW: i64 = 1_790_000_000;

    fn seen(files: &[(&str, Result<&[i64], &str>)], unseen: &[&str]) -> Signal {
        let file = |(path, content): &(&str, Result<&[i64], &str>)| CertificateFile {
            path: path.into(),
            content: content.map_err(str::to_owned).map(|days| {
                days.iter()
                    .map(|days| Certificate {
                        subject: "CN=a".to_owned(),
                        not_before: 0,
                        not_after: NOW + days * DAY,
                    })
                    .collect()
            }),
        };
        Signal::Certificates(CertificatesSignal {
            now: Duration::from_secs(NOW.unsigned_abs()),
            kept: true,
            files: files.iter().map(file).collect(),
            unseen: unseen.iter().map(PathBuf::from).collect(),
        })
    }

    fn standing(certificates: &Certificates) -> Vec<(ConditionKind, String)> {
        let of = |condition: Condition| (condition.key.kind, condition.key.subject);
        certificates.conditions().into_iter().map(of).collect()
    }

    #[test]
    fn the_first_to_expire_of_a_file_is_told_until_it_is_renewed_or_gone() {
        let now = Instant::now();
        let mut certificates = Certificates::new(Duration::from_hours(30 * 24));
        certificates.observe(
            &seen(&[("/a", Ok(&[400, 29])), ("/b", Ok(&[31])), ("/k", Ok(&[]))], &[]),
            now,
        );
        assert_eq!(
            standing(&certificates),
            [(ConditionKind::CertificateExpiring, "/a".to_owned())]
        );
        let evidence = &certificates.conditions()[0].evidence;
        assert!(evidence.starts_with("CN=a expires in 29 d (2026-"), "{evidence}");

        certificates.observe(&seen(&[("/a", Ok(&[400, -3])), ("/b", Ok(&[30]))], &[]), now);
        assert_eq!(
            standing(&certificates),
            [
                (ConditionKind::CertificateExpired, "/a".to_owned()),
                (ConditionKind::CertificateExpiring, "/b".to_owned()),
            ]
        );
        assert!(certificates.conditions()[0].evidence.contains("expired 3 d ago"));
        certificates.observe(&seen(&[("/a", Ok(&[400, 365]))], &[]), now);
        assert!(standing(&certificates).is_empty());
    }

    #[test]
    fn what_cannot_be_seen_neither_raises_nor_clears() {
        let now = Instant::now();
        let mut certificates = Certificates::new(Duration::from_hours(24));
        certificates.observe(&seen(&[("/p/a", Err("torn"))], &[]), now);
        assert!(standing(&certificates).is_empty());
        certificates.observe(&seen(&[("/p/a", Ok(&[-1])), ("/q/b", Ok(&[-1]))], &[]), now);
        let before = certificates.conditions();
        let later = now + Duration::from_mins(1);
        certificates.observe(&seen(&[("/p/a", Err("torn"))], &["/q"]), later);
        assert_eq!(certificates.conditions(), before);
        certificates.observe(&seen(&[("/p/a", Err("torn"))], &[]), later);
        assert_eq!(standing(&certificates).len(), 1);
    }
}

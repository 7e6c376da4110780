//! Everything that must hold before a kubelet may start, each as a named finding: for people on a node that does not come back.
//!
//! | module | looks at |
//! |---|---|
//! | `clock` | wall clock against the clock floor, time service |
//! | `certificates` | every file under the configured globs, and the agent's own |
//! | `storage` | bytes, inodes and read-only mounts; etcd's data on masters |
//! | `runtime` | the container runtime's socket |
//!
//! It only looks, and needs no running agent: a node on which the agent itself cannot run is the one that is asked about.

mod certificates;
mod clock;
mod runtime;
mod storage;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::host::Host;
use crate::watch::clock::Clocks;

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it must be.
    Ok,
    /// A kubelet may start; somebody should look.
    Warning,
    /// A kubelet would not start, or would do harm.
    Blocker,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub check: String,
    /// Of what: a path, a mount point; empty where there is only one.
    pub subject: String,
    /// How it stands.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do; empty when nothing.
    pub advice: String,
}

impl Finding {
    fn ok(check: &str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            subject: subject.into(),
            state: State::Ok,
            detail: detail.into(),
            advice: String::new(),
        }
    }

    fn warning(check: &str, subject: impl Into<String>, detail: impl Into<String>, advice: &str) -> Self {
        Self {
            state: State::Warning,
            advice: advice.to_owned(),
            ..Self::ok(check, subject, detail)
        }
    }

    fn blocker(check: &str, subject: impl Into<String>, detail: impl Into<String>, advice: &str) -> Self {
        Self {
            state: State::Blocker,
            ..Self::warning(check, subject, detail, advice)
        }
    }
}

/// Looks at everything. Disks that hang hang it: for a thread that may block, with a deadline.
pub fn check<H: Host>(settings: &Settings, host: &H) -> Vec<Finding> {
    let clocks = host
        .machine()
        .map_or_else(Clocks::read, |machine| (machine.clocks)());
    let mut findings = clock::check(settings, clocks);
    findings.extend(certificates::check(settings, clocks));
    findings.extend(storage::check(settings, host));
    findings.extend(runtime::check(settings));
    findings
}

/// A kubelet should not be started.
pub fn blocked(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Blocker)
}

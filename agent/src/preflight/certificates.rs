//! Every certificate that a node's way back needs.

use jiff::Timestamp;

use super::Finding;
use crate::condition::ConditionKind;
use crate::config::Settings;
use crate::diagnose::certificates;
use crate::signal::{Certificate, CertificateFile};
use crate::watch::certificates::find::Finder;
use crate::watch::certificates::{read, trusted};
use crate::watch::clock::Clocks;

const CHECK: &str = "certificate";
const RENEW: &str = "blackstart-agent explain CertificateExpired";

pub(super) fn check(settings: &Settings, clocks: Clocks) -> Vec<Finding> {
    let finder = match Finder::new(&settings.certificates()) {
        Ok(finder) => finder,
        Err(error) => {
            let detail = format!("the globs cannot be used: {error}");
            return vec![Finding::warning(CHECK, "", detail, "mend preflight.certificates")];
        }
    };
    let found = finder.find();
    let mut findings: Vec<_> = found
        .unseen
        .iter()
        .map(|directory| {
            Finding::warning(
                CHECK,
                directory.display().to_string(),
                "the directory cannot be read",
                "run it as root",
            )
        })
        .collect();
    let mut whole = 0;
    for path in found.files {
        let file = CertificateFile {
            content: read::certificates(&path),
            path,
        };
        match one(settings, &file, clocks) {
            Some(finding) => findings.push(finding),
            None => whole += 1,
        }
    }
    let files = match whole {
        0 => "no other certificate under the configured globs".to_owned(),
        1 => "one file is fine".to_owned(),
        _ => format!("{whole} files are fine"),
    };
    findings.push(Finding::ok(CHECK, "", files));
    findings
}

/// `None` for a file that is fine.
fn one(settings: &Settings, file: &CertificateFile, clocks: Clocks) -> Option<Finding> {
    let subject = file.path.display().to_string();
    // The kubelet does without the agent's own.
    let own = settings
        .coordinator
        .as_ref()
        .is_some_and(|coordinator| [&coordinator.tls.ca, &coordinator.tls.certificate].contains(&&file.path));
    let bad = |detail: String, advice: &str| {
        if own {
            Finding::warning(CHECK, subject.clone(), detail, advice)
        } else {
            Finding::blocker(CHECK, subject.clone(), detail, advice)
        }
    };
    let certificates = match &file.content {
        Ok(certificates) => certificates,
        Err(why) => {
            let advice = "restore it from a backup, or from another master";
            return Some(bad(why.clone(), advice));
        }
    };
    // Who asks for it looks at the wall clock alone.
    let wall = i64::try_from(clocks.wall.as_secs()).unwrap_or(i64::MAX);
    if let Some(later) = certificates
        .iter()
        .find(|certificate| certificate.not_before > wall)
    {
        return Some(bad(not_yet(later), "look at the clock"));
    }
    let now = trusted(&settings.state_dir, clocks);
    let kept = clocks.synchronised == Some(true);
    let within = settings.preflight.expires_within;
    let (kind, detail) = certificates::judge(certificates, within, now, kept)?;
    Some(if kind == ConditionKind::CertificateExpired {
        bad(detail, RENEW)
    } else {
        Finding::warning(CHECK, subject.clone(), detail, RENEW)
    })
}

fn not_yet(certificate: &Certificate) -> String {
    let from = Timestamp::from_second(certificate.not_before)
        .map_or_else(|_| certificate.not_before.to_string(), |time| time.to_string());
    format!("{} is not valid before {from}", certificate.subject)
}

//! Which etcd a drill runs: one that is installed, or the double in this program.

use std::path::{Path, PathBuf};

use super::double;
use super::report::EtcdReport;
use crate::failure::Failure;

/// Which etcd is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    /// One that is installed.
    Real(PathBuf),
    /// The one in this program.
    Double,
}

/// Where packages put it.
pub(super) const INSTALLED: &str = "/usr/bin/etcd";
/// How `--etcd` names the one in this program.
const DOUBLE: &str = "double";

impl Which {
    /// What was asked for; otherwise the one that is `installed`, if it is.
    pub(super) fn choose(asked: Option<PathBuf>, installed: &Path) -> Result<Self, Failure> {
        let is_whole = |program: &Path| {
            let mut tools = ["etcdutl", "etcdctl"]
                .map(|tool| program.with_file_name(tool))
                .into_iter();
            program.exists() && tools.any(|tool| tool.exists())
        };
        match asked {
            Some(asked) if asked.as_os_str() == DOUBLE => Ok(Self::Double),
            Some(asked) if is_whole(&asked) => Ok(Self::Real(asked)),
            Some(asked) => Err(Failure::Other {
                what: format!(
                    "there is no {} with an etcdutl or etcdctl beside it",
                    asked.display()
                ),
                advice: Some(format!("{INSTALL}, or --etcd PROGRAM, or --etcd {DOUBLE}")),
            }),
            None if is_whole(installed) => Ok(Self::Real(installed.to_owned())),
            None => Ok(Self::Double),
        }
    }

    /// For the report.
    pub(super) fn told(&self) -> EtcdReport {
        match self {
            Self::Real(program) => EtcdReport {
                program: Some(program.clone()),
                double_of: None,
                note: None,
            },
            Self::Double => EtcdReport {
                program: None,
                double_of: Some(double::VERSION),
                note: self.note(),
            },
        }
    }

    /// What is to be known of it, where that is not a real one.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::Real(_) => None,
            Self::Double => Some(format!(
                "a double of etcd, which plays {}, stands for the real one; {INSTALL}, and the drill runs that",
                double::VERSION
            )),
        }
    }
}

/// How a real one is had.
pub(super) const INSTALL: &str = "apt-get install etcd-server etcd-client";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_etcd_is_taken_where_there_is_one_and_the_double_where_there_is_none_or_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let there = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let etcd = there("etcd");
        let choose = |asked: Option<&str>| Which::choose(asked.map(PathBuf::from), &etcd);
        assert_eq!(choose(None).unwrap(), Which::Double, "its tool is missing");
        there("etcdctl");
        assert_eq!(choose(None).unwrap(), Which::Real(etcd.clone()));
        assert_eq!(choose(Some("double")).unwrap(), Which::Double);
        let Err(Failure::Other { what, advice }) = choose(Some("/nowhere/etcd")) else {
            panic!("what was asked for is not replaced by something else");
        };
        assert!(what.contains("/nowhere/etcd") && advice.unwrap().contains("--etcd double"));
        assert!(Which::Real(etcd.clone()).note().is_none());
        let note = Which::Double.note().unwrap();
        assert!(
            note.contains(double::VERSION) && note.contains("apt-get install"),
            "{note}"
        );
    }
}

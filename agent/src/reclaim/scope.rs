//! Which files may be touched: the configured globs, less what is protected.
//!
//! A path is judged by its real name (no symlink in it). An administrator may have made the fixed part of a glob a
//! symlink (`/var/log` → `/data/log`): that part is resolved once, here. Anything below it that is a symlink is not
//! followed, since a log directory often belongs to the application whose log it is.

use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::config::LogSettings;

/// Whether a path may be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Allowed,
    /// No glob names it.
    Outside,
    /// It is on the protect list.
    Protected,
}

/// The configured globs, compiled.
#[derive(Debug, Clone)]
pub struct Scope {
    globs: Vec<String>,
    allowed: GlobSet,
    protected: GlobSet,
}

impl Scope {
    /// Compiles the globs, and resolves their fixed parts on this machine.
    ///
    /// # Errors
    /// A glob is malformed, or they are too many to compile.
    pub fn new(settings: &LogSettings) -> Result<Self, globset::Error> {
        let mut globs = Vec::new();
        for glob in &settings.globs {
            let (prefix, rest) = split(glob);
            if let Ok(real) = fs::canonicalize(&prefix)
                && real != prefix
                && let Some(real) = real.to_str()
            {
                globs.push(format!("{}/{rest}", globset::escape(real).trim_end_matches('/')));
            }
            globs.push(glob.clone());
        }
        Ok(Self {
            allowed: compile(&globs)?,
            protected: compile(&settings.protect)?,
            globs,
        })
    }

    /// Whether `path`, free of symlinks, may be touched.
    pub fn permits(&self, path: &Path) -> Permit {
        if self.protected.is_match(path) {
            Permit::Protected
        } else if self.allowed.is_match(path) {
            Permit::Allowed
        } else {
            Permit::Outside
        }
    }

    /// Each glob as its fixed directory and the components below it.
    pub(crate) fn walks(&self) -> impl Iterator<Item = (PathBuf, String)> {
        self.globs.iter().map(|glob| split(glob))
    }
}

/// Compiles one glob; `*` and `?` stay within one directory.
pub(crate) fn glob(text: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).build()
}

fn compile(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for text in globs {
        set.add(glob(text)?);
    }
    set.build()
}

/// The directories before the first component with a wildcard, and the rest. A glob without any wildcard is split
/// before its last component.
pub(crate) fn split(glob: &str) -> (PathBuf, String) {
    let components: Vec<_> = glob.split('/').filter(|part| !part.is_empty()).collect();
    let fixed = components
        .iter()
        .position(|part| part.contains(['*', '?', '[', '{', '\\']))
        .unwrap_or(components.len())
        .min(components.len().saturating_sub(1));
    let prefix = Path::new("/").join(components[..fixed].join("/"));
    (prefix, components[fixed..].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(globs: &[&str]) -> Scope {
        Scope::new(&LogSettings {
            globs: globs.iter().map(|glob| (*glob).to_owned()).collect(),
            ..LogSettings::default()
        })
        .unwrap()
    }

    #[test]
    fn defaults_take_logs_and_leave_what_is_no_log() {
        let scope = Scope::new(&LogSettings::default()).unwrap();
        for (path, permit) in [
            ("/var/log/syslog", Permit::Allowed),
            ("/var/log/pods/a_b_c/app/0.log", Permit::Allowed),
            ("/var/lib/docker/containers/0f/0f-json.log", Permit::Allowed),
            ("/usr/local/tomcat/logs/catalina.out", Permit::Allowed),
            ("/var/log/journal/0f/system.journal", Permit::Protected),
            ("/var/log/wtmp", Permit::Protected),
            ("/var/log/app/state.db", Permit::Protected),
            ("/var/log/syslog.2.gz", Permit::Protected),
            ("/var/lib/etcd/member/wal/0.wal", Permit::Outside),
            ("/opt/a/b/logs/x", Permit::Outside),
            ("/etc/shadow", Permit::Outside),
        ] {
            assert_eq!(scope.permits(Path::new(path)), permit, "{path}");
        }
    }

    #[test]
    fn the_fixed_part_may_be_an_administrators_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("data")).unwrap();
        std::os::unix::fs::symlink(real.join("data"), real.join("log")).unwrap();
        let scope = scope(&[real.join("log/*.log").to_str().unwrap()]);
        assert_eq!(scope.permits(&real.join("data/a.log")), Permit::Allowed);
        assert_eq!(scope.permits(&real.join("data/deep/a.log")), Permit::Outside);
    }

    #[test]
    fn splits_before_the_first_wildcard() {
        assert_eq!(split("/opt/*/logs/*"), ("/opt".into(), "*/logs/*".into()));
        assert_eq!(split("/var/log/**"), ("/var/log".into(), "**".into()));
        assert_eq!(split("/var/log/app.log"), ("/var/log".into(), "app.log".into()));
        assert_eq!(split("/*.log"), ("/".into(), "*.log".into()));
    }
}

//! etcd's own tool, `etcdutl` or before 3.5 `etcdctl`: its version, what it says of a database, and a restore. Typed arguments, never a shell.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

/// A tool tells its version and its flags at once.
pub(super) const TELLS: Duration = Duration::from_secs(10);
/// It reads every page of a database, 8 GiB at the most.
const READS: Duration = Duration::from_mins(5);
/// What is kept of a tool's words, bytes.
const WORDS: usize = 600;

/// The first tool that is there and of this version.
pub(super) async fn of_version(version: &str, tools: &[PathBuf]) -> Result<PathBuf, String> {
    let mut seen = Vec::new();
    for tool in tools {
        if !tool.exists() {
            continue;
        }
        let told = words(tool, &["version"], TELLS).await.unwrap_or_default();
        let its = told
            .lines()
            .find_map(|line| line.split_once("version: "))
            .map(|(_, its)| its.trim());
        match its {
            Some(its) if same_minor(its, version) => return Ok(tool.clone()),
            its => seen.push(format!(
                "{} is {}",
                tool.display(),
                its.unwrap_or("of no version that it tells")
            )),
        }
    }
    Err(format!(
        "no tool of etcd {version} is on this node (etcd.tools): {}; nothing was changed",
        if seen.is_empty() {
            "none is there".to_owned()
        } else {
            seen.join(", ")
        }
    ))
}

/// `3.5.16` and `3.5.9` read each other's files.
fn same_minor(one: &str, other: &str) -> bool {
    let minor = |version: &str| {
        let mut parts = version.split('.').map(str::to_owned);
        Some((parts.next()?, parts.next()?))
    };
    minor(one).is_some() && minor(one) == minor(other)
}

#[derive(Debug, Deserialize)]
struct Said {
    revision: i64,
}

/// The revision of a database that nobody writes to, after a check of all its pages (`bbolt`'s `Check`; values have no checksums in it).
///
/// # Errors
/// It is damaged, or no tool is there that can tell.
pub(super) async fn revision(database: &Path, tools: &[PathBuf]) -> Result<i64, String> {
    let file = database.display().to_string();
    let mut why = "no tool of etcd is on this node (etcd.tools), so nobody can tell what is in it".to_owned();
    for tool in tools.iter().filter(|tool| tool.exists()) {
        match words(tool, &["snapshot", "status", &file, "-w", "json"], READS).await {
            Ok(said) => {
                let json = said
                    .lines()
                    .find_map(|line| serde_json::from_str::<Said>(line).ok());
                // A revision of 0 is that of a database in which nothing was ever written.
                match json {
                    Some(said) if said.revision > 0 => return Ok(said.revision),
                    Some(_) => "it is empty".clone_into(&mut why),
                    None => why = format!("{} does not tell its revision", tool.display()),
                }
            }
            Err(failed) => why = failed,
        }
    }
    Err(why)
}

/// What a tool says, if it succeeds.
pub(super) async fn words(tool: &Path, arguments: &[&str], within: Duration) -> Result<String, String> {
    let mut command = Command::new(tool);
    command
        .args(arguments)
        .env_clear()
        // etcdctl 3.4 and newer need nothing of it, older ones do.
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let name = tool.display();
    match timeout(within, command.output()).await {
        Ok(Ok(said)) if said.status.success() => {
            let out = String::from_utf8_lossy(&said.stdout);
            Ok(format!("{out}{}", String::from_utf8_lossy(&said.stderr)))
        }
        Ok(Ok(said)) => {
            let why = String::from_utf8_lossy(&said.stderr);
            let why = &why[..why.floor_char_boundary(WORDS)];
            Err(format!("{name} failed ({}): {}", said.status, why.trim()))
        }
        Ok(Err(error)) => Err(format!("start {name}: {error}")),
        Err(_) => Err(format!("{name} did not end within {} s", within.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_of_the_same_minor_version_will_do() {
        assert!(same_minor("3.5.16", "3.5.9"));
        assert!(!same_minor("3.4.23", "3.5.9"));
        assert!(!same_minor("", ""));
    }

    #[tokio::test]
    async fn without_a_tool_of_its_version_it_is_said_which_there_are() {
        let none = of_version("3.5.16", &["/nowhere/etcdutl".into(), "/bin/true".into()]).await;
        let why = none.unwrap_err();
        assert!(
            why.contains("/bin/true is of no version") && !why.contains("nowhere"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn a_database_of_which_no_tool_tells_is_no_source() {
        let database = Path::new("/nowhere/db");
        assert!(revision(database, &[]).await.unwrap_err().contains("etcd.tools"));
        let silent = revision(database, &["/bin/true".into()]).await.unwrap_err();
        assert!(silent.contains("does not tell"), "{silent}");
        assert!(revision(database, &["/bin/false".into()]).await.is_err());
    }
}

//! Makes a cluster of one out of the data on this node, with etcd's own tool of the same version.
//!
//! ```text
//!  manifest out ─► nobody holds the database ─► copy of DATA/member/snap/db ──tool, typed arguments──► DATA/restored.RUN
//!              ─► DATA/member ──rename──► DATA/member.set-aside.RUN ─► DATA/restored.RUN/member ──rename──► DATA/member ─► the new manifest in
//! ```
//! The tool works on a copy, and the old data stays as it was: it is only renamed. The revision is raised and what is older marked as compacted
//! where the tool can do that, so that nobody who watches goes on from a revision that is another one now (etcd 3.6 recovery guide; issue
//! 16028). The copy has no hash at its end, so the tool is told not to look for one: it is the file of a member that has ended in order.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::act::EtcdRules;
use super::look::{Found, manifest};
use super::pod::joining;
use super::snapshot::room;
use super::ways::{Ways, gone, off, rename, sync, write_new};

/// A restore reads and writes the whole database, 8 GiB at the most.
const RESTORES: Duration = Duration::from_mins(20);
/// A tool tells its version and its flags at once.
const TELLS: Duration = Duration::from_secs(10);
/// So far ahead of all that clients have ever seen: etcd's own advice (recovery guide of 3.6).
const BUMP: &str = "1000000000";
/// What is kept of a tool's words, bytes.
const WORDS: usize = 600;

/// See the module.
pub(super) async fn restore(run: &str, version: &str, rules: &EtcdRules) -> Result<String, String> {
    let ways = Ways::of(run, &rules.places)?;
    let tool = tool(version, &rules.etcd.tools).await?;
    let at = ways.clone();
    let Some((found, cluster)) = off(move || prepare(&at)).await? else {
        return Ok("the data was restored, and its manifest is in place, already".to_owned());
    };
    gone(&found.pod, Instant::now(), rules)
        .await
        .map_err(|why| format!("{why}; its manifest stays out, in {}", ways.kept.display()))?;
    let data = found.pod.data_dir.clone();
    let restored = data.join(format!("restored.{run}"));
    let aside = ways.aside(&data);
    // After a crash between the two renames the tool's work is done.
    let (is_aside, at) = (aside.clone(), restored.clone());
    let is_made = off(move || Ok(is_aside.exists() && at.join("member").exists())).await?;
    if !is_made {
        let (from, to) = (data.join("member/snap/db"), data.join(format!("copy.{run}.db")));
        let (copy, old) = (to.clone(), restored.clone());
        off(move || duplicate(&from, &copy, &old)).await?;
        run_tool(&tool, &to, &restored, &found, &cluster).await?;
    }
    off(move || finish(&ways, &found, &aside, &restored, &tool)).await
}

/// Where the manifest is, and the list of members that it gets; `None`: all is done.
fn prepare(ways: &Ways) -> Result<Option<(Found, String)>, String> {
    let (old, here) = (manifest(&ways.kept), manifest(&ways.manifests));
    let (found, is_out) = match (old, here) {
        (Ok(old), Err(_)) => (old, true),
        (Ok(old), Ok(_)) if ways.aside(&old.pod.data_dir).exists() => return Ok(None),
        (Ok(_), Ok(here)) => {
            return Err(format!(
                "{} is in place and was out: somebody else has put it there",
                here.file
            ));
        }
        (Err(_), Ok(here)) => (here, false),
        (Err(_), Err(trouble)) => return Err(trouble.to_string()),
    };
    let pod = &found.pod;
    let urls: Vec<_> = pod
        .peer_urls
        .iter()
        .map(|url| format!("{}={url}", pod.name))
        .collect();
    let cluster = urls.join(",");
    let after = joining(&found.text, &cluster)?;
    let data = &pod.data_dir;
    let database = data.join("member/snap/db");
    let size = fs::metadata(&database)
        .or_else(|_| fs::metadata(ways.aside(data).join("snap/db")))
        .map_err(|error| format!("look at {}: {error}; nothing was changed", database.display()))?;
    let (free, needed) = (
        room(data).map_err(|error| format!("look at {}: {error}", data.display()))?,
        size.len().saturating_mul(3),
    );
    if free < needed {
        return Err(format!(
            "{} has {} MiB left, and a copy and what is restored need {} MiB; nothing was changed",
            data.display(),
            free >> 20,
            needed >> 20
        ));
    }
    ways.make()?;
    let next = ways.next.join(&found.file);
    write_new(&next, &after).map_err(|error| format!("write {}: {error}", next.display()))?;
    if !is_out {
        ways.take_out(&found.file)?;
    }
    Ok(Some((found, cluster)))
}

/// The tool works on a copy. What an earlier attempt has made of it is not known to be whole.
fn duplicate(from: &Path, to: &Path, restored: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("copy {} to {}: {error}", from.display(), to.display());
    fs::copy(from, to).map_err(failed)?;
    File::open(to).and_then(|file| file.sync_all()).map_err(failed)?;
    match fs::remove_dir_all(restored) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", restored.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The first tool that is there and of this version.
async fn tool(version: &str, tools: &[PathBuf]) -> Result<PathBuf, String> {
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

async fn run_tool(
    tool: &Path,
    copy: &Path,
    restored: &Path,
    found: &Found,
    cluster: &str,
) -> Result<(), String> {
    let help = words(tool, &["snapshot", "restore", "--help"], TELLS)
        .await
        .unwrap_or_default();
    let text = |path: &Path| path.display().to_string();
    let (copy, restored) = (text(copy), text(restored));
    let token = format!("blackstart-{:016x}", rand::random::<u64>());
    let urls = found.pod.peer_urls.join(",");
    let mut arguments = vec![
        "snapshot",
        "restore",
        &copy,
        "--skip-hash-check",
        "--name",
        &found.pod.name,
        "--initial-cluster",
        cluster,
        "--initial-cluster-token",
        &token,
        "--initial-advertise-peer-urls",
        &urls,
        "--data-dir",
        &restored,
    ];
    if help.contains("--bump-revision") && help.contains("--mark-compacted") {
        arguments.extend(["--bump-revision", BUMP, "--mark-compacted"]);
    }
    words(tool, &arguments, RESTORES).await.map(drop)
}

/// What a tool says, if it succeeds.
async fn words(tool: &Path, arguments: &[&str], within: Duration) -> Result<String, String> {
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

fn finish(ways: &Ways, found: &Found, aside: &Path, restored: &Path, tool: &Path) -> Result<String, String> {
    let data = &found.pod.data_dir;
    let member = data.join("member");
    let moved = |from: &Path, to: &Path| {
        rename(from, to)
            .and_then(|()| sync(data))
            .map_err(|error| format!("rename {} to {}: {error}", from.display(), to.display()))
    };
    if !aside.exists() {
        moved(&member, aside)?;
    }
    if restored.join("member").exists() {
        moved(&restored.join("member"), &member)?;
    }
    let to = ways.put_in(&found.file)?;
    // Both are ours, and of no more use.
    let _left = fs::remove_dir(restored);
    let _left = fs::remove_file(data.join(format!("copy.{}.db", ways.run)));
    Ok(format!(
        "restored with {}; the old data is kept as {}, the old manifest in {}; {} is written anew",
        tool.display(),
        aside.display(),
        ways.kept.display(),
        to.display()
    ))
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
        let none = tool("3.5.16", &["/nowhere/etcdutl".into(), "/bin/true".into()]).await;
        let why = none.unwrap_err();
        assert!(
            why.contains("/bin/true is of no version") && !why.contains("nowhere"),
            "{why}"
        );
    }
}

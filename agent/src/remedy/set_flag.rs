//! `SetFlag`: a static pod's manifest with another value of one flag. The pod is bounced, and comes back with the new one; where it is not well
//! with it, it is bounced once more and comes back with the old one.
//!
//! ```text
//!  text ──with_flag──► next ─┐                       ┌─ well ──► done; the old one is kept
//!  the old one kept ─────────┴► out ─► gone ─► next ─┤
//!                                                    └─ not ───► out ─► gone ─► the old one
//! ```
//! What is kept lies in `blackstart-edits/RUN` beside `static_pods.held`, and is never written over: a second run does not lose what the first
//! has kept.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::bounce_static_pod::{BounceError, BounceRules, bounce_with};
use crate::control_plane::pod::{CommandLine, with_flag};
use crate::control_plane::{Act, Change};
use crate::watch::static_pods::directory;
use crate::watch::static_pods::manifest::is_pod_name;

/// Beside `static_pods.held`.
const DIR: &str = "blackstart-edits";

/// Does it and verifies it; what was done.
///
/// # Errors
/// Why not, and what stands now: for people.
pub(crate) async fn set_flag(change: &Change, rules: &BounceRules) -> Result<String, String> {
    let Act::SetFlag { flag, from, to } = &change.act else {
        return Err("it names no flag".to_owned());
    };
    if flag.part() != change.part {
        return Err(format!("--{} is not of {}", flag.as_str(), change.part));
    }
    write_flag(
        &change.run_id,
        change.part.pod(),
        (flag.as_str(), from, to),
        rules,
    )
    .await
}

/// The same, of any static pod: a flag, its value as it is, and as it is to be.
///
/// # Errors
/// Why not, and what stands now: for people.
pub(crate) async fn write_flag(
    run: &str,
    pod: &str,
    (flag, from, to): (&str, &str, &str),
    rules: &BounceRules,
) -> Result<String, String> {
    // The name becomes a path.
    if !is_pod_name(run) {
        return Err(format!("{run:?} is no name of a run"));
    }
    let subject = rules.find(pod).await.map_err(|error| error.to_string())?;
    let (manifests, file) = (rules.places.manifests.clone(), subject.file.clone());
    let text = off(move || directory::text(&manifests, &file)).await?;
    let now = CommandLine::parse(&text)?.flag(flag).map(str::to_owned);
    if now.as_deref() == Some(to) {
        rules.ready(&subject).await.map_err(|error| error.to_string())?;
        return Ok(format!("{pod} has --{flag}={to}, and is well"));
    }
    let after = with_flag(&text, flag, from, to)?;
    let desk = rules.places.held.with_file_name(DIR).join(run);
    let like = rules.places.manifests.join(&subject.file);
    let (at, name, before) = (desk.clone(), subject.file.clone(), text.clone());
    let (next, kept) = off(move || {
        let permissions = fs::metadata(&like)?.permissions();
        let kept = keep(&at, &name, &before, &permissions)?;
        let next = write_next(&at, &name, &after, &permissions)?;
        Ok((next, kept))
    })
    .await?;
    match bounce_with(pod, rules, Some(&next)).await {
        Ok(bounced) => Ok(format!(
            "--{flag}={to}; {bounced}; the old manifest is {}",
            kept.display()
        )),
        Err(error @ BounceError::NotReady { .. }) => {
            let (name, from) = (subject.file.clone(), kept.clone());
            let next = off(move || {
                let permissions = fs::metadata(&from)?.permissions();
                write_next(&desk, &name, &text, &permissions)
            })
            .await?;
            let back = match bounce_with(pod, rules, Some(&next)).await {
                Ok(bounced) => format!("with the old one: {bounced}"),
                Err(why) => format!("with the old one as well: {why}"),
            };
            Err(format!("with --{flag}={to} {error}; {back}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn off<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| format!("write a manifest: {error}; nothing was changed"))
}

/// Keeps the old one under a name that nothing has.
fn keep(dir: &Path, file: &str, text: &str, permissions: &Permissions) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    for number in 0.. {
        let path = match number {
            0 => dir.join(file),
            number => dir.join(format!("{file}.{number}")),
        };
        match File::options().create_new(true).write(true).open(&path) {
            Ok(to) => {
                write(to, text, permissions)?;
                File::open(dir)?.sync_all()?;
                return Ok(path);
            }
            // Of an attempt that was cut short.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::read_to_string(&path)? == text {
                    return Ok(path);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// On the same file system as where manifests lie while they are out, and outside of where the kubelet looks.
fn write_next(dir: &Path, file: &str, text: &str, permissions: &Permissions) -> io::Result<PathBuf> {
    let dir = dir.join("next");
    fs::create_dir_all(&dir)?;
    let path = dir.join(file);
    let to = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    write(to, text, permissions)?;
    File::open(&dir)?.sync_all()?;
    Ok(path)
}

fn write(mut to: File, text: &str, permissions: &Permissions) -> io::Result<()> {
    to.set_permissions(permissions.clone())?;
    to.write_all(text.as_bytes())?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use blackstart_proto::part::Part;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::config::{ComponentSettings, Settings};
    use crate::control_plane::Flag;
    use crate::set_aside::SetAside;

    const OLD: &str = "https://127.0.0.1:2379";
    const NEW: &str = "https://10.0.0.1:2379";

    fn text(servers: &str) -> String {
        format!(
            "kind: Pod\nmetadata: {{name: kube-apiserver}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: c # a comment\n    \
             command:\n    - kube-apiserver\n    - --etcd-servers={servers}\n"
        )
    }

    fn change(from: &str, to: &str) -> Change {
        Change {
            run_id: "control-plane-1".to_owned(),
            part: Part::ApiServer,
            act: Act::SetFlag {
                flag: Flag::EtcdServers,
                from: from.to_owned(),
                to: to.to_owned(),
            },
        }
    }

    /// A kubelet and its API server, which answers while its manifest is there; with [`NEW`] only if it is `fit`.
    async fn kubelet(fit: bool) -> (tempfile::TempDir, BounceRules, Arc<AtomicBool>) {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut settings = Settings::for_node("n");
        settings.runtime.docker.socket = dir.path().join("none.sock");
        let pods = &mut settings.static_pods;
        pods.manifests = dir.path().join("manifests");
        pods.held = dir.path().join("held");
        pods.components = vec![ComponentSettings::new("kube-apiserver", address.port(), "/livez")];
        pods.out_at_least = Duration::from_millis(100);
        pods.gone_deadline = Duration::from_secs(30);
        pods.ready_deadline = Duration::from_secs(if fit { 30 } else { 1 });
        fs::create_dir(&pods.manifests).unwrap();
        let manifest = pods.manifests.join("a.yaml");
        fs::write(&manifest, text(OLD)).unwrap();
        let torn = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&torn);
        let rules = BounceRules::new(&settings, SetAside::none(dir.path(), ""));
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(10)).await;
                let Ok(running) = fs::read_to_string(&manifest) else {
                    continue;
                };
                if running != text(OLD) && running != text(NEW) {
                    seen.store(true, Ordering::Relaxed);
                }
                if running == text(NEW) && !fit {
                    continue;
                }
                let listener = TcpListener::bind(address).await.unwrap();
                while fs::read_to_string(&manifest).is_ok_and(|now| now == running) {
                    let accepted = timeout(Duration::from_millis(20), listener.accept()).await;
                    if let Ok(Ok((mut stream, _))) = accepted {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                        let _gone = stream.write_all(answer).await;
                    }
                }
            }
        });
        (dir, rules, torn)
    }

    #[tokio::test]
    async fn the_pod_comes_back_with_the_new_value_and_the_old_manifest_is_kept() {
        let (dir, rules, torn) = kubelet(true).await;
        let done = set_flag(&change(OLD, NEW), &rules).await.unwrap();
        assert!(done.contains("answers"), "{done}");
        let manifest = dir.path().join("manifests/a.yaml");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), text(NEW));
        let kept = dir.path().join("blackstart-edits/control-plane-1/a.yaml");
        assert_eq!(fs::read_to_string(kept).unwrap(), text(OLD));
        assert!(!torn.load(Ordering::Relaxed), "never half a manifest");
        // Asked once more, as after a crash, it finds it done.
        let again = set_flag(&change(OLD, NEW), &rules).await.unwrap();
        assert!(again.contains("is well"), "{again}");
        let other = set_flag(&change("https://c:1", "https://d:1"), &rules)
            .await
            .unwrap_err();
        assert!(other.contains("plan it anew"), "{other}");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), text(NEW));
    }

    #[tokio::test]
    async fn a_value_with_which_it_is_not_well_is_taken_back() {
        let (dir, rules, _) = kubelet(false).await;
        let error = set_flag(&change(OLD, NEW), &rules).await.unwrap_err();
        assert!(error.contains("with the old one: a.yaml was out"), "{error}");
        let manifest = dir.path().join("manifests/a.yaml");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), text(OLD));
        assert!(rules.places.out().unwrap().is_empty());
    }

    /// Whoever speaks as a coordinator names runs, and those become directories.
    #[tokio::test]
    async fn no_name_of_a_run_becomes_a_path_out_of_its_place() {
        let (dir, rules, _) = kubelet(true).await;
        for run in [
            "",
            ".",
            "..",
            "../manifests",
            "/etc/kubernetes/manifests",
            "a/../../b",
            "a\0",
            "A",
        ] {
            let change = Change {
                run_id: run.to_owned(),
                ..change(OLD, NEW)
            };
            let why = set_flag(&change, &rules).await.unwrap_err();
            assert!(why.contains("is no name of a run"), "{run:?}: {why}");
        }
        assert!(!dir.path().join("blackstart-edits").exists());
        let manifest = dir.path().join("manifests/a.yaml");
        assert_eq!(fs::read_to_string(&manifest).unwrap(), text(OLD));
    }
}

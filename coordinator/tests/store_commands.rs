//! Backup, restore, check and epoch, as they are typed: with a coordinator that runs, and with a store that cannot be used.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use blackstart_coordinator::pki::Authority;
use blackstart_coordinator::store::redb::RedbStore;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

type Failure = Box<dyn Error>;

const DEADLINE: Duration = Duration::from_mins(1);

/// A coordinator's configuration, and what is left of its store.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().display();
        Authority::create(&dir.path().join("pki"))?.issue_coordinator("coordinator")?;
        fs::write(
            dir.path().join("inventory.yaml"),
            "clusters: [{name: biz, nodes: [{address: 10.0.0.1, role: control-plane}]}]\n",
        )?;
        let config = format!(
            "listen: [\"127.0.0.1:0\"]
tls: {{ca: {root}/pki/ca.crt, certificate: {root}/pki/coordinator.crt, key: {root}/pki/coordinator.key}}
state_dir: {root}/state
runtime_dir: {root}/run
inventory: {root}/inventory.yaml
backup: {{every: 100ms, keep: 3}}
"
        );
        fs::write(dir.path().join("coordinator.yaml"), config)?;
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("state/store.redb")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"));
        command
            .kill_on_drop(true)
            .env_remove("NOTIFY_SOCKET")
            .args(arguments)
            .arg("--config")
            .arg(self.path("coordinator.yaml"));
        command
    }

    /// What it ended with, and all that it said.
    async fn say(&self, arguments: &[&str]) -> Result<(Option<i32>, String), Failure> {
        let Output {
            status,
            stdout,
            stderr,
        } = timeout(DEADLINE, self.command(arguments).output()).await??;
        let said = String::from_utf8([stdout, stderr].concat())?;
        Ok((status.code(), said))
    }

    async fn start(&self) -> Result<Child, Failure> {
        let mut child = self
            .command(&["run"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?).lines();
        let begun = async {
            while let Some(line) = log.next_line().await? {
                if line.contains("coordinator begins") {
                    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                    return Ok(());
                }
            }
            Err(Failure::from("it ended before it began"))
        };
        timeout(DEADLINE, begun).await??;
        Ok(child)
    }
}

async fn stop(mut child: Child) -> Result<(), Failure> {
    let id = child.id().ok_or("it is gone")?;
    kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
    assert!(timeout(DEADLINE, child.wait()).await??.success());
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_running_coordinator_gives_its_backup_and_keeps_its_store_to_itself() -> Result<(), Failure> {
    let place = Place::new()?;
    let backup = text(&place.path("backup"));
    let (code, said) = place.say(&["backup", &backup]).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no store at") && !place.path("state").exists(),
        "{said}"
    );

    let running = place.start().await?;
    // Its first backup and the socket are there soon after it began.
    let asked = timeout(DEADLINE, async {
        loop {
            let (code, said) = place.say(&["backup", &backup]).await?;
            let made = place.path("state/backups/000001.backup").exists();
            if code == Some(0) && made || code != Some(0) && !said.contains("does not answer") {
                return Ok::<_, Failure>((code, said));
            }
        }
    });
    let (code, said) = asked.await??;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("epoch 1, from the running coordinator"), "{said}");
    let (code, said) = place.say(&["check", "-o", "json"]).await?;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("\"running\": true") && said.contains("\"problems\": []"),
        "{said}"
    );
    for arguments in [
        &["restore", "--force", &backup][..],
        &["epoch", "--at-least", "9"],
    ] {
        let (code, said) = place.say(arguments).await?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("systemctl stop blackstart-coordinator"), "{said}");
    }
    stop(running).await?;

    let (code, said) = place.say(&["epoch"]).await?;
    assert!(code == Some(0) && said.starts_with("epoch 1;"), "{said}");
    let (code, said) = place.say(&["epoch", "--at-least", "70"]).await?;
    assert!(code == Some(0) && said.starts_with("epoch 70;"), "{said}");
    let (code, said) = place.say(&["epoch", "--at-least", "0"]).await?;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = place.say(&["check", &backup]).await?;
    assert!(code == Some(0) && said.contains("no problems"), "{said}");
    // Those that it made by itself.
    let made = fs::read_dir(place.path("state/backups"))?
        .next()
        .ok_or("it made none")??;
    let (code, said) = place.say(&["check", &text(&made.path())]).await?;
    assert!(code == Some(0) && said.contains("no problems"), "{said}");
    Ok(())
}

/// Whatever is wrong with a store: the start tells of it and changes nothing, a check tells it to programs, and a restore is the way
/// back.
#[tokio::test]
async fn every_store_that_cannot_be_used_has_a_way_back() -> Result<(), Failure> {
    let place = Place::new()?;
    let store = place.store();
    stop(place.start().await?).await?;
    let backup = text(&place.path("backup"));
    assert_eq!(place.say(&["backup", &backup]).await?.0, Some(0));
    let whole = fs::read(&store)?;

    let mut damaged = whole.clone();
    for page in (4096..damaged.len()).step_by(4096) {
        damaged[page + 64] ^= 0x5a;
    }
    let newer = {
        let path = place.path("newer.redb");
        fs::write(&path, &whole)?;
        let table = redb::TableDefinition::<&str, u64>::new("meta");
        let database = redb::Database::open(&path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(table)?.insert("schema", 9)?;
        transaction.commit()?;
        drop(database);
        fs::read(&path)?
    };
    let mut epoch = 1;
    for (what, content) in [
        ("store.redb cannot be used", Some(damaged)),
        (
            "store.redb cannot be used",
            Some(whole[..whole.len() / 2].to_vec()),
        ),
        ("it has schema 9", Some(newer)),
        ("it is missing", None),
    ] {
        match &content {
            Some(content) => fs::write(&store, content)?,
            None => fs::remove_file(&store)?,
        }
        let (code, said) = place.say(&["run"]).await?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(what), "{said}");
        let (code, said) = place.say(&["check", "-o", "json"]).await?;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("\"of\": \"store\"") && said.contains(what),
            "{said}"
        );
        assert!(fs::read(&store).ok() == content, "{what}: the store was changed");

        let (code, said) = place.say(&["restore", &backup]).await?;
        if let Some(content) = &content {
            assert!(code == Some(1) && said.contains("--force"), "{said}");
            let (code, said) = place.say(&["restore", &backup, "--force"]).await?;
            assert_eq!(code, Some(0), "{said}");
            let kept = said.split("kept as ").nth(1).and_then(|rest| rest.lines().next());
            assert!(fs::read(kept.ok_or("it is not told where it is kept")?)? == *content);
        } else {
            assert_eq!(code, Some(0), "{said}");
        }
        stop(place.start().await?).await?;
        let now = RedbStore::open(&store)?.epoch()?;
        assert!(now > epoch + 1_000 || epoch > 1, "{now} after {epoch}");
        epoch = now;
    }

    // A backup that is not whole changes nothing.
    let bytes = fs::read(&backup)?;
    fs::write(place.path("half"), &bytes[..bytes.len() - 1])?;
    let before = fs::read(&store)?;
    for arguments in [&["check"][..], &["restore", "--force"]] {
        let half = text(&place.path("half"));
        let (code, said) = place.say(&[arguments, &[&half]].concat()).await?;
        assert!(code == Some(1) && said.contains("cut off"), "{said}");
    }
    assert!(fs::read(&store)? == before);
    let (code, said) = place
        .say(&["restore", &backup, "--force", "--epoch-at-least", "7000000"])
        .await?;
    assert!(code == Some(0) && said.contains("epoch 7000000"), "{said}");
    Ok(())
}

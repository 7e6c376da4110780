//! The binary, as systemd and people run it.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use blackstart_coordinator::pki::Authority;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

type Failure = Box<dyn Error>;

const DEADLINE: Duration = Duration::from_secs(30);

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"));
    command.kill_on_drop(true).env_remove("NOTIFY_SOCKET");
    command
}

/// Everything that a coordinator needs, on a free port of loopback.
fn prepare(dir: &Path) -> Result<(), Failure> {
    let pki = dir.join("pki");
    Authority::create(&pki)?.issue_coordinator("coordinator")?;
    fs::write(
        dir.join("inventory.yaml"),
        "clusters: [{name: biz, nodes: [{address: 10.0.0.1, role: control-plane}, {address: 10.0.0.2}]}]\n",
    )?;
    let dir = dir.display();
    let config = format!(
        "listen: [\"127.0.0.1:0\"]
tls: {{ca: {dir}/pki/ca.crt, certificate: {dir}/pki/coordinator.crt, key: {dir}/pki/coordinator.key}}
state_dir: {dir}/state
runtime_dir: {dir}/run
inventory: {dir}/inventory.yaml
"
    );
    fs::write(format!("{dir}/coordinator.yaml"), config)?;
    Ok(())
}

/// One that runs and has said where it listens.
async fn start(dir: &Path) -> Result<Child, Failure> {
    let mut child = command()
        .args(["run", "--config"])
        .arg(dir.join("coordinator.yaml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no standard output")?;
    let line = timeout(DEADLINE, BufReader::new(out).lines().next_line()).await??;
    let line = line.ok_or("it said nothing")?;
    assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
    // It has begun once its log says so.
    let log = child.stderr.take().ok_or("no standard error")?;
    let mut log = BufReader::new(log).lines();
    timeout(DEADLINE, async {
        while let Some(line) = log.next_line().await? {
            if line.contains("coordinator begins") {
                tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
                return Ok(());
            }
        }
        Err(Failure::from("it ended before it began"))
    })
    .await??;
    Ok(child)
}

async fn end(mut child: Child, signal: Signal) -> Result<ExitStatus, Failure> {
    let id = child.id().ok_or("it is gone")?;
    kill(Pid::from_raw(i32::try_from(id)?), signal)?;
    Ok(timeout(DEADLINE, child.wait()).await??)
}

async fn output(arguments: &[&str], file: &Path) -> Result<(Output, String), Failure> {
    let output = timeout(DEADLINE, command().args(arguments).arg(file).output()).await??;
    let said = String::from_utf8(output.stderr.clone())?;
    Ok((output, said))
}

#[tokio::test]
async fn it_ends_in_order_when_told_to_and_begins_again_after_a_kill() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    prepare(dir.path())?;
    let marker = dir.path().join("state/clean-shutdown.json");
    let killed = end(start(dir.path()).await?, Signal::SIGKILL).await?;
    assert!(!killed.success() && !marker.exists());
    let told = end(start(dir.path()).await?, Signal::SIGTERM).await?;
    assert_eq!(told.code(), Some(0));
    assert!(marker.exists(), "the next boot is a clean one");
    let again = start(dir.path()).await?;
    assert!(!marker.exists(), "it runs, so a power loss now is unclean");
    assert_eq!(end(again, Signal::SIGINT).await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn every_error_of_configuration_and_inventory_is_told_at_once() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    prepare(dir.path())?;
    let config = dir.path().join("coordinator.yaml");
    let (checked, _) = output(&["config", "check"], &config).await?;
    assert_eq!(checked.status.code(), Some(0));
    let said = String::from_utf8(checked.stdout)?;
    assert!(said.contains("1 cluster, 2 nodes"), "{said}");

    let inventory = dir.path().join("inventory.yaml");
    fs::write(
        &inventory,
        "clusters:\n  - {name: biz, after: [nobody], nodes: [{address: 10.0.0.1}]}\n",
    )?;
    for arguments in [&["config", "check"][..], &["run", "--config"]] {
        let (refused, said) = output(arguments, &config).await?;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains("inventory.yaml:2:") && said.contains("nobody"),
            "{said}"
        );
        assert!(
            said.contains("blackstart inventory lint FILE"),
            "what to do next: {said}"
        );
    }
    fs::write(&config, "listen: here\nsilent_aftr: 5s\n")?;
    let (refused, said) = output(&["run", "--config"], &config).await?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said.contains("coordinator.yaml:1:") && said.contains("coordinator.yaml:2:"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_is_told_and_is_no_fault_of_the_configuration() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    prepare(dir.path())?;
    let first = start(dir.path()).await?;
    let config = dir.path().join("coordinator.yaml");
    let (second, said) = output(&["run", "--config"], &config).await?;
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(end(first, Signal::SIGTERM).await?.code(), Some(0));
    Ok(())
}

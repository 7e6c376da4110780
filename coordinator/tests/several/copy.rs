//! From one coordinator to several, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use blackstart_coordinator::store::Store;
use blackstart_coordinator::store::redb::RedbStore;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::etcd::is_here;
use crate::world::World;

/// The configuration of an embedded store in a directory of its own.
fn embedded(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let state = dir.join(name);
    fs::create_dir_all(&state).unwrap();
    let config = dir.join(format!("{name}.yaml"));
    fs::write(&config, format!("state_dir: {}\n", state.display())).unwrap();
    (config, state.join("store.redb"))
}

async fn copy(from: &Path, to: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blackstart-coordinator"));
    let paths = [
        "--from".as_ref(),
        from.as_os_str(),
        "--to".as_ref(),
        to.as_os_str(),
    ];
    let command = command.args(["store", "copy"]).args(paths);
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_to_etcd_and_back_and_its_epoch_only_rises() {
    if !is_here("a store that is copied") {
        return;
    }
    let mut world = World::new("5s").await;
    let dir = tempfile::tempdir().unwrap();
    let (before, store) = embedded(dir.path(), "before");
    let original = RedbStore::open(&store).unwrap();
    original.append("cold-start-1", 0, b"began").unwrap();
    original.append("cold-start-1", 1, b"ended").unwrap();
    original.put("node/biz-1", b"boot").unwrap();
    original.raise_epoch(5000).unwrap();
    drop(original);

    let over_etcd = world.coordinators[0].dir.join("coordinator.yaml");
    world.leader_but(&[]).await;
    let refused = copy(&before, &over_etcd).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("stop every coordinator first"),
        "{said}"
    );
    for coordinator in &mut world.coordinators {
        coordinator.signal(Signal::SIGTERM);
        assert!(coordinator.ended().await);
    }
    let (after, store) = embedded(dir.path(), "after");
    for (from, to) in [(&before, &over_etcd), (&over_etcd, &after)] {
        let copied = copy(from, to).await;
        let told = String::from_utf8_lossy(&copied.stdout).into_owned();
        let said = String::from_utf8_lossy(&copied.stderr).into_owned();
        assert!(copied.status.success(), "{said}");
        assert!(
            told.starts_with("copied 1 run and 1 value; epochs go on above 500"),
            "{told}"
        );
    }
    let copy = RedbStore::open(&store).unwrap();
    assert_eq!(copy.journal("cold-start-1").unwrap(), [b"began", b"ended"]);
    assert_eq!(copy.get("node/biz-1").unwrap().as_deref(), Some(&b"boot"[..]));
    assert!(copy.next_epoch().unwrap() > 5001);
}

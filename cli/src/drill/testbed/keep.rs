//! What `--keep` leaves of a drill on the testbed: the nodes' journals and ledgers, and the coordinator's files.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use blackstart_tests::bed::Bed;
use blackstart_tests::node::Node;

use super::witness::LEDGER;

/// Of the bed's directory.
const COORDINATORS: [&str; 5] = [
    "coordinator.yaml",
    "coordinator.log",
    "coordinator-state",
    "inventory.yaml",
    "pki",
];

/// Copies all of it below `dir`. Nodes without power have nothing to give.
pub(in crate::drill) async fn all(bed: &Bed, dir: &Path) -> anyhow::Result<()> {
    for name in COORDINATORS {
        let from = bed.dir().join(name);
        copy(&from, &dir.join(name)).with_context(|| format!("copy {}", from.display()))?;
    }
    for node in bed.nodes().filter(|node| node.is_on()) {
        let to = dir.join("nodes").join(node.name());
        fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
        one(node, &to)
            .await
            .with_context(|| format!("copy what node {} wrote", node.name()))?;
    }
    Ok(())
}

async fn one(node: &Node, to: &Path) -> anyhow::Result<()> {
    let journal = node
        .exec(&["journalctl", "--no-pager", "--output=short-monotonic"])
        .await?;
    fs::write(to.join("journal.txt"), journal)?;
    let ledger = node.path(LEDGER)?;
    // A node that was broken off early has none yet.
    if ledger.exists() {
        copy(&ledger, &to.join("ledger"))?;
    }
    Ok(())
}

/// A file, or a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

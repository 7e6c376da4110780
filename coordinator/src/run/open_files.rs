//! How many files may be open: every session is one, and so is every connection that is not known for dead yet.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The store, the listeners, operators, etcd, and what the runtime has.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, and says so if a fleet of so many nodes needs more than that.
pub(super) fn raise(nodes: usize) {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    let needed = u64::try_from(nodes).unwrap_or(u64::MAX).saturating_add(OTHERS);
    match limit {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "fewer files may be open than the fleet has nodes: raise LimitNOFILE of the unit, or the hard limit (ulimit -Hn)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

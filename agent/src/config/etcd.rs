//! What the agent is told of the etcd member on its node.

use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::tls::TlsFiles;
use blackstart_proto::yaml::Table;

use super::read::{absolute, count, positive, set};
use crate::span::Span;

/// How the member on this node is spoken to, and where its snapshots are kept. What it is and where it answers, its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// What is shown to the member; `None`: what lies beside its own certificate (`healthcheck-client.crt`), or its own.
    pub client: Option<TlsFiles>,
    /// An answer takes no longer.
    pub deadline: Duration,
    /// etcd's own tools; the first that is there and of the member's version restores its data.
    pub tools: Vec<PathBuf>,
    /// Snapshots.
    pub snapshots: SnapshotSettings,
}

/// Where snapshots are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// A directory of their own.
    pub dir: PathBuf,
    /// One is taken so often by the agent itself; `None`: only when a run asks.
    pub every: Option<Duration>,
    /// So many of each cluster id are kept, the newest.
    pub keep: u32,
    /// They are written no faster, bytes a second: etcd waits for the same disks.
    pub rate: u64,
    /// So much stays free on their disk, bytes.
    pub min_free: u64,
}

/// Snapshots are not taken more often.
const LEAST: Duration = Duration::from_mins(10);

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            client: None,
            deadline: Duration::from_secs(3),
            tools: [
                "/usr/local/bin/etcdutl",
                "/usr/bin/etcdutl",
                "/usr/local/bin/etcdctl",
                "/usr/bin/etcdctl",
            ]
            .map(PathBuf::from)
            .into(),
            snapshots: SnapshotSettings {
                dir: "/var/lib/blackstart/etcd-snapshots".into(),
                every: Some(Duration::from_hours(1)),
                keep: 5,
                rate: 64 << 20,
                min_free: 1 << 30,
            },
        }
    }
}

/// The section as written.
pub(super) fn read(mut table: Table, to: &mut EtcdSettings) {
    to.client = table.table("client").and_then(|mut table| {
        let mut file = |key| table.required(key).and_then(|item| absolute(&item));
        let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
        Some(TlsFiles {
            ca: ca?,
            certificate: certificate?,
            key: key?,
        })
    });
    set(&mut to.deadline, positive(&mut table, "deadline"));
    if let Some(tools) = table.list("tools") {
        to.tools = tools.iter().filter_map(absolute).collect();
    }
    if let Some(mut table) = table.table("snapshots") {
        let snapshots = &mut to.snapshots;
        set(
            &mut snapshots.dir,
            table.item("dir").and_then(|item| absolute(&item)),
        );
        if let Some(item) = table.item("every") {
            if item.text().as_deref() == Some("never") {
                snapshots.every = None;
            } else if let Some(every) = item.duration() {
                if every < LEAST {
                    item.problem("must be at least 10m, or never: each reads the whole database");
                } else {
                    snapshots.every = Some(every);
                }
            }
        }
        set(&mut snapshots.keep, count(table.integer("keep", 1..=1000)));
        set(&mut snapshots.min_free, table.size("min_free"));
        if let Some(rate) = table.size("rate") {
            if rate < 1 << 20 {
                table.problem("rate", "must be at least 1MiB: a snapshot has to end some day");
            } else {
                snapshots.rate = rate;
            }
        }
    }
}

/// Each field with its value, for whoever compares two configurations.
pub(super) fn fields(settings: &EtcdSettings) -> Vec<(&'static str, String)> {
    let EtcdSettings {
        client,
        deadline,
        tools,
        snapshots:
            SnapshotSettings {
                dir,
                every,
                keep,
                rate,
                min_free,
            },
    } = settings;
    let mut all = vec![
        ("etcd.deadline", Span(*deadline).to_string()),
        (
            "etcd.tools",
            tools
                .iter()
                .map(|tool| tool.display().to_string())
                .collect::<Vec<_>>()
                .join(" "),
        ),
        ("etcd.snapshots.dir", dir.display().to_string()),
        (
            "etcd.snapshots.every",
            every.map_or_else(|| "never".to_owned(), |every| Span(every).to_string()),
        ),
        ("etcd.snapshots.keep", keep.to_string()),
        ("etcd.snapshots.rate", rate.to_string()),
        ("etcd.snapshots.min_free", min_free.to_string()),
    ];
    if let Some(TlsFiles { ca, certificate, key }) = client {
        all.push(("etcd.client.ca", ca.display().to_string()));
        all.push(("etcd.client.certificate", certificate.display().to_string()));
        all.push(("etcd.client.key", key.display().to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn what_is_shown_to_the_member_is_three_files_and_a_rate_is_no_trickle() {
        let text = "node: m\netcd: {client: {ca: /a, certificate: /b}, snapshots: {rate: 1KiB, keep: 0, every: 1m}}\n";
        let problems = parse("agent.yaml", text).unwrap_err().to_string();
        for field in [
            "etcd.client.key",
            "etcd.snapshots.rate",
            "etcd.snapshots.keep",
            "etcd.snapshots.every",
        ] {
            assert!(problems.contains(field), "{field}: {problems}");
        }
        let text = "node: m\netcd: {snapshots: {dir: /backup/etcd, keep: 3, rate: 10MiB, every: never}}\n";
        let etcd = parse("agent.yaml", text).unwrap().etcd;
        assert_eq!((etcd.snapshots.keep, etcd.snapshots.rate), (3, 10 << 20));
        assert_eq!(etcd.snapshots.every, None);
    }
}

//! The etcd of a cluster for people.

use jiff::Timestamp;

use super::lists::Listed;
use super::table::{Cell, Line, Table, Tint};
use super::words::{age, age_at, bytes};
use crate::view::{Etcd, EtcdMember, EtcdSnapshot, Severity};

/// All of it: the cluster in a line, its members, and what a person should know.
pub(crate) fn status(etcd: &Etcd, wide: bool, now: Timestamp) -> Vec<Line> {
    let (word, tint) = if etcd.has_quorum {
        ("quorum", Tint::Good)
    } else {
        ("NO QUORUM", Tint::Bad)
    };
    let leader = etcd.members.iter().find(|member| member.leads);
    let leader = leader.and_then(|leader| leader.node.as_deref().or(leader.name.as_deref()));
    let mut lines = vec![
        Line::tinted(format!("etcd of {}: ", etcd.cluster), Tint::Bold)
            .and(" ", Tint::Plain)
            .and(word, tint)
            .and(
                format!(
                    ", {} of {} voters are well and {} are needed; {}",
                    etcd.voters_healthy,
                    etcd.voters,
                    etcd.quorum,
                    leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("{leader} leads"))
                ),
                Tint::Plain,
            ),
        Line::new(format!(
            "cluster id {}; last verified snapshot {}",
            etcd.cluster_id.as_deref().unwrap_or("not known"),
            etcd.last_snapshot_age_ms
                .map_or_else(|| "none".to_owned(), |ms| format!("{} ago", age(ms)))
        )),
        Line::new(""),
    ];
    let mut header = vec![
        "NODE",
        "MEMBER",
        "HEALTH",
        "ROLE",
        "TERM",
        "REVISION",
        "BEHIND",
        "DB",
        "ALARMS",
        "VERSION",
        "CERTIFICATES",
    ];
    if wide {
        header.extend(["URL", "DATA", "MANIFEST", "INITIAL CLUSTER"]);
    }
    let mut table = Table::new(header);
    for member in &etcd.members {
        table.row(row(member, wide, now));
    }
    lines.extend(table.lines());
    if !etcd.findings.is_empty() {
        lines.push(Line::new(""));
    }
    for finding in &etcd.findings {
        let tint = match finding.severity {
            Severity::Critical => Tint::Bad,
            Severity::Warning | Severity::Info | Severity::Unknown => Tint::Warning,
        };
        let of = finding
            .node
            .as_ref()
            .map_or_else(String::new, |node| format!("{node}: "));
        let line = Line::tinted(finding.severity.word(), tint);
        lines.push(line.and(format!("  {of}{}", finding.text), Tint::Plain));
    }
    lines
}

fn row(member: &EtcdMember, wide: bool, now: Timestamp) -> Vec<Cell> {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let optional = |text: &Option<String>| Cell::new(text.as_deref().unwrap_or("-"));
    let health = if member.healthy {
        Cell::tinted("healthy", Tint::Good)
    } else {
        Cell::tinted(member.trouble.unwrap_or("not well"), Tint::Bad)
    };
    let role = match (member.leads, member.is_learner, &member.id) {
        (true, ..) => "leader",
        (_, true, _) => "learner",
        (_, _, Some(_)) if member.term.is_none() => "voter",
        (_, _, Some(_)) => "follower",
        (_, _, None) => "-",
    };
    let behind = match member.revision {
        Some(_) => format!("{} rev, {} idx", member.revisions_behind, member.indices_behind),
        None => "-".to_owned(),
    };
    let mut row = vec![
        optional(&member.node),
        optional(&member.name),
        health,
        role.into(),
        number(member.term).into(),
        member
            .revision
            .map_or_else(|| "-".to_owned(), |revision| revision.to_string())
            .into(),
        behind.into(),
        member.db_bytes.map_or_else(|| "-".to_owned(), bytes).into(),
        Cell::tinted(
            member.alarms.join(", "),
            if member.alarms.is_empty() {
                Tint::Plain
            } else {
                Tint::Bad
            },
        ),
        optional(&member.version),
        certificates(member, now),
    ];
    if wide {
        row.extend([
            optional(&member.client_url),
            optional(&member.data_dir),
            optional(&member.manifest),
            optional(&member.initial_cluster),
        ]);
    }
    row
}

/// When the first expires.
fn certificates(member: &EtcdMember, now: Timestamp) -> Cell {
    if member.certificates.iter().any(|one| one.expired) {
        return Cell::tinted("EXPIRED", Tint::Bad);
    }
    if member.certificates.iter().any(|one| one.trouble.is_some()) {
        return Cell::tinted("unreadable", Tint::Bad);
    }
    let first = member.certificates.iter().filter_map(|one| one.expires_at).min();
    match first {
        None => Cell::new("-"),
        Some(at) => {
            let days = (at.as_second() - now.as_second()) / 86_400;
            let tint = if days < 30 { Tint::Warning } else { Tint::Plain };
            Cell::tinted(format!("{days}d left"), tint)
        }
    }
}

impl Listed for EtcdSnapshot {
    const PLURAL: &'static str = "snapshots";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec![
            "NODE",
            "SNAPSHOT",
            "CLUSTER ID",
            "REVISION",
            "SIZE",
            "AGE",
            "VERSION",
            "STATE",
        ];
        if wide {
            header.push("SHA-256");
        }
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let state = match &self.damage {
            None => Cell::tinted("verified", Tint::Good),
            Some(damage) => Cell::tinted(format!("DAMAGED: {damage}"), Tint::Bad),
        };
        let mut row = vec![
            self.node.as_str().into(),
            self.file.as_str().into(),
            self.cluster_id.as_str().into(),
            self.revision.to_string().into(),
            bytes(self.bytes).into(),
            age_at(self.taken_at, now).into(),
            self.version.as_deref().unwrap_or("-").into(),
            state,
        ];
        if wide {
            row.push(self.sha256.as_str().into());
        }
        row
    }
}

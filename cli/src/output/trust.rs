//! Tokens and certificates: as they are made, and in tables.

use jiff::Timestamp;

use super::lists::Listed;
use super::table::{Cell, Line, Tint};
use super::words::count;
use crate::view::{NewToken, NodeCertificate, Revocation, Token};

/// What was made, and what to type.
pub(crate) fn made(made: &NewToken) -> Vec<Line> {
    let token = &made.made;
    let whose = match (&token.node, &token.cluster) {
        (Some(node), _) => format!("node {node}"),
        (None, Some(cluster)) => format!("{} of cluster {cluster}", nodes(token.count)),
        (None, None) => nodes(token.count),
    };
    let until = token.ends_at.map_or_else(String::new, |ends| {
        format!(", until {}", ends.strftime("%Y-%m-%d %H:%M:%S UTC"))
    });
    vec![
        Line::tinted(format!("token {}", token.id), Tint::Bold)
            .and(format!(" for {whose}{until}"), Tint::Plain),
        Line::new("On the node, as root:"),
        Line::new(format!("  {}", made.join)),
        Line::new("The secret is not told again."),
    ]
}

fn nodes(number: u32) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "node")
}

/// What does not count any more, and what that did.
pub(crate) fn revoked(revocation: &Revocation) -> Vec<Line> {
    let cut = usize::try_from(revocation.cut).unwrap_or(usize::MAX);
    vec![
        Line::tinted(format!("{} is revoked", revocation.subject), Tint::Bold)
            .and(format!("; {} cut", count(cut, "connection")), Tint::Plain),
    ]
}

fn minute(at: Option<Timestamp>) -> Cell {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
        .into()
}

fn or_any(text: Option<&String>) -> Cell {
    text.map_or("any", String::as_str).into()
}

impl Listed for Token {
    const PLURAL: &'static str = "tokens";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["ID", "NODE", "CLUSTER", "LEFT", "ENDS", "STATE"];
        if wide {
            header.extend(["OF", "MADE", "BY", "REASON"]);
        }
        header
    }

    fn row(&self, wide: bool, _now: Timestamp) -> Vec<Cell> {
        let (state, tint) = match &self.over {
            Some(why) => (why.as_str(), Tint::Dim),
            None => ("good", Tint::Plain),
        };
        let mut row = vec![
            self.id.as_str().into(),
            or_any(self.node.as_ref()),
            or_any(self.cluster.as_ref()),
            self.left.to_string().into(),
            minute(self.ends_at),
            Cell::tinted(state, tint),
        ];
        if wide {
            row.extend([
                self.count.to_string().into(),
                minute(self.made_at),
                self.by.as_str().into(),
                self.reason.as_str().into(),
            ]);
        }
        row
    }
}

impl Listed for NodeCertificate {
    const PLURAL: &'static str = "certificates";

    fn header(wide: bool) -> Vec<&'static str> {
        let mut header = vec!["NODE", "ISSUED", "ENDS", "STATE"];
        if wide {
            header.extend(["CLUSTER", "RENEWABLE UNTIL"]);
        }
        header.push("NUMBER");
        header
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<Cell> {
        let (state, tint) = match &self.revoked {
            Some(why) => (format!("revoked {why}"), Tint::Bad),
            None if self.ends_at.is_some_and(|ends| ends < now) => ("ended".to_owned(), Tint::Warning),
            None if self.behind => ("to be renewed: another authority".to_owned(), Tint::Warning),
            None => ("good".to_owned(), Tint::Plain),
        };
        let mut row = vec![
            self.node.as_str().into(),
            minute(self.issued_at),
            minute(self.ends_at),
            Cell::tinted(state, tint),
        ];
        if wide {
            row.extend([
                Cell::new(self.cluster.as_deref().unwrap_or("-")),
                minute(self.renewable_until_at),
            ]);
        }
        row.push(self.serial.as_str().into());
        row
    }
}

impl Listed for Revocation {
    const PLURAL: &'static str = "revocations";

    fn header(_wide: bool) -> Vec<&'static str> {
        vec!["WHAT", "AT", "BY", "JOINED ANEW", "REASON"]
    }

    fn row(&self, _wide: bool, _now: Timestamp) -> Vec<Cell> {
        vec![
            self.subject.as_str().into(),
            minute(self.revoked_at),
            self.by.as_str().into(),
            (if self.joined_anew { "yes" } else { "no" }).into(),
            self.reason.as_str().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::plain;
    use super::*;

    #[test]
    fn a_new_token_says_what_to_type() {
        let wire = blackstart_proto::v1::Token {
            id: "1a2b3c4d".to_owned(),
            cluster: "biz".to_owned(),
            count: 2,
            left: 2,
            ends_unix_s: 1_800_000_000,
            ..blackstart_proto::v1::Token::default()
        };
        let shown = plain(&made(&NewToken {
            token: "1a2b3c4d.secret".to_owned(),
            ca_hash: "sha256:00".to_owned(),
            addresses: Vec::new(),
            join: "blackstart-agent join …".to_owned(),
            made: wire.into(),
        }));
        assert_eq!(
            shown,
            "\
token 1a2b3c4d for 2 nodes of cluster biz, until 2027-01-15 08:00:00 UTC
On the node, as root:
  blackstart-agent join …
The secret is not told again.
"
        );
    }
}

//! Records, the lines that they are kept as, and whether lines hang together.
//!
//! ```text
//!  HASH {"sequence":7,"previous":"HASH of 6", … }
//!  HASH {"sequence":8,"previous":"HASH of 7", … }
//! ```
//!
//! The hash is SHA-256 of what follows the space. So a byte that is changed shows in its line, and a line that is left out, put in or
//! moved in the next. Who can write the files can make all of it anew from some line on: against that, the hash of the last record is told
//! for keeping elsewhere, and can be expected of a later look.

use blackstart_proto::machine::hex;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What the first record of all follows.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Characters of a text in a record that are kept.
const LONGEST: usize = 4096;

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// Who: `operator ann`, `run cold-start-3`, `node biz-1`, `coordinator`.
    pub who: String,
    /// By which coordinator it came, if it was forwarded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by_way_of: String,
    /// The number of the certificate that was shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// What: `StartColdStart`, `order`, …
    pub what: String,
    /// Tells records of one matter from those of others: a request's name, or a command's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub matter: String,
    /// What exactly was asked, reason and all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub asked: String,
    /// `asked`, `done`, `refused`, `failed`…
    pub outcome: String,
    /// What shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// A record with its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 1.
    pub sequence: u64,
    /// The hash of the one before.
    pub previous: String,
    /// Wall clock, milliseconds since the Unix epoch; for people.
    pub at_unix_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of the last record; 0: there is none.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: NOTHING.to_owned(),
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// The line of a record, with its end, and the chain's new head.
///
/// # Errors
/// It cannot be written as JSON.
pub fn line(head: &Head, at_unix_ms: u64, mut what: What) -> Result<(String, Head), serde_json::Error> {
    for text in [&mut what.asked, &mut what.evidence] {
        if let Some((end, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(end);
        }
    }
    let record = Record {
        sequence: head.sequence + 1,
        previous: head.hash.clone(),
        at_unix_ms,
        what,
    };
    let json = serde_json::to_string(&record)?;
    let hash = hash(json.as_bytes());
    let line = format!("{hash} {json}\n");
    Ok((
        line,
        Head {
            sequence: record.sequence,
            hash,
        },
    ))
}

fn hash(json: &[u8]) -> String {
    hex(digest(&SHA256, json).as_ref())
}

/// What is known of a chain after a look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// So many whole records.
    pub records: u64,
    /// The first of them; those before it were dropped for their age.
    pub first: u64,
    /// The last.
    pub head: Head,
    /// Bytes of a last record that a crash cut off.
    pub torn: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Looks at lines, one after the other.
#[derive(Debug, Default)]
pub struct Look {
    report: Report,
    /// What an earlier look has told, and whether it was seen.
    expect: Option<(String, bool)>,
}

impl Look {
    /// `expect`: `SEQUENCE:HASH` that the chain must have.
    pub fn new(expect: Option<&str>) -> Self {
        let expect = expect.map(|expect| (expect.to_owned(), false));
        Self {
            expect,
            ..Self::default()
        }
    }

    /// The next line of the file that is called `place`, without its end.
    pub fn line(&mut self, place: &str, line: &[u8]) {
        let split = line.split_at_checked(64).and_then(|(hash, rest)| {
            let hash = std::str::from_utf8(hash).ok()?;
            Some((hash, rest.strip_prefix(b" ")?))
        });
        let Some((told, json)) = split else {
            return self.wrong(place, "is no record");
        };
        let hash = hash(json);
        if told != hash {
            return self.wrong(place, "was changed: its hash is another");
        }
        let Ok(record) = serde_json::from_slice::<Record>(json) else {
            return self.wrong(place, "is no record of this version");
        };
        let last = &self.report.head;
        let follows = record.sequence == last.sequence + 1 && record.previous == last.hash;
        // The oldest that is kept follows one that is not.
        let begins = self.report.records == 0 && record.sequence > 1;
        if !follows && !begins {
            let why = format!(
                "is record {}, which does not follow record {}: something was left out, put in or moved",
                record.sequence, last.sequence
            );
            self.wrong(place, &why);
        }
        if self.report.records == 0 {
            self.report.first = record.sequence;
        }
        self.report.records += 1;
        self.report.head = Head {
            sequence: record.sequence,
            hash,
        };
        if let Some((expect, seen)) = &mut self.expect {
            *seen |= self.report.head.to_string() == *expect;
        }
    }

    /// What is after the last line's end.
    pub fn rest(&mut self, bytes: u64) {
        self.report.torn = bytes;
    }

    /// Something that is wrong.
    pub fn wrong(&mut self, place: &str, why: &str) {
        self.report.problems.push(format!("{place} {why}"));
    }

    /// That was all.
    pub fn end(mut self) -> Report {
        if let Some((expect, false)) = &self.expect {
            let why =
                format!("record {expect}, which was there, is not: the chain was cut off, or made anew");
            self.report.problems.push(why);
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(number: u64) -> Vec<String> {
        let mut head = Head::default();
        let lines = (0..number).map(|n| {
            let what = What {
                who: format!("operator {n}"),
                what: "SetHold".to_owned(),
                outcome: "done".to_owned(),
                ..What::default()
            };
            let (line, next) = line(&head, n, what).unwrap();
            head = next;
            line.trim_end().to_owned()
        });
        lines.collect()
    }

    fn look<T: AsRef<[u8]>>(lines: &[T], expect: Option<&str>) -> Report {
        let mut look = Look::new(expect);
        for (number, line) in lines.iter().enumerate() {
            look.line(&format!("line {number}"), line.as_ref());
        }
        look.end()
    }

    #[test]
    fn what_is_as_it_was_written_is_whole_and_may_begin_later() {
        let all = lines(5);
        let report = look(&all, None);
        assert_eq!((report.records, report.first, report.head.sequence), (5, 1, 5));
        assert_eq!(report.problems, Vec::<String>::new());
        let head = report.head.to_string();
        let later = look(&all[2..], Some(&head));
        assert_eq!((later.records, later.first, later.problems.len()), (3, 3, 0));
    }

    #[test]
    fn one_changed_byte_is_found_wherever_it_is() {
        let all = lines(3);
        for at in 0..all.len() {
            for byte in 0..all[at].len() {
                let mut changed: Vec<_> = all.iter().map(|line| line.clone().into_bytes()).collect();
                changed[at][byte] ^= 1;
                let report = look(&changed, None);
                assert!(!report.problems.is_empty(), "byte {byte} of line {at}");
            }
        }
    }

    #[test]
    fn a_line_that_is_left_out_put_in_or_moved_is_found() {
        let all = lines(4);
        let without = [&all[..1], &all[2..]].concat();
        let twice = [&all[..2], &all[1..]].concat();
        let mut moved = all.clone();
        moved.swap(1, 2);
        for changed in [without, twice, moved] {
            let report = look(&changed, None);
            assert!(
                report.problems[0].contains("does not follow"),
                "{:?}",
                report.problems
            );
        }
    }

    #[test]
    fn a_chain_that_was_cut_off_or_made_anew_is_found_by_what_was_told_before() {
        let all = lines(4);
        let head = look(&all, None).head.to_string();
        assert_eq!(look(&all[..3], None).problems.len(), 0);
        let cut = look(&all[..3], Some(&head));
        assert!(cut.problems[0].contains("was there"), "{:?}", cut.problems);
    }

    #[test]
    fn what_somebody_says_cannot_make_a_line_of_its_own() {
        let what = What {
            who: "operator ann".to_owned(),
            asked: "reason: \"\n0000 {}\u{1b}[2J".to_owned(),
            ..What::default()
        };
        let (line, _) = line(&Head::default(), 0, what).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

//! The log as entries of the journal, with fields, where standard error goes to the journal anyway.
//!
//! An event's fields become `BLACKSTART_…` fields; its text stays as it is on a terminal, so that `journalctl` without
//! options shows no less than before (`tracing-journald` leaves the fields out of it, and knows no message ids). Every value is
//! made one line first, so that nothing in it can pass for a field.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::fstat;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{cut, one_line};

/// Where journald takes entries.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A value is cut to this, bytes: an entry has to fit into one datagram of the socket's buffer, some 200 KiB.
const LONGEST: usize = 12 << 10;
/// A journald that takes nothing holds the agent up for so long…
const PATIENCE: Duration = Duration::from_millis(100);
/// …and is then left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// Ids of the kinds of entries, by the words of their message: for `journalctl MESSAGE_ID=` and catalogues. They never change.
pub const MESSAGE_IDS: [(&str, &str); 5] = [
    ("condition raised", "7e900e468f854771ac74b830af35eea9"),
    ("condition escalated", "74eaa1a7244f40da895dd85def1b51f9"),
    ("condition cleared", "dd1fc0b35d704ce08d92c6bf3706b28d"),
    ("remedy begun", "f6c3f663ede741fb89c7aa577260d862"),
    ("remedy ended", "4b54dde82a374d58b5ce2fb613817c39"),
];

/// Whether standard error is the stream that systemd connected to the journal: `JOURNAL_STREAM` names its device and inode.
pub fn is_connected(journal_stream: Option<&OsStr>) -> bool {
    let told = journal_stream
        .and_then(OsStr::to_str)
        .and_then(|text| text.split_once(':'))
        .and_then(|(device, inode)| Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?)));
    match (told, fstat(io::stderr())) {
        (Some(told), Ok(stat)) => told == (stat.st_dev, stat.st_ino),
        (_, _) => false,
    }
}

/// Sends events to journald.
#[derive(Debug)]
pub struct JournalLayer {
    socket: UnixDatagram,
    to: PathBuf,
    /// Until when nothing is sent.
    pause: Mutex<Option<Instant>>,
}

impl JournalLayer {
    /// For the machine's journald, whether it runs at this moment or not.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn new() -> io::Result<Self> {
        Self::to(Path::new(SOCKET))
    }

    fn to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            to: path.to_owned(),
            pause: Mutex::new(None),
        })
    }

    fn send(&self, entry: &Entry) {
        let now = Instant::now();
        let Ok(mut pause) = self.pause.lock() else { return };
        if pause.is_some_and(|until| now < until) {
            return;
        }
        *pause = None;
        match self.socket.send_to(&entry.encoded, &self.to) {
            Ok(_) => {}
            // It hangs, and standard error ends at it too.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                *pause = Some(now + PAUSE);
            }
            Err(_) => {
                let _ = writeln!(io::stderr(), "{}", entry.text);
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        event.record(&mut entry);
        entry.finish(*metadata.level(), metadata.target());
        self.send(&entry);
    }
}

/// An entry in the making.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    /// ` name=value` of the other fields.
    rest: String,
    /// `message` and `rest`.
    text: String,
    encoded: Vec<u8>,
}

impl Entry {
    fn field(&mut self, name: &str, value: &str) {
        self.encoded.extend_from_slice(name.as_bytes());
        self.encoded.push(b'=');
        self.encoded
            .extend_from_slice(cut(&one_line(value), LONGEST).as_bytes());
        self.encoded.push(b'\n');
    }

    fn own(&mut self, name: &str, value: &str) {
        let upper: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        self.field(&format!("BLACKSTART_{upper}"), value);
    }

    fn finish(&mut self, level: Level, target: &str) {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let message = one_line(&self.message).into_owned();
        self.text = format!("{message}{}", self.rest);
        let text = std::mem::take(&mut self.text);
        self.field("MESSAGE", &text);
        self.text = text;
        self.field("PRIORITY", priority);
        self.field("SYSLOG_IDENTIFIER", "blackstart-agent");
        self.own("module", target);
        if target == "blackstart_agent::report"
            && let Some((_, id)) = MESSAGE_IDS.iter().find(|(words, _)| *words == message)
        {
            self.field("MESSAGE_ID", id);
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(self.rest, " {}={:?}", field.name(), cut(value, LONGEST));
        self.own(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else if !field.name().starts_with("log.") {
            let _ = write!(self.rest, " {}={}", field.name(), cut(&one_line(&value), LONGEST));
            self.own(field.name(), &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_value_is_one_field_and_one_line_whatever_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(JournalLayer::to(&path).unwrap());
        let bad = "x\nPRIORITY=0\nMESSAGE=forged\u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || {
            warn!(subject = bad, path = %bad, "odd {bad}");
            info!(target: "blackstart_agent::report", sequence = Some(7_u64), "remedy begun");
        });
        let mut buffer = [0; 4096];
        let mut entry = || {
            let length = journald.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let odd = entry();
        let names: Vec<_> = odd.lines().map(|line| line.split_once('=').unwrap().0).collect();
        assert_eq!(
            names,
            [
                "BLACKSTART_SUBJECT",
                "BLACKSTART_PATH",
                "MESSAGE",
                "PRIORITY",
                "SYSLOG_IDENTIFIER",
                "BLACKSTART_MODULE"
            ],
            "{odd}"
        );
        assert!(odd.contains("\nPRIORITY=4\n") && !odd.contains('\u{1b}'), "{odd}");
        let begun = entry();
        let id = format!("\nMESSAGE_ID={}\n", MESSAGE_IDS[3].1);
        assert!(begun.contains(&id), "{begun}");
        assert!(begun.starts_with("BLACKSTART_SEQUENCE=7\n"), "{begun}");
        assert!(begun.contains("MESSAGE=remedy begun sequence=7\n"), "{begun}");
    }

    #[test]
    fn a_journald_that_takes_nothing_holds_nobody_up_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _hangs = UnixDatagram::bind(&path).unwrap();
        let layer = JournalLayer::to(&path).unwrap();
        let mut entry = Entry::default();
        entry.field("MESSAGE", &"x".repeat(LONGEST));
        // Far more than its queue takes.
        for _ in 0..5000 {
            layer.send(&entry);
        }
        assert!(layer.pause.lock().unwrap().is_some());
    }

    #[test]
    fn ids_are_128_bits_and_each_its_own() {
        let ids: std::collections::BTreeSet<_> = MESSAGE_IDS.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), MESSAGE_IDS.len());
        assert!(
            ids.iter()
                .all(|id| id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit()))
        );
    }
}

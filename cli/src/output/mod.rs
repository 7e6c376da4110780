//! The only module that prints: results on standard output, failures and questions on standard error.
//!
//! | module | story |
//! |---|---|
//! | `table` | columns without borders; colours only where a terminal is |
//! | `words` | ages, durations and sizes as people read them; text from outside made harmless |
//! | `lists` | the tables of `get` |
//! | `describe` | everything of one node or run |
//! | `plan` | a plan as a tree |
//! | `progress` | a run as it goes: a frame to redraw, or lines to append |
//! | `etcd` | the etcd of a cluster, and its snapshots |
//! | `runbook` | plans and runs of runbooks |
//! | `live` | redraws a frame in place |
//! | `via` | by which way an answer came, if not from the leader itself |
//! | `doctor` | findings, and what to do about each |
//! | `local` | certificates as they are made, and what the linter found |

#![allow(clippy::print_stderr, reason = "printing is this module's business")]

pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod etcd;
pub(crate) mod events;
mod heal;
pub(crate) mod lists;
pub(crate) mod live;
pub(crate) mod local;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod runbook;
pub(crate) mod table;
pub(crate) mod trust;
pub(crate) mod via;
pub(crate) mod words;

use std::fmt;
use std::io::{self, BufRead, BufWriter, Stdout, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Environment;
use crate::client;
use crate::failure::Failure;
use crate::view::{Resource, Via};
use lists::Listed;
use table::{Line, Table, Tint};

/// The forms of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// The same with more columns
    Wide,
    /// For programs: stable, documented in docs/cli.md
    Json,
    /// The same as YAML
    Yaml,
}

/// Standard output, in the form that was asked for.
#[derive(Debug)]
pub struct Output {
    format: Format,
    colour: bool,
    terminal: bool,
    out: BufWriter<Stdout>,
    via: client::Via,
    /// The way that was told last.
    told: Option<via::Told>,
}

/// An object that says what kind it is.
#[derive(Serialize)]
struct Tagged<'a, T> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    #[serde(flatten)]
    object: &'a T,
}

#[derive(Serialize)]
struct List<'a, T> {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    items: &'a [T],
}

/// What `get --watch -o json` says of a change.
#[derive(Serialize)]
struct Changed<'a, T> {
    event: &'static str,
    object: Tagged<'a, T>,
}

/// How a listed thing changed between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Changed,
    Gone,
}

impl Change {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Changed => "CHANGED",
            Self::Gone => "GONE",
        }
    }
}

impl Output {
    /// Standard output as the environment has it.
    pub fn new(format: Format, environment: &Environment) -> Self {
        Self {
            format,
            colour: environment.stdout.colour,
            terminal: environment.stdout.is_terminal,
            out: BufWriter::new(io::stdout()),
            via: client::Via::default(),
            told: None,
        }
    }

    /// Where the client notes by which way answers come; what is written says so.
    pub(crate) fn via(&self) -> client::Via {
        self.via.clone()
    }

    /// Tells people by which way an answer came, when it is another than before.
    fn tell_way(&mut self) {
        let route = self.via.last();
        let told = route.as_ref().map(via::Told::of);
        if told != self.told
            && let Some(route) = &route
        {
            note(via::line(route));
        }
        self.told = told;
    }

    fn way(&self) -> Option<Via> {
        self.via.last().map(Via::from)
    }

    /// The form that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Is somebody looking at it, rather than a program or a file?
    pub(crate) fn is_for_people(&self) -> bool {
        self.terminal && matches!(self.format, Format::Table | Format::Wide)
    }

    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// One line of text.
    pub fn line(&mut self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Text as it is, whatever the form: completions, file contents.
    pub fn raw(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(text)
    }

    /// What was written is with whoever reads.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(crate) fn lines(&mut self, lines: &[Line]) -> io::Result<()> {
        self.tell_way();
        lines
            .iter()
            .try_for_each(|line| writeln!(self.out, "{}", line.paint(self.colour)))
    }

    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        table
            .lines()
            .iter()
            .try_for_each(|line| writeln!(self.out, "{}", line.paint(self.colour)))
    }

    /// Many of a kind; an empty table is told on standard error, so that programs read nothing.
    pub(crate) fn list<R: Listed>(&mut self, items: &[R], now: Timestamp) -> io::Result<()> {
        self.tell_way();
        match self.format {
            Format::Table | Format::Wide if items.is_empty() => {
                note(format_args!("No {} found.", R::PLURAL));
                Ok(())
            }
            Format::Table | Format::Wide => self.table(&lists::table(items, self.is_wide(), now)),
            Format::Json | Format::Yaml => self.document(&List {
                kind: format!("{}List", R::KIND),
                via: self.way(),
                items,
            }),
        }
    }

    /// One of a kind, as a table of one row.
    pub(crate) fn one<R: Listed>(&mut self, item: &R, now: Timestamp) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.list(std::slice::from_ref(item), now),
            Format::Json | Format::Yaml => {
                self.tell_way();
                self.document(&Tagged {
                    kind: R::KIND,
                    via: self.way(),
                    object: item,
                })
            }
        }
    }

    /// One object, by lines for people.
    pub(crate) fn object<T: Serialize>(
        &mut self,
        kind: &'static str,
        object: &T,
        lines: impl FnOnce(bool) -> Vec<Line>,
    ) -> io::Result<()> {
        self.tell_way();
        match self.format {
            Format::Table | Format::Wide => {
                let lines = lines(self.is_wide());
                self.lines(&lines)
            }
            Format::Json | Format::Yaml => self.document(&Tagged {
                kind,
                via: self.way(),
                object,
            }),
        }
    }

    /// One object of a stream: a line of JSON, or a YAML document. Sent at once.
    pub(crate) fn streamed<T: Serialize>(&mut self, kind: &'static str, object: &T) -> io::Result<()> {
        self.tell_way();
        self.record(&Tagged {
            kind,
            via: self.way(),
            object,
        })
    }

    /// One change of a watched list, for programs. Sent at once.
    pub(crate) fn change<R: Resource>(&mut self, change: Change, object: &R) -> io::Result<()> {
        let event = match change {
            Change::Added => "added",
            Change::Changed => "changed",
            Change::Gone => "gone",
        };
        self.record(&Changed {
            event,
            object: Tagged {
                kind: R::KIND,
                via: self.way(),
                object,
            },
        })
    }

    fn record<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        if self.format == Format::Yaml {
            let text = serde_saphyr::to_string(record).map_err(io::Error::other)?;
            write!(self.out, "---\n{text}")?;
        } else {
            serde_json::to_writer(&mut self.out, record)?;
            writeln!(self.out)?;
        }
        self.out.flush()
    }

    fn document<T: Serialize>(&mut self, document: &T) -> io::Result<()> {
        if self.format == Format::Yaml {
            let text = serde_saphyr::to_string(document).map_err(io::Error::other)?;
            write!(self.out, "{text}")
        } else {
            serde_json::to_writer_pretty(&mut self.out, document)?;
            writeln!(self.out)
        }
    }
}

/// Something that people should know and programs need not: on standard error.
pub fn note(text: impl fmt::Display) {
    // Nobody reads it: nobody misses it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks on standard error; anything but `y` or `yes` is no.
pub(crate) fn confirm(question: &str) -> io::Result<bool> {
    let mut err = io::stderr();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Says why a command failed, and what to try.
pub fn tell_failure(failure: &Failure, environment: &Environment) {
    if matches!(failure, Failure::ClosedPipe | Failure::Interrupted) {
        return;
    }
    let tint = if environment.stderr.colour {
        Tint::Bad
    } else {
        Tint::Plain
    };
    let text = words::harmless_lines(&failure.to_string());
    note(format_args!("{} {text}", tint.paint("error:")));
    for detail in failure.details() {
        note(format_args!(
            "  {}",
            words::harmless_lines(&detail).replace('\n', "\n  ")
        ));
    }
}

//! Reads a YAML document so that *every* error in it is reported, each with its line and field.
//!
//! serde stops at the first error; somebody who mends a configuration at three in the morning wants them all. So the
//! document is read into a tree that remembers where each value stands, and taken apart with [`Table`]s and [`Item`]s,
//! which note what is wrong in one list and carry on with the default.
//!
//! ```
//! use blackstart_proto::yaml;
//!
//! let problems = yaml::read("agent.yaml", "interval: soon\nnmae: x\n", |table| {
//!     table.duration("interval");
//!     table.string("name");
//! })
//! .unwrap_err();
//! assert_eq!(problems.list.len(), 2);
//! ```

mod tree;
mod words;

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use serde_saphyr::Spanned;

use tree::{Node, Value};
use words::parse_size;
pub use words::{nearest, parse_duration};

/// Larger documents are refused: no configuration or inventory comes near it.
pub const MAX_BYTES: usize = 4 << 20;
/// No file here nests half as deep. Each level costs stack, and a thread may have no more than 2 MiB of it.
const DEEPEST: usize = 16;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when the place is not known.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The field, as `gate.dead_man_worker` or `clusters[1].name`; empty for the document as a whole.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Everything that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file, for people.
    pub file: String,
    /// Never empty; in the order of the lines.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", self.file, problem.line, problem.column)?;
            if !problem.field.is_empty() {
                write!(f, "{}: ", problem.field)?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads `text` as one table. `take` takes it apart; keys that it never asked for are problems too.
///
/// # Errors
/// Everything that is wrong, syntax errors alone, since nothing can be read past them.
pub fn read<T>(file: &str, text: &str, take: impl FnOnce(&mut Table) -> T) -> Result<T, Problems> {
    let fail = |list| Problems {
        file: file.to_owned(),
        list,
    };
    if text.len() > MAX_BYTES {
        let message = format!("{} bytes is too large; the limit is {MAX_BYTES}", text.len());
        return Err(fail(vec![Problem {
            line: 1,
            column: 1,
            field: String::new(),
            message,
        }]));
    }
    let sink = Rc::new(RefCell::new(Vec::new()));
    let root = if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        Node {
            line: 1,
            column: 1,
            value: Value::Table(Vec::new()),
        }
    } else {
        // `trigger: off` and `rack: no` are texts.
        let options = serde_saphyr::options! {
            strict_booleans: true,
            budget: serde_saphyr::budget! { max_depth: DEEPEST },
        };
        match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
            Ok(spanned) => Node::from(spanned),
            Err(error) => {
                let (line, column) = error
                    .location()
                    .map_or((0, 0), |place| (place.line(), place.column()));
                let message = format!("not valid YAML: {}", plain(&error.to_string()));
                return Err(fail(vec![Problem {
                    line,
                    column,
                    field: String::new(),
                    message,
                }]));
            }
        }
    };
    let item = Item {
        node: root,
        path: String::new(),
        sink: Rc::clone(&sink),
    };
    let taken = item.table().map(|mut table| take(&mut table));
    let mut list = sink.take();
    match taken {
        Some(taken) if list.is_empty() => Ok(taken),
        _ => {
            list.sort_by_key(|problem| (problem.line, problem.column));
            Err(fail(list))
        }
    }
}

/// The first line of a parser's message: the rest is a drawing of the place, which is told otherwise.
fn plain(message: &str) -> &str {
    let line = message.lines().next().unwrap_or(message);
    // The place is told already, and the rest is for whoever calls the parser.
    let line = match line.strip_prefix("error: line ") {
        Some(rest) => rest.split_once(": ").map_or(line, |(_, what)| what),
        None => line,
    };
    line.split_once(", set DuplicateKeyPolicy")
        .map_or(line, |(what, _)| what)
}

type Sink = Rc<RefCell<Vec<Problem>>>;

/// One value and where it stands.
#[derive(Debug, Clone)]
pub struct Item {
    node: Node,
    path: String,
    sink: Sink,
}

impl Item {
    /// The line it stands in, from 1.
    pub fn line(&self) -> u64 {
        self.node.line
    }

    /// Its field, as in [`Problem::field`].
    pub fn field(&self) -> &str {
        &self.path
    }

    /// Notes that something is wrong with it.
    pub fn problem(&self, message: impl Into<String>) {
        self.sink.borrow_mut().push(self.finding(message));
    }

    /// Something about it that is not noted as wrong: a warning.
    pub fn finding(&self, message: impl Into<String>) -> Problem {
        Problem {
            line: self.node.line,
            column: self.node.column,
            field: self.path.clone(),
            message: message.into(),
        }
    }

    fn wrong(&self, expected: &str) {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        self.problem(format!("expected {expected}, found {found}"));
    }

    /// It as a table.
    pub fn table(self) -> Option<Table> {
        if !matches!(self.node.value, Value::Table(_) | Value::Null) {
            self.wrong("a table (key: value)");
            return None;
        }
        let Self { node, path, sink } = self;
        let entries = match node.value {
            Value::Table(entries) => entries,
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_) => Vec::new(),
        };
        let entries = entries
            .into_iter()
            .map(|(key, value)| Entry {
                line: key.referenced.line(),
                column: key.referenced.column(),
                key: key.value,
                value: Some(value.into()),
            })
            .collect();
        Some(Table {
            entries,
            asked: Vec::new(),
            line: node.line,
            column: node.column,
            path,
            sink,
        })
    }

    /// It as a list.
    pub fn list(self) -> Option<Vec<Self>> {
        let Value::List(values) = self.node.value else {
            self.wrong("a list");
            return None;
        };
        let items = values.into_iter().enumerate().map(|(index, value)| Self {
            node: value.into(),
            path: format!("{}[{index}]", self.path),
            sink: Rc::clone(&self.sink),
        });
        Some(items.collect())
    }

    /// Is it a table, not a scalar?
    pub fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    /// It as text. Numbers and booleans are taken as they are written in decimal.
    pub fn string(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) if !text.trim().is_empty() => Some(text.clone()),
            Value::Integer(value) => Some(value.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Table(_) => {
                self.wrong("a text");
                None
            }
        }
    }

    /// It as text, and never a number taken for one: 0123 would lose its zero. What was found is not quoted, since it may be a secret.
    pub fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Table(_) => {
                self.problem("expected a text in quotes");
                None
            }
        }
    }

    /// It as a yes or no.
    pub fn boolean(&self) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.wrong("true or false");
        None
    }

    /// It as a whole number within `range`.
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        if let Value::Integer(value) = self.node.value
            && let Ok(value) = u64::try_from(value)
            && range.contains(&value)
        {
            return Some(value);
        }
        self.wrong(&format!(
            "a whole number from {} to {}",
            range.start(),
            range.end()
        ));
        None
    }

    /// It as a duration: `"250ms"`, `"90s"`, `"10m"`, `"2h"`.
    pub fn duration(&self) -> Option<Duration> {
        if let Value::Text(text) = &self.node.value
            && let Some(duration) = parse_duration(text)
        {
            return Some(duration);
        }
        self.wrong("a duration such as \"250ms\", \"90s\", \"10m\" or \"2h\"");
        None
    }

    /// It as a number of bytes: `65536`, `"16MiB"`, `"2GiB"`.
    pub fn size(&self) -> Option<u64> {
        match &self.node.value {
            Value::Integer(value) if u64::try_from(*value).is_ok() => return u64::try_from(*value).ok(),
            Value::Text(text) => {
                if let Some(size) = parse_size(text) {
                    return Some(size);
                }
            }
            Value::Integer(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Table(_) => {}
        }
        self.wrong("a size such as 65536, \"512KiB\", \"16MiB\" or \"2GiB\"");
        None
    }

    /// It as an address with a port. Names are refused: nothing on the way back up may resolve one.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let text = self.string()?;
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        self.wrong(
            "an address and port such as \"10.0.0.1:7443\" (not a name: DNS may be down when it is needed)",
        );
        None
    }

    /// It as an IP address.
    pub fn ip_address(&self) -> Option<IpAddr> {
        let text = self.string()?;
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        self.wrong("an IP address such as \"10.0.0.1\" (not a name: DNS may be down when it is needed)");
        None
    }

    /// It as one of `choices`.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        if let Value::Text(text) = &self.node.value
            && let Some((_, value)) = choices.iter().find(|(name, _)| name == text)
        {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.wrong(&format!("one of {}", names.join(", ")));
        None
    }
}

#[derive(Debug)]
struct Entry {
    key: String,
    line: u64,
    column: u64,
    /// Taken out when it is asked for; what is left at the end is unknown.
    value: Option<Node>,
}

/// A table that is taken apart key by key. When it is dropped, keys that nobody asked for are noted as problems.
#[derive(Debug)]
pub struct Table {
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
    line: u64,
    column: u64,
    path: String,
    sink: Sink,
}

impl Table {
    /// The line it begins in, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The field of `key` in this table.
    pub fn field(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Takes the value of `key`, if it is there.
    pub fn item(&mut self, key: &'static str) -> Option<Item> {
        self.asked.push(key);
        let path = self.field(key);
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        let node = entry.value.take()?;
        Some(Item {
            node,
            path,
            sink: Rc::clone(&self.sink),
        })
    }

    /// Takes the value of `key`, and notes a problem if it is missing.
    pub fn required(&mut self, key: &'static str) -> Option<Item> {
        let item = self.item(key);
        if item.is_none() {
            self.problem(key, "is missing");
        }
        item
    }

    /// Notes that something is wrong with `key` of this table, at the table's place.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        self.sink.borrow_mut().push(Problem {
            line: self.line,
            column: self.column,
            field: self.field(key),
            message: message.into(),
        });
    }

    /// [`Item::table`] of `key`.
    pub fn table(&mut self, key: &'static str) -> Option<Self> {
        self.item(key)?.table()
    }

    /// [`Item::list`] of `key`.
    pub fn list(&mut self, key: &'static str) -> Option<Vec<Item>> {
        self.item(key)?.list()
    }

    /// [`Item::string`] of `key`.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.item(key)?.string()
    }

    /// [`Item::boolean`] of `key`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.item(key)?.boolean()
    }

    /// [`Item::integer`] of `key`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.item(key)?.integer(range)
    }

    /// [`Item::duration`] of `key`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.item(key)?.duration()
    }

    /// [`Item::size`] of `key`.
    pub fn size(&mut self, key: &'static str) -> Option<u64> {
        self.item(key)?.size()
    }

    /// [`Item::socket_address`] of `key`.
    pub fn socket_address(&mut self, key: &'static str) -> Option<SocketAddr> {
        self.item(key)?.socket_address()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for entry in self.entries.iter().filter(|entry| entry.value.is_some()) {
            let message = match nearest(&entry.key, &self.asked) {
                Some(known) => format!("is not known; did you mean \"{known}\"?"),
                None => format!("is not known; known here: {}", self.asked.join(", ")),
            };
            self.sink.borrow_mut().push(Problem {
                line: entry.line,
                column: entry.column,
                field: self.field(&entry.key),
                message,
            });
        }
    }
}

#[cfg(test)]
mod tests;

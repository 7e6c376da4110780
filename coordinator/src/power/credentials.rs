//! Users and passwords of management controllers: a file for the coordinator's user alone. Never logged, and never quoted in an error.
//!
//! ```yaml
//! user: blackstart
//! password: "..."
//! nodes:                       # those that have their own
//!   - {name: biz-4, user: blackstart, password: "..."}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use blackstart_proto::yaml::{self, Item, Table};
use data_encoding::BASE64;
use hyper::header::HeaderValue;

use super::error::SetupError;
use crate::inventory::NodeName;

/// Who one is to a management controller.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Account {
    user: String,
    password: String,
}

impl Account {
    /// `Authorization` by RFC 7617, which DSP0266 ("HTTP Basic authentication") has every service take. Not shown in debug output.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let both = format!("{}:{}", self.user, self.password);
        let basic = format!("Basic {}", BASE64.encode(both.as_bytes()));
        let mut header = HeaderValue::from_str(&basic).map_err(|error| error.to_string())?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        f.debug_struct("Account")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    usual: Option<Account>,
    own: BTreeMap<NodeName, Account>,
}

impl Credentials {
    /// Reads it, if nobody else can.
    pub(super) fn load(path: &Path) -> Result<Self, SetupError> {
        let of_file = |source| SetupError::Read {
            what: "the credentials of management controllers",
            path: path.to_owned(),
            source,
        };
        if let Some(mode) = blackstart_proto::tls::exposed(path) {
            return Err(SetupError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let text = fs::read_to_string(path).map_err(of_file)?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// The text of the file, which is called `name` in messages.
    fn parse(name: &str, text: &str) -> Result<Self, SetupError> {
        let read = yaml::read(name, text, |top| {
            let usual = (top.item("user"), top.item("password"));
            let mut read = Self {
                usual: match usual {
                    (None, None) => None,
                    (user, password) => account(top, user, password),
                },
                own: BTreeMap::new(),
            };
            for item in top.list("nodes").unwrap_or_default() {
                let Some(mut table) = item.table() else { continue };
                let name = table.required("name").as_ref().and_then(Item::string);
                let (user, password) = (table.item("user"), table.item("password"));
                let account = account(&table, user, password);
                if let (Some(name), Some(account)) = (name, account) {
                    read.own.insert(NodeName(name), account);
                }
            }
            read
        });
        // A message quotes what it is about, which may be a password: only the place is told.
        read.map_err(|problems| {
            let lines = problems.list.iter().map(|problem| {
                let what = match problem.field.as_str() {
                    "" => "cannot be read as YAML".to_owned(),
                    field if field.ends_with("password") || field.ends_with("user") => {
                        format!("{field}: is missing, or not a text in quotes")
                    }
                    field if field == "nodes" || field.ends_with("name") => {
                        format!("{field}: is not as expected")
                    }
                    _ => "a key that is not known; known: user, password, nodes, and name in each of them"
                        .to_owned(),
                };
                format!("{}:{}:{}: {what}", problems.file, problem.line, problem.column)
            });
            SetupError::Invalid(lines.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Who one is to the controller of this node.
    pub(super) fn of(&self, node: &NodeName) -> Option<&Account> {
        self.own.get(node).or(self.usual.as_ref())
    }
}

fn account(table: &Table, user: Option<Item>, password: Option<Item>) -> Option<Account> {
    let text = |key, item: Option<Item>| {
        let Some(item) = item else {
            table.problem(key, "is missing");
            return None;
        };
        // A number may be written otherwise than it is read: 0123 is 123.
        item.text()
    };
    let (user, password) = (text("user", user), text("password", password));
    let (user, password) = (user?, password?);
    if user.contains(':') {
        // RFC 7617: it would end there.
        table.problem("user", "cannot have a colon");
        return None;
    }
    Some(Account { user, password })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName(name.to_owned())
    }

    #[test]
    fn a_node_has_its_own_account_or_the_usual_one() {
        let text =
            "user: root\npassword: \"0123\"\nnodes:\n  - {name: biz-4, user: ipmi, password: \"a:b c\"}\n";
        let read = Credentials::parse("f", text).unwrap();
        // echo -n root:0123 | base64
        assert_eq!(
            read.of(&node("biz-1")).unwrap().header().unwrap(),
            "Basic cm9vdDowMTIz"
        );
        assert_eq!(
            read.of(&node("biz-4")).unwrap().header().unwrap(),
            "Basic aXBtaTphOmIgYw=="
        );
        let own = Credentials::parse("f", "nodes: [{name: biz-4, user: a, password: b}]").unwrap();
        assert!(own.of(&node("biz-1")).is_none() && own.of(&node("biz-4")).is_some());
    }

    #[test]
    fn no_message_and_no_debug_output_has_a_password() {
        for text in [
            "user: root\npassword: 1234567.5\n",
            "user: root\npassword: 1234567\n",
            "user: root\npassword: [\"1234567\"]\n",
            "user: root\npasswort: \"1234567\"\n",
            "user: root\n\"1234567\": x\n",
            "user: root\npassword: \"1234567\n",
            "user: root\npassword: \"x\"\nnodes: 1234567\n",
            "user: root\npassword: \"x\"\nnodes: [{name: a, user: b, password: 1234567}]\n",
        ] {
            let error = Credentials::parse("bmc.yaml", text).unwrap_err().to_string();
            assert!(
                !error.contains("1234567") && error.starts_with("bmc.yaml:"),
                "{text}: {error}"
            );
        }
        let read = Credentials::parse("f", "user: root\npassword: \"1234567\"\n").unwrap();
        let header = read.of(&node("a")).unwrap().header().unwrap();
        let shown = format!("{read:?} {header:?}");
        assert!(!shown.contains("1234567") && !shown.contains("Basic"), "{shown}");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bmc.yaml");
        fs::write(&file, "user: root\npassword: \"x\"\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::load(&file).unwrap_err().to_string();
        assert!(
            error.contains("mode 640") && error.contains("chmod 600"),
            "{error}"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Credentials::load(&file).unwrap();
        let gone = Credentials::load(&dir.path().join("none")).unwrap_err();
        assert!(gone.to_string().contains("read the credentials"), "{gone}");
    }
}

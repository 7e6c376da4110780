//! A real journald, in a mount namespace of its own: its archived files go, and it goes on writing; and it gets the agent's log with fields.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use blackstart_agent::remedy::vacuum_journal::{VacuumRules, vacuum};
use blackstart_agent::report::journal::MESSAGE_IDS;
use serde_json::Value;
use tokio::time::Instant;

/// The namespace: `/run` and `/var/log/journal` are the test's own. It does what it is told, line by line, and answers
/// each with one line. One journald is killed without a word, as by a power loss; the next one finds its open file.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log /var/log/journal
mount --bind "$0" /var/log/journal
mount --bind "$0/machine-id" /etc/machine-id
begin() { /lib/systemd/systemd-journald & P=$!; until journalctl --flush; do :; done 2> /dev/null; }
A=
trap 'kill -9 $P $A' EXIT
begin
echo ready
while read -r what word; do
    case $what in
        # Not synced, which closes the file for as long as nothing is written.
        write) echo "$word" | systemd-cat; until journalctl -q -o cat | grep -qx "$word"; do :; done ;;
        rotate) journalctl --rotate ;;
        # As systemd starts it: it tells which stream standard error is.
        agent) CONFIG=$word systemd-cat bash -c \
            'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/2) exec "$AGENT" run --config "$CONFIG"' & A=$! ;;
        crash) kill -9 $P; wait $P || :; rm -f /run/systemd/journal/flushed; begin ;;
    esac 2> /dev/null
    echo done
done
"#;

/// The namespace's shell and all in it; gone when dropped.
struct Journald {
    shell: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Journald {
    fn start(journal: &Path) -> Result<Self, String> {
        if !Path::new("/lib/systemd/systemd-journald").exists() {
            return Err("systemd-journald is not installed".to_owned());
        }
        let mut shell = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash", "-c", SCRIPT])
            .arg(journal)
            .env("AGENT", env!("CARGO_BIN_EXE_blackstart-agent"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (to, from) = (shell.stdin.take(), shell.stdout.take());
        let mut journald = Self {
            shell,
            to,
            from: BufReader::new(from.ok_or("no output")?),
        };
        journald.line().map(|_| journald)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(length) if length > 0 => Ok(line),
            _ => Err("journald does not run here".to_owned()),
        }
    }

    fn tell(&mut self, what: &str) {
        let to = self.to.as_mut().expect("it runs");
        writeln!(to, "{what}").expect("it reads");
        self.line().expect("it answers");
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        // At the end of its input the shell ends, and its trap ends journald.
        self.to = None;
        let _reaped = self.shell.wait();
    }
}

fn files(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .expect("the machine's journal")
        .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
        .collect()
}

fn says(dir: &Path, word: &str) -> bool {
    let read = Command::new("journalctl")
        .args(["--no-pager", "--quiet", "-o", "cat", "-D"])
        .arg(dir)
        .output()
        .expect("journalctl");
    String::from_utf8_lossy(&read.stdout)
        .lines()
        .any(|line| line == word)
}

/// The machine whose journal it is.
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A journald that keeps its journal in `dir`; `None` where there is none.
fn journald(dir: &Path) -> Option<Journald> {
    fs::write(dir.join("machine-id"), format!("{ID}\n")).unwrap();
    fs::create_dir(dir.join(ID)).unwrap();
    match Journald::start(dir) {
        Ok(journald) => Some(journald),
        Err(why) => {
            println!("SKIPPED: no journald: {why}");
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "in CI this has to run: {why}"
            );
            None
        }
    }
}

#[test]
fn archived_files_of_a_real_journald_go_oldest_first_and_it_writes_on() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let machine_id = dir.path().join("machine-id");
    let journal = dir.path().join(ID);
    let Some(mut journald) = journald(dir.path()) else {
        return;
    };
    for word in ["first", "second", "third"] {
        journald.tell(&format!("write {word}"));
        journald.tell("rotate");
    }
    journald.tell("write lost");
    journald.tell("crash");
    journald.tell("write last");
    let before = files(&journal);
    let is_archived = |name: &&String| name.contains('@');
    assert_eq!(before.iter().filter(is_archived).count(), 4, "{before:?}");
    assert!(
        before.iter().any(|name| name.ends_with(".journal~")),
        "{before:?}"
    );

    let rules = |keep| VacuumRules {
        journal: dir.path().to_owned(),
        machine_id: machine_id.clone(),
        keep,
    };
    // A byte less than there is: one file has to go, and it is the oldest.
    let all = vacuum(dir.path(), &rules(u64::MAX), true).unwrap().left;
    let one = vacuum(dir.path(), &rules(all - 1), false).unwrap();
    assert_eq!(one.removed.len(), 1, "{one}");
    assert!(!says(&journal, "first") && says(&journal, "second"), "{one}");

    // Everything that may go: what is being written stays, whole and written to.
    let rest = vacuum(dir.path(), &rules(0), false).unwrap();
    assert_eq!(rest.removed.len(), 3, "{rest}");
    let gone: BTreeSet<PathBuf> = rest.removed.iter().chain(&one.removed).cloned().collect();
    assert_eq!(gone.len(), 4);
    let left = files(&journal);
    assert!(
        left.contains("system.journal") && !left.iter().any(|name| name.contains('@')),
        "{left:?}"
    );
    journald.tell("write afterwards");
    assert!(!says(&journal, "third") && says(&journal, "last") && says(&journal, "afterwards"));
    assert!(vacuum(dir.path(), &rules(0), false).unwrap().removed.is_empty());
}

/// Everything, for whoever looks for what is not there.
fn all(dir: &Path) -> String {
    let read = Command::new("journalctl")
        .args(["--quiet", "_TRANSPORT=stdout", "+", "_TRANSPORT=journal", "-D"])
        .arg(dir)
        .output()
        .expect("journalctl");
    String::from_utf8_lossy(&read.stdout).into_owned()
}

/// The first entry that all of `matches` hold for.
fn entry(dir: &Path, matches: &[&str]) -> Value {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let read = Command::new("journalctl")
            .args(["--no-pager", "--quiet", "-o", "json", "-D"])
            .arg(dir)
            .args(matches)
            .output()
            .expect("journalctl");
        if let Some(line) = read.stdout.split(|byte| *byte == b'\n').next()
            && !line.is_empty()
        {
            return serde_json::from_slice(line).unwrap();
        }
        assert!(
            Instant::now() < deadline,
            "no entry of {matches:?} among:\n{}",
            all(dir)
        );
        // journalctl itself takes its time: no busier than this.
        std::thread::yield_now();
    }
}

#[test]
fn conditions_and_remedies_are_entries_with_fields_that_no_file_name_can_forge() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(mut journald) = journald(dir.path()) else {
        return;
    };
    let journal = dir.path().join(ID);
    let certificates = dir.path().join("certificates");
    fs::create_dir(&certificates).unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2019, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let expired = parameters.self_signed(&key).unwrap().pem();
    let bad = "x\nBLACKSTART_CONDITION=Forged\nMESSAGE=forged\u{1b}[31m.crt";
    fs::write(certificates.join(bad), expired).unwrap();
    let configuration = dir.path().join("agent.yaml");
    let text = format!(
        "node: node-1\nstate_dir: {0}/state\nruntime_dir: {0}/runtime\ndry_run: true\nunits: []\n\
         disks: [{{mount_point: /, raise_percent: 1, clear_percent: 0}}]\n\
         preflight: {{certificates: [\"{0}/certificates/*\"]}}\n",
        dir.path().display()
    );
    fs::write(&configuration, text).unwrap();
    journald.tell(&format!("agent {}", configuration.display()));

    let raised = entry(&journal, &["BLACKSTART_CONDITION=CertificateExpired"]);
    let id = |words: &str| {
        MESSAGE_IDS
            .iter()
            .find(|(message, _)| *message == words)
            .unwrap()
            .1
    };
    assert_eq!(raised["MESSAGE_ID"], id("condition raised"), "{raised}");
    assert_eq!(raised["BLACKSTART_SEVERITY"], "critical", "{raised}");
    assert_eq!(raised["PRIORITY"], "3", "{raised}");
    assert_eq!(raised["SYSLOG_IDENTIFIER"], "blackstart-agent", "{raised}");
    let escaped = r"x\nBLACKSTART_CONDITION=Forged\nMESSAGE=forged\u{1b}[31m.crt";
    let subject = raised["BLACKSTART_SUBJECT"].as_str().unwrap();
    assert!(subject.ends_with(escaped), "{raised}");
    let message = raised["MESSAGE"].as_str().unwrap();
    assert!(
        message.starts_with("condition raised condition=\"CertificateExpired\""),
        "{message}"
    );
    assert!(!message.contains('\n'), "{message}");

    let begun = entry(&journal, &[&format!("MESSAGE_ID={}", id("remedy begun"))]);
    let sequence = begun["BLACKSTART_SEQUENCE"].as_str().unwrap();
    let ended = entry(
        &journal,
        &[
            &format!("BLACKSTART_SEQUENCE={sequence}"),
            &format!("MESSAGE_ID={}", id("remedy ended")),
        ],
    );
    for field in ["BLACKSTART_REMEDY", "BLACKSTART_SUBJECT"] {
        assert!(
            begun[field].is_string() && begun[field] == ended[field],
            "{begun} {ended}"
        );
    }
    let outcome = ended["BLACKSTART_OUTCOME"].as_str();
    let priority = if outcome == Some("succeeded") { "6" } else { "4" };
    assert!(matches!(outcome, Some("succeeded" | "failed")), "{ended}");
    assert_eq!(ended["PRIORITY"], priority, "{ended}");
    assert_eq!(ended["BLACKSTART_DRY_RUN"], "true", "{ended}");

    // A line of its own, or a field, that came from the file's name.
    assert!(!says(&journal, "MESSAGE=forged"));
    let read = Command::new("journalctl")
        .args(["--quiet", "-F", "BLACKSTART_CONDITION", "-D"])
        .arg(&journal)
        .output()
        .unwrap();
    let conditions = String::from_utf8(read.stdout).unwrap();
    assert!(conditions.lines().all(|name| name != "Forged"), "{conditions}");
}

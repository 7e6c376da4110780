//! The commands that need no coordinator, as somebody types them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

fn blackstart(dir: &Path, arguments: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_blackstart"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .output()
        .unwrap();
    Answer {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn the_shipped_inventory_passes() {
    let answer = blackstart(repository(), &["inventory", "lint", "deploy/inventory.yaml"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(
        answer.stdout.contains("no error, 0 warnings"),
        "{}",
        answer.stdout
    );
}

#[test]
fn a_defective_inventory_fails_with_every_error_also_for_programs() {
    let file = "coordinator/tests/data/drill-plan-as-written.yaml";
    let answer = blackstart(repository(), &["inventory", "lint", file]);
    assert_eq!(answer.code, 2);
    assert_eq!(answer.stdout.lines().count(), 3, "{}", answer.stdout);
    assert!(
        answer.stdout.contains(&format!("{file}:29:19: error: ")),
        "{}",
        answer.stdout
    );
    assert!(answer.stderr.contains("3 errors in"), "{}", answer.stderr);

    let answer = blackstart(repository(), &["inventory", "lint", file, "-o", "json"]);
    assert_eq!(answer.code, 2);
    let lint: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(lint["kind"], "InventoryLint");
    assert_eq!(lint["errors"].as_array().unwrap().len(), 3);
    assert_eq!(lint["errors"][0]["line"], 29);
}

#[test]
fn an_authority_is_made_once_and_issues() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| blackstart(dir.path(), arguments);
    let answer = run(&["pki", "issue", "node", "biz-1"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.stderr.contains("blackstart pki init --dir pki"),
        "{}",
        answer.stderr
    );

    assert_eq!(run(&["pki", "init"]).code, 0);
    assert_eq!(run(&["pki", "issue", "coordinator"]).code, 0);
    assert_eq!(run(&["pki", "issue", "operator", "ann", "--days", "30"]).code, 0);
    let answer = run(&["pki", "issue", "node", "biz-1", "-o", "json"]);
    let certificate: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(certificate["role"], "node");
    assert_eq!(certificate["key_file"], "pki/biz-1.key");

    for again in [&["pki", "init"][..], &["pki", "issue", "node", "biz-1"]] {
        let answer = run(again);
        assert_eq!(answer.code, 2);
        assert!(answer.stderr.contains("exists already"), "{}", answer.stderr);
    }
    assert_eq!(run(&["pki", "issue", "node", "biz-1", "--force"]).code, 0);

    let shown = run(&["pki", "show", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let roles: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["authority", "operator", "node", "coordinator"]);
}
